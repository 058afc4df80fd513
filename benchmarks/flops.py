"""Floating-point operations by formula: a multiplication and an addition are two."""

from muse.models.transformer import TransformerConfig
from muse.sampling import SamplingOptions


def of_forward(config: TransformerConfig, words: int, *, has_text: bool = True) -> int:
    """Of one sample through a base transformer, but for its text's keys and values: they are made once a picture."""
    positions, dim = config.height * config.width, config.dim
    attend_self = 8 * dim**2 + 4 * positions * dim
    attend_text = (4 * dim**2 + 4 * words * dim) if has_text else 0
    mlp = 4 * dim * config.mlp_dim
    head = 2 * dim**2 + 2 * dim * config.num_codes
    return positions * (config.depth * (attend_self + attend_text + mlp) + head)


def of_reading(config: TransformerConfig, words: int) -> int:
    """Of a text's projection and its keys and values in every layer."""
    return words * (2 * config.text_dim * config.dim + config.depth * 4 * config.dim**2)


def of_picture(config: TransformerConfig, words: int, options: SamplingOptions) -> int:
    """Of a whole grid of tokens under guidance, whose first step needs no unconditional branch with the linear ramp."""
    guided_steps = 0
    if options.guidance:
        guided_steps = options.steps - (options.guidance_ramp == "linear" and options.steps > 1)
    conditional = options.steps * of_forward(config, words)
    return of_reading(config, words) + conditional + guided_steps * of_forward(config, words, has_text=False)


def of_training_step(config: TransformerConfig, words: int, batch: int) -> int:
    """Of one step on a batch: forward once, backward twice that."""
    return 3 * batch * (of_forward(config, words) + of_reading(config, words))
