"""A picture with vectors on it, for a page as SVG, for a sheet as pixels; both from one source."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from ultrarefiner.report.overlay import jpeg_data_uri
from ultrarefiner.shapes import GreyImage

_JPEG_QUALITY = 82
_POINT = 0.024  # half size of a point's mark, of the picture's longer side
_BESIDE = 235  # grey level of what a cell holds beside its panel
# Okabe and Ito's colours by style; the page's style sheet has the same.
_COLOURS_RGB = {
    "truth": (255, 255, 255),
    "coarse": (230, 159, 0),
    "refined": (86, 180, 233),
    "box": (204, 121, 167),
    "first-box": (204, 121, 167),
    "window": (240, 228, 66),
    "positive": (0, 214, 143),
    "negative": (255, 110, 40),
}
_BOLD = ("refined", "positive", "negative")

Pixels: TypeAlias = UInt8[np.ndarray, "h w 3"] | UInt8[np.ndarray, "h w 4"]
Box: TypeAlias = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True, eq=False)
class Raster:
    """Pixels laid over a box of a panel.

    Attributes:
        pixels: ``h w 3`` RGB or ``h w 4`` RGBA, 8 bits.
        box_xyxy: where their outer edges lie [px of the panel]; may reach beyond it.
        key: name under which several panels share them; empty if they are in one alone.
    """

    pixels: Pixels
    box_xyxy: Box
    key: str = ""

    @cached_property
    def address(self) -> str:
        """The pixels as a ``data:`` address: JPEG, or PNG where they are translucent."""
        if self.pixels.shape[-1] == 4:
            done, data = cv2.imencode(".png", cv2.cvtColor(self.pixels, cv2.COLOR_RGBA2BGRA))
            kind = "png"
        elif (self.pixels == self.pixels[..., :1]).all():
            return jpeg_data_uri(self.pixels[..., 0].astype(np.float32) / 255)
        else:
            bgr = cv2.cvtColor(self.pixels, cv2.COLOR_RGB2BGR)
            done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
            kind = "jpeg"
        assert done, "OpenCV refused to encode 8-bit pixels"
        return f"data:image/{kind};base64," + base64.b64encode(data.tobytes()).decode("ascii")


@dataclass(frozen=True, kw_only=True)
class Mark:
    """Lines on a panel.

    Attributes:
        style: what they stand for; names a colour.
        path: SVG path data of M, L and Z alone [px of the panel].
    """

    style: str
    path: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Panel:
    """One picture.

    Attributes:
        title: what it is.
        caption: what there is to say of it; may be empty.
        shown: the same in words for those who cannot see it.
        extent_wh: columns and rows of its coordinate system [px].
        rasters: from the bottom up.
        marks: above them, from the bottom up.
    """

    title: str
    caption: str
    shown: str
    extent_wh: tuple[int, int]
    rasters: tuple[Raster, ...]
    marks: tuple[Mark, ...] = ()

    @property
    def drawn(self) -> tuple[Mark, ...]:
        """The marks that have a line."""
        return tuple(mark for mark in self.marks if mark.path)


def grey_raster(image: GreyImage, box_xyxy: Box, key: str = "") -> Raster:
    """Return grey levels in [0, 1] as a raster."""
    grey = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    return Raster(pixels=np.repeat(grey[..., None], 3, axis=-1), box_xyxy=box_xyxy, key=key)


def map_raster(values: Float[np.ndarray, "h w"], box_xyxy: Box) -> Raster:
    """Return values in [0, 1] as a raster in the colours of a map, dark to bright."""
    return Raster(pixels=colour_map(values), box_xyxy=box_xyxy)


def tint_raster(share: Float[np.ndarray, "h w"], style: str, box_xyxy: Box) -> Raster:
    """Return an even colour as a raster, as opaque as ``share`` in [0, 1]."""
    pixels = np.empty((*share.shape, 4), dtype=np.uint8)
    pixels[..., :3] = _COLOURS_RGB[style]
    pixels[..., 3] = np.rint(np.clip(share, 0, 1) * 255)
    return Raster(pixels=pixels, box_xyxy=box_xyxy)


def colour_map(values: Float[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Return the colour of values in [0, 1], RGB: viridis."""
    levels = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    bgr = cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS)
    rgb: UInt8[np.ndarray, "h w 3"] = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB).astype(np.uint8)
    return rgb


