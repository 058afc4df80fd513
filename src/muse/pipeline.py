"""`Muse`: a prompt's way to a picture, and the folder that holds all of its parts."""

import dataclasses
import hashlib
import importlib.resources
import json
import os
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor, nn

from muse.checkpoint import (
    CONFIG,
    CheckpointError,
    check_stored,
    fingerprint_of,
    first_line,
    load_module,
    read_json,
    save_module,
    write_whole,
)
from muse.cuda_graph import padded
from muse.editing import Editing, Preview
from muse.guidance import Blend, guided
from muse.images import check_pictures, resized, to_images, to_tensor
from muse.models.layers import Context, Texts, Words
from muse.models.narrow import narrow
from muse.models.reuse import Reuse, Rhythm
from muse.models.superres import SuperResConfig, SuperResTransformer, Upsampling
from muse.models.text_encoder import TextEncoder, mean_state
from muse.models.transformer import MaskedTransformer, TransformerConfig
from muse.models.vqgan import VQGAN, VQGANConfig, to_unit_range
from muse.precision import EIGHT_BITS, check_device, check_drawn_in, default_device, dtype_for, number_for
from muse.requests import (
    Precision,
    check_best_of,
    check_guidance,
    check_kind,
    check_list,
    check_request,
    check_seeds,
    check_string,
    whole_number,
)
from muse.rewording import reworded
from muse.sampling import SamplingOptions, StepReport, decode, generators_for, given_or
from muse.sampling.graph import Graphs
from muse.shapes import Hidden, LowTokens, PlaceLogits, Predict, Step, TextMask, TextStates, Tokens
from muse.vocabulary import VOCABULARY, Vocabulary

INDEX = "model_index.json"
OF_A_RUN = "model"
"""The folder in which a run of training leaves its model."""
PARTS = ("text_encoder", "vqgan", "base")
SUPERRES_PARTS = ("superres", "vqgan_superres")
"""Parts that come together or not at all."""
SUPERRES_DEFAULTS = SamplingOptions(steps=8)
"""What super-resolution is drawn with if the model does not say. Muse, section 2.8."""
SUPERRES_STREAM = 1 << 31
"""Flipped in a seed, it gives super-resolution other noise than the base; a generator reads 32 bits of its seed."""
Size = Literal["low", "high"]
SHIPPED = Path(str(importlib.resources.files("muse"))) / "weights"
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
BATCH = 64
"""Names that are read at a time."""
TRIED_AT_ONCE = 8
"""Grids that are drawn side by side to choose among them."""
Judge = Callable[[Sequence[Image.Image], Sequence[str]], Float[Tensor, " picture"]]
"""Pictures and their prompts to scores, of which more is better."""
HIDDEN_GREY = 0.88
"""How light a token that is still hidden is shown."""


