"""How a picture was made: written beside it, and read again."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from muse import __version__
from muse.requests import LARGEST_SEED, whole_number
from muse.sampling import SamplingOptions


@dataclass(frozen=True)
class Settings:
    """All that it takes to draw a picture of a prompt again with the same model."""

    prompt: str
    seed: int
    options: SamplingOptions
    negative: str | None = None
    superres_options: SamplingOptions | None = None
    """None if super-resolution was not drawn."""
    model: str = ""
    precision: str = ""
    best_of: int = 1
    """Of how many its seed was chosen; that alone makes the picture again."""

    def to_text(self) -> dict[str, str]:
        """As the text chunks of a PNG have it."""
        stages = {"options": self.options, "superres_options": self.superres_options}
        more = {"precision": self.precision} if self.precision else {}
        if self.best_of > 1:
            more["best_of"] = str(self.best_of)
        return to_text(self.prompt, self.seed, self.negative, stages, self.model, **more)

    @classmethod
    def from_text(cls, text: Mapping[str, str]) -> "Settings":
        """What `to_text` wrote.
        Raises ValueError, in one sentence, if a picture does not say how it was made, or was made of another one."""
        if "command" in text or "image" in text:
            raise ValueError("the picture was made of another one; give one that was drawn from a prompt alone")
        try:
            options, above = read(text["options"]), text.get("superres_options")
            superres_options = None if above is None else read(above)
            return cls(
                text["prompt"],
                whole_number("seed", int(text["seed"]), 0, LARGEST_SEED),
                options,
                text.get("negative"),
                superres_options,
                text.get("model", ""),
                text.get("precision", ""),
            )
        except KeyError as error:
            raise ValueError(
                f"the picture does not say its {error.args[0]}; give a PNG that Muse has written"
            ) from error
        except (TypeError, ValueError) as error:
            raise ValueError(f"the picture says how it was made, but not so that it can be read: {error}") from error


def read(options: str) -> SamplingOptions:
    """Options out of a picture. One that does not name `refresh` is older than it, and had every position computed."""
    return SamplingOptions(**{"refresh": 1, **json.loads(options)})


def to_text(
    prompt: str | None, seed: int, negative: str | None, stages: Mapping[str, Any], model: str, **more: str
) -> dict[str, str]:
    """What there is to say of a picture; `stages` are options by the names that the verb has for them, or None."""
    texts = {"prompt": prompt, "negative": negative}
    options = {name: json.dumps(dataclasses.asdict(each)) for name, each in stages.items() if each is not None}
    made_by = {"model": model, "software": f"muse {__version__}"}
    return {
        **{name: text for name, text in texts.items() if text is not None},
        **more,
        "seed": str(seed),
        **options,
        **made_by,
    }
