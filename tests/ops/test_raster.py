"""Rasters: exact integrals over cells, one pixel for each, equal under flips."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ultrarefiner.ops.raster import Raster, coverage, look_up

_BOXES = torch.tensor([[1.3, 2.2, 6.9, 8.8], [-2.0, 3.0, 4.4, 30.0]], dtype=torch.float64)


def _maps() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, 1, 11, 9, dtype=torch.float64, generator=generator)


def test_coverage_by_hand() -> None:
    covered, moment = coverage(torch.tensor([[0.5, -3.0]]), torch.tensor([[2.25, 9.0]]), length=3)
    assert covered.tolist() == [[[0.5, 1.0, 0.25], [1.0, 1.0, 1.0]]]
    assert moment.tolist() == [[[0.375, 1.5, 0.53125], [0.5, 1.5, 2.5]]]


def test_integrals_agree_with_fine_sums() -> None:
    fine, scale = np.repeat(np.repeat(_maps().numpy(), 100, axis=2), 100, axis=3), 100
    raster = Raster.over(_BOXES, num_cells=4)
    found = raster.integrate(_maps())
    for item in range(2):
        cols = np.round(raster.col_edges[item].numpy() * scale).astype(int).clip(0, 900)
        rows = np.round(raster.row_edges[item].numpy() * scale).astype(int).clip(0, 1100)
        for row in range(4):
            for col in range(4):
                cell = fine[item, 0, rows[row] : rows[row + 1], cols[col] : cols[col + 1]]
                assert found[item, row, col].item() == pytest.approx(
                    cell.sum() / scale**2, abs=0.02
                )


def test_cells_make_up_the_box() -> None:
    whole, parts = (Raster.over(_BOXES, num_cells=num) for num in (1, 7))
    total = whole.integrate(_maps())[:, 0, 0]
    torch.testing.assert_close(parts.integrate(_maps()).sum(dim=(-2, -1)), total)
    torch.testing.assert_close(49 * parts.cell_area(), whole.cell_area())


def test_gradients_reach_the_map_and_the_box() -> None:
    def integrate(maps: Tensor, boxes: Tensor) -> tuple[Tensor, ...]:
        raster = Raster.over(boxes, num_cells=3)
        return raster.integrate(maps), *raster.centres(), raster.cell_area()

    assert torch.autograd.gradcheck(
        integrate, (_maps().requires_grad_(), _BOXES.clone().requires_grad_())
    )


@pytest.mark.parametrize("num_cells", [1, 5, 48])
def test_the_pixel_of_a_cell_touches_it_and_is_nearest(num_cells: int) -> None:
    points = torch.tensor([[4.2, 5.0], [0.1, 7.7]], dtype=torch.float64)
    raster = Raster.over(_BOXES, num_cells=num_cells)
    cols, rows = raster.pixels_near(points, hw=(11, 9))
    for lines, edges, places, length in (
        (cols, raster.col_edges, points[:, :1], 9),
        (rows, raster.row_edges, points[:, 1:], 11),
    ):
        low, high = edges[:, :-1], edges[:, 1:]
        touched = (lines < high) & (lines + 1 > low)
        assert (touched | (high <= 0) | (low >= length)).all()
        nearest = places.clamp(low, high).clamp(0, length)
        assert ((lines - 1e-9 <= nearest) & (nearest <= lines + 1 + 1e-9)).all()
        holds = (low < places) & (places < high)
        assert (lines == places.floor())[holds].all()


def test_pixels_flip_with_the_box() -> None:
    """Cells of two pixels each, whose edges lie on pixels' edges."""
    boxes, points = torch.tensor([[2.0, 2.0, 10.0, 10.0]]), torch.tensor([[6.0, 5.0]])
    cols, rows = Raster.over(boxes, num_cells=4).pixels_near(points, hw=(12, 12))
    mirrored, _ = Raster.over(12 - boxes[:, [2, 3, 0, 1]], num_cells=4).pixels_near(
        12 - points, hw=(12, 12)
    )
    assert cols.tolist() == [[3, 5, 6, 8]]
    assert mirrored.flip(-1).tolist() == (11 - cols).tolist()
    assert rows.tolist() == [[3, 5, 6, 8]]


def test_look_up() -> None:
    maps = torch.arange(24).view(2, 1, 3, 4)
    cols, rows = torch.tensor([[0, 3], [1, 1]]), torch.tensor([[2], [0]])
    assert look_up(maps, cols=cols, rows=rows).tolist() == [[[8, 11]], [[13, 13]]]
