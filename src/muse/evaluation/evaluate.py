"""Draw, look, score, write: an evaluation of one model from end to end."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from safetensors.torch import load_file
from tqdm import tqdm

from muse import __version__
from muse.checkpoint import CONFIG, fingerprint_of, load_module, read_json, write_tensors
from muse.evaluation.alignment import AlignmentScorer
from muse.evaluation.clip import HUB_NAME, ClipScorer
from muse.evaluation.drawing import Draw, PictureCache, Timing, company_of, draw_all
from muse.evaluation.intervals import Figure, around, mean_of, wilson
from muse.evaluation.lpips import Lpips
from muse.evaluation.metrics import (
    Features,
    FrechetReference,
    PerPicture,
    as_array,
    inception_score,
    is_in_manifold,
    psnr,
    ssim,
)
from muse.evaluation.networks import (
    BATCH,
    FeatureNetwork,
    MissingWeights,
    load_features,
    load_inception,
    sha256_of,
    stack,
)
from muse.evaluation.protocols import DRAWN_METRICS, LEAST_PICTURES, REDRAWN_METRICS, EvaluationOptions
from muse.evaluation.report import (
    SHEET_PICTURES,
    Measurement,
    Picture,
    Report,
    file_names,
    git_commit,
    machine,
    named,
    save_sheet,
    write_report,
    write_sweep,
)
from muse.evaluation.sources import READING, PictureSet, Request, check_prompts, shown
from muse.images import to_images
from muse.models.vqgan import VQGAN, VQGANConfig
from muse.pipeline import (
    INDEX,
    Judge,
    Muse,
    Size,
    find_model,
    has_superres,
    load_text_encoder,
    read_defaults,
    read_superres_defaults,
)
from muse.precision import default_device
from muse.processes import Shard
from muse.requests import told_path
from muse.sampling import SamplingOptions

Values = Float[np.ndarray, " picture"]
Rows = Int[np.ndarray, " sample"]
"""Which pictures a resample has, some of them again."""
BOOTSTRAP = "bootstrap percentiles"
BOOTSTRAP_OF_PROMPTS = "bootstrap percentiles over prompts"
STANDARD_ERROR = "bootstrap standard error"


@dataclass(frozen=True)
class Networks:
    """Where the frozen networks of the metrics are: folders, files or names on the hub."""

    inception: str | None = None
    features: str | None = None
    clip: str = HUB_NAME
    alignment: str | None = None
    perceptual: str | None = None
    lpips: str | None = None


@dataclass(frozen=True)
class Subject:
    """What is evaluated: a whole model, or a VQGAN alone."""

    name: str
    vqgan: VQGAN
    muse: Muse | None

    @classmethod
    def load(cls, model: str | Path, device: torch.device | str | None = None) -> "Subject":
        """A model as `Muse.from_pretrained` takes it, or the folder of a VQGAN.
        Raises CheckpointError if it is neither."""
        folder = Path(model)
        is_part = bool(str(model)) and (folder / CONFIG).is_file() and not (folder / INDEX).exists()
        if is_part and read_json(folder / CONFIG).get("class") == VQGAN.__name__:
            return cls(
                folder.absolute().name, load_module(VQGAN, VQGANConfig, folder).to(device or default_device()), None
            )
        muse = Muse.from_pretrained(model, device)
        return cls(muse.name, muse.vqgan, muse)

    @cached_property
    def fingerprint(self) -> str:
        return self.muse.fingerprint() if self.muse else fingerprint_of([self.vqgan])

    @property
    def device(self) -> torch.device:
        return self.vqgan.quantizer.codebook.device


@dataclass(frozen=True)
class Setting:
    """One way of sampling, and what was drawn so."""

    sampling: SamplingOptions | None
    requests: Sequence[Request]
    drawn: PictureSet
    timing: Timing


class Evaluation:
    """One model, one data set, some metrics; run with as many sampling options as one likes.

    Everything that takes long is kept in FOLDER/cache, by what it depends on: an evaluation goes on where it was."""

    def __init__(
        self,
        subject: Subject,
        requests: Sequence[Request],
        real: PictureSet | None,
        options: EvaluationOptions,
        networks: Networks,
        folder: Path,
        about: Mapping[str, Any] | None = None,
    ):
        self.subject, self.requests, self.real, self.options = subject, requests, real, options
        self.networks, self.folder, self.about = networks, folder, dict(about or {})
        self.references: dict[str, FrechetReference] = {}
        self.check()

    # -- what cannot be evaluated ---------------------------------------------------------------------------------

    def check(self) -> None:
        """Raises ValueError, before anything is drawn, for what would fail or mean nothing afterwards."""
        if self.options.draws and self.subject.muse is None:
            drawn = [metric for metric in self.options.metrics if metric in DRAWN_METRICS]
            raise ValueError(
                f"{self.subject.name} is a VQGAN, which draws no prompts, and {', '.join(drawn)} needs that; "
                f"give metrics of {', '.join(REDRAWN_METRICS)}"
            )
        if self.options.needs_real and self.real is None:
            raise ValueError("no real pictures came to compare with; give a folder of them as --reference")
        for metric in self.options.metrics:
            least = LEAST_PICTURES.get(metric, 2)
            if metric == "pr":
                least = max(least, self.options.neighbours + 1)
            for kind, num in self.counts(metric):
                if num < least:
                    raise ValueError(f"{metric} needs at least {least} {kind} pictures and {num} came; give more")
        if self.options.needs_real:
            self.check_sizes()
        if self.options.draws and self.subject.muse is not None:
            check_prompts((request.prompt for request in self.requests), self.subject.muse.text_encoder)

    def find_networks(self) -> None:
        """Load the networks of all metrics; those that cannot be had are told of when they are wanted.
        Raises CheckpointError if a file holds another network, ValueError if nothing could be measured, before anything
        is drawn."""
        missing: dict[str, str] = {}
        for metric in self.options.metrics:
            try:
                self.network_of(metric)
            except MissingWeights as error:
                missing[metric] = str(error)
        if len(missing) == len(self.options.metrics):
            reasons = "; ".join(f"{metric}: {why}" for metric, why in missing.items())
            raise ValueError(f"no metric that was asked for can be measured: {reasons}")

    def network_of(self, metric: str) -> object:
        """What a metric looks with, if anything.
        Raises MissingWeights or CheckpointError if it cannot be loaded."""
        match metric:
            case "fid" | "rfid" | "is" | "frechet" | "rfrechet" | "pr":
                return self.network_for(metric)
            case "clip":
                return self.clip
            case "alignment":
                return self.aligner
            case "perceptual":
                return self.perceptual
            case "lpips":
                return self.lpips
            case _:
                return None

    def counts(self, metric: str) -> list[tuple[str, int]]:
        """How many pictures a metric would have, by kind."""
        drawn = [("drawn", len(self.requests))] if metric in DRAWN_METRICS else []
        real = [("real", len(self.real))] if self.real is not None and metric not in ("is", "clip", "alignment") else []
        return drawn + real

    def check_sizes(self) -> None:
        """Raises ValueError if drawn and real pictures cannot be compared as they are."""
        assert self.real is not None, "checked before"
        size, muse = self.real.size(), self.subject.muse
        if muse and self.options.draws and not self.options.resize:
            drawn = muse.low_size if self.options.size == "low" else muse.size
            if size != drawn:
                raise ValueError(
                    f"real pictures are {shown(size)} and the model draws {shown(drawn)}; "
                    "give --resize to bring both to one size"
                )
        stride = self.subject.vqgan.config.stride
        if any(metric in REDRAWN_METRICS for metric in self.options.metrics) and any(side % stride for side in size):
            fitting = max(min(size) // stride, 1) * stride
            raise ValueError(
                f"real pictures are {shown(size)} and the VQGAN needs multiples of {stride}; give --resize {fitting}"
            )

    # -- running --------------------------------------------------------------------------------------------------

    def run(self, sampling: SamplingOptions | None = None, shard: Shard | None = None) -> Report | None:
        """Draw and score; None on every rank but the first, which does not score.
        `sampling` is how the model draws, its own defaults if not given."""
        shard = shard or Shard()
        if shard.is_first:
            self.find_networks()
        setting = self.draw(sampling, shard)
        return self.score(setting) if shard.is_first else None

    def draw(self, sampling: SamplingOptions | None, shard: Shard) -> Setting:
        """Draw what is missing."""
        muse = self.subject.muse
        if not self.options.draws or muse is None:
            return Setting(None, (), PictureSet((), self.options.resize), Timing((), self.options.batch))
        sampling = sampling or muse.defaults
        cache = PictureCache(
            self.folder / "cache" / "pictures",
            {
                "model": self.subject.fingerprint,
                **settings_of(muse, sampling, self.options.size),
                **company_of(self.subject.device, self.options.batch),
            },
        )
        timing = draw_all(draw_with(muse, sampling, self.options.size), self.requests, cache, self.options.batch, shard)
        paths = tuple(cache.path_of(request) for request in self.requests)
        return Setting(sampling, self.requests, PictureSet(paths, self.options.resize), timing)

    def score(self, setting: Setting) -> Report:
        """Every metric of what was drawn; those whose weights cannot be had are skipped, with a sentence."""
        skipped: dict[str, str] = {}
        measurements: list[Measurement] = []
        single: dict[str, Values] = {}
        for metric in self.options.metrics:
            try:
                found, values = self.measure(metric, setting)
            except MissingWeights as error:
                skipped[metric] = str(error)
                continue
            measurements += found
            single |= values
        return Report(
            about=self.describe(setting),
            measurements=tuple(measurements),
            groups=self.by_group(setting, single, measurements),
            skipped=skipped,
            pictures=tuple(
                Picture(
                    prompt=request.prompt.text,
                    group=request.prompt.group,
                    seed=request.seed,
                    file=str(path.relative_to(self.folder)),
                    scores={name: round(float(values[i]), 6) for name, values in single.items()},
                )
                for i, (request, path) in enumerate(zip(setting.requests, setting.drawn.paths, strict=True))
            ),
            timing={**setting.timing.as_json(), "machine": machine(self.subject.device)},
        )

    def describe(self, setting: Setting) -> dict[str, Any]:
        """All that it takes to do the same again."""
        muse = self.subject.muse
        return {
            "model": self.subject.name,
            "fingerprint": self.subject.fingerprint,
            **self.about,
            **(settings_of(muse, setting.sampling, self.options.size) if muse else {"sampling": None}),
            "evaluation": asdict(self.options),
            "software": f"muse {__version__}",
            "commit": git_commit(),
        }

    def by_group(
        self, setting: Setting, single: Mapping[str, Values], measurements: Sequence[Measurement]
    ) -> dict[str, tuple[Measurement, ...]]:
        """What single pictures scored, by group; nothing where there is only one."""
        places = places_by_group(setting.requests)
        if len(places) < 2:
            return {}
        whole = {measurement.name: measurement for measurement in measurements}
        prompts = {group: [setting.requests[i].prompt.text for i in rows] for group, rows in places.items()}
        return {
            group: tuple(
                replace(
                    whole[name],
                    num=len(rows),
                    figure=self.mean_of_prompts(f"{name} {group}", values[rows], prompts[group]),
                    interval=interval_of(prompts[group]),
                )
                for name, values in single.items()
            )
            for group, rows in places.items()
            if single
        }

    # -- metrics --------------------------------------------------------------------------------------------------

    def measure(self, metric: str, setting: Setting) -> tuple[list[Measurement], dict[str, Values]]:
        """The measurements of a metric, and the scores of single pictures drawn for prompts, if it has any."""
        if metric in ("clip", "alignment"):
            return self.measure_agreement(metric, setting)
        if metric in ("fid", "frechet"):
            return [self.measure_frechet(self.network_for(metric), setting.drawn)], {}
        if metric in ("rfid", "rfrechet"):
            return [self.measure_redrawn_frechet(self.network_for(metric))], {}
        if metric == "is":
            return [self.measure_inception_score(setting.drawn)], {}
        if metric == "pr":
            return self.measure_precision_and_recall(setting.drawn), {}
        return [self.measure_redrawn(metric)], {}

    def measure_frechet(self, network: FeatureNetwork, pictures: PictureSet) -> Measurement:
        reference, features = self.reference_of(network), self.features(network, pictures)

        def distance(rows: Rows) -> float:
            return reference.distance(features[torch.from_numpy(rows)])

        return self.frechet_of(distance, network.frechet_name, len(features), network)

    def measure_redrawn_frechet(self, network: FeatureNetwork) -> Measurement:
        """Real pictures against themselves, once through the VQGAN: which ones there happen to be moves both sides
        alike, and so they are resampled together."""
        real, redrawn = self.features(network, self.the_real), self.features(network, self.redrawn)

        def distance(rows: Rows) -> float:
            some = torch.from_numpy(rows)
            return FrechetReference.of(real[some]).distance(redrawn[some])

        return self.frechet_of(distance, "r" + network.frechet_name, len(redrawn), network)

    def frechet_of(
        self, distance: Callable[[Rows], float], name: str, num: int, network: FeatureNetwork
    ) -> Measurement:
        """What a distance of so many pictures says, and its interval."""
        figure = around(distance, num, self.options.frechet_resamples, self.rng(name))
        return Measurement(name, figure, num, len(self.the_real), network.weights, network.resize, STANDARD_ERROR)

    def measure_inception_score(self, pictures: PictureSet) -> Measurement:
        network = self.inception
        assert network.labels is not None, "Inception-v3 has labels"
        figure = inception_score(network.labels(self.features(network, pictures)), self.options.seed)
        name = "is" if network.frechet_name == "fid" else "is_other_weights"
        return Measurement(name, figure, len(pictures), None, network.weights, network.resize, "spread of 10 parts")

    def measure_precision_and_recall(self, pictures: PictureSet) -> list[Measurement]:
        network = self.network_for("pr")
        drawn, real = self.features(network, pictures), self.features(network, self.the_real)
        shares = {"precision": (drawn, real), "recall": (real, drawn)}
        return [
            Measurement(
                f"{name}_{network.name}",
                wilson(int(is_in_manifold(points, manifold, self.options.neighbours).sum()), len(points)),
                len(pictures),
                len(real),
                network.weights,
                network.resize,
                "Wilson",
            )
            for name, (points, manifold) in shares.items()
        ]

    def measure_agreement(self, metric: str, setting: Setting) -> tuple[list[Measurement], dict[str, Values]]:
        prompts = [request.prompt.text for request in setting.requests]
        if metric == "clip":
            scorer, name = self.clip, "clip_score"
            parts = [
                scorer(setting.drawn.read(part), [prompts[i] for i in part])
                for part in progress(parts_of(len(prompts)), "CLIP")
            ]
            scores, resize = torch.cat(parts), scorer.resize
        else:
            scorer, name = self.aligner, "alignment"
            scores = scorer.of_features(self.features(scorer.network, setting.drawn), prompts)
            resize = scorer.network.resize
        values = as_array(scores)
        figure, interval = self.mean_of_prompts(name, values, prompts), interval_of(prompts)
        measurement = Measurement(name, figure, len(values), None, scorer.weights, resize, interval)
        return [measurement], {name: values}

    def mean_of_prompts(self, name: str, values: Values, prompts: Sequence[str]) -> Figure:
        """The mean over pictures, and its interval: prompts are resampled with all of their pictures, which are more
        alike than those of other prompts."""
        return mean_of(values, self.options.resamples, self.rng(name), prompts)

    def measure_redrawn(self, metric: str) -> Measurement:
        """A score of each real picture against itself, once through the VQGAN."""
        weights = ""
        match metric:
            case "perceptual":
                compare = self.perceptual
                weights = f"SqueezeNet 1.1 sha256 {sha256_of(Path(self.networks.perceptual or ''))[:16]}"
            case "lpips":
                compare, weights = self.lpips, self.lpips.name
            case _:
                compare = {"psnr": psnr, "ssim": ssim}[metric]
        parts = [
            compare(stack(self.the_real.read(part)), stack(self.redrawn.read(part)))
            for part in progress(parts_of(len(self.the_real)), metric)
        ]
        values = as_array(torch.cat(parts))
        figure = mean_of(values, self.options.resamples, self.rng(metric))
        return Measurement(metric, figure, len(values), len(values), weights, "", BOOTSTRAP)

    def rng(self, name: str) -> np.random.Generator:
        """Random numbers of one measurement, whatever else is measured."""
        return np.random.default_rng((self.options.seed, *name.encode()))

    # -- pictures and what networks see on them -------------------------------------------------------------------

    @property
    def the_real(self) -> PictureSet:
        assert self.real is not None, "checked before"
        return self.real

    @cached_property
    def redrawn(self) -> PictureSet:
        """The real pictures once through the VQGAN, kept as pictures are."""
        vqgan = self.subject.vqgan
        about = {"vqgan": fingerprint_of([vqgan]), "resize": self.the_real.resize, "reading": READING}
        about |= company_of(self.subject.device, BATCH)
        cache = PictureCache(self.folder / "cache" / "redrawn", about)
        paths = [cache.path(picture=sha256_of(path)) for path in self.the_real.paths]
        for part in progress(parts_of(len(paths)), "VQGAN"):
            if all(paths[i].exists() for i in part):
                continue
            pictures = stack(self.the_real.read(part)).to(self.subject.device)
            with torch.no_grad():
                images = to_images(vqgan.reconstruct(pictures))
            for i, image in zip(part, images, strict=True):
                cache.save(image, paths[i], picture=told_path(self.the_real.paths[i].name))
        return PictureSet(tuple(paths), None)

    def features(self, network: FeatureNetwork, pictures: PictureSet) -> Features:
        """What a network sees on pictures, kept under a hash of both."""
        key = hashlib.sha256(f"{network.key} {network.resize} {pictures.fingerprint}".encode()).hexdigest()[:32]
        path = self.folder / "cache" / "features" / f"{key}.safetensors"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = [network(pictures.read(part)) for part in progress(parts_of(len(pictures)), network.name)]
            write_tensors(path, {"features": torch.cat(rows)})
        return load_file(path)["features"]

    def reference_of(self, network: FeatureNetwork) -> FrechetReference:
        """Mean and covariance of the real pictures' features, made once."""
        if network.key not in self.references:
            self.references[network.key] = FrechetReference.of(self.features(network, self.the_real))
        return self.references[network.key]

    # -- networks, loaded when the first metric asks --------------------------------------------------------------

    @cached_property
    def inception(self) -> FeatureNetwork:
        return load_inception(self.networks.inception, self.subject.device)

    @cached_property
    def feature_network(self) -> FeatureNetwork:
        return load_features(self.networks.features, self.subject.device)

    def network_for(self, metric: str) -> FeatureNetwork:
        """The network whose features a metric takes; precision and recall take the given one, or else Inception."""
        is_of_inception = metric in ("fid", "rfid", "is")
        if metric == "pr":
            is_of_inception = bool(self.networks.inception and not self.networks.features)
        return self.inception if is_of_inception else self.feature_network

    @cached_property
    def clip(self) -> ClipScorer:
        return ClipScorer.load(self.networks.clip, self.subject.device)

    @cached_property
    def aligner(self) -> AlignmentScorer:
        return AlignmentScorer.load(self.networks.alignment, self.subject.device)

    @cached_property
    def perceptual(self) -> Callable[[Any, Any], PerPicture]:
        return load_perceptual(self.networks.perceptual)

    @cached_property
    def lpips(self) -> Lpips:
        return Lpips.load(self.networks.lpips)

    # -- files ----------------------------------------------------------------------------------------------------

    def write(self, report: Report, folder: Path | None = None) -> None:
        """The report, its sheet, and a sheet of each group of prompts."""
        folder = folder or self.folder
        drawn = PictureSet(tuple(self.folder / picture.file for picture in report.pictures))
        write_report(report, drawn.read(range(min(len(drawn), SHEET_PICTURES))), folder)
        groups = places_by_group([self.requests[i] for i in range(len(drawn))])
        names = file_names([group for group in groups if group])
        for group, name in names.items():
            rows = groups[group][:SHEET_PICTURES]
            titles = [report.pictures[i].prompt for i in rows]
            save_sheet(drawn.read(rows), titles, folder / f"sheet-{name}.png")

    def sweep(
        self, axis: str, settings: Sequence[tuple[Any, SamplingOptions]], shard: Shard | None = None
    ) -> list[tuple[Any, Report]]:
        """One report for each value of a sampling option, in FOLDER/AXIS-VALUE, and sweep.json, .md and .png."""
        cells = []
        for value, sampling in settings:
            report = self.run(sampling, shard)
            if report is not None:
                self.write(report, self.folder / f"{axis}-{named(value)}")
                cells.append((value, report))
        if cells:
            write_sweep(axis, cells, self.folder)
        return cells


