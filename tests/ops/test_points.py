"""Points on the lesion: on it whatever its shape, well inside, spread, each with a gradient."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor

from fakes.shapes import crescent, hard_shapes, over, soft_disc
from ultrarefiner.ops.moments import sharpen
from ultrarefiner.ops.points import centroid, interior_points, local_centroids

_SHAPES = sorted(set(hard_shapes(64)) - {"empty"})
_BESIDE = ("crescent_25", "crescent_50", "two_blobs", "ring")
"""Shapes whose centroid is not on them."""


def _sharpened(probs: Tensor) -> Tensor:
    return sharpen(probs, floor=0.05, relative=0.4, temperature=0.5)


def _smooth(*, seed: int, hw: tuple[int, int]) -> Tensor:
    """Return a map of uneven blobs without symmetry, ``1 1 h w``."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=hw), min(hw) / 12)
    probs = 1 / (1 + np.exp(2 - 3 * field / field.std()))
    return torch.from_numpy(probs).float()[None, None]


def _values(probs: Tensor, points: Tensor) -> Tensor:
    """Return P at points, ``1 N 2``."""
    cols, rows = points[0].detach().floor().long().unbind(-1)
    return probs[0, 0, rows, cols]


def _depths(probs: Tensor, points: Tensor) -> Tensor:
    """Return the distance to the edge at each point, relative to the greatest."""
    inside = np.pad((probs[0, 0] > 0.5).numpy(), 1)
    depth = torch.from_numpy(ndimage.distance_transform_edt(inside)[1:-1, 1:-1])
    return _values(depth[None, None], points) / depth.max()


class TestCentroid:
    """The literal point."""

    def test_by_hand(self) -> None:
        weights = torch.tensor([[[[0.0, 1.0], [0.0, 3.0]]]])
        assert centroid(weights)[0].tolist() == pytest.approx([1.5, 1.25])

    def test_gradient(self) -> None:
        weights = _smooth(seed=1, hw=(5, 7)).double().requires_grad_()
        assert torch.autograd.gradcheck(centroid, weights)

    @pytest.mark.parametrize("name", _BESIDE)
    def test_it_falls_beside_these(self, name: str) -> None:
        probs = hard_shapes(224)[name]
        assert (_values(probs, centroid(_sharpened(probs))[:, None]) < 0.5).all()


