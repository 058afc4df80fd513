"""The stages that `muse train` knows: each a dataclass of a recipe, its data and what it needs besides.

A new stage is a dataclass with `recipe` first, a `recipes` and a `run`, and a line in STAGES."""

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol

import numpy as np
import torch
import torch.distributed as dist
import tyro

from muse.checkpoint import CONFIG, CheckpointError, load_module, read_config
from muse.data.batches import TokenBatch
from muse.data.cache import TokenCache, TokensOfStep, batch_of, held_out_batches
from muse.data.crops import PicturesOfStep
from muse.data.options import SourceOptions
from muse.data.sources import RowSource, open_source
from muse.images import contact_sheet
from muse.models.superres import SuperResTransformer, Upsampling
from muse.models.text_encoder import TextEncoder
from muse.models.transformer import MaskedTransformer
from muse.models.vqgan import VQGAN, VQGANConfig
from muse.pipeline import INDEX, OF_A_RUN, Muse, find_model, load_text_encoder
from muse.precision import default_device, dtype_for
from muse.processes import Shard
from muse.requests import check_request
from muse.training.base import train_base
from muse.training.decoder import train_decoder
from muse.training.engine import EngineOptions
from muse.training.estimate import (
    Estimate,
    describe,
    estimate_base,
    estimate_decoder,
    estimate_superres,
    estimate_vqgan,
)
from muse.training.export import enlarging, export, remember_parts
from muse.training.perceptual import PerceptualLoss
from muse.training.recipes import (
    BASE_RECIPES,
    DECODER_RECIPES,
    SUPERRES_RECIPES,
    VQGAN_RECIPES,
    BaseRecipe,
    DecoderRecipe,
    SuperResRecipe,
    VQGANRecipe,
)
from muse.training.redraw import Redraw
from muse.training.superres import train_superres
from muse.training.vqgan import train_vqgan

log = logging.getLogger(__name__)
Flat = tyro.conf.arg(name="")
"""The fields of a part of a command stand beside its own."""
MOST_WATCHED = 8
"""Held-out captions that are drawn at every checkpoint."""
UNLIKE = 0.2
"""Share of the length of text states by which they may differ and still be the same encoder's."""


class Stage(Protocol):
    """What `muse train` asks of a stage."""

    def __call__(self, recipe: Any) -> Any: ...

    def recipes(self) -> Mapping[str, Callable[[], Any]]: ...


@dataclass(frozen=True)
class TrainVQGAN:
    """Train a VQGAN on the pictures of a source; captions are not read."""

    recipe: Annotated[VQGANRecipe, Flat]
    pictures: tyro.conf.Positional[str] = ""
    """A folder, tars or parquet files, or a data set of the hub. Only a dry run needs none."""
    source: SourceOptions = field(default_factory=SourceOptions)
    perceptual: Path | None = None
    """SqueezeNet weights for the perceptual loss, as `python -m projects.emoji.networks` converts them; without them
    pictures come out a little softer."""
    dry_run: bool = False
    """Say what the run would be and what it would take, and do nothing."""

    @staticmethod
    def recipes() -> Mapping[str, Callable[[], VQGANRecipe]]:
        return VQGAN_RECIPES

    def run(self) -> None:
        """Raises ValueError or OSError, in one sentence, for what cannot be trained."""
        if self.dry_run:
            print_plan(self.recipe, estimate_vqgan(self.recipe), self.recipe.training.engine)
            return
        require(self.pictures, "pictures", "a folder, tars, parquet files or a data set of the hub")
        batches = pictures_of(self.pictures, self.source, self.recipe)
        perceptual = PerceptualLoss.from_file(self.perceptual) if self.perceptual else None
        folder = train_vqgan(self.recipe.training, batches, batches.watched(), perceptual)
        tell(folder, batches)


