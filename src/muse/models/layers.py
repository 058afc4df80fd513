"""The layers that the base and the super-resolution transformer are made of."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from muse.requests import check_choices, keep_whole
from muse.shapes import Places, Tokens

States = Float[Tensor, "batch position dim"]
Wanted = Int[Tensor, "batch wanted"]
"""Where among the states that are given those are whose new states are wanted."""
Index = tuple[Int[Tensor, " chosen"], Int[Tensor, " chosen"]]
"""Samples and positions of some states, not equally many of each sample."""
Heads = Float[Tensor, "batch head position features"]
# There may be fewer texts than samples: the axis has a name of its own.
TextHeads = Float[Tensor, "text head word features"]
Texts = Float[Tensor, "text word dim"]
Words = Bool[Tensor, "text word"]
KeysValues = Float[Tensor, "batch position keys_and_values"]
Features = Float[Tensor, "*position dim"]
"""What the last layer makes logits of."""
Merged = Float[Tensor, "*merged dim"]
Merge = Callable[[Features], Merged]
"""The features of all samples of a batch to those whose logits are wanted: of both branches of guidance their blend."""
LONGEST_PLAIN = 512
"""Keys up to which a processor is faster by plain matrix products, if it is at all."""
MOST_SCORES = 2**20
"""Scores of one sample up to which that is so in float32: more of them leave the cache."""
HAS_AMX = torch.cpu._is_amx_tile_supported()


def split_heads(states: States, heads: int) -> Heads:
    """The features of each attention head on an axis of their own."""
    return rearrange(states, "batch position (head features) -> batch head position features", head=heads)


def join_heads(states: Heads) -> States:
    """The features of all heads one after the other."""
    return rearrange(states, "batch head position features -> batch position (head features)")


def is_plain_faster(query: Heads, keys: int) -> bool:
    """Whether attention to so many keys is faster by plain matrix products: on a processor for a few of them; but with
    AMX only in training, and without it in bfloat16 for twice as many, in float32 for few scores of a sample. The batch
    has no part in it, as each sample is to be what it is alone."""
    if query.device.type != "cpu":
        return False
    if torch.is_grad_enabled():
        return keys <= LONGEST_PLAIN
    if query.dtype == torch.bfloat16:
        return not HAS_AMX and keys <= 2 * LONGEST_PLAIN
    return not HAS_AMX and keys <= LONGEST_PLAIN and query.shape[1] * query.shape[2] * keys < MOST_SCORES


def attend(query: Heads, key: TextHeads, value: TextHeads, is_visible: Words | None = None) -> Heads:
    """The values of the keys that each query is like, of the visible ones where some are not.

    On a processor, short sequences go through plain matrix products where those are faster than torch's fused
    attention, which is made for long ones (docs/log.md)."""
    if not is_plain_faster(query, key.shape[2]):
        mask = None if is_visible is None else is_visible[:, None, None, :]
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    scale = query.shape[-1] ** -0.5
    queries, keys, values = (each.flatten(0, 1) for each in (query, key, value))
    if is_visible is None:
        scores = (queries * scale) @ keys.transpose(1, 2)
    else:
        hiding = query.new_zeros(1, 1, 1).masked_fill(~is_visible[:, None], -torch.inf)
        # One call that scales, too, and adds what hides words: each for itself would go through all scores once more.
        hiding = hiding.repeat_interleave(query.shape[1], 0)
        scores = torch.baddbmm(hiding, queries, keys.transpose(1, 2), alpha=scale)
    return (scores.softmax(dim=-1) @ values).unflatten(0, query.shape[:2])


class SelfAttention(nn.Module):
    """Every position attends to every position, hidden ones included."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(
        self, states: States, kept: "Kept | None" = None, places: Places | None = None, wanted: Wanted | None = None
    ) -> Float[Tensor, "batch wanted dim"]:
        """New states, of every position or of those at `places` only; and of those, if not all are `wanted`, only of
        the ones at these indices among them: the others only are attended to.

        With `kept`, keys and values of every position as they were computed last are renewed, and attended to: so
        positions whose states are not given have their say all the same."""
        dim = states.shape[-1]
        query, key_value = self.query_key_value(states).split((dim, 2 * dim), dim=-1)
        if kept is not None:
            key_value = kept.renewed(key_value, places)
        if wanted is not None:
            query, places = take(query, wanted), wanted if places is None else places.gather(1, wanted)
        query, key, value = (split_heads(part, self.heads) for part in (query, *key_value.chunk(2, dim=-1)))
        return self.out(join_heads(self.mix(query, key, value, places)))

    def mix(self, query: Heads, key: TextHeads, value: TextHeads, places: Places | None = None) -> Heads:
        """What each position takes from all positions; the queries may be those of some places only."""
        return attend(query, key, value)


