"""The arithmetic that pictures are drawn in."""

import copy
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from muse.pipeline import Muse
from muse.precision import dtype_for, exact_convolutions, has_native_bfloat16, number_for

PROMPTS = ["a red apple", "two blue dog on the apple , 3d style"]


@pytest.mark.parametrize(("is_native", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_takes_bfloat16_only_where_the_machine_computes_in_it(is_native, dtype, monkeypatch, tiny_folder):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: is_native)
    assert has_native_bfloat16("cpu") == is_native
    assert dtype_for("auto", "cpu") == dtype
    assert Muse.from_pretrained(tiny_folder, "cpu").base.embed.weight.dtype == dtype


@pytest.mark.parametrize(("device", "is_native"), [("cuda:0", False), ("cuda:1", True)])
def test_a_gpu_that_only_emulates_bfloat16_has_it_not_whatever_another_one_has(device, is_native, monkeypatch):
    current = []

    class Within:
        def __init__(self, device):
            self.index = torch.device(device).index

        def __enter__(self):
            current.append(self.index)

        def __exit__(self, *_):
            current.pop()

    majors = {0: 7, 1: 9}  # a T4 beside an H100
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device", Within)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current[-1] if current else 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(major=majors[index]))
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda index: True)
    assert has_native_bfloat16(device) == is_native


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


def test_int8_draws_close_to_what_auto_draws_and_says_so(tiny_folder):
    muse, narrow = (Muse.from_pretrained(tiny_folder, "cpu", precision) for precision in ("auto", "int8"))
    assert narrow.precision == "int8"
    assert narrow.base.embed.weight.dtype == muse.base.embed.weight.dtype
    text, is_word = muse.text_encoder(PROMPTS)
    tokens = torch.randint(0, 65, (2, 64), generator=torch.Generator().manual_seed(0))
    logits, close = (each.base(tokens, each.base.read(text, is_word)).float() for each in (muse, narrow))
    assert 0 < (logits - close).norm() < 0.1 * logits.norm()
    first, again = (narrow.generate(PROMPTS, [0, 1]) for _ in range(2))
    assert [image.tobytes() for image in first] == [image.tobytes() for image in again]


def test_what_was_rounded_to_8_bits_is_neither_saved_nor_rounded_again(tiny_folder, tmp_path):
    narrow = Muse.from_pretrained(tiny_folder, "cpu", "int8")
    with pytest.raises(ValueError, match="draw in int8 and cannot be saved"):
        narrow.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with pytest.raises(ValueError, match="draw in int8 and cannot be rounded again"):
        narrow.draw_in(torch.float32)


def test_what_was_rounded_to_draw_is_not_saved_as_if_it_were_whole(tiny_folder, tmp_path):
    rounded = Muse.from_pretrained(tiny_folder, "cpu", "bfloat16")
    with pytest.raises(
        ValueError, match=r"rounded to bfloat16 to draw .* load the model again with precision 'float32'"
    ):
        rounded.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    Muse.from_pretrained(tiny_folder, "cpu", "float32").save_pretrained(tmp_path / "new")
    whole, again = (Muse.from_pretrained(each, "cpu", "float32") for each in (tiny_folder, tmp_path / "new"))
    for part, same in zip(whole.modules[1:], again.modules[1:], strict=True):
        assert all(weight.equal(same.state_dict()[name]) for name, weight in part.state_dict().items())


@pytest.mark.parametrize(
    ("precision", "device", "message"),
    [
        ("int8", "cuda", "int8 is for processors"),
        ("float8", "cpu", r"float8 needs a GPU .*8\.9, and the device is cpu"),
    ],
)
def test_8_bits_that_a_device_does_not_multiply_in_are_refused(precision, device, message):
    with pytest.raises(ValueError, match=message):
        number_for(precision, device)


@pytest.mark.parametrize(("capability", "fits"), [((8, 0), False), ((8, 9), True), ((9, 0), True)])
def test_float8_is_for_gpus_that_have_it(capability, fits, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    if fits:
        assert number_for("float8", "cuda") == torch.float8_e4m3fn
    else:
        with pytest.raises(ValueError, match="float8 needs a GPU"):
            number_for("float8", "cuda")


def test_what_draws_in_8_bits_goes_to_no_device_that_does_not_multiply_in_them(tiny_folder):
    narrow = Muse.from_pretrained(tiny_folder, "cpu", "int8")
    with pytest.raises(ValueError, match=r"^precision int8 is for processors, and the device is meta; take float8 or"):
        narrow.to("meta")
    assert narrow.to("cpu").device.type == narrow.vqgan.quantizer.codebook.device.type == "cpu"


def test_tokens_are_of_float32_convolutions_and_training_as_fast_as_a_gpu_has_them(tiny_muse, convolved_in):
    vqgan, pictures = tiny_muse.vqgan, torch.rand(1, 3, 32, 32)
    vqgan.encode(pictures)
    with torch.no_grad():
        vqgan.latents(pictures)
    assert set(convolved_in) == {"ieee"}
    convolved_in.clear()
    vqgan.latents(pictures)
    assert set(convolved_in) == {"tf32"}


def test_exact_convolutions_leave_everything_else_as_it_was():
    backends = cast(Any, torch.backends)
    cudnn = backends.cudnn

    def flags():
        one_by_one = (cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.rnn.fp32_precision)
        return *one_by_one, backends.fp32_precision, backends.cuda.matmul.fp32_precision

    before, allowed = flags(), cudnn.allow_tf32
    with exact_convolutions():
        assert (cudnn.conv.fp32_precision, flags()) == ("ieee", before)
        with exact_convolutions():
            pass
        assert cudnn.conv.fp32_precision == "ieee"
    assert (cudnn.conv.fp32_precision, flags(), cudnn.allow_tf32) == ("tf32", before, allowed)
    cudnn.allow_tf32 = False
    try:
        with exact_convolutions():
            assert not cudnn.allow_tf32
        assert not cudnn.allow_tf32
    finally:
        cudnn.allow_tf32 = allowed


@pytest.mark.parametrize(
    ("types", "message"),
    [
        (("float16",), r"dtype is 'float16'; give one of torch.float32, torch.bfloat16, torch.float16, torch.float64$"),
        ((torch.int8,), "dtype is torch.int8; give one of torch.float32"),
        ((torch.bfloat16, torch.int16), "number is torch.int16; give one of None, torch.int8, torch.float8_e4m3fn$"),
    ],
)
def test_a_type_that_nothing_is_drawn_in_changes_nothing(types, message, tiny_muse, tmp_path, without_type_checks):
    muse = copy.deepcopy(tiny_muse)
    with pytest.raises(ValueError, match=message):
        muse.draw_in(*types)
    assert muse.precision == "float32"
    muse.save_pretrained(tmp_path / "as-it-was")
