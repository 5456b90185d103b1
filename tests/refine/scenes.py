"""Scenes for tests: one picture, coarse maps on it, any grid."""

from __future__ import annotations

import torch
from torch import Tensor

from ultrarefiner.ops.frames import Frames
from ultrarefiner.refine.scene import Scene

SIDE = 64


def scene_of(coarse: Tensor, image: Tensor | None = None) -> Scene:
    """Return a scene of ``B`` square coarse maps, ``B 1 side side``, each on an image of its own.

    Image and grid are the same size unless an image, ``H W``, is given for all.
    """
    side = coarse.shape[-1]
    if image is None:
        image = torch.rand(side, side, generator=torch.Generator().manual_seed(5))
    num = len(coarse)
    native_hw = torch.tensor([image.shape] * num)
    return Scene(
        images=image.expand(num, 1, *image.shape),
        native_hw=native_hw,
        coarse=coarse,
        frames=Frames.letterboxed(native_hw, side),
        image_index=torch.arange(num),
    )


def blob(
    centre_xy: tuple[float, float] = (27.0, 35.0), axes_xy: tuple[float, float] = (14, 7)
) -> Tensor:
    """Smooth tilted blob, ``1 1 64 64``, peak 0.95."""
    centres = torch.arange(SIDE) + 0.5
    x, y = centres[None] - centre_xy[0], centres[:, None] - centre_xy[1]
    u, v = (x + 0.3 * y) / axes_xy[0], (y - 0.3 * x) / axes_xy[1]
    return (0.95 * torch.exp(-((u**2 + v**2) ** 2)))[None, None]


def rectangle(top: int, left: int, bottom: int, right: int) -> Tensor:
    """Return 1 in some rows and columns, 0 elsewhere, ``1 1 64 64``."""
    probs = torch.zeros(1, 1, SIDE, SIDE)
    probs[..., top:bottom, left:right] = 1
    return probs