class Kept:
    """Keys and values of one layer and every position, each as it was computed last."""

    def __init__(self) -> None:
        self.key_value: KeysValues | None = None

    def renewed(self, new: KeysValues, places: Places | None) -> Float[Tensor, "batch grid keys_and_values"]:
        """What is kept with what is new of all positions, or of some, written over it in place; of the first samples
        only, if no more are new: the others are not computed again. No gradient goes through them."""
        if places is None or self.key_value is None:
            self.key_value = new.detach()
        else:
            self.key_value = self.key_value[: len(new)]
            self.key_value.index_put_(at(places), new.detach())
        return self.key_value


def at(places: Places) -> tuple[Int[Tensor, "batch 1"], Places]:
    """The places as an index of samples and positions."""
    return torch.arange(len(places), device=places.device)[:, None], places


def take(states: States, places: Places) -> Float[Tensor, "batch place dim"]:
    """The states of some places of each sample."""
    return states[at(places)]


BLOCKED = "batch head (rows y columns x) features -> (batch rows columns) head (y x) features"
DILATED = "batch head (y rows x columns) features -> (batch rows columns) head (y x) features"


class MultiAxisAttention(SelfAttention):
    """Half of the heads attend within blocks of `block` x `block` neighbours, half within as many positions spread
    evenly over the whole grid. Its cost grows with the number of positions, not with the square of it.
    MaxViT (arXiv:2204.01697), both of its attentions side by side; Muse, section 2.4."""

    def __init__(self, dim: int, heads: int, height: int, width: int, block: int):
        super().__init__(dim, heads)
        self.groups = {"rows": height // block, "columns": width // block, "y": block, "x": block}

    def mix(self, query: Heads, key: TextHeads, value: TextHeads, places: Places | None = None) -> Heads:
        if places is not None:  # groups are of the whole grid; what the others ask for is not looked at
            asked = torch.zeros_like(key)
            asked.transpose(1, 2)[at(places)] = query.transpose(1, 2)
            return self.mix(asked, key, value).transpose(1, 2)[at(places)].transpose(1, 2)
        near, far = zip(*(part.chunk(2, dim=1) for part in (query, key, value)), strict=True)
        return torch.cat([self._mix_groups(BLOCKED, *near), self._mix_groups(DILATED, *far)], dim=1)

    def _mix_groups(self, pattern: str, *parts: Heads) -> Heads:
        mixed = attend(*(rearrange(part, pattern, **self.groups) for part in parts))
        before, after = pattern.split(" -> ")
        return rearrange(mixed, f"{after} -> {before}", **self.groups)


class CrossAttention(nn.Module):
    """Every position attends to the words of the text that are not padding."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim, bias=False)
        self.key_value = nn.Linear(dim, 2 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)

    def read(self, text: Texts) -> tuple[TextHeads, TextHeads]:
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

    def forward(self, states: Features) -> Features:
        return self.narrow(F.gelu(self.widen(states)))


@dataclass(frozen=True)
class Context:
    """All that the layers attend to beside the tokens, computed once for a picture: keys and values of every layer."""

    keys_values: tuple[tuple[TextHeads, TextHeads], ...]
    is_word: Words
    """True where there is something to attend to, False where there is padding."""
    start: States | None = None
    """What the states of the tokens begin with, beside their embeddings, if anything."""

    def __len__(self) -> int:
        return len(self.is_word)

    def first(self, num: int) -> "Context":
        """The first of several contexts."""
        keys_values = tuple((key[:num], value[:num]) for key, value in self.keys_values)
        return Context(keys_values, self.is_word[:num], None if self.start is None else self.start[:num])


class EncoderLayer(nn.Module):
    """Self-attention and an MLP, each behind layer normalisation around a shortcut."""

    def __init__(self, attend_self: SelfAttention, mlp_dim: int, dropout: float):
        super().__init__()
        dim = attend_self.out.in_features
        self.norm_self, self.attend_self = nn.LayerNorm(dim, bias=False), attend_self
        self.norm_mlp, self.mlp = nn.LayerNorm(dim, bias=False), FeedForward(dim, mlp_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: States) -> States:
        states = states + self.dropout(self.attend_self(self.norm_self(states)))
        return states + self.dropout(self.mlp(self.norm_mlp(states)))

    def ends(self) -> tuple[nn.Linear, ...]:
        """The last layer of each way around a shortcut."""
        return self.attend_self.out, self.mlp.narrow


class TransformerLayer(nn.Module):
    """Self-attention, cross-attention to the text and an MLP, each behind layer normalisation around a shortcut."""

    def __init__(self, attend_self: SelfAttention, mlp_dim: int, dropout: float):
        super().__init__()
        dim = attend_self.out.in_features
        self.norm_self, self.attend_self = nn.LayerNorm(dim, bias=False), attend_self
        self.norm_text, self.attend_text = nn.LayerNorm(dim, bias=False), CrossAttention(dim, attend_self.heads)
        self.norm_mlp, self.mlp = nn.LayerNorm(dim, bias=False), FeedForward(dim, mlp_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        states: States,
        text: tuple[TextHeads, TextHeads] | None,
        is_word: Words | None,
        kept: Kept | None = None,
        places: Places | None = None,
        wanted: Wanted | None = None,
        index: Index | None = None,
    ) -> Float[Tensor, "*position dim"]:
        """States of every position, or of those at `places`, after this layer; or of the `wanted` ones among them; or
        of those of an `index`, one after the other."""
        changes = self.dropout(self.attend_self(self.norm_self(states), kept, places, wanted))
        states = (states if wanted is None else take(states, wanted)) + changes
        if text is not None and is_word is not None:
            states = self._attend_text(states, text, is_word)
        if index is not None:
            states = states[index]
        return states + self.dropout(self.mlp(self.norm_mlp(states)))

    def _attend_text(self, states: States, text: tuple[TextHeads, TextHeads], is_word: Words) -> States:
        if len(is_word) < len(states):
            told, untold = states.split((len(is_word), len(states) - len(is_word)))
            return torch.cat([self._attend_text(told, text, is_word), untold])
        return states + self.dropout(self.attend_text(self.norm_text(states), *text, is_word))

    def ends(self) -> tuple[nn.Linear, ...]:
        """The last layer of each way around a shortcut."""
        return self.attend_self.out, self.attend_text.out, self.mlp.narrow


class Stack(nn.ModuleList):
    """Layers one after the other, each a shortcut that the layers above add to."""

    def reset_parameters(self) -> None:
        """Scale down the weights that end a shortcut, by how many of them add up."""
        ends = [end for layer in self for end in layer.ends()]  # pyright: ignore[reportCallIssue]
        for end in ends:
            nn.init.normal_(end.weight, std=0.02 / math.sqrt(len(ends)))


def code_head(dim: int, num_codes: int) -> nn.Sequential:
    """The MLP that makes logits over the codebook of a position's features."""
    return nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.LayerNorm(dim), nn.Linear(dim, num_codes))


