"""Points beside the lesion: never on it, one in each direction, each with a gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from fakes.shapes import hard_shapes, over, soft_disc
from ultrarefiner.ops.extents import extent_box
from ultrarefiner.ops.moments import sharpen, statistics_box
from ultrarefiner.ops.points import centroid
from ultrarefiner.ops.ring import background_centroid, ring_points

_SHAPES = sorted(set(hard_shapes(64)) - {"empty", "full"})


def _sharpened(probs: Tensor) -> Tensor:
    return sharpen(probs, floor=0.05, relative=0.4, temperature=0.5)


def _ring(probs: Tensor, **options: float) -> tuple[Tensor, Tensor]:
    """Return the points beside the lesion in its extent, on a grid that is all image."""
    weights = _sharpened(probs)
    valid = torch.ones_like(probs, dtype=torch.bool)
    return ring_points(probs, weights, extent_box(weights), valid, **options)


def _smooth(*, seed: int, hw: tuple[int, int]) -> Tensor:
    """Return an uneven lesion without symmetry in the middle of a map, ``1 1 h w``."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=hw), min(hw) / 10)
    y, x = (np.linspace(-1, 1, length) for length in hw)
    logits = 6 - 16 * np.hypot(y[:, None] - 0.07, 1.2 * x + 0.05) + 3 * field / field.std()
    return torch.from_numpy(1 / (1 + np.exp(-logits))).float()[None, None]


def _values(probs: Tensor, points: Tensor) -> Tensor:
    """Return P at points, ``N 2``."""
    cols, rows = points.detach().floor().long().unbind(-1)
    return probs[0, 0, rows, cols]