class Muse(Editing):
    """Draws pictures of prompts; in two stages if it has a super-resolution transformer, which draws them larger.
    Muse (arXiv:2301.00704)."""

    def __init__(
        self,
        text_encoder: TextEncoder,
        vqgan: VQGAN,
        base: MaskedTransformer,
        superres: SuperResTransformer | None = None,
        vqgan_superres: VQGAN | None = None,
        *,
        name: str = "unnamed",
        defaults: SamplingOptions | None = None,
        superres_defaults: SamplingOptions | None = None,
        vocabulary: Vocabulary | None = None,
    ):
        check_parts(text_encoder, vqgan, base, superres, vqgan_superres)
        self.text_encoder, self.vqgan, self.base = text_encoder, vqgan.eval(), base.eval()
        self.superres = superres.eval() if superres is not None else None
        self.vqgan_superres = vqgan_superres.eval() if vqgan_superres is not None else None
        self.name, self.defaults = name, defaults or SamplingOptions()
        self.superres_defaults = superres_defaults or SUPERRES_DEFAULTS
        self.vocabulary = vocabulary
        self._read: tuple[Vocabulary, Tensor] | None = None
        self._number: torch.dtype | None = None
        self._is_rounded = False
        self._graphs: Graphs | None = None

    # -- folders --------------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(
        cls, model: str | Path, device: torch.device | str | None = None, precision: Precision = "auto"
    ) -> "Muse":
        """Load a folder, a model that ships ("emoji") or one of the hub ("owner/name"), to draw in a precision.
        Raises CheckpointError, in one sentence, if there is none, or if it is damaged or does not fit together; and
        ValueError if there is no such precision, or no such device."""
        device = device or default_device()
        check_device(device)
        dtype, number = dtype_for(precision, device), number_for(precision, device)
        folder = find_model(model)
        index = read_json(folder / INDEX)
        is_cascade = has_superres(index, folder)
        muse = cls(
            load_text_encoder(folder / "text_encoder"),
            load_module(VQGAN, VQGANConfig, folder / "vqgan"),
            load_module(MaskedTransformer, TransformerConfig, folder / "base"),
            load_module(SuperResTransformer, SuperResConfig, folder / "superres") if is_cascade else None,
            load_module(VQGAN, VQGANConfig, folder / "vqgan_superres") if is_cascade else None,
            name=str(index.get("name") or folder.absolute().name),
            defaults=read_defaults(index, folder),
            superres_defaults=read_superres_defaults(index, folder),
            vocabulary=Vocabulary.from_folder(folder),
        )
        return muse.to(device).draw_in(dtype, number)

    def save_pretrained(
        self, folder: Path | str, dtype: torch.dtype | None = None, text_dtype: torch.dtype = torch.float16
    ) -> None:
        """Write all parts as a folder that `from_pretrained` loads; `dtype` rounds the transformers, `text_dtype` the
        text encoder. The VQGANs keep the precision that made their tokens.
        Raises ValueError if weights were rounded to draw, as what was lost would be lost for ever, or if they cannot be
        stored in these types."""
        check_stored("dtype", dtype)
        check_stored("text_dtype", text_dtype)
        self._check_whole("saved")
        if self._is_rounded:
            raise ValueError(
                f"the weights were rounded to {self.precision} to draw and cannot be saved as they were; load the "
                "model again with precision 'float32'"
            )
        folder = Path(folder)
        self.text_encoder.save(folder / "text_encoder", text_dtype)
        save_module(self.vqgan, folder / "vqgan")
        save_module(self.base, folder / "base", dtype)
        index = {"class": "Muse", "name": self.name, "parts": PARTS, "defaults": dataclasses.asdict(self.defaults)}
        if self.superres is not None and self.vqgan_superres is not None:
            save_module(self.superres, folder / "superres", dtype)
            save_module(self.vqgan_superres, folder / "vqgan_superres")
            index["parts"] = PARTS + SUPERRES_PARTS
            index["superres_defaults"] = dataclasses.asdict(self.superres_defaults)
        (folder / VOCABULARY).unlink(missing_ok=True)
        if self.vocabulary is not None:
            self.vocabulary.save(folder)
        write_whole(folder / INDEX, json.dumps(index, indent=2) + "\n")

    def to(self, device: torch.device | str) -> "Muse":
        """Move all parts to a device.
        Raises ValueError if there is no such device, or it does not multiply in the 8 bits that the layers draw in; or
        for a type, which `draw_in` takes."""
        check_device(device)
        if self._number is not None:
            number_for(self.precision, device)
        for part in self.modules:
            part.to(device)
        self._graphs = self._graphs and Graphs()
        return self

    def draw_in(self, dtype: torch.dtype, number: torch.dtype | None = None) -> "Muse":
        """Round the weights of what draws, the transformers and the decoders, to `dtype`, in which they then compute;
        but for the layers of the transformers, if there is a `number` of 8 bits in which they multiply.
        Texts and given pictures are read as before, and tokens are drawn of the logits in float32.
        Raises ValueError if they were rounded to 8 bits before, or for types that are none of these; nothing is changed
        then."""
        self._check_whole("rounded again")
        check_drawn_in(dtype, number)
        self._is_rounded |= dtype.itemsize < self.base.embed.weight.dtype.itemsize
        for part in (self.base, self.superres, self.vqgan, self.vqgan_superres):
            if part is not None:
                (part.decoder if isinstance(part, VQGAN) else part).to(dtype)
            if number is not None and isinstance(part, MaskedTransformer | SuperResTransformer):
                narrow(part, number)
        self._number, self._graphs = number, self._graphs and Graphs()
        return self

    def use_graphs(self) -> "Muse":
        """Draw each grid as one CUDA graph from now on, where it begins with every token hidden: on a GPU several times
        as fast in small batches, which otherwise wait for Python to launch their kernels. The second grid of each
        number of pictures, of options and of some lengths of texts takes several times as long, and from then on
        callbacks see the steps of a grid when all are taken. Texts are padded, which in bfloat16 can make another
        picture than without graphs. On a processor it draws as before."""
        self._graphs = Graphs()
        return self

    def _check_whole(self, what: str) -> None:
        if self._number is not None:
            raise ValueError(f"the layers draw in {self.precision} and cannot be {what}; load the model again without")

    @property
    def precision(self) -> str:
        """The type of the weights that draw, "float32" or "bfloat16"; or "int8" or "float8", if their products are."""
        if self._number is not None:
            return next(name for name, number in EIGHT_BITS.items() if number == self._number)
        return str(self.base.embed.weight.dtype).removeprefix("torch.")

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """The networks, in the order of PARTS and SUPERRES_PARTS."""
        parts = (self.text_encoder, self.vqgan, self.base, self.superres, self.vqgan_superres)
        return tuple(part for part in parts if part is not None)

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that change with whatever draws: weights, in which arithmetic, configs, and how
        prompts become sub-words."""
        return hashlib.sha256(f"{fingerprint_of(self.modules)} {self.text_encoder.manner()}".encode()).hexdigest()[:16]

    @property
    def device(self) -> torch.device:
        return self.base.embed.weight.device

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the pictures that `generate` draws, in pixels."""
        if self.superres is None or self.vqgan_superres is None:
            return self.low_size
        return size_of(self.superres.config, self.vqgan_superres)

    @property
    def low_size(self) -> tuple[int, int]:
        """Width and height of the pictures before super-resolution, in pixels."""
        return size_of(self.base.config, self.vqgan)

    # -- words ----------------------------------------------------------------------------------------------------

    def nearest_names(self, text: str, num: int = 3) -> list[str]:
        """The things that the model's captions name which the text encoder finds nearest to a text, the nearest first:
        by the cosine of the mean states; an empty list if it is not known what they name.
        Raises ValueError if the text is too long or none, or `num` is no whole number from 0."""
        check_string("the text", text)
        num = whole_number("num", num, 0)
        return [] if self.vocabulary is None else self._nearest(self.vocabulary, [text], num)[0]

    def reword(self, prompt: str) -> str:
        """A prompt in words of the model's captions, as far as those are known (`muse.rewording`): "a golden retriever
        next to a hut" may be "a dog and a hut" then. What draws, draws a prompt as it is; clients of this class ask
        for this.
        Raises ValueError if names must be found and the prompt is too long, or it is no text."""
        check_string("the prompt", prompt)
        vocabulary = self.vocabulary
        if vocabulary is None:
            return prompt

        def nearest(things: Sequence[str]) -> list[str]:
            _, *near = self._nearest(vocabulary, [prompt, *things], num=1)
            return [name for (name,) in near]

        return reworded(prompt, vocabulary, nearest)

    def _nearest(self, vocabulary: Vocabulary, texts: Sequence[str], num: int) -> list[list[str]]:
        """The nearest names of each text. Those of all names are read once."""
        if self._read is None or self._read[0] is not vocabulary:
            self._read = vocabulary, self._mean_states(vocabulary.names)
        near = (self._mean_states(texts) @ self._read[1].T).topk(min(num, len(vocabulary.names)), dim=1).indices
        return [[vocabulary.names[i] for i in row] for row in near.tolist()]

    def _mean_states(self, texts: Sequence[str]) -> Float[Tensor, "text dim"]:
        """The mean state of each text's words, of length 1, on the processor."""
        starts = range(0, len(texts), BATCH)
        means = [mean_state(*self.text_encoder(texts[start : start + BATCH])) for start in starts]
        return nn.functional.normalize(torch.cat(means), dim=-1)

    # -- drawing --------------------------------------------------------------------------------------------------

    def generate(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int] | None = None,
        *,
        negatives: Sequence[str] | None = None,
        options: SamplingOptions | None = None,
        superres_options: SamplingOptions | None = None,
        size: Size | None = None,
        callback: Callable[[StepReport], None] | None = None,
    ) -> list[Image.Image]:
        """One picture for each prompt; picture i depends on prompt i, negative i and seed i alone.

        `options` are those of the base, `superres_options` those of super-resolution; size "low" leaves that out.
        `callback` sees every step; `preview` makes pictures of what it sees. Random seeds if none are given.
        Raises ValueError if a prompt is empty or too long, there are not equally many of everything, options are of
        another kind, or the size is "high" and the model has no super-resolution."""
        seeds = check_request(prompts, seeds, negatives)
        check_size(size, self)
        text, is_word = self.text_encoder.read_each(with_negatives(prompts, negatives))
        return self.generate_from_states(
            text,
            is_word,
            seeds,
            options=options,
            superres_options=superres_options,
            size=size,
            callback=callback,
        )

    def generate_from_states(
        self,
        text: TextStates,
        is_word: TextMask,
        seeds: Sequence[int],
        *,
        options: SamplingOptions | None = None,
        superres_options: SamplingOptions | None = None,
        size: Size | None = None,
        callback: Callable[[StepReport], None] | None = None,
    ) -> list[Image.Image]:
        """As `generate`, for prompts that the text encoder has read already.
        States of `len(seeds)` prompts, and then those of equally many negative prompts, or none.
        Raises ValueError if there are other numbers of states, or they are not those of the model's text encoder."""
        check_size(size, self)
        seeds = check_seeds(seeds)
        check_states(text, is_word, seeds, self.base.config.text_dim)
        options, above = self._options(options, superres_options)
        text, is_word = text.to(self.device), is_word.to(self.device)
        low = self.draw_base(text, is_word, seeds, options, callback)
        if self.superres is None or size == "low":
            return self.to_images(low)
        high = self.draw_superres(low, text, is_word, seeds, above, callback)
        return self.to_large_images(high)

    def choose(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int] | None,
        best_of: int,
        *,
        negatives: Sequence[str] | None = None,
        options: SamplingOptions | None = None,
        judge: Judge | None = None,
        callback: Callable[[StepReport], None] | None = None,
    ) -> list[int]:
        """For each prompt the best of `best_of` seeds that count up from its own, or from a random one if there are no
        seeds, for `generate` to draw.

        Best is whose picture before super-resolution the `judge` gives the most, as Muse shows people the best of 16
        by CLIP (`muse.evaluation.clip.ClipScorer` is one); without a judge, whose tokens the base found
        likeliest, in the mean, as it drew them. `callback` sees every step of every grid that is tried.
        Raises ValueError as `generate`, if `best_of` is no whole number from 1 to 1,000, or if the judge does not give
        each picture a finite number."""
        seeds = check_request(prompts, seeds, negatives)
        check_best_of(best_of, seeds)
        options, scores = given_or("options", options, self.defaults), []
        if best_of == 1:
            return seeds
        texts = with_negatives(prompts, negatives)
        text, is_word = (each.to(self.device) for each in self.text_encoder.read_each(texts))
        tried = [(row, seed + more) for row, seed in enumerate(seeds) for more in range(best_of)]
        for start in range(0, len(tried), TRIED_AT_ONCE):
            some, reports = tried[start : start + TRIED_AT_ONCE], Latest(callback)
            rows = [row for row, _ in some]
            both = rows if negatives is None else [*rows, *(len(prompts) + row for row in rows)]
            low = self.draw_base(text[both], is_word[both], [seed for _, seed in some], options, reports)
            if judge is None:
                scores.append(reports.mean_log_prob())
            else:
                scores.append(judged(judge, self.to_images(low), [prompts[row] for row in rows]))
        best = torch.cat([each.cpu() for each in scores]).reshape(len(seeds), best_of).argmax(1)
        return [seed + more for seed, more in zip(seeds, best.tolist(), strict=True)]

    def upscale(
        self,
        images: Sequence[Image.Image],
        prompts: Sequence[str],
        seeds: Sequence[int] | None = None,
        *,
        negatives: Sequence[str] | None = None,
        options: SamplingOptions | None = None,
        callback: Callable[[StepReport], None] | None = None,
    ) -> list[Image.Image]:
        """Super-resolution of pictures of any size, on their own low-resolution tokens, each with a prompt that says
        what it shows.
        Raises ValueError as `generate`, or if a picture has not the shape of those that the model draws."""
        seeds = check_request(prompts, seeds, negatives)
        check_list("images", images)
        if len(images) != len(prompts):
            raise ValueError(f"{len(images)} pictures came for {len(prompts)} prompts; give one for each")
        check_size("high", self)
        options = given_or("options", options, self.superres_defaults)
        check_guidance(options.guidance, has_negatives=negatives is not None)
        low = self.to_tokens(images)
        text, is_word = self.text_encoder.read_each(with_negatives(prompts, negatives))
        high = self.draw_superres(low, text.to(self.device), is_word.to(self.device), seeds, options, callback)
        return self.to_large_images(high)

    @torch.no_grad()
    def draw_base(
        self,
        text: Texts,
        is_word: Words,
        seeds: Sequence[int],
        options: SamplingOptions,
        callback: Callable[[StepReport], None] | None = None,
        start: Tokens | None = None,
    ) -> Tokens:
        """Low-resolution tokens of texts; the second half of twice as many texts are negative prompts.
        `start` has the mask id where tokens are to be drawn; all are if it is not given.
        Raises ValueError if there are negative prompts and guidance is 0, or for states as `generate_from_states`."""
        check_states(text, is_word, seeds, self.base.config.text_dim)
        check_guidance(options.guidance, has_negatives=len(text) == 2 * len(seeds) > 0)
        base, num = self.base, len(seeds)  # a graph keeps the function, and the function shall not keep this model

        def predict_of(text: Texts, is_word: Words) -> Predict:
            return each_guided(base, text, is_word, num, options)

        return self._decode(base.config, predict_of, (text, is_word), options, generators_for(seeds), callback, start)

    @torch.no_grad()
    def draw_superres(
        self,
        low: LowTokens,
        text: Texts,
        is_word: Words,
        seeds: Sequence[int],
        options: SamplingOptions,
        callback: Callable[[StepReport], None] | None = None,
        start: Tokens | None = None,
    ) -> Tokens:
        """High-resolution tokens of low-resolution ones and texts, as `draw_base` draws low-resolution ones of texts.
        Raises ValueError if the model has no super-resolution, a low-resolution token is hidden or no code, or for
        states as `generate_from_states`."""
        superres, vqgan = self.high
        config = superres.config
        check_states(text, is_word, seeds, config.text_dim)
        check_codes(low, config.low_num_codes)
        upsampling = Upsampling.of(config, self.vqgan, vqgan)

        def predict_of(low: LowTokens, text: Texts, is_word: Words) -> Predict:
            def of_rows(rows: slice, text: Texts, is_word: Words) -> Predict:
                return superres_predict(superres, low[rows], text, is_word, options, upsampling)

            return each_alone(of_rows, text, is_word, len(low))

        generators = generators_for([seed ^ SUPERRES_STREAM for seed in seeds])
        return self._decode(config, predict_of, (low, text, is_word), options, generators, as_superres(callback), start)

    def predict_base(self, text: Texts, is_word: Words, num: int, options: SamplingOptions) -> Predict:
        """What draws the low-resolution tokens of `num` pictures from texts, under guidance."""
        return each_guided(self.base, text, is_word, num, options)

    def _decode(
        self,
        config: TransformerConfig | SuperResConfig,
        predict_of: Callable[..., Predict],
        context: tuple[Tensor, ...],
        options: SamplingOptions,
        generators: Sequence[torch.Generator],
        callback: Callable[[StepReport], None] | None,
        start: Tokens | None,
    ) -> Tokens:
        """`decode` of what `predict_of` makes of the context, which ends with the texts; as a graph, if that was asked
        for and all tokens are hidden at the start, as they are if none is given."""
        drawn_by = self._graphs if start is None and Graphs.fit(self.device) else None
        if start is None:
            size = len(generators), config.height * config.width
            start = torch.full(size, config.mask_id, device=self.device)
        if drawn_by is None:
            return decode(start, predict_of(*context), options, generators, config.mask_id, callback, config.height)
        *others, text, is_word = context
        whole = (*others, *padded(text, is_word))
        return drawn_by.decode(
            config, start, predict_of, whole, options, generators, config.mask_id, callback, config.height
        )

    @torch.no_grad()
    def to_tokens(self, images: Sequence[Image.Image]) -> Tokens:
        """The low-resolution tokens of pictures of any size.
        Raises ValueError if there are none, or a picture has not the shape of those that the model draws."""
        check_pictures(images)
        pictures = torch.stack([to_tensor(resized(image, self.low_size)) for image in images])
        return one_by_one(self.vqgan.encode, pictures.to(self.device))

    @torch.no_grad()
    def to_images(self, tokens: Tokens) -> list[Image.Image]:
        """Paint low-resolution grids of tokens."""
        return to_images(one_by_one(partial(self.vqgan.decode, height=self.base.config.height), tokens))

    @torch.no_grad()
    def to_large_images(self, tokens: Tokens) -> list[Image.Image]:
        """Paint high-resolution grids of tokens.
        Raises ValueError if the model has no super-resolution."""
        superres, vqgan = self.high
        return to_images(one_by_one(partial(vqgan.decode, height=superres.config.height), tokens))

    @torch.no_grad()
    def preview(self, report: StepReport) -> Preview:
        """Paint what stands after a step of either stage; tokens still hidden are grey."""
        network, vqgan = (self.base, self.vqgan) if report.stage == "base" else self.high
        config, quantizer, stride = network.config, vqgan.quantizer, vqgan.config.stride
        shape = (len(report.tokens), config.height, config.width)
        is_hidden = report.is_hidden.reshape(shape)
        codes = quantizer.look_up(report.tokens.clamp(max=config.num_codes - 1).reshape(shape))
        typical = quantizer.codebook.mean(0).reshape(1, -1, 1, 1)
        pictures = to_unit_range(one_by_one(vqgan.decoder, torch.where(is_hidden[:, None], typical, codes)))
        covered = is_hidden.repeat_interleave(stride, 1).repeat_interleave(stride, 2)[:, None]
        return Preview(report.step, to_images(torch.where(covered, HIDDEN_GREY, pictures)))

    @property
    def high(self) -> tuple[SuperResTransformer, VQGAN]:
        """Super-resolution and its VQGAN.
        Raises ValueError if the model has none."""
        check_size("high", self)
        assert self.superres is not None
        assert self.vqgan_superres is not None
        return self.superres, self.vqgan_superres


