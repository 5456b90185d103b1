"""Write phantoms as files: images, masks, label maps, rough masks, copies, and the manifest."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from ultrarefiner.data.atomic import atomic_path
from ultrarefiner.data.manifest import Record, write_manifest
from ultrarefiner.data.phantom.breast_draw import BreastConfig
from ultrarefiner.data.phantom.config import SeriesConfig
from ultrarefiner.data.phantom.copies import CopyConfig, copy_phantom
from ultrarefiner.data.phantom.drawing import (
    COPY_STREAM,
    ROUGH_STREAM,
    Phantom,
    draw_phantom,
    stream,
)
from ultrarefiner.data.phantom.presets import PRESETS, Preset
from ultrarefiner.data.rough import roughen_mask
from ultrarefiner.data.writers import write_json
from ultrarefiner.errors import ConfigError, OutputError


def write_phantoms(
    num: int,
    seed: int,
    out_dir: Path,
    *,
    rough: bool = True,
    config: SeriesConfig | None = None,
    copies: CopyConfig | None = None,
) -> Path:
    """Write the first ``num`` phantoms of a series as PNG files with a manifest.

    ``images/STEM.png``, ``masks/STEM.png`` (0 or 255), ``coarse/STEM.png`` (a mediocre mask, 0 or
    255) and ``manifest.csv`` with paths relative to it. Where a preset has several classes, also
    ``classes/STEM.png`` (values 0, 1, ...) and ``classes.json`` with their names. With copies,
    ``duplicates.json`` names the pairs, which the manifest does not. The manifest is removed first
    and written last, so that where there is one, every file it names is complete.

    Args:
        num: how many, >= 1, the copies not counted.
        seed: series to draw from, >= 0.
        out_dir: folder, made if missing; files of the same name are replaced.
        rough: write the coarse masks too.
        config: preset and distribution of the series, default
            :class:`~ultrarefiner.data.phantom.BreastConfig`.
        copies: near duplicates to add after the others, default none.

    Returns:
        Path of the manifest.

    Raises:
        ConfigError: num or seed is out of range, or there are more copies than images.
        OutputError: a file cannot be written.
    """
    config, copies = config or BreastConfig(), copies or CopyConfig()
    for name, value, least in (("num", num, 1), ("seed", seed, 0)):
        if value < least:
            raise ConfigError(name, expected=f"a value >= {least}", found=str(value))
    if copies.num > num:
        raise ConfigError("copies", expected=f"at most {num}, one an image", found=f"{copies.num}")
    out_dir = Path(out_dir)
    manifest = _clear(out_dir)
    writer = _Writer(out_dir=out_dir, seed=seed, rough=rough, preset=PRESETS[config.preset])
    planned = _plan_copies(num, seed, copies)
    for index in range(num):
        phantom = draw_phantom(seed, index, config)
        writer.write_original(phantom, index)
        if index in planned:
            number, kind = planned[index]
            writer.write_copy(phantom, number, kind, same_patient=copies.same_patient)
    writer.write_notes()
    write_manifest(manifest, tuple(writer.originals + writer.copies))
    return manifest


def _clear(out_dir: Path) -> Path:
    """Remove what an earlier run said about its files, the manifest first; return its path."""
    manifest = out_dir / "manifest.csv"
    try:
        for path in (manifest, out_dir / "classes.json", out_dir / "duplicates.json"):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write phantoms to {out_dir}", found=str(error)) from error
    return manifest


def _plan_copies(num: int, seed: int, copies: CopyConfig) -> dict[int, tuple[int, str]]:
    """Return for each image that is copied the number and the kind of its copy."""
    chosen = stream(seed, num, COPY_STREAM).permutation(num)[: copies.num]
    kinds = copies.kinds
    return {int(i): (number, kinds[number % len(kinds)]) for number, i in enumerate(chosen)}


@dataclass(kw_only=True, eq=False)
class _Writer:
    """Writes the files of a series and remembers what it wrote."""

    out_dir: Path
    seed: int
    rough: bool
    preset: Preset
    originals: list[Record] = field(default_factory=list)
    copies: list[Record] = field(default_factory=list)
    pairs: list[dict[str, object]] = field(default_factory=list)

    def write_original(self, phantom: Phantom, index: int) -> None:
        stem = f"{self.preset.series}-{self.seed}-{index:04d}"
        rng = stream(self.seed, index, ROUGH_STREAM)
        self.originals.append(self._write(phantom, stem, rng))

    def write_copy(self, phantom: Phantom, number: int, kind: str, *, same_patient: bool) -> None:
        """Write a copy of the original that was written last."""
        stem = f"{self.preset.series}-{self.seed}-c{number:04d}"
        rng = stream(self.seed, number, COPY_STREAM)
        copy = copy_phantom(phantom, kind, rng)
        copy = copy if same_patient else replace(copy, patient=stem)
        self.copies.append(self._write(copy, stem, rng))
        names = [f"images/{written[-1].image.name}" for written in (self.originals, self.copies)]
        self.pairs.append({"images": names, "kind": kind})

    def write_notes(self) -> None:
        """Write what the manifest does not say: names of the classes, pairs of duplicates."""
        if self._has_classes:
            names = {"names": list(self.preset.class_names), "target": self.preset.target}
            write_json(self.out_dir / "classes.json", names)
        if self.pairs:
            write_json(self.out_dir / "duplicates.json", {"pairs": self.pairs})

    @property
    def _has_classes(self) -> bool:
        return len(self.preset.class_names) > 2

    def _write(self, phantom: Phantom, stem: str, rough_rng: np.random.Generator) -> Record:
        """Write the files of one phantom and return its manifest row."""
        name = f"{stem}.png"
        _write_png(self.out_dir / "images" / name, phantom.image)
        _write_png(self.out_dir / "masks" / name, phantom.mask)
        if self._has_classes:
            _write_png(self.out_dir / "classes" / name, phantom.classes)
        if self.rough:
            _write_png(self.out_dir / "coarse" / name, roughen_mask(phantom.mask, rough_rng))
        dy_mm, dx_mm = phantom.spacing_mm
        return Record(
            image=self.out_dir / "images" / name,
            mask=self.out_dir / "masks" / name,
            patient=phantom.patient,
            label=phantom.label,
            dataset=self.preset.series,
            spacing_mm=(round(dy_mm, 6), round(dx_mm, 6)),
        )


def _write_png(path: Path, image: UInt8[np.ndarray, "H W"] | Bool[np.ndarray, "H W"]) -> None:
    """Write grey levels, or a mask as 0 and 255."""
    grey = image.astype(np.uint8) * 255 if image.dtype == np.bool_ else image
    done, encoded = cv2.imencode(".png", grey)
    assert done, "a uint8 image always encodes"
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded.tobytes())
