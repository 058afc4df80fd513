"""Parallel decoding and editing: from tokens, some of them hidden, and a predict function to tokens."""

from muse.sampling.decode import StepReport, decode, generators_for
from muse.sampling.edit import edit, hide_share
from muse.sampling.options import EditOptions, SamplingOptions, given_or

__all__ = [
    "EditOptions",
    "SamplingOptions",
    "StepReport",
    "decode",
    "edit",
    "generators_for",
    "given_or",
    "hide_share",
]
