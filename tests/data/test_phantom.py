"""Phantoms: replayable, physically plausible speckle and shadows, and a truth nothing alters."""

from __future__ import annotations

import csv
from dataclasses import FrozenInstanceError, replace
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scipy.stats import kstest

from ultrarefiner.data.phantom import (
    Phantom,
    PhantomConfig,
    draw_phantom,
    render_scene,
    write_phantoms,
)
from ultrarefiner.data.phantom.breast_draw import draw_breast
from ultrarefiner.data.phantom.breast_echo import lesion_mask
from ultrarefiner.data.phantom.breast_scene import BreastScene, Lesion
from ultrarefiner.data.phantom.overlay import Target, burn_in
from ultrarefiner.data.phantom.scan import envelope, scan_image
from ultrarefiner.data.phantom.scene import Overlay, Scan
from ultrarefiner.errors import ConfigError, OutputError

_SMALL = PhantomConfig(height_px=(96, 180), width_px=(96, 180))
_SCAN = Scan(
    axial_mm=0.08,
    lateral_mm=0.2,
    focus_mm=15.0,
    num_looks=1,
    loss_db_per_mm=0.0,
    streak_db=0.0,
    noise_db=-60.0,
    dynamic_range_db=60.0,
    tissue_grey=120.0,
)


@cache
def _series() -> tuple[Phantom, ...]:
    return tuple(draw_phantom(11, index, _SMALL) for index in range(30))


def _scene(label: str, index: int, config: PhantomConfig = _SMALL) -> BreastScene:
    return draw_breast(np.random.default_rng([5, index]), label, config)


def _target(scene: BreastScene, lesion: Lesion) -> Target:
    return Target(mask=lesion_mask(scene, lesion), tilt_rad=lesion.tilt_rad)


def _around(mask: np.ndarray, width_px: int = 12) -> np.ndarray:
    kernel = np.ones((2 * width_px + 1, 2 * width_px + 1), np.uint8)
    return (cv2.dilate(mask.astype(np.uint8), kernel) > 0) & ~mask


# --- replay -----------------------------------------------------------------------------------


def test_the_same_arguments_give_the_same_bytes() -> None:
    first, again = draw_phantom(3, 4), draw_phantom(3, 4)
    assert first.image.tobytes() == again.image.tobytes()
    assert first.mask.tobytes() == again.mask.tobytes()
    assert (first.scene, first.patient, first.label) == (again.scene, again.patient, again.label)


@pytest.mark.parametrize(("seed", "index"), [(3, 5), (4, 4)])
def test_another_index_or_seed_gives_another_phantom(seed: int, index: int) -> None:
    assert draw_phantom(seed, index, _SMALL).scene != draw_phantom(3, 4, _SMALL).scene


def test_a_phantom_is_replayed_from_its_scene() -> None:
    phantom = _series()[0]
    image, mask = render_scene(phantom.scene)
    assert np.array_equal(image, phantom.image)
    assert np.array_equal(mask, phantom.mask)


@pytest.mark.parametrize(
    ("index", "area_px", "levels"),
    [
        (0, 4726, [[125.0, 119.7, 123.6], [98.7, 102.4, 106.8], [53.8, 41.7, 53.9]]),
        (1, 41386, [[125.7, 125.0, 130.4], [126.1, 127.7, 116.2], [90.4, 87.0, 80.3]]),
        (5, 4845, [[104.0, 96.6, 101.4], [62.5, 57.6, 66.9], [8.2, 4.2, 6.8]]),
    ],
)
def test_the_default_series_stays_what_it_was(
    index: int, area_px: int, levels: list[list[float]]
) -> None:
    """Published figures show these images; the tolerance is for another processor's rounding."""
    phantom = draw_phantom(0, index)
    blocks = [
        [block.mean() for block in np.array_split(band, 3, axis=1)]
        for band in np.array_split(phantom.image, 3, axis=0)
    ]
    assert np.allclose(blocks, levels, atol=0.2)
    assert int(phantom.mask.sum()) == pytest.approx(area_px, abs=2)


def test_the_global_generator_is_not_touched() -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    draw_phantom(0, 0, _SMALL)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


# --- truth ------------------------------------------------------------------------------------


def test_every_mask_is_inside_the_frame() -> None:
    for phantom in _series():
        assert phantom.image.dtype == np.uint8
        assert phantom.mask.dtype == np.bool_
        assert phantom.image.shape == phantom.mask.shape == phantom.scene.shape_hw
        assert phantom.mask.any()
        assert not phantom.mask[[0, -1]].any()
        assert not phantom.mask[:, [0, -1]].any()
        assert min(phantom.spacing_mm) > 0


