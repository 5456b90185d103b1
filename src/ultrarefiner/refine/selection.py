"""Several candidate masks to one, weighed by how good each one seems to be."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ultrarefiner.errors import ConfigError
from ultrarefiner.ops.evidence import boundary_contrast
from ultrarefiner.refine.candidates import Proposals
from ultrarefiner.refine.roi import Scene
from ultrarefiner.shapes import Candidates, ProbMaps, Scores


@dataclass(frozen=True, kw_only=True)
class SelectionConfig:
    """How candidates are weighed.

    Attributes:
        temperature: of the softmax over quality; towards 0 the best candidate alone counts.
        contrast_weight: weight of the image's contrast along a candidate's outline.
        stability_weight: weight of a candidate's stability.
        stability_offset: logit by which the mask's threshold is moved to measure stability.
    """

    temperature: float = 0.03
    contrast_weight: float = 0.3
    stability_weight: float = 1.0
    stability_offset: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ConfigError("selection temperature", expected="> 0", found=str(self.temperature))


@dataclass(frozen=True, kw_only=True)
class Selected:
    """The blend of the candidates.

    Attributes:
        probs: ``B 1 h w`` blended probability.
        weights: ``B K`` weights of the candidates, summing to 1.
        predicted_iou: ``B`` weighted mean of the model's own IoU predictions.
    """

    probs: ProbMaps
    weights: Scores
    predicted_iou: Float[Tensor, "B"]


class QualitySelection(nn.Module):
    r"""The selection stage: softmax of quality, candidates blended as probabilities.

    .. math:: w = \mathrm{softmax}\left(\frac{q + \lambda s + \kappa c}{\tau}\right),
              \quad p = \sum_k w_k\,\sigma(z_k)

    with the model's own predicted IoU q, the stability s and the image's contrast c along the
    outline. Stability is the area of :math:`z > d` over the area of :math:`z > -d`: a mask that
    hardly moves with the threshold sits on an edge. Measured on the boxes around one lesion, each
    tells good candidates from bad ones (correlation with Dice: q 0.4, s 0.4, c 0.5), although
    LiteMedSAM's IoU head was not trained after distillation.

    Args:
        config: how candidates are weighed.
    """

    def __init__(self, config: SelectionConfig | None = None):
        super().__init__()
        self.config = config or SelectionConfig()

    def forward(self, proposals: Proposals, view: Scene) -> Selected:
        """Blend the K candidates of each lesion to one probability map."""
        logits = proposals.logits.float()
        iou_predictions = proposals.iou_predictions.float()
        weights = torch.softmax(self._quality(logits, iou_predictions, view), dim=-1)
        probs = (weights[..., None, None] * logits.sigmoid()).sum(dim=1, keepdim=True)
        predicted_iou = (weights * iou_predictions).sum(dim=-1)
        return Selected(probs=probs, weights=weights, predicted_iou=predicted_iou)

    def _quality(self, logits: Candidates, iou_predictions: Scores, view: Scene) -> Scores:
        """Return quality over temperature; gradients flow through the predicted IoU alone."""
        config = self.config
        masks = (logits.detach() > 0).float()
        contrast = boundary_contrast(masks, *view.grid_images())
        stability = _stability(logits.detach(), config.stability_offset)
        quality = (
            iou_predictions
            + config.stability_weight * stability
            + config.contrast_weight * contrast
        )
        return quality / config.temperature


def _stability(logits: Candidates, offset: float) -> Scores:
    """Return the ratio of the areas above the raised and the lowered threshold; 0 if empty."""
    inner = (logits > offset).sum(dim=(-2, -1))
    outer = (logits > -offset).sum(dim=(-2, -1))
    return inner / outer.clamp_min(1)
