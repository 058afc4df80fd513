"""Which positions of a grid a step of drawing computes, and what it takes from the steps before.

A token that was drawn stays what it is, and what the layers make of it changes little from step to step. So between two
steps that compute everything, only those positions are computed whose tokens are hidden or new; they attend to the
others' keys and values as these were last. ENAT (arXiv:2411.06959) reuses states of visible tokens too, by a network
that was made for it; here the network is as it was trained.

The unconditional branch, too, changes little while most tokens are hidden: in the first two thirds of the steps, those
between take from it what the last layer made logits of."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from muse.guidance import Blend, Ramp, guidance_scale
from muse.masking import hidden_places
from muse.models.layers import Context, Features, Kept, Merge, Merged, Stack, States, Wanted, at, take
from muse.shapes import Hidden, Places, Step


@dataclass(frozen=True)
class Focus:
    """What one step computes."""

    kept: tuple[Kept, ...] = ()
    """What is kept of every layer, renewed by the step; nothing where it is empty."""
    places: Places | None = None
    """The positions that are computed; None for all of them."""
    wanted: Wanted | None = None
    """Where among the computed positions those are whose logits are wanted; None for all of them."""

    def of_layer(self, index: int) -> Kept | None:
        """What is kept of a layer, if anything is."""
        return self.kept[index] if self.kept else None


EVERYWHERE = Focus()
"""Every position, and its logits."""
EARLY = 2 / 3
"""The share of steps after which, by the cosine, half of the tokens are hidden."""


def through(
    layers: Stack, states: States, text: Context | None, focus: Focus, chosen: Hidden | None = None
) -> Float[Tensor, "*position dim"]:
    """The states of every position after all layers, or of the places that the focus wants: the last layer computes no
    others, but lets them be attended to. Or of `chosen` positions, one after the other: its MLP computes no others."""
    if focus.places is not None:
        states = take(states, focus.places)
    is_word = text.is_word if text is not None else None
    index = None if chosen is None else chosen.nonzero(as_tuple=True)
    for i, layer in enumerate(layers):
        keys_values = text.keys_values[i] if text is not None else None
        ends = (focus.wanted, index) if i == len(layers) - 1 else ()
        states = layer(states, keys_values, is_word, focus.of_layer(i), focus.places, *ends)
    return states


@dataclass(frozen=True)
class Rhythm:
    """Which steps compute every position: each `refresh`-th, and those whose branches are not those of the step before,
    as guidance whose scale is 0 has no unconditional one. 1 is every step, and exact."""

    refresh: int
    guidance: float
    ramp: Ramp

    def branches(self, step: Step) -> int:
        """The branches of guidance at a step."""
        return 1 if guidance_scale(step, self.guidance, self.ramp) == 0 else 2

    def computed(self, step: Step) -> int:
        """The branches that a step computes; the unconditional one may be that of a step before."""
        return 1 if self.is_early(step) and not self.is_fresh(step) else self.branches(step)

    def is_early(self, step: Step) -> bool:
        """Whether a step and those around it, from one turn to the next, share what the unconditional branch says."""
        next_turn = step.index - step.index % self.refresh + self.refresh
        return step.draws_for_good and next_turn <= EARLY * step.num_steps

    def is_fresh(self, step: Step) -> bool:
        """Whether a step computes every position."""
        is_turn = step.index % self.refresh == 0 or step.most_touched is None
        return is_turn or self.branches(step) != self.branches(Step(step.index - 1, step.num_steps))

    def is_followed(self, step: Step) -> bool:
        """Whether the next step takes what this one has computed."""
        after = replace(step, index=step.index + 1)
        return after.index < step.num_steps and not self.is_fresh(after)


class Reuse:
    """The focus of each step of one grid, given in order; what is kept belongs to this grid alone: keys and values of
    every position in every layer and branch, as long as a step to come takes them.

    Logits are wanted of hidden tokens only, if the step says how many there are at most."""

    def __init__(self, num_layers: int, rhythm: Rhythm):
        self.num_layers, self.rhythm = num_layers, rhythm
        self.kept: tuple[Kept, ...] = ()
        self.unconditional: States | None = None
        self.was_hidden: Hidden | None = None

    def focus(self, is_hidden: Hidden, step: Step) -> Focus:
        """What a step computes of grids of which this is hidden, in all its branches."""
        if step.most_hidden is None:
            return EVERYWHERE
        branches, was_hidden, self.was_hidden = self.rhythm.computed(step), self.was_hidden, is_hidden
        if self.rhythm.is_fresh(step) or was_hidden is None or step.most_touched is None:
            wanted = hidden_places(is_hidden, step.most_hidden).repeat(branches, 1)
            self.kept = tuple(Kept() for _ in range(self.num_layers)) if self.rhythm.is_followed(step) else ()
            return Focus(self.kept, None, wanted)
        places = touched_places(is_hidden, is_hidden | was_hidden, step.most_touched).repeat(branches, 1)
        wanted = torch.arange(step.most_hidden, device=places.device).expand(len(places), -1)
        kept = self.kept
        if not self.rhythm.is_followed(step):
            self.kept = ()
        return Focus(kept, places, wanted)

    def merge(self, is_hidden: Hidden, step: Step, blend: Blend) -> Merge:
        """The blend of both branches' features of what a step wants, the unconditional one's being kept or taken."""

        def both(features: Features) -> Merged:
            conditional, unconditional = features.chunk(2)
            if step.most_hidden is not None and self.rhythm.is_early(step) and self.rhythm.is_followed(step):
                everywhere = unconditional.new_zeros(*is_hidden.shape, unconditional.shape[-1])
                self.unconditional = everywhere.index_put(at(hidden_places(is_hidden, step.most_hidden)), unconditional)
            return blend(conditional, unconditional)

        def one(conditional: Features) -> Merged:
            assert self.unconditional is not None
            assert step.most_hidden is not None
            return blend(conditional, take(self.unconditional, hidden_places(is_hidden, step.most_hidden)))

        return one if self.rhythm.computed(step) == 1 else both


def touched_places(is_hidden: Hidden, is_touched: Hidden, num: int) -> Places:
    """The hidden positions of each sample in order, then the others that are touched, up to `num`. A sample that has
    fewer has its first one again instead, so that nothing else of it is computed, whatever its neighbours need."""
    rank = (~is_hidden).byte() + (~is_touched).byte()
    places = rank.argsort(dim=1, stable=True)[:, :num]
    is_own = torch.arange(places.shape[1], device=places.device) < is_touched.sum(1, keepdim=True)
    return torch.where(is_own, places, places[:, :1])
