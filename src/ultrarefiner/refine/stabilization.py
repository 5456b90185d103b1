"""The last stage: refuse a refinement that strays too far, and say why. Prediction only."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ultrarefiner.errors import ConfigError
from ultrarefiner.shapes import ProbMaps

ACCEPTED = "accepted"
NO_LESION = "no lesion in coarse mask"
NO_RESPONSE = "foundation model found nothing"
LOW_IOU = "low agreement with coarse mask"
AREA_RATIO = "area changed too much"
FRAGMENTED = "too many fragments"


@dataclass(frozen=True, kw_only=True)
class StabilizerConfig:
    """When a refinement is refused; the rules of S0 section 7.2.

    Attributes:
        min_iou: least IoU of the foundation model's mask with the coarse mask.
        min_area_ratio: least area of that mask relative to the coarse mask.
        max_area_ratio: greatest such ratio.
        max_components: greatest number of 8-connected components.
        min_predicted_iou: least predicted IoU to believe a mask where the coarse map is empty.
    """

    min_iou: float = 0.5
    min_area_ratio: float = 0.3
    max_area_ratio: float = 3.0
    max_components: int = 5
    min_predicted_iou: float = 0.95

    def __post_init__(self) -> None:
        if not 0 <= self.min_iou <= 1:
            raise ConfigError("stabilizer min_iou", expected="in [0, 1]", found=str(self.min_iou))
        if self.max_components < 1:
            raise ConfigError(
                "stabilizer max_components", expected=">= 1", found=str(self.max_components)
            )
        if not 0 <= self.min_area_ratio <= 1 <= self.max_area_ratio:
            raise ConfigError(
                "stabilizer area ratios",
                expected="min <= 1 <= max",
                found=f"[{self.min_area_ratio}, {self.max_area_ratio}]",
            )


@dataclass(frozen=True, kw_only=True)
class Stabilized:
    """What is left after the rules.

    Attributes:
        probs: ``B 1 h w``: the gated map where accepted, else the coarse one.
        reasons: per item, :data:`ACCEPTED` or the first rule that refused it.
    """

    probs: ProbMaps
    reasons: tuple[str, ...]


class Stabilizer(nn.Module):
    """Compare the foundation model's own mask, before the gate, with the coarse mask.

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
    ) -> Stabilized:
        """Accept or refuse each item; where there was no coarse lesion the gate is bypassed."""
        coarse_mask, refined_mask = coarse[:, 0] > 0.5, refined[:, 0] > 0.5
        iou, area_ratio = _overlap(coarse_mask, refined_mask)
        reasons = tuple(
            self._judge_new(mask, quality) if empty else self._judge(mask, overlap, ratio)
            for empty, mask, quality, overlap, ratio in zip(
                no_lesion.tolist(),
                refined_mask.cpu().numpy(),
                predicted_iou.tolist(),
                iou.tolist(),
                area_ratio.tolist(),
                strict=True,
            )
        )
        accepted = torch.tensor([reason == ACCEPTED for reason in reasons], device=coarse.device)
        proposed = torch.where(_column(no_lesion), refined, gated)
        return Stabilized(probs=torch.where(_column(accepted), proposed, coarse), reasons=reasons)

    def _judge(self, mask: Bool[np.ndarray, "h w"], iou: float, area_ratio: float) -> str:
        config = self.config
        if not mask.any():
            return NO_RESPONSE
        if not config.min_area_ratio <= area_ratio <= config.max_area_ratio:
            return AREA_RATIO
        if iou < config.min_iou:
            return LOW_IOU
        return self._judge_fragments(mask)

    def _judge_new(self, mask: Bool[np.ndarray, "h w"], predicted_iou: float) -> str:
        """Judge a mask that no coarse lesion supports: only the model itself vouches for it."""
        if not mask.any() or predicted_iou < self.config.min_predicted_iou:
            return NO_LESION
        return self._judge_fragments(mask)

    def _judge_fragments(self, mask: Bool[np.ndarray, "h w"]) -> str:
        num_labels, _ = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        return FRAGMENTED if num_labels - 1 > self.config.max_components else ACCEPTED


def _overlap(
    coarse: Bool[Tensor, "B h w"], refined: Bool[Tensor, "B h w"]
) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
    """Return IoU and area ratio refined / coarse of each pair; an empty mask counts as 1 px."""
    intersection = (coarse & refined).sum(dim=(-2, -1))
    union = (coarse | refined).sum(dim=(-2, -1)).clamp_min(1)
    area_ratio = refined.sum(dim=(-2, -1)) / coarse.sum(dim=(-2, -1)).clamp_min(1)
    return intersection / union, area_ratio


def _column(flags: Bool[Tensor, "B"]) -> Bool[Tensor, "B 1 1 1"]:
    return flags[:, None, None, None]
