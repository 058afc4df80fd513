"""The frozen language model that reads the prompt: any encoder of `transformers`, T5 first.
Muse, section 2.1."""

import bisect
import copy
import hashlib
import os
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from muse.checkpoint import WEIGHTS, is_narrow, read_weights, rounded, usual_mode, write_weights, writing
from muse.models.bert import Bert, WordPieces
from muse.requests import check_list
from muse.shapes import TextMask, TextStates

TOKENIZING = threading.Lock()
"""A tokenizer keeps how it pads, so it serves one thread at a time."""
LONGEST = 512
"""Words read at most where a tokenizer names no limit."""
TOLD_APART_BY = "A red apple, two DOGS & 13 octopuses: \u00e9\u00f1\u6f22\U0001f431"
"""What is read to tell tokenizers apart."""
LOOKED_AT = 2**26
"""Weights that are looked at, about, to tell encoders apart: all of those of most, and not billions of the largest."""
OF_NO_WEIGHT = (
    *("num_attention_heads", "num_heads", "hidden_act", "feed_forward_proj", "layer_norm_eps", "layer_norm_epsilon"),
    *("position_embedding_type", "relative_attention_max_distance"),
)
"""What configs call that which changes states and no weight."""
MOST_SPECIAL = 8
"""More than any tokenizer puts around a prompt."""


