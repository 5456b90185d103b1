"""Points beside the lesion: one in each direction, on background. Differentiable."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ultrarefiner.ops.points import centroid
from ultrarefiner.ops.raster import Raster, coverage, look_up
from ultrarefiner.ops.resampling import apply_separable
from ultrarefiner.ops.snapping import snap
from ultrarefiner.shapes import Boxes, Points, ProbMaps

_BACKGROUND = 0.25
"""Share of the map's maximum below which a pixel is background: half of that at a lesion's edge."""

_NUM_CELLS = 40
"""Cells along each side of the expanded box."""

_MIN_MARGIN_PX = 2.0
"""Least width of the band beyond the box, so that one pixel has a surrounding, too."""


def background_centroid(probs: ProbMaps, boxes: Boxes) -> Float[Tensor, "B 2"]:
    r"""Return the centroid of the background in each box, :math:`1 - P` being its density.

    .. math:: \frac{\int_\text{box} (1 - P)\,p}{\int_\text{box} (1 - P)}

    Pixels are squares of even density, cut by the box where they are. It is the literal formula,
    and degenerate: for a symmetric lesion in its own box it is the lesion's centre.

    Args:
        probs: ``B 1 h w`` probabilities.
        boxes: ``B 4`` xyxy [px of the grid]; gradients reach them.

    Returns:
        xy [px of the grid]; where a box holds no background, its centre.
    """
    dtype = torch.promote_types(probs.dtype, torch.float32)
    background, boxes = 1 - probs.to(dtype), boxes.to(dtype)
    cols, moment_x = coverage(boxes[:, 0:1], boxes[:, 2:3], length=probs.shape[-1])
    rows, moment_y = coverage(boxes[:, 1:2], boxes[:, 3:4], length=probs.shape[-2])
    rows, cols = torch.cat([rows, moment_y], dim=1), torch.cat([cols, moment_x], dim=1)
    sums = apply_separable(background, rows, cols)[:, 0]
    mass, moments = sums[:, 0, :1], torch.stack([sums[:, 0, 1], sums[:, 1, 0]], dim=-1)
    none = mass <= torch.finfo(dtype).tiny
    means = moments / torch.where(none, torch.ones_like(mass), mass)
    return torch.where(none, (boxes[:, :2] + boxes[:, 2:]) / 2, means)


def ring_points(
    probs: ProbMaps,
    weights: ProbMaps,
    boxes: Boxes,
    valid: Bool[Tensor, "B 1 h w"],
    *,
    num_sectors: int = 8,
    power: float = 2.0,
    expand: float = 0.3,
) -> tuple[Points, Bool[Tensor, "B N"]]:
    r"""Return a point on the background in each direction from the lesion.

    The band is the background in the expanded box, cut into N sectors around the weights' centroid,
    the first around the x axis, then clockwise. In sector s the point is

    .. math:: \frac{\sum_{p \in s} (1 - P_p)^m\, p}{\sum_{p \in s} (1 - P_p)^m}
              \quad \text{over } P_p < \tfrac14 \max P,

    moved straight through to a pixel of that set and sector near it. So none lies on
    the lesion, however it is bent. One expectation over the whole band would be the lesion's centre
    again. Sums and pixels are taken on 40 x 40 cells over the expanded box.

    Args:
        probs: ``B 1 h w`` probabilities.
        weights: ``B 1 h w`` the same sharpened.
        boxes: ``B 4`` xyxy around the lesions [px of the grid]; gradients reach them.
        valid: ``B 1 h w`` where the grid holds image.
        num_sectors: N, at least 1.
        power: m > 0.
        expand: how far the band reaches beyond each side of the box, in that side's length;
            two pixels at least.

    Returns:
        ``B N 2`` xy [px of the grid], and which of them there are: a sector outside the image or
        full of lesion has none, as have a full and an empty map. What stands in for
        a missing point is finite.
    """
    dtype = torch.promote_types(probs.dtype, torch.float32)
    probs, boxes, hw = probs.to(dtype), boxes.to(dtype), (probs.shape[-2], probs.shape[-1])
    centre = centroid(weights.detach()).to(dtype)
    # What is no background counts as certain lesion: exactly no density.
    peak = probs.detach().amax(dim=(-2, -1), keepdim=True)
    density = (1 - torch.where(valid & (probs < _BACKGROUND * peak), probs, 1)) ** power
    raster = Raster.over(_expand(boxes, share=expand, hw=hw), num_cells=_NUM_CELLS)
    cols, rows = raster.pixels_near(centre, hw=hw)
    xs, ys = cols.to(dtype) + 0.5, rows.to(dtype) + 0.5
    sectors = _sectors(xs - centre[:, :1], ys - centre[:, 1:], num_sectors)
    free = look_up(density, cols=cols, rows=rows) > 0
    points, found = _sector_means(raster, density, sectors, centre)
    points, on_pixel = snap(points, sectors & free[:, None], centres=(xs, ys))
    return points, found & on_pixel


def _expand(boxes: Boxes, *, share: float, hw: tuple[int, int]) -> Boxes:
    """Grow boxes on each side, within the grid."""
    margin = (share * (boxes[:, 2:] - boxes[:, :2])).clamp_min(_MIN_MARGIN_PX)
    ends = boxes.new_tensor([hw[1], hw[0]])
    low = torch.minimum((boxes[:, :2] - margin).clamp_min(0), ends)
    high = torch.minimum((boxes[:, 2:] + margin).clamp_min(0), ends)
    return torch.cat([low, high], dim=-1)


def _sectors(
    from_x: Float[Tensor, "B n"], from_y: Float[Tensor, "B m"], num_sectors: int
) -> Bool[Tensor, "B N m n"]:
    """Return which cells are in each sector around the origin."""
    turns = torch.atan2(from_y[:, :, None], from_x[:, None]) / (2 * torch.pi)
    index = (turns * num_sectors).round().long().remainder(num_sectors)
    return index[:, None] == torch.arange(num_sectors, device=index.device)[:, None, None]


def _sector_means(
    raster: Raster,
    density: ProbMaps,
    sectors: Bool[Tensor, "B N m n"],
    otherwise: Float[Tensor, "B 2"],
) -> tuple[Points, Bool[Tensor, "B N"]]:
    """Return the mean place of each sector under a density, and where there is one."""
    density = raster.integrate(density)
    xs, ys = raster.centres()
    x, y = xs[:, None].expand_as(density), ys[:, :, None].expand_as(density)
    terms = torch.stack([density, density * x, density * y], dim=-1).flatten(1, 2)
    with torch.autocast(density.device.type, enabled=False):
        sums = sectors.flatten(2).to(density.dtype) @ terms
    mass, moments = sums[..., :1], sums[..., 1:]
    none = mass <= torch.finfo(mass.dtype).tiny
    means = moments / torch.where(none, torch.ones_like(mass), mass)
    return torch.where(none, otherwise[:, None], means), ~none[..., 0]
