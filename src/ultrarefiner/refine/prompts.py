"""Coarse probability to prompts: several plausible boxes around each lesion.

One box read off a coarse mask inherits the mask's error, and the foundation model follows its box.
So the prompt is a small set of hypotheses: the box of the mask's moments, and variants with their
sides moved in and out. The selection stage then weighs what the model makes of each.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ultrarefiner.errors import ConfigError
from ultrarefiner.ops.moments import sharpen, statistics_box
from ultrarefiner.shapes import Boxes, ProbMaps

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
class BoxPromptConfig:
    """How boxes are read off a coarse map.

    Attributes:
        num_stds: half side of the box in standard deviations of the sharpened map; 2 is tight for
            a uniform ellipse, and sharpening shrinks the map a little.
        jitter: how far a hypothesis moves a side, as a share of the box's side; 0 gives one box.
        floor: smallest threshold of the sharpening, a probability.
        relative: threshold of the sharpening relative to the map's maximum.
        temperature: temperature of the sharpening.
        min_side_px: smallest side of a box [px of the coarse grid].
        min_mass_px: sharpened mass below which a map counts as empty [px of the coarse grid].
    """

    num_stds: float = 2.65
    jitter: float = 0.1
    floor: float = 0.05
    relative: float = 0.4
    temperature: float = 0.5
    min_side_px: float = 4.0
    min_mass_px: float = 0.5

    def __post_init__(self) -> None:
        _require(self.num_stds > 0, "num_stds", "> 0", self.num_stds)
        _require(0 <= self.jitter < 0.5, "jitter", "in [0, 0.5)", self.jitter)
        _require(0 <= self.floor < 1, "floor", "in [0, 1)", self.floor)
        _require(0 <= self.relative < 1, "relative", "in [0, 1)", self.relative)
        _require(self.temperature > 0, "temperature", "> 0", self.temperature)
        _require(self.min_side_px > 0, "min_side_px", "> 0", self.min_side_px)
        _require(self.min_mass_px > 0, "min_mass_px", "> 0", self.min_mass_px)


def _require(ok: bool, name: str, expected: str, found: float) -> None:
    if not ok:
        raise ConfigError(f"box prompt setting {name}", expected=expected, found=str(found))


@dataclass(frozen=True, kw_only=True)
class BoxHypotheses:
    """Box prompts of B items.

    Attributes:
        boxes: ``B M 4`` xyxy [px of the coarse grid], clamped to the content.
        no_lesion: ``B``, true where the coarse map is empty; its boxes are the whole content.
    """

    boxes: Float[Tensor, "B M 4"]
    no_lesion: Bool[Tensor, "B"]


class BoxPrompts(nn.Module):
    """The prompt stage: coarse map to box hypotheses, differentiable.

    Args:
        config: how boxes are read.
    """

    _moves: Tensor

    def __init__(self, config: BoxPromptConfig | None = None):
        super().__init__()
        self.config = config or BoxPromptConfig()
        levels = torch.tensor(
            _SIDE_MOVES if self.config.jitter else _SIDE_MOVES[:1], dtype=torch.float32
        )
        self.register_buffer("_moves", self.config.jitter * levels, persistent=False)

    def forward(self, coarse: ProbMaps, content_hw: Float[Tensor, "B 2"]) -> BoxHypotheses:
        """Read boxes off coarse maps.

        Args:
            coarse: ``B 1 h w`` probabilities, zero in the padding.
            content_hw: ``B 2`` rows and columns of the grid that hold image.
        """
        config = self.config
        weights = sharpen(
            coarse,
            floor=config.floor,
            relative=config.relative,
            temperature=config.temperature,
        )
        box, mass = statistics_box(weights, num_stds=config.num_stds)
        content = content_box(content_hw).to(box)
        no_lesion = mass < config.min_mass_px
        box = self._at_least_min_side(box)
        sides = (box[:, 2:] - box[:, :2]).repeat(1, 2)
        moved = box[:, None] + self._moves * sides[:, None]
        moved = torch.where(no_lesion[:, None, None], content[:, None], moved)
        return BoxHypotheses(boxes=clamp_boxes(moved, content[:, None]), no_lesion=no_lesion)

    def _at_least_min_side(self, box: Boxes) -> Boxes:
        centre = (box[:, :2] + box[:, 2:]) / 2
        half = ((box[:, 2:] - box[:, :2]) / 2).clamp_min(self.config.min_side_px / 2)
        return torch.cat([centre - half, centre + half], dim=-1)


def content_box(content_hw: Float[Tensor, "B 2"]) -> Boxes:
    """Return the box of the content, xyxy."""
    width_height = content_hw.flip(-1)
    return torch.cat([torch.zeros_like(width_height), width_height], dim=-1)


def clamp_boxes(
    boxes: Float[Tensor, "*B 4"], content: Float[Tensor, "*#B 4"]
) -> Float[Tensor, "*B 4"]:
    """Clamp box corners to the content box, which starts at 0."""
    return torch.minimum(boxes.clamp_min(0), content[..., 2:].repeat(*[1] * (content.ndim - 1), 2))