@dataclass(frozen=True)
class TrainBase:
    """Train the base transformer on a token cache that `muse tokenize` made."""

    fitted: ClassVar[tuple[str, ...]] = ("num_codes", "height", "width", "text_dim", "vqgan_fingerprint")
    """What of the network is that of the tokens and of the text encoder, whatever a recipe says."""
    recipe: Annotated[BaseRecipe, Flat]
    tokens: tyro.conf.Positional[Path | None] = None
    """The folder of the cache. Only a dry run needs none."""
    vqgan: str = ""
    """The VQGAN that made the tokens: its folder, or a model's name or folder."""
    text_encoder: str = "emoji"
    """The text encoder: its folder, as `transformers` saves it, or a model's name or folder."""
    prompts: tuple[str, ...] = ()
    """Drawn at every checkpoint; captions that training never sees if none are given."""
    dry_run: bool = False
    """Say what the run would be and what it would take, and do nothing."""

    @staticmethod
    def recipes() -> Mapping[str, Callable[[], BaseRecipe]]:
        return BASE_RECIPES

    def run(self) -> None:
        """Raises ValueError or OSError, in one sentence, for what cannot be trained."""
        if self.dry_run:
            recipe = self.recipe
            if self.tokens is not None:
                text_encoder = load_text_encoder(part_of(self.text_encoder, "text_encoder"))
                recipe = fitting(recipe, TokenCache(self.tokens), text_encoder)
            print_plan(recipe, estimate_base(recipe), recipe.training.engine)
            return
        require(self.tokens, "token cache", "the folder that muse tokenize made")
        require(self.vqgan, "VQGAN", "--vqgan with the folder of the one that made the tokens")
        assert self.tokens is not None
        cache, vqgan_folder = TokenCache(self.tokens), part_of(self.vqgan, "vqgan")
        vqgan = load_module(VQGAN, VQGANConfig, vqgan_folder)
        cache.check(vqgan.fingerprint())
        text_folder = part_of(self.text_encoder, "text_encoder")
        text_encoder = load_text_encoder(text_folder)
        recipe = fitting(self.recipe, cache, text_encoder)
        check_text(cache, text_encoder)
        engine = recipe.training.engine
        batches = TokensOfStep(cache, recipe.batch_size, engine.seed, recipe.held_out)
        validation = held_out_batches(cache, recipe.held_out, recipe.batch_size)
        prompts = watched_prompts(self.prompts, validation, text_encoder)

        def watch(base: MaskedTransformer, step: int) -> None:
            if is_first():
                remember_parts(engine.folder, vqgan=vqgan_folder, text_encoder=text_folder)
            draw(Muse(text_encoder, vqgan.to(base.embed.weight.device), base), prompts, engine.folder, step)

        train_base(recipe.training, text_encoder, vqgan.fingerprint(), batches, validation, watch)
        finish(engine.folder)


@dataclass(frozen=True)
class TrainSuperRes:
    """Train the super-resolution transformer on a token cache with low and high tokens."""

    fitted: ClassVar[tuple[str, ...]] = (
        *TrainBase.fitted,
        *("low_num_codes", "low_height", "low_width", "vqgan_low_fingerprint"),
    )
    recipe: Annotated[SuperResRecipe, Flat]
    tokens: tyro.conf.Positional[Path | None] = None
    """The folder of the cache, made with --high. Only a dry run needs none."""
    model: str = ""
    """The model whose pictures shall become larger: its VQGAN made the low tokens, its text encoder reads captions."""
    high: str = ""
    """The VQGAN that made the high tokens: its folder, or the name or folder of a model that has one for
    super-resolution."""
    prompts: tuple[str, ...] = ()
    """Drawn by the model and made larger at every checkpoint; captions that training never sees if none are given."""
    dry_run: bool = False
    """Say what the run would be and what it would take, and do nothing."""

    @staticmethod
    def recipes() -> Mapping[str, Callable[[], SuperResRecipe]]:
        return SUPERRES_RECIPES

    def run(self) -> None:
        """Raises ValueError or OSError, in one sentence, for what cannot be trained."""
        if self.dry_run and not (self.tokens and self.model and self.high):
            print_plan(self.recipe, estimate_superres(self.recipe), self.recipe.training.engine)
            return
        require(self.tokens, "token cache", "the folder that muse tokenize made")
        require(self.model, "model", "--model with the folder of the one whose pictures shall become larger")
        require(self.high, "VQGAN of the high tokens", "--high with its folder")
        assert self.tokens is not None
        model_folder, high_folder = find_model(self.model), part_of(self.high, "vqgan_superres")
        cache, muse = TokenCache(self.tokens), Muse.from_pretrained(model_folder, "cpu", "float32")
        vqgan = load_module(VQGAN, VQGANConfig, high_folder)
        low, high = muse.vqgan.fingerprint(), vqgan.fingerprint()
        cache.check(low, high)
        check_text(cache, muse.text_encoder)
        recipe = self.fitting(cache, muse.text_encoder, vqgan)
        engine = recipe.training.engine
        if self.dry_run:
            print_plan(recipe, estimate_superres(recipe), engine)
            return
        batches = TokensOfStep(cache, recipe.batch_size, engine.seed, recipe.held_out)
        validation = held_out_batches(cache, recipe.held_out, recipe.batch_size)
        upsampling = Upsampling.of(recipe.training.model, muse.vqgan, vqgan)
        prompts = watched_prompts(self.prompts, validation, muse.text_encoder)

        def watch(superres: SuperResTransformer, step: int) -> None:
            if is_first():
                remember_parts(engine.folder, model=model_folder, vqgan_superres=high_folder)
            for part in (muse.vqgan, muse.base, vqgan):
                part.to(superres.embed.weight.device)
            draw(enlarging(muse, superres, vqgan, muse.name), prompts, engine.folder, step)

        train_superres(recipe.training, muse.text_encoder, high, low, batches, validation, watch, upsampling)
        finish(engine.folder)

    def fitting(self, cache: TokenCache, text_encoder: TextEncoder, vqgan: VQGAN) -> SuperResRecipe:
        """The recipe with the grids, the codes, the latents and the text features of what it is trained on."""
        low, high = cache.info.low, cache.info.high
        assert high is not None, "check would have refused the cache"
        sizes = {"low_num_codes": low.num_codes, "low_height": low.height, "low_width": low.width}
        large = {"num_codes": high.num_codes, "height": high.height, "width": high.width}
        model = replace(self.recipe.training.model, **sizes, **large, text_dim=text_encoder.dim)
        if model.upsampled_dim:
            model = replace(model, upsampled_dim=vqgan.config.code_dim)
        return replace(self.recipe, training=replace(self.recipe.training, model=model))


