"""Mask metrics: hand-solved cases, two oracles, the empty policy, invariants."""

import dataclasses
import math
import subprocess
import sys

import numpy as np
import pytest
import surface_distance
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from monai.metrics import (
    compute_average_surface_distance,
    compute_dice,
    compute_hausdorff_distance,
    compute_iou,
    compute_surface_dice,
    get_confusion_matrix,
)

from ultrarefiner.errors import ConfigError, InputError
from ultrarefiner.metrics import METRICS, evaluate_mask, masks


def mask(*rows: str) -> np.ndarray:
    return np.array([[pixel == "#" for pixel in row] for row in rows])


def values(metrics) -> dict[str, float]:
    return {name: getattr(metrics, name) for name in METRICS}


def blob(rng, shape, radius, wobble=0.15) -> np.ndarray:
    y, x = np.indices(shape)
    cy, cx = rng.uniform(0.45, 0.55, 2) * shape
    theta = np.arctan2(y - cy, x - cx)
    outline = sum(
        rng.normal(0, wobble) / k * np.cos(k * theta + rng.uniform(0, 2 * np.pi))
        for k in range(1, 6)
    )
    return np.hypot(y - cy, 0.7 * (x - cx)) < radius * (1 + outline)


class TestSolvedByHand:
    def test_square_shifted_by_one_pixel(self):
        target = mask(".....", ".###.", ".###.", ".###.", ".....")
        metrics = evaluate_mask(np.roll(target, 1, axis=1), target)
        # Each ring has 8 pixels: 4 lie on the other ring, 4 are one pixel off.
        assert values(metrics) == pytest.approx(
            {
                "dsc": 2 / 3,
                "iou": 1 / 2,
                "precision": 2 / 3,
                "recall": 2 / 3,
                "hd95": 1.0,
                "assd": 0.5,
                "nsd": 1.0,
            }
        )
        assert metrics.outcome == "ok"
        assert evaluate_mask(np.roll(target, 1, axis=1), target, tolerance=0.5).nsd == 0.5

    def test_two_pixels_at_opposite_sides(self):
        pred = mask("#....", ".....", ".....", ".....", ".....")
        target = mask(".....", ".....", ".....", "....#", ".....")
        metrics = evaluate_mask(pred, target)
        assert values(metrics) == dict.fromkeys(METRICS, 0.0) | {"hd95": 5.0, "assd": 5.0}
        assert metrics.distance_unit == "px"
        in_mm = evaluate_mask(pred, target, spacing_mm=(2.0, 1.0))
        assert in_mm.hd95 == pytest.approx(math.hypot(6, 4))
        assert in_mm.distance_unit == "mm"

    def test_percentile_interpolates_and_the_larger_direction_counts(self):
        pred = mask("#####", ".....", ".....", ".....", ".....")
        target = mask("#....", ".....", ".....", ".....", ".....")
        # pred to target 0 1 2 3 4, whose 95th percentile is 3.8; target to pred 0.
        assert values(evaluate_mask(pred, target)) == pytest.approx(
            {
                "dsc": 1 / 3,
                "iou": 1 / 5,
                "precision": 1 / 5,
                "recall": 1.0,
                "hd95": 3.8,
                "assd": 10 / 6,
                "nsd": 3 / 6,
            }
        )

    def test_pixels_on_the_image_frame_are_boundary(self):
        target = mask(".....", ".###.", ".###.", ".###.", ".....")
        metrics = evaluate_mask(np.ones((5, 5), dtype=bool), target)
        # Frame of 16 to ring of 8: 12 sides at 1, 4 corners at sqrt 2; ring to frame: all at 1.
        assert metrics.assd == pytest.approx((12 + 4 * math.sqrt(2) + 8) / 24)
        assert metrics.hd95 == pytest.approx(math.sqrt(2))

    def test_a_diagonal_background_neighbour_makes_no_boundary(self):
        pred = mask(".....", "..##.", ".###.", ".###.", ".....")
        target = mask(".....", ".....", "..#..", ".....", ".....")
        # The centre of pred is inside it, so the target's one pixel is at 1 from its boundary.
        assert evaluate_mask(pred, target).assd == pytest.approx((4 + 3 * math.sqrt(2) + 1) / 8)

    @pytest.mark.parametrize("steps", range(1, 11))
    def test_a_distance_equal_to_the_tolerance_is_within_it(self, steps):
        pred, target = np.zeros((2, 1, 11), dtype=bool)
        pred[0, 0] = target[0, steps] = True
        tolerance = np.float64(round(0.1 * steps, 1))
        assert evaluate_mask(pred, target, (0.1, 0.1), tolerance=tolerance).nsd == 1