def with_negatives(prompts: Sequence[str], negatives: Sequence[str] | None) -> list[str]:
    """The texts of a request, as they are read."""
    return [*prompts, *(() if negatives is None else negatives)]


def judged(judge: Judge, images: Sequence[Image.Image], prompts: Sequence[str]) -> Float[Tensor, " picture"]:
    """The scores that a judge gives.
    Raises ValueError if they are not one finite number for each picture."""
    given = judge(images, prompts)
    try:
        scores = torch.as_tensor(given).float().cpu()
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"the judge gave no scores ({first_line(error)}); give a number for each picture") from error
    if scores.shape != (len(images),) or not scores.isfinite().all():
        raise ValueError(f"the judge gave {scores.tolist()} for {len(images)} pictures; give a finite number for each")
    return scores


class Latest:
    """A callback that keeps what it was told last, and tells another one."""

    def __init__(self, callback: Callable[[StepReport], None] | None):
        self.callback = callback
        self.report: StepReport | None = None

    def __call__(self, report: StepReport) -> None:
        self.report = report
        if self.callback is not None:
            self.callback(report)

    def mean_log_prob(self) -> Float[Tensor, " picture"]:
        """How likely the tokens of each grid were as they were drawn, in the mean."""
        assert self.report is not None
        assert self.report.log_probs is not None
        return self.report.log_probs.mean(1)


