"""Refinements to look at, stage by stage: one page, and one small picture of its synthetic part."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from ultrarefiner.data.atomic import atomic_path, write_text
from ultrarefiner.errors import ConfigError
from ultrarefiner.report import wording
from ultrarefiner.report.inline import inline_files, open_templates
from ultrarefiner.report.panels import Panel, Raster, map_raster, paint_panel
from ultrarefiner.report.stages import STAGES, ShownCase

_CELL_HW = (99, 132)
_GAP_PX, _LINE_PX, _FONT = 4, 15, 0.36
_PICTURE_QUALITY = 60
_IN_PICTURE = tuple(title for title in STAGES if title != "View")  # here the whole image
_PAPER, _INK = 255, (20, 24, 28)

LEGEND = (
    ("truth", "truth"),
    ("coarse", "coarse mask"),
    ("refined", "refined or final mask"),
    ("first-box", "box"),
    ("box", "its variations"),
    ("positive", "point on the lesion"),
    ("negative", "point beside it"),
    ("window", "window of the view"),
)
"""Style and meaning of every line on the page."""

_Colours = UInt8[np.ndarray, "H W 3"]


def write_stages_gallery(path: Path, shown: Sequence[ShownCase]) -> None:
    """Write one self-contained HTML page that shows every case, variant and stage.

    The page runs no script and loads nothing. It holds images of patients if the cases do.

    Args:
        path: HTML file to write.
        shown: the cases, in order; those of patients come first on the page.

    Raises:
        OutputError: the file cannot be written.
    """
    write_text(Path(path), render_stages_gallery(shown))


def render_stages_gallery(shown: Sequence[ShownCase]) -> str:
    """Return the page of :func:`write_stages_gallery`; the same cases give the same text."""
    sections = [
        ("images", "Real images", [case for case in shown if not case.case.is_synthetic]),
        ("shapes", "Hard shapes", [case for case in shown if case.case.is_synthetic]),
    ]
    environment = open_templates((wording.fixed, wording.signed))
    return environment.get_template("stages_gallery.html.j2").render(
        css=inline_files("page.css", "gallery.css", "stages_gallery.css"),
        sections=[section for section in sections if section[2]],
        counted=wording.counted,
        legend=LEGEND,
        scale=_colour_scale().address,
    )


def write_stages_picture(path: Path, shown: Sequence[ShownCase], variants: Sequence[str]) -> None:
    """Write a JPEG with the synthetic cases: a line of stages for each case and variant.

    Args:
        path: ``.jpg`` to write.
        shown: the cases; those of patients are left out.
        variants: names of the variants to show, at least one.

    Raises:
        ConfigError: no case is synthetic, or the ending is another.
        OutputError: the file cannot be written.
    """
    check_picture_name(path)
    synthetic = [case for case in shown if case.case.is_synthetic]
    if not synthetic:
        raise ConfigError(f"cannot write {path}", expected="a synthetic case", found="none")
    heads = _line([(title, 1) for title in ("Image and truth", *_IN_PICTURE)])
    sheet = np.vstack([heads, *(_rows(case, variants) for case in synthetic)])
    bgr = cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _PICTURE_QUALITY])
    assert done, "an 8-bit colour image always encodes"
    with atomic_path(Path(path)) as temporary:
        temporary.write_bytes(data.tobytes())


def check_picture_name(path: Path) -> None:
    """Refuse another ending than ``.jpg``, for those who would know before they refine.

    Raises:
        ConfigError: the ending is another.
    """
    found = Path(path).suffix
    if found != ".jpg":
        raise ConfigError(f"cannot write {path}", expected=".jpg", found=found or "no ending")


def _rows(shown: ShownCase, names: Sequence[str]) -> _Colours:
    """Return the lines of a case; the image stands in the first alone."""
    rows: list[_Colours] = []
    for variant in shown.variants:
        if variant.name in names:
            first = _blank() if rows else _cell(shown.panel)
            dsc = f"DSC {shown.dsc:.2f} to {variant.dsc:.2f}, {variant.reason}"
            rows.append(_line([(shown.case.name, 1), (f"{variant.name}: {dsc}", len(_IN_PICTURE))]))
            cells = [_cell(panel) for panel in variant.panels if panel.title in _IN_PICTURE]
            rows.append(np.hstack([first, *cells]))
    return np.vstack(rows)


def _cell(panel: Panel) -> _Colours:
    gap = ((0, _GAP_PX), (0, _GAP_PX), (0, 0))
    return np.pad(paint_panel(panel, _CELL_HW), gap, constant_values=_PAPER)


def _blank() -> _Colours:
    return np.full((_CELL_HW[0] + _GAP_PX, _CELL_HW[1] + _GAP_PX, 3), _PAPER, dtype=np.uint8)


def _line(texts: Sequence[tuple[str, int]]) -> _Colours:
    """Return a line of texts, each over a number of cells and cut where they end."""
    parts = []
    for text, num_cells in texts:
        width_px = num_cells * (_CELL_HW[1] + _GAP_PX)
        part = np.full((_LINE_PX, width_px, 3), _PAPER, dtype=np.uint8)
        place = (1, _LINE_PX - 4)
        cv2.putText(part, text, place, cv2.FONT_HERSHEY_SIMPLEX, _FONT, _INK, 1, cv2.LINE_AA)
        parts.append(part)
    return np.hstack(parts)


def _colour_scale() -> Raster:
    """Return the colours of the maps from 0 to 1."""
    return map_raster(np.linspace(0, 1, 128)[None].repeat(4, axis=0), (0, 0, 128, 4))
