"""Phantoms to look at: one page with every preset and its truth, and one small picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from ultrarefiner.data.atomic import atomic_path, write_text
from ultrarefiner.data.phantom import (
    COPY_KINDS,
    PRESETS,
    Phantom,
    Preset,
    copy_phantom,
    draw_phantom,
)
from ultrarefiner.errors import ConfigError
from ultrarefiner.report import wording
from ultrarefiner.report.inline import inline_files, open_templates
from ultrarefiner.report.overlay import jpeg_data_uri, outline_path

_MOST = 24  # phantoms of a preset, for the size of the page
_COPIED_PRESET = "breast"
_CELL_HW = (270, 360)
_GAP_PX = 6
_PICTURE_QUALITY = 82
# Okabe and Ito's colours, by the style of the outline.
_COLOURS_BGR = {
    "target": (233, 180, 86),
    "other-1": (0, 159, 230),
    "other-2": (167, 121, 204),
    "other-3": (255, 255, 255),
}

_Colours = UInt8[np.ndarray, "H W 3"]


@dataclass(frozen=True, kw_only=True)
class _Outline:
    name: str
    style: str
    path: str
    area_mm2: float


@dataclass(frozen=True, kw_only=True, eq=False)
class _Tile:
    """One phantom as the template wants it."""

    key: str
    title: str
    phantom: Phantom
    jpeg: str
    outlines: tuple[_Outline, ...]

    @property
    def size(self) -> str:
        height, width = self.phantom.image.shape
        return f"{width} × {height}"

    @property
    def extent(self) -> str:
        (height, width), (dy, dx) = self.phantom.image.shape, self.phantom.spacing_mm
        return f"{width * dx:.0f} × {height * dy:.0f}"

    @property
    def spacing(self) -> str:
        down, across = (f"{step:.3f}" for step in self.phantom.spacing_mm)
        return across if down == across else f"{across} × {down}"

    @property
    def shown(self) -> str:
        """What the picture shows, in words for those who cannot see it."""
        names = ", ".join(outline.name for outline in self.outlines)
        return f"{self.title}, synthetic {self.phantom.scene.preset} ultrasound with {names}"


def write_phantom_gallery(path: Path, *, seed: int, num_per_preset: int) -> None:
    """Write one self-contained HTML page that shows phantoms of every preset.

    Each is shown plain and with the outlines of its classes; below them, one phantom with each
    kind of near duplicate. The page runs no script and loads nothing.

    Args:
        path: HTML file to write.
        seed: series to draw from, >= 0.
        num_per_preset: how many of each, in [1, 24].

    Raises:
        ConfigError: seed or number is out of range.
        OutputError: the file cannot be written.
    """
    write_text(Path(path), render_phantom_gallery(seed=seed, num_per_preset=num_per_preset))


def render_phantom_gallery(*, seed: int, num_per_preset: int) -> str:
    """Return the page of :func:`write_phantom_gallery`; the same arguments give the same text.

    Args:
        seed: series to draw from, >= 0.
        num_per_preset: how many of each, in [1, 24].

    Raises:
        ConfigError: seed or number is out of range.
    """
    _check_number(num_per_preset)
    sections = [
        (name, PRESETS[name], [_draw_tile(name, seed, i) for i in range(num_per_preset)])
        for name in PRESETS
    ]
    return (
        open_templates()
        .get_template("phantom_gallery.html.j2")
        .render(
            css=inline_files("page.css", "gallery.css", "phantom_gallery.css"),
            seed=seed,
            sections=sections,
            copies=_draw_copies(seed),
            counted=wording.counted,
            styled=_styles,
        )
    )


def write_phantom_picture(path: Path, *, seed: int, num_per_preset: int) -> None:
    """Write a JPEG with a row of phantoms for each preset, the last of them with its outlines.

    Args:
        path: ``.jpg`` to write.
        seed: series to draw from, >= 0.
        num_per_preset: how many of each, in [1, 24].

    Raises:
        ConfigError: seed or number is out of range, or the ending is another.
        OutputError: the file cannot be written.
    """
    _check_number(num_per_preset)
    path = Path(path)
    if path.suffix != ".jpg":
        raise ConfigError(f"cannot write {path}", expected=".jpg", found=path.suffix or "no ending")
    rows = []
    for name in PRESETS:
        config = PRESETS[name].config()
        phantoms = [draw_phantom(seed, index, config) for index in range(num_per_preset)]
        cells = [_cell(np.repeat(p.image[..., None], 3, axis=-1)) for p in phantoms]
        rows.append(np.hstack([*cells, _cell(_outlined(phantoms[-1]))]))
    done, data = cv2.imencode(".jpg", np.vstack(rows), [cv2.IMWRITE_JPEG_QUALITY, _PICTURE_QUALITY])
    assert done, "an 8-bit colour image always encodes"
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.tobytes())


def _check_number(num_per_preset: int) -> None:
    if not 1 <= num_per_preset <= _MOST:
        raise ConfigError(
            "num_per_preset", expected=f"a value in [1, {_MOST}]", found=f"{num_per_preset}"
        )


def _draw_tile(name: str, seed: int, index: int) -> _Tile:
    phantom = draw_phantom(seed, index, PRESETS[name].config())
    return _tile(phantom, key=f"{name}-{index}", title=f"{PRESETS[name].series}-{seed}-{index:04d}")


def _draw_copies(seed: int) -> list[_Tile]:
    """One phantom, and each kind of near duplicate of it."""
    phantom = draw_phantom(seed, 0, PRESETS[_COPIED_PRESET].config())
    rng = np.random.default_rng(seed)
    copies = [_tile(phantom, key="copy-none", title="original")]
    for kind in COPY_KINDS:
        copies.append(_tile(copy_phantom(phantom, kind, rng), key=f"copy-{kind}", title=kind))
    return copies


def _tile(phantom: Phantom, *, key: str, title: str) -> _Tile:
    preset = PRESETS[phantom.scene.preset]
    dy_mm, dx_mm = phantom.spacing_mm
    outlines = []
    for value, name, style in _styles(preset):
        pixels = phantom.classes == value
        area_mm2 = int(pixels.sum()) * dy_mm * dx_mm
        outlines.append(
            _Outline(name=name, style=style, path=outline_path(pixels), area_mm2=area_mm2)
        )
    return _Tile(
        key=key,
        title=title,
        phantom=phantom,
        jpeg=jpeg_data_uri((phantom.image / 255.0).astype(np.float32)),
        outlines=tuple(outlines),
    )


def _styles(preset: Preset) -> list[tuple[int, str, str]]:
    """Value, name and style of each class of a preset, the target last so that it lies on top."""
    others = [name for name in preset.class_names[1:] if name != preset.target]
    styles = [(preset.class_names.index(n), n, f"other-{i}") for i, n in enumerate(others, 1)]
    return [*styles, (preset.class_names.index(preset.target), preset.target, "target")]


def _outlined(phantom: Phantom) -> _Colours:
    """Colour picture with the outlines of the classes."""
    picture = cv2.cvtColor(phantom.image, cv2.COLOR_GRAY2BGR)
    for value, _, style in _styles(PRESETS[phantom.scene.preset]):
        pixels = (phantom.classes == value).astype(np.uint8)
        contours, _ = cv2.findContours(pixels, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, contours, -1, _COLOURS_BGR[style], 2)
    return picture.astype(np.uint8)


def _cell(picture: _Colours) -> _Colours:
    """Fit a colour picture into a cell of the sheet."""
    height, width = _CELL_HW
    scale = min(height / picture.shape[0], width / picture.shape[1])
    size_wh = (int(picture.shape[1] * scale), int(picture.shape[0] * scale))
    small = cv2.resize(picture, size_wh, interpolation=cv2.INTER_AREA)
    cell = np.zeros((height + _GAP_PX, width + _GAP_PX, 3), np.uint8)
    top, left = (height - size_wh[1]) // 2, (width - size_wh[0]) // 2
    cell[top : top + size_wh[1], left : left + size_wh[0]] = small
    return cell