class TestBackgroundCentroid:
    """The literal point, tested for what it is."""

    def test_by_hand(self) -> None:
        # The box cuts both pixels in half: 1/2 x 1 at x = 0.75, 1/2 x 0.5 at x = 1.25.
        probs = torch.tensor([[[[0.0, 0.5]]]])
        found = background_centroid(probs, torch.tensor([[0.5, 0.0, 1.5, 1.0]]))
        assert found[0].tolist() == pytest.approx([(0.75 + 0.5 * 1.25) / 1.5, 0.5])

    def test_an_even_map_gives_the_centre_of_the_box(self) -> None:
        boxes = torch.tensor([[3.3, 1.2, 9.9, 7.7], [0.0, 0.0, 12.0, 9.0]])
        found = background_centroid(torch.full((2, 1, 9, 12), 0.3), boxes)
        torch.testing.assert_close(found, (boxes[:, :2] + boxes[:, 2:]) / 2)

    def test_a_symmetric_lesion_has_it_in_its_middle(self) -> None:
        probs = over(soft_disc(64, (0.5, 0.5), 15), torch.tensor(0.001))
        point = background_centroid(probs, extent_box(_sharpened(probs)))
        assert point[0].tolist() == pytest.approx([32, 32], abs=1e-3)
        assert _values(probs, point) > 0.9

    def test_gradients_reach_map_and_box(self) -> None:
        probs = _smooth(seed=1, hw=(7, 9)).double().requires_grad_()
        boxes = torch.tensor([[1.3, 0.8, 7.6, 5.1]], dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(background_centroid, (probs, boxes))

    @pytest.mark.parametrize(
        "box", [[2.0, 3.0, 6.0, 8.0], [4.0, 4.0, 4.0, 4.0], [20.0, 20.0, 30.0, 30.0]]
    )
    @pytest.mark.parametrize("value", [0.0, 1.0])
    def test_it_is_finite(self, box: list[float], value: float) -> None:
        probs = torch.full((1, 1, 10, 10), value, requires_grad=True)
        boxes = torch.tensor([box], requires_grad=True)
        found = background_centroid(probs, boxes)
        assert found[0].tolist() == pytest.approx([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])
        for slopes in torch.autograd.grad(found.square().sum(), (probs, boxes)):
            assert slopes.isfinite().all()

    def test_autocast_does_not_round(self) -> None:
        probs, boxes = _smooth(seed=2, hw=(40, 50)), torch.tensor([[3.3, 4.4, 33.3, 39.0]])
        with torch.autocast("cpu", torch.bfloat16):
            inside = background_centroid(probs, boxes)
        assert torch.equal(inside, background_centroid(probs, boxes))


class TestRingPoints:
    """The points that are used."""

    @pytest.mark.parametrize("side", [64, 97, 224])
    @pytest.mark.parametrize("name", _SHAPES)
    def test_none_is_on_the_lesion(self, name: str, side: int) -> None:
        probs = hard_shapes(side)[name]
        points, found = _ring(probs)
        assert found.sum() >= 3
        assert (_values(probs, points[found]) < 0.25).all()

    @pytest.mark.parametrize("name", _SHAPES)
    def test_on_odd_grids_that_are_not_square(self, name: str) -> None:
        probs = hard_shapes(128)[name][..., :101, 3:]
        points, found = _ring(probs)
        assert (_values(probs, points[found]) < 0.25).all()
        assert points.isfinite().all()

    @pytest.mark.parametrize("name", _SHAPES)
    @pytest.mark.parametrize("num_sectors", [1, 5, 8])
    def test_each_is_in_its_sector_of_the_band(self, name: str, num_sectors: int) -> None:
        probs = hard_shapes(224)[name]
        weights = _sharpened(probs)
        boxes, _ = statistics_box(weights, num_stds=2.65)
        valid = torch.ones_like(probs, dtype=torch.bool)
        points, found = ring_points(probs, weights, boxes, valid, num_sectors=num_sectors)
        away = (points - centroid(weights)[:, None])[0]
        middle = torch.arange(num_sectors) * 2 * torch.pi / num_sectors
        turn = torch.atan2(away[:, 1], away[:, 0]) - middle
        off = torch.atan2(turn.sin(), turn.cos()).abs()[found[0]]
        # A point may keep the place of its expectation in a pixel whose centre is in the sector.
        slack = 0.75 / away.norm(dim=-1)[found[0]]
        assert (off <= torch.pi / num_sectors + slack).all()
        margin = (0.3 * (boxes[0, 2:] - boxes[0, :2])).clamp_min(2) + 0.5
        assert (points[found] >= boxes[0, :2] - margin).all()
        assert (points[found] <= boxes[0, 2:] + margin).all()

    @pytest.mark.parametrize(
        ("name", "there"),
        [
            ("disc", [0, 1, 2, 3, 4, 5, 6, 7]),
            ("left", [0, 1, 2, 6, 7]),
            ("right", [2, 3, 4, 5, 6]),
            ("top", [0, 1, 2, 3, 4]),
            ("bottom", [0, 4, 5, 6, 7]),
            ("one_pixel", [0, 1, 2, 3, 4, 5, 6, 7]),
        ],
    )
    def test_beyond_the_image_there_are_none(self, name: str, there: list[int]) -> None:
        _, found = _ring(hard_shapes(224)[name])
        assert found[0].nonzero().flatten().tolist() == there

    def test_nor_in_the_padding(self) -> None:
        probs = hard_shapes(224)["disc"]
        weights = _sharpened(probs)
        valid = torch.zeros_like(probs, dtype=torch.bool)
        valid[..., :140, 5:] = True  # the disc reaches down to 153
        points, found = ring_points(probs, weights, extent_box(weights), valid)
        assert 4 <= found.sum() < 8
        assert (points[found][:, 1] < 140).all()

    @pytest.mark.parametrize("name", ["empty", "full"])
    def test_without_an_edge_there_are_none(self, name: str) -> None:
        assert not _ring(hard_shapes(64)[name])[1].any()

    def test_the_hole_of_a_ring_is_background(self) -> None:
        probs = hard_shapes(224)["ring"]
        weights = _sharpened(probs)
        boxes = torch.tensor([[80.0, 80.0, 144.0, 144.0]])  # the box and its margin end on it
        valid = torch.ones_like(probs, dtype=torch.bool)
        points, found = ring_points(probs, weights, boxes, valid, expand=0.01)
        assert found.all()
        assert ((points[0] - 112).norm(dim=-1) < 36).all()

    @pytest.mark.parametrize("power", [1.0, 2.0, 3.5])
    def test_expectations_are_those_of_the_pixels(self, power: float) -> None:
        """Here cells are pixels, and the expectations lie in the band: none is moved."""
        probs = over(soft_disc(64, (0.47, 0.52), 14), torch.tensor(0.03))
        probs = probs + 0.1 * torch.rand(probs.shape, generator=torch.Generator().manual_seed(3))
        probs = probs.clamp_max(1).double()
        weights = _sharpened(probs)
        boxes = torch.tensor([[16.5, 20.5, 41.5, 45.5]]).double()  # 25 px, with its margin 40 px
        valid = torch.ones_like(probs, dtype=torch.bool)
        points, found = ring_points(probs, weights, boxes, valid, power=power)
        assert found.all()
        rows, cols = np.mgrid[:64, :64] + 0.5
        centre = centroid(weights)[0]
        turns = np.arctan2(rows - centre[1].item(), cols - centre[0].item()) / (2 * np.pi)
        density = (1 - probs[0, 0].numpy()) ** power * (probs[0, 0] < probs.max() / 4).numpy()
        density[:, :9], density[:, 49:], density[:13], density[53:] = 0, 0, 0, 0
        for sector in range(8):
            weight = density * (np.round(turns * 8) % 8 == sector)
            mean = [(weight * place).sum() / weight.sum() for place in (cols, rows)]
            assert points[0, sector].tolist() == pytest.approx(mean)

    def test_cells_of_many_pixels_change_little(self) -> None:
        probs = hard_shapes(224)["ellipse"]
        whole, found = _ring(probs)
        small, _ = _ring(torch.nn.functional.avg_pool2d(probs, 4))
        assert found.all()
        assert (whole - 4 * small).abs().max() < 5

    def test_a_larger_band_is_farther_away(self) -> None:
        probs = hard_shapes(224)["disc"]
        centre = centroid(_sharpened(probs))[:, None]
        near, far = (_ring(probs, expand=share)[0] - centre for share in (0.1, 0.6))
        assert (far.norm(dim=-1) > near.norm(dim=-1) + 5).all()

    def test_gradients_reach_map_and_box(self) -> None:
        """Where no point is moved, the gradient is that of the value."""
        probs = over(soft_disc(20, (0.47, 0.52), 4.5), torch.tensor(0.02)).double()
        weights, valid = _sharpened(probs), torch.ones_like(probs, dtype=torch.bool)
        boxes = torch.tensor([[4.713, 5.637, 14.371, 15.289]], dtype=torch.float64)

        def ring(probs: Tensor, boxes: Tensor) -> Tensor:
            return ring_points(probs, weights, boxes, valid)[0]

        inputs = probs.requires_grad_(), boxes.requires_grad_()
        assert torch.autograd.gradcheck(ring, inputs, fast_mode=True)
        assert torch.autograd.gradcheck(lambda boxes: ring(probs.detach(), boxes), inputs[1])

    @pytest.mark.parametrize("name", [*_SHAPES, "empty", "full"])
    @pytest.mark.parametrize("power", [0.5, 2.0])
    def test_gradients_are_finite_and_each_point_has_one(self, name: str, power: float) -> None:
        probs = hard_shapes(96)[name].requires_grad_()
        points, found = _ring(probs, power=power)
        assert points.isfinite().all()
        for point, there in zip(points[0], found[0], strict=True):
            (slopes,) = torch.autograd.grad(
                point @ torch.tensor([1.0, 0.7]), probs, retain_graph=True
            )
            assert slopes.isfinite().all()
            if there and name != "one_pixel":  # with a pixel or two in each sector of its band
                assert (slopes.abs() > 1e-5).any()

    @pytest.mark.parametrize("seed", range(4))
    def test_flips_and_transposes(self, seed: int) -> None:
        probs = _smooth(seed=seed, hw=(93, 71))
        points, found = _ring(probs)
        assert found.any()
        sectors, (x, y) = torch.arange(8), points.unbind(-1)
        for moved, expected, source in (
            (probs.flip(-1), (71 - x, y), 4 - sectors),
            (probs.flip(-2), (x, 93 - y), -sectors),
            (probs.mT, (y, x), 2 - sectors),
        ):
            again, there = _ring(moved)
            order = source % 8
            assert torch.equal(there, found[:, order])
            wanted = torch.stack(expected, -1)[:, order]
            torch.testing.assert_close(again[there], wanted[there], atol=2e-3, rtol=0)

    def test_a_batch_is_its_items(self) -> None:
        probs = torch.cat(list(hard_shapes(80).values()))
        points, found = _ring(probs)
        for item in range(len(probs)):
            alone, there = _ring(probs[item : item + 1])
            torch.testing.assert_close(alone[0], points[item])
            assert torch.equal(there[0], found[item])

    def test_autocast_and_bfloat16_do_not_round(self) -> None:
        probs = torch.cat(list(hard_shapes(80).values())).bfloat16()
        weights = _sharpened(probs)
        boxes, valid = extent_box(weights), torch.ones_like(probs, dtype=torch.bool)
        exact = ring_points(probs.float(), weights.float(), boxes, valid)
        with torch.autocast("cpu", torch.bfloat16):
            found = ring_points(probs, weights, boxes, valid)
        assert torch.equal(found[0], exact[0])
        assert torch.equal(found[1], exact[1])

    def test_both_compile_without_a_break(self) -> None:
        probs = torch.cat(list(hard_shapes(64).values()))
        weights, valid = _sharpened(probs), torch.ones_like(probs, dtype=torch.bool)
        boxes = extent_box(weights)
        ring, literal = (
            torch.compile(each, backend="eager", fullgraph=True)
            for each in (ring_points, background_centroid)
        )
        torch.testing.assert_close(
            ring(probs, weights, boxes, valid), ring_points(probs, weights, boxes, valid)
        )
        torch.testing.assert_close(literal(probs, boxes), background_centroid(probs, boxes))