class TestEmptyPolicy:
    empty = np.zeros((3, 4), dtype=bool)
    pixel = mask("....", ".#..", "....")

    @pytest.mark.parametrize(
        ("pred", "target", "outcome", "overlap", "distance"),
        [
            (empty, empty, "both_empty", 1.0, 0.0),
            (empty, pixel, "missed", 0.0, 5.0),
            (pixel, empty, "false_positive", 0.0, 5.0),
        ],
    )
    @pytest.mark.parametrize("mm_per_px", [None, 0.5])
    def test_table(self, pred, target, outcome, overlap, distance, mm_per_px):
        metrics = evaluate_mask(pred, target, mm_per_px and (mm_per_px, mm_per_px))
        distance *= mm_per_px or 1.0
        expected = dict.fromkeys(METRICS, overlap) | {"hd95": distance, "assd": distance}
        assert values(metrics) == expected
        assert metrics.outcome == outcome
        assert metrics.distance_unit == ("mm" if mm_per_px else "px")

    def test_diagonal_uses_both_spacings(self):
        assert evaluate_mask(self.empty, self.pixel, (2.0, 2.0)).hd95 == 10.0
        assert evaluate_mask(self.empty, self.pixel, (4.0, 4.0 / 3.0)).hd95 == pytest.approx(
            math.hypot(12, 16 / 3)
        )


def oracle_pairs() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    row, column = np.zeros((2, 40, 30), dtype=bool)
    row[20], column[:, 7] = True, True
    corner = np.zeros((40, 30), dtype=bool)
    corner[:9, :6] = True
    pixel = np.zeros((40, 30), dtype=bool)
    pixel[39, 29] = True
    return {
        **{f"blob-{r}": (blob(rng, (64, 80), r), blob(rng, (64, 80), r)) for r in (5, 10, 20, 60)},
        "noise": (rng.random((40, 30)) < 0.3, rng.random((40, 30)) < 0.3),
        "sparse-noise": (rng.random((40, 30)) < 0.01, rng.random((40, 30)) < 0.01),
        "full": (np.ones((40, 30), dtype=bool), corner),
        "corners": (corner, corner[::-1, ::-1]),
        "one-pixel": (pixel, corner),
        "one-pixel-each": (pixel, pixel[::-1, ::-1]),
        "thin-lines": (row, column),
        "thin-line-and-pixel": (row, pixel),
        "one-row-image": (rng.random((1, 50)) < 0.5, rng.random((1, 50)) < 0.5),
    }


PAIRS = oracle_pairs()


def monai_metrics(pred, target, spacing, tolerance) -> dict[str, float]:
    # Not bool: MONAI adds the masks up, and a bool sum saturates into a wrong confusion matrix.
    p, t = (torch.from_numpy(m.astype(np.float32))[None, None] for m in (pred, target))
    true_positive, false_positive, _, false_negative = get_confusion_matrix(p, t)[0, 0].tolist()
    keywords = {"include_background": True, "spacing": spacing}
    return {
        "dsc": compute_dice(p, t).item(),
        "iou": compute_iou(p, t).item(),
        "precision": true_positive / (true_positive + false_positive),
        "recall": true_positive / (true_positive + false_negative),
        "hd95": compute_hausdorff_distance(p, t, percentile=95, **keywords).item(),
        "assd": compute_average_surface_distance(p, t, symmetric=True, **keywords).item(),
        "nsd": compute_surface_dice(p, t, [tolerance], **keywords).item(),
    }


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")
@pytest.mark.parametrize("spacing", [None, (1.0, 1.0), (0.1, 0.1), (0.08, 0.23), (3.0, 0.5)])
@pytest.mark.parametrize("name", PAIRS)
def test_equals_monai(name, spacing):
    pred, target = PAIRS[name]
    tolerance = 2 * max(spacing or (1.0,))
    ours = evaluate_mask(pred, target, spacing, tolerance=tolerance)
    assert values(ours) == pytest.approx(monai_metrics(pred, target, spacing, tolerance), rel=1e-5)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("setting", ["_MAX_PAIRS", "_MAX_EXACT_SQUARE", "_BLOCK_PAIRS"])
