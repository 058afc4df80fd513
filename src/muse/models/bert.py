"""BERT as a text encoder, without `transformers`, whose import takes longer than a picture.

Devlin et al. (arXiv:1810.04805), section 3. Its states are to the last bit those of the `BertModel` of `transformers`
with plain attention, its sub-words those of its `BertTokenizer`."""

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from muse.checkpoint import (
    CONFIG,
    WEIGHTS,
    read_json,
    read_weights,
    without_memory,
    write_weights,
    write_whole,
)

WORDS, MANNERS = "tokenizer.json", "tokenizer_config.json"
"""What a tokenizer keeps in a folder."""
WITHOUT_END = 2**31
"""Sub-words that a tokenizer reads at most which names no limit."""
DEFAULTS = {
    **{"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"},
    **{"is_decoder": False, "add_cross_attention": False},
}
"""What a config must not say otherwise."""
MANNER = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
"""What a tokenizer says of its normalization in its one file, and in the other."""
PARTS = {
    "embeddings.word_embeddings": "words",
    "embeddings.position_embeddings": "places",
    "embeddings.token_type_embeddings": "kinds",
    "embeddings.LayerNorm": "norm",
    "encoder.layer": "layers",
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "answer",
    "attention.output.LayerNorm": "norm_answer",
    "intermediate.dense": "widen",
    "output.dense": "narrow",
    "output.LayerNorm": "norm_narrow",
}
"""What `transformers` calls the parts, in files, and their names here."""
UNREAD = ("pooler.", "embeddings.position_ids")
"""What else files may hold: what is made of the states, and what older versions kept of the places."""


