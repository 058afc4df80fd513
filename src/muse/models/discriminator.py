"""The patch discriminator of VQGAN training: is each patch of a picture real or decoded?
pix2pix (arXiv:1611.07004), as taming transformers (arXiv:2012.09841) uses it."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from muse.models.group_norm import GroupNorm
from muse.requests import keep_whole
from muse.shapes import Pictures


@dataclass(frozen=True)
class DiscriminatorConfig:
    """The shape of a patch discriminator."""

    channels: int = 64
    """Feature channels of the first layer; doubled by each further one, up to eight times."""
    layers: int = 3
    """Layers that halve the picture."""
    norm_groups: int = 8
    """Groups of every group normalisation."""

    def __post_init__(self) -> None:
        for name in ("channels", "layers", "norm_groups"):
            keep_whole(self, name)


class PatchDiscriminator(nn.Module):
    """Pictures in [0, 1] to a grid of scores; above 0 means real.
    Group normalisation stands for batch normalisation: scores do not depend on the other pictures of a batch."""

    def __init__(self, config: DiscriminatorConfig):
        super().__init__()
        self.config = config
        width = config.channels
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for i in range(1, config.layers + 1):
            wider = min(config.channels * 2**i, config.channels * 8)
            stride = 2 if i < config.layers else 1
            layers += [
                nn.Conv2d(width, wider, 4, stride=stride, padding=1),
                GroupNorm(config.norm_groups, wider),
                nn.LeakyReLU(0.2),
            ]
            width = wider
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, 1, 4, padding=1))

    def forward(self, pictures: Pictures) -> Float[Tensor, "batch 1 h w"]:
        return self.layers(pictures * 2 - 1)