def test_every_search_finds_the_same_distances(name, setting, monkeypatch):
    expected = values(evaluate_mask(*PAIRS[name], (0.3, 0.3)))
    monkeypatch.setattr(masks, setting, 1)
    assert values(evaluate_mask(*PAIRS[name], (0.3, 0.3))) == pytest.approx(expected)


@pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")
@pytest.mark.parametrize(
    ("spacing", "hd95_steps", "assd_steps", "nsd_difference"),
    [((1.0, 1.0), 0.5, 0.5, 0.05), ((0.1, 0.1), 0.5, 0.5, 0.05), ((0.1, 0.25), 2.5, 1.25, 0.1)],
)
@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_surface_distance(seed, spacing, hd95_steps, assd_steps, nsd_difference):
    """Its boundary runs between pixel centres and is weighted by length; ours counts pixels.

    On square pixels smooth outlines agree to half a pixel, and to 0.05 of NSD. On oblong pixels
    counting favours the edges along the finer axis, so that the percentile falls elsewhere: two
    coarse steps and a half of HD95, one and a quarter of ASSD, 0.1 of NSD (seen over 40 seeds:
    2.0, 1.0, 0.08).
    """
    rng = np.random.default_rng(seed)
    pred, target = blob(rng, (200, 240), 40), blob(rng, (200, 240), 45)
    step = max(spacing)
    tolerance = 4.5 * step
    ours = evaluate_mask(pred, target, spacing, tolerance=tolerance)
    theirs = surface_distance.compute_surface_distances(target, pred, spacing)
    distances = np.append(theirs["distances_gt_to_pred"], theirs["distances_pred_to_gt"])
    lengths = np.append(theirs["surfel_areas_gt"], theirs["surfel_areas_pred"])
    hd95 = surface_distance.compute_robust_hausdorff(theirs, 95)
    nsd = surface_distance.compute_surface_dice_at_tolerance(theirs, tolerance)
    assert ours.dsc == pytest.approx(surface_distance.compute_dice_coefficient(target, pred))
    assert ours.hd95 == pytest.approx(hd95, abs=hd95_steps * step)
    assert ours.assd == pytest.approx(np.average(distances, weights=lengths), abs=assd_steps * step)
    assert ours.nsd == pytest.approx(nsd, abs=nsd_difference)


pairs = hnp.array_shapes(min_dims=2, max_dims=2, max_side=12).flatmap(
    lambda shape: st.tuples(hnp.arrays(bool, shape), hnp.arrays(bool, shape))
)
spacings = st.tuples(st.floats(0.01, 10), st.floats(0.01, 10))