def load_perceptual(where: str | None) -> Callable[[Any, Any], PerPicture]:
    """The perceptual distance of pairs of pictures.
    Raises MissingWeights if there is no such file, CheckpointError if it is of another network."""
    from muse.training.perceptual import PerceptualLoss

    if where is None or not Path(where).is_file():
        said = "the weights of SqueezeNet were not given" if where is None else f"there is no file {where}"
        raise MissingWeights(
            f"{said}; make them with `python -m projects.emoji.networks` and give squeezenet/model.safetensors "
            "as --perceptual"
        )
    network = PerceptualLoss.from_file(Path(where))

    def distances(pictures: Any, others: Any) -> PerPicture:
        pairs = zip(pictures, others, strict=True)
        return torch.stack([network(picture[None], other[None]) for picture, other in pairs])

    return distances


def draw_with(
    muse: Muse, sampling: SamplingOptions, size: Size | None = None, best_of: int = 1, judge: Judge | None = None
) -> Draw:
    """A model as a drawer, of the best of some seeds from each one on."""

    def draw(prompts: list[str], seeds: list[int]) -> list[Image.Image]:
        chosen = muse.choose(prompts, seeds, best_of, options=sampling, judge=judge)
        return muse.generate(prompts, chosen, options=sampling, size=size)

    return draw


