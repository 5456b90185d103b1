"""The last stage: refuse a refinement that strays too far, and say why. Prediction only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ultrarefiner.errors import ConfigError
from ultrarefiner.ops.morphology import outline_band
from ultrarefiner.ops.uncertainty import uncertainty
from ultrarefiner.refine.evidence import Evidence, component_areas, gather_evidence
from ultrarefiner.shapes import ProbMaps

ACCEPTED = "accepted"
NO_LESION = "no lesion in coarse mask"
NO_RESPONSE = "foundation model found nothing"
LOW_IOU = "low agreement with coarse mask"
AREA_RATIO = "area changed too much"
FRAGMENTED = "too many fragments"
TOO_LARGE = "covers most of the image"

_REFERENCE_SIDE_PX = 224
"""Side of the grid on which the width of the band is given."""


@dataclass(frozen=True, kw_only=True)
class StabilizerConfig:
    """When a refinement is refused.

    The three limits on how far a mask may move are those of the source document, section 7.2. They
    also refuse perfect repairs: one of a threefold over-segmentation has IoU 1/3 with its coarse
    mask. So each limit L is widened to :math:`L^{1 + w t}` where the foundation model is trusted,
    with the widening w and the trust t, which rises from 0 to 1 with the predicted IoU. A limit of
    0 or 1 stays what it is.

    Attributes:
        enabled: whether there are rules at all; :func:`build_stabilizer` reads it.
        min_iou: least IoU of the foundation model's mask with the coarse mask.
        min_area_ratio: least area of that mask relative to the coarse mask.
        max_area_ratio: greatest such ratio.
        max_components: greatest number of 8-connected components.
        min_component_share: least share of the mask's area that makes a component count; 0 counts
            every speck.
        widening: w; 0 leaves the limits as they are, whatever the foundation model says.
        trust_from: predicted IoU up to which there is no trust.
        trust_to: predicted IoU from which on trust is full.
        uncertainty_credit: what a wholly undecided coarse map adds to the predicted IoU.
        min_predicted_iou: least predicted IoU to believe a mask where the coarse map is empty.
        max_new_share: greatest share of the image that such a mask may cover.
        band_px: only pixels this near to the coarse outline may change [px of a 224 px grid]; 0
            lets all change.
    """

    enabled: bool = True
    min_iou: float = 0.5
    min_area_ratio: float = 0.3
    max_area_ratio: float = 3.0
    max_components: int = 5
    min_component_share: float = 0.01
    widening: float = 1.5
    trust_from: float = 0.8
    trust_to: float = 0.9
    uncertainty_credit: float = 0.1
    min_predicted_iou: float = 0.95
    max_new_share: float = 0.4
    band_px: float = 0.0

    def __post_init__(self) -> None:
        for name in ("min_iou", "min_component_share", "max_new_share"):
            value = getattr(self, name)
            _require(0 <= value <= 1, name, "in [0, 1]", value)
        for name in ("widening", "uncertainty_credit", "band_px"):
            _require(getattr(self, name) >= 0, name, ">= 0", getattr(self, name))
        _require(self.max_components >= 1, "max_components", ">= 1", self.max_components)
        _require(
            0 <= self.min_area_ratio <= 1 <= self.max_area_ratio,
            "area ratios",
            "min <= 1 <= max",
            f"[{self.min_area_ratio}, {self.max_area_ratio}]",
        )
        _require(
            self.trust_from < self.trust_to,
            "trust",
            "trust_from < trust_to",
            f"[{self.trust_from}, {self.trust_to}]",
        )

    @classmethod
    def literal(cls) -> StabilizerConfig:
        """Return the rules of the source document, section 7.2.

        They know neither trust nor small components, and the IoU with an empty mask is 0: no
        prediction makes up for that.
        """
        return cls(widening=0.0, min_component_share=0.0, min_predicted_iou=2.0)


def _require(ok: bool, name: str, expected: str, found: float | str) -> None:
    if not ok:
        raise ConfigError(f"stabilizer {name}", expected=expected, found=str(found))


@dataclass(frozen=True, kw_only=True)
class Stabilized:
    """What is left after the rules.

    Attributes:
        probs: ``B 1 h w``: the gated map where accepted, else the coarse one.
        reasons: per item, :data:`ACCEPTED` or the first rule that refused it.
    """

    probs: ProbMaps
    reasons: tuple[str, ...]


def build_stabilizer(config: StabilizerConfig) -> Stabilizer | NoStabilizer:
    """Return the stage that a config describes."""
    return Stabilizer(config) if config.enabled else NoStabilizer()


class NoStabilizer(nn.Module):
    """Accept everything, without looking: the stage in training."""

    def forward(
        self,
        coarse: ProbMaps,
        refined: ProbMaps,
        gated: ProbMaps,
        predicted_iou: Float[Tensor, "B"],
        no_lesion: Bool[Tensor, "B"],
        valid: Bool[Tensor, "B 1 h w"] | None = None,
    ) -> Stabilized:
        """Return the gated maps; where there was no coarse mask the gate is bypassed."""
        probs = torch.where(_column(no_coarse_mask(coarse, no_lesion)), refined, gated)
        return Stabilized(probs=probs, reasons=(ACCEPTED,) * len(coarse))


class Stabilizer(nn.Module):
    """Compare with the coarse mask what the foundation model said, and what the gate made of it.

    Both must keep the rules: the model's own mask, since a gate can hide how wrong it is, and the
    outcome, since it is what is delivered. So stabilising a second time changes nothing.

    Args:
        config: the rules' thresholds.
    """

    def __init__(self, config: StabilizerConfig | None = None):
        super().__init__()
        self.config = config or StabilizerConfig()

    def forward(
        self,
        coarse: ProbMaps,
        refined: ProbMaps,
        gated: ProbMaps,
        predicted_iou: Float[Tensor, "B"],
        no_lesion: Bool[Tensor, "B"],
        valid: Bool[Tensor, "B 1 h w"] | None = None,
    ) -> Stabilized:
        """Accept or refuse each item; where there was no coarse mask the gate is bypassed.

        Args:
            coarse: ``B 1 h w`` coarse probabilities.
            refined: ``B 1 h w`` what the foundation model said.
            gated: ``B 1 h w`` what the gate made of it.
            predicted_iou: ``B`` the model's opinion of it.
            no_lesion: ``B`` where the coarse map is empty; one that nowhere exceeds 0.5 is an empty
                mask, too.
            valid: ``B 1 h w`` where the grid holds image; all of it if not given.
        """
        nothing = no_coarse_mask(coarse, no_lesion)
        outcome = torch.where(_column(nothing), refined, self._near_outline(coarse, gated))
        valid = torch.ones_like(coarse, dtype=torch.bool) if valid is None else valid
        facts = torch.stack(
            [
                predicted_iou,
                self._trust(coarse, predicted_iou),
                nothing.to(predicted_iou),
                valid.sum(dim=(-3, -2, -1)).to(predicted_iou),
            ],
            dim=-1,
        )
        masks = torch.cat([refined > 0.5, outcome > 0.5], dim=1)
        evidence = gather_evidence(coarse > 0.5, masks, facts)
        reasons = tuple(self._judge_both(*item) for item in evidence)
        accepted = torch.tensor([reason == ACCEPTED for reason in reasons], device=coarse.device)
        return Stabilized(probs=torch.where(_column(accepted), outcome, coarse), reasons=reasons)

    def _near_outline(self, coarse: ProbMaps, gated: ProbMaps) -> ProbMaps:
        """Return the gated map in a band along the coarse outline, the coarse one elsewhere."""
        if self.config.band_px == 0:
            return gated
        scale = max(coarse.shape[-2:]) / _REFERENCE_SIDE_PX
        radius_px = max(1, round(self.config.band_px * scale))
        return torch.where(outline_band(coarse > 0.5, radius_px), gated, coarse)

    def _trust(self, coarse: ProbMaps, predicted_iou: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
        """Return the trust in the model, in [0, 1]; more where the coarse map is undecided."""
        config = self.config
        mass = coarse.sum(dim=(-3, -2, -1)).clamp_min(1)
        undecided = (coarse * uncertainty(coarse)).sum(dim=(-3, -2, -1)) / mass
        quality = predicted_iou + config.uncertainty_credit * undecided
        span = config.trust_to - config.trust_from
        return ((quality - config.trust_from) / span).clamp(0, 1)

    def _judge_both(self, refined: Evidence, outcome: Evidence) -> str:
        reason = self._judge(refined)
        return self._judge(outcome) if reason == ACCEPTED else reason

    def _judge(self, evidence: Evidence) -> str:
        """Return the verdict on one mask. What is not a number keeps no rule."""
        config = self.config
        if evidence.no_lesion:
            return self._judge_new(evidence)
        if not evidence.mask.any():
            return NO_RESPONSE
        damping = 1 / (1 + config.widening * evidence.trust)
        area_ratio, iou = evidence.area_ratio**damping, evidence.iou**damping
        if not config.min_area_ratio <= area_ratio <= config.max_area_ratio:
            return AREA_RATIO
        if not iou >= config.min_iou:
            return LOW_IOU
        return self._judge_fragments(evidence.mask)

    def _judge_new(self, evidence: Evidence) -> str:
        """Judge a mask that no coarse lesion supports: only the model itself vouches for it."""
        share = float(evidence.mask.sum()) / evidence.image_px
        if share == 0 or not evidence.predicted_iou >= self.config.min_predicted_iou:
            return NO_LESION
        if share > self.config.max_new_share:
            return TOO_LARGE
        return self._judge_fragments(evidence.mask)

    def _judge_fragments(self, mask: Bool[np.ndarray, "h w"]) -> str:
        """Judge by the components that count; a mask of nothing but specks has too many."""
        areas = component_areas(mask)
        num_counted = np.count_nonzero(areas >= self.config.min_component_share * areas.sum())
        return ACCEPTED if 1 <= num_counted <= self.config.max_components else FRAGMENTED


def no_coarse_mask(coarse: ProbMaps, no_lesion: Bool[Tensor, "B"]) -> Bool[Tensor, "B"]:
    """Return which coarse maps are empty or nowhere above 0.5."""
    return no_lesion | (coarse.amax(dim=(-3, -2, -1)) <= 0.5)


def _column(flags: Bool[Tensor, "B"]) -> Bool[Tensor, "B 1 1 1"]:
    return flags[:, None, None, None]