def box_path(box_xyxy: Box) -> str:
    """Return the outline of a box as path data."""
    x0, y0, x1, y1 = (f"{value:.1f}" for value in box_xyxy)
    return f"M{x0} {y0}L{x1} {y0}L{x1} {y1}L{x0} {y1}Z"


def point_path(x: float, y: float, extent_px: float, *, positive: bool) -> str:
    """Return the mark of a point as path data: a cross if positive, else a ring (of eight sides).

    Args:
        x: its place [px of the panel].
        y: the same.
        extent_px: longer side of the panel, which the mark's size follows [px].
        positive: whether the point is on the lesion.
    """
    radius = _POINT * extent_px
    if positive:
        across = f"M{x - radius:.1f} {y:.1f}L{x + radius:.1f} {y:.1f}"
        return across + f"M{x:.1f} {y - radius:.1f}L{x:.1f} {y + radius:.1f}"
    turns = np.arange(8) / 8 * 2 * np.pi
    ring = zip(x + radius * np.cos(turns), y + radius * np.sin(turns), strict=True)
    return "M" + "L".join(f"{u:.1f} {v:.1f}" for u, v in ring) + "Z"


def paint_panel(panel: Panel, cell_hw: tuple[int, int]) -> UInt8[np.ndarray, "H W 3"]:
    """Return a panel as RGB pixels, fitted into a cell and light grey beside it.

    Args:
        panel: what to paint.
        cell_hw: rows and columns of the cell [px].
    """
    width, height = panel.extent_wh
    canvas = np.zeros((height, width, 3), dtype=np.uint8)
    for raster in panel.rasters:
        canvas = _lay(canvas, raster)
    scale = min(cell_hw[0] / height, cell_hw[1] / width)
    size_wh = (max(1, int(width * scale)), max(1, int(height * scale)))
    small = cv2.resize(canvas, size_wh, interpolation=cv2.INTER_AREA)
    for mark in panel.drawn:
        _stroke(small, mark, scale)
    cell = np.full((*cell_hw, 3), _BESIDE, dtype=np.uint8)
    top, left = (cell_hw[0] - size_wh[1]) // 2, (cell_hw[1] - size_wh[0]) // 2
    cell[top : top + size_wh[1], left : left + size_wh[0]] = small
    return cell


def _lay(canvas: UInt8[np.ndarray, "H W 3"], raster: Raster) -> UInt8[np.ndarray, "H W 3"]:
    """Lay a raster over a canvas; what reaches beyond it is cut."""
    (x0, y0, x1, y1), (rows, cols) = raster.box_xyxy, raster.pixels.shape[:2]
    across, down = (x1 - x0) / cols, (y1 - y0) / rows
    place = np.array([[across, 0, x0 + (across - 1) / 2], [0, down, y0 + (down - 1) / 2]])
    opaque = np.full((rows, cols, 1), 255, np.uint8)
    pixels = raster.pixels
    rgba = pixels if pixels.shape[-1] == 4 else np.concatenate([pixels, opaque], axis=-1)
    size_wh = (canvas.shape[1], canvas.shape[0])
    colour = cv2.warpAffine(rgba[..., :3], place, size_wh, borderMode=cv2.BORDER_REPLICATE)
    share = cv2.warpAffine(rgba[..., 3], place, size_wh)[..., None] / 255
    blend = canvas + share * (colour.astype(np.float64) - canvas)
    laid: UInt8[np.ndarray, "H W 3"] = np.rint(blend).astype(np.uint8)
    return laid


def _stroke(canvas: UInt8[np.ndarray, "H W 3"], mark: Mark, scale: float) -> None:
    """Draw the lines of a mark, in place."""
    thickness = 2 if mark.style in _BOLD else 1
    for line, closed in _polylines(mark.path):
        points = np.rint((line * scale - 0.5) * 16).astype(np.int32)[:, None]
        colour = _COLOURS_RGB[mark.style]
        cv2.polylines(canvas, [points], closed, colour, thickness, cv2.LINE_AA, shift=4)


def _polylines(path: str) -> list[tuple[Float[np.ndarray, "N 2"], bool]]:
    """Return the lines of path data made of M, L and Z, and whether each is closed."""
    return [
        (np.array([point.split() for point in part.rstrip("Z").split("L")], float), part[-1] == "Z")
        for part in path.split("M")[1:]
    ]
