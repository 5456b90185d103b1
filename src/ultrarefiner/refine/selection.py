"""Several candidate masks to one.

A candidate is one answer of the foundation model: to one of several boxes around a lesion, or one
of the three masks that it gives to an ambiguous prompt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ultrarefiner.errors import ConfigError
from ultrarefiner.ops.areas import area_px
from ultrarefiner.ops.evidence import boundary_contrast
from ultrarefiner.refine.candidates import Proposals
from ultrarefiner.refine.sight import Sight
from ultrarefiner.registry import Registry
from ultrarefiner.shapes import Candidates, ProbMaps, Scores


@dataclass(frozen=True, kw_only=True)
class SelectionConfig:
    """How candidates are weighed.

    Attributes:
        kind: name in the registry.
        temperature: of the softmax (``quality``, ``soft``); towards 0 the best candidate alone
            counts. By default the kind's own: 0.03 over quality, 0.1 over predicted IoU.
        contrast_weight: weight of the image's contrast along a candidate's outline (``quality``).
        stability_weight: weight of a candidate's stability (``quality``).
        stability_offset: logit by which the mask's threshold is moved to measure stability
            (``quality``).
    """

    kind: str = "quality"
    temperature: float | None = None
    contrast_weight: float = 0.3
    stability_weight: float = 0.0
    stability_offset: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature is not None and self.temperature <= 0:
            raise ConfigError("selection temperature", expected="> 0", found=str(self.temperature))


@dataclass(frozen=True, kw_only=True)
class Selected:
    """The blend of the candidates.

    Attributes:
        probs: ``B 1 h w`` blended probability.
        logits: ``B 1 h w`` the same as logits, finite: what a loss on the raw answer takes.
        weights: ``B K`` weights of the candidates, summing to 1.
        predicted_iou: ``B`` weighted mean of the model's own IoU predictions.
    """

    probs: ProbMaps
    logits: ProbMaps
    weights: Scores
    predicted_iou: Float[Tensor, "B"]


class Selection(Protocol):
    """The selection stage.

    Attributes:
        multimask_output: whether it wants three candidates for each prompt instead of one.
    """

    multimask_output: bool

    def __call__(self, proposals: Proposals, view: Sight) -> Selected:
        """Bring the K candidates of each lesion together to one map."""
        ...


SELECTIONS = Registry[Callable[[SelectionConfig], Selection]]("selection")


def build_selection(config: SelectionConfig) -> Selection:
    """Return the selection that a config names."""
    return SELECTIONS[config.kind](config)


@SELECTIONS.register("quality")
class QualitySelection(nn.Module):
    r"""Softmax of quality, candidates blended as probabilities.

    .. math:: w = \mathrm{softmax}\left(\frac{q + \lambda s + \kappa c}{\tau}\right),
              \quad p = \sum_k w_k\,\sigma(z_k)

    with the model's own predicted IoU q, the stability s and the image's contrast c along the
    outline. Stability is the area of :math:`z > d` over the area of :math:`z > -d`: a mask that
    hardly moves with the threshold sits on an edge. Measured on the boxes around one lesion, each
    tells good candidates from bad ones (correlation with Dice: q 0.4, s 0.4, c 0.5), although
    LiteMedSAM's IoU head was not trained after distillation. Beside the other two, stability adds
    nothing (measured), so that :math:`\lambda = 0` by default.

    Args:
        config: how candidates are weighed.
    """

    multimask_output = False

    def __init__(self, config: SelectionConfig | None = None):
        super().__init__()
        self.config = config or SelectionConfig()
        self.temperature = self.config.temperature or 0.03

    def forward(self, proposals: Proposals, view: Sight) -> Selected:
        """Blend the K candidates of each lesion to one probability map."""
        logits, iou_predictions = _exact(proposals)
        quality = self._quality(logits.detach(), iou_predictions, view)
        weights = torch.softmax(quality / self.temperature, dim=-1)
        probs = (weights[..., None, None] * logits.sigmoid()).sum(dim=1, keepdim=True)
        rest = (weights[..., None, None] * (-logits).sigmoid()).sum(dim=1, keepdim=True)
        tiny = torch.finfo(probs.dtype).tiny
        return Selected(
            probs=probs,
            logits=probs.clamp_min(tiny).log() - rest.clamp_min(tiny).log(),
            weights=weights,
            predicted_iou=(weights * iou_predictions).sum(dim=-1),
        )

    def _quality(self, logits: Candidates, iou_predictions: Scores, view: Sight) -> Scores:
        """Return the quality; gradients flow through the predicted IoU alone."""
        config = self.config
        contrast = boundary_contrast((logits > 0).float(), *view.grid_images())
        quality = iou_predictions + config.contrast_weight * contrast
        if config.stability_weight == 0:
            return quality
        return quality + config.stability_weight * _stability(logits, config.stability_offset)


@SELECTIONS.register("soft")
class SoftSelection(nn.Module):
    r"""Softmax of the predicted IoU, candidates blended as logits.

    .. math:: w = \mathrm{softmax}(q / \tau), \quad z = \sum_k w_k z_k

    Blending is linear, so that it may come before or after the (linear) upsampling; before is
    cheaper.

    Args:
        config: the temperature.
    """

    multimask_output = True

    def __init__(self, config: SelectionConfig):
        super().__init__()
        self.temperature = config.temperature or 0.1

    def forward(self, proposals: Proposals, view: Sight) -> Selected:
        """Blend the K candidates of each lesion to one logit map."""
        logits, iou_predictions = _exact(proposals)
        weights = torch.softmax(iou_predictions / self.temperature, dim=-1)
        blend = (weights[..., None, None] * logits).sum(dim=1, keepdim=True)
        return Selected(
            probs=blend.sigmoid(),
            logits=blend,
            weights=weights,
            predicted_iou=(weights * iou_predictions).sum(dim=-1),
        )


@SELECTIONS.register("hard")
class HardSelection(nn.Module):
    """The candidate of greatest predicted IoU alone, the first one on a tie.

    The choice has no gradient: a loss on the mask reaches the chosen logits and nothing else.

    Args:
        config: not used.
    """

    multimask_output = True

    def __init__(self, config: SelectionConfig):
        super().__init__()

    def forward(self, proposals: Proposals, view: Sight) -> Selected:
        """Choose one of the K candidates of each lesion."""
        return _choose(proposals, proposals.iou_predictions.argmax(dim=-1, keepdim=True))


@SELECTIONS.register("single")
class SingleSelection(nn.Module):
    """The first candidate alone: SAM's own single-mask token.

    For models whose three-mask and IoU heads were not trained (MedSAM, LiteMedSAM).

    Args:
        config: not used.
    """

    multimask_output = False

    def __init__(self, config: SelectionConfig):
        super().__init__()

    def forward(self, proposals: Proposals, view: Sight) -> Selected:
        """Take the first candidate of each lesion."""
        scores = proposals.iou_predictions
        return _choose(proposals, torch.zeros_like(scores[:, :1], dtype=torch.long))


def _exact(proposals: Proposals) -> tuple[Candidates, Scores]:
    """Return logits and predicted IoU in float32 at least."""
    logits, scores = proposals.logits, proposals.iou_predictions
    return (
        logits.to(torch.promote_types(logits.dtype, torch.float32)),
        scores.to(torch.promote_types(scores.dtype, torch.float32)),
    )


def _choose(proposals: Proposals, choice: Int[Tensor, "B 1"]) -> Selected:
    """Return one candidate of each lesion, as it is."""
    logits, iou_predictions = _exact(proposals)
    place = choice[..., None, None].expand(-1, -1, *logits.shape[-2:])
    chosen = logits.gather(1, place)
    return Selected(
        probs=chosen.sigmoid(),
        logits=chosen,
        weights=torch.zeros_like(iou_predictions).scatter(1, choice, 1),
        predicted_iou=iou_predictions.gather(1, choice)[:, 0],
    )


def _stability(logits: Candidates, offset: float) -> Scores:
    """Return the ratio of the areas above the raised and the lowered threshold; 0 if empty."""
    inner, outer = area_px(logits > offset), area_px(logits > -offset)
    return inner / outer.clamp_min(1)
