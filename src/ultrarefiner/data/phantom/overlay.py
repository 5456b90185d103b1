"""Marks that a scanner burns into its pictures: calipers, text, depth scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from ultrarefiner.data.phantom.scene import Scene

_WHITE = 235
_DEEP_MM = 80.0  # from which the scale is drawn at half the density
_FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True, kw_only=True, eq=False)
class Target:
    """A thing that calipers measure.

    Attributes:
        mask: its pixels, at least one.
        tilt_rad: direction of its first axis, clockwise from the horizontal [rad].
    """

    mask: Bool[np.ndarray, "H W"]
    tilt_rad: float


def burn_in(
    image: UInt8[np.ndarray, "H W"], scene: Scene, targets: Sequence[Target]
) -> UInt8[np.ndarray, "H W"]:
    """Return the image with the scene's overlay drawn on it.

    Args:
        image: B-mode picture.
        scene: what was drawn, in the same frame.
        targets: what calipers measure.

    Returns:
        New image; the given one stays as it is.
    """
    marked = image.copy()
    overlay = scene.overlay
    lines = [overlay.text] if overlay.text else []
    if overlay.calipers:
        for number, target in enumerate(targets, 1):
            axes = _axis_ends(target)
            for start, end in axes:
                _caliper(marked, start, end, dotted=overlay.dotted)
            _write(marked, str(number), axes[0][0] + np.array([-18.0, -6.0]))
            lengths = "  ".join(f"{_length_mm(*ends, scene):.1f}mm" for ends in axes)
            lines.append(f"D{number} {lengths}")
    if overlay.text:
        _text_block(marked, lines, at_top=overlay.text_at_top)
    if overlay.scale:
        _scale(marked, scene.spacing_mm[0])
    return marked


def _axis_ends(target: Target) -> list[tuple[Float[np.ndarray, "2"], Float[np.ndarray, "2"]]]:
    """Ends (xy, px) of the target's extent along its two axes, through its centroid."""
    points = np.argwhere(target.mask)[:, ::-1].astype(np.float64)
    centre = points.mean(axis=0)
    cos, sin = np.cos(target.tilt_rad), np.sin(target.tilt_rad)
    ends = []
    for axis in (np.array([cos, sin]), np.array([-sin, cos])):
        along = (points - centre) @ axis
        ends.append((centre + along.min() * axis, centre + along.max() * axis))
    return ends


def _length_mm(start: Float[np.ndarray, "2"], end: Float[np.ndarray, "2"], scene: Scene) -> float:
    dy_mm, dx_mm = scene.spacing_mm
    return float(np.hypot((end[0] - start[0]) * dx_mm, (end[1] - start[1]) * dy_mm))


def _caliper(
    image: UInt8[np.ndarray, "H W"],
    start: Float[np.ndarray, "2"],
    end: Float[np.ndarray, "2"],
    *,
    dotted: bool,
) -> None:
    arm_px = max(3, round(0.011 * max(image.shape)))
    for x, y in (start, end):
        centre = (round(float(x)), round(float(y)))
        cv2.drawMarker(image, centre, _WHITE, cv2.MARKER_CROSS, 2 * arm_px)
    if dotted:
        for share in np.arange(0.0, 1.0, 6.0 / max(float(np.linalg.norm(end - start)), 6.0)):
            x, y = np.rint(start + share * (end - start)).astype(int)
            cv2.circle(image, (int(x), int(y)), 0, _WHITE)


def _write(image: UInt8[np.ndarray, "H W"], text: str, xy: Float[np.ndarray, "2"]) -> None:
    scale = 0.42 * max(image.shape) / 500
    x, y = np.rint(xy).astype(int)
    cv2.putText(image, text, (int(x), int(y)), _FONT, scale, _WHITE, 1, cv2.LINE_AA)


def _text_block(image: UInt8[np.ndarray, "H W"], lines: list[str], *, at_top: bool) -> None:
    height, width = image.shape
    line_px = 0.036 * max(image.shape)
    top_px = line_px if at_top else height - line_px * (len(lines) - 0.5)
    for row, line in enumerate(lines):
        _write(image, line, np.array([0.03 * width, top_px + row * line_px]))


def _scale(image: UInt8[np.ndarray, "H W"], dy_mm: float) -> None:
    """Ticks, every other one longer and numbered in cm, and a bar of all grey levels."""
    height, width = image.shape
    step_mm = 5.0 if height * dy_mm < _DEEP_MM else 10.0
    for number, row in enumerate(np.arange(step_mm, height * dy_mm, step_mm) / dy_mm, start=1):
        is_long = number % 2 == 0
        length = 8 if is_long else 4
        cv2.line(image, (width - length, round(row)), (width - 1, round(row)), _WHITE)
        if is_long:
            text = f"{number * step_mm / 10:.0f}"
            _write(image, text, np.array([width - 12.0 - 8.0 * len(text), row + 4.0]))
    levels = np.linspace(255, 0, height // 4).astype(np.uint8)
    image[height // 20 :][: len(levels), width - 16 : width - 8] = levels[:, None]