class BertLayer(nn.Module):
    """Self-attention and an MLP, each followed by a shortcut and a norm."""

    def __init__(self, config: SimpleNamespace):
        super().__init__()
        if config.hidden_size % config.num_attention_heads:
            raise ValueError(f"{config.num_attention_heads} heads cannot share {config.hidden_size} features evenly")
        dim, wide, epsilon = config.hidden_size, config.intermediate_size, config.layer_norm_eps
        self.heads = config.num_attention_heads
        self.query, self.key, self.value, self.answer = (nn.Linear(dim, dim) for _ in range(4))
        self.norm_answer = nn.LayerNorm(dim, epsilon)
        self.widen, self.narrow = nn.Linear(dim, wide), nn.Linear(wide, dim)
        self.norm_narrow = nn.LayerNorm(dim, epsilon)

    def forward(
        self, states: Float[Tensor, "text word dim"], is_word: Bool[Tensor, "text 1 1 word"]
    ) -> Float[Tensor, "text word dim"]:
        """States that have attended to all words."""
        query, key, value = (
            part(states).unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        scores = (query @ key.transpose(2, 3)) * query.shape[-1] ** -0.5
        read = scores.masked_fill(~is_word, torch.finfo(scores.dtype).min).softmax(-1) @ value
        states = self.norm_answer(self.answer(read.transpose(1, 2).flatten(2)) + states)
        return self.norm_narrow(self.narrow(functional.gelu(self.widen(states))) + states)


class Bert(nn.Module):
    """An encoder of BERT's shape, called and kept as one of `transformers` is."""

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        self.config = shape = SimpleNamespace(**config)
        self.words = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.places = nn.Embedding(shape.max_position_embeddings, shape.hidden_size)
        self.kinds = nn.Embedding(shape.type_vocab_size, shape.hidden_size)
        self.norm = nn.LayerNorm(shape.hidden_size, shape.layer_norm_eps)
        self.layers = nn.ModuleList(BertLayer(shape) for _ in range(shape.num_hidden_layers))

    @classmethod
    def from_folder(cls, folder: Path) -> "Bert | None":
        """The encoder of a folder, in float32; None if it is another one, or not whole.
        Raises CheckpointError if its weights cannot be read."""
        if (encoder := unfilled(folder)) is None or not (folder / WEIGHTS).is_file():
            return None
        weights = {
            renamed(name, PARTS): weight.float()
            for name, weight in read_weights(folder).items()
            if not name.startswith(UNREAD)
        }
        shapes = {name: weight.shape for name, weight in weights.items()}
        if shapes != {name: weight.shape for name, weight in encoder.state_dict().items()}:
            return None
        encoder.load_state_dict(weights, assign=True)
        return encoder

    def save_pretrained(self, folder: Path) -> None:
        """Write config and weights as `transformers` names them. Raises OSError if they cannot be written."""
        names = {here: there for there, here in PARTS.items()}
        write_weights({renamed(name, names): weight for name, weight in self.state_dict().items()}, folder)
        write_whole(folder / CONFIG, json.dumps(vars(self.config), indent=2) + "\n")

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.words.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """In what it computes."""
        return self.words.weight.dtype

    def forward(self, input_ids: Int[Tensor, "text word"], attention_mask: Int[Tensor, "text word"]) -> SimpleNamespace:
        """The states of sub-words, `last_hidden_state` [text, word, dim], of which padding is 0 in `attention_mask`."""
        states = self.words(input_ids) + self.kinds.weight[0] + self.places.weight[: input_ids.shape[1]]
        states, is_word = self.norm(states), attention_mask.bool()[:, None, None]
        for layer in self.layers:
            states = layer(states, is_word)
        return SimpleNamespace(last_hidden_state=states)


def agree(words: dict[str, Any], manners: dict[str, Any]) -> bool:
    """Whether the two files of a tokenizer are of one that reads as the first of them says, as BERT's does."""
    normalizer, added = words["normalizer"], {each["content"] for each in words["added_tokens"]}
    return (
        manners["tokenizer_class"] in {"BertTokenizer", "BertTokenizerFast"}
        and manners.get("padding_side", "right") == "right"
        and all(manners[name] == normalizer[other] for name, other in MANNER.items() if name in manners)
        and added >= {each["content"] for each in manners.get("added_tokens_decoder", {}).values()}
    )


def unfilled(folder: Path) -> Bert | None:
    """An encoder of the shape of a folder's, without its numbers; None if that is not one of BERT's."""
    try:
        config = read_json(folder / CONFIG)
        with without_memory():
            return Bert(config) if {**DEFAULTS, **config}.items() >= DEFAULTS.items() else None
    except Exception:  # as many as there are configs that are none
        return None


def renamed(name: str, names: dict[str, str]) -> str:
    """The name of a weight whose parts are called otherwise."""
    dotted = f".{name}"
    for part, other in names.items():
        dotted = dotted.replace(f".{part}.", f".{other}.")
    return dotted[1:]


class WordPieces:
    """A tokenizer of the library `tokenizers`, called and kept as one of `transformers` is."""

    def __init__(self, words: str, manners: str):
        self.tokenizer = Tokenizer.from_str(words)
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.words, self.manners = words, manners
        self.model_max_length = int(json.loads(manners).get("model_max_length", WITHOUT_END))

    @classmethod
    def from_folder(cls, folder: Path) -> "WordPieces | None":
        """The tokenizer of a folder, None if it is not BERT's, or its files are not whole or disagree."""
        try:
            words, manners = ((folder / name).read_text("utf-8") for name in (WORDS, MANNERS))
            return cls(words, manners) if agree(json.loads(words), json.loads(manners)) else None
        except Exception:  # as many as there are ways to be damaged; `transformers` knows to say what is wrong
            return None

    def save_pretrained(self, folder: Path) -> None:
        """Write the files that it was read from. Raises OSError if they cannot be written."""
        write_whole(folder / WORDS, self.words)
        write_whole(folder / MANNERS, self.manners)

    def __call__(
        self,
        prompts: Sequence[str],
        padding: bool = False,
        return_tensors: str | None = None,
        verbose: bool = True,
    ) -> dict[str, Any]:
        """Numbers of the sub-words of each prompt, and which are no padding; as tensors if they are padded."""
        numbers = [each.ids for each in self.tokenizer.encode_batch(list(prompts))]
        if not padding:
            return {"input_ids": numbers, "attention_mask": [[1] * len(each) for each in numbers]}
        rows = [torch.tensor(each) for each in numbers]
        return {
            "input_ids": pad_sequence(rows, batch_first=True),
            "attention_mask": pad_sequence([torch.ones_like(row) for row in rows], batch_first=True),
        }
