"""Losses that rank the pixels of an image: the hardest alone (TopK), or Lovász's IoU."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ultrarefiner.errors import ConfigError
from ultrarefiner.losses.classes import class_log_probs, class_shares, cross_entropy, exact


@dataclass(frozen=True, kw_only=True)
class TopK:
    """Mean cross-entropy of the hardest pixels of each image.

    Attributes:
        share: of the pixels, in (0, 1]; at least one is taken.

    Reference:
        Wu et al., "Bridging Category-level and Instance-level Semantic Image Segmentation", 2016.
    """

    share: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ConfigError("TopK share", expected="above 0, at most 1", found=str(self.share))

    def __call__(
        self, logits: Float[Tensor, "B C H W"], target: Float[Tensor, "B C H W"]
    ) -> Float[Tensor, "B"]:
        """Return the loss of each image."""
        entropy = cross_entropy(logits, target).flatten(1)
        num_pixels = max(1, round(self.share * entropy.shape[1]))
        return entropy.topk(num_pixels, dim=1, sorted=False).values.mean(dim=1)


@dataclass(frozen=True, kw_only=True)
class Lovasz:
    """Lovász extension of the Jaccard loss, per image: the hinge for one channel, else softmax.

    Softmax: the mean over all classes but the background, there or not. Soft truths are cut at
    0.5, since the extension is that of a function of sets.

    Reference:
        Berman et al., "The Lovász-Softmax Loss", CVPR 2018. What we changed: all images and
        classes at once, with steps in closed form instead of differences of rounded sums.
    """

    def __call__(
        self, logits: Float[Tensor, "B C H W"], target: Float[Tensor, "B C H W"]
    ) -> Float[Tensor, "B"]:
        """Return the loss of each image."""
        truth = class_shares(target)[:, 1:] > 0.5
        if logits.shape[1] == 1:
            margins = torch.where(truth, exact(logits), -exact(logits))
            errors = (1 - margins).relu()
        else:
            errors = (truth.float() - class_log_probs(logits)[:, 1:].exp()).abs()
        return lovasz_extension(errors.flatten(2), truth.flatten(2)).mean(dim=1)


def lovasz_extension(
    errors: Float[Tensor, "B C N"], truth: Bool[Tensor, "B C N"]
) -> Float[Tensor, "B C"]:
    r"""Return the Lovász extension of the Jaccard loss at a vector of errors.

    .. math:: \sum_i e_{\pi_i} \left(J(\pi_1 \dots \pi_i) - J(\pi_1 \dots \pi_{i-1})\right)

    with the errors falling along :math:`\pi`, and J the Jaccard loss if just these pixels were
    wrong. Errors of 0 and 1 give the Jaccard loss itself.

    Args:
        errors: 0 or more.
        truth: which pixels are lesion; if none is, the greatest error counts alone.
    """
    errors, order = errors.sort(dim=-1, descending=True)
    lesion = truth.gather(-1, order)
    area = lesion.sum(dim=-1, keepdim=True)
    kept = (area - lesion.cumsum(dim=-1)).to(errors.dtype)
    union = (area + (~lesion).cumsum(dim=-1)).to(errors.dtype)
    steps = torch.where(lesion, 1 / union.clamp_min(1), kept / (union * (union - 1)).clamp_min(1))
    alone = torch.zeros_like(steps)
    alone[..., 0] = 1
    return (errors * torch.where(area > 0, steps, alone)).sum(dim=-1)
