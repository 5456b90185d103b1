"""One case as a picture: a small JPEG below, gate, prompts and outlines of the masks above."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from ultrarefiner.report.cases import CaseImages
from ultrarefiner.report.gate_map import gate_data_uri
from ultrarefiner.shapes import GreyImage, Mask

_TOLERANCE_PX = 0.6  # how far a simplified outline may be from the pixel edges
_WINDOW_MARGIN = 0.25  # of the lesions' longer side, on each side
_MIN_WINDOW = 0.25  # of the image's longer side


@dataclass(frozen=True, kw_only=True)
class Detail:
    """How much of an image a JPEG keeps.

    Attributes:
        max_side_px: longest side; larger images are shrunk.
        quality: of the JPEG, 1 to 100.
    """

    max_side_px: int
    quality: int


FINE = Detail(max_side_px=512, quality=80)


@dataclass(frozen=True, kw_only=True)
class Overlay:
    """What the page needs to draw one case; all coordinates are native px.

    Attributes:
        jpeg: the image as a ``data:`` address.
        width_px: native width.
        height_px: native height.
        window: SVG ``viewBox`` around all lesions.
        truth: outline as SVG path data; empty if there is no truth or it has no pixel.
        coarse: the same of the coarse mask.
        refined: the same of the refined mask.
        boxes: outlines of the prompted boxes; empty if there are none.
        points_on: dots at the points prompted on the lesion, as path data of no length.
        points_beside: the same of those beside it.
        gate: the gate map as a ``data:`` address; empty if the run did not keep it.
        gate_low: least gate; None without a map.
        gate_high: greatest gate.
    """

    jpeg: str
    width_px: int
    height_px: int
    window: str
    truth: str
    coarse: str
    refined: str
    boxes: str
    points_on: str
    points_beside: str
    gate: str
    gate_low: float | None
    gate_high: float | None


def draw_overlay(images: CaseImages, detail: Detail = FINE) -> Overlay:
    """Return the picture of one case."""
    gate = images.gate
    height_px, width_px = images.image.shape
    masks = [m for m in (images.coarse, images.refined, images.truth) if m is not None]
    return Overlay(
        jpeg=jpeg_data_uri(images.image, detail),
        width_px=width_px,
        height_px=height_px,
        window=" ".join(f"{value:g}" for value in lesion_window(masks)),
        truth="" if images.truth is None else outline_path(images.truth),
        coarse=outline_path(images.coarse),
        refined=outline_path(images.refined),
        boxes="".join(
            f"M{x0:.1f} {y0:.1f}H{x1:.1f}V{y1:.1f}H{x0:.1f}Z"
            for x0, y0, x1, y1 in images.boxes_xyxy
        ),
        points_on=_dots(images, label=1),
        points_beside=_dots(images, label=0),
        gate="" if gate is None else gate_data_uri(gate),
        gate_low=None if gate is None else float(gate.min()),
        gate_high=None if gate is None else float(gate.max()),
    )


def _dots(images: CaseImages, *, label: int) -> str:
    """Return the points of a label as subpaths of no length, which round line ends make dots."""
    labelled = zip(images.points_xy, images.point_labels, strict=True)
    return "".join(f"M{x:.1f} {y:.1f}h0" for (x, y), own in labelled if own == label)


def jpeg_data_uri(image: GreyImage, detail: Detail = FINE) -> str:
    """Return the image as an embedded grey JPEG."""
    height_px, width_px = image.shape
    scale = min(1.0, detail.max_side_px / max(height_px, width_px))
    size = (max(1, round(width_px * scale)), max(1, round(height_px * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    grey = np.rint(np.clip(small, 0, 1) * 255).astype(np.uint8)
    done, data = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, detail.quality])
    assert done, "OpenCV refused to encode an 8-bit grey image"
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")


def outline_path(mask: Mask) -> str:
    """Return the outline of a mask, holes included, as SVG path data.

    It runs along pixel edges, so that a filled outline covers the mask's own pixels: border
    following on a grid of half pixels, where each mask pixel fills its corners too, gives edges
    rather than pixel centres. Simplified by less than a pixel (Douglas-Peucker).

    Args:
        mask: binary mask.

    Returns:
        Path data in px of the mask's grid, pixel i reaching from i to i + 1; empty for an
        empty mask.

    Example:
        >>> outline_path(np.array([[False, False], [False, True]]))
        'M1 1L1 2L2 2L2 1Z'
    """
    halves = np.zeros([2 * side + 1 for side in mask.shape], dtype=np.uint8)
    halves[1::2, 1::2] = mask
    corners = cv2.dilate(halves, np.ones((3, 3), dtype=np.uint8))
    contours, _ = cv2.findContours(corners, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    simple = (cv2.approxPolyDP(contour, 2 * _TOLERANCE_PX, closed=True) for contour in contours)
    return "".join(
        "M" + "L".join(f"{x / 2:g} {y / 2:g}" for x, y in polygon.reshape(-1, 2)) + "Z"
        for polygon in simple
    )


def lesion_window(masks: Iterable[Mask]) -> tuple[int, int, int, int]:
    """Return the part of the image worth a close look: all masks, with a margin.

    Args:
        masks: at least one; all of one shape.

    Returns:
        ``(x, y, width, height)`` in px, square where the image allows it and inside the image;
        the whole image if no mask has a pixel.
    """
    union = np.logical_or.reduce(list(masks)).astype(np.uint8)
    height_px, width_px = union.shape
    x, y, w, h = cv2.boundingRect(union)
    if not w:
        return 0, 0, width_px, height_px
    long_px = max(height_px, width_px)
    side_px = round(max(max(w, h) * (1 + 2 * _WINDOW_MARGIN), _MIN_WINDOW * long_px))
    left, width = _span(x + w / 2, side_px, width_px)
    top, height = _span(y + h / 2, side_px, height_px)
    return left, top, width, height


def _span(centre_px: float, side_px: int, limit_px: int) -> tuple[int, int]:
    """Return start and length of a span about a centre, shifted or cut to lie in [0, limit]."""
    length = min(side_px, limit_px)
    return min(max(round(centre_px - length / 2), 0), limit_px - length), length
