"""Classifier-free guidance in the paper's convention: t = 0 is the plain conditional model.
Muse, section 2.7; classifier-free guidance (arXiv:2207.12598)."""

from collections.abc import Callable
from functools import partial
from typing import Literal

from muse.shapes import Hidden, PlaceLogits, Predict, Step, Tokens

Ramp = Literal["linear", "constant"]

Blend = Callable[[PlaceLogits, PlaceLogits], PlaceLogits]
"""One branch made of a conditional and an unconditional one, by weights that sum to 1."""
PredictBoth = Callable[[Tokens, Hidden, Step, Blend], PlaceLogits]
"""The blend of both branches' logits in one step: so a network can answer both in one batch, and blend what its last
layer makes the logits of."""


def combine(conditional: PlaceLogits, unconditional: PlaceLogits, scale: float) -> PlaceLogits:
    """(1 + t) * l_c - t * l_u in float32; at scale 0 the conditional logits themselves, bit for bit.
    A negative prompt takes the place of the unconditional. Muse, section 2.7."""
    if scale == 0:
        return conditional
    return (1 + scale) * conditional.float() - scale * unconditional.float()


def guidance_scale(step: Step, scale: float, ramp: Ramp) -> float:
    """The scale t of one step: "linear" grows from 0 at the first step to `scale` at the last, "constant" stays.
    A single step is the last one. Muse, section 2.7."""
    if ramp == "constant" or step.num_steps == 1:
        return scale
    return scale * step.index / (step.num_steps - 1)


def guided(conditional: Predict, both: PredictBoth, scale: float, ramp: Ramp) -> Predict:
    """A predict that is guided by the step's scale, and that asks for no unconditional logits where that scale is 0.
    Muse, section 2.7."""

    def predict(tokens: Tokens, is_hidden: Hidden, step: Step) -> PlaceLogits:
        step_scale = guidance_scale(step, scale, ramp)
        if step_scale == 0:
            return conditional(tokens, is_hidden, step)
        return both(tokens, is_hidden, step, partial(combine, scale=step_scale))

    return predict


def from_classifier_free(scale: float) -> float:
    """The t of (1 + t) * l_c - t * l_u for the s of l_u + s * (l_c - l_u), which other code calls guidance scale."""
    return scale - 1
