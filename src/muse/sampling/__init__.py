"""Parallel decoding: from hidden tokens and a predict function to tokens."""

from muse.sampling.decode import StepReport, decode, generators_for
from muse.sampling.options import SamplingOptions

__all__ = ["SamplingOptions", "StepReport", "decode", "generators_for"]