def guided_predict(
    base: MaskedTransformer, text: TextStates, is_word: TextMask, num: int, options: SamplingOptions
) -> Predict:
    """What `decode` calls: the base transformer under guidance, its text read once.
    Of 2 * num texts the second half are negative prompts; of num, guidance is away from no text at all."""
    return predict_both(base, base.read(text, is_word), num, options)


def each_guided(base: MaskedTransformer, text: Texts, is_word: Words, num: int, options: SamplingOptions) -> Predict:
    """`guided_predict` of `num` samples, `each_alone`."""

    def predict_of(rows: slice, text: Texts, is_word: Words) -> Predict:
        return guided_predict(base, text, is_word, rows.stop - rows.start, options)

    return each_alone(predict_of, text, is_word, num)


def superres_predict(
    superres: SuperResTransformer,
    low: LowTokens,
    text: Texts,
    is_word: Words,
    options: SamplingOptions,
    upsampling: Upsampling | None = None,
) -> Predict:
    """What `decode` calls: the super-resolution transformer under guidance, its low-resolution tokens and its text read
    once. Both branches have the low-resolution tokens; texts are as in `guided_predict`. Muse, section 2.7."""
    upsampled = upsampling and upsampling(low).repeat(2, 1, 1)
    return predict_both(superres, superres.read(torch.cat([low, low]), text, is_word, upsampled), len(low), options)


