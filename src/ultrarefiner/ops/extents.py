"""Where a soft mask begins and ends: the expected first and last row and column. Differentiable."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ultrarefiner.shapes import Boxes, ProbMaps

_EMPTY_PEAK = 1e-6
"""Peak up to which a map counts as empty, so that no gradient overflows."""


def extent_box(weights: ProbMaps) -> Boxes:
    r"""Return the box that a mask drawn from the map is expected to have.

    Let each pixel be lesion with probability w / max w, by itself. Column x then holds lesion with
    probability :math:`q(x) = 1 - \prod_y (1 - w(y, x) / \max w)`, and the left edge is the expected
    number of columns before the first that does:

    .. math:: x_0 = \sum_x \prod_{x' \le x} (1 - q(x'))

    The other edges are the same, from the other side and over rows. For a binary mask this is its
    bounding box. Only relative weights count, as for the moments, so that a faint lesion is as
    large as a clear one; noise all over the map is lesion, too: sharpen first. An empty map (peak
    up to 1e-6) gives one pixel in the centre of the grid, with zero gradient.

    Args:
        weights: ``B 1 h w`` in [0, 1], best sharpened.

    Returns:
        xyxy [px of the grid], with sides of at least one pixel, inside the grid; float32 or better.

    Example:
        >>> weights = torch.tensor([[[[0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 1.0, 0.0]]]])
        >>> extent_box(weights).round(decimals=3)
        tensor([[1., 0., 3., 2.]])
    """
    weights = weights[:, 0].to(torch.promote_types(weights.dtype, torch.float32))
    peak = weights.amax(dim=(-2, -1), keepdim=True)
    empty = peak <= _EMPTY_PEAK
    # The last doubt, beyond rounding, keeps the logarithm of the peak finite, its gradient exact.
    doubt = 4 * torch.finfo(weights.dtype).eps
    chances = weights * ((1 - doubt) / torch.where(empty, torch.ones_like(peak), peak))
    log_empty = torch.log1p(-chances)
    lines = log_empty.sum(dim=-2), log_empty.sum(dim=-1)
    low = torch.stack([_lines_before(along) for along in lines], dim=-1)
    high = torch.stack([along.shape[-1] - _lines_before(along.flip(-1)) for along in lines], dim=-1)
    found = torch.cat([low, high], dim=-1)
    centre = found.new_tensor([along.shape[-1] / 2 for along in lines])
    return torch.where(empty[..., 0], torch.cat([centre - 0.5, centre + 0.5]), found)


def _lines_before(log_empty: Float[Tensor, "B n"]) -> Float[Tensor, "B"]:
    """Return the expected number of lines before the first that is not empty.

    Args:
        log_empty: logarithm of the probability that each line holds no lesion.
    """
    return log_empty.cumsum(-1).exp().sum(-1)


def bound_box(
    statistics: Boxes, extent: Boxes, *, max_growth: float, max_shrinkage: float = 0.05
) -> Boxes:
    """Keep the box of the moments near the extent of the mask.

    Mean and standard deviation fit ellipses. The box of a ring, a square or a crescent
    comes out too large, that of a lump with a long tail may cut the tail; each side is clamped to
    a band along the same side of the extent.

    Args:
        statistics: ``B 4`` xyxy, see :func:`~ultrarefiner.ops.moments.statistics_box`.
        extent: ``B 4`` xyxy, see :func:`extent_box`.
        max_growth: how far a side may lie outside the extent, as a share of the extent's side.
        max_shrinkage: how far it may lie inside, likewise.

    Returns:
        xyxy; a side that is clamped passes its gradient to the extent alone.
    """
    sides = (extent[:, 2:] - extent[:, :2]).repeat(1, 2)
    outwards = sides * sides.new_tensor([-1.0, -1.0, 1.0, 1.0])
    outer, inner = extent + max_growth * outwards, extent - max_shrinkage * outwards
    low, high = torch.minimum(outer, inner), torch.maximum(outer, inner)
    return torch.minimum(torch.maximum(statistics, low), high)
