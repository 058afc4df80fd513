"""What a step of drawing computes: only hidden tokens' logits, and only what has changed."""

import subprocess
import sys
from typing import Any

import pytest
import torch

from muse.guidance import combine, guidance_scale
from muse.models.layers import Kept
from muse.models.reuse import Focus, Reuse, Rhythm
from muse.models.superres import SuperResConfig, SuperResTransformer
from muse.models.transformer import MaskedTransformer, TransformerConfig
from muse.pipeline import guided_predict, superres_predict
from muse.sampling import EditOptions, SamplingOptions, decode, edit, generators_for
from muse.shapes import Step

SHAPE: dict[str, Any] = {
    "num_codes": 40,
    "height": 8,
    "width": 8,
    "dim": 32,
    "depth": 2,
    "heads": 2,
    "mlp_dim": 64,
    "text_dim": 8,
}
LOW: dict[str, Any] = {
    "low_num_codes": 20,
    "low_height": 4,
    "low_width": 4,
    "low_depth": 1,
    "block": 4,
    "aligned": True,
}
MASK_ID, POSITIONS, SEEDS = 40, 64, (5, 6)


def strong(network):
    """A network whose random weights are large enough for its tokens to depend on each other."""
    torch.manual_seed(0)
    network.reset_parameters()
    for parameter in network.parameters():
        parameter.data *= 3
    return network.eval()


@pytest.fixture(scope="module")
def base():
    return strong(MaskedTransformer(TransformerConfig(**SHAPE)))


@pytest.fixture(scope="module")
def superres_full():
    return strong(SuperResTransformer(SuperResConfig(**SHAPE, **LOW, attention="full")))


@pytest.fixture(scope="module")
def superres_axes():
    return strong(SuperResTransformer(SuperResConfig(**SHAPE, **LOW, attention="multi-axis")))


EACH = pytest.mark.parametrize("which", ["base", "superres_full", "superres_axes"])


def seeded(seed):
    return torch.Generator().manual_seed(seed)


TEXT = torch.randn(2, 5, 8, generator=seeded(0))
IS_WORD = torch.ones(2, 5, dtype=torch.bool)
LOW_TOKENS = torch.randint(20, (2, 16), generator=seeded(1))
TOKENS = torch.randint(MASK_ID, (2, POSITIONS), generator=seeded(2))


def half_hidden():
    """Two samples with other numbers of hidden tokens: 40 and 30."""
    start = TOKENS.clone()
    start[0, :40], start[1, 34:] = MASK_ID, MASK_ID
    return start


def network_and_predict(which, options, request):
    """A network as a function of tokens and branch, and the predict that the pipeline makes of it."""
    network = request.getfixturevalue(which)
    if which == "base":
        contexts = network.read(TEXT, IS_WORD), None
        return network, contexts, guided_predict(network, TEXT, IS_WORD, 2, options)
    contexts = network.read(LOW_TOKENS, TEXT, IS_WORD), network.read(LOW_TOKENS)
    return network, contexts, superres_predict(network, LOW_TOKENS, TEXT, IS_WORD, options)


@EACH
@pytest.mark.parametrize(
    "options",
    [
        SamplingOptions(steps=7, guidance=3.0, refresh=1),
        SamplingOptions(steps=7, guidance=0.0, top_k=3, refresh=1),
        SamplingOptions(steps=7, guidance=1.5, guidance_ramp="constant", remask=0.3, refresh=1),
        SamplingOptions(steps=7, guidance=2.0, sampler="halton", refresh=1),
    ],
)
@pytest.mark.parametrize("start", [torch.full((2, POSITIONS), MASK_ID), half_hidden()], ids=["all", "some"])
@torch.no_grad()
def test_savings_that_are_exact_draw_the_tokens_of_the_plain_network(which, options, start, request):
    network, (told, untold), predict = network_and_predict(which, options, request)

    def plain(tokens, is_hidden, step):
        scale = guidance_scale(step, options.guidance, options.guidance_ramp)
        return combine(network(tokens, told), network(tokens, untold), scale)

    drawn, expected = (decode(start, each, options, generators_for(SEEDS), MASK_ID) for each in (predict, plain))
    assert drawn.equal(expected)