def each_alone(predict_of: Callable[[slice, Texts, Words], Predict], text: Texts, is_word: Words, num: int) -> Predict:
    """What `decode` calls for `num` samples: on a GPU that of all of them, given their texts and those of their
    negative prompts; on a processor, where batches gain little, that of each by itself, with its texts as long as they
    are alone. More rows and longer texts add up in another order, and rounded to bfloat16 that can be another token: so
    each sample is the same to the last bit in any company."""
    if is_word.device.type != "cpu":
        return predict_of(slice(0, num), text, is_word)
    predicts = [predict_of(slice(row, row + 1), *trimmed(text[row::num], is_word[row::num])) for row in range(num)]

    def predict(tokens: Tokens, is_hidden: Hidden, step: Step) -> PlaceLogits:
        samples = zip(predicts, tokens.split(1), is_hidden.split(1), strict=True)
        return torch.cat([alone(own, own_hidden, step) for alone, own, own_hidden in samples])

    return predict


def trimmed(text: Texts, is_word: Words) -> tuple[Float[Tensor, "text longest dim"], Bool[Tensor, "text longest"]]:
    """Texts without the padding that all of them end with."""
    places = is_word.any(0).nonzero()
    longest = int(places.max()) + 1 if len(places) else 1
    return text[:, :longest], is_word[:, :longest]


