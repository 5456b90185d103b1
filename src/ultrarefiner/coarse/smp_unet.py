"""A U-Net on any encoder of segmentation-models-pytorch, timm and torchvision included.

Paper: Ronneberger et al., "U-Net", MICCAI 2015. Code: segmentation-models-pytorch (MIT). What we
changed: grey images are repeated to the three channels that ImageNet encoders know, with ImageNet's
mean and standard deviation; the weights of EfficientNet-Lite0 come out of a pip package.
"""

from __future__ import annotations

import warnings

import segmentation_models_pytorch as smp
import torch
from jaxtyping import Float
from segmentation_models_pytorch.encoders import encoders
from torch import Tensor, nn

from ultrarefiner.coarse.encoder_weights import load_encoder_weights
from ultrarefiner.coarse.protocol import COARSE_NETWORKS, CoarseConfig, CoarseNetwork
from ultrarefiner.errors import ConfigError
from ultrarefiner.shapes import Images

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@COARSE_NETWORKS.register("smp-unet")
class SmpUnet(CoarseNetwork):
    """U-Net with a pretrained encoder.

    Args:
        config: ``encoder_name`` is one of smp's, ``tu-NAME`` for any of timm's.

    Raises:
        ConfigError: no such encoder, or a decoder of another depth than 5.
        WeightsError: the encoder's weights are missing or do not fit.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: CoarseConfig) -> None:
        super().__init__(config)
        self.unet = _build(config)
        encoder = self.unet.get_submodule("encoder")
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)
        if config.encoder_weights != "none":
            load_encoder_weights(encoder, config.encoder_name, config.encoder_weights)

    def forward(self, images: Images) -> Float[Tensor, "B classes H W"]:
        """Return logits; see :class:`CoarseNetwork`."""
        logits: Tensor = self.unet((images - self.mean) / self.std)
        return logits


def _build(config: CoarseConfig) -> nn.Module:
    is_known = config.encoder_name in encoders or config.encoder_name.startswith("tu-")
    if not is_known or len(config.decoder_channels) != 5:
        raise ConfigError(
            f"network 'smp-unet' with encoder {config.encoder_name!r}",
            expected="an encoder of segmentation-models-pytorch, or tu-NAME for one of timm's, "
            "and five decoder_channels",
            found=f"{len(config.decoder_channels)} decoder_channels" if is_known else "no such one",
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`timm-` encoders are deprecated")
        try:
            unet: nn.Module = smp.Unet(
                config.encoder_name,
                encoder_weights=None,
                in_channels=3,
                classes=config.num_classes,
                decoder_channels=config.decoder_channels,
            )
        except (KeyError, RuntimeError, ValueError) as cause:
            raise ConfigError(
                f"network 'smp-unet' with encoder {config.encoder_name!r}",
                expected="an encoder that smp can build",
                found=str(cause),
            ) from cause
    return unet