@torch.no_grad()
def test_an_edit_draws_the_tokens_of_the_plain_network(base):
    options = EditOptions(iterations=6, share=0.2, guidance=2.0)
    both = SamplingOptions(guidance=2.0, guidance_ramp="constant", refresh=1)
    told = base.read(TEXT, IS_WORD)

    def plain(tokens, is_hidden, step):
        return combine(base(tokens, told), base(tokens, None), 2.0)

    predict = guided_predict(base, TEXT, IS_WORD, 2, both)
    drawn, expected = (edit(TOKENS, each, options, generators_for(SEEDS), MASK_ID) for each in (predict, plain))
    assert drawn.equal(expected)
    assert not drawn.equal(TOKENS)


@torch.no_grad()
def test_an_edit_computes_what_was_drawn_and_takes_the_rest_from_before():
    """In one layer a token's keys and values depend on that token alone: whoever computes those hidden or just
    drawn draws the very tokens of whoever computes all; in two layers others."""
    for depth, is_same in ((1, True), (2, False)):
        network = strong(MaskedTransformer(TransformerConfig(**{**SHAPE, "depth": depth})))
        drawn = []
        for refresh in (1, 4):
            both = SamplingOptions(guidance=2.0, guidance_ramp="constant", refresh=refresh)
            predict = guided_predict(network, TEXT, IS_WORD, 2, both)
            options = EditOptions(iterations=11, share=0.2, guidance=2.0)
            drawn.append(edit(TOKENS, predict, options, generators_for(SEEDS), MASK_ID))
        assert drawn[0].equal(drawn[1]) == is_same


def logits(network, tokens, focus):
    if isinstance(network, MaskedTransformer):
        return network(tokens, network.read(TEXT, IS_WORD), focus=focus)
    return network(tokens, network.read(LOW_TOKENS, TEXT, IS_WORD), focus=focus)


@EACH
@torch.no_grad()
def test_with_what_was_kept_of_the_same_tokens_some_places_have_the_logits_of_all(which, request):
    network, tokens = request.getfixturevalue(which), half_hidden()
    kept = tuple(Kept() for _ in network.layers)
    of_all = logits(network, tokens, Focus(kept))
    places = torch.tensor([[3, 60, 17], [0, 5, 63]])
    of_some = logits(network, tokens, Focus(kept, places))
    torch.testing.assert_close(of_some, of_all.take_along_dim(places[..., None], 1))
    wanted = torch.tensor([[2], [1]])
    of_one = logits(network, tokens, Focus(kept, places, wanted))
    torch.testing.assert_close(of_one, of_some.take_along_dim(wanted[..., None], 1))


@torch.no_grad()
def test_only_what_is_computed_is_kept_anew(base):
    kept = tuple(Kept() for _ in base.layers)
    logits(base, TOKENS, Focus(kept))
    before = [torch.clone(each.key_value) for each in kept]  # pyright: ignore[reportArgumentType]
    places = torch.tensor([[7, 9], [1, 2]])
    changed = TOKENS.scatter(1, places, (TOKENS.gather(1, places) + 1) % MASK_ID)
    logits(base, changed, Focus(kept, places))
    for old, new in zip(before, kept, strict=True):
        is_new = (old != new.key_value).any(-1)
        assert is_new.nonzero().tolist() == [[0, 7], [0, 9], [1, 1], [1, 2]]


@pytest.fixture
def computed(base, monkeypatch):
    """A function of options and start tokens: how many positions are computed at each step."""
    seen, forward = [], base.forward

    def counting(tokens, context, *, focus, **other):
        seen.append(POSITIONS if focus.places is None else focus.places.shape[1])
        return forward(tokens, context, focus=focus, **other)

    monkeypatch.setattr(base, "forward", counting)

    def count(options, start):
        seen.clear()
        decode(start, guided_predict(base, TEXT, IS_WORD, 2, options), options, generators_for(SEEDS), MASK_ID)
        return [*seen]

    return count


@torch.no_grad()
def test_between_refreshes_what_was_hidden_before_the_last_step_is_computed(computed):
    everything = torch.full((2, POSITIONS), MASK_ID)
    # Hidden before each of the 6 steps: 64, 61, 55, 45, 32, 16.
    assert computed(SamplingOptions(steps=6, guidance=0, refresh=1), everything) == [64] * 6
    assert computed(SamplingOptions(steps=6, guidance=0, refresh=9), everything) == [64, 64, 61, 55, 45, 32]
    assert computed(SamplingOptions(steps=6, guidance=0, refresh=3), everything) == [64, 64, 61, 64, 45, 32]
    # The unconditional branch is there from the second step on, and has kept nothing of the first.
    assert computed(SamplingOptions(steps=6, guidance=1, refresh=9), everything)[1] == 64
    # Of given tokens nothing is computed after the first step.
    assert computed(SamplingOptions(steps=3, guidance=0, refresh=9), half_hidden()) == [64, 40, 34]


