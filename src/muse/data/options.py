"""What a source can be told; apart, so that `muse --help` imports nothing heavy."""

from dataclasses import dataclass

from muse.requests import keep_whole


@dataclass(frozen=True)
class SourceOptions:
    """How to find pictures and captions in a source."""

    picture_column: str | None = None
    """The column, or in tars the ending, that holds pictures; found by its name if not given."""
    caption_column: str | None = None
    """The column, or in tars the ending, that holds captions: a text or a list of texts; "json.caption" is a field of a
    .json file. Found by its name if not given."""
    split: str = "train"
    """The split of a data set of the hub."""
    config: str | None = None
    """The configuration of a data set of the hub."""
    rows_per_piece: int = 1000
    """Rows that are worked on, and stored, together, where the source is not in pieces itself."""

    def __post_init__(self) -> None:
        # tyro would tell of a range in words of its own; `open_source` looks at that.
        keep_whole(self, "rows_per_piece", least=None)
