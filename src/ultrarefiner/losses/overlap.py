"""Overlap of a map with its truth: Dice as a loss, and Dice and IoU of the masks without gradient.

Source: UltraRefiner 9.1.2 and 9.3. What we changed: truths may be soft.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ultrarefiner.losses.classes import exact


def dice_loss(
    probs: Float[Tensor, "*B H W"],
    target: Float[Tensor, "*B H W"],
    *,
    eps: float = 1e-5,
    squared: bool = False,
) -> Float[Tensor, "*B"]:
    r"""Return the Dice loss of each map.

    .. math:: \frac{\sum |p - y|^n}{\sum p^n + \sum y^n + \varepsilon}
              = 1 - \frac{2 \sum p y + \varepsilon}{\sum p^n + \sum y^n + \varepsilon}

    with n = 1, or 2 if ``squared``. The right side, the usual one, is the same for n = 2, and for
    n = 1 wherever the truth is binary. The left side is 0 at p = y for a soft truth too, where the
    right one with n = 1 would prefer p at 0 or 1.

    Two empty maps give 0, a full map against an empty one near 1.

    Args:
        probs: in [0, 1].
        target: in [0, 1].
        eps: added below [px]; the larger, the less a few false pixels cost on an empty truth.
        squared: n = 2 (V-Net's) instead of 1.

    Reference:
        Milletari et al., "V-Net", 3DV 2016. Wang et al., "Dice Semimetric Losses", MICCAI 2023.

    Example:
        >>> soft = torch.full((4, 4), 0.5)
        >>> dice_loss(soft, soft).item()
        0.0
    """
    probs, target = exact(probs), exact(target)
    difference, size = (probs - target).abs(), probs + target
    if squared:
        difference, size = difference.square(), probs.square() + target.square()
    return difference.sum(dim=(-2, -1)) / (size.sum(dim=(-2, -1)) + eps)


def hard_dice(mask: Bool[Tensor, "*B H W"], target: Bool[Tensor, "*B H W"]) -> Float[Tensor, "*B"]:
    """Return the Dice of masks; 1 if both are empty."""
    overlap, sizes = _areas(mask, target)
    return torch.where(sizes > 0, 2 * overlap / sizes.clamp_min(1), 1.0)


def hard_iou(mask: Bool[Tensor, "*B H W"], target: Bool[Tensor, "*B H W"]) -> Float[Tensor, "*B"]:
    """Return the intersection over union of masks; 1 if both are empty."""
    overlap, sizes = _areas(mask, target)
    union = sizes - overlap
    return torch.where(union > 0, overlap / union.clamp_min(1), 1.0)


def _areas(mask: Bool[Tensor, "*B H W"], target: Bool[Tensor, "*B H W"]) -> tuple[Tensor, Tensor]:
    """Return the area of the intersection and the sum of both areas [px]."""
    overlap = (mask & target).sum(dim=(-2, -1))
    return overlap, mask.sum(dim=(-2, -1)) + target.sum(dim=(-2, -1))