@pytest.fixture
def branches(base, monkeypatch):
    """A function of options: how many branches of guidance are computed at each step."""
    seen, forward = [], base.forward

    def counting(tokens, *given, **other):
        seen.append(len(tokens) // 2)
        return forward(tokens, *given, **other)

    monkeypatch.setattr(base, "forward", counting)

    def count(**options):
        seen.clear()
        options, start = SamplingOptions(steps=9, guidance=2.0, **options), torch.full((2, POSITIONS), MASK_ID)
        decode(start, guided_predict(base, TEXT, IS_WORD, 2, options), options, generators_for(SEEDS), MASK_ID)
        return seen

    return count


@torch.no_grad()
def test_the_unconditional_branch_is_computed_at_refreshes_and_in_the_last_third_of_the_steps(branches):
    assert branches(refresh=2) == [1, 2, 2, 1, 2, 1, 2, 2, 2]
    assert branches(refresh=2, guidance_ramp="constant") == [2, 1, 2, 1, 2, 1, 2, 2, 2]
    assert branches(refresh=5) == [1, 2, 1, 1, 1, 2, 2, 2, 2]
    assert branches(refresh=9) == branches(refresh=1) == [1, 2, 2, 2, 2, 2, 2, 2, 2]
    # What is hidden again was not hidden when the branch was computed.
    assert branches(refresh=2, remask=0.1) == [1, 2, 2, 2, 2, 2, 2, 2, 2]


@EACH
@torch.no_grad()
def test_with_the_unconditional_branch_kept_of_the_same_tokens_nothing_changes(which, request):
    """Of hidden tokens, of which the samples have 40 and 30; and of none else are logits looked at."""
    options = SamplingOptions(steps=9, guidance=2.0, guidance_ramp="constant", refresh=3)
    network, _, predict = network_and_predict(which, options, request)
    tokens = half_hidden()
    is_hidden = tokens == MASK_ID
    asked = []
    hook = network.register_forward_pre_hook(lambda _, given: asked.append(len(given[0])))
    fresh, kept = (predict(tokens, is_hidden, Step(i, 9, 40, 40, draws_for_good=True)) for i in range(2))
    assert asked == [4, 2]
    for i, num in enumerate(is_hidden.sum(1)):
        torch.testing.assert_close(kept[i, :num], fresh[i, :num])
    hook.remove()


@EACH
def test_training_learns_the_same_of_hidden_tokens_though_the_last_layer_computes_no_others(which, request):
    """Of 40 and 30 hidden tokens: their logits, and the gradient of every weight."""
    network, tokens = request.getfixturevalue(which), half_hidden()
    is_hidden, told = tokens == MASK_ID, slice(1)

    def gradients(at):
        text = TEXT[told], IS_WORD[told]
        logits = network(tokens, network.read(*text) if which == "base" else network.read(LOW_TOKENS, *text), at)
        logits = logits if at is not None else logits[is_hidden]
        return logits, torch.autograd.grad(logits.square().sum(), list(network.parameters()))

    seen = []
    hook = network.layers[-1].mlp.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[:-1]))
    (some, of_some), (every, of_every) = gradients(is_hidden), gradients(None)
    hook.remove()
    assert seen == [(70,), (2, POSITIONS)]
    torch.testing.assert_close(some, every)
    for ours, plain in zip(of_some, of_every, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4 * plain.abs().max().item())


@pytest.mark.parametrize("remask", [0.0, 0.3])
@torch.no_grad()
def test_a_picture_of_a_batch_is_the_picture_alone_though_its_neighbour_has_more_to_draw(base, remask):
    options = SamplingOptions(steps=7, guidance=2.0, refresh=4, remask=remask)
    start = half_hidden()

    def draw(rows):
        predict = guided_predict(base, TEXT[rows], IS_WORD[rows], len(TEXT[rows]), options)
        return decode(start[rows], predict, options, generators_for(SEEDS[rows]), MASK_ID)

    together = draw(slice(2))
    for i in range(2):
        assert draw(slice(i, i + 1)).equal(together[i : i + 1])