def settings_of(muse: Muse, sampling: SamplingOptions | None, size: Size | None = None) -> dict[str, Any]:
    """All options that a model's pictures depend on; those of super-resolution are the model's own."""
    settings = {"sampling": sampling and asdict(sampling)}
    if muse.superres is None or size == "low":
        return settings
    return {**settings, "superres_sampling": asdict(muse.superres_defaults)}


def places_by_group(requests: Sequence[Request]) -> dict[str, list[int]]:
    """Where the requests of each group stand, groups in the order of their first."""
    places: dict[str, list[int]] = defaultdict(list)
    for i, request in enumerate(requests):
        places[request.prompt.group].append(i)
    return dict(places)


def interval_of(prompts: Sequence[str]) -> str:
    """What the interval of a mean over pictures of these prompts is of."""
    return BOOTSTRAP_OF_PROMPTS if 1 < len(set(prompts)) < len(prompts) else BOOTSTRAP


def parts_of(num: int) -> list[range]:
    return [range(start, min(start + BATCH, num)) for start in range(0, num, BATCH)]


def progress(parts: Sequence[range], what: str) -> Any:
    return tqdm(parts, desc=what, unit="batch", leave=False, disable=None)


def sweep_values(text: str, sampling: SamplingOptions) -> tuple[str, list[tuple[Any, SamplingOptions]]]:
    """AXIS=FROM:TO, AXIS=FROM:TO:STEP or AXIS=A,B,C as the option's name and its settings.
    Raises ValueError if it is none of these, or a value is outside the option's range."""
    axis, _, values = text.partition("=")
    pieces = values.split(":")
    if not axis or not values or len(pieces) > 3:
        raise ValueError(f"--sweep is {text!r}; give OPTION=FROM:TO, OPTION=FROM:TO:STEP or OPTION=A,B,C")
    names = values.split(",")
    if len(pieces) > 1:
        try:
            first, last, step = (float(piece) for piece in (*pieces, "1")[:3])
        except ValueError as error:
            raise ValueError(f"--sweep is {text!r}; wanted numbers around the colons") from error
        num = (last - first) / step if step > 0 else -1
        if not 0 <= num <= 1000:
            raise ValueError(f"--sweep is {text!r}; wanted a last value above the first, by at most 1,000 steps")
        names = [f"{first + step * i:.10g}" for i in range(int(num + 1e-9) + 1)]
    settings = [with_sampling(sampling, [f"{axis}={name}"]) for name in dict.fromkeys(names)]
    return axis, [(getattr(setting, axis), setting) for setting in settings]


