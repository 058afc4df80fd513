"""What is drawn and measured: the options of an evaluation, and ready-made protocols."""

from dataclasses import dataclass, replace
from types import MappingProxyType

from muse.pipeline import Size
from muse.requests import check_choices, keep_whole

DRAWN_METRICS = MappingProxyType(
    {
        "fid": "Frechet distance of Inception-v3 features; lower is better",
        "is": "inception score; higher is better",
        "frechet": "Frechet distance of the features of another network; lower is better",
        "pr": "precision and recall of the same features by nearest neighbours; higher is better",
        "clip": "100 x cosine of CLIP's states of picture and prompt; higher is better",
        "alignment": "cosine by our own two towers, which are no CLIP; higher is better",
    }
)
"""Metrics of pictures that were drawn for prompts."""
REDRAWN_METRICS = MappingProxyType(
    {
        "rfid": "as fid, of real pictures through the VQGAN and back",
        "rfrechet": "as frechet, of real pictures through the VQGAN and back",
        "psnr": "peak signal-to-noise ratio, in dB; higher is better",
        "ssim": "structural similarity; higher is better",
        "perceptual": "distance of SqueezeNet features, which is LPIPS without its learned weights; lower is better",
        "lpips": "LPIPS on AlexNet; lower is better",
    }
)
"""Metrics of a VQGAN: real pictures against themselves, once there and back."""
METRICS = MappingProxyType({**DRAWN_METRICS, **REDRAWN_METRICS})
COMPARED_WITH_REAL = frozenset({"fid", "frechet", "pr", *REDRAWN_METRICS})
LEAST_PICTURES = MappingProxyType({"fid": 50, "frechet": 50, "is": 50, "pr": 20, "rfid": 50, "rfrechet": 50})
"""Below these a metric says nothing and is refused; any other needs 2."""


@dataclass(frozen=True)
class EvaluationOptions:
    """What is drawn and measured.
    Raises ValueError for a value outside its range."""

    metrics: tuple[str, ...] = ("clip",)
    """Which metrics, by the names of METRICS."""
    num: int | None = None
    """How many pictures; the whole data set `per_prompt` times if not given."""
    per_prompt: int = 1
    """Pictures of each prompt where `num` is not given."""
    resize: int | None = None
    """Side in pixels to which all pictures are cropped and resized before anything looks at them."""
    size: Size | None = None
    """low leaves super-resolution out; the largest that the model draws if not given."""
    seed: int = 0
    """Chooses the prompts, the seed of each picture and the bootstrap's resamples."""
    batch: int = 16
    """Pictures drawn side by side."""
    resamples: int = 1000
    """Bootstrap resamples behind the interval of a mean; a fiftieth of them behind that of a Frechet distance."""
    neighbours: int = 3
    """The k of precision and recall."""

    def __post_init__(self) -> None:
        if not self.metrics:
            raise ValueError(f"no metric came; give one or more of {', '.join(METRICS)}")
        for metric in self.metrics:
            if metric not in METRICS:
                raise ValueError(f"there is no metric {metric!r}; give one or more of {', '.join(METRICS)}")
        least = {"num": 1, "per_prompt": 1, "resize": 8, "seed": 0, "batch": 1, "resamples": 100, "neighbours": 1}
        for name, fewest in least.items():
            if getattr(self, name) is not None or name not in ("num", "resize"):
                keep_whole(self, name, fewest)
        check_choices(self)

    @property
    def draws(self) -> bool:
        """Whether any metric needs pictures drawn for prompts."""
        return any(metric in DRAWN_METRICS for metric in self.metrics)

    @property
    def needs_real(self) -> bool:
        """Whether any metric needs real pictures."""
        return any(metric in COMPARED_WITH_REAL for metric in self.metrics)

    @property
    def frechet_resamples(self) -> int:
        return self.resamples // 50


@dataclass(frozen=True)
class Protocol:
    """A way of evaluating that others use too."""

    about: str
    """What it measures, after whom."""
    data: str
    """What to fetch, and how to give it."""
    options: EvaluationOptions

    def with_options(self, **given: object) -> EvaluationOptions:
        """The protocol's options, but for those that are given and not None."""
        return replace(self.options, **{name: value for name, value in given.items() if value is not None})  # pyright: ignore


PROTOCOLS = MappingProxyType(
    {
        "coco-30k": Protocol(
            about="zero-shot FID-30K at 256 x 256 and CLIP score on MS-COCO, as Muse, Imagen and Parti report it",
            data="a folder with captions_val2014.json and the pictures of val2014 in reference/",
            options=EvaluationOptions(metrics=("fid", "clip"), num=30_000, resize=256),
        ),
        "cc3m": Protocol(
            about="FID and CLIP score on the validation split of CC3M at 256 x 256, as Muse's Table 1",
            data="a folder with the captions as prompts.tsv (caption first) and the pictures in reference/",
            options=EvaluationOptions(metrics=("fid", "clip"), resize=256),
        ),
        "parti-prompts": Protocol(
            about="the 1,632 PartiPrompts (arXiv:2206.10789) in their categories; there are no real pictures of them",
            data="PartiPrompts.tsv",
            options=EvaluationOptions(metrics=("clip",)),
        ),
        "geneval": Protocol(
            about="prompts of GenEval's form (arXiv:2310.11513), four pictures each, by their tags; scored by CLIP, "
            "as its object detector is no part of this package",
            data="evaluation_metadata.jsonl",
            options=EvaluationOptions(metrics=("clip",), per_prompt=4),
        ),
        "emoji": Protocol(
            about="1,000 pictures of the project's own prompts, on the frozen judge's features",
            data="the folder that `python -m projects.emoji.protocol` writes",
            options=EvaluationOptions(metrics=("frechet", "pr", "alignment"), resize=128),
        ),
    }
)
"""By name."""


def protocol_named(name: str) -> Protocol:
    """Raises ValueError if there is none of this name."""
    if name not in PROTOCOLS:
        raise ValueError(f"there is no protocol {name!r}; give one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