def logits_of(head: nn.Sequential, states: Features, merge: Merge | None) -> Float[Tensor, "*merged code"]:
    """Logits of states; with a merge, those of what it makes of the last layer's input. Blending two branches there
    comes to the same as blending their logits, and is half the work: the layer adds a bias, and a blend's weights sum
    to 1."""
    *layers, last = head
    for layer in layers:
        states = layer(states)
    return last(states if merge is None else merge(states).to(states.dtype))


def reset_weights(modules: Iterable[nn.Module]) -> None:
    """Normal weights of standard deviation 0.02 in every linear layer and every table, biases 0."""
    for module in modules:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)


def check_transformer(config: Any) -> None:
    """Keep the sizes of a transformer's config as Python's own numbers.
    Raises ValueError if a transformer cannot have this shape."""
    for name in ("num_codes", "height", "width", "dim", "depth", "heads", "mlp_dim", "text_dim"):
        keep_whole(config, name)
    check_choices(config)
    dim, heads, dropout = config.dim, config.heads, config.dropout
    if dim % heads:
        fitting = max(num for num in range(1, max(dim // 64, 1) + 1) if dim % num == 0)
        raise ValueError(f"dim {dim} is not a multiple of {heads} heads; try {fitting} heads")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout is {dropout}; give a share from 0 up to, not including, 1")


def check_grid(tokens: Tokens, height: int, width: int) -> None:
    """Raises ValueError if the tokens are not a grid of this size."""
    if tokens.shape[1] != height * width:
        raise ValueError(
            f"{tokens.shape[1]} tokens came; this transformer was made for a grid of {height} x {width} = "
            f"{height * width}"
        )


class Positions2D(nn.Module):
    """A learned vector for each row and each column of a grid; a position has the sum of its two.
    Muse, section 2.3 (2D positional embeddings)."""

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