@dataclass(frozen=True)
class TrainDecoder:
    """Train a larger decoder for a VQGAN, on the pictures of a source; no token changes."""

    recipe: Annotated[DecoderRecipe, Flat]
    pictures: tyro.conf.Positional[str] = ""
    """A folder, tars or parquet files, or a data set of the hub. Only a dry run needs none."""
    vqgan: str = ""
    """The folder of the VQGAN, or the name or folder of a model, of which it is that of the small pictures, or with
    `--drawn-by` that of the large ones. A dry run without it counts with the VQGAN that the recipe was made for."""
    drawn_by: str = ""
    """A model whose super-resolution draws the tokens of this VQGAN, its name or folder: a share of the pictures is
    painted from what it draws of them then (`--drawn-share`). Drawing takes its time besides what a dry run says."""
    source: SourceOptions = field(default_factory=SourceOptions)
    perceptual: Path | None = None
    """SqueezeNet weights for the perceptual loss, as `python -m projects.emoji.networks` converts them."""
    dry_run: bool = False
    """Say what the run would be and what it would take, and do nothing."""

    @staticmethod
    def recipes() -> Mapping[str, Callable[[], DecoderRecipe]]:
        return DECODER_RECIPES

    def run(self) -> None:
        """Raises ValueError or OSError, in one sentence, for what cannot be trained."""
        share = self.recipe.training.drawn_share
        if share is not None and not self.drawn_by:
            raise ValueError(
                f"drawn_share is {share} and no model came that draws; give --drawn-by with one, or leave "
                "--drawn-share out"
            )
        if self.dry_run:
            recipe = self.recipe
            if self.vqgan:
                recipe = replace(recipe, made_for=read_config("VQGAN", VQGANConfig, self.vqgan_folder()))
            print_plan(recipe, estimate_decoder(recipe), recipe.training.engine)
            return
        require(self.pictures, "pictures", "a folder, tars, parquet files or a data set of the hub")
        require(self.vqgan, "VQGAN", "--vqgan with the folder of the one whose decoder shall be larger")
        vqgan = load_module(VQGAN, VQGANConfig, self.vqgan_folder())
        drawn = redraw_by(self.drawn_by, vqgan, self.recipe.size) if self.drawn_by else None
        batches = pictures_of(self.pictures, self.source, self.recipe)
        perceptual = PerceptualLoss.from_file(self.perceptual) if self.perceptual else None
        folder = train_decoder(self.recipe.training, vqgan, batches, batches.watched(), perceptual, drawn)
        tell(folder, batches)

    def vqgan_folder(self) -> Path:
        """Where the VQGAN is; of a model that of what is drawn, if anything is: super-resolution draws.
        Raises CheckpointError if there is none."""
        return part_of(self.vqgan, "vqgan_superres" if self.drawn_by else "vqgan")


STAGES: dict[str, Any] = {"vqgan": TrainVQGAN, "base": TrainBase, "superres": TrainSuperRes, "decoder": TrainDecoder}


def redraw_by(model: str, vqgan: VQGAN, size: int) -> Redraw:
    """What draws pictures anew by a model, its weights rounded as where training will be; each process moves it there.
    Raises ValueError if it draws other tokens, or pictures of another size."""
    muse = Muse.from_pretrained(model, "cpu", "float32").draw_in(dtype_for("auto", default_device()))
    return Redraw(muse, vqgan, size, model)


def tell(folder: Path, batches: PicturesOfStep) -> None:
    """Print where the network is, and what all processes have found in the pictures; each must call this."""
    if dist.is_initialized():
        mine = batches.seen.int().to("cuda" if dist.get_backend() == "nccl" else "cpu")
        parts = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, mine)
        batches.seen.copy_(reduce(torch.bitwise_or, parts))
    if is_first():
        print(f"{folder}  ({batches.sentence()})")


