"""The codebook tracker: codes go where their latents are, and dead ones come back."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from muse.models import quantizer as quantizer_module
from muse.models.quantizer import VectorQuantizer
from muse.training.codebook import CodebookTracker

CENTRES = torch.tensor([[-3.0, 0.0], [3.0, 0.0], [0.0, 3.0], [0.0, -3.0]])


def clusters(num=4, seed=0, spread=0.1, centres=CENTRES):
    """A batch of latents, each near one of the centres, all centres equally often."""
    each = centres.repeat(4 * num, 1)
    rows = each + spread * torch.randn(each.shape, generator=torch.Generator().manual_seed(seed))
    return rows.reshape(num, -1, 4, 2).movedim(-1, 1)


def rows_of(latents):
    return latents.movedim(1, -1).reshape(-1, latents.shape[1])


def follow(tracker, quantizer, latents, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tracker.follow(quantizer, latents, quantizer.nearest(latents), generator)


@pytest.fixture
def quantizer():
    torch.manual_seed(0)
    return VectorQuantizer(4, 2).requires_grad_(False)


def test_codes_move_to_the_mean_of_their_latents(quantizer):
    quantizer.codebook.copy_(CENTRES * 0.7)
    tracker = CodebookTracker(4, 2, decay=0.5)
    for step in range(12):
        follow(tracker, quantizer, clusters(seed=step % 2))
    rows = torch.cat([rows_of(clusters(seed=seed)) for seed in (0, 1)])
    means = torch.stack([rows[torch.cdist(rows, CENTRES).argmin(1) == i].mean(0) for i in range(4)])
    torch.testing.assert_close(quantizer.codebook.data, means, atol=0.02, rtol=0)


def test_one_step_is_the_formula_of_the_paper(quantizer):
    """VQ-VAE, appendix A.1: N <- g N + (1-g) n, m <- g m + (1-g) sum z, e = m / N."""
    quantizer.codebook.copy_(CENTRES)
    tracker = CodebookTracker(4, 2, decay=0.9)
    tracker.counts.fill_(5.0)
    tracker.sums.copy_(5.0 * CENTRES)
    latents = clusters()
    tokens = quantizer.nearest(latents).flatten()
    follow(tracker, quantizer, latents)
    for code in range(4):
        mine = rows_of(latents)[tokens == code]
        count = 0.9 * 5 + 0.1 * len(mine)
        total = 0.9 * 5 * CENTRES[code] + 0.1 * mine.sum(0)
        torch.testing.assert_close(tracker.counts[code], torch.tensor(count))
        torch.testing.assert_close(quantizer.codebook[code], total / count)


class Largest(TorchDispatchMode):
    """How many bytes the largest tensor has that torch makes."""

    def __init__(self):
        super().__init__()
        self.num_bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **kwargs or {})
        for each in made if isinstance(made, tuple | list) else [made]:
            if isinstance(each, torch.Tensor):
                self.num_bytes = max(self.num_bytes, each.untyped_storage().nbytes())
        return made


def test_a_large_batch_under_a_large_codebook_takes_no_memory_of_their_product(monkeypatch):
    """At the paper's size that would be tens of GB, however small the parts are in which the batch comes."""
    ends, largest = [], []
    for at_once in (quantizer_module.AT_ONCE, 2**14):
        monkeypatch.setattr(quantizer_module, "AT_ONCE", at_once)
        torch.manual_seed(0)
        quantizer, tracker = VectorQuantizer(512, 4).requires_grad_(False), CodebookTracker(512, 4)
        quantizer.codebook.normal_()
        with Largest() as watch:
            follow(tracker, quantizer, torch.randn(4, 4, 16, 16))
        ends.append((tracker.counts, tracker.sums, quantizer.codebook))
        largest.append(watch.num_bytes)
    assert largest[0] == 4 * 512 * 1024
    assert largest[1] == 4 * 2**14
    assert ends[0][0].equal(ends[1][0])
    for whole, parts in zip(*ends, strict=True):
        torch.testing.assert_close(parts, whole, atol=1e-5, rtol=0)


def test_the_first_batch_initialises_the_codebook():
    torch.manual_seed(0)
    quantizer, tracker = VectorQuantizer(8, 2).requires_grad_(False), CodebookTracker(8, 2)
    latents = clusters()
    rows, tokens = rows_of(latents), quantizer.nearest(latents).flatten()
    revived = follow(tracker, quantizer, latents)
    is_latent = torch.stack([(rows == code).all(1).any() for code in quantizer.codebook])
    assert is_latent.sum() == revived >= 4
    # The others had enough latents near them, and are at their mean.
    for code in (~is_latent).nonzero().flatten():
        torch.testing.assert_close(quantizer.codebook[code], rows[tokens == code].mean(0), atol=1e-4, rtol=0)


def test_dead_codes_are_revived_onto_latents(quantizer):
    """What users of muse-maskgit-pytorch meet as codebook collapse."""
    quantizer.codebook.copy_(torch.cat([CENTRES[:2], torch.full((2, 2), 50.0)]))
    tracker = CodebookTracker(4, 2, decay=0.5)
    tracker.counts.fill_(1.0)
    tracker.sums.copy_(quantizer.codebook)
    revived, steps = [], 0
    while quantizer.codebook.max() > 40:
        revived.append(int(follow(tracker, quantizer, clusters(seed=steps))))
        steps += 1
        assert steps < 10
    assert revived == [0] * (steps - 1) + [2]  # a code dies when its average has faded, not at its first quiet batch
    latents = rows_of(clusters(seed=steps - 1))
    assert all((latents == code).all(1).any() for code in quantizer.codebook[2:])
    for step in range(20):
        follow(tracker, quantizer, clusters(seed=100 + step))
    assert set(quantizer.nearest(clusters(seed=1)).flatten().tolist()) == {0, 1, 2, 3}


