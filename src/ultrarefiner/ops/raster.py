"""A raster of few cells laid over a box: what costs a pass over the whole map is done on it.

Boxes differ within a batch, crops of pixels would be ragged. A raster has the same number of cells
for each, whole pixels together or parts of one, and the way onto it is exact and separable.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from ultrarefiner.ops.resampling import apply_separable
from ultrarefiner.shapes import Boxes, ProbMaps


@dataclass(frozen=True, kw_only=True)
class Raster:
    """Cells over B boxes.

    Attributes:
        col_edges: ``B n+1`` rising x of the cells' sides [px of the grid].
        row_edges: ``B m+1`` rising y, likewise.
    """

    col_edges: Float[Tensor, "B n+1"]
    row_edges: Float[Tensor, "B m+1"]

    @classmethod
    def over(cls, boxes: Boxes, *, num_cells: int) -> Raster:
        """Lay ``num_cells`` x ``num_cells`` cells over each box; gradients reach the box.

        Args:
            boxes: ``B 4`` xyxy [px of the grid].
            num_cells: along each side, at least 1.
        """
        index = torch.arange(num_cells + 1, device=boxes.device, dtype=boxes.dtype)
        x0, y0, x1, y1 = boxes[..., None].unbind(1)
        # Multiplied first, so that edges on whole pixels are exact.
        return cls(
            col_edges=x0 + index * (x1 - x0) / num_cells,
            row_edges=y0 + index * (y1 - y0) / num_cells,
        )

    def centres(self) -> tuple[Float[Tensor, "B n"], Float[Tensor, "B m"]]:
        """Return x and y of the cells' centres [px of the grid]."""
        (x0, x1), (y0, y1) = _cells(self.col_edges), _cells(self.row_edges)
        return (x0 + x1) / 2, (y0 + y1) / 2

    def cell_area(self) -> Float[Tensor, "B"]:
        """Return the area of one cell [px^2]."""
        cols, rows = (
            (edges[:, -1] - edges[:, 0]) / (edges.shape[-1] - 1)
            for edges in (self.col_edges, self.row_edges)
        )
        return cols * rows

    def integrate(self, maps: ProbMaps) -> Float[Tensor, "B m n"]:
        """Return the integral of each map over each cell; pixels are squares of even value.

        In float32 or better, whatever autocast says. Nothing is outside the grid.

        Args:
            maps: ``B 1 h w``.
        """
        rows, _ = coverage(*_cells(self.row_edges), length=maps.shape[-2])
        cols, _ = coverage(*_cells(self.col_edges), length=maps.shape[-1])
        return apply_separable(maps, rows, cols)[:, 0]

    def pixels_near(
        self, points: Float[Tensor, "B 2"], *, hw: tuple[int, int]
    ) -> tuple[Int[Tensor, "B n"], Int[Tensor, "B m"]]:
        """Choose one pixel for each cell: of those that it touches, the nearest to a point.

        The choice is separable, and turns and flips with the map.

        Args:
            points: ``B 2`` xy [px of the grid]. The cell that holds it is given its pixel.
            hw: rows and columns of the grid.

        Returns:
            The pixels' columns and rows.
        """
        x, y = points[:, :1], points[:, 1:]
        return (
            _lines_near(x, *_cells(self.col_edges), length=hw[1]),
            _lines_near(y, *_cells(self.row_edges), length=hw[0]),
        )


def look_up(
    maps: Shaped[Tensor, "B 1 h w"], *, cols: Int[Tensor, "B n"], rows: Int[Tensor, "B m"]
) -> Shaped[Tensor, "B m n"]:
    """Return the values where the given rows and columns of each map cross."""
    items = torch.arange(len(maps), device=maps.device)[:, None, None]
    return maps[items, 0, rows[:, :, None], cols[:, None]]


def coverage(
    low: Float[Tensor, "B n"], high: Float[Tensor, "B n"], *, length: int
) -> tuple[Float[Tensor, "B n length"], Float[Tensor, "B n length"]]:
    r"""Return how much of every pixel along one axis each interval covers, and its first moment.

    .. math:: c_j = b - a, \quad m_j = \frac{b^2 - a^2}{2},
              \quad [a, b] = [\text{low}, \text{high}] \cap [j, j + 1]

    Args:
        low: ``B n`` where the intervals begin [px].
        high: ``B n`` where they end.
        length: pixels along the axis.
    """
    index = torch.arange(length, device=low.device, dtype=low.dtype)
    begin = torch.minimum(torch.maximum(low[..., None], index), index + 1)
    end = torch.minimum(torch.maximum(high[..., None], index), index + 1)
    covered = end - begin
    return covered, covered * (begin + end) / 2


def _cells(edges: Float[Tensor, "B n+1"]) -> tuple[Float[Tensor, "B n"], Float[Tensor, "B n"]]:
    """Return where each cell begins and ends."""
    return edges[:, :-1], edges[:, 1:]


def _lines_near(
    place: Float[Tensor, "B 1"],
    low: Float[Tensor, "B n"],
    high: Float[Tensor, "B n"],
    *,
    length: int,
) -> Int[Tensor, "B n"]:
    """Return the line that each cell touches nearest to a place; an edge belongs to its cell."""
    before = (high.ceil() - 1).maximum(low.floor())
    lines = torch.where(high <= place, before, low.maximum(place).floor())
    return lines.clamp(0, length - 1).long()
