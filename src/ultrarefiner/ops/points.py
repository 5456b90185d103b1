"""Points on the lesion: its centroid, or points well inside it, whatever its shape. Differentiable.

A point that has to lie on a certain kind of pixel is moved there straight through: its value is the
place's, its gradient that of the expectation that it was before.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ultrarefiner.ops.moments import centre_and_spread
from ultrarefiner.ops.raster import Raster, look_up
from ultrarefiner.ops.resampling import apply_separable
from ultrarefiner.ops.snapping import pixel_centres, snap
from ultrarefiner.shapes import Boxes, Points, ProbMaps

_CLEAR = 0.5
"""Probability above which a pixel is lesion, if there is such a pixel."""

_NUM_CELLS = 48
"""Cells along each side of a lesion on which depth is measured."""

_BLUR = 0.2
"""Standard deviation of the Gaussian that measures depth, in lesion radii sqrt(area / pi)."""

_DEEPEST, _DEEP = 0.95, 0.9
"""Shares of the greatest depth from which a place is well inside: for the first, for the others."""

_REACH = 0.5
"""Standard deviation of the neighbourhood that a further point follows, in lesion radii."""


def centroid(weights: ProbMaps) -> Float[Tensor, "B 2"]:
    r"""Return the weighted mean place, :math:`\sum_p w_p\,p / \sum_p w_p`.

    It may fall beside a crescent and between two blobs; :func:`interior_points` do not.

    Args:
        weights: ``B 1 h w``, non-negative, best sharpened.

    Returns:
        xy [px of the grid]; a map without mass gives the centre of the grid, with zero gradient.
    """
    return centre_and_spread(weights)[0]


def interior_points(probs: ProbMaps, weights: ProbMaps, num_points: int = 1) -> Points:
    r"""Return points well inside each lesion, spread over it.

    The first is the weights' centroid if that is well inside, else the nearest place that is. Each
    further one is the place as far as possible from those before; its gradient is
    that of :func:`local_centroids`: it moves with the lesion around it. The first few are the same
    however many are asked for. On a lesion of few pixels points coincide.

    Lesion is where P > 0.5 or, if that is nowhere, where the weights are positive; every point is
    on it. Well inside is where the weights, blurred by a Gaussian of 0.2 lesion radii, reach 0.95
    of their maximum over the lesion, or 0.9 for further points. That is measured on 48 x 48 cells
    over the lesion's box, each standing for one of its pixels; a lesion so thin that all of them
    miss it gets its likeliest pixel.

    Args:
        probs: ``B 1 h w`` probabilities.
        weights: ``B 1 h w`` the same sharpened: non-negative, rising with P.
        num_points: N, at least 1.

    Returns:
        ``B N 2`` xy [px of the grid]; an empty map gives the centre of the grid.
    """
    probs, weights = _at_least_float32(probs), _at_least_float32(weights)
    points = centroid(weights)[:, None]
    with torch.no_grad():
        places, radius_px = _deep_places(probs, weights, points, num_points)
    if num_points > 1:
        further = local_centroids(weights, places[:, 1:], (_REACH * radius_px).clamp_min(1))
        points = torch.cat([points, further], dim=1)
    return points + (places - points).detach()


def local_centroids(weights: ProbMaps, seeds: Points, sigma_px: Float[Tensor, "B"]) -> Points:
    r"""Return the centroids of the weights as seen from each of some places.

    .. math:: \frac{\sum_p w_p\, g(p - s)\, p}{\sum_p w_p\, g(p - s)},
              \quad g(d) = \exp(-|d|^2 / 2 \sigma^2)

    Args:
        weights: ``B 1 h w``, non-negative.
        seeds: ``B N 2`` xy of the places s [px of the grid]; no gradient reaches them.
        sigma_px: ``B`` standard deviations of the Gaussians.

    Returns:
        ``B N 2`` xy [px of the grid]; where no mass is seen, the place itself.
    """
    weights, seeds = _at_least_float32(weights)[:, 0], seeds.detach()
    xs, ys = pixel_centres(seeds, weights)
    from_x, from_y = xs[:, None] - seeds[..., :1], ys[:, None] - seeds[..., 1:]
    near_x, near_y = _gaussian(from_x, sigma_px), _gaussian(from_y, sigma_px)
    with torch.autocast(weights.device.type, enabled=False):
        seen, seen_y = near_y @ weights, (near_y * from_y) @ weights
    mass = (seen * near_x).sum(dim=-1, keepdim=True)
    moments = [(seen * near_x * from_x).sum(dim=-1), (seen_y * near_x).sum(dim=-1)]
    empty = mass <= torch.finfo(mass.dtype).tiny
    moves = torch.stack(moments, dim=-1) / torch.where(empty, torch.ones_like(mass), mass)
    return seeds + moves.masked_fill(empty, 0)


def _deep_places(
    probs: ProbMaps, weights: ProbMaps, centre: Float[Tensor, "B 1 2"], num_points: int
) -> tuple[Points, Float[Tensor, "B"]]:
    """Return N places well inside each lesion, the first near its centre, and its radius [px]."""
    hw = probs.shape[-2], probs.shape[-1]
    clear, boxes, likeliest = _lesion_bounds(probs, weights)
    raster = Raster.over(boxes, num_cells=_NUM_CELLS)
    cols, rows = raster.pixels_near(centre[:, 0], hw=hw)
    likely = look_up(probs, cols=cols, rows=rows) > _CLEAR
    on_lesion = torch.where(clear, likely, look_up(weights, cols=cols, rows=rows) > 0)
    depth, radius_px = _depth(raster, weights)
    depth = depth.masked_fill(~on_lesion, 0)
    greatest = depth.amax(dim=(-2, -1), keepdim=True)
    deepest, deep = (on_lesion & (depth >= share * greatest) for share in (_DEEPEST, _DEEP))
    xs, ys = cols.to(centre) + 0.5, rows.to(centre) + 0.5
    first, found = snap(centre, deepest, centres=(xs, ys))
    first = torch.where(found[..., None], first, likeliest)
    return _spread_out(first, deep, (xs, ys), num_points), radius_px


def _lesion_bounds(
    probs: ProbMaps, weights: ProbMaps
) -> tuple[Bool[Tensor, "B 1 1"], Boxes, Float[Tensor, "B 1 2"]]:
    """Return whether any pixel is clearly lesion, the lesion's bounding box and likeliest pixel.

    An empty map has the whole grid for a box and its centre for a pixel.
    """
    row_peaks, col_peaks = probs[:, 0].amax(dim=-1), probs[:, 0].amax(dim=-2)
    peak, row = row_peaks.max(dim=-1, keepdim=True)
    clear = peak > _CLEAR
    bounds = []
    for peaks, along in ((col_peaks, -2), (row_peaks, -1)):
        occupied = torch.where(clear, peaks > _CLEAR, weights[:, 0].amax(dim=along) > 0)
        index = torch.arange(peaks.shape[-1], device=peaks.device).to(peaks)
        low = torch.where(occupied, index, torch.inf).amin(dim=-1)
        high = torch.where(occupied, index + 1, -torch.inf).amax(dim=-1)
        empty = low == torch.inf
        bounds.append((low.masked_fill(empty, 0), high.masked_fill(empty, peaks.shape[-1])))
    (x0, x1), (y0, y1) = bounds
    items = torch.arange(len(row), device=row.device)
    col = probs[items, 0, row[:, 0]].max(dim=-1, keepdim=True).indices
    likeliest = torch.stack([col, row], dim=-1).to(probs) + 0.5
    centre = likeliest.new_tensor([probs.shape[-1] / 2, probs.shape[-2] / 2])
    likeliest = torch.where(empty[:, None, None], centre, likeliest)
    return clear[..., None], torch.stack([x0, y0, x1, y1], dim=-1), likeliest


def _depth(raster: Raster, weights: ProbMaps) -> tuple[Float[Tensor, "B m n"], Float[Tensor, "B"]]:
    """Return how much lesion a Gaussian sees from each cell, up to a factor, and the radius [px].

    Beyond the cells there is no lesion, beyond the border of the image none that is known.
    """
    mass = raster.integrate(weights)
    cell_area = raster.cell_area()
    peak = (mass.amax(dim=(-2, -1)) / cell_area).clamp_min(torch.finfo(mass.dtype).tiny)
    radius_px = (mass.sum(dim=(-2, -1)) / peak / torch.pi).sqrt()
    sigma_px = (_BLUR * radius_px).clamp_min(0.1)
    kernels = [
        _gaussian(places[:, :, None] - places[:, None], sigma_px) for places in raster.centres()
    ]
    return apply_separable(mass[:, None], kernels[1], kernels[0])[:, 0], radius_px


def _spread_out(
    first: Float[Tensor, "B 1 2"],
    deep: Bool[Tensor, "B m n"],
    centres: tuple[Float[Tensor, "B n"], Float[Tensor, "B m"]],
    num_points: int,
) -> Points:
    """Return the first place and more, each as far as possible from those before.

    Reference:
        Gonzalez: Clustering to minimize the maximum intercluster distance, Theoretical Computer
        Science 38, 1985
    """
    xs, ys = centres
    places, away = [first], torch.where(deep, torch.inf, -1.0)
    for _ in range(num_points - 1):
        x, y = places[-1].unbind(-1)
        squared_px = (ys - y)[:, :, None] ** 2 + (xs - x)[:, None] ** 2
        away = torch.minimum(away, squared_px)
        farthest, place = away.flatten(1).max(dim=-1, keepdim=True)
        row, col = place // xs.shape[-1], place % xs.shape[-1]
        chosen = torch.stack([xs.gather(1, col), ys.gather(1, row)], dim=-1)
        places.append(torch.where(farthest[..., None] > 0, chosen, first))
    return torch.cat(places, dim=1)


def _gaussian(
    distance_px: Float[Tensor, "B n m"], sigma_px: Float[Tensor, "B"]
) -> Float[Tensor, "B n m"]:
    return (-0.5 * (distance_px / sigma_px[:, None, None]) ** 2).exp()


def _at_least_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
