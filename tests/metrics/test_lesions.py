"""Lesions: MONAI's panoptic quality and a loop, and diameters by all pairs and by width."""

import numpy as np
import pytest
import torch
from hypothesis import given
from mask_pairs import PAIRS, blob, mask, pairs, spacings
from monai.metrics import compute_panoptic_quality
from scipy import ndimage
from scipy.spatial.distance import pdist

from ultrarefiner.metrics import evaluate_mask
from ultrarefiner.metrics.lesions import count_found, lesion_outlines, longest_diameter


def label(pixels) -> tuple[np.ndarray, int]:
    return ndimage.label(pixels, structure=np.ones((3, 3)))


def f1_by_loop(pred, target) -> float:
    (labels_p, num_p), (labels_t, num_t) = label(pred), label(target)
    found = 0
    for i in range(1, num_p + 1):
        for j in range(1, num_t + 1):
            one, other = labels_p == i, labels_t == j
            found += (one & other).sum() / (one | other).sum() > 0.5
    return 2 * found / (num_p + num_t)


def scattered(rng, shape=(60, 80), num=6) -> np.ndarray:
    pixels = np.zeros(shape, dtype=bool)
    for y, x in rng.integers(0, shape, (num, 2)):
        pixels |= np.roll(blob(rng, shape, rng.uniform(2, 7)), (y, x), axis=(0, 1))
    return pixels


class TestF1:
    @pytest.mark.parametrize("name", PAIRS)
    def test_equals_a_loop(self, name):
        assert evaluate_mask(*PAIRS[name]).lesion_f1 == pytest.approx(f1_by_loop(*PAIRS[name]))

    @pytest.mark.parametrize("seed", range(8))
    def test_equals_monai(self, seed):
        rng = np.random.default_rng(seed)
        target = scattered(rng)
        pred = np.roll(target, 1, axis=seed % 2) ^ (rng.random(target.shape) < 0.003)
        p, t = (torch.from_numpy(label(pixels)[0]) for pixels in (pred, target))
        theirs = compute_panoptic_quality(p, t, metric_name="rq", smooth_numerator=0.0).item()
        ours = evaluate_mask(pred, target).lesion_f1
        assert 0 < ours < 1
        assert ours == pytest.approx(theirs)
        assert ours == pytest.approx(f1_by_loop(pred, target))

    @given(pairs)
    def test_found_lesions_are_no_more_than_there_are(self, pair):
        pred, target = (pixels.astype(np.uint8) for pixels in pair)
        found = count_found(pred, target)
        assert found == count_found(target, pred)
        assert 0 <= found <= min(label(pred)[1], label(target)[1])
        assert count_found(pred, pred) == label(pred)[1]


class TestOutlines:
    @given(pairs)
    def test_one_for_each_lesion(self, pair):
        assert len(lesion_outlines(pair[0].astype(np.uint8))) == label(pair[0])[1]

    def test_an_island_in_a_hole_is_a_lesion(self):
        assert len(lesion_outlines(PAIRS["island-in-a-hole"][0].astype(np.uint8))) == 2


class TestDiameter:
    @given(pairs, spacings)
    def test_equals_all_pairs_of_pixels(self, pair, spacing):
        labels, num = label(pair[0])
        spans = [
            pdist(np.argwhere(labels == i) * spacing).max(initial=0) for i in range(1, num + 1)
        ]
        found = evaluate_mask(*pair, spacing).diameter_pred
        assert found == pytest.approx(max(spans, default=0.0))

    @pytest.mark.parametrize("seed", range(3))
    def test_is_the_greatest_width(self, seed):
        """Over directions, the width of the pixels' shadow; 0.1 degree is exact to 4e-7."""
        pixels = blob(np.random.default_rng(seed), (90, 120), 25)
        assert label(pixels)[1] == 1
        angles = np.deg2rad(np.arange(0, 180, 0.1))
        shadows = (np.argwhere(pixels) * (0.2, 0.1)) @ np.stack([np.sin(angles), np.cos(angles)])
        width = np.ptp(shadows, axis=0).max()
        assert evaluate_mask(pixels, pixels, (0.2, 0.1)).diameter_pred == pytest.approx(
            width, rel=1e-6
        )

    def test_stretching_an_axis_chooses_another_pair(self):
        cross = mask("..#..", "..#..", "#####", "..#..", "..#..").astype(np.uint8)
        assert longest_diameter(lesion_outlines(cross), (1.0, 2.0)) == 8.0
        assert longest_diameter(lesion_outlines(cross), (3.0, 2.0)) == 12.0

    def test_a_stray_pixel_does_not_lengthen_it(self):
        pixels = mask("###..", "###..", ".....", ".....", "....#").astype(np.uint8)
        assert longest_diameter(lesion_outlines(pixels), (1.0, 1.0)) == pytest.approx(5**0.5)
        assert longest_diameter([], (1.0, 1.0)) == 0.0