@pytest.mark.parametrize(
    "config",
    [
        {"relative_radius": (0.05, 0.05), "lesion_count_probs": (0.0, 0.0, 1.0)},
        {"relative_radius": (0.3, 0.3), "malignant_probability": 1.0, "depth_mm": (15.0, 15.0)},
        {"depth_mm": (200.0, 200.0), "margin_blur_mm": (3.0, 3.0)},
    ],
    ids=["tiny", "huge", "coarse pixels"],
)
def test_extreme_frames_and_lesions_still_fit(config: dict[str, Any]) -> None:
    extreme = PhantomConfig(height_px=(64, 80), width_px=(64, 80), **config)
    for index in range(12):
        mask = draw_phantom(1, index, extreme).mask
        assert mask.any()
        assert not mask[[0, -1]].any()
        assert not mask[:, [0, -1]].any()


def test_one_to_three_lesions_that_do_not_touch() -> None:
    counts = {len(phantom.scene.lesions) for phantom in _series()}
    assert counts <= {1, 2, 3}
    assert len(counts) > 1
    for phantom in _series():
        parts = cv2.connectedComponents(phantom.mask.astype(np.uint8), connectivity=8)[0] - 1
        assert parts >= len(phantom.scene.lesions)


def test_three_lesions_when_asked_for() -> None:
    config = replace(_SMALL, lesion_count_probs=(0.0, 0.0, 1.0), relative_radius=(0.05, 0.07))
    assert len(draw_phantom(0, 0, config).scene.lesions) == 3


def test_both_labels_and_both_orientations_occur() -> None:
    assert {phantom.label for phantom in _series()} == {"benign", "malignant"}
    assert {np.sign(np.subtract(*phantom.image.shape)) for phantom in _series()} >= {-1, 1}


def test_form_follows_the_label() -> None:
    """Malignant margins are rougher, benign lesions are wider than tall."""
    for label, smooth in (("benign", True), ("malignant", False)):
        scenes = [_scene(label, index, PhantomConfig()) for index in range(12)]
        masks = [lesion_mask(scene, scene.lesions[0]).astype(np.uint8) for scene in scenes]
        outlines = [cv2.findContours(m, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0] for m in masks]
        largest = [max(found, key=cv2.contourArea) for found in outlines]
        solidity = [cv2.contourArea(o) / cv2.contourArea(cv2.convexHull(o)) for o in largest]
        assert bool(np.median(solidity) > 0.96) is smooth
        widths_over_heights = [
            s.lesions[0].semi_axes_mm[0] / s.lesions[0].semi_axes_mm[1] for s in scenes
        ]
        assert (min(widths_over_heights) >= 1.2) is smooth


def test_area_of_a_plain_ellipse() -> None:
    scene = _scene("benign", 0)
    lesion = replace(scene.lesions[0], lobes=(), spicules=())
    dy_mm, dx_mm = scene.spacing_mm
    area_mm2 = lesion_mask(scene, lesion).sum() * dy_mm * dx_mm
    assert area_mm2 == pytest.approx(np.pi * np.prod(lesion.semi_axes_mm), rel=0.03)


# --- echo -------------------------------------------------------------------------------------


def test_lesions_are_darker_than_their_surroundings() -> None:
    contrast = []
    for phantom in _series():
        image = render_scene(replace(phantom.scene, overlay=Overlay()))[0].astype(float)
        contrast.append(image[_around(phantom.mask)].mean() - image[phantom.mask].mean())
    assert np.mean(np.array(contrast) > 0) >= 0.9
    assert np.mean(contrast) > 20
    # Some are easy, some are hard.
    assert np.ptp(contrast) > 40


@pytest.mark.parametrize(("label", "sign"), [("benign", 1), ("malignant", -1)])
def test_posterior_echo_below_the_lesion(label: str, sign: int) -> None:
    """Against the same scene without it, the beams below are brighter or darker."""
    changes = []
    for index in range(8):
        scene = _scene(label, index)
        plain = tuple(replace(lesion, posterior_db=0.0) for lesion in scene.lesions)
        first = lesion_mask(scene, scene.lesions[0])
        rows, columns = np.nonzero(first)
        below = np.s_[rows.max() + 3 : rows.max() + 18, columns.min() + 4 : columns.max() - 3]
        with_it, without = render_scene(scene)[0], render_scene(replace(scene, lesions=plain))[0]
        changes.append(sign * (with_it[below].mean() - without[below].mean()))
    assert np.mean(changes) > 5
    assert min(changes) >= 0