class TestInteriorPoints:
    """The points that are used."""

    @pytest.mark.parametrize("side", [64, 97, 224])
    @pytest.mark.parametrize("name", _SHAPES)
    def test_all_are_on_the_lesion(self, name: str, side: int) -> None:
        probs = hard_shapes(side)[name]
        for weights in (_sharpened(probs), probs):  # sharpened or literal
            assert (_values(probs, interior_points(probs, weights, 5)) > 0.5).all()

    @pytest.mark.parametrize("name", _SHAPES)
    def test_on_odd_grids_that_are_not_square(self, name: str) -> None:
        probs = hard_shapes(128)[name][..., :101, 3:]
        points = interior_points(probs, _sharpened(probs), 3)
        if (probs > 0.5).any():
            assert (_values(probs, points) > 0.5).all()
        assert points.isfinite().all()

    @pytest.mark.parametrize("name", _SHAPES)
    def test_they_are_well_inside(self, name: str) -> None:
        probs = hard_shapes(224)[name]
        depths = _depths(probs, interior_points(probs, _sharpened(probs), 4))
        assert depths[0] >= 0.4
        assert depths.min() > 0.25

    @pytest.mark.parametrize("name", ["disc", "top_left", "disc_floor_0.1"])
    def test_a_centroid_well_inside_stays(self, name: str) -> None:
        probs = hard_shapes(224)[name]
        weights = _sharpened(probs)
        assert torch.equal(interior_points(probs, weights)[:, 0], centroid(weights))

    @pytest.mark.parametrize("seed", range(5))
    def test_scattered_and_thin_lesions(self, seed: int) -> None:
        """Of which the cells' pixels may see nothing."""
        generator = torch.Generator().manual_seed(seed)
        dots = (torch.rand(1, 1, 224, 224, generator=generator) < 1e-4 * (seed + 1)).float()
        lines = torch.eye(224).roll(17 * seed, 0)[None, None]
        for probs in (0.9 * dots, 0.9 * lines, 0.9 * lines.flip(-1)):
            assert (_values(probs, interior_points(probs, _sharpened(probs), 3)) > 0.5).all()

    def test_a_faint_lesion_counts_where_nothing_is_clear(self) -> None:
        probs = 0.3 * hard_shapes(96)["crescent_50"]
        weights = _sharpened(probs)
        assert (_values(weights, interior_points(probs, weights, 4)) > 0).all()

    def test_more_points_are_added_to_the_first(self) -> None:
        probs = hard_shapes(224)["crescent_50"]
        weights = _sharpened(probs)
        many = interior_points(probs, weights, 6)
        for num in (1, 2, 5):
            torch.testing.assert_close(interior_points(probs, weights, num), many[:, :num])

    @pytest.mark.parametrize(("name", "apart_px"), [("disc", 14), ("crescent_50", 10)])
    def test_they_are_spread(self, name: str, apart_px: float) -> None:
        probs = hard_shapes(224)[name]
        points = interior_points(probs, _sharpened(probs), 4)[0]
        assert torch.pdist(points).min() > apart_px

    def test_both_blobs_get_one(self) -> None:
        probs = hard_shapes(224)["two_blobs"]
        sides = interior_points(probs, _sharpened(probs), 2)[0, :, 0] < 112
        assert sorted(sides.tolist()) == [False, True]

    def test_the_lone_point_has_the_gradient_of_the_centroid(self) -> None:
        for name in ("disc", "crescent_25", "ring"):
            weights = _sharpened(hard_shapes(96)[name]).requires_grad_()
            loss = interior_points(hard_shapes(96)[name], weights)[0, 0] @ torch.tensor([1.0, 2.0])
            wanted = centroid(weights)[0] @ torch.tensor([1.0, 2.0])
            slopes, expected = (torch.autograd.grad(value, weights)[0] for value in (loss, wanted))
            assert torch.equal(slopes, expected)

    def test_gradcheck_where_nothing_is_moved(self) -> None:
        probs = over(soft_disc(12, (0.45, 0.55), 4), torch.tensor(0.01)).double().requires_grad_()
        assert torch.autograd.gradcheck(lambda maps: interior_points(maps, maps**2), probs)

    @pytest.mark.parametrize("name", [*_SHAPES, "empty"])
    def test_gradients_are_finite_and_each_point_has_one(self, name: str) -> None:
        probs = hard_shapes(96)[name].requires_grad_()
        points = interior_points(probs, _sharpened(probs), 4)
        assert points.isfinite().all()
        for point in points[0]:
            (slopes,) = torch.autograd.grad(point.sum(), probs, retain_graph=True)
            assert slopes.isfinite().all()
            # One pixel cannot be moved by itself, nor by what sharpening set to zero.
            assert (slopes.abs() > 1e-4).any() != (name in ("empty", "one_pixel"))

    @pytest.mark.parametrize("value", [0.0, 1e-38, 0.03, 0.3, 1.0])
    def test_a_constant_map(self, value: float) -> None:
        probs = torch.full((1, 1, 9, 14), value, requires_grad=True)
        points = interior_points(probs, _sharpened(probs), 3)
        assert points[0, 0].tolist() == pytest.approx([7, 4.5], abs=0.51)
        (slopes,) = torch.autograd.grad(points.square().sum(), probs)
        assert slopes.isfinite().all()

    @pytest.mark.parametrize("seed", range(4))
    def test_flips_and_transposes(self, seed: int) -> None:
        probs = _smooth(seed=seed, hw=(93, 71))
        x, y = interior_points(probs, _sharpened(probs), 3).unbind(-1)
        for moved, expected in (
            (probs.flip(-1), (71 - x, y)),
            (probs.flip(-2), (x, 93 - y)),
            (probs.mT, (y, x)),
        ):
            found = interior_points(moved, _sharpened(moved), 3)
            torch.testing.assert_close(found, torch.stack(expected, -1), atol=1e-3, rtol=0)

    def test_a_batch_is_its_items(self) -> None:
        probs = torch.cat(list(hard_shapes(80).values()))
        together = interior_points(probs, _sharpened(probs), 4)
        for item in range(len(probs)):
            alone = probs[item : item + 1]
            found = interior_points(alone, _sharpened(alone), 4)
            torch.testing.assert_close(found[0], together[item])

    def test_autocast_and_bfloat16_do_not_round(self) -> None:
        probs = torch.cat(list(hard_shapes(80).values())).bfloat16()
        weights = _sharpened(probs)
        exact = interior_points(probs.float(), weights.float(), 4)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(interior_points(probs, weights, 4), exact)

    def test_it_compiles_without_a_break(self) -> None:
        probs = torch.cat(list(hard_shapes(64).values()))
        compiled = torch.compile(interior_points, backend="eager", fullgraph=True)
        weights = _sharpened(probs)
        torch.testing.assert_close(compiled(probs, weights, 3), interior_points(probs, weights, 3))

    @pytest.mark.realdata
    def test_real_masks(self, busbra: Path) -> None:
        """Softened masks of the data set: the first point is deep, the others are inside."""
        masks = sorted((busbra / "Masks").glob("*.png"))[::100]
        assert len(masks) > 10
        for path in masks:
            with Image.open(path) as picture:
                mask = np.asarray(picture.convert("L").resize((224, 224))) / 255.0
            probs = torch.from_numpy(0.97 * ndimage.gaussian_filter(mask, 2)).float()[None, None]
            depths = _depths(probs, interior_points(probs, _sharpened(probs), 4))
            assert depths[0] > 0.5
            assert depths.min() > 0.3


