"""MONAI's losses in this package's form: logits and truth in, one number an image out.

MONAI takes seconds to import, so it is imported when one of its losses is first made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ultrarefiner.errors import ConfigError
from ultrarefiner.losses.classes import exact


@dataclass(frozen=True, kw_only=True)
class MonaiLoss:
    """A loss of ``monai.losses``, taken image by image in float32.

    Attributes:
        name: of MONAI's class.
        options: its arguments. The activation, the background (left out beside other classes) and
            the reduction are set here.

    Raises:
        ConfigError: MONAI is too old for that loss, or the options are not its.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._build(num_channels=1)

    def __call__(
        self, logits: Float[Tensor, "B C H W"], target: Float[Tensor, "B C H W"]
    ) -> Float[Tensor, "B"]:
        """Return the loss of each image.

        Args:
            logits: one channel (sigmoid), or one per class with the background first (softmax).
            target: as many channels in [0, 1].
        """
        assert logits.shape == target.shape, f"{logits.shape} against {target.shape}"
        loss = self._build(num_channels=logits.shape[1])
        # Few of MONAI's losses keep the images of a batch apart; one at a time, each must.
        pairs = zip(exact(logits)[:, None], exact(target)[:, None], strict=True)
        return torch.stack([loss(image, truth).mean() for image, truth in pairs])

    def _build(self, *, num_channels: int) -> nn.Module:
        is_binary = num_channels == 1
        try:
            factory = getattr(import_module("monai.losses"), self.name)
        except AttributeError as error:
            raise ConfigError(
                f"MONAI's loss {self.name!r}",
                found=str(error),
                fix="Install a recent MONAI: pip install --upgrade monai.",
            ) from error
        try:
            loss: nn.Module = factory(
                sigmoid=is_binary,
                softmax=not is_binary,
                include_background=is_binary,
                **self.options,
            )
        except (TypeError, ValueError) as error:
            raise ConfigError(f"options of MONAI's {self.name}", found=str(error)) from error
        return loss
