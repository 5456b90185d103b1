"""Logits and truths of one or several classes, brought to one form: every class, background first.

One channel means a sigmoid: the lesion against the rest. Several channels mean a softmax.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def exact(maps: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
    """Return the values in float32 at least: losses are not taken in half precision."""
    return maps.to(torch.promote_types(maps.dtype, torch.float32))


def class_log_probs(logits: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D H W"]:
    """Return the logarithm of each class's probability, finite for finite logits."""
    logits = exact(logits)
    if logits.shape[1] > 1:
        return logits.log_softmax(dim=1)
    return F.logsigmoid(torch.cat([-logits, logits], dim=1))


def class_shares(target: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D H W"]:
    """Return the share of each pixel that each class covers."""
    target = exact(target)
    return target if target.shape[1] > 1 else torch.cat([1 - target, target], dim=1)


def cross_entropy(
    logits: Float[Tensor, "B C H W"], target: Float[Tensor, "B C H W"]
) -> Float[Tensor, "B H W"]:
    """Return the cross-entropy of each pixel [nat], of soft truths too."""
    return -(class_shares(target) * class_log_probs(logits)).sum(dim=1)


def foreground_weights(num_classes: int, weight: float, like: Tensor) -> Float[Tensor, "D 1 1"]:
    """Return ``1 - weight`` for the background and ``weight`` for each other class."""
    weights = torch.full((num_classes, 1, 1), weight, dtype=like.dtype, device=like.device)
    weights[0] = 1 - weight
    return weights
