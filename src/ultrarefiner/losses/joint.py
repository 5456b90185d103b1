"""Both networks at once (phase 3): the coarse loss, the refined loss, and the weight anchor.

Source: UltraRefiner 4.3 and 9.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from jaxtyping import Float
from torch import Tensor

from ultrarefiner.errors import ConfigError
from ultrarefiner.losses.anchor import AnchorReduction
from ultrarefiner.losses.classes import exact
from ultrarefiner.losses.overlap import dice_loss
from ultrarefiner.losses.pixels import bce, bce_of_probs
from ultrarefiner.losses.segmentation import CrossEntropyDice
from ultrarefiner.losses.terms import LossTerms, weigh
from ultrarefiner.shapes import ProbMaps


@dataclass(frozen=True, kw_only=True)
class BCEDice:
    """``(BCE + Dice) / 2`` of a refined map, which is logits or a probability: the call says which.

    Attributes:
        eps: added in the Dice term [px]; a probability is clamped to ``[eps, 1 - eps]`` for the
            cross-entropy.
    """

    eps: float = 1e-5

    def __post_init__(self) -> None:
        if not 1e-6 <= self.eps < 0.5:
            raise ConfigError("BCE-Dice eps", expected="1e-6 to 0.5", found=str(self.eps))

    def __call__(
        self,
        target: ProbMaps,
        *,
        logits: ProbMaps | None = None,
        probs: ProbMaps | None = None,
    ) -> Float[Tensor, "B"]:
        """Return the loss of each image.

        Args:
            target: truth in [0, 1].
            logits: the refined map where neither gate nor paste follows the decoder.
            probs: the refined map after either of them, in [0, 1].
        """
        if logits is not None:
            assert probs is None, "logits or a probability, not both"
            entropy, probs = bce(logits, target), exact(logits).sigmoid()
        else:
            assert probs is not None, "neither logits nor a probability"
            entropy = bce_of_probs(probs, target, eps=self.eps)
        return ((entropy + dice_loss(probs, target, eps=self.eps)) / 2).mean(dim=1)


@dataclass(frozen=True, kw_only=True)
class JointLoss:
    """``w_c coarse + w_r refined + w_a anchor``.

    Attributes:
        coarse_weight: w_c.
        refined_weight: w_r.
        anchor_weight: w_a.
        anchor_reduction: of the weight anchor: ``sum`` (literal) or ``mean``.
        coarse: loss of the coarse network, that of phase 1.
        refined: loss of the refined map.
    """

    coarse_weight: float = 0.1
    refined_weight: float = 0.9
    anchor_weight: float = 0.01
    anchor_reduction: AnchorReduction = "mean"
    coarse: CrossEntropyDice = field(default_factory=CrossEntropyDice)
    refined: BCEDice = field(default_factory=BCEDice)

    def __post_init__(self) -> None:
        for name in ("coarse_weight", "refined_weight", "anchor_weight"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"loss {name}", expected=">= 0", found=str(getattr(self, name)))
        if self.anchor_reduction not in ("sum", "mean"):
            raise ConfigError(
                "loss anchor_reduction", expected="sum or mean", found=self.anchor_reduction
            )

    def __call__(
        self,
        coarse: Float[Tensor, "B"],
        refined: Float[Tensor, "B"],
        *,
        anchor: Float[Tensor, ""] | None = None,
    ) -> LossTerms:
        """Return the loss of each image from its parts.

        Args:
            coarse: ``self.coarse(logits, target)`` on the coarse grid.
            refined: ``self.refined(target, logits=...)`` or ``(target, probs=...)``.
            anchor: :func:`~ultrarefiner.losses.anchor.weight_anchor` of the coarse network; each
                image carries it once, so that the mean over images does too.
        """
        terms = {
            "coarse": (self.coarse_weight, coarse),
            "refined": (self.refined_weight, refined),
        }
        if anchor is not None:
            terms["anchor"] = (self.anchor_weight, anchor.expand_as(refined))
        return weigh(terms)


JOINT_LOSSES: Mapping[str, JointLoss] = MappingProxyType(
    {
        "refine": JointLoss(),
        "protect": JointLoss(coarse_weight=0.5, refined_weight=0.5),
    }
)
