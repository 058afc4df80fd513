"""Floating-point operations by formula: a multiplication and an addition are two."""

import math

import torch

from muse.models.reuse import Rhythm
from muse.models.transformer import TransformerConfig
from muse.sampling import SamplingOptions
from muse.sampling.decode import plan_for

MEAN_HIDDEN = 2 / math.pi
"""Of the positions, in training: the mean of the cosine schedule."""
CAPTION_DROP = 0.1


def of_forward(config: TransformerConfig, words: int, *, has_text: bool = True) -> int:
    """Of one sample through a base transformer, but for its text's keys and values: they are made once a picture."""
    positions = config.height * config.width
    of_layers = config.depth * of_layer(config, words, has_text=has_text)
    return positions * (of_layers + of_features(config) + of_logits(config))


def of_layer(config: TransformerConfig, words: int, *, has_text: bool) -> int:
    """Of one position in a layer, where it attends to all."""
    positions, dim = config.height * config.width, config.dim
    attend_self = of_being_attended(config) + 2 * dim**2 + 4 * positions * dim
    attend_text = (4 * dim**2 + 4 * words * dim) if has_text else 0
    return attend_self + attend_text + of_mlp(config)


def of_mlp(config: TransformerConfig) -> int:
    """Of one position in the MLP of a layer."""
    return 4 * config.dim * config.mlp_dim


def of_being_attended(config: TransformerConfig) -> int:
    """Of one position in a layer where it only is attended to; its query is computed all the same."""
    return 6 * config.dim**2


def of_features(config: TransformerConfig) -> int:
    """Of one position from the last layer to what logits are made of."""
    return 2 * config.dim**2


def of_logits(config: TransformerConfig) -> int:
    """Of one position from there to its logits."""
    return 2 * config.dim * config.num_codes


def of_reading(config: TransformerConfig, words: int) -> int:
    """Of a text's projection and its keys and values in every layer."""
    return words * (2 * config.text_dim * config.dim + config.depth * 4 * config.dim**2)


def of_picture(config: TransformerConfig, words: int, options: SamplingOptions) -> int:
    """Of a whole grid of tokens, as far as it is computed: branches of guidance where their scale is not 0, positions
    whose states are not reused, the end of the last layer and features where tokens are hidden, and logits of both
    branches' features at once."""
    positions = config.height * config.width
    plan = plan_for(torch.full((1, positions), config.mask_id), options, config.mask_id)
    rhythm = Rhythm(options.refresh, options.guidance, options.guidance_ramp)
    operations, of_attended = of_reading(config, words), of_being_attended(config)
    for step in plan.steps:
        assert step.most_hidden is not None
        assert step.most_touched is not None
        branches = rhythm.computed(step)
        computed = positions if rhythm.is_fresh(step) else step.most_touched
        for has_text in (True, False)[:branches]:
            of_whole = of_layer(config, words, has_text=has_text)
            operations += computed * ((config.depth - 1) * of_whole + of_attended)
            operations += step.most_hidden * (of_whole - of_attended)
        operations += step.most_hidden * (branches * of_features(config) + of_logits(config))
    return operations


def of_training_step(
    config: TransformerConfig,
    words: int,
    batch: int,
    hidden_share: float = MEAN_HIDDEN,
    told_share: float = 1 - CAPTION_DROP,
) -> int:
    """Of one step on a batch: forward once, and twice that backward, but for the text, which wants no gradient. Logits
    and the last layer's MLP are of hidden positions, and what reads a text of samples that have one, by their mean
    shares if not given."""
    positions, told = config.height * config.width, told_share * batch
    alone, beside_text = (of_layer(config, words, has_text=has_text) for has_text in (False, True))
    of_layers = config.depth * positions * (batch * alone + told * (beside_text - alone))
    of_layers -= (1 - hidden_share) * batch * positions * of_mlp(config)
    of_head = hidden_share * batch * positions * (of_features(config) + of_logits(config))
    of_text = told * (3 * of_reading(config, words) - 2 * words * config.text_dim * config.dim)
    return round(3 * (of_layers + of_head) + of_text)
