"""Operations are counted as far as they are computed; torch counts the same."""

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import flops
from muse.masking import draw_mask_ratio
from muse.models.transformer import MaskedTransformer, TransformerConfig
from muse.pipeline import guided_predict
from muse.sampling import SamplingOptions, decode, generators_for
from muse.training.losses import hidden_token_loss
from muse.training.masked import MaskedTraining

CONFIG = TransformerConfig(num_codes=64, height=8, width=8, dim=64, depth=3, heads=2, mlp_dim=96, text_dim=16)
WORDS = 6


def counted(options):
    """What torch counts while a grid is drawn."""
    torch.manual_seed(0)
    base = MaskedTransformer(CONFIG).eval()
    text, is_word = torch.randn(1, WORDS, CONFIG.text_dim), torch.ones(1, WORDS, dtype=torch.bool)
    plain = sdpa_kernel(SDPBackend.MATH)  # torch does not count a processor's fused attention
    with torch.no_grad(), plain, FlopCounterMode(display=False) as counter:
        predict = guided_predict(base, text, is_word, 1, options)
        decode(torch.full((1, 64), CONFIG.mask_id), predict, options, generators_for([0]), CONFIG.mask_id)
    return counter.get_total_flops()


@pytest.mark.parametrize("refresh", [1, 3, 9])
@pytest.mark.parametrize(
    "guidance", [{"guidance": 0.0}, {"guidance": 2.0}, {"guidance": 2.0, "guidance_ramp": "constant"}]
)
def test_a_picture_has_the_operations_that_torch_counts(guidance, refresh):
    options = SamplingOptions(steps=7, refresh=refresh, **guidance)
    assert flops.of_picture(CONFIG, WORDS, options) == pytest.approx(counted(options), rel=1e-6)


def test_what_is_saved_is_not_counted():
    options = SamplingOptions(steps=18, guidance=3.0, refresh=1)
    everything = 18 * flops.of_forward(CONFIG, WORDS) + 17 * flops.of_forward(CONFIG, WORDS, has_text=False)
    exact = flops.of_picture(CONFIG, WORDS, options)
    reused = flops.of_picture(CONFIG, WORDS, replace(options, refresh=4))
    assert reused < 0.9 * exact < 0.9 * everything


@pytest.mark.parametrize(("told", "num_hidden"), [(4, 50), (3, 17), (0, 64)])
def test_a_training_step_has_the_operations_that_torch_counts(told, num_hidden):
    """The text encoder is frozen: no gradient goes to its states."""
    torch.manual_seed(0)
    base, tokens = MaskedTransformer(CONFIG).train(), torch.randint(64, (4, 64))
    text, is_word = torch.randn(told, WORDS, CONFIG.text_dim), torch.ones(told, WORDS, dtype=torch.bool)
    is_hidden = (torch.arange(64) < num_hidden).expand(4, 64)
    masked = tokens.masked_fill(is_hidden, CONFIG.mask_id)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        logits = base(masked, base.read(text, is_word) if told else None, is_hidden)
        hidden_token_loss(logits, tokens[is_hidden]).backward()
    ours = flops.of_training_step(CONFIG, WORDS, 4, num_hidden / 64, told / 4)
    assert ours == pytest.approx(counter.get_total_flops(), rel=1e-6)


def test_the_shares_of_a_training_step_are_those_of_training():
    generator, num = torch.Generator().manual_seed(0), 20_000
    assert draw_mask_ratio(num, generator, "cpu").mean().item() == pytest.approx(flops.MEAN_HIDDEN, abs=0.01)
    assert MaskedTraining.caption_drop == flops.CAPTION_DROP
    config = replace(CONFIG, num_codes=1024)
    everything = 3 * 8 * (flops.of_forward(config, WORDS) + flops.of_reading(config, WORDS))
    assert flops.of_training_step(config, WORDS, 8) < 0.9 * everything
