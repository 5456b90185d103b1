"""The last stage: deliver a refinement only where a calibrated rule trusts it. Prediction only."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ultrarefiner.ops.areas import area_px
from ultrarefiner.ops.evidence import boundary_contrast
from ultrarefiner.ops.uncertainty import uncertainty
from ultrarefiner.refine.acceptance import AcceptanceRule, Signs
from ultrarefiner.refine.evidence import component_areas
from ultrarefiner.refine.refinement import Refinement
from ultrarefiner.refine.stabilization import ACCEPTED
from ultrarefiner.shapes import Candidates, ProbMaps, Scores

REFUSED = "calibrated rule"
"""What the reason of a lesion that the rule refuses begins with."""

_MOST = 4.0
"""What the signs without a natural end end at."""
_MIN_COMPONENT_SHARE = 0.01


class NoAcceptance(nn.Module):
    """Deliver every refinement and measure nothing: the stage in training."""

    def forward(self, refinement: Refinement) -> Refinement:
        """Return the refinement as it is."""
        return refinement


class Acceptance(nn.Module):
    """Measure what speaks against each lesion; with a rule, put back what it does not trust.

    The rule judges whole images: if it refuses one, all of its lesions stay as they were given.

    Args:
        rule: decides; without one everything is delivered, and only measured.
    """

    def __init__(self, rule: AcceptanceRule | None = None):
        super().__init__()
        self.rule = rule

    def forward(self, refinement: Refinement) -> Refinement:
        """Return the refinement with its signs, and with coarse maps where the rule refuses.

        Lesions that the stabiliser has refused have no signs: there is nothing left to refuse.
        """
        reasons = refinement.final.reasons
        measured = measure_signs(refinement)
        signs = tuple(
            item if reason == ACCEPTED else None
            for item, reason in zip(measured, reasons, strict=True)
        )
        return self._decide(replace(refinement, signs=signs))

    def _decide(self, refinement: Refinement) -> Refinement:
        if self.rule is None:
            return refinement
        images = refinement.scene.image_index.tolist()
        lesions: dict[int, list[Signs]] = {image: [] for image in images}
        for image, signs in zip(images, refinement.signs, strict=True):
            if signs is not None:
                lesions[image].append(signs)
        scores = {image: self.rule.score(group) for image, group in lesions.items()}
        refused = {
            image: f"{REFUSED}: {self.rule.complaint(lesions[image])}"
            for image, score in scores.items()
            if not self.rule.accepts(score)
        }
        final = refinement.final
        reasons = tuple(
            refused.get(image, reason) if reason == ACCEPTED else reason
            for image, reason in zip(images, final.reasons, strict=True)
        )
        accepted = torch.tensor([reason == ACCEPTED for reason in reasons])
        keep = accepted.to(final.probs.device)[:, None, None, None]
        probs = torch.where(keep, final.probs, refinement.coarse)
        return replace(
            refinement,
            final=replace(final, probs=probs, reasons=reasons),
            scores=tuple(scores[image] for image in images),
        )


def measure_signs(refinement: Refinement) -> list[Signs]:
    """Return what speaks against each of the B lesions, refused ones included."""
    coarse, final = refinement.coarse.float(), refinement.probs.float()
    before, after, raw = (values > 0.5 for values in (coarse, final, refinement.refined))
    area_before, area_after = (area_px(mask)[:, 0].clamp_min(1) for mask in (before, after))
    predicted_iou = refinement.selected.predicted_iou.float().nan_to_num(nan=0.0)
    numbers = {
        "moved": 1 - _iou(after, before)[:, 0],
        "resized": (area_after / area_before).log2().abs().clamp_max(_MOST),
        "doubted": (1 - predicted_iou).clamp(0, 1),
        "pushed": _pushed(coarse, final),
        "scattered": _scattered(refinement.proposals.logits, refinement.selected.probs),
        "undecided": _undecided(coarse, before),
        "strayed": 1 - _iou(raw, before)[:, 0],
        "unsupported": _unsupported(refinement),
    }
    rows = torch.stack([values.double() for values in numbers.values()], dim=-1).tolist()
    masks = after[:, 0].cpu().numpy()
    return [
        Signs(fragmented=_fragmented(mask), **dict(zip(numbers, row, strict=True)))
        for row, mask in zip(rows, masks, strict=True)
    ]


def _iou(masks: Bool[Tensor, "B K h w"], reference: Bool[Tensor, "B 1 h w"]) -> Scores:
    """Return the IoU of each mask with the reference; 1 if both are empty."""
    shared_px = area_px(masks & reference)
    union_px = area_px(masks) + area_px(reference) - shared_px
    return torch.where(union_px == 0, 1.0, shared_px / union_px.clamp_min(1))


def _pushed(coarse: ProbMaps, final: ProbMaps) -> Float[Tensor, "B"]:
    """Return the probability that was moved relative to the coarse one, which counts as 1 px."""
    mass = coarse.sum(dim=(-3, -2, -1)).clamp_min(1)
    moved = (final - coarse).abs().sum(dim=(-3, -2, -1)) / mass
    return moved.nan_to_num(nan=_MOST).clamp_max(_MOST)


def _scattered(logits: Candidates, selected: ProbMaps) -> Float[Tensor, "B"]:
    """Return how much the model's answers differ from the one that was made of them."""
    if logits.shape[1] == 1:
        return torch.zeros(len(logits), device=logits.device)
    return 1 - _iou(logits > 0, selected > 0.5).mean(dim=-1)


def _undecided(coarse: ProbMaps, mask: Bool[Tensor, "B 1 h w"]) -> Float[Tensor, "B"]:
    """Return the mean uncertainty on the mask; 1 where that is empty."""
    total = (uncertainty(coarse) * mask).sum(dim=(-3, -2, -1))
    area = area_px(mask)[:, 0]
    return torch.where(area == 0, 1.0, total / area.clamp_min(1))


def _unsupported(refinement: Refinement) -> Float[Tensor, "B"]:
    """Return 1 - gain in contrast of the model's own outline over the coarse one."""
    masks = torch.cat([refinement.coarse > 0.5, refinement.refined > 0.5], dim=1).float()
    contrasts = boundary_contrast(masks, *refinement.scene.grid_images())
    before, after = contrasts.unbind(dim=1)
    return (1 - (after - before)).clamp(0, 2)


def _fragmented(mask: Bool[np.ndarray, "h w"]) -> float:
    """Return the binary logarithm of the number of components that count; 0 for none."""
    if not mask.any():
        return 0.0
    areas = component_areas(np.ascontiguousarray(mask))
    num_counted = int(np.count_nonzero(areas >= _MIN_COMPONENT_SHARE * areas.sum()))
    return min(math.log2(num_counted), _MOST) if num_counted else _MOST