@EACH
@torch.no_grad()
def test_the_last_layer_ends_where_logits_are_wanted(which, request):
    network, rows = request.getfixturevalue(which), []
    options = SamplingOptions(steps=4, guidance=0.0, refresh=2)
    _, _, predict = network_and_predict(which, options, request)
    hooks = [
        network.layers[i].mlp.register_forward_pre_hook(lambda _, given: rows.append(given[0].shape[1]))
        for i in (0, -1)
    ]
    decode(torch.full((2, POSITIONS), MASK_ID), predict, options, generators_for(SEEDS), MASK_ID)
    for hook in hooks:
        hook.remove()
    # 64, 59, 45 and 24 tokens are hidden before the steps; each second one computes these and what is new.
    assert rows == [64, 64, 64, 59, 64, 45, 45, 24]


@torch.no_grad()
def test_what_is_kept_is_used(base):
    """Else the tests of equality above would say nothing of it."""
    start = torch.full((2, POSITIONS), MASK_ID)

    def draw(refresh):
        options = SamplingOptions(steps=9, guidance=2.0, refresh=refresh)
        return decode(start, guided_predict(base, TEXT, IS_WORD, 2, options), options, generators_for(SEEDS), MASK_ID)

    assert not draw(9).equal(draw(1))


def test_nothing_is_kept_that_no_step_to_come_takes():
    """Keys and values of every position in every layer are much memory."""
    is_hidden = torch.ones(1, 4, dtype=torch.bool)

    def keeps(refresh, guidance=0.0, steps=5):
        reuse = Reuse(2, Rhythm(refresh, guidance, "linear"))
        given = [reuse.focus(is_hidden, Step(index, steps, 4, 4)) for index in range(steps)]
        return "".join("-" if not each.kept else "k" for each in given), reuse.kept

    assert keeps(1) == ("-----", ())
    assert keeps(9, steps=1) == ("-", ())
    assert keeps(2) == ("kkkk-", ())
    # The first step of a linear ramp has one branch, the others two.
    assert keeps(9, guidance=1.0) == ("-kkkk", ())


@torch.no_grad()
def test_what_is_kept_has_the_arithmetic_of_the_step(base):
    """Under autocast, keys and values are not of the type of the weights."""
    options = SamplingOptions(steps=6, guidance=1.0, refresh=3)
    start = torch.full((2, POSITIONS), MASK_ID)
    with torch.autocast("cpu", torch.bfloat16):
        drawn = decode(start, guided_predict(base, TEXT, IS_WORD, 2, options), options, generators_for(SEEDS), MASK_ID)
    assert drawn.max() < MASK_ID


COMPILED = """
import torch
from torch._dynamo.utils import counters
from muse.models.transformer import MaskedTransformer, TransformerConfig
from muse.pipeline import guided_predict
from muse.sampling import SamplingOptions, decode, generators_for

torch.manual_seed(0)
torch._dynamo.config.recompile_limit, torch._dynamo.config.fail_on_recompile_limit_hit = 64, True
config = TransformerConfig(num_codes=40, height=8, width=8, dim=32, depth=2, heads=2, mlp_dim=64, text_dim=8)
network = MaskedTransformer(config).eval()
for parameter in network.parameters():
    parameter.data *= 3
text, is_word, start = torch.randn(2, 5, 8), torch.ones(2, 5, dtype=torch.bool), torch.full((2, 64), 40)

@torch.no_grad()
def draw(refresh):
    options = SamplingOptions(steps=3, guidance=2.0, refresh=refresh)
    return decode(start, guided_predict(network, text, is_word, 2, options), options, generators_for([5, 6]), 40)

reused, exact = draw(9), draw(1)
for layer in network.layers:
    layer.compile(backend="aot_eager")
assert draw(9).equal(reused), "compiled layers draw other tokens"
assert not reused.equal(exact), "nothing was reused"
assert counters["frames"]["ok"] > 0, "nothing was compiled"
"""


def test_compiled_layers_keep_what_they_have_computed_too():
    """They write into what is kept, which a compiler must not leave out: torch's, up to where it makes machine code,
    which takes a minute. In a process without the type checker of the tests, which cannot be compiled."""
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
