"""The shoulder phantom: anatomy in its order, a tear in its tendon, sound that ends at bone."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import cv2
import numpy as np
import pytest

from ultrarefiner.data.phantom import MskConfig, Phantom, draw_phantom, render_scene
from ultrarefiner.data.phantom.msk_scene import MskScene
from ultrarefiner.data.phantom.msk_shape import (
    BONE,
    MUSCLE,
    TEAR,
    TENDON,
    bone_depth_mm,
    find_surfaces,
    height_in_tendon,
    tendon_mask,
)
from ultrarefiner.data.phantom.scene import Overlay
from ultrarefiner.errors import ConfigError

_EXTREMES: list[dict[str, Any]] = [
    {"tear_length_mm": (16.0, 16.0), "tendon_mm": (9.0, 9.0)},
    {"tear_length_mm": (3.0, 3.0), "tendon_mm": (3.0, 3.0)},
    {"depth_mm": (60.0, 60.0)},
    {"height_px": (64, 64), "width_px": (64, 80)},
]


@cache
def _series() -> tuple[Phantom, ...]:
    return tuple(draw_phantom(5, index, MskConfig()) for index in range(10))


def _scene(phantom: Phantom) -> MskScene:
    assert isinstance(phantom.scene, MskScene)
    return phantom.scene


def _bare(phantom: Phantom) -> np.ndarray:
    return render_scene(replace(phantom.scene, overlay=Overlay()))[0].astype(np.float64)


def test_in_every_column_muscle_lies_on_tendon_and_tendon_on_bone() -> None:
    for phantom in _series():
        rows = np.arange(phantom.classes.shape[0])[:, None]
        torn = (phantom.classes == TENDON) | (phantom.classes == TEAR)
        for above, below in (
            (phantom.classes == MUSCLE, torn),
            (torn, phantom.classes == BONE),
            (phantom.classes == MUSCLE, phantom.classes == BONE),
        ):
            lowest = np.where(above, rows, -1).max(axis=0)
            highest = np.where(below, rows, rows.size).min(axis=0)
            assert (lowest < highest).all()


def test_bone_goes_on_to_the_bottom_of_the_frame() -> None:
    for phantom in _series():
        bone = phantom.classes == BONE
        assert bone.any(axis=0).mean() > 0.7
        assert (np.diff(bone.astype(int), axis=0) >= 0).all()


def test_the_tear_is_a_part_of_the_tendon() -> None:
    """Filling it in gives the whole tendon again, which the surfaces alone define."""
    for phantom in _series():
        scene = _scene(phantom)
        shape_rng = np.random.default_rng(scene.noise_seed).spawn(3)[0]
        surfaces = find_surfaces(scene, shape_rng)
        whole = tendon_mask(surfaces, height_in_tendon(scene, surfaces))
        whole = whole[:, ::-1] if scene.mirrored else whole
        torn = (phantom.classes == TENDON) | (phantom.classes == TEAR)
        assert np.array_equal(torn, whole & (phantom.classes != BONE))
        beside = cv2.dilate(phantom.mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        assert (phantom.classes[beside] == TENDON).any()


def test_a_full_tear_cuts_the_tendon_and_a_partial_one_does_not() -> None:
    for phantom in _series():
        tendon, tear = phantom.classes == TENDON, phantom.classes == TEAR
        cut = (tear.any(axis=0) & ~tendon.any(axis=0)).any()
        assert bool(cut) is (phantom.label == "full-thickness")


def test_partial_tears_lie_on_the_joint_side_inside_and_on_the_bursal_side() -> None:
    sides = {
        round(_scene(phantom).tear.centre_height, 1)
        for phantom in (draw_phantom(9, i, _partial(i)) for i in range(12))
    }
    assert sides == {0.0, 0.5, 0.9}


def _partial(index: int) -> MskConfig:
    return MskConfig(
        full_thickness_probability=0.0, height_px=(100, 110 + index), width_px=(140, 150)
    )


def test_tears_and_muscle_are_darker_than_the_tendon_and_bone_ends_the_sound() -> None:
    contrasts = []
    for phantom in _series():
        image = _bare(phantom)
        near = cv2.dilate(phantom.mask.astype(np.uint8), np.ones((41, 41), np.uint8)) > 0
        tendon = image[near & (phantom.classes == TENDON)].mean()
        contrasts.append(tendon - image[phantom.mask].mean())
        bone = phantom.classes == BONE
        deep = cv2.erode(bone.astype(np.uint8), np.ones((61, 1), np.uint8)) > 0
        assert image[deep].mean() < 0.5 * image[phantom.classes == TENDON].mean()
        assert image[phantom.classes == MUSCLE].mean() < image[phantom.classes == TENDON].mean()
    assert min(contrasts) > 5
    assert np.mean(contrasts) > 25


def test_the_cortex_is_the_brightest_line() -> None:
    for phantom in _series()[:6]:
        image, bone = _bare(phantom), phantom.classes == BONE
        top = bone.argmax(axis=0)
        middle = np.arange(bone.shape[1])[bone.any(axis=0) & (top < bone.shape[0] * 0.6)]
        cortex = np.mean([image[top[c] : top[c] + 4, c].max() for c in middle])
        assert cortex > image[phantom.classes == TENDON].mean() + 30


def test_fibres_run_along_the_tendon() -> None:
    """On the flat part of the head, texture lasts longer across the picture than down it."""
    ratios = []
    for phantom in _series():
        scene = _scene(phantom)
        apex = int(scene.bone.apex_xy_mm[0] / scene.spacing_mm[1])
        apex = phantom.image.shape[1] - 1 - apex if scene.mirrored else apex
        columns = slice(max(apex - 30, 0), apex + 30)
        rows = np.flatnonzero((phantom.classes[:, columns] == TENDON).all(axis=1))
        if len(rows) < 20:
            continue
        patch = _bare(phantom)[rows[0] : rows[-1], columns]
        patch = patch - patch.mean()
        down = (patch[:-4] * patch[4:]).mean()
        across = (patch[:, :-12] * patch[:, 12:]).mean()
        ratios.append((across - down) / patch.var())
    assert len(ratios) > 4
    assert np.median(ratios) > 0.1


def test_fibres_that_turn_away_from_the_beam_are_darker() -> None:
    for phantom in _series()[:4]:
        scene = _scene(phantom)
        flat, steep = (
            render_scene(replace(scene, overlay=Overlay(), tendon=replace(scene.tendon, **loss)))[0]
            for loss in ({"anisotropy_db": 0.0}, {"anisotropy_db": 14.0})
        )
        loss = (flat.astype(float) - steep) * (phantom.classes == TENDON)
        apex = scene.bone.apex_xy_mm[0] / scene.spacing_mm[1]
        columns = np.arange(flat.shape[1])
        columns = columns[::-1] if scene.mirrored else columns
        near, far = np.abs(columns - apex) < 20, np.abs(columns - apex) > 90
        assert loss[:, far].sum() / (loss[:, far] != 0).sum() > 2
        assert abs(loss[:, near].sum()) / loss[:, near].size < 1


def test_mirroring_turns_everything_round() -> None:
    scene = replace(_scene(_series()[0]), overlay=Overlay())
    image, mask = render_scene(replace(scene, mirrored=False))
    mirrored_image, mirrored_mask = render_scene(replace(scene, mirrored=True))
    assert np.array_equal(mirrored_image, image[:, ::-1])
    assert np.array_equal(mirrored_mask, mask[:, ::-1])


def test_the_head_is_round_and_the_tuberosity_falls_off() -> None:
    scene = _scene(_series()[0])
    bone = replace(scene.bone, notch_mm=0.0)
    x_mm = bone.apex_xy_mm[0] + np.arange(-15.0, 40.0, 0.05)
    depth_mm = bone_depth_mm(bone, x_mm)
    head = (x_mm > x_mm[0] + 2) & (x_mm < bone.apex_xy_mm[0] + bone.neck_mm - 2)
    from_centre = np.hypot(
        x_mm - bone.apex_xy_mm[0], depth_mm - bone.apex_xy_mm[1] - bone.radius_mm
    )
    assert np.allclose(from_centre[head], bone.radius_mm, atol=0.05)
    slope = np.gradient(depth_mm, 0.05)
    assert slope[-100:].mean() == pytest.approx(bone.wall_slope, rel=0.05)


@pytest.mark.parametrize("settings", _EXTREMES)
def test_extreme_shoulders_still_have_every_class(settings: dict[str, Any]) -> None:
    for index in range(6):
        phantom = draw_phantom(2, index, MskConfig(**settings))
        assert set(np.unique(phantom.classes)) == {0, TENDON, TEAR, BONE, MUSCLE}
        assert not phantom.mask[[0, -1]].any()
        assert not phantom.mask[:, [0, -1]].any()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("depth_mm", (10.0, 30.0)),
        ("width_px", (200, 300)),
        ("tendon_mm", (1.0, 5.0)),
        ("tear_length_mm", (5.0, 40.0)),
        ("contrast_db", (0.0, 10.0)),
        ("margin_blur_mm", (0.0, 0.1)),
        ("full_thickness_probability", 2.0),
    ],
)
def test_a_setting_out_of_range_is_named(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=name):
        MskConfig(**{name: value})
