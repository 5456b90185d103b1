"""Corrupted masks: areas are reached, and each type is what it says."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from corrupting import HW, SHAPES, SHARES, drawn, ellipse, lesion, num_parts, only
from scipy.ndimage import binary_dilation, binary_fill_holes, distance_transform_edt

from ultrarefiner.data.corruption import (
    DEFAULT_PROBABILITIES,
    corrupt,
    replay,
)
from ultrarefiner.ops.distance import signed_distance

WITH_RATIO = ("over", "giant", "under", "missing", "holes", "islands", "scatter")


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("shape", SHAPES)
def test_area_ratios_are_reached(shape: str, share: float) -> None:
    mask = lesion(shape, share)
    area_px, frame_px = mask.sum(), mask.size
    assert area_px / frame_px == pytest.approx(share, rel=0.25)
    for kind in WITH_RATIO:
        for index in range(4):
            made = corrupt(mask, seed=1, index=index, config=only(kind))
            reached = (made.probs > 0.5).sum() / area_px
            assert made.parameters["steps"][0]["reached_ratio"] == pytest.approx(reached)
            wanted = min(drawn(made)["area_ratio"], frame_px / area_px)
            # Holes leave a rim: where a lesion is thin, there is no room for all of them.
            room = (signed_distance(mask) > 1).sum() / area_px
            nearest = max(wanted, 1 - room) if kind == "holes" else wanted
            assert reached == pytest.approx(nearest, rel=0.05), (kind, index)


@pytest.mark.parametrize("ratio", [0.4, 0.9, 1.2, 3.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_resized_mask_is_a_level_of_the_exact_distance(shape: str, ratio: float) -> None:
    mask = lesion(shape, 0.02)
    name = "under_ratio" if ratio < 1 else "over_ratio"
    kind = name.removesuffix("_ratio")
    config = only(kind, roughness=(0.0, 0.0), **{name: (ratio, ratio)})
    done = corrupt(mask, seed=0, index=0, config=config).probs > 0.5
    level = np.where(mask, distance_transform_edt(mask), -distance_transform_edt(~mask))
    assert level[done].min() >= level[~done].max() - 1e-4
    assert done.sum() == round(ratio * mask.sum())


def test_roughness_moves_the_outline_and_keeps_the_area() -> None:
    mask = lesion("round", 0.10)
    smooth, rough = (
        corrupt(
            mask,
            seed=0,
            index=0,
            config=only("over", over_ratio=(1.5, 1.5), roughness=(std, std)),
        ).probs
        > 0.5
        for std in (0.0, 0.15)
    )
    assert smooth.sum() == rough.sum()
    radii = [np.hypot(*(np.argwhere(m) - (89.5, 129.5)).T).max() for m in (smooth, rough)]
    assert radii[1] > radii[0] + 2
    assert num_parts(rough) == 1


@pytest.mark.parametrize("scale", [1, 3])
def test_identity_moves_the_outline_by_three_px_of_the_grid_at_most(scale: int) -> None:
    """Three px where the longer side has 224: more in a larger mask."""
    per_grid_px = scale * max(HW) / 224
    for shape in SHAPES:
        mask = np.kron(lesion(shape, 0.05), np.ones((scale, scale), dtype=bool))
        to_outline = (
            np.where(mask, distance_transform_edt(mask), distance_transform_edt(~mask)) - 0.5
        )
        shares = []
        for index in range(12):
            made = corrupt(mask, seed=0, index=index, config=only("identity"))
            moved = (made.probs > 0.5) != mask
            assert drawn(made)["distance_px"] <= 3
            limit_px = drawn(made)["distance_px"] * per_grid_px
            furthest_px = to_outline[moved].max(initial=0.0)
            assert furthest_px <= limit_px + 1e-4
            shares.append(furthest_px / limit_px)
        assert max(shares) > 0.6  # as far as it may, nearly


def test_an_identity_is_the_same_error_at_every_size() -> None:
    """Masks of one lesion at two resolutions lose and gain like shares of it."""
    config = only("identity", identity_px=(2.0, 2.0))
    shares = []
    for scale in (1, 3):
        mask = np.kron(lesion("round", 0.05), np.ones((scale, scale), dtype=bool))
        moved = [
            np.count_nonzero((corrupt(mask, seed=0, index=i, config=config).probs > 0.5) != mask)
            for i in range(40)
        ]
        shares.append(np.mean(moved) / mask.sum())
    assert shares[1] == pytest.approx(shares[0], rel=0.15)


def test_the_padding_of_a_letterboxed_mask_stays_empty() -> None:
    """Corrupted is the content; errors that come anywhere come nowhere beside it."""
    rows = 150
    frame = np.zeros((256, 256), dtype=bool)
    frame[:rows] = lesion("border", 0.05)[:rows]
    num_outside = 0
    for kind in DEFAULT_PROBABILITIES:
        for index in range(4):
            config = replace(only(kind), soft_probability=1.0)
            probs = np.zeros(frame.shape, dtype=np.float32)
            probs[:rows] = corrupt(frame[:rows], seed=0, index=index, config=config).probs
            assert not probs[rows:].any()
            whole = corrupt(frame, seed=0, index=index, config=config).probs
            num_outside += int(whole[rows:].any())
    assert num_outside > 0  # which is why


@pytest.mark.parametrize("shape", SHAPES)
def test_a_chunk_is_missing_from_the_edge(shape: str) -> None:
    mask = lesion(shape, 0.10)
    outside = binary_dilation(np.pad(~mask, 1, constant_values=True))[1:-1, 1:-1]
    for index in range(8):
        done = corrupt(mask, seed=0, index=index, config=only("missing")).probs > 0.5
        assert not (done & ~mask).any()
        assert ((mask & ~done) & outside).any()


@pytest.mark.parametrize("share", [0.02, 0.10])
def test_holes_are_enclosed(share: float) -> None:
    for shape in ("round", "parts"):
        mask = lesion(shape, share)
        for index in range(8):
            done = corrupt(mask, seed=0, index=index, config=only("holes")).probs > 0.5
            assert done.sum() < mask.sum()
            assert np.array_equal(binary_fill_holes(done), mask)


def test_a_bridge_joins_the_parts() -> None:
    mask = lesion("parts", 0.05)
    assert num_parts(mask) == 2
    for index in range(10):
        done = corrupt(mask, seed=0, index=index, config=only("bridge")).probs > 0.5
        assert num_parts(done) == 1
        assert done[mask].all()
        assert done.sum() < 1.6 * mask.sum()


@pytest.mark.parametrize(("radius_px", "gap_px"), [(40, 2), (60, 3), (40, 25)])
def test_a_bridge_joins_large_parts_that_are_near(radius_px: int, gap_px: int) -> None:
    away_px = radius_px + gap_px / 2
    mask = ellipse((128 - away_px, 96), (radius_px, radius_px))
    mask |= ellipse((128 + away_px, 96), (radius_px, radius_px))
    assert num_parts(mask) == 2
    for index in range(40):
        done = corrupt(mask, seed=0, index=index, config=only("bridge")).probs > 0.5
        assert num_parts(done) == 1, index


@pytest.mark.parametrize("shape", ["round", "border", "thin"])
def test_a_bridge_to_nowhere_hangs_on_the_lesion(shape: str) -> None:
    mask = lesion(shape, 0.03)
    for index in range(10):
        done = corrupt(mask, seed=0, index=index, config=only("bridge")).probs > 0.5
        assert done[mask].all()
        assert done.sum() > mask.sum()
        assert num_parts(done) <= 2  # the blob may be drawn at a sliver's distance


@pytest.mark.parametrize("shape", SHAPES)
def test_islands_do_not_touch_the_lesion(shape: str) -> None:
    mask = lesion(shape, 0.02)
    near = binary_dilation(mask, structure=np.ones((3, 3)), iterations=2)
    for index in range(10):
        made = corrupt(mask, seed=0, index=index, config=only("islands"))
        added = (made.probs > 0.5) & ~mask
        assert (made.probs > 0.5)[mask].all()
        assert added.any()
        assert not (added & near).any()
        assert 1 <= drawn(made)["num"] <= 30


def test_islands_drawn_onto_the_lesion_find_room_beside_it() -> None:
    mask = lesion("border", 0.30)
    near = binary_dilation(mask, structure=np.ones((3, 3)), iterations=2)
    config = only("islands", num_islands=(1, 2), island_share=(0.3, 0.3))
    for index in range(60):
        done = corrupt(mask, seed=2, index=index, config=config).probs > 0.5
        assert done.sum() == round(1.3 * mask.sum()), index
        assert not (done & near & ~mask).any()
    config = only("islands", island_share=(9.0, 9.0))  # more than the frame holds
    done = corrupt(mask, seed=2, index=0, config=config).probs > 0.5
    assert np.array_equal(done, mask | ~near)


def test_cuts_make_more_parts() -> None:
    mask = lesion("round", 0.10)
    for index in range(20):
        made = corrupt(mask, seed=0, index=index, config=only("fragments"))
        done = made.probs > 0.5
        assert not (done & ~mask).any()
        assert done.sum() >= 0.5 * mask.sum()
        assert num_parts(done) >= 2


def test_a_shift_is_a_translation() -> None:
    mask = lesion("round", 0.05)
    diameter_px = 2 * np.sqrt(mask.sum() / np.pi)
    centre = np.argwhere(mask).mean(axis=0)
    for index in range(10):
        made = corrupt(mask, seed=0, index=index, config=only("shift"))
        done = made.probs > 0.5
        assert done.sum() == mask.sum()
        step_px = np.hypot(*(np.argwhere(done).mean(axis=0) - centre))
        assert step_px == pytest.approx(drawn(made)["distance"] * diameter_px, abs=0.75)


def test_a_small_lesion_is_shifted_by_a_pixel_at_least() -> None:
    mask = ellipse((100, 100), (1.6, 1.6))
    for index in range(10):
        done = (
            corrupt(mask, seed=0, index=index, config=only("shift", shift=(0.0, 0.01))).probs > 0.5
        )
        assert not np.array_equal(done, mask)


def test_a_shift_does_not_tear_a_lesion_off_the_border() -> None:
    mask = lesion("border", 0.05)
    for index in range(10):
        done = corrupt(mask, seed=0, index=index, config=only("shift")).probs > 0.5
        assert done[:, 0].any()


def test_scatter_and_miss_leave_nothing_of_the_lesion() -> None:
    mask = lesion("round", 0.05)
    assert not corrupt(mask, seed=0, index=0, config=only("empty")).probs.any()
    done = corrupt(mask, seed=0, index=0, config=only("scatter")).probs > 0.5
    assert num_parts(done) > 10
    inside = (done & mask).sum() / done.sum()
    assert inside < 0.2  # by chance, its share of the frame


@pytest.mark.parametrize("kind", DEFAULT_PROBABILITIES)
@pytest.mark.parametrize("case", ["empty", "full", "pixel", "line", "all but one", "one px frame"])
def test_masks_at_the_limit(kind: str, case: str) -> None:
    mask = np.zeros((1, 1) if case == "one px frame" else (40, 60), dtype=bool)
    if case in ("full", "one px frame"):
        mask[:] = True
    elif case == "pixel":
        mask[20, 30] = True
    elif case == "line":
        mask[20, :] = True
    elif case == "all but one":
        mask[:] = True
        mask[3, 5] = False
    for index in range(4):
        config = replace(only(kind), soft_probability=1.0)
        made = corrupt(mask, seed=0, index=index, config=config)
        assert made.probs.shape == mask.shape
        assert np.isfinite(made.probs).all()
        assert ((made.probs >= 0) & (made.probs <= 1)).all()
        assert np.array_equal(replay(mask, json.loads(json.dumps(made.parameters))), made.probs)
        if case == "empty":
            assert (made.probs > 0.5).any() == (kind in ("islands", "scatter"))
            assert made.parameters["steps"][0]["reached_ratio"] is None
        elif kind not in ("empty", "scatter"):
            assert (made.probs > 0.5).any()
        if case == "full" and kind in ("under", "missing", "holes", "fragments"):
            assert made.parameters["steps"][0]["reached_ratio"] < 1


def test_a_frame_that_is_too_small_is_filled() -> None:
    mask = lesion("round", 0.30)
    made = corrupt(mask, seed=0, index=0, config=only("giant", giant_ratio=(10.0, 12.0)))
    assert made.probs.all()
    step = made.parameters["steps"][0]
    assert step["reached_ratio"] == pytest.approx(mask.size / mask.sum())
    assert step["settings"]["area_ratio"] >= 10
