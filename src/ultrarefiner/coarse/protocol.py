"""What every coarse network is: grey images in a square frame in, logits per class out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ultrarefiner.errors import ConfigError
from ultrarefiner.registry import Registry
from ultrarefiner.shapes import Images


@dataclass(frozen=True, kw_only=True)
class CoarseConfig:
    """Which network, and everything that is needed to build it again.

    Attributes:
        name: in the registry, see ``ultrarefiner list coarse``.
        side: side of the square frame that images are fitted into [px], a multiple of 32.
        num_classes: 1 for a lesion against the rest (one logit, sigmoid); else the number of
            classes with the background, 2 or more (softmax, class 0 is the background).
        encoder_name: of networks that have a choice of encoders.
        encoder_weights: ``imagenet``, ``none``, or a file or folder of weights of that encoder.
        decoder_channels: of the decoder's blocks, from deep to shallow.
    """

    name: str = "smp-unet"
    side: int = 256
    num_classes: int = 1
    encoder_name: str = "timm-tf_efficientnet_lite0"
    encoder_weights: str = "imagenet"
    decoder_channels: tuple[int, ...] = (256, 128, 64, 32, 16)

    def __post_init__(self) -> None:
        if self.side < 32 or self.side % 32:
            raise ConfigError("network side", expected="a multiple of 32 px", found=str(self.side))
        if self.num_classes < 1:
            raise ConfigError("num_classes", expected=">= 1", found=str(self.num_classes))
        if not self.decoder_channels or min(self.decoder_channels) < 1:
            raise ConfigError(
                "decoder_channels",
                expected="at least one positive number",
                found=str(self.decoder_channels),
            )


class CoarseNetwork(nn.Module):
    """Base of all coarse networks.

    Attributes:
        config: what it was built from.
    """

    def __init__(self, config: CoarseConfig) -> None:
        super().__init__()
        self.config = config

    @abstractmethod
    def forward(self, images: Images) -> Float[Tensor, "B classes H W"]:
        """Return logits on the grid of the images.

        Args:
            images: ``B 1 H W`` grey in [0, 1], each image stretched to that range, letterboxed
                (:class:`~ultrarefiner.ops.letterbox.Letterbox`) with zeros in the padding; H and W
                are multiples of 32.
        """


def class_probs(logits: Float[Tensor, "B classes H W"]) -> Float[Tensor, "B K H W"]:
    """Return the probability of every class, the background first; float32, summing to 1.

    One logit is the sigmoid of one class against the background, so K is 2.
    """
    logits = logits.float()
    if logits.shape[1] > 1:
        return logits.softmax(dim=1)
    return torch.cat([(-logits).sigmoid(), logits.sigmoid()], dim=1)


COARSE_NETWORKS: Registry[Callable[[CoarseConfig], CoarseNetwork]] = Registry("coarse network")


def build_coarse(config: CoarseConfig) -> CoarseNetwork:
    """Return the network that a config describes, with its encoder's pretrained weights.

    Raises:
        ConfigError: unknown network or encoder.
        WeightsError: the encoder's weights are missing or not the ones expected.
    """
    return COARSE_NETWORKS[config.name](config)
