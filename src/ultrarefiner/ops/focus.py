"""One lesion of several: which part of a map holds the heaviest one. No gradient, no waiting."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ultrarefiner.shapes import ProbMaps

_MAX_CELLS = 64
"""Side of the grid on which components are labelled, at most."""

_NUM_ROUNDS = 13
"""Rounds of labelling; serpentines that fill the grid need 12, mazes 11, lesions at most 8."""

_FADE_CELLS = 1.0
"""Distance from a component over which its pull falls by e."""

_UNCLAIMED = 0.01
"""Pull up to which a place counts as far from every component."""


def dominant_component(probs: ProbMaps, weights: ProbMaps) -> ProbMaps:
    r"""Return a factor that keeps the heaviest component of each map and fades out the others.

    Components are the 8-connected parts of ``weights > 0``; the heaviest has the greatest sum of
    ``probs``, its expected area. The factor is 1 on it and 0 on the others. Around them it is

    .. math:: m = \frac{a + \epsilon}{a + b + \epsilon}

    with the pulls a of the heaviest and b of all others, which fall exponentially with distance, so
    that the blurred edge of another lesion goes with it, while the noise of the far background, a
    map with a single component and an empty map stay exactly as they are.

    Components are told apart on a grid of at most 64 x 64 cells (4 px of a 224 px map): those with
    a gap of less than one cell count as one, those with two cells between them never do. On
    it the labelling is exact for any shape, by hooking and shortcutting in a fixed number of
    rounds; only a shape more winding than a spiral that fills the grid might be cut.

    Args:
        probs: ``B 1 h w`` probabilities.
        weights: ``B 1 h w`` non-negative, zero outside lesions: the sharpened map.

    Returns:
        ``B 1 h w`` in [0, 1] of the type of ``probs``, detached; multiply the map with it.

    Reference:
        Zhang, Azad, Buluc: FastSV: a distributed-memory connected component algorithm with fast
        convergence, SIAM PP 2020, https://arxiv.org/abs/1910.05971
    """
    height, width = probs.shape[-2:]
    cell_px = -(-max(height, width) // _MAX_CELLS)
    with torch.no_grad(), torch.autocast(probs.device.type, enabled=False):
        occupied = _pool(weights, cell_px) > 0
        labels = _label(occupied)
        mine = _heaviest(labels, _pool(probs, cell_px)) & occupied
        factor = _share(mine, occupied & ~mine)
        factor = F.interpolate(factor[:, None], scale_factor=float(cell_px), mode="nearest")
        return factor[..., :height, :width].to(probs.dtype)


def _pool(maps: ProbMaps, cell_px: int) -> Float[Tensor, "B n m"]:
    """Return the sum over each cell in units of a full cell's area; the grid's ends may be cut."""
    maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
    return F.avg_pool2d(maps, cell_px, ceil_mode=True, divisor_override=cell_px**2)[:, 0]


def _label(occupied: Bool[Tensor, "B n m"]) -> Int[Tensor, "B n m"]:
    """Label 8-connected components, each by its last cell's place (from 1), the background by 0.

    Every cell points to a cell of its own component, further and further on: each round it takes
    over what its neighbours point to, makes its parent do so, and skips its parent.
    """
    num_items, rows, cols = occupied.shape
    places = torch.arange(1, rows * cols + 1, device=occupied.device).view(1, rows, cols)
    parents = F.pad((places * occupied).flatten(1), (1, 0))  # the background points to place 0
    for _ in range(_NUM_ROUNDS):
        grandparents = parents.gather(1, parents)
        around = _largest_around(grandparents[:, 1:].view(num_items, rows, cols)) * occupied
        offered = F.pad(around.flatten(1), (1, 0))
        best = torch.maximum(grandparents, offered)
        parents = best.scatter_reduce(1, parents, offered, "amax")
    return parents[:, 1:].view(num_items, rows, cols)


def _largest_around(labels: Int[Tensor, "B n m"]) -> Int[Tensor, "B n m"]:
    """Return the maximum over 3 x 3 cells (pooling on the CPU takes ten times as long)."""
    padded = F.pad(labels, (1, 1, 1, 1))
    tall = torch.maximum(torch.maximum(padded[:, :-2], padded[:, 2:]), padded[:, 1:-1])
    return torch.maximum(torch.maximum(tall[..., :-2], tall[..., 2:]), tall[..., 1:-1])


def _heaviest(labels: Int[Tensor, "B n m"], mass: Float[Tensor, "B n m"]) -> Bool[Tensor, "B n m"]:
    """Return where the component of greatest mass is; one of them on a tie."""
    flat = labels.flatten(1)
    sums = mass.new_zeros(len(flat), flat.shape[1] + 1)
    sums = sums.scatter_add(1, flat, mass.flatten(1))
    sums[:, 0] = -1  # the background
    return labels == sums.argmax(dim=1)[:, None, None]


def _share(mine: Bool[Tensor, "B n m"], others: Bool[Tensor, "B n m"]) -> Float[Tensor, "B n m"]:
    """Return how much each cell belongs to the one rather than to the others."""
    pull, push = _pull(mine), _pull(others)
    share = (pull + _UNCLAIMED) / (pull + push + _UNCLAIMED)
    return share.masked_fill(mine, 1).masked_fill(others, 0)


def _pull(component: Bool[Tensor, "B n m"]) -> Float[Tensor, "B n m"]:
    """Return the sum over a component's cells of exp(-distance), city-block."""
    rows, cols = (
        torch.arange(length, device=component.device, dtype=torch.float32)
        for length in component.shape[1:]
    )
    row_pull, col_pull = (
        torch.exp(-(along[:, None] - along).abs() / _FADE_CELLS) for along in (rows, cols)
    )
    return row_pull @ component.float() @ col_pull
