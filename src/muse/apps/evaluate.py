"""The commands `muse evaluate`, `muse compare` and `muse compare-votes`.

Torch and the networks are imported by the commands, so that `muse --help` answers at once."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from muse.requests import probe, told_as_out

if TYPE_CHECKING:
    from muse.evaluation.evaluate import Evaluation, Networks
    from muse.evaluation.protocols import EvaluationOptions

FEATURE_FILES, ALIGNMENT = "*.pt2", "alignment"
"""Networks that a data folder may bring along."""

ByTheProtocol = tyro.conf.arg(metavar="VALUE", help_behavior_hint="(default: the protocol's)")


@dataclass(frozen=True)
class Evaluate:
    """Draw pictures for the captions of a data set, score them, and write report.json, report.md and a contact sheet.

    Goes on where it was stopped. Under torchrun the ranks share the drawing."""

    model: tyro.conf.Positional[str] = "emoji"
    """A model that ships, a folder, or a name on the hub, like owner/name; or the folder of a VQGAN alone."""
    data: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="(required)")] = None
    """Prompts (.txt, .jsonl, .tsv, .csv, COCO's .json), or a folder with prompts and real pictures."""
    protocol: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="(optional)")] = None
    """A ready-made evaluation: coco-30k, cc3m, parti-prompts, geneval or emoji; other options still count."""
    metrics: Annotated[str | None, ByTheProtocol] = None
    """Any of fid,is,frechet,pr,clip,alignment for drawn pictures; rfid,rfrechet,psnr,ssim,perceptual,lpips for the
    VQGAN."""
    reference: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="(default: in DATA)")] = None
    """Folder of real pictures."""
    out: Path = Path("evaluation")
    """Folder for the results and for what is kept between runs."""
    n: Annotated[int | None, ByTheProtocol] = None
    """How many pictures; each prompt once before any comes again."""
    resize: Annotated[int | None, ByTheProtocol] = None
    """Side in pixels to which all pictures, drawn and real, are cropped and resized."""
    size: Annotated[Literal["low", "high"] | None, ByTheProtocol] = None
    """low leaves super-resolution out."""
    seed: Annotated[int | None, ByTheProtocol] = None
    """Chooses prompts, pictures and the resamples of intervals."""
    batch: Annotated[int | None, ByTheProtocol] = None
    """Pictures drawn side by side."""
    sampling: tuple[str, ...] = ()
    """Sampling options as NAME=VALUE, like steps=8 guidance=2, of super-resolution like superres_steps=4; the model's
    own otherwise."""
    sweep: Annotated[str | None, tyro.conf.arg(metavar="OPTION=A:B", help_behavior_hint="(optional)")] = None
    """Evaluate at several values of a sampling option, like guidance=0:8, steps=4:24:4 or sampler=confidence,halton."""
    inception: Annotated[str | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(optional)")] = None
    """Weights of Inception-v3, for fid and is: a file, or owner/name/file on the hub."""
    features: Annotated[str | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="(optional)")] = None
    """Network for frechet and pr: a folder of transformers, a hub name, or an exported .pt2."""
    clip: Annotated[str | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="(default: CLIP ViT-L/14)")] = None
    """A CLIP of transformers: a folder or a hub name."""
    alignment: Annotated[str | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="(optional)")] = None
    """Our own towers for alignment."""
    perceptual: Annotated[str | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(optional)")] = None
    """Weights of SqueezeNet for the perceptual distance."""
    lpips: Annotated[str | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(optional)")] = None
    """Weights of torchvision's AlexNet for LPIPS: a file, or owner/name/file on the hub."""

    def run(self) -> None:
        """Raises ValueError or OSError, before anything is drawn, for what cannot be evaluated."""
        from muse.evaluation.evaluate import change_sampling, sweep_values
        from muse.evaluation.report import as_markdown
        from muse.processes import Shard

        shard = Shard.from_environment()
        with told_as_out(self.out):
            probe(self.out)
        evaluation = self.evaluation()
        muse = evaluation.subject.muse
        of_drawing = {"--sweep": self.sweep, "--sampling": self.sampling, "--n": self.n}
        if not evaluation.options.draws and (idle := [flag for flag, value in of_drawing.items() if value]):
            raise ValueError(f"{', '.join(evaluation.options.metrics)} draws nothing; leave {' and '.join(idle)} out")
        sampling = change_sampling(muse, self.sampling, evaluation.options.size) if muse else None
        if self.sweep and sampling:
            evaluation.sweep(*sweep_values(self.sweep, sampling), shard)
            if shard.is_first:
                print((self.out / "sweep.md").read_text(), end="")
        elif report := evaluation.run(sampling, shard):
            evaluation.write(report)
            print(as_markdown(report), end="")
        if shard.is_first:
            print(f"\nAll of it: {self.out}")

    def evaluation(self) -> "Evaluation":
        """What the command line asks for."""
        from muse.evaluation.evaluate import Evaluation, Subject
        from muse.evaluation.sources import PictureSet, read_prompts, reference_folder, requests_for

        options, about = self.options()
        source = self.data or self.reference
        if source is None or (options.draws and self.data is None):
            raise ValueError("no data came; give --data, a file of prompts or a folder of prompts and pictures")
        requests = []
        if options.draws and self.data is not None:
            requests = requests_for(read_prompts(self.data), options.num, options.per_prompt, options.seed)
        real = None
        if options.needs_real:
            real = PictureSet.of_folder(self.reference or reference_folder(source), options.resize, but=self.out)
        networks = self.networks()
        subject = Subject.load(self.model, rank_device())
        return Evaluation(subject, requests, real, options, networks, self.out, about)

    def options(self) -> "tuple[EvaluationOptions, dict[str, str]]":
        """The protocol's options, changed by those given; and what the report says of both.
        Raises ValueError if there is no such protocol, or a value is outside its range."""
        from muse.evaluation.protocols import EvaluationOptions, Protocol, protocol_named

        plain = Protocol("", "", EvaluationOptions())
        protocol = protocol_named(self.protocol) if self.protocol else plain
        metrics = None
        if self.metrics is not None:
            metrics = tuple(dict.fromkeys(filter(None, map(str.strip, self.metrics.split(",")))))
        given = {"num": self.n, "resize": self.resize, "size": self.size, "seed": self.seed, "batch": self.batch}
        options = protocol.with_options(metrics=metrics, **given)
        about = {"data": (self.data or self.reference or Path()).name}
        return options, about | ({"protocol": f"{self.protocol}: {protocol.about}"} if self.protocol else {})

    def networks(self) -> "Networks":
        """Those that are named, or else those that the data folder brings along."""
        from muse.evaluation.evaluate import Networks

        brought = sorted(self.data.glob(FEATURE_FILES)) if self.data and self.data.is_dir() else []
        towers = self.data / ALIGNMENT if self.data and (self.data / ALIGNMENT).is_dir() else None
        return Networks(
            inception=self.inception,
            features=self.features or (str(brought[0]) if brought else None),
            alignment=self.alignment or (str(towers) if towers else None),
            perceptual=self.perceptual,
            lpips=self.lpips,
            **({"clip": self.clip} if self.clip else {}),
        )


@dataclass(frozen=True)
class Compare:
    """Draw the same prompts with two models, and write a page on which people say, blind, which picture fits better."""

    one: tyro.conf.Positional[str]
    """A model that ships, a folder, or a name on the hub."""
    other: tyro.conf.Positional[str]
    """Another model, or the same one with other options."""
    prompts: Path
    """Prompts: .txt, .jsonl, .tsv or .csv."""
    out: Path = Path("comparison")
    """Folder for compare.html, which raters get, and key.json, which says whose picture is whose."""
    n: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: one a prompt)")] = None
    """How many pairs; each prompt once before any comes again."""
    seed: int = 0
    """Chooses the pictures and the sides; both models draw a pair with the same seed."""
    batch: int = 8
    """Pictures drawn side by side."""
    sampling_one: tuple[str, ...] = ()
    """Sampling options of the first model as NAME=VALUE, of its super-resolution like superres_steps=4."""
    sampling_other: tuple[str, ...] = ()
    """Sampling options of the second."""
    best_of: int = 1
    """Each model tries so many seeds for each picture, which count up from the pair's, and shows the best; the paper
    shows the best of 16."""
    clip: Annotated[str | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="(optional)")] = None
    """A CLIP of transformers that says which is the best, as in the paper: a folder or a hub name; else each model says
    it by itself."""

    def run(self) -> None:
        """Raises ValueError or OSError, before anything is drawn, for what cannot be drawn."""
        from muse.evaluation.clip import ClipScorer
        from muse.evaluation.compare import Pair, write_page
        from muse.evaluation.evaluate import check_model, draw_requests
        from muse.evaluation.sources import read_prompts, requests_for
        from muse.requests import check_best_of, check_clip

        for name, num in (("n", self.n), ("batch", self.batch)):
            if num is not None and num < 1:
                raise ValueError(f"{name} is {num}; give a whole number of at least 1")
        check_clip(self.clip, self.best_of)
        with told_as_out(self.out):
            probe(self.out)
        requests = requests_for(read_prompts(self.prompts), self.n, 1, self.seed)
        check_best_of(self.best_of, [request.seed for request in requests])
        clip = None if self.clip is None else ClipScorer.load(self.clip)
        settings = ((self.one, self.sampling_one), (self.other, self.sampling_other))
        for model, sampling in settings:
            check_model(model, sampling, requests)
        (first, ones), (second, others) = (
            draw_requests(model, requests, sampling, self.batch, self.out / "cache", self.best_of, clip)
            for model, sampling in settings
        )
        pairs = [Pair(*parts) for parts in zip(requests, ones, others, strict=True)]
        page, key = write_page(pairs, (first, second), self.out, self.seed)
        print(f"{page}  for the raters: {len(pairs)} pairs\n{key}  for `muse compare-votes`; raters must not see it")


@dataclass(frozen=True)
class CompareVotes:
    """Count the votes on a comparison: the share that prefers the first model, with its 95% interval."""

    key: tyro.conf.Positional[Path]
    """The key.json of the comparison."""
    votes: tyro.conf.Positional[tuple[Path, ...]]
    """The files that raters downloaded from the page."""

    def run(self) -> None:
        """Raises ValueError or OSError for files that are no votes on this page."""
        import json
        from dataclasses import asdict

        from muse.evaluation.compare import count_votes, sentence_of

        preference = count_votes(self.key, self.votes)
        print(sentence_of(preference))
        print(json.dumps(asdict(preference)))


def rank_device() -> str | None:
    """The accelerator of this rank under torchrun; None leaves the choice to the model.
    Raises ValueError if LOCAL_RANK is no whole number."""
    import torch

    from muse.processes import local_rank

    if "LOCAL_RANK" in os.environ and torch.cuda.is_available():
        return f"cuda:{local_rank()}"
    return None