def test_dead_codes_go_to_the_latents_that_no_code_fits():
    """Drawn evenly, half of the codes of pictures on white would go to white."""
    torch.manual_seed(0)
    white, colour = torch.tensor([1.0, 1.0]), torch.tensor([-2.0, 0.5])
    rows = torch.stack([white] * 60 + [colour] * 4)
    quantizer, tracker = VectorQuantizer(4, 2).requires_grad_(False), CodebookTracker(4, 2)
    quantizer.codebook.copy_(torch.cat([white[None], torch.full((3, 2), 50.0)]))
    tracker.counts.copy_(torch.tensor([64.0, 0, 0, 0]))
    tracker.sums.copy_(tracker.counts[:, None] * quantizer.codebook)
    assert follow(tracker, quantizer, rows.reshape(1, 8, 8, 2).movedim(-1, 1)) == 3
    torch.testing.assert_close(quantizer.codebook[1:].data, colour.expand(3, 2))


def test_a_large_codebook_is_revived_a_few_codes_at_a_time():
    torch.manual_seed(0)
    quantizer, tracker = VectorQuantizer(64, 2).requires_grad_(False), CodebookTracker(64, 2)
    latents = 5 * torch.randn(4, 2, 8, 8)
    revived = [int(follow(tracker, quantizer, latents)) for _ in range(12)]
    assert max(revived) <= 8
    assert sum(revived) >= 32
    assert len(quantizer.nearest(latents).unique()) > 32


def test_codes_in_use_are_not_revived(quantizer):
    quantizer.codebook.copy_(CENTRES)
    tracker = CodebookTracker(4, 2)
    tracker.counts.fill_(16.0)
    tracker.sums.copy_(16.0 * CENTRES)
    assert [int(follow(tracker, quantizer, clusters(seed=step))) for step in range(5)] == [0] * 5


def test_a_rare_code_of_a_large_codebook_is_no_dead_code():
    """With fewer latents in a batch than codes, most codes are not chosen in any one batch."""
    torch.manual_seed(0)
    centres = 10 * torch.randn(64, 2)
    quantizer, tracker = VectorQuantizer(64, 2).requires_grad_(False), CodebookTracker(64, 2, decay=0.99)
    quantizer.codebook.copy_(centres)
    tracker.counts.fill_(1 / 16)
    tracker.sums.copy_(centres / 16)
    revived = 0
    for step in range(50):
        chosen = torch.arange(4) * 16 + step % 16
        revived += int(follow(tracker, quantizer, centres[chosen].reshape(1, 2, 2, 2).movedim(-1, 1)))
    assert revived == 0


def test_perplexity_and_usage_of_even_and_of_collapsed_counts():
    tracker = CodebookTracker(8, 2)
    tracker.counts.fill_(2.0)
    assert tracker.perplexity().item() == pytest.approx(8)
    assert tracker.usage().item() == 1
    tracker.counts.copy_(torch.tensor([16.0] + [0.0] * 7))
    assert tracker.perplexity().item() == pytest.approx(1)
    assert tracker.usage().item() == pytest.approx(1 / 8)


@pytest.mark.parametrize(("revive_below", "usage"), [(0.1, 1.0), (0.5, 0.5)])
def test_revive_below_is_the_share_of_the_mean_that_counts_as_used(revive_below, usage):
    tracker = CodebookTracker(4, 2, revive_below=revive_below)
    tracker.counts.copy_(torch.tensor([0.4, 0.4, 1.6, 1.6]))
    assert tracker.usage().item() == usage


def test_a_tracker_taken_up_again_goes_on_as_if_never_stopped(quantizer):
    tracker = CodebookTracker(4, 2, decay=0.8)
    for step in range(3):
        follow(tracker, quantizer, clusters(seed=step))
    saved, codes = {name: t.clone() for name, t in tracker.state_dict().items()}, quantizer.codebook.clone()
    assert set(saved) == {"counts", "sums"}

    ends = []
    for again in range(2):
        if again:
            tracker = CodebookTracker(4, 2, decay=0.8)
            tracker.load_state_dict(saved)
            quantizer.codebook.copy_(codes)
        follow(tracker, quantizer, clusters(seed=9))
        ends.append((quantizer.codebook.clone(), tracker.counts.clone(), tracker.sums.clone()))
    assert all(first.equal(second) for first, second in zip(*ends, strict=True))


def test_where_dead_codes_go_is_drawn_by_the_generator_alone():
    ends = []
    for global_seed, seed in ((0, 0), (1, 0), (0, 1)):
        torch.manual_seed(0)
        quantizer, tracker = VectorQuantizer(8, 2).requires_grad_(False), CodebookTracker(8, 2)
        torch.manual_seed(global_seed)
        untouched = torch.get_rng_state()
        assert follow(tracker, quantizer, clusters(), seed) >= 4
        assert torch.get_rng_state().equal(untouched)
        ends.append(quantizer.codebook.clone())
    assert ends[0].equal(ends[1])
    assert not ends[0].equal(ends[2])


def test_no_gradient_flows_through_the_tracker(quantizer):
    latents = clusters().requires_grad_()
    follow(CodebookTracker(4, 2), quantizer, latents)
    assert not quantizer.codebook.requires_grad
    assert latents.grad is None
