"""What teaches the foundation model to correct, and what to leave alone (phase 2).

Source: UltraRefiner 4.2.4 and 9.3. Its three formulas of the change penalty are settings of one.
What we changed: truths may be soft, and several candidates are each held to the truth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from ultrarefiner.errors import ConfigError
from ultrarefiner.losses.classes import exact
from ultrarefiner.losses.overlap import dice_loss, hard_dice, hard_iou
from ultrarefiner.losses.pixels import bce, focal
from ultrarefiner.losses.terms import LossTerms, weigh
from ultrarefiner.shapes import Candidates, ProbMaps, Scores

_POOR_DICE = 0.6  # of a coarse mask that may be changed freely


@dataclass(frozen=True, kw_only=True)
class ChangePenalty:
    r"""The price of changing what the coarse mask had right.

    .. math:: \text{correct: } \mathrm{mean}\left(|p - c|^n\,[c_b = y_b]\right), \qquad
              \text{quality: } \mathrm{clip}\left(\frac{q - 0.6}{0.4}, 0, 1\right)
              \mathrm{mean}\left(|p - c|^n\right)

    with c the coarse map (``soft``) or its mask (``binary``), and q the Dice of the coarse mask
    with the truth; the subscript b cuts at 0.5. The default is that of 9.3.1. Where it acts, the
    coarse mask *is* the truth, so that for a binary truth it equals an L1 to the truth over those
    pixels: it says nothing about the coarse map that the truth does not say already. ``soft`` does.

    Attributes:
        norm: n.
        target: what the refined map is held to.
        region: which pixels, or how much of the whole image.
    """

    norm: Literal[1, 2] = 1
    target: Literal["binary", "soft"] = "binary"
    region: Literal["correct", "quality"] = "correct"

    def __post_init__(self) -> None:
        choices = {"norm": (1, 2), "target": ("binary", "soft"), "region": ("correct", "quality")}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                expected = " or ".join(map(str, allowed))
                found = str(getattr(self, name))
                raise ConfigError(f"change penalty {name}", expected=expected, found=found)

    def __call__(
        self, probs: Candidates, target: ProbMaps, coarse: ProbMaps
    ) -> Float[Tensor, "B K"]:
        """Return the penalty of each candidate; the coarse map gets no gradient.

        Args:
            probs: candidates in [0, 1].
            target: truth in [0, 1].
            coarse: coarse probability in [0, 1].
        """
        coarse, mask, truth = exact(coarse.detach()), coarse > 0.5, target > 0.5
        reference = mask.to(coarse.dtype) if self.target == "binary" else coarse
        changes = (exact(probs) - reference).abs().pow(self.norm)
        if self.region == "correct":
            return (changes * (mask == truth)).mean(dim=(-2, -1))
        weight = (hard_dice(mask, truth) - _POOR_DICE) / (1 - _POOR_DICE)
        return weight.clamp(0, 1) * changes.mean(dim=(-2, -1))


@dataclass(frozen=True, kw_only=True)
class RefinerLoss:
    """``BCE + Dice + w_f focal + w_c change + w_i (predicted IoU - IoU)^2`` on raw logits.

    Raw: what the decoder says, selected or each candidate, before any gate or paste.

    Attributes:
        dice_eps: added in the Dice term [px].
        focal_weight: w_f.
        focal_gamma: exponent of the focal term, which has no alpha.
        change_weight: w_c.
        change: the change penalty.
        iou_weight: w_i. The truth of the IoU head is that of each candidate's own mask, and has
            no gradient; two empty masks count 1.
        supervise: of several candidates, ``all`` are held to the truth (the mean of their
            losses), or ``best``: the one that is nearest to it, so that the others may stay
            different answers. The IoU head always learns all.
    """

    dice_eps: float = 1.0
    focal_weight: float = 0.0
    focal_gamma: float = 2.0
    change_weight: float = 0.5
    change: ChangePenalty = field(default_factory=ChangePenalty)
    iou_weight: float = 0.0
    supervise: Literal["all", "best"] = "all"

    def __post_init__(self) -> None:
        for name in ("focal_weight", "change_weight", "iou_weight"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"loss {name}", expected=">= 0", found=str(getattr(self, name)))
        if not self.dice_eps > 0:
            raise ConfigError("loss dice_eps", expected="> 0", found=str(self.dice_eps))
        if self.focal_gamma != 0 and not self.focal_gamma >= 1:
            raise ConfigError(
                "loss focal_gamma", expected="0, or at least 1", found=str(self.focal_gamma)
            )
        if self.supervise not in ("all", "best"):
            raise ConfigError("loss supervise", expected="all or best", found=self.supervise)

    def __call__(
        self,
        logits: Candidates,
        target: ProbMaps,
        coarse: ProbMaps,
        *,
        iou_predictions: Scores | None = None,
    ) -> LossTerms:
        """Return the loss of each image.

        Args:
            logits: of the K candidates, or of the selected map alone (K = 1).
            target: truth in [0, 1] on the same grid.
            coarse: coarse probability in [0, 1] on the same grid; gets no gradient.
            iou_predictions: the model's own guess for each of them; needed if ``iou_weight``.
        """
        assert logits.shape[-2:] == target.shape[-2:] == coarse.shape[-2:], "different grids"
        maps, truth = exact(logits), exact(target).expand_as(logits)
        probs = maps.sigmoid()
        terms = {
            "bce": (1.0, bce(maps, truth)),
            "dice": (1.0, dice_loss(probs, truth, eps=self.dice_eps)),
        }
        choice = self._choose(terms["bce"][1] + terms["dice"][1])
        if self.focal_weight:
            terms["focal"] = (self.focal_weight, focal(maps, truth, gamma=self.focal_gamma))
        if self.change_weight:
            terms["change"] = (self.change_weight, self.change(probs, target, coarse))
        images = {
            name: (weight, (choice * values).sum(dim=1)) for name, (weight, values) in terms.items()
        }
        if self.iou_weight:
            assert iou_predictions is not None, "the loss of the IoU head needs its predictions"
            error = iou_head_loss(iou_predictions, logits=maps, target=target).mean(dim=1)
            images["iou"] = (self.iou_weight, error)
        return weigh(images)

    def _choose(self, losses: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        """Return the weight of each candidate, without gradient."""
        losses = losses.detach()
        if self.supervise == "all":
            return losses.new_full(losses.shape, 1 / losses.shape[1])
        best = losses.argmin(dim=1, keepdim=True)
        return losses.new_zeros(losses.shape).scatter(1, best, 1)


def iou_head_loss(
    iou_predictions: Scores, *, logits: Candidates, target: ProbMaps
) -> Float[Tensor, "B K"]:
    """Return the squared error of each predicted IoU.

    Args:
        iou_predictions: what the head says.
        logits: the candidates, cut at 0; they get no gradient.
        target: truth in [0, 1], cut at 0.5.
    """
    actual = hard_iou(logits > 0, (target > 0.5).expand_as(logits))
    return (exact(iou_predictions) - actual).square()


REFINER_LOSSES: Mapping[str, RefinerLoss] = MappingProxyType(
    {
        "quality": RefinerLoss(),
        "advanced": RefinerLoss(
            focal_weight=0.5,
            iou_weight=0.1,
            change=ChangePenalty(norm=2, target="soft", region="quality"),
        ),
    }
)
