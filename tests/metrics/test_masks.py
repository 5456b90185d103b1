"""Mask metrics: hand-solved cases, two oracles, invariants. Policies are in `test_policy.py`."""

import dataclasses
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mask_pairs import PAIRS, mask, pairs, spacings, values
from monai.metrics import (
    compute_average_surface_distance,
    compute_dice,
    compute_hausdorff_distance,
    compute_iou,
    compute_surface_dice,
    get_confusion_matrix,
)
from torchmetrics.functional.classification import (
    binary_f1_score,
    binary_jaccard_index,
    binary_precision,
    binary_recall,
    binary_specificity,
)

from ultrarefiner.errors import ConfigError, InputError
from ultrarefiner.metrics import METRICS, evaluate_mask
from ultrarefiner.metrics.masks import DISTANCES

OVERLAPS = ("dsc", "iou", "precision", "recall", "specificity", "boundary_iou", "lesion_f1", "nsd")
ERRORS = ("area_error", "diameter_error")


def fields(metrics) -> dict[str, object]:
    return {name: value for name, value in dataclasses.asdict(metrics).items() if name != "nsd_at"}


class TestSolvedByHand:
    def test_square_shifted_by_one_pixel(self):
        target = mask(".....", ".###.", ".###.", ".###.", ".....")
        metrics = evaluate_mask(np.roll(target, 1, axis=1), target, tolerances=(0.5, 0.0))
        # Each ring has 8 pixels: 4 lie on the other ring, 4 are one pixel off. The two rings share
        # 4 of their 12 pixels, as an inner band of 1 px is a ring too. IoU 1/2 is not above 1/2.
        assert values(metrics) == pytest.approx(
            {
                "dsc": 2 / 3,
                "iou": 1 / 2,
                "precision": 2 / 3,
                "recall": 2 / 3,
                "specificity": 13 / 16,
                "boundary_iou": 4 / 12,
                "lesion_f1": 0.0,
                "hd": 1.0,
                "hd95": 1.0,
                "assd": 0.5,
                "nsd": 1.0,
                "area_error": 0.0,
                "diameter_error": 0.0,
            }
        )
        assert metrics.outcome == "ok"
        assert metrics.area_pred == metrics.area_target == 9
        assert metrics.diameter_pred == pytest.approx(math.sqrt(8))
        assert metrics.nsd_at == ((0.5, 0.5), (0.0, 0.5))

    def test_two_pixels_at_opposite_sides(self):
        pred = mask("#....", ".....", ".....", ".....", ".....")
        target = mask(".....", ".....", ".....", "....#", ".....")
        metrics = evaluate_mask(pred, target)
        assert values(metrics) == dict.fromkeys(METRICS, 0.0) | {
            **dict.fromkeys(("hd", "hd95", "assd"), 5.0),
            "specificity": 23 / 24,
        }
        assert metrics.distance_unit == "px"
        in_mm = evaluate_mask(pred, target, spacing_mm=(2.0, 1.0))
        assert in_mm.hd95 == pytest.approx(math.hypot(6, 4))
        assert in_mm.area_pred == 2.0
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
                "specificity": 20 / 24,
                "boundary_iou": 1 / 5,
                "lesion_f1": 0.0,
                "hd": 4.0,
                "hd95": 3.8,
                "assd": 10 / 6,
                "nsd": 3 / 6,
                "area_error": 4.0,
                "diameter_error": 4.0,
            }
        )

    def test_one_of_two_lesions_is_found(self):
        pred = mask("##...", "##...", ".....", ".....", ".....")
        target = mask("##...", "#....", ".....", "....#", "...#.")
        metrics = evaluate_mask(pred, target)
        # One pair of IoU 3/4 among one predicted and two true lesions; a diagonal joins pixels.
        assert metrics.lesion_f1 == pytest.approx(2 / 3)
        # The longest of one lesion, not the span of both.
        assert metrics.diameter_target == pytest.approx(math.sqrt(2))

    def test_pixels_on_the_image_frame_are_boundary(self):
        target = mask(".....", ".###.", ".###.", ".###.", ".....")
        metrics = evaluate_mask(np.ones((5, 5), dtype=bool), target)
        # Frame of 16 to ring of 8: 12 sides at 1, 4 corners at sqrt 2; ring to frame: all at 1.
        assert metrics.assd == pytest.approx((12 + 4 * math.sqrt(2) + 8) / 24)
        assert metrics.hd == metrics.hd95 == pytest.approx(math.sqrt(2))

    def test_a_diagonal_background_neighbour_makes_no_boundary(self):
        pred = mask(".....", "..##.", ".###.", ".###.", ".....")
        target = mask(".....", ".....", "..#..", ".....", ".....")
        # The centre of pred is inside it, so the target's one pixel is at 1 from its boundary.
        assert evaluate_mask(pred, target).assd == pytest.approx((4 + 3 * math.sqrt(2) + 1) / 8)

    @pytest.mark.parametrize("steps", range(1, 11))
    @pytest.mark.parametrize("boundary", ["pixel", "surfel"])
    def test_a_distance_equal_to_the_tolerance_is_within_it(self, steps, boundary):
        pred, target = np.zeros((2, 1, 11), dtype=bool)
        pred[0, 0] = target[0, steps] = True
        tolerance = np.float64(round(0.1 * steps, 1))
        metrics = evaluate_mask(pred, target, (0.1, 0.1), tolerance=tolerance, boundary=boundary)
        assert metrics.nsd == 1


