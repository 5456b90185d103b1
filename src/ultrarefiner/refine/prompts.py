"""Lesion to prompts: boxes, points and masks, each differentiable, each switchable.

One box read off a coarse mask inherits the mask's error, and the foundation model follows its box.
So the box prompt can be a small set of hypotheses: the lesion's box, and variants with their sides
moved in and out. The selection stage then weighs what the model makes of each.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ultrarefiner.errors import ConfigError
from ultrarefiner.ops.mask_logits import (
    adaptive_sigma,
    clipped_logits,
    direct_logits,
    distance_logits,
    gaussian_logits,
)
from ultrarefiner.ops.points import centroid, interior_points
from ultrarefiner.ops.ring import background_centroid, ring_points
from ultrarefiner.refine.localization import Lesions, clamp_boxes
from ultrarefiner.refine.roi import View
from ultrarefiner.shapes import PointLabels, Points, ProbMaps

FOREGROUNDS = ("none", "centroid", "interior")
BACKGROUNDS = ("none", "literal", "ring")
MASKS = ("none", "direct", "logit", "gaussian", "distance")

LESION, BACKGROUND, ABSENT = 1, 0, -1

# Moves of the sides x0, y0, x1, y1: the box itself, then the half fraction of a two-level design
# (an even number of sides moves to the right or down): shrink and grow, wide and tall, and the four
# diagonal shifts. Flipping or transposing the image only permutes the rows.
_SIDE_MOVES = (
    (0, 0, 0, 0),
    (1, 1, -1, -1),
    (-1, -1, 1, 1),
    (-1, 1, 1, -1),
    (1, -1, -1, 1),
    (1, 1, 1, 1),
    (-1, -1, -1, -1),
    (1, -1, 1, -1),
    (-1, 1, -1, 1),
)


@dataclass(frozen=True, kw_only=True)
class PromptConfig:
    """Which prompts are given.

    Attributes:
        boxes: whether boxes are given.
        jitter: how far a hypothesis moves a side, as a share of the box's side; 0 gives one box.
        foreground: points on the lesion: ``none``, ``centroid`` (of the sharpened map; may fall
            beside a crescent) or ``interior`` (moved well inside).
        num_points: points on the lesion, with ``interior``.
        background: points beside it: ``none``, ``literal`` (centroid of 1 - P in the box) or
            ``ring`` (one in each sector of the band around the lesion).
        num_sectors: sectors of the ring.
        ring_expand: how far the ring reaches beyond the box, as a share of its side.
        ring_power: exponent of 1 - P in the ring.
        mask: mask prompt: ``none``, ``direct`` (2P - 1), ``logit``, ``gaussian`` (blurred, then
            direct) or ``distance`` (signed distance; prediction only).
        mask_scale: magnitude of the mask prompt where it is certain [logits].
        mask_blur: blur of ``gaussian`` in lesion radii.
        distance_width: temperature of ``distance`` in lesion radii.
    """

    boxes: bool = True
    jitter: float = 0.1
    foreground: str = "none"
    num_points: int = 1
    background: str = "none"
    num_sectors: int = 8
    ring_expand: float = 0.3
    ring_power: float = 2.0
    mask: str = "none"
    mask_scale: float = 10.0
    mask_blur: float = 0.1
    distance_width: float = 0.1

    def __post_init__(self) -> None:
        _require(0 <= self.jitter < 0.5, "jitter", "in [0, 0.5)", self.jitter)
        for name, known in (("foreground", FOREGROUNDS), ("background", BACKGROUNDS)):
            value = getattr(self, name)
            _require(value in known, name, "one of " + ", ".join(known), value)
        _require(self.mask in MASKS, "mask", "one of " + ", ".join(MASKS), self.mask)
        for name in ("num_points", "num_sectors"):
            _require(getattr(self, name) >= 1, name, ">= 1", getattr(self, name))
        for name in ("ring_expand", "ring_power", "mask_scale", "mask_blur", "distance_width"):
            _require(getattr(self, name) > 0, name, "> 0", getattr(self, name))
        given = self.boxes or self.mask != "none" or self.foreground != "none"
        _require(given, "boxes", "a box, a point on the lesion or a mask to be given", "none")


def _require(ok: bool, name: str, expected: str, found: float | str) -> None:
    if not ok:
        raise ConfigError(f"prompt setting {name}", expected=expected, found=str(found))


@dataclass(frozen=True, kw_only=True)
class LesionPrompts:
    """What the foundation model is asked about B lesions.

    A map without a lesion is asked about with a box of the whole image, and nothing else.

    Attributes:
        boxes: ``B M 4`` xyxy box hypotheses [px of the coarse grid], inside the image.
        has_box: ``B`` whether the boxes are given; ``None``: all are.
        point_coords: ``B N 2`` xy [px of the coarse grid], or ``None``.
        point_labels: ``B N``, 1 lesion, 0 background, -1 not given.
        masks: ``B 1 h w`` logits on the model's mask grid, or ``None``.
        has_mask: ``B`` whether the mask is given; ``None`` without masks.
    """

    boxes: Float[Tensor, "B M 4"]
    has_box: Bool[Tensor, "B"] | None
    point_coords: Points | None
    point_labels: PointLabels | None
    masks: ProbMaps | None
    has_mask: Bool[Tensor, "B"] | None


class PromptStage(nn.Module):
    """The prompt stage.

    Args:
        config: which prompts are given.
    """

    _moves: Tensor

    def __init__(self, config: PromptConfig | None = None):
        super().__init__()
        self.config = config or PromptConfig()
        several = self.config.boxes and self.config.jitter
        levels = torch.tensor(_SIDE_MOVES if several else _SIDE_MOVES[:1], dtype=torch.float32)
        self.register_buffer("_moves", self.config.jitter * levels, persistent=False)

    def forward(self, lesions: Lesions, view: View) -> LesionPrompts:
        """Ask about every lesion."""
        coords, labels = self._points(lesions, view)
        masks = self._masks(lesions, view)
        return LesionPrompts(
            boxes=self._boxes(lesions, view),
            has_box=None if self.config.boxes else lesions.no_lesion,
            point_coords=coords,
            point_labels=labels,
            masks=masks,
            has_mask=None if masks is None else ~lesions.no_lesion,
        )

    def _boxes(self, lesions: Lesions, view: View) -> Float[Tensor, "B M 4"]:
        boxes, content = lesions.boxes[:, None], view.scene.content_boxes().to(lesions.boxes)
        sides = (boxes[..., 2:] - boxes[..., :2]).repeat(1, 1, 2)
        moved = boxes + self._moves.to(boxes) * sides
        moved = torch.where(lesions.no_lesion[:, None, None], boxes, moved)
        return clamp_boxes(moved, content[:, None])

    def _points(self, lesions: Lesions, view: View) -> tuple[Points | None, PointLabels | None]:
        config, coords, labels = self.config, [], []
        there = ~lesions.no_lesion[:, None]
        if config.foreground == "centroid":
            coords.append(centroid(lesions.weights)[:, None])
        elif config.foreground == "interior":
            coords.append(interior_points(lesions.probs, lesions.weights, config.num_points))
        labels += [torch.where(there, LESION, ABSENT).expand(part.shape[:2]) for part in coords]
        if config.background == "literal":
            coords.append(background_centroid(lesions.probs, lesions.boxes)[:, None])
            labels.append(torch.where(there, BACKGROUND, ABSENT))
        elif config.background == "ring":
            points, found = ring_points(
                lesions.probs,
                lesions.weights,
                lesions.boxes,
                view.scene.content(),
                num_sectors=config.num_sectors,
                power=config.ring_power,
                expand=config.ring_expand,
            )
            coords.append(points)
            labels.append(torch.where(found & there, BACKGROUND, ABSENT))
        if not coords:
            return None, None
        return torch.cat(coords, dim=1), torch.cat(labels, dim=1)

    def _masks(self, lesions: Lesions, view: View) -> ProbMaps | None:
        """Return the mask prompt on the model's mask grid."""
        config = self.config
        if config.mask == "none":
            return None
        probs, scale = view.to_mask_grid(lesions.probs), view.coarse_scale()
        area_px = lesions.probs.float().sum(dim=(-3, -2, -1)) * scale**2
        if config.mask == "gaussian":
            sigma_px = adaptive_sigma(area_px, share=config.mask_blur)
            return gaussian_logits(probs, sigma_px, config.mask_scale)
        if config.mask == "direct":
            return direct_logits(probs, config.mask_scale)
        if config.mask == "logit":
            return clipped_logits(probs, config.mask_scale)
        width_px = config.distance_width * (area_px / torch.pi).sqrt()
        return distance_logits(probs, width_px, config.mask_scale, straight_through=True)
