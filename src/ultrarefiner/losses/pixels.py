"""Losses of single pixels, averaged over each map: cross-entropy and focal.

Source: UltraRefiner 9.1.1 and 9.1.3. What we changed: truths may be soft.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ultrarefiner.errors import ConfigError
from ultrarefiner.losses.classes import (
    class_log_probs,
    class_shares,
    exact,
    foreground_weights,
)


def bce(logits: Float[Tensor, "*B H W"], target: Float[Tensor, "*B H W"]) -> Float[Tensor, "*B"]:
    """Return the mean binary cross-entropy of each map [nat].

    Args:
        logits: any finite value.
        target: in [0, 1].
    """
    return _entropy(exact(logits), exact(target)).mean(dim=(-2, -1))


def bce_of_probs(
    probs: Float[Tensor, "*B H W"], target: Float[Tensor, "*B H W"], *, eps: float = 1e-5
) -> Float[Tensor, "*B"]:
    """Return the mean binary cross-entropy of maps that are probabilities already [nat].

    For what comes out of a gate. Probabilities are clamped to ``[eps, 1 - eps]``; beyond, a pixel
    has no gradient, where logits would still have one: take :func:`bce` wherever there are logits.

    Args:
        probs: in [0, 1].
        target: in [0, 1].
        eps: in (0, 0.5), representable beside 1 in float32.
    """
    probs, target = exact(probs).clamp(eps, 1 - eps), exact(target)
    # torch's own is refused under CUDA autocast.
    entropy = -(target * probs.log() + (1 - target) * (-probs).log1p())
    return entropy.mean(dim=(-2, -1))


def focal(
    logits: Float[Tensor, "*B H W"],
    target: Float[Tensor, "*B H W"],
    *,
    gamma: float = 2.0,
    alpha: float | None = None,
) -> Float[Tensor, "*B"]:
    r"""Return the mean focal loss of each map.

    .. math:: w\,|y - p|^\gamma\,\mathrm{BCE}(z, y), \quad w = \alpha y + (1 - \alpha)(1 - y)

    For a binary truth :math:`|y - p| = 1 - p_t`, the formula of the paper. For a soft one it is 0
    at p = y, where ``1 - (y p + (1 - y)(1 - p))`` would pull p beyond y, towards 0 or 1.

    Args:
        logits: any finite value.
        target: in [0, 1].
        gamma: 0 (cross-entropy) or at least 1; between, the gradient is infinite at p = y.
        alpha: weight of the lesion in [0, 1]; ``None`` weighs nothing.

    Reference:
        Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017. Li et al., "Generalized
        Focal Loss", NeurIPS 2020, for soft truths.
    """
    logits, target = exact(logits), exact(target)
    loss = (target - logits.sigmoid()).abs().pow(gamma) * _entropy(logits, target)
    if alpha is not None:
        loss = loss * (alpha * target + (1 - alpha) * (1 - target))
    return loss.mean(dim=(-2, -1))


def _entropy(
    logits: Float[Tensor, "*B H W"], target: Float[Tensor, "*B H W"]
) -> Float[Tensor, "*B H W"]:
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none")


@dataclass(frozen=True, kw_only=True)
class Focal:
    """The focal loss alone, of one class (:func:`focal`) or several.

    Attributes:
        gamma: 0, or at least 1.
        alpha: weight of all classes but the background, which weighs 1 minus that; in [0, 1].
    """

    gamma: float = 2.0
    alpha: float = 0.25

    def __post_init__(self) -> None:
        if self.gamma != 0 and not self.gamma >= 1:
            raise ConfigError("focal gamma", expected="0, or at least 1", found=str(self.gamma))
        if not 0 <= self.alpha <= 1:
            raise ConfigError("focal alpha", expected="0 to 1", found=str(self.alpha))

    def __call__(
        self, logits: Float[Tensor, "B C H W"], target: Float[Tensor, "B C H W"]
    ) -> Float[Tensor, "B"]:
        """Return the loss of each image."""
        if logits.shape[1] == 1:
            return focal(logits, target, gamma=self.gamma, alpha=self.alpha).mean(dim=1)
        log_probs, shares = class_log_probs(logits), class_shares(target)
        weights = foreground_weights(shares.shape[1], self.alpha, like=log_probs)
        missing = (1 - log_probs.exp()).clamp_min(0).pow(self.gamma)
        return -(weights * missing * shares * log_probs).sum(dim=1).mean(dim=(1, 2))