def monai_metrics(pred, target, spacing, tolerance) -> dict[str, float]:
    # Not bool: MONAI adds the masks up, and a bool sum saturates into a wrong confusion matrix.
    p, t = (torch.from_numpy(m.astype(np.float32))[None, None] for m in (pred, target))
    tp, fp, tn, fn = get_confusion_matrix(p, t)[0, 0].tolist()
    keywords = {"include_background": True, "spacing": spacing}
    return {
        "dsc": compute_dice(p, t).item(),
        "iou": compute_iou(p, t).item(),
        "precision": tp / (tp + fp),
        "recall": tp / (tp + fn),
        "specificity": tn / (tn + fp) if tn + fp else 1.0,  # as our policy declares
        "hd": compute_hausdorff_distance(p, t, **keywords).item(),
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
    theirs = monai_metrics(pred, target, spacing, tolerance)
    assert {key: getattr(ours, key) for key in theirs} == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize("name", PAIRS)
def test_overlaps_equal_torchmetrics(name):
    p, t = (torch.from_numpy(m.astype(np.int64)) for m in PAIRS[name])
    theirs = {
        "dsc": binary_f1_score(p, t),
        "iou": binary_jaccard_index(p, t),
        "precision": binary_precision(p, t),
        "recall": binary_recall(p, t),
        "specificity": torch.tensor(1.0) if t.all() else binary_specificity(p, t),
    }
    ours = evaluate_mask(*PAIRS[name])
    assert {key: getattr(ours, key) for key in theirs} == pytest.approx(
        {key: value.item() for key, value in theirs.items()}
    )


@pytest.mark.parametrize("name", PAIRS)
def test_areas_equal_a_loop(name):
    metrics = evaluate_mask(*PAIRS[name], (0.3, 0.2))
    for area, pixels in zip((metrics.area_pred, metrics.area_target), PAIRS[name], strict=True):
        assert area == pytest.approx(sum(0.06 for row in pixels for pixel in row if pixel))


class TestInvariants:
    @given(pairs, spacings, st.sampled_from(["pixel", "surfel"]))
    def test_symmetric_but_for_precision_and_recall(self, pair, spacing, boundary):
        pred, target = pair
        forth = evaluate_mask(pred, target, spacing, boundary=boundary)
        back = evaluate_mask(target, pred, spacing, boundary=boundary)
        same = set(METRICS) - {"precision", "recall", "specificity", *ERRORS}
        for name in same:
            assert getattr(forth, name) == pytest.approx(getattr(back, name)), name
        assert (forth.precision, forth.recall) == (back.recall, back.precision)
        assert (forth.area_error, forth.diameter_error) == (-back.area_error, -back.diameter_error)
        mirror = {"missed": "false_positive", "false_positive": "missed"}
        assert forth.outcome == mirror.get(back.outcome, back.outcome)

    @given(pairs, spacings, st.floats(0.01, 100), st.sampled_from(["pixel", "surfel"]))
    def test_distances_scale_with_spacing_and_overlaps_do_not(
        self, pair, spacing, factor, boundary
    ):
        scaled = (spacing[0] * factor, spacing[1] * factor)
        before = evaluate_mask(*pair, spacing, boundary=boundary)
        after = evaluate_mask(*pair, scaled, tolerance=factor, boundary=boundary)
        for name in DISTANCES:
            assert getattr(after, name) == pytest.approx(
                factor * getattr(before, name), rel=1e-5, abs=1e-9 * factor
            )
        assert after.area_error == pytest.approx(factor**2 * before.area_error)
        for name in OVERLAPS[:-1]:
            assert getattr(after, name) == getattr(before, name)

    @given(pairs, spacings)
    def test_hd_bounds_hd95_and_assd(self, pair, spacing):
        for boundary in ("pixel", "surfel"):
            metrics = evaluate_mask(*pair, spacing, boundary=boundary)
            assert metrics.hd95 <= metrics.hd
            assert metrics.assd <= metrics.hd * (1 + 1e-12)

    @given(pairs)
    def test_identical_masks_are_perfect(self, pair):
        metrics = evaluate_mask(pair[0], pair[0], tolerance=0.0)
        zeros = dict.fromkeys((*DISTANCES, "area_error"), 0.0)
        assert values(metrics) == dict.fromkeys(METRICS, 1.0) | zeros

    @given(pairs, st.floats(0, 20), st.floats(0, 20), st.sampled_from(["pixel", "surfel"]))
    def test_nsd_grows_with_tolerance(self, pair, one, other, boundary):
        low, high = sorted([one, other])
        metrics = evaluate_mask(*pair, tolerance=low, tolerances=(high, low), boundary=boundary)
        assert metrics.nsd <= metrics.nsd_at[0][1]
        assert metrics.nsd_at == ((high, metrics.nsd_at[0][1]), (low, metrics.nsd))

    @given(pairs, spacings, st.integers(1, 3), st.sampled_from(["pixel", "surfel"]))
    def test_background_around_the_image_changes_only_specificity(
        self, pair, spacing, margin, boundary
    ):
        """Nor the inner band: 2 % of these images is below the pixel that it is wide at least."""
        inner = evaluate_mask(*pair, spacing, boundary=boundary)
        outer = evaluate_mask(*(np.pad(m, margin) for m in pair), spacing, boundary=boundary)
        if inner.outcome == "ok":
            assert outer.specificity >= inner.specificity - 1e-12 or pair[1].all()
            same = dataclasses.replace(outer, specificity=inner.specificity)
            assert fields(same) == pytest.approx(fields(inner))

    @given(pairs, spacings, st.sampled_from(["pixel", "surfel"]))
    def test_axes_and_directions_are_treated_alike(self, pair, spacing, boundary):
        upright = evaluate_mask(*pair, spacing, boundary=boundary)
        turned = evaluate_mask(*(m.T for m in pair), spacing[::-1], boundary=boundary)
        flipped = evaluate_mask(*(m[::-1, ::-1] for m in pair), spacing, boundary=boundary)
        for other in (turned, flipped):
            assert fields(other) == pytest.approx(fields(upright))

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
        with pytest.raises(ConfigError, match="tolerance"):
            evaluate_mask(self.pixel, self.pixel, tolerances=(1.0, tolerance))

    def test_boundary(self):
        with pytest.raises(ConfigError, match="unknown boundary 'edge': expected one of pixel"):
            evaluate_mask(self.pixel, self.pixel, boundary="edge")


def test_inputs_are_left_alone():
    pred, target = (m.copy() for m in PAIRS["corners"])
    evaluate_mask(pred, target)
    np.testing.assert_array_equal(pred, PAIRS["corners"][0])
    np.testing.assert_array_equal(target, PAIRS["corners"][1])


def test_import_loads_no_torch():
    code = "import sys, ultrarefiner.metrics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
