"""The arithmetic that pictures are drawn in."""

import copy

import pytest
import torch

from muse.pipeline import Muse
from muse.precision import dtype_for, has_native_bfloat16

PROMPTS = ["a red apple", "two blue dog on the apple , 3d style"]


@pytest.mark.parametrize(("is_native", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_takes_bfloat16_only_where_the_machine_computes_in_it(is_native, dtype, monkeypatch, tiny_folder):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: is_native)
    assert has_native_bfloat16("cpu") == is_native
    assert dtype_for("auto", "cpu") == dtype
    assert Muse.from_pretrained(tiny_folder, "cpu").base.embed.weight.dtype == dtype


def test_an_unknown_precision_is_refused_with_what_to_give():
    with pytest.raises(ValueError, match="precision is 'int4'; give one of 'auto', 'float32', 'bfloat16'"):
        dtype_for("int4", "cpu")


def test_bfloat16_draws_close_to_float32_and_reads_pictures_to_the_same_tokens(tiny_muse):
    rounded = copy.deepcopy(tiny_muse).draw_in(torch.bfloat16)
    assert (tiny_muse.precision, rounded.precision) == ("float32", "bfloat16")
    text, is_word = tiny_muse.text_encoder(PROMPTS)
    tokens = torch.randint(0, 65, (2, 64), generator=torch.Generator().manual_seed(0))
    logits, close = (muse.base(tokens, muse.base.read(text, is_word)).float() for muse in (tiny_muse, rounded))
    assert 0 < (logits - close).abs().max() < 0.05 * logits.abs().max()
    pictures = tiny_muse.generate(PROMPTS, [0, 1])
    assert rounded.to_tokens(pictures).equal(tiny_muse.to_tokens(pictures))
    grid = tokens.clamp(max=63)
    (image, *_), (near, *_) = tiny_muse.to_images(grid), rounded.to_images(grid)
    difference = (torch.tensor(list(image.tobytes())) - torch.tensor(list(near.tobytes()))).abs()
    assert difference.float().mean() < 2
    assert rounded.generate(PROMPTS, [0, 1])[0].size == image.size
