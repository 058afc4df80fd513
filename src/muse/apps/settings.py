"""How a picture was made: written beside it, and read again."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass

from muse import __version__
from muse.sampling import SamplingOptions


@dataclass(frozen=True)
class Settings:
    """All that it takes to draw a picture again with the same model."""

    prompt: str
    seed: int
    options: SamplingOptions
    negative: str | None = None
    model: str = ""

    def to_text(self) -> dict[str, str]:
        """As the text chunks of a PNG have it."""
        text = {"prompt": self.prompt} | ({} if self.negative is None else {"negative": self.negative})
        made_by = {"model": self.model, "software": f"muse {__version__}"}
        return text | {"seed": str(self.seed), "options": json.dumps(dataclasses.asdict(self.options))} | made_by

    @classmethod
    def from_text(cls, text: Mapping[str, str]) -> "Settings":
        """What `to_text` wrote.
        Raises ValueError, in one sentence, if a picture does not say how it was made."""
        try:
            options = SamplingOptions(**json.loads(text["options"]))
            seed = int(text["seed"])
            return cls(text["prompt"], seed, options, text.get("negative"), text.get("model", ""))
        except KeyError as error:
            raise ValueError(
                f"the picture does not say its {error.args[0]}; give a PNG that Muse has written"
            ) from error
        except (TypeError, ValueError) as error:
            raise ValueError(f"the picture says how it was made, but not so that it can be read: {error}") from error
