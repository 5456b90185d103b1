"""Probability maps on which prompts go wrong: concave, split, tiny, cut, empty, full, noisy."""

from __future__ import annotations

import torch
from torch import Tensor

PEAK, BACKGROUND = 0.97, 0.001
"""Probabilities on and beside a lesion, where the name of a shape does not say otherwise."""

NOISY_FLOORS = (0.001, 0.005, 0.01, 0.1)

_EDGE = 0.06
"""Distance over which the odds at a lesion's edge fall by e, in its half axes."""

_BORDERS = {
    "left": (0.0, 0.5),
    "right": (1.0, 0.5),
    "top": (0.5, 0.0),
    "bottom": (0.5, 1.0),
    "top_left": (0.0, 0.0),
    "top_right": (1.0, 0.0),
    "bottom_left": (0.0, 1.0),
    "bottom_right": (1.0, 1.0),
}


def hard_shapes(side: int) -> dict[str, Tensor]:
    """Return named maps, each ``1 1 side side`` in [0, 1], float32, the same each time.

    Lengths follow the side: a ``crescent_25`` is cut from a disc of radius 25 px on a grid of 224.
    The lesion is where a map exceeds 0.5; ``empty`` has none, ``full`` nothing else.

    Args:
        side: of the grid [px], 32 or more.
    """
    unit = side / 224
    disc = soft_disc(side, (0.45, 0.55), 30 * unit)
    shapes = {
        "disc": disc,
        "ellipse": soft_ellipse(side, (0.5, 0.45), (60 * unit, 25 * unit)),
        "crescent_25": crescent(side, 25 * unit),
        "crescent_50": crescent(side, 50 * unit),
        "two_blobs": torch.maximum(
            soft_disc(side, (0.3, 0.35), 25 * unit), soft_disc(side, (0.7, 0.6), 20 * unit)
        ),
        "ring": soft_disc(side, (0.5, 0.5), 50 * unit)
        * (1 - soft_disc(side, (0.5, 0.5), 36 * unit)),
        "one_pixel": _one_pixel(side, row=side // 3, col=side // 2),
    }
    for name, centre in _BORDERS.items():
        shapes[name] = soft_disc(side, centre, 25 * unit)
    maps = {name: over(shape, torch.tensor(BACKGROUND)) for name, shape in shapes.items()}
    maps["empty"], maps["full"] = torch.zeros(1, 1, side, side), torch.ones(1, 1, side, side)
    for floor in NOISY_FLOORS:
        noise = torch.rand(side, side, generator=torch.Generator().manual_seed(1))
        maps[f"disc_floor_{floor}"] = over(disc, 2 * floor * noise)
    return maps


def soft_ellipse(side: int, centre: tuple[float, float], half_px: tuple[float, float]) -> Tensor:
    """Return ``side side``, 1 inside, 0 outside, 0.5 on the edge.

    Args:
        side: of the grid [px].
        centre: xy in shares of the side.
        half_px: half axes along x and y.
    """
    grid = torch.arange(side) + 0.5
    x = (grid[None] - centre[0] * side) / half_px[0]
    y = (grid[:, None] - centre[1] * side) / half_px[1]
    return torch.sigmoid((1 - torch.hypot(x, y)) / _EDGE)


def soft_disc(side: int, centre: tuple[float, float], radius_px: float) -> Tensor:
    """Return an ellipse that is round."""
    return soft_ellipse(side, centre, (radius_px, radius_px))


def crescent(side: int, radius_px: float) -> Tensor:
    """Return a disc in the centre out of which another is cut; the centroid falls beside it."""
    bite = (0.5 + 0.2 * radius_px / side, 0.5)
    return soft_disc(side, (0.5, 0.5), radius_px) * (1 - soft_disc(side, bite, 0.85 * radius_px))


def over(shape: Tensor, background: Tensor) -> Tensor:
    """Return the map ``1 1 side side`` of a shape, ``side side`` in [0, 1], over a background."""
    return torch.maximum(PEAK * shape, background)[None, None]


def _one_pixel(side: int, *, row: int, col: int) -> Tensor:
    shape = torch.zeros(side, side)
    shape[row, col] = 1
    return shape