class TextEncoder(nn.Module):
    """A frozen encoder and its tokenizer: prompts to one state for each sub-word."""

    def __init__(self, encoder: nn.Module, tokenizer: Any):
        super().__init__()
        self.encoder = encoder.requires_grad_(False).eval()
        self.tokenizer = tokenizer

    @classmethod
    def from_folder(cls, folder: Path) -> "TextEncoder":
        """Load a folder as `transformers` saves it, in float32, without asking any hub or opening any pickle.
        Raises OSError, ValueError or RuntimeError if it is no such folder, has no tokenizer, or its weights do not fit
        its config."""
        if not folder.is_dir():
            raise FileNotFoundError(
                f"the text encoder {folder} is not there; give a folder that transformers has saved"
            )
        if (light := load_light(folder)) is not None:
            return cls(*light)
        with quietly():
            encoder, report = load_narrow(folder) if is_narrow(folder) else load_plain(folder)
            check_loaded(encoder, report["missing_keys"], report["unexpected_keys"])
            return cls(encoder, load_tokenizer(folder))

    def save(self, folder: Path, dtype: torch.dtype = torch.float16) -> None:
        """Write the encoder, rounded to `dtype`, and the tokenizer as `transformers` does; in int8, for which that has
        no format without a further package, the weights are ours.
        Raises OSError if they cannot be written."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        without_words = nullcontext() if isinstance(self.encoder, Bert) else quietly()
        # Beside it, as the encoder in use may read its weights from the very file.
        with without_words, writing(folder / WEIGHTS), TemporaryDirectory(dir=folder, prefix=".saving-") as name:
            fresh = Path(name)
            # A copy, as the encoder in use must not be rounded.
            plain = torch.float32 if dtype == torch.int8 else dtype
            copy.deepcopy(self.encoder).to(plain).save_pretrained(fresh)  # pyright: ignore[reportCallIssue]
            self.tokenizer.save_pretrained(fresh)
            if dtype == torch.int8:
                write_weights(rounded(read_weights(fresh), dtype), fresh)
            move_into(fresh, folder)

    @property
    def dim(self) -> int:
        """Features of a state."""
        return self.encoder.config.hidden_size  # pyright: ignore

    @property
    def max_words(self) -> int:
        """Sub-words read at most, special ones included."""
        positions = getattr(self.encoder.config, "max_position_embeddings", LONGEST)
        return min(self.tokenizer.model_max_length, positions, LONGEST)

    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that tell an encoder and its tokenizer from others, also from the same rounded to
        another type, as its states are others; not what the weights are called, which is up to who loads them."""
        digest = hashlib.sha256(self.manner().encode())
        weights = [(name, weight.detach()) for name, weight in self.encoder.named_parameters()]
        stride = sum(weight.numel() for _, weight in weights) // LOOKED_AT * 2 + 1  # odd, so that no row is left out
        for name, weight in weights:
            if not name.startswith("pooler."):  # nobody reads its output
                digest.update(str(tuple(weight.shape)).encode())
                digest.update(weight.flatten()[::stride].float().cpu().numpy().tobytes())
        return digest.hexdigest()[:12]

    def manner(self) -> str:
        """What tells an encoder from others that no weight does: how a text becomes sub-words, and OF_NO_WEIGHT."""
        with TOKENIZING:
            numbers = self.tokenizer([TOLD_APART_BY], verbose=False)["input_ids"][0]
        shape = {name: getattr(self.encoder.config, name, None) for name in OF_NO_WEIGHT}
        return f"{torch.as_tensor(numbers).tolist()} {shape}"

    def train(self, mode: bool = True) -> "TextEncoder":
        """Frozen: it stays in evaluation mode."""
        return super().train(False)

    def sub_words(self, prompts: Sequence[str]) -> tuple[Int[Tensor, "batch word"], TextMask]:
        """Numbers of every sub-word, and which are words and not padding, where the encoder is.
        Raises ValueError if a prompt is longer than the encoder reads."""
        check_list("prompts", prompts)
        with TOKENIZING:
            batch = self.tokenizer(list(prompts), padding=True, return_tensors="pt", verbose=False)
        is_word = batch["attention_mask"].bool()
        if (longest := int(is_word.sum(1).max())) > self.max_words:
            raise ValueError(
                f"the prompt has {longest:,} sub-words and the text encoder reads at most {self.max_words}; shorten it"
            )
        device = self.encoder.device
        return batch["input_ids"].to(device), is_word.to(device)

    def cut_to_fit(self, captions: Sequence[str]) -> list[str]:
        """Captions that can be read: each that is longer than the encoder reads ends with the last word that fits, or
        the last letter if no word does."""
        return [self._beginning(caption) if self.is_too_long(caption) else caption for caption in captions]

    def is_too_long(self, caption: str) -> bool:
        """Whether a caption is longer than the encoder reads. One of few letters is not, unless a tokenizer spells a
        letter out in several, as there are for other alphabets."""
        is_short = caption.isascii() and len(caption) + MOST_SPECIAL <= self.max_words
        return not is_short and self.num_words(caption) > self.max_words

    def _beginning(self, caption: str) -> str:
        """The longest beginning of a caption that can be read."""
        for ends in ([each.end() for each in re.finditer(r"\S+", caption)], range(1, len(caption) + 1)):
            num = bisect.bisect_right(ends, self.max_words, key=lambda end: self.num_words(caption[:end]))
            if num > 0:
                return caption[: ends[num - 1]]
        return ""

    def num_words(self, prompt: str) -> int:
        """Sub-words of a prompt, special ones included."""
        with TOKENIZING:
            return len(self.tokenizer([prompt], verbose=False)["input_ids"][0])

    @torch.no_grad()
    def forward(self, prompts: Sequence[str]) -> tuple[TextStates, TextMask]:
        """States of every sub-word, and which are words and not padding.
        Raises ValueError if a prompt is longer than the encoder reads."""
        numbers, is_word = self.sub_words(prompts)
        return self.encoder(input_ids=numbers, attention_mask=is_word.long()).last_hidden_state, is_word

    def read_each(self, prompts: Sequence[str]) -> tuple[TextStates, TextMask]:
        """As `forward`, but each prompt is read by itself, so that a picture is the same in any company: a batch adds
        up in another order, and rounded to bfloat16 that can be another token.
        Raises ValueError if a prompt is longer than the encoder reads."""
        check_list("prompts", prompts)
        read = {prompt: self([prompt]) for prompt in dict.fromkeys(prompts)}
        text, is_word = (
            pad_sequence([read[prompt][part][0] for prompt in prompts], batch_first=True) for part in (0, 1)
        )
        return text, is_word