class TestLocalCentroids:
    """The expectation behind every further point."""

    def test_by_hand(self) -> None:
        weights = torch.tensor([[[[1.0, 0.0, 2.0]]]])
        found = local_centroids(weights, torch.tensor([[[0.5, 0.5]]]), torch.tensor([2.0]))
        far = 2 * np.exp(-4 / (2 * 4))
        assert found[0, 0].tolist() == pytest.approx([0.5 + 2 * far / (1 + far), 0.5])

    def test_gradient(self) -> None:
        weights = _smooth(seed=2, hw=(6, 9)).double().requires_grad_()
        seeds = torch.tensor([[[2.5, 3.5], [7.5, 1.5]]]).double()
        sigma_px = torch.tensor([1.3]).double()
        assert torch.autograd.gradcheck(lambda w: local_centroids(w, seeds, sigma_px), weights)

    def test_where_nothing_is_seen_a_place_stays(self) -> None:
        weights = torch.zeros(1, 1, 50, 50, requires_grad=True)
        found = local_centroids(weights, torch.tensor([[[40.5, 3.5]]]), torch.tensor([1.0]))
        found.sum().backward()
        assert found.tolist() == [[[40.5, 3.5]]]
        assert weights.grad is not None
        assert (weights.grad == 0).all()

    def test_each_sees_its_own_blob(self) -> None:
        weights = over(
            torch.maximum(soft_disc(64, (0.25, 0.3), 8), soft_disc(64, (0.75, 0.7), 8)),
            torch.tensor(0.0),
        )
        seeds = torch.tensor([[[14.0, 20.0], [50.0, 43.0]]])
        found = local_centroids(weights, seeds, torch.tensor([6.0]))[0]
        assert (found - torch.tensor([[16, 19.2], [48, 44.8]])).abs().max() < 1.5


def test_the_crescent_is_one() -> None:
    """The shape that the other tests rely on: concave, with its centroid in the bite."""
    assert (
        _values(over(crescent(96, 40), torch.tensor(0.0)), torch.tensor([[[58.0, 48.0]]])) < 0.1
    ).all()
