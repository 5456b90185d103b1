r"""Resampling between frames as two small matrices per item: one over rows, one over columns.

All frames are aligned with the axes of their native image, so that a change of grid is separable,
``out = rows @ in @ cols.T``, differentiable and antialiased. A target pixel averages the source
over its own footprint, which is never narrower than a source pixel:

.. math:: W_{ij} = \frac{|[c_i - f/2,\ c_i + f/2] \cap [j, j + 1]|}{f'}, \qquad f = \max(1, d)

with the centre :math:`c_i` and the size d of target pixel i in source px and :math:`f'` the part of
the footprint that lies on the source. Shrinking this way is area averaging, enlarging is bilinear
interpolation, and the two agree where they meet. (``grid_sample`` has no antialiasing.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ultrarefiner.ops.frames import Frames

_TINY = 1e-6


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """The way from B source grids to B target grids.

    Attributes:
        rows: ``B H h`` weights of source rows in target rows; they sum to 1 or, off the source, 0.
        cols: ``B W w`` the same for columns.
        row_coverage: ``B H`` share of each target row's footprint that lies on the source.
        col_coverage: ``B W`` the same for columns.
    """

    rows: Float[Tensor, "B H h"]
    cols: Float[Tensor, "B W w"]
    row_coverage: Float[Tensor, "B H"]
    col_coverage: Float[Tensor, "B W"]

    def __call__(self, maps: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C H W"]:
        """Resample maps; the source's border values go on outwards for a footprint, then zeros."""
        return apply_separable(maps, self.rows, self.cols)

    def adjoint(self, maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C h w"]:
        """Return the transpose applied to maps of the target grid (not the inverse)."""
        return apply_separable(maps, self.rows.transpose(1, 2), self.cols.transpose(1, 2))

    def coverage(self) -> Float[Tensor, "B 1 H W"]:
        """Return the share of each target pixel's footprint that lies on the source."""
        return (self.row_coverage[:, :, None] * self.col_coverage[:, None])[:, None]


def resample_between(source: Frames, target: Frames) -> Resampling:
    """Return the way from each source grid to its target grid over the same native image.

    Gradients reach the windows of both.

    Args:
        source: B frames that hold values in their content; the rest of the grid is ignored.
        target: B frames to fill.
    """
    start, step = _steps(source, target)
    (cols, col_coverage), (rows, row_coverage) = (
        overlap_matrix(
            start[:, axis],
            step[:, axis],
            source.content_wh[:, axis],
            num_in=source.grid_hw[1 - axis],
            num_out=target.grid_hw[1 - axis],
        )
        for axis in (0, 1)
    )
    return Resampling(rows=rows, cols=cols, row_coverage=row_coverage, col_coverage=col_coverage)


def overlap_matrix(
    start: Float[Tensor, "B"],
    step: Float[Tensor, "B"],
    length: Float[Tensor, "B"],
    *,
    num_in: int,
    num_out: int,
) -> tuple[Float[Tensor, "B num_out num_in"], Float[Tensor, "B num_out"]]:
    """Return one axis' weights and the share of each footprint that lies on the source.

    Args:
        start: left edge of the target grid [source px].
        step: size of a target pixel [source px]; negative if it runs the other way.
        length: source px that hold values, at most ``num_in``.
        num_in: px of the source grid.
        num_out: px of the target grid.
    """
    low, high, coverage = _footprints(start, step, length, num_out)
    edges = torch.arange(num_in, device=start.device, dtype=start.dtype)
    return _overlap_with(low[..., None], high[..., None], edges), coverage


def resample(
    maps: Float[Tensor, "B C h w"], source: Frames, target: Frames, *, max_shrinkage: float
) -> tuple[Float[Tensor, "B C H W"], Float[Tensor, "B 1 H W"]]:
    """Resample as :func:`resample_between` does, by the few px under each footprint.

    Several times faster than the matrices, which others can be multiplied with. Gradients reach the
    maps and the windows of both frames.

    Args:
        maps: pixels of the source grids.
        source: B frames that hold values in their content; the rest of the grid is ignored.
        target: B frames to fill.
        max_shrinkage: largest size of a target px [source px]; decides how many px are looked at.

    Returns:
        The maps, and the share of each target pixel's footprint that lies on the source.
    """
    num_taps = math.ceil(max(1.0, max_shrinkage)) + 1
    start, step = _steps(source, target)
    coverage = []
    for axis in (0, 1):  # columns as rows of the transposed maps, then rows
        low, high, covered = _footprints(
            start[:, axis], step[:, axis], source.content_wh[:, axis], target.grid_hw[1 - axis]
        )
        maps = _average_rows(maps.transpose(-2, -1), low, high, num_taps)
        coverage.append(covered)
    return maps, (coverage[1][:, :, None] * coverage[0][:, None])[:, None]


def _average_rows(
    maps: Float[Tensor, "B C h w"],
    low: Float[Tensor, "B n"],
    high: Float[Tensor, "B n"],
    num_taps: int,
) -> Float[Tensor, "B C n w"]:
    """Average the rows of maps over footprints of at most ``num_taps`` rows."""
    batch, channels, height, width = maps.shape
    edges = low.detach().floor()[..., None] + torch.arange(num_taps, device=low.device)
    weights = _overlap_with(low[..., None], high[..., None], edges)
    # Their sum is 1 unless a thin image shrinks more along its short side than was said.
    weights = weights / weights.sum(dim=-1, keepdim=True).clamp_min(_TINY)
    first = torch.arange(batch * channels, device=low.device).view(batch, channels, 1, 1) * height
    rows = first + edges.clamp(0, height - 1).long()[:, None]
    bags = F.embedding_bag(
        rows.view(-1, num_taps),
        maps.reshape(-1, width).to(weights.dtype),
        mode="sum",
        per_sample_weights=weights[:, None].expand(rows.shape).reshape(-1, num_taps),
    )
    return bags.view(batch, channels, -1, width)


def _steps(source: Frames, target: Frames) -> tuple[Float[Tensor, "B 2"], Float[Tensor, "B 2"]]:
    """Return the corner of each target grid and the size of its px, xy [source px]."""
    corners = source.from_native(target.to_native(_unit_corners(target)))
    return corners[:, 0], corners[:, 1] - corners[:, 0]


def _footprints(
    start: Float[Tensor, "B"], step: Float[Tensor, "B"], length: Float[Tensor, "B"], num_out: int
) -> tuple[Float[Tensor, "B n"], Float[Tensor, "B n"], Float[Tensor, "B n"]]:
    """Return both ends of each footprint on the source, and the share of it that lies there."""
    index = torch.arange(num_out, device=start.device, dtype=start.dtype)
    centres = start[:, None] + (index + 0.5) * step[:, None]
    half = step.abs().clamp_min(1)[:, None] / 2
    ends = length.to(start.dtype)[:, None]
    low = torch.minimum((centres - half).clamp_min(0), ends)
    high = torch.minimum((centres + half).clamp_min(0), ends)
    return low, high, (high - low) / (2 * half)


def _overlap_with(low: Tensor, high: Tensor, edges: Tensor) -> Tensor:
    """Return the share of each footprint that lies on the px that begins at each edge."""
    overlap = (high - edges).clamp(0, 1) - (low - edges).clamp(0, 1)
    return overlap / (high - low).clamp_min(_TINY)


def apply_separable(
    maps: Float[Tensor, "B C h w"], rows: Float[Tensor, "B H h"], cols: Float[Tensor, "B W w"]
) -> Float[Tensor, "B C H W"]:
    """Return ``rows @ maps @ cols.T`` in float32 or better, whatever autocast says."""
    with torch.autocast(maps.device.type, enabled=False):
        maps = maps.to(rows.dtype)
        num_in, num_out = maps.shape[-1], cols.shape[-2]
        if num_out < num_in:  # fewer operations this way round
            return rows[:, None] @ (maps @ cols[:, None].transpose(-2, -1))
        return (rows[:, None] @ maps) @ cols[:, None].transpose(-2, -1)


def _unit_corners(frames: Frames) -> Float[Tensor, "B 2 2"]:
    """Return the corners (0, 0) and (1, 1) of each grid's first pixel."""
    corners = frames.windows.new_tensor([[0.0, 0.0], [1.0, 1.0]])
    return corners.expand(len(frames), 2, 2)
