"""Boundaries: pixels against scipy's distance transform, surfels against surface-distance."""

import cv2
import numpy as np
import pytest
import surface_distance
from hypothesis import assume, given
from mask_pairs import PAIRS, blob, mask, pairs, spacings, values
from scipy import ndimage
from scipy.spatial.distance import directed_hausdorff

from ultrarefiner.metrics import boundaries, evaluate_mask
from ultrarefiner.metrics.boundaries import inner_band, pixel_elements, surfel_elements

SPACINGS = [(1.0, 1.0), (0.1, 0.1), (0.08, 0.23), (3.0, 0.5)]
pytestmark = pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")


def edge(pixels) -> np.ndarray:
    cross = ndimage.generate_binary_structure(2, 1)
    return pixels & ~ndimage.binary_erosion(pixels, cross, border_value=0)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", PAIRS)
def test_pixels_equal_the_distance_transform(name, spacing):
    edge_p, edge_t = map(edge, PAIRS[name])
    to_target = ndimage.distance_transform_edt(~edge_t, sampling=spacing)[edge_p]
    to_pred = ndimage.distance_transform_edt(~edge_p, sampling=spacing)[edge_t]
    both = np.concatenate([to_target, to_pred])
    tolerance = 1.7 * max(spacing)
    metrics = evaluate_mask(*PAIRS[name], spacing, tolerance=tolerance)
    assert metrics.hd == pytest.approx(both.max())
    assert metrics.hd95 == pytest.approx(
        max(np.percentile(to_target, 95), np.percentile(to_pred, 95))
    )
    assert metrics.assd == pytest.approx(both.mean())
    assert metrics.nsd == pytest.approx(np.mean(both <= tolerance))


@given(pairs, spacings)
def test_hausdorff_equals_scipy(pair, spacing):
    assume(all(pixels.any() for pixels in pair))
    p, t = (np.argwhere(edge(pixels)) * spacing for pixels in pair)
    expected = max(directed_hausdorff(p, t)[0], directed_hausdorff(t, p)[0])
    assert evaluate_mask(*pair, spacing).hd == pytest.approx(expected)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("setting", ["_MAX_PAIRS", "_MAX_EXACT_SQUARE", "_BLOCK_PAIRS"])
@pytest.mark.parametrize("boundary", ["pixel", "surfel"])
def test_every_search_finds_the_same_distances(name, setting, boundary, monkeypatch):
    expected = values(evaluate_mask(*PAIRS[name], (0.3, 0.3), boundary=boundary))
    monkeypatch.setattr(boundaries, setting, 1)
    found = values(evaluate_mask(*PAIRS[name], (0.3, 0.3), boundary=boundary))
    assert found == pytest.approx(expected)


def test_far_apart_distances_are_exact():
    pred = np.zeros((3, 5000), dtype=bool)
    target = pred.copy()
    pred[0, 0] = target[2, 4999] = True
    assert evaluate_mask(pred, target).hd == np.hypot(2, 4999)


class TestSurfels:
    def test_solved_by_hand(self):
        square = mask("##", "##").astype(np.uint8)
        found = surfel_elements(square, (3.0, 4.0))
        lengths = {tuple(p): length for p, length in zip(found.points, found.lengths, strict=True)}
        # The outline cuts the four corners, and runs 4 mm along the rows, 3 mm along the columns.
        assert lengths == {
            **dict.fromkeys([(0, 0), (2, 0), (0, 2), (2, 2)], 2.5),
            **dict.fromkeys([(1, 0), (1, 2)], 4.0),
            **dict.fromkeys([(0, 1), (2, 1)], 3.0),
        }

    @pytest.mark.parametrize("percent", [95, 100])
    @pytest.mark.parametrize("spacing", SPACINGS)
    @pytest.mark.parametrize("name", PAIRS)
    def test_equal_surface_distance(self, name, spacing, percent):
        pred, target = PAIRS[name]
        tolerance = 1.7 * max(spacing)  # no distance on the grid, where a tie is rounding's
        ours = evaluate_mask(pred, target, spacing, tolerance=tolerance, boundary="surfel")
        theirs = surface_distance.compute_surface_distances(target, pred, spacing)
        lengths = [theirs["surfel_areas_gt"].sum(), theirs["surfel_areas_pred"].sum()]
        means = surface_distance.compute_average_surface_distance(theirs)
        hausdorff = surface_distance.compute_robust_hausdorff(theirs, percent)
        nsd = surface_distance.compute_surface_dice_at_tolerance(theirs, tolerance)
        assert {95: ours.hd95, 100: ours.hd}[percent] == pytest.approx(hausdorff, rel=1e-12)
        assert ours.assd == pytest.approx(np.average(means, weights=lengths), rel=1e-12)
        assert ours.nsd == pytest.approx(nsd, rel=1e-12)

    @given(pairs, spacings)
    def test_equal_surface_distance_anywhere(self, pair, spacing):
        assume(all(pixels.any() for pixels in pair))
        pred, target = pair
        theirs = surface_distance.compute_surface_distances(target, pred, spacing)
        ours = evaluate_mask(pred, target, spacing, boundary="surfel")
        assert ours.hd == pytest.approx(surface_distance.compute_robust_hausdorff(theirs, 100))
        means = surface_distance.compute_average_surface_distance(theirs)
        lengths = [theirs["surfel_areas_gt"].sum(), theirs["surfel_areas_pred"].sum()]
        assert ours.assd == pytest.approx(np.average(means, weights=lengths))

    def test_length_of_a_disc(self):
        """Straight and diagonal pieces go round a large disc 8/pi (sqrt 2 - 1) times too long."""
        y, x = np.indices((401, 401)) - 200
        lengths = surfel_elements((np.hypot(y, x) < 190).astype(np.uint8), (0.1, 0.1)).lengths
        assert lengths.sum() == pytest.approx(2 * np.pi * 19 * 8 / np.pi * (2**0.5 - 1), rel=0.01)


