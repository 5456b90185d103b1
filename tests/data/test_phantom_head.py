"""The head phantom: an ellipse of bone in the sector of a convex probe."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import cv2
import numpy as np
import pytest

from ultrarefiner.data.phantom import HeadConfig, Phantom, draw_phantom, render_scene
from ultrarefiner.data.phantom.head_echo import beam_grid, convert_scan
from ultrarefiner.data.phantom.head_scene import HeadScene
from ultrarefiner.data.phantom.scan import scan_image
from ultrarefiner.data.phantom.scene import Overlay
from ultrarefiner.errors import ConfigError


@cache
def _series() -> tuple[Phantom, ...]:
    return tuple(draw_phantom(8, index, HeadConfig()) for index in range(8))


def _scene(phantom: Phantom) -> HeadScene:
    assert isinstance(phantom.scene, HeadScene)
    return phantom.scene


def _bare(phantom: Phantom) -> np.ndarray:
    return render_scene(replace(phantom.scene, overlay=Overlay()))[0].astype(np.float64)


def _around(mask: np.ndarray, *, grow_px: int) -> np.ndarray:
    """The mask, larger or (for a negative number) smaller by so many pixels."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * abs(grow_px) + 1,) * 2)
    change = cv2.dilate if grow_px > 0 else cv2.erode
    return change(mask.astype(np.uint8), kernel) > 0


def test_the_truth_is_the_ellipse_of_the_scene() -> None:
    for phantom in _series():
        skull = _scene(phantom).skull
        dy_mm, dx_mm = phantom.spacing_mm
        area_mm2 = phantom.mask.sum() * dy_mm * dx_mm
        assert area_mm2 == pytest.approx(np.pi * np.prod(skull.semi_axes_mm), rel=0.01)
        contours, _ = cv2.findContours(
            phantom.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
        )
        assert len(contours) == 1
        axes_px = sorted(cv2.fitEllipse(contours[0])[1])
        expected = sorted(2 * axis / dy_mm for axis in skull.semi_axes_mm)
        assert np.allclose(np.add(axes_px, 1), expected, atol=1.5)


def test_size_follows_the_trimester() -> None:
    config = HeadConfig()
    for phantom in _series():
        bpd_mm = 2 * _scene(phantom).skull.semi_axes_mm[1]
        third = phantom.label == "third-trimester"
        low, high = config.third_bpd_mm if third else config.second_bpd_mm
        assert low <= bpd_mm <= high


def test_outside_the_sector_it_is_black_and_the_head_is_inside() -> None:
    for phantom in _series():
        scene = _scene(phantom)
        ones = np.full(beam_grid(scene).shape_hw, 200, np.uint8)
        field = convert_scan(ones, scene) == 200
        assert 0.4 < field.mean() < 0.98
        assert not _bare(phantom)[~field].any()
        assert field[_around(phantom.mask, grow_px=2)].all()


def test_scan_conversion_keeps_places() -> None:
    """A point at a known depth and angle lands where geometry says."""
    scene = _scene(_series()[0])
    grid, sector = beam_grid(scene), scene.sector
    beams = np.zeros(grid.shape_hw, np.uint8)
    row, column = grid.shape_hw[0] // 2, grid.shape_hw[1] // 4
    beams[row - 2 : row + 3, column - 2 : column + 3] = 255
    ys, xs = np.nonzero(convert_scan(beams, scene) > 128)
    angle = (2 * (column + 0.5) / grid.shape_hw[1] - 1) * sector.half_angle_rad
    range_mm = sector.radius_mm + (row + 0.5) * grid.spacing_mm[0]
    x_mm = sector.centre_xy_mm[0] + range_mm * np.sin(angle)
    y_mm = sector.centre_xy_mm[1] + range_mm * np.cos(angle)
    spacing_mm = scene.spacing_mm[0]
    assert (xs.mean() + 0.5) * spacing_mm == pytest.approx(x_mm, abs=spacing_mm)
    assert (ys.mean() + 0.5) * spacing_mm == pytest.approx(y_mm, abs=spacing_mm)


