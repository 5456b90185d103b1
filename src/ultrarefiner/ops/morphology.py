"""The band along the outline of binary masks."""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor


def dilate(masks: Bool[Tensor, "*B h w"], radius_px: int) -> Bool[Tensor, "*B h w"]:
    """Grow masks by a square of side ``2 radius_px + 1``.

    The same as a 3x3 square, iterated ``radius_px`` times. Each axis takes about twice the
    logarithm of the radius passes, not the radius.

    Args:
        masks: any number of binary masks.
        radius_px: at least 0.

    Returns:
        Masks of the same shape; an empty mask stays empty.
    """
    assert radius_px >= 0, radius_px
    for axis in (-2, -1):
        masks = _spread(_spread(masks, radius_px, axis), -radius_px, axis)
    return masks


def outline_band(masks: Bool[Tensor, "*B h w"], radius_px: int) -> Bool[Tensor, "*B h w"]:
    """Return the dilation less the erosion: where a square holds both mask and background.

    The border of the grid is no outline: a mask that it cuts is not eroded from there.

    Args:
        masks: any number of binary masks.
        radius_px: of both operations, :func:`dilate`; 0 gives an empty band.

    Returns:
        Masks of the same shape; empty for an empty or full mask.

    Example:
        >>> outline_band(torch.tensor([[False, False, False, True, True, True]]), 1).int()
        tensor([[0, 0, 1, 1, 0, 0]], dtype=torch.int32)
    """
    return dilate(masks, radius_px) & dilate(~masks, radius_px)


def _spread(masks: Bool[Tensor, "*B h w"], reach: int, axis: int) -> Bool[Tensor, "*B h w"]:
    """Return where a mask is at this place or up to ``reach`` places ahead (negative: behind)."""
    length, direction = masks.shape[axis], 1 if reach >= 0 else -1
    reach, reached = min(abs(reach), length - 1), 0
    while reached < reach:
        step = min(reached + 1, reach - reached)
        ahead = masks.narrow(axis, step, length - step)
        here = masks.narrow(axis, 0, length - step)
        if direction > 0:
            rest = masks.narrow(axis, length - step, step)
            masks = torch.cat([here | ahead, rest], dim=axis)
        else:
            rest = masks.narrow(axis, 0, step)
            masks = torch.cat([rest, here | ahead], dim=axis)
        reached += step
    return masks