def test_edge_shadows_darken_below_both_sides() -> None:
    scene = _scene("benign", 1)
    lesions = [
        replace(scene.lesions[0], posterior_db=0.0, edge_shadow_db=level) for level in (0.0, 8.0)
    ]
    plain, shaded = (
        render_scene(replace(scene, lesions=(lesion,), overlay=Overlay()))[0].astype(int)
        for lesion in lesions
    )
    columns = np.flatnonzero(lesion_mask(scene, lesions[0]).any(axis=0))
    loss = (plain - shaded).mean(axis=0)
    assert loss[columns[0]] > 1
    assert loss[columns[-1]] > 1
    assert loss[columns[0] : columns[-1]].min() < 0.5


# --- speckle ----------------------------------------------------------------------------------


def test_the_envelope_of_homogeneous_tissue_is_rayleigh() -> None:
    echo = np.zeros((400, 400), np.float32)
    amplitude = envelope(echo, _SCAN, (0.08, 0.08), np.random.default_rng(0))
    assert amplitude.mean() / amplitude.std() == pytest.approx(1.913, abs=0.06)
    assert (amplitude**2).mean() == pytest.approx(1.0, abs=0.05)
    # Samples further apart than the point spread function are independent.
    independent = amplitude[::6, ::24].ravel()
    assert kstest(independent, "rayleigh", args=(0, np.sqrt(0.5))).pvalue > 0.01


def test_the_mean_square_is_one_at_every_depth() -> None:
    echo = np.zeros((400, 800), np.float32)
    amplitude = envelope(echo, _SCAN, (0.08, 0.08), np.random.default_rng(1))
    bands = (amplitude**2).reshape(8, 50, 800).mean(axis=(1, 2))
    assert np.allclose(bands, 1.0, atol=0.12)


def test_speckle_is_wider_across_than_along_the_beam() -> None:
    amplitude = envelope(
        np.zeros((300, 300), np.float32), _SCAN, (0.08, 0.08), np.random.default_rng(2)
    )
    centred = amplitude - amplitude.mean()
    down, across = (centred[:-3] * centred[3:]).mean(), (centred[:, :-3] * centred[:, 3:]).mean()
    assert across > 3 * abs(down)


def test_looks_reduce_speckle_and_keep_the_level() -> None:
    echo = np.zeros((300, 300), np.float32)
    one, nine = (
        scan_image(echo, replace(_SCAN, num_looks=n), (0.08, 0.08), np.random.default_rng(3))
        for n in (1, 9)
    )
    assert nine.std() < 0.5 * one.std()
    assert nine.mean() == pytest.approx(one.mean(), abs=8)


def test_a_decibel_is_its_share_of_the_dynamic_range() -> None:
    grey = [
        scan_image(
            np.full((200, 200), level, np.float32), _SCAN, (0.08, 0.08), np.random.default_rng(4)
        ).mean()
        for level in (-12.0, 0.0)
    ]
    assert grey[1] - grey[0] == pytest.approx(12 * 255 / _SCAN.dynamic_range_db, abs=1.5)


# --- overlay ----------------------------------------------------------------------------------


def test_burnt_in_marks_never_alter_the_mask() -> None:
    marks = Overlay(calipers=True, dotted=True, text="LEFT BREAST", scale=True)
    for phantom in _series()[:5]:
        bare_image, bare_mask = render_scene(replace(phantom.scene, overlay=Overlay()))
        image, mask = render_scene(replace(phantom.scene, overlay=marks))
        assert np.array_equal(mask, bare_mask)
        assert (image != bare_image).any()


def test_burn_in_leaves_its_input_alone() -> None:
    scene = replace(_scene("benign", 0), overlay=Overlay(calipers=True, scale=True, text="X"))
    image = np.zeros(scene.shape_hw, np.uint8)
    marked = burn_in(image, scene, [_target(scene, lesion) for lesion in scene.lesions])
    assert not image.any()
    assert marked.any()