def pictures_of(name: str, options: SourceOptions, recipe: VQGANRecipe | DecoderRecipe) -> PicturesOfStep:
    """The batches of a run on pictures.
    Raises ValueError if the source cannot be read in any order."""
    source = open_source(name, options, one_by_one=True)
    if not isinstance(source, RowSource):
        raise ValueError(f"{name} cannot be read in any order; pack it into parquet files")
    return PicturesOfStep(source, recipe.size, recipe.batch_size, recipe.training.engine.seed, recipe.held_out)


def fitting(recipe: BaseRecipe, cache: TokenCache, text_encoder: TextEncoder) -> BaseRecipe:
    """The recipe with the grid, the codes and the text features of what it is trained on.
    Raises ValueError if the text states of the cache are another encoder's."""
    low, dim = cache.info.low, cache.info.text_dim
    if dim is not None and dim != text_encoder.dim:
        raise ValueError(
            f"the cache holds text states of {dim} numbers and the text encoder gives {text_encoder.dim}; "
            f"give --text-encoder {cache.info.text_encoder}"
        )
    model = replace(
        recipe.training.model,
        num_codes=low.num_codes,
        height=low.height,
        width=low.width,
        text_dim=text_encoder.dim,
    )
    return replace(recipe, training=replace(recipe.training, model=model))


def check_text(cache: TokenCache, text_encoder: TextEncoder) -> None:
    """Raises ValueError if another text encoder made the text states of the cache: its first caption, read anew, has
    other states. As the cache rounds to 16 bits, and encoders are stored in 16 or 8, they may differ a little."""
    if cache.info.text_dim is None:
        return
    batch = batch_of(cache, np.zeros(1, np.int64), np.zeros(1))
    assert batch.text is not None
    states, _ = text_encoder(text_encoder.cut_to_fit(batch.captions))
    if states.shape != batch.text.shape or (states - batch.text).norm() > UNLIKE * batch.text.norm():
        raise ValueError(
            f"the text states of {cache.folder} are not those of this text encoder; give the one that made them "
            f"({cache.info.text_encoder}), or tokenize again"
        )


def watched_prompts(given: Sequence[str], batches: Sequence[TokenBatch], text_encoder: TextEncoder) -> Sequence[str]:
    """What is drawn at every checkpoint: the prompts that are given, else the first captions of batches that say
    something.
    Raises ValueError for a given prompt that cannot be drawn, before a run begins."""
    if given:
        check_request(given, range(len(given)), None)
        text_encoder.sub_words(given)
        return given
    captions = [caption for batch in batches for caption in batch.captions if caption.strip()]
    return text_encoder.cut_to_fit(captions[:MOST_WATCHED])


def draw(muse: Muse, prompts: Sequence[str], folder: Path, step: int) -> None:
    """Leave a sheet of what a model draws of prompts at a checkpoint, if there are any. All processes draw, as each may
    have but a shard; the first one writes."""
    if not prompts:
        return
    images = muse.generate(prompts, list(range(len(prompts))))
    if is_first():
        contact_sheet(images, columns=8).save(folder / f"drawn-{step:06}.png")


def finish(run: Path) -> None:
    """Write the model of a run that has ended, and say where."""
    if is_first():
        export(run, run / OF_A_RUN)
        print(run / OF_A_RUN)


def part_of(place: str, part: str) -> Path:
    """The folder of one part: the folder itself, or that part of a model that has a name or a folder; or the VQGAN that
    a run in the folder has trained.
    Raises CheckpointError if there is none."""
    if (Path(place) / CONFIG).is_file():
        return Path(place)
    folder = find_model(place)
    if part != "vqgan_superres" or (folder / part).is_dir():
        return folder / part
    if not (folder / INDEX).is_file() and (folder / "vqgan" / CONFIG).is_file():
        return folder / "vqgan"
    raise CheckpointError(
        f"{place} has no VQGAN of super-resolution; give a model that has one, or the VQGAN's own folder"
    )


def is_first() -> bool:
    """True in the process that speaks for all."""
    return Shard.from_environment().is_first


def require(given: object, what: str, wish: str) -> None:
    """Raises ValueError if nothing was given."""
    if not given:
        raise ValueError(f"no {what} came; give {wish}")


def print_plan(recipe: Any, estimate: Estimate, engine: EngineOptions) -> None:
    """Every field of a run, and what it would take."""
    for name, value in fields_of(recipe):
        print(f"{name:<40}{value}")
    print()
    for line in describe(estimate, engine):
        print(line)


def fields_of(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The fields of a dataclass and of those in it, as the command line calls them."""
    for each in dataclasses.fields(value):
        inner = getattr(value, each.name)
        path = each.name if not name else f"{name}.{each.name}"
        if dataclasses.is_dataclass(inner):
            yield from fields_of(inner, name if each.name == "training" else path)
        else:
            yield path.replace("_", "-"), inner