def test_speckle_widens_with_depth() -> None:
    """Beams spread, so that grain of one angle is wider in mm the deeper it is."""
    scene = _scene(_series()[0])
    grid = beam_grid(scene)
    scan = replace(scene.scan, num_looks=1, noise_db=-60.0)
    flat = np.zeros(grid.shape_hw, np.float32)
    beams = scan_image(flat, scan, grid.spacing_mm, np.random.default_rng(0))
    picture = convert_scan(beams, scene).astype(float)
    height, width = picture.shape
    middle = slice(int(0.4 * width), int(0.6 * width))
    kept = []
    for top in (int(0.25 * height), int(0.85 * height)):
        band = picture[top : top + height // 10, middle]
        band = band - band.mean()
        kept.append((band[:, :-4] * band[:, 4:]).mean() / band.var())
    assert kept[1] > kept[0] + 0.05


def test_the_skull_is_brighter_than_both_sides_and_drops_out_where_the_beam_grazes() -> None:
    across, along = [], []
    for phantom in _series():
        scene, image = _scene(phantom), _bare(phantom)
        skull, dy_mm = scene.skull, phantom.spacing_mm[0]
        bone_px = max(2, round(skull.thickness_mm / dy_mm))
        ring = phantom.mask & ~_around(phantom.mask, grow_px=-bone_px)
        brain = _around(phantom.mask, grow_px=-3 * bone_px)
        assert image[ring].mean() > image[brain].mean() + 15
        ys, xs = np.nonzero(ring)
        u = np.cos(skull.tilt_rad) * (xs * dy_mm - skull.centre_xy_mm[0])
        u += np.sin(skull.tilt_rad) * (ys * dy_mm - skull.centre_xy_mm[1])
        share = np.abs(u) / skull.semi_axes_mm[0]
        across.append(image[ys, xs][share < 0.3].mean())
        along.append(image[ys, xs][share > 0.95].mean())
    assert np.mean(across) > np.mean(along) + 20


def test_the_midline_is_seen() -> None:
    gains = []
    for phantom in _series():
        scene = _scene(phantom)
        brain = replace(scene.brain, midline_db=0.0)
        without = render_scene(replace(scene, brain=brain))[0].astype(float)
        gains.append((phantom.image.astype(float) - without)[phantom.mask].max())
    assert min(gains) > 15


def test_a_grazed_skull_throws_shadows_below_its_sides() -> None:
    scene = _scene(_series()[0])
    clear, shaded = (
        render_scene(replace(scene, overlay=Overlay(), skull=replace(scene.skull, **loss)))[0]
        for loss in ({"loss_db_per_mm": 0.0}, {"loss_db_per_mm": 1.4})
    )
    darker = clear.astype(float) - shaded
    above = np.arange(clear.shape[0]) * scene.spacing_mm[0] < (
        scene.skull.centre_xy_mm[1] - 1.3 * scene.skull.semi_axes_mm[0]
    )
    assert not darker[above].any()
    assert darker[~above].mean() > 1
    assert darker.max() > 20


@pytest.mark.parametrize(
    "settings",
    [
        {"depth_share": (0.8, 0.8), "third_probability": 1.0},
        {"tilt_std_rad": 2.0, "cephalic_index": (0.6, 0.6)},
        {"height_px": (64, 64), "width_px": (64, 64)},
        {"height_px": (64, 64), "width_px": (400, 400)},
    ],
    ids=["large", "turned", "tiny", "wide"],
)
def test_extreme_heads_still_fit(settings: dict[str, Any]) -> None:
    for index in range(6):
        phantom = draw_phantom(1, index, HeadConfig(**settings))
        assert phantom.mask.any()
        assert not phantom.mask[[0, -1]].any()
        assert not phantom.mask[:, [0, -1]].any()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("second_bpd_mm", (5.0, 30.0)),
        ("third_bpd_mm", (90.0, 80.0)),
        ("cephalic_index", (0.5, 0.8)),
        ("depth_share", (0.5, 0.9)),
        ("tilt_std_rad", -0.1),
        ("third_probability", 1.1),
    ],
)
def test_a_setting_out_of_range_is_named(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=name):
        HeadConfig(**{name: value})