OF_SUPERRES = "superres_"
"""How the sampling options of super-resolution begin."""


def with_sampling(sampling: SamplingOptions, given: Sequence[str]) -> SamplingOptions:
    """Sampling options changed by words like steps=8.
    Raises ValueError if there is no such option, or the value does not fit."""
    kinds = {"steps": int, "top_k": int, "refresh": int, "guidance_ramp": str, "sampler": str}
    changes: dict[str, Any] = {}
    for word in given:
        name, _, value = word.partition("=")
        if name not in asdict(sampling):
            raise ValueError(f"{word!r} names no sampling option; give NAME=VALUE of {', '.join(asdict(sampling))}")
        kind = kinds.get(name, float)
        try:
            changes[name] = kind(value)
        except ValueError as error:
            raise ValueError(f"{name} is {value!r}; give a {'whole ' * (kind is int)}number") from error
    return replace(sampling, **changes)


def with_both(
    sampling: SamplingOptions, superres: SamplingOptions | None, given: Sequence[str]
) -> tuple[SamplingOptions, SamplingOptions | None]:
    """The sampling options of both stages changed by words like steps=8 and superres_steps=4; those of super-resolution
    are None where nothing is enlarged.
    Raises ValueError as `with_sampling`, and for options of super-resolution where there is none."""
    theirs = [word.removeprefix(OF_SUPERRES) for word in given if word.startswith(OF_SUPERRES)]
    if theirs and superres is None:
        raise ValueError(f"{OF_SUPERRES}{theirs[0]} came and nothing is enlarged by super-resolution; leave it out")
    ours = with_sampling(sampling, [word for word in given if not word.startswith(OF_SUPERRES)])
    return ours, superres and with_sampling(superres, theirs)


