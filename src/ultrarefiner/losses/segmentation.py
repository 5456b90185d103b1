"""Cross-entropy plus Dice, the loss of a coarse network (phase 1).

Source: UltraRefiner 4.1.2 and 9.2. The Dice term has squared sums in its denominator and is taken
per image. What we changed: targets may be soft, so that a truth resampled by area keeps what it
knows; by default the Dice term leaves the background out, whose overlap is near 1 whatever is
predicted.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ultrarefiner.errors import ConfigError
from ultrarefiner.losses.classes import class_log_probs, class_shares, cross_entropy
from ultrarefiner.losses.overlap import dice_loss


@dataclass(frozen=True, kw_only=True)
class CrossEntropyDice:
    """``w CE + (1 - w) Dice``, in float32 whatever the logits are.

    Attributes:
        ce_weight: w in [0, 1].
        include_background: count the background as a class of the Dice term.
        eps: added above and below in the Dice term, so that absent classes count as found.

    Example:
        >>> import torch
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
        first = 0 if self.include_background else 1
        probs, shares = class_log_probs(logits).exp()[:, first:], class_shares(target)[:, first:]
        dice = dice_loss(probs, shares, eps=self.eps, squared=True).mean(dim=1)
        entropy = cross_entropy(logits, target).mean(dim=(1, 2))
        return self.ce_weight * entropy + (1 - self.ce_weight) * dice
