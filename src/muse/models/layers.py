"""The layers that the base and the super-resolution transformer are made of."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

States = Float[Tensor, "batch position dim"]
Heads = Float[Tensor, "batch head position features"]
# There may be fewer texts than samples: the axis has a name of its own.
TextHeads = Float[Tensor, "text head word features"]
Words = Bool[Tensor, "text word"]
LONGEST_PLAIN = 512
"""Keys up to which a processor attends faster by plain matrix products."""


def split_heads(states: States, heads: int) -> Heads:
    """The features of each attention head on an axis of their own."""
    return rearrange(states, "batch position (head features) -> batch head position features", head=heads)


def join_heads(states: Heads) -> States:
    """The features of all heads one after the other."""
    return rearrange(states, "batch head position features -> batch position (head features)")


def attend(query: Heads, key: TextHeads, value: TextHeads, is_visible: Words | None = None) -> Heads:
    """The values of the keys that each query is like, of the visible ones where some are not.

    On a processor, short sequences go through plain matrix products: torch's fused attention, made for long ones, takes
    4 to 7 times as long to train on 64 positions, and 2 times on 256 (docs/log.md)."""
    mask = None if is_visible is None else is_visible[:, None, None, :]
    if query.device.type != "cpu" or key.shape[2] > LONGEST_PLAIN:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(dim=-1) @ value


class SelfAttention(nn.Module):
    """Every position attends to every position, hidden ones included."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(self, states: States) -> States:
        query, key, value = (split_heads(part, self.heads) for part in self.query_key_value(states).chunk(3, dim=-1))
        return self.out(join_heads(attend(query, key, value)))


class CrossAttention(nn.Module):
    """Every position attends to the words of the text that are not padding."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim, bias=False)
        self.key_value = nn.Linear(dim, 2 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)

    def read(self, text: Float[Tensor, "text word dim"]) -> tuple[TextHeads, TextHeads]:
        """Keys and values of the text, which do not depend on the picture."""
        key, value = self.key_value(text).chunk(2, dim=-1)
        return split_heads(key, self.heads), split_heads(value, self.heads)

    def forward(
        self, states: Float[Tensor, "text position dim"], key: TextHeads, value: TextHeads, is_word: Words
    ) -> Float[Tensor, "text position dim"]:
        query = split_heads(self.query(states), self.heads)
        return self.out(join_heads(attend(query, key, value, is_word)))


class FeedForward(nn.Module):
    """Two linear layers around GELU."""

    def __init__(self, dim: int, hidden_dim: int):
        super().__init__()
        self.widen = nn.Linear(dim, hidden_dim, bias=False)
        self.narrow = nn.Linear(hidden_dim, dim, bias=False)

    def forward(self, states: States) -> States:
        return self.narrow(F.gelu(self.widen(states)))


class Positions2D(nn.Module):
    """A learned vector for each row and each column of a grid; a position has the sum of its two.
    Muse, section 2.4 (2D positional embeddings)."""

    def __init__(self, height: int, width: int, dim: int):
        super().__init__()
        self.rows = nn.Parameter(torch.empty(height, dim))
        self.columns = nn.Parameter(torch.empty(width, dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for table in (self.rows, self.columns):
            nn.init.normal_(table, std=0.02)

    def forward(self) -> Float[Tensor, "position dim"]:
        return rearrange(self.rows[:, None] + self.columns[None], "height width dim -> (height width) dim")