def test_calipers_sit_on_the_margin() -> None:
    scene = _scene("benign", 0, replace(PhantomConfig(), lesion_count_probs=(1.0, 0.0, 0.0)))
    scene = replace(scene, overlay=Overlay(calipers=True))
    mask = lesion_mask(scene, scene.lesions[0])
    target = _target(scene, scene.lesions[0])
    marked = burn_in(np.zeros(scene.shape_hw, np.uint8), scene, [target]) > 0
    margin = _around(mask, 8) | (mask & ~(cv2.erode(mask.astype(np.uint8), np.ones((17, 17))) > 0))
    assert (marked & margin).sum() > 0.6 * marked.sum()


# --- config -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("height_px", (10, 300)),
        ("width_px", (300, 200)),
        ("width_px", (64, 64)),
        ("depth_mm", (0.0, 30.0)),
        ("relative_radius", (0.1, 0.6)),
        ("contrast_db", (-1.0, 3.0)),
        ("margin_blur_mm", (0.0, 0.2)),
        ("posterior_db", (5.0, float("nan"))),
        ("dynamic_range_db", (1.0, 60.0)),
        ("num_looks", (0, 2)),
        ("lesion_count_probs", (0.5, 0.2, 0.2)),
        ("lesion_count_probs", (1.5, -0.5, 0.0)),
        ("malignant_probability", 1.5),
        ("caliper_probability", -0.1),
        ("text_probability", float("nan")),
        ("scale_probability", 2.0),
        ("images_per_patient", 0),
    ],
)
def test_a_setting_out_of_range_is_named(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=name):
        PhantomConfig(**{name: value})


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        PhantomConfig().depth_mm = (1.0, 2.0)  # type: ignore[misc]


@pytest.mark.parametrize(("seed", "index"), [(-1, 0), (0, -1)])
def test_negative_numbers_are_refused(seed: int, index: int) -> None:
    with pytest.raises(ConfigError, match="seed" if seed < 0 else "index"):
        draw_phantom(seed, index)


def test_images_of_one_patient_share_its_label() -> None:
    config = replace(_SMALL, images_per_patient=3)
    phantoms = [draw_phantom(1, index, config) for index in range(12)]
    labels: dict[str, set[str]] = {}
    for phantom in phantoms:
        labels.setdefault(phantom.patient, set()).add(phantom.label)
    assert len(labels) == 4
    assert all(len(found) == 1 for found in labels.values())


# --- files ------------------------------------------------------------------------------------


def test_written_bytes_are_reproducible(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_phantoms(3, 7, tmp_path / folder, config=_SMALL)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.*"))
    assert len(files) == 10
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_the_manifest_names_what_was_written(tmp_path: Path) -> None:
    manifest = write_phantoms(2, 0, tmp_path, config=_SMALL)
    with manifest.open(newline="") as file:
        rows = list(csv.DictReader(file))
    header = "image,mask,patient,label,dataset,spacing_y_mm,spacing_x_mm,fold,split,duplicate_group"
    assert list(rows[0]) == header.split(",")
    for index, row in enumerate(rows):
        phantom = draw_phantom(0, index, _SMALL)
        image, mask, coarse = (
            cv2.imread(str(tmp_path / path), cv2.IMREAD_UNCHANGED)
            for path in (row["image"], row["mask"], row["image"].replace("images", "coarse"))
        )
        assert np.array_equal(image, phantom.image)
        assert np.array_equal(mask, phantom.mask * np.uint8(255))
        assert set(np.unique(coarse)) == {0, 255}
        assert not np.array_equal(coarse, mask)
        assert (row["patient"], row["label"]) == (phantom.patient, phantom.label)
        assert float(row["spacing_y_mm"]) == pytest.approx(phantom.spacing_mm[0], abs=1e-6)
        assert row["fold"] == row["split"] == row["duplicate_group"] == ""


def test_coarse_masks_can_be_left_out(tmp_path: Path) -> None:
    write_phantoms(1, 0, tmp_path, rough=False, config=_SMALL)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["images", "manifest.csv", "masks"]


def test_a_failed_run_leaves_no_manifest(tmp_path: Path) -> None:
    write_phantoms(1, 0, tmp_path, rough=False, config=_SMALL)
    (tmp_path / "coarse").write_text("a file where a folder should be")
    with pytest.raises(OutputError, match=r"cannot write .*phantom-0-0000"):
        write_phantoms(1, 0, tmp_path, config=_SMALL)
    assert not (tmp_path / "manifest.csv").exists()


def test_at_least_one_phantom(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="num"):
        write_phantoms(0, 0, tmp_path)
