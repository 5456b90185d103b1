"""Where the lesion of each coarse map is: the part of the map that counts, its box, or nothing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ultrarefiner.errors import ConfigError
from ultrarefiner.ops.extents import bound_box, extent_box
from ultrarefiner.ops.focus import dominant_component
from ultrarefiner.ops.moments import sharpen, statistics_box
from ultrarefiner.refine.scene import Scene
from ultrarefiner.shapes import Boxes, ProbMaps

BOX_KINDS = ("extent", "statistics", "bounded")


@dataclass(frozen=True, kw_only=True)
class LocalizerConfig:
    """How a lesion's place is read off a coarse map.

    Attributes:
        box: ``extent`` (soft first and last row and column), ``statistics`` (mean and standard
            deviations), or ``bounded`` (statistics, kept near the extent).
        margin: how far the box is grown on each side, as a share of its side.
        num_stds: half side of the statistics box in standard deviations of the sharpened map; 2 is
            tight for a uniform ellipse, and sharpening shrinks the map a little.
        max_growth: how far the bounded box may reach beyond the extent, as a share of its side.
        floor: smallest threshold of the sharpening, a probability.
        relative: threshold of the sharpening relative to the map's maximum.
        temperature: temperature of the sharpening.
        min_side_px: smallest side of a box [px of the coarse grid].
        min_mass_px: sharpened mass below which a map counts as empty [px of the coarse grid].
        dominant_only: read the heaviest of several lesions alone; for maps that were not split.
    """

    box: str = "extent"
    margin: float = 0.1
    num_stds: float = 2.65
    max_growth: float = 0.2
    floor: float = 0.05
    relative: float = 0.4
    temperature: float = 0.5
    min_side_px: float = 4.0
    min_mass_px: float = 0.5
    dominant_only: bool = False

    def __post_init__(self) -> None:
        _require(self.box in BOX_KINDS, "box", "one of " + ", ".join(BOX_KINDS), self.box)
        _require(self.num_stds > 0, "num_stds", "> 0", self.num_stds)
        _require(self.max_growth >= 0, "max_growth", ">= 0", self.max_growth)
        _require(self.margin >= 0, "margin", ">= 0", self.margin)
        _require(0 <= self.floor < 1, "floor", "in [0, 1)", self.floor)
        _require(0 <= self.relative < 1, "relative", "in [0, 1)", self.relative)
        _require(self.temperature > 0, "temperature", "> 0", self.temperature)
        _require(self.min_side_px > 0, "min_side_px", "> 0", self.min_side_px)
        _require(self.min_mass_px > 0, "min_mass_px", "> 0", self.min_mass_px)


def _require(ok: bool, name: str, expected: str, found: float | str) -> None:
    if not ok:
        raise ConfigError(f"localizer setting {name}", expected=expected, found=str(found))


@dataclass(frozen=True, kw_only=True)
class Lesions:
    """The places of B lesions.

    Attributes:
        probs: ``B 1 h w`` the coarse map, other lesions faded out.
        weights: ``B 1 h w`` that map sharpened.
        boxes: ``B 4`` xyxy [px of the coarse grid], inside the image; all of it if there is no
            lesion.
        no_lesion: ``B`` whether the map is empty.
    """

    probs: ProbMaps
    weights: ProbMaps
    boxes: Boxes
    no_lesion: Bool[Tensor, "B"]


class Localizer(nn.Module):
    """The first stage: coarse map to the lesion's place, differentiable.

    Args:
        config: how the place is read.
    """

    def __init__(self, config: LocalizerConfig | None = None):
        super().__init__()
        self.config = config or LocalizerConfig()

    def forward(self, scene: Scene) -> Lesions:
        """Localise the lesion of every coarse map of the scene."""
        config, content = self.config, scene.content_boxes()
        probs, weights = scene.coarse, self._sharpen(scene.coarse)
        if config.dominant_only:
            probs = probs * dominant_component(probs, weights)
            weights = self._sharpen(probs)
        boxes, mass = self._read_box(weights)
        no_lesion = mass < config.min_mass_px
        boxes = grow_boxes(boxes, share=config.margin, min_side_px=config.min_side_px)
        boxes = torch.where(no_lesion[:, None], content.to(boxes), clamp_boxes(boxes, content))
        return Lesions(probs=probs, weights=weights, boxes=boxes, no_lesion=no_lesion)

    def _sharpen(self, probs: ProbMaps) -> ProbMaps:
        config = self.config
        return sharpen(
            probs, floor=config.floor, relative=config.relative, temperature=config.temperature
        )

    def _read_box(self, weights: ProbMaps) -> tuple[Boxes, Float[Tensor, "B"]]:
        """Return the box and the mass, zero for an empty map."""
        config = self.config
        statistics, mass = statistics_box(weights, num_stds=config.num_stds)
        if config.box == "statistics":
            return statistics, mass
        extent = extent_box(weights)
        if config.box == "extent":
            return extent, mass
        return bound_box(statistics, extent, max_growth=config.max_growth), mass


def grow_boxes(
    boxes: Float[Tensor, "*B 4"], *, share: float = 0.0, min_side_px: float = 0.0
) -> Float[Tensor, "*B 4"]:
    """Grow boxes about their centres by a share of each side on each side, to a least side."""
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2
    half = ((boxes[..., 2:] - boxes[..., :2]) * (0.5 + share)).clamp_min(min_side_px / 2)
    return torch.cat([centre - half, centre + half], dim=-1)


def clamp_boxes(
    boxes: Float[Tensor, "*B 4"], content: Float[Tensor, "*#B 4"]
) -> Float[Tensor, "*B 4"]:
    """Clamp box corners to the content box, which starts at 0."""
    return torch.minimum(boxes.clamp_min(0), content[..., 2:].repeat(*[1] * (content.ndim - 1), 2))