def mean_state(states: TextStates, is_word: TextMask) -> Float[Tensor, "text dim"]:
    """The mean over the words of each text, without padding, in float32 and on the processor."""
    weights = is_word[..., None].float()
    return ((states * weights).sum(1) / weights.sum(1)).float().cpu()


def move_into(fresh: Path, folder: Path) -> None:
    """Put the files of a folder in the place of those of another one, and take away weights that are no longer its."""
    files = [path for path in fresh.rglob("*") if path.is_file()]
    for weights in fresh.glob("*.safetensors"):
        weights.chmod(usual_mode(folder))
    for path in files:
        place = folder / path.relative_to(fresh)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, place)
    for old in folder.glob("model*.safetensors*"):
        if fresh / old.name not in files:
            old.unlink()


LOADING: dict[str, Any] = {
    "dtype": torch.float32,
    "attn_implementation": "eager",  # for sequences as short as prompts twice as fast as the fused one
    "output_loading_info": True,
}


def load_light(folder: Path) -> tuple[Bert, WordPieces] | None:
    """The encoder and the tokenizer of a folder that `transformers` is not needed for, as those of the model that
    ships; None if it is, or to say what is wrong with them."""
    if (tokenizer := WordPieces.from_folder(folder)) is None or (encoder := Bert.from_folder(folder)) is None:
        return None
    return encoder, tokenizer


def load_plain(folder: Path) -> tuple[Any, dict[str, Any]]:
    """The encoder of a folder as `transformers` saves it, and which weights fitted."""
    from transformers import AutoModelForTextEncoding

    return AutoModelForTextEncoding.from_pretrained(folder, local_files_only=True, use_safetensors=True, **LOADING)


def load_narrow(folder: Path) -> tuple[Any, dict[str, Any]]:
    """The encoder of a folder whose weights are in int8, and which weights fitted."""
    from transformers import MODEL_FOR_TEXT_ENCODING_MAPPING, AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    encoder_class: Any = MODEL_FOR_TEXT_ENCODING_MAPPING[type(config)]
    return encoder_class.from_pretrained(None, config=config, state_dict=read_weights(folder), **LOADING)


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder.
    Raises ValueError if it cannot be loaded, or has no files, of which `transformers` may make one without words."""
    from transformers import AutoTokenizer

    wish = "save the encoder's own there too"
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{folder} has no tokenizer that can be loaded ({reason}); {wish}") from error
    names = [name for name in tokenizer.vocab_files_names.values() if name != "tokenizer_config.json"]
    if names and not any((folder / name).is_file() for name in names):
        raise ValueError(f"{folder} has no tokenizer ({' or '.join(names)}); {wish}")
    return tokenizer


def check_loaded(encoder: nn.Module, missing: Iterable[str], unexpected: Iterable[str]) -> None:
    """Raises ValueError if a weight was missing, which `transformers` fills at random, or there was a layer too many.
    A pooler may be missing, as its output is not read; a decoder or a head may be there."""

    def kind(name: str) -> str:
        return re.sub(r"\d+", "*", name)

    kinds = {kind(name) for name in encoder.state_dict()}
    absent = sorted(name for name in missing if not name.startswith("pooler."))
    surplus = sorted(name for name in unexpected if kind(name) in kinds)
    if absent or surplus:
        problem = f"weight {absent[0]} is missing" if absent else f"weight {surplus[0]} is not asked for"
        raise ValueError(f"{problem}; config and weights belong to different models")


@contextmanager
def quietly() -> Iterator[None]:
    """Without the progress bars and warnings of `transformers`; afterwards it is as talkative as it was."""
    from transformers.utils import logging

    verbosity, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bars:
            logging.enable_progress_bar()