@pytest.mark.parametrize(
    ("spacing", "hd95_steps", "assd_steps", "nsd_difference"),
    [((1.0, 1.0), 0.5, 0.5, 0.05), ((0.1, 0.1), 0.5, 0.5, 0.05), ((0.1, 0.25), 2.5, 1.25, 0.1)],
)
@pytest.mark.parametrize("seed", range(5))
def test_pixels_are_near_surfels(seed, spacing, hd95_steps, assd_steps, nsd_difference):
    """On square pixels smooth outlines agree to half a pixel, and to 0.05 of NSD.

    On oblong pixels counting favours the edges along the finer axis, so that the percentile falls
    elsewhere: two coarse steps and a half of HD95, one and a quarter of ASSD, 0.1 of NSD (seen
    over 40 seeds: 2.0, 1.0, 0.08).
    """
    rng = np.random.default_rng(seed)
    pred, target = blob(rng, (200, 240), 40), blob(rng, (200, 240), 45)
    step = max(spacing)
    pixel, surfel = (
        evaluate_mask(pred, target, spacing, tolerance=4.5 * step, boundary=boundary)
        for boundary in ("pixel", "surfel")
    )
    assert pixel.hd95 == pytest.approx(surfel.hd95, abs=hd95_steps * step)
    assert pixel.assd == pytest.approx(surfel.assd, abs=assd_steps * step)
    assert pixel.nsd == pytest.approx(surfel.nsd, abs=nsd_difference)


class TestBoundaryIou:
    """The band of the paper's own code, written as it is there, and by a distance transform."""

    @staticmethod
    def band_of_cheng(pixels, width_px):
        padded = cv2.copyMakeBorder(pixels, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=width_px)
        return pixels - eroded[1:-1, 1:-1]

    @pytest.mark.parametrize("width_px", [1, 2, 5, 50])
    @pytest.mark.parametrize("name", PAIRS)
    def test_band(self, name, width_px):
        for pixels in PAIRS[name]:
            padded = np.pad(pixels, 1)
            depth = ndimage.distance_transform_cdt(padded, metric="chessboard")[1:-1, 1:-1]
            band = inner_band(pixels.astype(np.uint8), width_px)
            np.testing.assert_array_equal(band, pixels & (depth <= width_px))
            expected = self.band_of_cheng(pixels.astype(np.uint8), width_px)
            np.testing.assert_array_equal(band, expected)

    @pytest.mark.parametrize("shape", [(20, 30), (75, 100), (300, 450)])
    @pytest.mark.parametrize("seed", range(3))
    def test_its_width_is_2_percent_of_the_diagonal(self, shape, seed):
        rng = np.random.default_rng(seed)
        p, t = (blob(rng, shape, shape[0] / 4).astype(np.uint8) for _ in range(2))
        width_px = max(1, round(0.02 * np.hypot(*shape)))
        band_p, band_t = self.band_of_cheng(p, width_px), self.band_of_cheng(t, width_px)
        expected = ((band_p * band_t) > 0).sum() / ((band_p + band_t) > 0).sum()
        assert evaluate_mask(p, t).boundary_iou == pytest.approx(expected)
        assert expected < evaluate_mask(p, t).iou  # so that the band is no whole lesion


@pytest.mark.parametrize("name", PAIRS)
def test_a_pixel_boundary_is_what_erosion_takes(name):
    for pixels in PAIRS[name]:
        x, y = pixel_elements(pixels.astype(np.uint8)).points.T
        found = np.zeros_like(pixels)
        found[y, x] = True
        np.testing.assert_array_equal(found, edge(pixels))