def change_sampling(muse: Muse, given: Sequence[str], size: Size | None = None) -> SamplingOptions:
    """What the base of a model draws with, by its defaults and words as `with_both` reads them; the options of its
    super-resolution become its defaults.
    Raises ValueError as `with_both`."""
    is_enlarged = muse.superres is not None and size != "low"
    sampling, superres = with_both(muse.defaults, muse.superres_defaults if is_enlarged else None, given)
    muse.superres_defaults = superres or muse.superres_defaults
    return sampling


def check_model(model: str, given: Sequence[str], requests: Sequence[Request]) -> None:
    """Raises CheckpointError if there is no such model, ValueError if an option does not fit or a prompt cannot be
    read; nothing but the text encoder is loaded."""
    folder = find_model(model)
    index = read_json(folder / INDEX)
    superres = read_superres_defaults(index, folder) if has_superres(index, folder) else None
    with_both(read_defaults(index, folder), superres, given)
    check_prompts((request.prompt for request in requests), load_text_encoder(folder / "text_encoder"))


def draw_requests(
    model: str,
    requests: Sequence[Request],
    given: Sequence[str],
    batch: int,
    folder: Path,
    best_of: int = 1,
    clip: ClipScorer | None = None,
) -> tuple[str, list[Image.Image]]:
    """A model's name with the options given, and its pictures of some requests, kept in a folder as an evaluation's:
    of each the best of `best_of` seeds, as a CLIP has it or else the model itself.
    Raises CheckpointError if there is no such model, ValueError if an option does not fit."""
    muse = Muse.from_pretrained(model)
    sampling = change_sampling(muse, given)
    about = {"model": muse.fingerprint(), **settings_of(muse, sampling), **company_of(muse.device, batch)}
    if best_of > 1:
        about |= {"best_of": best_of, "judge": clip and clip.weights}
    cache = PictureCache(folder, about)
    draw_all(draw_with(muse, sampling, None, best_of, clip), requests, cache, batch, Shard())
    images = PictureSet(tuple(cache.path_of(request) for request in requests)).read(range(len(requests)))
    told = [f"best of {best_of}"] if best_of > 1 else []
    return " ".join([muse.name, *given, *told]), images
