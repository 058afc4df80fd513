"""`Muse`: a prompt's way to a picture, and the folder that holds all of its parts."""

import dataclasses
import importlib.resources
import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from PIL import Image
from torch import Tensor, nn

from muse.checkpoint import CheckpointError, load_module, read_json, save_module, write_whole
from muse.guidance import guided
from muse.images import to_images
from muse.models.text_encoder import TextEncoder
from muse.models.transformer import MaskedTransformer, TextContext, TransformerConfig
from muse.models.vqgan import VQGAN, VQGANConfig, to_unit_range
from muse.sampling import SamplingOptions, StepReport, decode, generators_for
from muse.shapes import Hidden, Logits, Predict, Step, TextMask, TextStates, Tokens

INDEX = "model_index.json"
PARTS = ("text_encoder", "vqgan", "base")
SHIPPED = Path(str(importlib.resources.files("muse"))) / "weights"
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
LARGEST_SEED = 2**63 - 1
HIDDEN_GREY = 0.88
"""How light a token that is still hidden is shown."""


@dataclass(frozen=True)
class Preview:
    """What a picture looks like after one step; tokens still hidden are grey."""

    step: Step
    images: list[Image.Image]


class Muse:
    """Draws pictures of prompts.
    Muse (arXiv:2301.00704)."""

    def __init__(
        self,
        text_encoder: TextEncoder,
        vqgan: VQGAN,
        base: MaskedTransformer,
        *,
        name: str = "unnamed",
        defaults: SamplingOptions | None = None,
    ):
        check_parts(text_encoder, vqgan, base)
        self.text_encoder, self.vqgan, self.base = text_encoder, vqgan.eval(), base.eval()
        self.name, self.defaults = name, defaults or SamplingOptions()

    # -- folders --------------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(cls, model: str | Path, device: torch.device | str | None = None) -> "Muse":
        """Load a folder, a model that ships ("emoji") or one of the hub ("owner/name").
        Raises CheckpointError, in one sentence, if there is none, or if it is damaged or does not fit together."""
        folder = find_model(model)
        index = read_json(folder / INDEX)
        muse = cls(
            load_text_encoder(folder / "text_encoder"),
            load_module(VQGAN, VQGANConfig, folder / "vqgan"),
            load_module(MaskedTransformer, TransformerConfig, folder / "base"),
            name=str(index.get("name", folder.name)),
            defaults=read_defaults(index, folder),
        )
        return muse.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))

    def save_pretrained(self, folder: Path | str, dtype: torch.dtype | None = None) -> None:
        """Write all parts as a folder that `from_pretrained` loads; `dtype` rounds the base transformer.
        The VQGAN keeps the precision that made its tokens; the text encoder is written in float16."""
        folder = Path(folder)
        self.text_encoder.save(folder / "text_encoder")
        save_module(self.vqgan, folder / "vqgan")
        save_module(self.base, folder / "base", dtype)
        index = {"class": "Muse", "name": self.name, "parts": PARTS, "defaults": dataclasses.asdict(self.defaults)}
        write_whole(folder / INDEX, json.dumps(index, indent=2) + "\n")

    def to(self, device: torch.device | str) -> "Muse":
        """Move all parts to a device."""
        for part in self.modules:
            part.to(device)
        return self

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """The networks, in the order of PARTS."""
        return self.text_encoder, self.vqgan, self.base

    @property
    def device(self) -> torch.device:
        return self.base.embed.weight.device

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the pictures, in pixels."""
        config, stride = self.base.config, self.vqgan.config.stride
        return config.width * stride, config.height * stride

    # -- drawing --------------------------------------------------------------------------------------------------

    def generate(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int] | None = None,
        *,
        negatives: Sequence[str] | None = None,
        options: SamplingOptions | None = None,
        callback: Callable[[StepReport], None] | None = None,
    ) -> list[Image.Image]:
        """One picture for each prompt; picture i depends on prompt i, negative i and seed i alone.

        `callback` sees every step; `preview` makes pictures of what it sees. Random seeds if none are given.
        Raises ValueError if a prompt is empty or too long, or there are not equally many of everything."""
        seeds = random_seeds(len(prompts)) if seeds is None else list(seeds)
        check_request(prompts, seeds, negatives)
        text, is_word = self.text_encoder([*prompts, *(negatives or ())])
        return self.generate_from_states(text, is_word, seeds, options=options, callback=callback)

    def generate_from_states(
        self,
        text: TextStates,
        is_word: TextMask,
        seeds: Sequence[int],
        *,
        options: SamplingOptions | None = None,
        callback: Callable[[StepReport], None] | None = None,
    ) -> list[Image.Image]:
        """As `generate`, for prompts that the text encoder has read already.
        States of `len(seeds)` prompts, and then those of equally many negative prompts, or none.
        Raises ValueError if there are other numbers of states."""
        options = options or self.defaults
        if len(text) not in (len(seeds), 2 * len(seeds)):
            raise ValueError(
                f"states of {len(text)} texts came for {len(seeds)} seeds; "
                "give one for each seed, or as many negatives too"
            )
        tokens = self.draw_base(text.to(self.device), is_word.to(self.device), seeds, options, callback)
        return self.to_images(tokens)

    @torch.no_grad()
    def draw_base(
        self,
        text: TextStates,
        is_word: TextMask,
        seeds: Sequence[int],
        options: SamplingOptions,
        callback: Callable[[StepReport], None] | None = None,
    ) -> Int[Tensor, "picture position"]:
        """Low-resolution tokens of texts; the second half of twice as many texts are negative prompts."""
        config = self.base.config
        predict = guided_predict(self.base, text, is_word, len(seeds), options)
        start = torch.full((len(seeds), config.height * config.width), config.mask_id, device=self.device)
        return decode(start, predict, options, generators_for(seeds), config.mask_id, callback)

    @torch.no_grad()
    def to_images(self, tokens: Tokens) -> list[Image.Image]:
        """Paint grids of tokens."""
        return to_images(self.vqgan.decode(tokens, self.base.config.height))

    @torch.no_grad()
    def preview(self, report: StepReport) -> Preview:
        """Paint what stands after a step; tokens still hidden are grey."""
        config, quantizer = self.base.config, self.vqgan.quantizer
        shape = (len(report.tokens), config.height, config.width)
        is_hidden = report.is_hidden.reshape(shape)
        codes = quantizer.look_up(report.tokens.clamp(max=config.num_codes - 1).reshape(shape))
        typical = quantizer.codebook.mean(0).reshape(1, -1, 1, 1)
        pictures = to_unit_range(self.vqgan.decoder(torch.where(is_hidden[:, None], typical, codes)))
        stride = self.vqgan.config.stride
        covered = is_hidden.repeat_interleave(stride, 1).repeat_interleave(stride, 2)[:, None]
        return Preview(report.step, to_images(torch.where(covered, HIDDEN_GREY, pictures)))


def guided_predict(
    base: MaskedTransformer, text: TextStates, is_word: TextMask, num: int, options: SamplingOptions
) -> Predict:
    """What `decode` calls: the base transformer under guidance, its text read once.
    Of 2 * num texts the second half are negative prompts; of num, guidance is away from no text at all."""
    everything = base.read(text, is_word)
    prompts = everything if len(text) == num else first_texts(everything, num)

    def conditional(tokens: Tokens, is_hidden: Hidden, step: Step) -> Logits:
        return base(tokens, prompts)

    def both(tokens: Tokens, is_hidden: Hidden, step: Step) -> tuple[Logits, Logits]:
        logits: Tensor = base(torch.cat([tokens, tokens]), everything)
        return logits[:num], logits[num:]

    return guided(conditional, both, options.guidance, options.guidance_ramp)


def first_texts(context: TextContext, num: int) -> TextContext:
    """The first of several texts."""
    return TextContext(tuple((key[:num], value[:num]) for key, value in context.keys_values), context.is_word[:num])


def random_seeds(num: int) -> list[int]:
    """Seeds that nobody chose, short enough to type."""
    return [random.SystemRandom().randrange(2**31) for _ in range(num)]


def check_request(prompts: Sequence[str], seeds: Sequence[int], negatives: Sequence[str] | None) -> None:
    """Raises ValueError, in one sentence, for what cannot be drawn."""
    if isinstance(prompts, str):
        raise ValueError("prompts is one string; give a list of prompts, even for a single one")
    if not prompts:
        raise ValueError("no prompt came; give at least one")
    wishes = {"prompt": "what the picture shows", "negative prompt": "what the picture shall not show, or leave it out"}
    for (kind, wish), texts in zip(wishes.items(), (prompts, negatives or ()), strict=True):
        if any(not isinstance(text, str) or not text.strip() for text in texts):
            raise ValueError(f"the {kind} is empty; say in a few words {wish}")
        if any("\ud800" <= letter <= "\udfff" for text in texts for letter in text):  # how Python reads broken UTF-8
            raise ValueError(f"the {kind} is not text in UTF-8; type it again")
    for kind, given in (("seeds", seeds), ("negative prompts", negatives)):
        if given is not None and len(given) != len(prompts):
            raise ValueError(f"{len(given)} {kind} came for {len(prompts)} prompts; give one for each")
    for seed in seeds:
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= LARGEST_SEED:
            raise ValueError(f"seed is {seed!r}; give a whole number from 0 to {LARGEST_SEED}")


def check_parts(text_encoder: TextEncoder, vqgan: VQGAN, base: MaskedTransformer) -> None:
    """Raises CheckpointError if the parts cannot work together."""
    if vqgan.config.num_codes != base.config.num_codes:
        raise CheckpointError(
            f"the VQGAN has {vqgan.config.num_codes} codes and the base transformer was made for "
            f"{base.config.num_codes}; take both from one model"
        )
    if text_encoder.dim != base.config.text_dim:
        raise CheckpointError(
            f"the text encoder gives states of {text_encoder.dim} numbers and the base transformer reads "
            f"{base.config.text_dim}; take both from one model"
        )
    trained_on = base.config.vqgan_fingerprint
    if trained_on is not None and trained_on != (found := vqgan.fingerprint()):
        raise CheckpointError(
            f"the base transformer was trained on the tokens of VQGAN {trained_on} and this is VQGAN {found}; "
            "take both from one model"
        )


def find_model(model: str | Path) -> Path:
    """The folder of a model: itself, one that ships, or the hub's, downloaded.
    Raises CheckpointError if there is none."""
    name = str(model)
    if name and Path(name).is_dir():
        return Path(name)
    if re.fullmatch(r"[\w-]+", name) and (SHIPPED / name / INDEX).is_file():
        return SHIPPED / name
    if HUB_NAME.fullmatch(name) and not name.startswith("."):
        return download(name)
    shipped = ", ".join(sorted(path.parent.name for path in SHIPPED.glob(f"*/{INDEX}"))) or "none"
    raise CheckpointError(
        f"there is no model {name!r}; give a folder, a shipped model ({shipped}) or a hub name like owner/name"
    )


def download(name: str) -> Path:
    """The folder of a hub model in the local cache.
    Raises CheckpointError if it is not there and cannot be had."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.model", "*.md"]))
    except Exception as error:  # the hub's client raises many kinds, of its own and of its libraries
        reason = str(error).strip().splitlines()[0].split(". ")[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"model {name!r} is no folder here and the hub did not give it ({reason})") from error


def load_text_encoder(folder: Path) -> TextEncoder:
    """Raises CheckpointError if the folder holds no text encoder that `transformers` can load."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is missing; this folder is no whole checkpoint")
    try:
        return TextEncoder.from_folder(folder)
    except Exception as error:  # a damaged folder fails in as many ways as transformers has file formats
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{folder} is damaged ({reason}); get the checkpoint again") from error


def read_defaults(index: dict[str, Any], folder: Path) -> SamplingOptions:
    """The model's own sampling options.
    Raises CheckpointError if they are none."""
    try:
        return SamplingOptions(**index.get("defaults", {}))
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / INDEX} has defaults that cannot be used: {error}") from error
