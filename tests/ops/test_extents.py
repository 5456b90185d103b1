"""Extents: exact boxes of binary masks, close ones of soft discs, bounds for the moments' box."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ultrarefiner.ops.extents import bound_box, extent_box
from ultrarefiner.ops.moments import sharpen, statistics_box

_SIDE = 128


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _random_map(*, seed: int, hw: tuple[int, int] = (7, 5)) -> Tensor:
    return torch.rand(2, 1, *hw, dtype=torch.float64, generator=_generator(seed))


def _tight_box(mask: np.ndarray) -> list[float]:
    """Bounding box xyxy by looking for the first and last row and column."""
    rows, cols = np.nonzero(mask)
    return [cols.min(), rows.min(), cols.max() + 1, rows.max() + 1]


def _sharpened(probs: Tensor) -> Tensor:
    return sharpen(probs, floor=0.05, relative=0.4, temperature=0.5)


def _noisy(mask: Tensor, floor: float) -> Tensor:
    """Probability 0.97 on the mask, a floor of noise around it, ``1 1 h w``."""
    noise = floor * (0.5 + torch.rand(mask.shape, generator=_generator(1)))
    return torch.maximum(0.97 * mask, noise)[None, None]


def _disc(centre_xy: tuple[float, float], radius_px: float) -> Tensor:
    ys = xs = torch.arange(_SIDE) + 0.5
    squared = (xs[None] - centre_xy[0]) ** 2 + (ys[:, None] - centre_xy[1]) ** 2
    return (squared <= radius_px**2).float()


def _crescent(radius_px: float, shift: float) -> Tensor:
    bite = _disc((64 + shift * radius_px, 64), 0.95 * radius_px)
    return _disc((64, 64), radius_px) * (1 - bite)


def _rectangle(left: int, top: int, cols: int, rows: int) -> Tensor:
    mask = torch.zeros(_SIDE, _SIDE)
    mask[top : top + rows, left : left + cols] = 1
    return mask


def _diagonal() -> Tensor:
    mask = torch.zeros(_SIDE, _SIDE)
    mask[20:90, 30:100] = torch.eye(70)
    return mask


_ELLIPTIC = {
    "disc": _disc((60, 71), 15),
    "small disc": _disc((60, 71), 4),
    "large disc": _disc((64, 64), 45),
}
_SHAPES = {
    **_ELLIPTIC,
    "crescent 25": _crescent(25, 0.35),
    "crescent 37": _crescent(37, 0.5),
    "crescent 50": _crescent(50, 0.8),
    "ring": _disc((64, 64), 30) * (1 - _disc((64, 64), 24)),
    "thin ring": _disc((64, 64), 30) * (1 - _disc((64, 64), 28)),
    "square": _rectangle(40, 30, 50, 50),
    "line": _rectangle(20, 60, 90, 1),
    "diagonal": _diagonal(),
    "corner lesion": _disc((0, 0), 25),
    "other corner": _disc((128, 128), 25),
    "left border": _disc((0, 64), 25),
    "top border": _disc((64, 3), 25),
    "tailed": torch.maximum(_disc((50, 64), 15), _rectangle(50, 62, 60, 4)),
    "L": torch.maximum(_rectangle(30, 20, 6, 80), _rectangle(30, 94, 80, 6)),
}


class TestExtentBox:
    """The differentiable bounding box."""

    @given(
        data=st.data(),
        rows=st.integers(1, 12),
        cols=st.integers(1, 12),
        value=st.sampled_from([1.0, 0.97, 0.2]),
    )
    def test_a_binary_mask_has_its_bounding_box(
        self, data: st.DataObject, rows: int, cols: int, value: float
    ) -> None:
        cells = st.lists(st.booleans(), min_size=rows * cols, max_size=rows * cols).filter(any)
        mask = np.array(data.draw(cells)).reshape(rows, cols)
        weights = value * torch.from_numpy(mask).float()[None, None]
        assert extent_box(weights)[0].tolist() == pytest.approx(_tight_box(mask), abs=1e-4)

    @pytest.mark.parametrize("shape", _SHAPES)
    @pytest.mark.parametrize("floor", [0.001, 0.1])
    def test_noise_around_a_hard_lesion_is_not_seen(self, shape: str, floor: float) -> None:
        box = extent_box(_sharpened(_noisy(_SHAPES[shape], floor)))
        assert box[0].tolist() == pytest.approx(_tight_box(_SHAPES[shape].numpy()), abs=1e-3)

    @pytest.mark.parametrize("radius_px", [15.0, 25.0, 40.0])
    @pytest.mark.parametrize("edge", [0.1, 0.2, 0.3])
    @pytest.mark.parametrize("peak", [1.0, 0.6])
    @pytest.mark.parametrize("floor", [0.001, 0.1])
    def test_a_soft_disc_is_as_large_as_its_half_level(
        self, radius_px: float, edge: float, peak: float, floor: float
    ) -> None:
        grid = torch.arange(_SIDE) + 0.5
        radii = torch.hypot(grid[None] - 63.7, grid[:, None] - 64.4) / radius_px
        soft = peak * torch.sigmoid((1 - radii) / edge)
        noise = floor * (0.5 + torch.rand(soft.shape, generator=_generator(2)))
        box = extent_box(_sharpened(torch.maximum(soft, noise)[None, None]))
        sides = (box[0, 2:] - box[0, :2]) / (2 * radius_px)
        assert sides.tolist() == pytest.approx([1, 1], abs=0.06)
        centre = (box[0, 2:] + box[0, :2]) / 2
        assert centre.tolist() == pytest.approx([63.7, 64.4], abs=0.02 * radius_px + 0.2)

    def test_by_hand(self) -> None:
        # One row, relative chances 1/2, 0, 1: P(nothing so far) is 1/2, 1/2, 0 from the left and
        # 0, 0, 0 from the right.
        box = extent_box(torch.tensor([[[[0.3, 0.0, 0.6]]]]))
        assert box[0].tolist() == pytest.approx([1.0, 0.0, 3.0, 1.0], abs=1e-5)

    def test_agrees_with_random_masks(self) -> None:
        weights = torch.rand(1, 1, 6, 8, generator=_generator(3)) ** 4
        weights[..., 3, 4] = 1
        drawn = torch.rand(20000, 6, 8, generator=_generator(4)) < weights[0]
        boxes = np.array([_tight_box(mask) for mask in drawn.numpy()])
        expected = extent_box(weights)[0].numpy()
        np.testing.assert_allclose(boxes.mean(axis=0), expected, atol=5 * boxes.std() / 20000**0.5)

    def test_only_relative_weights_count(self) -> None:
        weights = _random_map(seed=5)
        torch.testing.assert_close(extent_box(0.01 * weights), extent_box(weights))

    def test_no_peak_rounds_to_certainty(self) -> None:
        weights = torch.zeros(20000, 1, 2, 3)
        weights[:, 0, 1, 1] = torch.rand(20000, generator=_generator(11)).clamp_min(1e-5)
        weights.requires_grad_()
        box = extent_box(weights)
        box.square().sum().backward()
        assert (box - torch.tensor([1.0, 1.0, 2.0, 2.0])).abs().max() < 1e-4
        assert weights.grad is not None
        assert weights.grad.isfinite().all()

    def test_gradient(self) -> None:
        assert torch.autograd.gradcheck(extent_box, _random_map(seed=6).requires_grad_())

    def test_gradient_at_certain_pixels_is_exact(self) -> None:
        weights = torch.tensor([[[[0.0, 0.0, 1.0, 1.0, 0.0]]]], requires_grad=True)
        extent_box(weights)[0, 0].backward()
        # A chance in an empty column before the first by d columns moves the edge by -d; less
        # of the first certain column moves it by one, to the next.
        assert weights.grad is not None
        slopes = weights.grad.flatten().tolist()
        assert slopes[:2] == pytest.approx([-2, -1], abs=1e-4)
        assert slopes[2] + slopes[3] == pytest.approx(0, abs=1e-4)  # the peak scales both

    @pytest.mark.parametrize("value", [0.0, 1e-38, 1e-7, 1e-5, 0.3, 1.0])
    def test_a_constant_map_is_finite(self, value: float) -> None:
        weights = torch.full((1, 1, 6, 9), value, requires_grad=True)
        box = extent_box(weights)
        box.square().sum().backward()
        expected = [4.0, 2.5, 5.0, 3.5] if value <= 1e-6 else [0, 0, 9, 6]
        assert box[0].tolist() == pytest.approx(expected, abs=1e-4)
        assert weights.grad is not None
        assert weights.grad.isfinite().all()

    @pytest.mark.parametrize("value", [1e-5, 0.2, 1.0])
    @pytest.mark.parametrize(("row", "col"), [(0, 0), (3, 4), (5, 8)])
    def test_one_pixel_is_its_own_box(self, value: float, row: int, col: int) -> None:
        weights = torch.zeros(1, 1, 6, 9)
        weights[..., row, col] = value
        weights.requires_grad_()
        box = extent_box(weights)
        box.square().sum().backward()
        assert box[0].tolist() == pytest.approx([col, row, col + 1, row + 1], abs=1e-4)
        assert weights.grad is not None
        assert weights.grad.isfinite().all()

    def test_an_empty_map_leaves_its_neighbours_alone(self) -> None:
        weights = torch.cat([_random_map(seed=7), torch.zeros(1, 1, 7, 5).double()])
        together = extent_box(weights)
        for item in range(3):
            torch.testing.assert_close(together[item], extent_box(weights[item : item + 1])[0])

    def test_flips_and_transposes(self) -> None:
        weights = _random_map(seed=8)
        x0, y0, x1, y1 = extent_box(weights).unbind(-1)
        for moved, expected in (
            (weights.flip(-1), [5 - x1, y0, 5 - x0, y1]),
            (weights.flip(-2), [x0, 7 - y1, x1, 7 - y0]),
            (weights.mT, [y0, x0, y1, x1]),
        ):
            torch.testing.assert_close(extent_box(moved), torch.stack(expected, dim=-1))

    def test_autocast_and_bfloat16_do_not_round(self) -> None:
        weights = _sharpened(_noisy(_disc((60, 71), 15), 0.01)).bfloat16()
        exact = extent_box(weights.float())
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(extent_box(weights), exact)


class TestBoundBox:
    """The moments' box, kept near the extent."""

    def test_by_hand(self) -> None:
        extent = torch.tensor([[10.0, 20.0, 30.0, 60.0]])  # 20 x 40
        statistics = torch.tensor([[5.0, 19.0, 31.0, 50.0]])
        bound = bound_box(statistics, extent, max_growth=0.1, max_shrinkage=0.05)
        # Bands: x0 8..11, y0 16..22, x1 29..32, y1 58..64.
        assert bound[0].tolist() == pytest.approx([8, 19, 31, 58])

    @pytest.mark.parametrize("floor", [0.001, 0.005, 0.01, 0.1])
    @pytest.mark.parametrize("shape", _SHAPES)
    def test_it_covers_the_lesion_and_is_not_too_large(self, shape: str, floor: float) -> None:
        mask = _SHAPES[shape]
        weights = _sharpened(_noisy(mask, floor))
        statistics, _ = statistics_box(weights, num_stds=2.65)
        box = bound_box(statistics, extent_box(weights), max_growth=0.2)[0]
        x0, y0, x1, y1 = _tight_box(mask.numpy())
        assert box[2] - box[0] <= 1.41 * (x1 - x0)
        assert box[3] - box[1] <= 1.41 * (y1 - y0)
        grid = torch.arange(_SIDE) + 0.5
        inside = ((grid > box[1]) & (grid < box[3]))[:, None] & (grid > box[0]) & (grid < box[2])
        assert (mask * inside).sum() >= 0.98 * mask.sum()

    @pytest.mark.parametrize("shape", _ELLIPTIC)
    def test_an_ellipse_keeps_the_box_of_its_moments(self, shape: str) -> None:
        weights = _sharpened(_noisy(_SHAPES[shape], 0.01))
        statistics, _ = statistics_box(weights, num_stds=2.65)
        assert torch.equal(bound_box(statistics, extent_box(weights), max_growth=0.2), statistics)

    @pytest.mark.parametrize("shape", ["ring", "crescent 25", "square"])
    def test_without_the_bound_other_shapes_are_too_large(self, shape: str) -> None:
        weights = _sharpened(_noisy(_SHAPES[shape], 0.01))
        box, _ = statistics_box(weights, num_stds=2.65)
        x0, y0, x1, y1 = _tight_box(_SHAPES[shape].numpy())
        assert max((box[0, 2] - box[0, 0]) / (x1 - x0), (box[0, 3] - box[0, 1]) / (y1 - y0)) > 1.5

    def test_gradient(self) -> None:
        def bounded(weights: Tensor) -> Tensor:
            statistics, _ = statistics_box(weights, num_stds=1.8)
            return bound_box(statistics, extent_box(weights), max_growth=0.02)

        weights = _random_map(seed=9).requires_grad_()
        statistics, _ = statistics_box(weights, num_stds=1.8)
        free = bounded(weights) == statistics
        assert free.any(), "some sides follow the moments"
        assert not free.all(), "some sides follow the extent"
        assert torch.autograd.gradcheck(bounded, weights)

    def test_an_empty_map_is_finite(self) -> None:
        weights = torch.zeros(1, 1, 6, 9, requires_grad=True)
        statistics, _ = statistics_box(weights, num_stds=2.65)
        box = bound_box(statistics, extent_box(weights), max_growth=0.2)
        box.square().sum().backward()
        half = min(2.65 / math.sqrt(12), 0.7)
        assert box[0].tolist() == pytest.approx([4.5 - half, 3 - half, 4.5 + half, 3 + half])
        assert weights.grad is not None
        assert weights.grad.isfinite().all()


def test_both_compile_without_a_break() -> None:
    def bounded(weights: Tensor) -> Tensor:
        statistics, _ = statistics_box(weights, num_stds=2.65)
        return bound_box(statistics, extent_box(weights), max_growth=0.2)

    weights = torch.cat([_random_map(seed=10), torch.zeros(1, 1, 7, 5)]).float()
    compiled = torch.compile(bounded, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(weights), bounded(weights))