def one_by_one(convolve: Callable[[Tensor], Tensor], samples: Tensor) -> Tensor:
    """What a network of convolutions makes of each sample; on a processor, where it is as fast, of each by itself, as a
    batch adds up in another order: so each is the same to the last bit in any company."""
    at_once = 1 if samples.device.type == "cpu" else len(samples)
    return torch.cat([convolve(some) for some in samples.split(at_once)])


def predict_both(
    network: MaskedTransformer | SuperResTransformer, context: Context, num: int, options: SamplingOptions
) -> Predict:
    """A network under guidance that sees `num` samples twice in one batch, the second time without their text."""
    rhythm = Rhythm(options.refresh, options.guidance, options.guidance_ramp)
    told, reuse = context.first(num), Reuse(len(network.layers), rhythm)

    def conditional(tokens: Tokens, is_hidden: Hidden, step: Step) -> PlaceLogits:
        return network(tokens, told, focus=reuse.focus(is_hidden, step))

    def both(tokens: Tokens, is_hidden: Hidden, step: Step, blend: Blend) -> PlaceLogits:
        focus, merge = reuse.focus(is_hidden, step), reuse.merge(is_hidden, step, blend)
        if rhythm.computed(step) == 1:
            return network(tokens, told, focus=focus, merge=merge)
        return network(torch.cat([tokens, tokens]), context, focus=focus, merge=merge)

    return guided(conditional, both, options.guidance, options.guidance_ramp)


