"""Corrupted masks to look at: every type of error on six synthetic lesions, in one picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import cv2
import numpy as np
from jaxtyping import UInt8

from ultrarefiner.data.atomic import atomic_path
from ultrarefiner.data.corruption import DEFAULT_PROBABILITIES, CorruptionConfig, corrupt
from ultrarefiner.report.overlay import outline_path
from ultrarefiner.report.panels import Mark, Panel, map_raster, paint_panel
from ultrarefiner.report.stages_gallery import check_picture_name
from ultrarefiner.shapes import Mask

_FRAME_HW = (224, 288)
_CELL_HW = (112, 144)
_GAP_PX, _LINE_PX, _FONT = 4, 15, 0.38
_PAPER, _INK = 255, (20, 24, 28)
_PICTURE_QUALITY = 80

_Colours = UInt8[np.ndarray, "H W 3"]
_Ellipse = tuple[tuple[int, int], tuple[int, int], int]

# Centre x, y, half axes and turn of the ellipses whose union is the lesion [px, degrees].
_SHAPES: Mapping[str, tuple[_Ellipse, ...]] = MappingProxyType(
    {
        "round": (((140, 108), (46, 40), 0),),
        "tiny": (((150, 110), (9, 7), 20),),
        "thin": (((140, 112), (92, 11), -12),),
        "lobulated": (
            ((118, 104), (38, 26), 20),
            ((152, 122), (30, 30), 0),
            ((160, 86), (22, 16), -40),
        ),
        "border": (((10, 108), (58, 44), 15),),
        "two parts": (((92, 92), (32, 26), 10), ((196, 138), (26, 20), -25)),
    }
)


def draw_lesions() -> dict[str, Mask]:
    """Return the six lesions by name; they cover 0.3 to 10 % of the frame."""
    lesions = {}
    for name, ellipses in _SHAPES.items():
        canvas = np.zeros(_FRAME_HW, dtype=np.uint8)
        for centre_xy, half_axes, turn in ellipses:
            cv2.ellipse(canvas, centre_xy, half_axes, turn, 0, 360, 1, -1)
        lesions[name] = canvas.astype(bool)
    return lesions


def write_corruption_picture(
    path: Path, *, seed: int, config: CorruptionConfig | None = None
) -> None:
    """Write a JPEG with a line for each type of error and a column for each lesion.

    Every cell is the corrupted map from 0 (dark) to 1 (bright) with the true outline.

    Args:
        path: ``.jpg`` to write.
        seed: of the series, >= 0.
        config: how large the errors are; each type is shown alone, whatever its share.

    Raises:
        ConfigError: the ending is another.
        OutputError: the file cannot be written.
    """
    path = Path(path)
    check_picture_name(path)
    config = config or CorruptionConfig()
    lesions = draw_lesions()
    rows = [_line(list(lesions))]
    for kind in DEFAULT_PROBABILITIES:
        alone = replace(config, probabilities={kind: 1.0}, secondary_probability=0.0)
        cells = [_cell(mask, alone, seed, number) for number, mask in enumerate(lesions.values())]
        rows += [np.hstack([_title(kind), *cells])]
    sheet = cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".jpg", sheet, [cv2.IMWRITE_JPEG_QUALITY, _PICTURE_QUALITY])
    assert done, "an 8-bit colour image always encodes"
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.tobytes())


def _cell(mask: Mask, config: CorruptionConfig, seed: int, index: int) -> _Colours:
    height, width = mask.shape
    probs = corrupt(mask, seed=seed, index=index, config=config).probs
    panel = Panel(
        title="",
        caption="",
        shown="",
        extent_wh=(width, height),
        rasters=(map_raster(probs, (0, 0, width, height)),),
        marks=(Mark(style="truth", path=outline_path(mask)),),
    )
    gap = ((0, _GAP_PX), (0, _GAP_PX), (0, 0))
    return np.pad(paint_panel(panel, _CELL_HW), gap, constant_values=_PAPER)


def _title(text: str) -> _Colours:
    """Return the head of a line."""
    return _text(text, (_CELL_HW[0] + _GAP_PX, _CELL_HW[1] // 2 + _GAP_PX), _CELL_HW[0] // 2)


def _line(names: list[str]) -> _Colours:
    """Return the heads of the columns."""
    width_px = _CELL_HW[1] + _GAP_PX
    first = _text("", (_LINE_PX, _CELL_HW[1] // 2 + _GAP_PX), _LINE_PX - 4)
    return np.hstack([first, *(_text(name, (_LINE_PX, width_px), _LINE_PX - 4) for name in names)])


def _text(text: str, hw: tuple[int, int], baseline_px: int) -> _Colours:
    part = np.full((*hw, 3), _PAPER, dtype=np.uint8)
    place = (1, baseline_px)
    cv2.putText(part, text, place, cv2.FONT_HERSHEY_SIMPLEX, _FONT, _INK, 1, cv2.LINE_AA)
    return part
