"""Combinations of cross-entropy and Dice: weighted (Combo), bent by a power, or any by weight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ultrarefiner.errors import ConfigError
from ultrarefiner.losses.classes import class_log_probs, class_shares, foreground_weights
from ultrarefiner.losses.overlap import dice_loss

Loss = Callable[[Tensor, Tensor], Tensor]
"""Logits and truth ``B C H W`` in, the loss ``B`` of each image out."""


@dataclass(frozen=True, kw_only=True)
class Combo:
    r"""Weighted cross-entropy plus Dice.

    .. math:: \alpha\,\mathrm{WCE} + (1 - \alpha)\,\mathrm{Dice}

    Attributes:
        alpha: in [0, 1].
        foreground_weight: of the lesion's pixels in the cross-entropy, in [0, 1]; the background's
            weigh 1 minus that. At 0.5 the term is half the cross-entropy.
        eps: added in the Dice term [px].

    Reference:
        Taghanaki et al., "Combo Loss", Computerized Medical Imaging and Graphics, 2019.
    """

    alpha: float = 0.5
    foreground_weight: float = 0.5
    eps: float = 1.0

    def __post_init__(self) -> None:
        for name in ("alpha", "foreground_weight"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(
                    f"Combo {name}", expected="0 to 1", found=str(getattr(self, name))
                )
        if not self.eps > 0:
            raise ConfigError("Combo eps", expected="> 0", found=str(self.eps))

    def __call__(
        self, logits: Float[Tensor, "B C H W"], target: Float[Tensor, "B C H W"]
    ) -> Float[Tensor, "B"]:
        """Return the loss of each image."""
        log_probs, shares = class_log_probs(logits), class_shares(target)
        weights = foreground_weights(shares.shape[1], self.foreground_weight, like=log_probs)
        entropy = -(weights * shares * log_probs).sum(dim=1).mean(dim=(1, 2))
        dice = dice_loss(log_probs.exp()[:, 1:], shares[:, 1:], eps=self.eps).mean(dim=1)
        return self.alpha * entropy + (1 - self.alpha) * dice


@dataclass(frozen=True, kw_only=True)
class ExponentialLogarithmic:
    r"""Powers of the logarithms of Dice and probability.

    .. math:: w\,(-\ln D)^{\gamma_D} + (1 - w)\,\mathrm{mean}
              \left(\sum_c y_c\,v_c\,(-\ln p_c)^{\gamma_E}\right)

    D is the overlap, 1 minus the Dice loss. A power below 1 has an infinite slope where the
    logarithm is 0: logarithms count from 1e-6 on, so that every gradient is finite.

    Attributes:
        dice_weight: w in [0, 1].
        dice_gamma: above 0; below 1 the last per cent count more, above 1 the first ones.
        entropy_gamma: likewise.
        foreground_weight: v of the lesion's pixels in [0, 1]; the background's is 1 minus that.
        eps: added in the Dice term [px].

    Reference:
        Wong et al., "3D Segmentation with Exponential Logarithmic Loss", MICCAI 2018.
    """

    dice_weight: float = 0.8
    dice_gamma: float = 0.3
    entropy_gamma: float = 0.3
    foreground_weight: float = 0.5
    eps: float = 1.0

    def __post_init__(self) -> None:
        for name in ("dice_weight", "foreground_weight"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ConfigError(f"exp-log {name}", expected="0 to 1", found=str(value))
        for name in ("dice_gamma", "entropy_gamma", "eps"):
            value = getattr(self, name)
            if not value > 0:
                raise ConfigError(f"exp-log {name}", expected="> 0", found=str(value))

    def __call__(
        self, logits: Float[Tensor, "B C H W"], target: Float[Tensor, "B C H W"]
    ) -> Float[Tensor, "B"]:
        """Return the loss of each image."""
        log_probs, shares = class_log_probs(logits), class_shares(target)
        weights = foreground_weights(shares.shape[1], self.foreground_weight, like=log_probs)
        bent = _power(-log_probs, self.entropy_gamma)
        entropy = (weights * shares * bent).sum(dim=1).mean(dim=(1, 2))
        lost = dice_loss(log_probs.exp()[:, 1:], shares[:, 1:], eps=self.eps)
        overlap = (1 - lost).clamp_min(torch.finfo(lost.dtype).eps)
        dice = _power(-overlap.log(), self.dice_gamma).mean(dim=1)
        return self.dice_weight * dice + (1 - self.dice_weight) * entropy


@dataclass(frozen=True, kw_only=True)
class WeightedSum:
    """A sum of losses: those of the boundary alone do not train a network from scratch.

    Attributes:
        terms: losses and their weights.
    """

    terms: tuple[tuple[Loss, float], ...]

    def __post_init__(self) -> None:
        if not self.terms:
            raise ConfigError("weighted sum of losses", expected="at least one", found="none")

    def __call__(
        self, logits: Float[Tensor, "B C H W"], target: Float[Tensor, "B C H W"]
    ) -> Float[Tensor, "B"]:
        """Return the loss of each image."""
        return torch.stack([weight * loss(logits, target) for loss, weight in self.terms]).sum(0)


def _power(logarithms: Float[Tensor, "*B"], gamma: float) -> Float[Tensor, "*B"]:
    return logarithms.clamp_min(1e-6).pow(gamma)
