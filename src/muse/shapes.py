"""Named tensor types, and the function that sampling takes.

The legend of axes, the same in every signature:

    batch      samples side by side; nothing ever mixes them
    position   the tokens of one grid, row by row: position = row * width + column
    low        the positions of a low-resolution grid, beside those of a high-resolution one
    height     rows of a token grid or of a picture
    width      columns of a token grid or of a picture
    code       entries of the codebook, 0 .. num_codes - 1; the mask id is num_codes, one past the last
    word       text positions: the sub-words of a prompt, padding among them
    dim        features of one position, word or code
    step       parallel decoding steps, from 0
    place      some of the positions of a grid, where a step looks at no others

`Step` and `Predict` live on this lowest floor because guidance builds what sampling calls, and neither knows the other.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from jaxtyping import Bool, Float, Int
from torch import Tensor

Tokens = Int[Tensor, "batch position"]
"""Codes in [0, num_codes), and num_codes itself (the mask id) where a token is hidden."""
LowTokens = Int[Tensor, "batch low"]
"""Tokens of the low-resolution grid, where a signature holds both grids."""
Hidden = Bool[Tensor, "batch position"]
"""True where a token is hidden: masked in training, still to be drawn in sampling."""
Places = Int[Tensor, "batch place"]
"""Some positions of each sample, equally many."""
Logits = Float[Tensor, "batch position code"]
"""Unnormalised log-probabilities of every code at every position."""
PlaceLogits = Float[Tensor, "batch place code"]
"""The same at some places of each sample, or at all positions."""
Scores = Float[Tensor, "batch position"]
"""One number for each position: a confidence, or noise."""
Counts = Int[Tensor, "batch"]
"""How many positions of each sample."""
Ratios = Float[Tensor, "batch"]
"""Which share of each sample, in [0, 1]."""
TextStates = Float[Tensor, "batch word dim"]
"""What the text encoder says of each word."""
TextMask = Bool[Tensor, "batch word"]
"""True where a word is real, False where it is padding."""
Pictures = Float[Tensor, "batch 3 height width"]
"""Colours in [0, 1], channels first."""


@dataclass(frozen=True)
class Step:
    """One of the `num_steps` steps of parallel decoding; `index` counts from 0."""

    index: int
    num_steps: int
    most_hidden: int | None = field(default=None, compare=False)
    """No sample has more hidden tokens before this step; None where nobody knows."""
    most_touched: int | None = field(default=None, compare=False)
    """No sample has more tokens that are hidden, or were hidden before the last step; None where nobody knows."""
    draws_for_good: bool = field(default=False, compare=False)
    """Whether no token that is drawn will be hidden again, as far as anybody knows."""

    @property
    def progress(self) -> float:
        """The share of all steps that is done once this one ends, in (0, 1]."""
        return (self.index + 1) / self.num_steps


Predict = Callable[[Tokens, Hidden, Step], PlaceLogits]
"""All that sampling knows of a network: the logits of every position, given what is visible so far; or only those of
the places that `masking.hidden_places` names, as only hidden tokens are drawn."""
