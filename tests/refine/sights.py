"""Pictures for the stages that ask for nothing but the image on the grid of a map."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One grey picture, ``h w``, shown to each of ``num`` maps."""

    grey: Tensor
    num: int = 1

    def grid_images(self) -> tuple[Tensor, Tensor]:
        """Return the picture stretched to [0, 1], and that it is everywhere."""
        low, high = self.grey.min(), self.grey.max()
        stretched = (self.grey - low) / (high - low).clamp_min(1e-6)
        images = stretched.expand(self.num, 1, *self.grey.shape)
        return images, torch.ones_like(images)
