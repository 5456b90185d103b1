"""Rasters and lines lie where they should, in pixels as on the page."""

from __future__ import annotations

import base64

import cv2
import numpy as np
import pytest

from ultrarefiner.report.panels import (
    Mark,
    Panel,
    box_path,
    colour_map,
    grey_raster,
    map_raster,
    paint_panel,
    point_path,
    tint_raster,
)


def test_a_raster_fills_its_box_and_nothing_else() -> None:
    white = grey_raster(np.ones((2, 3), np.float32), (10, 20, 40, 30))
    panel = Panel(title="", caption="", shown="", extent_wh=(60, 50), rasters=(white,))
    painted = paint_panel(panel, (50, 60))
    rows, cols = np.nonzero(painted[..., 0] > 127)
    assert (rows.min(), rows.max(), cols.min(), cols.max()) == (20, 29, 10, 39)


def test_what_reaches_beyond_the_panel_is_cut() -> None:
    ramp = np.linspace(0, 1, 8, dtype=np.float32)[None].repeat(4, axis=0)
    panel = Panel(
        title="", caption="", shown="", extent_wh=(4, 4),
        rasters=(grey_raster(ramp, (-4, 0, 4, 4)),),
    )  # fmt: skip
    assert np.allclose(paint_panel(panel, (4, 4))[0, :, 0], ramp[0, 4:] * 255, atol=1)


def test_a_tint_is_as_opaque_as_it_says() -> None:
    black = grey_raster(np.zeros((4, 4), np.float32), (0, 0, 4, 4))
    share = np.array([[0.0, 0.5], [1.0, 1.0]], np.float32).repeat(2, 0).repeat(2, 1)
    tint = tint_raster(share, "truth", (0, 0, 4, 4))
    panel = Panel(title="", caption="", shown="", extent_wh=(4, 4), rasters=(black, tint))
    assert np.allclose(paint_panel(panel, (4, 4))[..., 0], share * 255, atol=1)


def test_lines_are_where_the_page_has_them() -> None:
    mark = Mark(style="box", path=box_path((10, 10, 20, 30)))
    panel = Panel(title="", caption="", shown="", extent_wh=(40, 40), rasters=(), marks=(mark,))
    red = paint_panel(panel, (80, 80))[..., 0].astype(int)
    rows, cols = np.nonzero(red > 30)
    assert (rows.min() + rows.max() + 1) / 2 == pytest.approx(40, abs=1)
    assert (cols.min() + cols.max() + 1) / 2 == pytest.approx(30, abs=1)
    assert red[40, 30] == 0


def test_a_panel_of_another_shape_is_centred_in_its_cell() -> None:
    black = grey_raster(np.zeros((4, 8), np.float32), (0, 0, 8, 4))
    panel = Panel(title="", caption="", shown="", extent_wh=(8, 4), rasters=(black,))
    painted = paint_panel(panel, (16, 16))
    assert (painted[4:12] == 0).all()
    assert (painted[[0, 3, 12, 15]] > 200).all()


def test_points_differ_in_form() -> None:
    positive = point_path(5, 5, 100, positive=True)
    negative = point_path(5, 5, 100, positive=False)
    assert "Z" not in positive
    assert negative.endswith("Z")


def test_addresses_decode_to_the_pixels() -> None:
    values = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    opaque = map_raster(values, (0, 0, 1, 1)).address
    clear = tint_raster(values, "refined", (0, 0, 1, 1)).address
    assert opaque.startswith("data:image/jpeg;base64,")
    assert clear.startswith("data:image/png;base64,")
    data = np.frombuffer(base64.b64decode(clear.partition(",")[2]), np.uint8)
    pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    assert pixels is not None
    assert np.array_equal(pixels[..., 3], np.rint(values * 255))
    assert pixels[0, 0, :3].tolist() == [233, 180, 86]  # BGR


def test_the_colours_of_maps_get_brighter() -> None:
    weights = np.array([0.299, 0.587, 0.114])
    brightness = colour_map(np.linspace(0, 1, 32)[None])[0] @ weights
    assert (np.diff(brightness) > 0).all()
