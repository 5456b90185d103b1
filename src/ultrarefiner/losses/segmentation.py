"""Cross-entropy plus Dice, the loss of a coarse network (phase 1).

Source: UltraRefiner 4.1.2 and 9.2. The Dice term has squared sums in its denominator (Milletari et
al., "V-Net", 3DV 2016) and is taken per image. What we changed: targets may be soft, so that
a truth resampled by area keeps what it knows; by default the Dice term leaves the background out,
whose overlap is near 1 whatever is predicted.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ultrarefiner.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class CrossEntropyDice:
    """``w CE + (1 - w) Dice``, in float32 whatever the logits are.

    Attributes:
        ce_weight: w in [0, 1].
        include_background: count the background as a class of the Dice term.
        eps: added above and below in the Dice term, so that absent classes count as found.

    Example:
        >>> loss = CrossEntropyDice()
        >>> target = torch.tensor([[[[0.0, 1.0]]]])
        >>> round(float(loss(20 * (2 * target - 1), target)), 6)
        0.0
    """

    ce_weight: float = 0.5
    include_background: bool = False
    eps: float = 1e-5

    def __post_init__(self) -> None:
        if not 0 <= self.ce_weight <= 1:
            raise ConfigError("ce_weight", expected="0 to 1", found=str(self.ce_weight))
        if not self.eps > 0:
            raise ConfigError("loss eps", expected="> 0", found=str(self.eps))

    def __call__(
        self, logits: Float[Tensor, "B C H W"], target: Float[Tensor, "B C H W"]
    ) -> Float[Tensor, "B"]:
        """Return the loss of each image.

        Args:
            logits: one channel (sigmoid), or one per class with the background first (softmax).
            target: as many channels in [0, 1]: the share of the pixel that each class covers.
        """
        assert logits.shape == target.shape, f"{logits.shape} against {target.shape}"
        logits = logits if logits.dtype == torch.float64 else logits.float()
        if logits.shape[1] == 1:
            entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
            probs = logits.sigmoid()
            if self.include_background:
                probs, target = (torch.cat([1 - x, x], dim=1) for x in (probs, target))
        else:
            entropy = -target * logits.log_softmax(dim=1)
            probs = logits.softmax(dim=1)
            if not self.include_background:
                probs, target = probs[:, 1:], target[:, 1:]
        cross_entropy = entropy.sum(dim=1).mean(dim=(1, 2))
        dice = soft_dice_loss(probs, target, self.eps).mean(dim=1)
        return self.ce_weight * cross_entropy + (1 - self.ce_weight) * dice


def soft_dice_loss(
    probs: Float[Tensor, "B C H W"], target: Float[Tensor, "B C H W"], eps: float = 1e-5
) -> Float[Tensor, "B C"]:
    """Return ``1 - (2 sum(p y) + eps) / (sum(p^2) + sum(y^2) + eps)`` of each image and class.

    0 for equal maps, two empty ones included; near 1 where only one is empty.
    """
    overlap = (probs * target).sum(dim=(2, 3))
    squares = probs.square().sum(dim=(2, 3)) + target.square().sum(dim=(2, 3))
    return 1 - (2 * overlap + eps) / (squares + eps)
