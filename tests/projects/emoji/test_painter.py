"""Painting on the device makes the pictures that painting on the processor makes."""

import numpy as np
import pytest
import torch

from projects.emoji.captions import BACKGROUNDS
from projects.emoji.painter import CELLS, Painter, Placements
from projects.emoji.scenes import Scene, paint, place


def painter_of(art, **changes):
    return Painter(art, range(len(art.records)), 6, **changes)


def placements_of(scene, background):
    placed = place(scene, None)
    return Placements(
        items=torch.tensor([[each.item for each in placed]]),
        centres=torch.tensor([[[each.centre_x, each.centre_y] for each in placed]]),
        sides=torch.tensor([[each.side for each in placed]]),
        is_there=torch.ones(1, len(placed), dtype=torch.bool),
        backgrounds=torch.tensor([BACKGROUNDS[background]]) / 255,
    )


@pytest.mark.parametrize(
    "scene",
    [
        Scene("single", (3,), background="sky blue"),
        Scene("pair", (2, 7), relation="left"),
        Scene("count", (5,), count=4, background="black"),
    ],
    ids=lambda scene: scene.kind,
)
def test_it_paints_what_pillow_paints(art, scene):
    painted = painter_of(art).paint(placements_of(scene, scene.background or "white"))
    given = (painted[0].permute(1, 2, 0) * 255).numpy()
    wanted = paint(scene, art).astype(np.float32)
    assert given.shape == wanted.shape
    assert np.abs(given - wanted).mean() < 5  # along the edges, by how they scale; 3 pixels amiss would give 20
    assert np.median(np.abs(given - wanted)) < 1


def test_a_batch_is_a_function_of_the_step_and_the_seed(art):
    first, second = painter_of(art), painter_of(art)
    assert first(4).shape == (6, 3, art.size, art.size)
    assert first(4).equal(second(4))
    assert not first(4).equal(first(5))
    assert not first(4).equal(painter_of(art, seed=1)(4))
    assert 0 <= first(4).min() <= first(4).max() <= 1


def test_things_stay_on_the_picture_and_apart(art):
    placed = Painter(art, range(8), 400).place(torch.Generator().manual_seed(0))
    edges = [(placed.centres - 0.5 + sign * placed.sides[..., None] / 2).abs() for sign in (-1, 1)]
    assert all(edge[placed.is_there].max() <= 0.5 + 1e-6 for edge in edges)
    for i in range(CELLS):
        for j in range(i):
            both = placed.is_there[:, i] & placed.is_there[:, j]
            distance = (placed.centres[:, i] - placed.centres[:, j]).abs().amax(-1)
            reach = (placed.sides[:, i] + placed.sides[:, j]) / 2
            assert (distance >= reach)[both].all()


def test_the_shares_of_singles_and_of_named_backgrounds_are_what_was_asked(art):
    placed = Painter(art, range(8), 4000, singles=0.7, named_background=0.3).place(torch.Generator().manual_seed(0))
    counts = placed.is_there.sum(1)
    assert (counts == 1).float().mean() == pytest.approx(0.7, abs=0.03)
    assert set(counts.tolist()) == {1, 2, 3, 4}
    is_white = (placed.backgrounds == 1).all(1).float().mean()
    assert is_white == pytest.approx(0.7 + 0.3 / len(BACKGROUNDS), abs=0.03)
