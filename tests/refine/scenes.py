"""Scenes for tests: one picture, coarse maps on it, any grid."""

from __future__ import annotations

import torch
from torch import Tensor

from ultrarefiner.ops.frames import Frames
from ultrarefiner.refine.scene import Scene


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
