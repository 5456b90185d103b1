"""Corrupted masks: areas are reached, each type is what it says, and all of it can be repeated."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_dilation, binary_fill_holes, distance_transform_edt, label
from scipy.special import expit

from ultrarefiner.data.corruption import (
    DEFAULT_PROBABILITIES,
    PRESETS,
    Corrupted,
    CorruptionConfig,
    corrupt,
    replay,
)
from ultrarefiner.data.corruption.lesion import Lesion, choose_lowest
from ultrarefiner.data.corruption.softening import soften
from ultrarefiner.errors import ConfigError, InputError
from ultrarefiner.ops.distance import signed_distance

HW = (192, 256)
SHARES = (0.002, 0.02, 0.10, 0.30)
SHAPES = ("round", "thin", "border", "parts")
WITH_RATIO = ("over", "giant", "under", "missing", "holes", "islands", "scatter")


def ellipse(centre_xy: tuple[float, float], half_axes_px: tuple[float, float]) -> np.ndarray:
    y, x = np.mgrid[: HW[0], : HW[1]] + 0.5
    (cx, cy), (a, b) = centre_xy, half_axes_px
    return ((x - cx) / a) ** 2 + ((y - cy) / b) ** 2 <= 1


def lesion(shape: str, share: float) -> np.ndarray:
    """A lesion that covers about this share of the frame."""
    r = float(np.sqrt(share * HW[0] * HW[1] / np.pi))
    if shape == "thin":
        return ellipse((128, 96), (min(4 * r, 126), max(r / 4, share * HW[0] * HW[1] / 396)))
    if shape == "border":
        return ellipse((0, 96), (r * 1.41, r * 1.41))
    if shape == "parts":
        return ellipse((80, 96), (0.71 * r, 0.71 * r)) | ellipse((190, 96), (0.71 * r, 0.71 * r))
    return ellipse((130, 90), (r, r))


def only(kind: str, **more: object) -> CorruptionConfig:
    """Settings that make hard masks with one error of one type."""
    plain: dict[str, object] = {"secondary_probability": 0.0, "soft_probability": 0.0}
    return CorruptionConfig(probabilities={kind: 1.0}, **{**plain, **more})  # type: ignore[arg-type]


def num_parts(mask: np.ndarray) -> int:
    return int(label(mask, structure=np.ones((3, 3)))[1])


def drawn(made: Corrupted) -> dict[str, float]:
    return made.parameters["steps"][0]["settings"]


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


class TestDistance:
    """Distances in a box around the lesion are those of the whole frame."""

    @settings(max_examples=60, deadline=None)
    @given(
        seed=st.integers(0, 2**32 - 1),
        margin_px=st.integers(1, 40),
        density=st.sampled_from([0.02, 0.3, 0.7]),
    )
    def test_as_in_the_whole_frame(self, seed: int, margin_px: int, density: float) -> None:
        rng = np.random.default_rng(seed)
        mask = np.zeros((40, 50), dtype=bool)
        y0, x0 = rng.integers(0, 30), rng.integers(0, 40)
        mask[y0 : y0 + 12, x0 : x0 + 15] = (
            rng.random(mask[y0 : y0 + 12, x0 : x0 + 15].shape) < density
        )
        mask[y0, x0] = True
        distance, window = Lesion(mask).distance(margin_px)
        assert np.allclose(distance, signed_distance(mask)[window.slices], atol=1e-5)
        inside, outside = (
            distance_transform_edt(pixels).astype(np.float32) for pixels in (mask, ~mask)
        )
        half = np.float32(0.5)
        exact = np.where(mask, inside - half, half - outside)
        assert np.array_equal(distance, exact[window.slices])  # to the last bit

    def test_a_mask_that_fills_the_frame_ends_there(self) -> None:
        distance, _ = Lesion(np.ones((5, 7), dtype=bool)).distance(3)
        assert distance[0, 0] == 0.5
        assert distance[2, 3] == 2.5


class TestChoice:
    """Exactly as many pixels as asked for, whatever ties."""

    @settings(max_examples=50, deadline=None)
    @given(seed=st.integers(0, 2**32 - 1), num_px=st.integers(0, 120))
    def test_number_and_order(self, seed: int, num_px: int) -> None:
        rng = np.random.default_rng(seed)
        score = rng.integers(0, 4, size=(8, 12)).astype(np.float32)
        allowed = rng.random(score.shape) < 0.6
        chosen = choose_lowest(score, num_px, allowed)
        assert chosen.sum() == min(num_px, allowed.sum())
        assert not (chosen & ~allowed).any()
        anywhere = choose_lowest(score, num_px)
        assert np.array_equal(anywhere, choose_lowest(score, num_px, np.ones_like(allowed)))
        rest = allowed & ~chosen
        if chosen.any() and rest.any():
            assert score[chosen].max() <= score[rest].min()


class TestSoftening:
    """Probabilities are the squashed exact distance, and still hold the mask."""

    @pytest.mark.parametrize("temperature_px", [0.3, 2.0, 9.0])
    def test_against_scipy(self, temperature_px: float) -> None:
        mask = lesion("parts", 0.03)
        signed = np.where(
            mask, distance_transform_edt(mask) - 0.5, 0.5 - distance_transform_edt(~mask)
        )
        expected = expit(signed / temperature_px)
        probs = soften(mask, temperature_px)
        assert np.abs(probs - expected).max() < 2**-10
        kept = probs > 0
        assert np.allclose(probs[kept], expected[kept], atol=1e-6)
        assert kept[expected > 1e-3].all()
        assert np.array_equal(probs > 0.5, mask)

    @pytest.mark.parametrize("share", SHARES)
    def test_temperature_is_bounded_by_the_lesion(self, share: float) -> None:
        mask = lesion("round", share)
        config = replace(only("identity"), soft_probability=1.0)
        scale = 256 / 224
        found = []
        for index in range(20):
            made = corrupt(mask, seed=0, index=index, config=config)
            radius_px = np.sqrt((made.probs > 0.5).sum() / np.pi)
            found.append(made.parameters["temperature_px"])
            assert found[-1] <= min(0.25 * radius_px, 8 * scale) + 1e-9
            assert found[-1] >= min(0.25 * radius_px, 2 * scale) - 1e-9
        assert share < 0.02 or len(np.unique(found)) > 10

    def test_as_often_as_asked_for(self) -> None:
        mask = lesion("round", 0.05)
        config = replace(only("identity"), soft_probability=0.8)
        made = [corrupt(mask, seed=0, index=i, config=config) for i in range(300)]
        soft = [m.parameters["temperature_px"] is not None for m in made]
        assert np.mean(soft) == pytest.approx(0.8, abs=0.07)
        for m, is_soft in zip(made, soft, strict=True):
            assert is_soft == bool(((m.probs > 0) & (m.probs < 1)).any())


class TestSeries:
    """A corruption depends on seed and index alone, and can be replayed."""

    @pytest.mark.parametrize("preset", PRESETS)
    def test_replayed_after_json_byte_for_byte(self, preset: str) -> None:
        for index in range(30):
            mask = lesion(SHAPES[index % 4], SHARES[index // 4 % 4])
            made = corrupt(mask, seed=5, index=index, config=PRESETS[preset])
            parameters = json.loads(json.dumps(made.parameters, allow_nan=False))
            again = replay(mask, parameters)
            assert again.dtype == np.float32
            assert again.tobytes() == made.probs.tobytes()
            assert made.kind in DEFAULT_PROBABILITIES

    def test_seed_and_index(self) -> None:
        mask = lesion("round", 0.05)
        first = corrupt(mask, seed=0, index=7)
        np.random.seed(1)  # noqa: NPY002 - the global state must play no role
        again = corrupt(mask, seed=0, index=7)
        assert first.parameters == again.parameters
        assert np.array_equal(first.probs, again.probs)
        others = [corrupt(mask, seed=s, index=i).parameters for s, i in ((0, 8), (1, 7), (7, 0))]
        assert first.parameters not in others

    def test_the_mask_is_left_alone(self) -> None:
        for kind in DEFAULT_PROBABILITIES:
            mask = lesion("round", 0.05)
            before = mask.copy()
            probs = corrupt(mask, seed=0, index=0, config=only(kind)).probs
            probs[:] = 0.5
            assert np.array_equal(mask, before)

    def test_types_come_as_often_as_asked_for(self) -> None:
        mask = lesion("round", 0.01)[:64, 64:196]
        config = replace(CorruptionConfig(), soft_probability=0.0)
        num = 2000
        made = [corrupt(mask, seed=0, index=i, config=config) for i in range(num)]
        counts = Counter(m.kind for m in made)
        for kind, share in DEFAULT_PROBABILITIES.items():
            std = np.sqrt(share * (1 - share) / num)
            assert counts[kind] / num == pytest.approx(share, abs=4 * std), kind
        second = [m for m in made if m.kind not in ("empty", "scatter")]
        share = np.mean([len(m.parameters["steps"]) == 2 for m in second])
        assert share == pytest.approx(0.15, abs=0.035)

    def test_another_mask_is_refused(self) -> None:
        made = corrupt(lesion("round", 0.05), seed=0, index=0, config=only("over"))
        mask = lesion("round", 0.05)
        others = (lesion("thin", 0.02), mask[:, :100], mask[:, ::-1].copy(), mask.T.copy())
        for other in others:
            with pytest.raises(InputError, match="the mask that they belong to"):
                replay(other, made.parameters)

    def test_other_ratios_than_were_reached_are_refused(self) -> None:
        mask = lesion("round", 0.05)
        made = corrupt(mask, seed=0, index=0, config=only("over"))
        made.parameters["steps"][0]["reached_ratio"] += 0.01
        with pytest.raises(InputError, match="the version of UltraRefiner"):
            replay(mask, made.parameters)

    @pytest.mark.parametrize(
        "broken",
        [
            {},
            {"steps": [{}], "temperature_px": None},
            {"steps": 3},
            {"steps": [{"kind": "empty", "seed": -1, "settings": {}}], "temperature_px": None},
        ],
    )
    def test_what_is_no_corruption_is_refused(self, broken: dict[str, object]) -> None:
        with pytest.raises(InputError, match="parameters of a corruption"):
            replay(lesion("round", 0.05), broken)


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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("probabilities", {"over": 0.5, "under": 0.4}),
        ("probabilities", {"over": 1.5, "under": -0.5}),
        ("probabilities", {"blur": 1.0}),
        ("probabilities", {}),
        ("identity_px", (0.0, 4.0)),
        ("over_ratio", (0.9, 2.0)),
        ("under_ratio", (0.9, 0.4)),
        ("num_islands", (0, 3)),
        ("num_holes", (1.5, 2.5)),
        ("temperature_px", (0.0, 3.0)),
        ("soft_probability", 1.2),
        ("secondary_probability", -0.1),
        ("max_temperature", 0.0),
    ],
)
def test_a_setting_out_of_range_is_named(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=name):
        CorruptionConfig(**{name: value})  # type: ignore[arg-type]


def test_presets_are_named_as_promised() -> None:
    assert list(PRESETS) == ["default", "mild", "severe", "boundary", "structural"]
    assert CorruptionConfig() == PRESETS["default"]
    assert sum(DEFAULT_PROBABILITIES.values()) == pytest.approx(1)
    assert len(DEFAULT_PROBABILITIES) == 12


def test_presets_differ_in_severity() -> None:
    mask = lesion("round", 0.05)
    dsc = {}
    for name, config in PRESETS.items():
        made = [corrupt(mask, seed=0, index=i, config=config).probs > 0.5 for i in range(80)]
        dsc[name] = np.mean([2 * (m & mask).sum() / (m.sum() + mask.sum()) for m in made])
    assert dsc["mild"] > 0.85 > dsc["default"] > dsc["severe"]


def test_opencv_distances_are_exact() -> None:
    """The gap to the whole square is small: the precise mask is no approximation."""
    rng = np.random.default_rng(0)
    for density in (0.5, 0.99, 0.9995):
        free = (rng.random((300, 400)) < density).astype(np.uint8)
        found = cv2.distanceTransform(free, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        assert np.allclose(found, distance_transform_edt(free), rtol=1e-6, atol=0)
