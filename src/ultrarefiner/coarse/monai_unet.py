"""The plain U-Net, without a pretrained encoder and without batch statistics.

Paper: Ronneberger et al., "U-Net", MICCAI 2015. Code: MONAI's ``BasicUNet`` (Apache-2.0): unlike
its ``UNet`` it keeps the full resolution and does not normalise the logits. What we changed: group
normalisation, so that an image does not depend on its batch, neither in training nor over several
processes; no dropout.
"""

from __future__ import annotations

from importlib import import_module

from jaxtyping import Float
from torch import Tensor, nn

from ultrarefiner.coarse.protocol import COARSE_NETWORKS, CoarseConfig, CoarseNetwork
from ultrarefiner.errors import ConfigError
from ultrarefiner.shapes import Images

# One group: torch's gradient of several is 2 to 3 times slower on a CPU where channels come last.
_NORM = ("group", {"num_groups": 1})


@COARSE_NETWORKS.register("unet")
class MonaiUnet(CoarseNetwork):
    """U-Net of five levels, trained from scratch.

    Args:
        config: ``decoder_channels`` are the widths of the five levels, from deep to shallow; with
            128, 64, 32, 16, 16 it has half a million parameters. There is no encoder to choose.

    Raises:
        ConfigError: not five widths, or an encoder or its weights are asked for.
    """

    def __init__(self, config: CoarseConfig) -> None:
        super().__init__(config)
        _refuse_encoder(config)
        self.unet = _build(config)

    def forward(self, images: Images) -> Float[Tensor, "B classes H W"]:
        """Return logits; see :class:`CoarseNetwork`."""
        logits: Tensor = self.unet(images)
        return logits


def _refuse_encoder(config: CoarseConfig) -> None:
    """Raise for settings that would change nothing: a name other than the default, any weights."""
    if config.encoder_weights == "none" and config.encoder_name == CoarseConfig.encoder_name:
        return
    raise ConfigError(
        "network 'unet'",
        expected="encoder_weights 'none' and no encoder_name, since it has no encoder of its own",
        found=f"weights {config.encoder_weights!r} of {config.encoder_name!r}",
        fix="Set encoder_weights: none, or name: smp-unet for a pretrained encoder.",
    )


def _build(config: CoarseConfig) -> nn.Module:
    if len(config.decoder_channels) != 5:
        raise ConfigError(
            "network 'unet'",
            expected="five decoder_channels",
            found=f"{len(config.decoder_channels)} decoder_channels",
        )
    widths = config.decoder_channels[::-1]
    # MONAI takes seconds to import: only for those who build this network.
    unet: nn.Module = import_module("monai.networks.nets").BasicUNet(
        spatial_dims=2,
        in_channels=1,
        out_channels=config.num_classes,
        features=(*widths, widths[0]),
        norm=_NORM,
    )
    return unet
