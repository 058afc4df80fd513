"""Decoding as one graph: the same tokens, and nothing in it that looks at what a device has computed."""

import dataclasses

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from muse.models.transformer import MaskedTransformer, TransformerConfig
from muse.pipeline import guided_predict
from muse.sampling import SamplingOptions, decode, generators_for
from muse.sampling.decode import Plan, plan_for, reveal
from muse.sampling.graph import GraphedDecode

CONFIG = TransformerConfig(num_codes=32, height=4, width=4, dim=16, depth=2, heads=2, mlp_dim=32, text_dim=8)
OPTIONS = [
    SamplingOptions(steps=5, guidance=2.0),
    SamplingOptions(steps=6, guidance=0.0, sampler="halton", top_k=3),
    SamplingOptions(steps=8, guidance=1.0, guidance_ramp="constant", remask=0.3, temperature=0.0),
    SamplingOptions(steps=8, guidance=9.0, refresh=3),
]
SEEDS = (3, 4, 5)


@pytest.fixture(scope="module")
def base():
    torch.manual_seed(0)
    return MaskedTransformer(CONFIG).eval()


def texts(seed, device="cpu"):
    num = len(SEEDS)
    text = torch.randn(num, 6, CONFIG.text_dim, generator=torch.Generator().manual_seed(seed)).to(device)
    return text, torch.ones(num, 6, dtype=torch.bool, device=device)


def hidden(device="cpu"):
    return torch.full((len(SEEDS), 16), CONFIG.mask_id, device=device)


@pytest.mark.parametrize("options", OPTIONS)
def test_one_graph_draws_the_tokens_of_decode_whatever_the_text(base, options):
    def predict_of(text, is_word):
        return guided_predict(base, text, is_word, len(SEEDS), options)

    graph = GraphedDecode(predict_of, texts(0), options, hidden(), CONFIG.mask_id)
    drawn = []
    for seed in (1, 2):
        with torch.no_grad():
            expected = decode(hidden(), predict_of(*texts(seed)), options, generators_for(SEEDS), CONFIG.mask_id)
        drawn.append(graph(generators_for(SEEDS), *texts(seed)))
        assert drawn[-1].equal(expected)
    assert not drawn[0].equal(drawn[1])


@pytest.mark.parametrize("options", OPTIONS)
def test_nothing_in_the_loop_looks_at_what_a_device_has_computed(options):
    """On the meta device there are no numbers to look at: any look raises."""
    with torch.device("meta"):
        base = MaskedTransformer(CONFIG)
        noise = torch.rand(options.steps, 2, len(SEEDS), 16)
    known = plan_for(hidden(), options, CONFIG.mask_id)
    plan = Plan(known.steps, known.counts.to("meta"), None if known.halton is None else known.halton.to("meta"))

    def draw(predict):
        return reveal(hidden("meta"), plan, predict, options, CONFIG.mask_id, lambda i: noise[i])

    predict = guided_predict(base, *texts(0, device="meta"), len(SEEDS), options)
    tokens, is_broken = draw(predict)
    assert (tokens.shape, is_broken.shape) == ((len(SEEDS), 16), (options.steps,))

    def curious(tokens, is_hidden, step):
        assert is_hidden.any()
        return predict(tokens, is_hidden, step)

    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        draw(curious)


def test_a_grid_that_is_not_square_is_drawn_in_halton_order_too():
    config = dataclasses.replace(CONFIG, height=2, width=8)
    torch.manual_seed(0)
    base, options = MaskedTransformer(config).eval(), SamplingOptions(steps=4, sampler="halton")

    def predict_of(text, is_word):
        return guided_predict(base, text, is_word, len(SEEDS), options)

    graph = GraphedDecode(predict_of, texts(0), options, hidden(), config.mask_id, height=2)
    expected = decode(hidden(), predict_of(*texts(1)), options, generators_for(SEEDS), config.mask_id, height=2)
    assert graph(generators_for(SEEDS), *texts(1)).equal(expected)


@pytest.mark.parametrize("options", [OPTIONS[0], OPTIONS[3]])
def test_what_a_graph_holds_is_the_loop_for_any_text_and_noise(base, options):
    """The operations of one call, taken down and done again on other numbers, as a GPU's graph does them: nothing of
    the first text is left in it."""

    def predict_of(text, is_word):
        return guided_predict(base, text, is_word, len(SEEDS), options)

    function = GraphedDecode(predict_of, texts(0), options, hidden(), CONFIG.mask_id).graph.function
    noise = [torch.rand(options.steps, 2, len(SEEDS), 16, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    with torch.no_grad():
        taken_down = make_fx(function)(noise[0], *texts(0))
        found, wanted = (each(noise[1], *texts(1)) for each in (taken_down, function))
    assert all(one.equal(other) for one, other in zip(found, wanted, strict=True))