def as_superres(callback: Callable[[StepReport], None] | None) -> Callable[[StepReport], None] | None:
    """A callback that is told which stage it sees."""
    return callback and (lambda report: callback(dataclasses.replace(report, stage="superres")))


def size_of(config: TransformerConfig | SuperResConfig, vqgan: VQGAN) -> tuple[int, int]:
    """Width and height, in pixels, of the pictures of a token grid."""
    return config.width * vqgan.config.stride, config.height * vqgan.config.stride


def check_size(size: Any, muse: Muse) -> None:
    """Raises ValueError if a model cannot draw pictures of a size."""
    wish = "'low' or 'high', or leave it out"
    check_kind("size", size, str | None, wish)
    if size not in (None, *get_args(Size)):
        raise ValueError(f"size is {size!r}; give {wish}")
    if size == "high" and muse.superres is None:
        raise ValueError(f"model {muse.name!r} has no super-resolution; take one that has, or size 'low'")


def check_states(text: Texts, is_word: Words, seeds: Sequence[int], text_dim: int) -> None:
    """Raises ValueError if there are not as many states as prompts, or prompts and negative prompts, or none at all; or
    if they are not of the width that a transformer reads, or of other words than `is_word` tells of, or of none."""
    if not seeds:
        raise ValueError("there are no seeds; give one for each picture")
    if len(text) not in (0, len(seeds), 2 * len(seeds)):
        raise ValueError(
            f"states of {len(text)} texts came for {len(seeds)} seeds; give one for each seed, or as many negatives too"
        )
    if text.ndim != 3 or text.shape[:2] != is_word.shape:
        raise ValueError(
            f"is_word is of shape {tuple(is_word.shape)} for states of shape {tuple(text.shape)}; give a flag for each "
            "word of each text"
        )
    if text.shape[2] != text_dim:
        raise ValueError(
            f"states of {text.shape[2]} numbers came and the transformer reads {text_dim}; give those of the model's "
            "own text encoder"
        )
    if is_word.dtype != torch.bool:
        raise ValueError(f"is_word holds {is_word.dtype}; give flags, as is_word.bool()")
    if not is_word.any(1).all():
        raise ValueError("a text has no word in is_word; leave such a text out, or read '' by the text encoder")


def check_codes(low: Tokens, num_codes: int) -> None:
    """Raises ValueError if a low-resolution token is not one that super-resolution can read."""
    is_foreign = (low < 0) | (low >= num_codes)
    if is_foreign.any():
        raise ValueError(
            f"low-resolution tokens hold {low[is_foreign][0]}; wanted codes in [0, {num_codes}): draw hidden ones first"
        )


def check_parts(
    text_encoder: TextEncoder,
    vqgan: VQGAN,
    base: MaskedTransformer,
    superres: SuperResTransformer | None = None,
    vqgan_superres: VQGAN | None = None,
) -> None:
    """Raises CheckpointError if the parts cannot work together."""
    check_vqgan("base", base.config.num_codes, base.config.vqgan_fingerprint, "VQGAN", vqgan)
    check_text("base", base.config.text_dim, text_encoder)
    if superres is None and vqgan_superres is None:
        return
    if superres is None or vqgan_superres is None:
        missing = "superres" if superres is None else "vqgan_superres"
        raise CheckpointError(f"{missing} is missing; super-resolution takes both its transformer and its VQGAN")
    config = superres.config
    check_vqgan("super-resolution", config.num_codes, config.vqgan_fingerprint, "high-resolution VQGAN", vqgan_superres)
    check_vqgan("super-resolution", config.low_num_codes, config.vqgan_low_fingerprint, "VQGAN", vqgan)
    check_text("super-resolution", config.text_dim, text_encoder)
    if config.upsampled_dim not in (0, vqgan_superres.config.code_dim):
        raise CheckpointError(
            f"the high-resolution VQGAN has latents of {vqgan_superres.config.code_dim} numbers and the "
            f"super-resolution transformer reads {config.upsampled_dim}; take both from one model"
        )
    check_grids(base, superres)


def check_vqgan(transformer: str, num_codes: int, fingerprint: str | None, name: str, vqgan: VQGAN) -> None:
    """Raises CheckpointError if a transformer was not made for the codes of a VQGAN."""
    if vqgan.config.num_codes != num_codes:
        raise CheckpointError(
            f"the {name} has {vqgan.config.num_codes} codes and the {transformer} transformer was made for "
            f"{num_codes}; take both from one model"
        )
    if fingerprint is not None and fingerprint != (found := vqgan.fingerprint()):
        raise CheckpointError(
            f"the {transformer} transformer was trained on the tokens of {name} {fingerprint} and this is {name} "
            f"{found}; take both from one model"
        )


