"""What clients wish for, and how `Muse` fulfils it."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from muse.apps.server.worker import Drawn, Glimpse, Watch, Wish
from muse.pipeline import Muse
from muse.sampling import SamplingOptions, StepReport


@dataclass(frozen=True)
class Drawing:
    """A picture of a prompt."""

    prompt: str
    seed: int
    negative: str | None
    options: SamplingOptions

    @property
    def key(self) -> Hashable:
        """Steps and guidance are those of a whole batch, and a batch has negative prompts or none."""
        return Drawing, self.options, self.negative is None


def draw(muse: Muse, wishes: Sequence[Wish], watch: Watch) -> list[Drawn]:
    """Fulfil wishes of one key; every picture is the one that it would be alone.
    Raises ValueError, in one sentence, for what cannot be drawn."""
    drawings = [wish for wish in wishes if isinstance(wish, Drawing)]
    assert len(drawings) == len(wishes), "wishes of one key are of one kind"
    has_negatives = drawings[0].negative is not None
    images = muse.generate(
        [drawing.prompt for drawing in drawings],
        [drawing.seed for drawing in drawings],
        negatives=[drawing.negative or "" for drawing in drawings] if has_negatives else None,
        options=drawings[0].options,
        callback=lambda report: watch(glimpse_of(muse, report)),
    )
    words = [count_words(muse, drawing.prompt) for drawing in drawings]
    return [Drawn(image, num, count_tokens(muse)) for image, num in zip(images, words, strict=True)]


def glimpse_of(muse: Muse, report: StepReport) -> Glimpse:
    """A step of decoding, to be painted only if somebody wants to see it."""

    def paint(rows: Sequence[int]) -> list:
        some = list(rows)
        return muse.preview(StepReport(report.step, report.tokens[some], report.is_hidden[some])).images

    return Glimpse(report.step.progress, paint)


def count_words(muse: Muse, prompt: str) -> int:
    """Sub-words of a prompt."""
    return len(muse.text_encoder.tokenizer(prompt)["input_ids"])


def count_tokens(muse: Muse) -> int:
    """Tokens of one picture."""
    return muse.base.config.height * muse.base.config.width