class TestInvariants:
    @given(pairs, spacings)
    def test_symmetric_but_for_precision_and_recall(self, pair, spacing):
        pred, target = pair
        forth, back = evaluate_mask(pred, target, spacing), evaluate_mask(target, pred, spacing)
        mirror = {"missed": "false_positive", "false_positive": "missed"}
        assert dataclasses.asdict(forth) == pytest.approx(
            dataclasses.asdict(back)
            | {"precision": back.recall, "recall": back.precision}
            | {"outcome": mirror.get(back.outcome, back.outcome)}
        )

    @given(pairs, spacings, st.floats(0.01, 100))
    def test_distances_scale_with_spacing(self, pair, spacing, factor):
        scaled = (spacing[0] * factor, spacing[1] * factor)
        before, after = evaluate_mask(*pair, spacing), evaluate_mask(*pair, scaled)
        assert after.hd95 == pytest.approx(factor * before.hd95, rel=1e-5)
        assert after.assd == pytest.approx(factor * before.assd, rel=1e-5)
        assert after.dsc == before.dsc

    @given(pairs)
    def test_identical_masks_are_perfect(self, pair):
        metrics = evaluate_mask(pair[0], pair[0], tolerance=0.0)
        assert values(metrics) == dict.fromkeys(METRICS, 1.0) | {"hd95": 0.0, "assd": 0.0}

    @given(pairs, st.floats(0, 20), st.floats(0, 20))
    def test_nsd_grows_with_tolerance(self, pair, one, other):
        low, high = sorted([one, other])
        assert evaluate_mask(*pair, tolerance=low).nsd <= evaluate_mask(*pair, tolerance=high).nsd

    @given(pairs, spacings, st.integers(0, 3))
    def test_background_around_the_image_changes_no_distance(self, pair, spacing, margin):
        inner = evaluate_mask(*pair, spacing)
        outer = evaluate_mask(*(np.pad(m, margin) for m in pair), spacing)
        if inner.outcome == "ok":
            assert dataclasses.asdict(outer) == pytest.approx(dataclasses.asdict(inner))

    @given(pairs, spacings)
    def test_axes_are_treated_alike(self, pair, spacing):
        turned = evaluate_mask(*(m.T for m in pair), spacing[::-1])
        assert dataclasses.asdict(turned) == pytest.approx(
            dataclasses.asdict(evaluate_mask(*pair, spacing))
        )

    @given(pairs, st.sampled_from([np.uint8, np.int64, np.float32]))
    def test_zeros_and_ones_are_as_good_as_bool(self, pair, dtype):
        pred, target = pair
        assert evaluate_mask(pred.astype(dtype), target) == evaluate_mask(pred, target)


class TestRefusals:
    pixel = np.ones((4, 4), dtype=bool)

    @pytest.mark.parametrize(
        ("pred", "message"),
        [
            (np.ones((1, 4, 4), dtype=bool), r"pred is not one 2D mask: .*found shape \(1, 4, 4\)"),
            (np.ones((0, 4), dtype=bool), "at least one pixel"),
            (np.ones((4, 5), dtype=bool), r"differ in shape: expected .*\(4, 4\), found \(4, 5\)"),
            (np.full((4, 4), 255, dtype=np.uint8), "uint8 from 255 to 255. Threshold it first"),
            (np.full((4, 4), -1), "pred is not binary"),
            (np.full((4, 4), 0.5), "pred is not binary"),
            (np.full((4, 4), np.nan), "pred is not binary"),
        ],
    )
    def test_masks(self, pred, message):
        with pytest.raises(InputError, match=message):
            evaluate_mask(pred, self.pixel)

    def test_names_the_target_when_it_is_wrong(self):
        with pytest.raises(InputError, match="target is not binary"):
            evaluate_mask(self.pixel, np.full((4, 4), 255, dtype=np.uint8))

    @pytest.mark.parametrize("spacing", [(0.0, 1.0), (1.0, -1.0), (np.nan, 1.0), (1.0, 1.0, 1.0)])
    def test_spacing(self, spacing):
        with pytest.raises(ConfigError, match="two positive numbers"):
            evaluate_mask(self.pixel, self.pixel, spacing)

    @pytest.mark.parametrize("tolerance", [-1.0, np.nan, np.inf])
    def test_tolerance(self, tolerance):
        with pytest.raises(ConfigError, match="tolerance"):
            evaluate_mask(self.pixel, self.pixel, tolerance=tolerance)


def test_inputs_are_left_alone():
    pred, target = (m.copy() for m in PAIRS["corners"])
    evaluate_mask(pred, target)
    np.testing.assert_array_equal(pred, PAIRS["corners"][0])
    np.testing.assert_array_equal(target, PAIRS["corners"][1])


def test_import_loads_no_torch():
    code = "import sys, ultrarefiner.metrics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