def check_text(transformer: str, text_dim: int, text_encoder: TextEncoder) -> None:
    """Raises CheckpointError if a transformer cannot read a text encoder."""
    if text_encoder.dim != text_dim:
        raise CheckpointError(
            f"the text encoder gives states of {text_encoder.dim} numbers and the {transformer} transformer reads "
            f"{text_dim}; take both from one model"
        )


def check_grids(base: MaskedTransformer, superres: SuperResTransformer) -> None:
    """Raises CheckpointError if super-resolution does not enlarge what the base draws."""
    drawn, config = (base.config.height, base.config.width), superres.config
    if (config.low_height, config.low_width) != drawn:
        raise CheckpointError(
            f"the base transformer draws {drawn[0]} x {drawn[1]} tokens and the super-resolution transformer reads "
            f"{config.low_height} x {config.low_width}; take both from one model"
        )
    if config.height * drawn[1] != config.width * drawn[0]:
        raise CheckpointError(
            f"the super-resolution transformer makes {config.height} x {config.width} tokens of {drawn[0]} x "
            f"{drawn[1]}, a picture of another shape; take one that keeps it"
        )


def find_model(model: str | Path) -> Path:
    """The folder of a model: itself, one that ships, or the hub's, downloaded. A folder that holds no model hides none
    that ships.
    Raises CheckpointError if there is none."""
    name = str(model)
    is_shipped = re.fullmatch(r"[\w-]+", name) is not None and os.path.isfile(SHIPPED / name / INDEX)
    # A folder of pictures may well be called after the model that drew them.
    if name and os.path.isdir(name) and ((Path(name) / INDEX).is_file() or not is_shipped):
        if not (Path(name) / INDEX).is_file() and (Path(name) / OF_A_RUN / INDEX).is_file():
            raise CheckpointError(f"{name} is a training run; its model is {Path(name) / OF_A_RUN}")
        check_whole(Path(name))
        return Path(name)
    if is_shipped:
        return SHIPPED / name
    if HUB_NAME.fullmatch(name) and not name.startswith("."):
        return download(name)
    shipped = ", ".join(sorted(path.parent.name for path in SHIPPED.glob(f"*/{INDEX}"))) or "none"
    raise CheckpointError(
        f"there is no model {name!r}; give a folder, a shipped model ({shipped}) or a hub name like owner/name"
    )


def check_whole(folder: Path) -> None:
    """Raises CheckpointError if a folder holds one part of a model alone."""
    if not (folder / INDEX).is_file() and (folder / CONFIG).is_file():
        kind = read_json(folder / CONFIG).get("class", "text encoder")
        raise CheckpointError(f"{folder} is a {kind} alone; give the folder of a whole model, which has a {INDEX}")


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
    if (folder / CONFIG).is_file() and (kind := read_json(folder / CONFIG).get("class")):
        raise CheckpointError(f"{folder} is a {kind}; give the folder of a text encoder, as transformers saves it")
    try:
        return TextEncoder.from_folder(folder)
    except Exception as error:  # a damaged folder fails in as many ways as transformers has file formats
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{folder} is damaged ({reason}); get the checkpoint again") from error


def parts_of(index: dict[str, Any], folder: Path) -> tuple[str, ...]:
    """The parts of a model, of which super-resolution may be left out.
    Raises CheckpointError if its index names one half of super-resolution."""
    named = index.get("parts", PARTS)
    extra = [part for part in SUPERRES_PARTS if isinstance(named, list | tuple) and part in named]
    if len(extra) == 1:
        (missing,) = set(SUPERRES_PARTS) - set(extra)
        raise CheckpointError(
            f"{folder / INDEX} names {extra[0]} but not {missing}; this folder is no whole checkpoint"
        )
    return (*PARTS, *extra)


def has_superres(index: dict[str, Any], folder: Path) -> bool:
    """Whether a model draws large pictures of small ones.
    Raises CheckpointError as `parts_of`."""
    return len(parts_of(index, folder)) > len(PARTS)


def read_defaults(index: dict[str, Any], folder: Path) -> SamplingOptions:
    """The model's own sampling options.
    Raises CheckpointError if they are none."""
    return read_options(index.get("defaults", {}), folder)


def read_superres_defaults(index: dict[str, Any], folder: Path) -> SamplingOptions:
    """The model's own sampling options of super-resolution.
    Raises CheckpointError if they are none."""
    return read_options(index.get("superres_defaults", dataclasses.asdict(SUPERRES_DEFAULTS)), folder)


def read_options(fields: Any, folder: Path) -> SamplingOptions:
    """Raises CheckpointError if the fields are no sampling options."""
    try:
        return SamplingOptions(**fields)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / INDEX} has defaults that cannot be used: {error}") from error
