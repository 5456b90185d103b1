"""The manifest: one row per image, with its truth, patient, label, spacing and fold."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from ultrarefiner.data.atomic import write_text
from ultrarefiner.errors import InputError

COLUMNS = (
    "image",
    "mask",
    "patient",
    "label",
    "dataset",
    "spacing_y_mm",
    "spacing_x_mm",
    "fold",
    "split",
    "duplicate_group",
)


@dataclass(frozen=True, kw_only=True)
class Record:
    """One row of a manifest.

    Attributes:
        image: path of the image.
        mask: path of its true mask, if there is one.
        patient: whose image it is; empty if unknown.
        label: class of the lesion, such as ``benign``; empty if unknown.
        dataset: where it comes from.
        spacing_mm: (dy, dx) mm per px, if known.
        fold: cross-validation fold; empty if none.
        split: ``train``, ``val`` or ``test``; empty if none.
        duplicate_group: images of one scene share a group; empty if none.
    """

    image: Path
    mask: Path | None = None
    patient: str = ""
    label: str = ""
    dataset: str = ""
    spacing_mm: tuple[float, float] | None = None
    fold: str = ""
    split: str = ""
    duplicate_group: str = ""


def read_manifest(path: Path) -> tuple[Record, ...]:
    """Read a manifest; relative paths are taken from its own folder.

    Raises:
        InputError: no such file, no ``image`` column, no rows, or a spacing that is no number.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as cause:
        raise InputError(
            f"cannot read manifest {path}", expected="a CSV file in UTF-8", found=str(cause)
        ) from cause
    table = csv.DictReader(io.StringIO(text))
    if "image" not in (table.fieldnames or []):
        raise InputError(
            f"manifest {path}",
            expected="a column 'image' (and 'mask', 'patient', ...)",
            found="the columns " + ", ".join(table.fieldnames or ["none"]),
        )
    try:
        records = tuple(_record(row, path, table.line_num) for row in table)
    except csv.Error as cause:
        raise InputError(
            f"manifest {path}, line {table.line_num + 1}", expected="CSV", found=str(cause)
        ) from cause
    if not records:
        raise InputError(f"manifest {path} has no rows", fix="Add one row per image.")
    return records


def write_manifest(path: Path, records: tuple[Record, ...]) -> None:
    """Write a manifest; paths below its folder become relative to it."""
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(COLUMNS)
    for record in records:
        dy, dx = record.spacing_mm or ("", "")
        table.writerow(
            [
                _relative(record.image, path.parent),
                _relative(record.mask, path.parent) if record.mask else "",
                record.patient,
                record.label,
                record.dataset,
                dy,
                dx,
                record.fold,
                record.split,
                record.duplicate_group,
            ]
        )
    write_text(path, stream.getvalue())


def _relative(path: Path, folder: Path) -> str:
    inside = path.resolve().is_relative_to(folder.resolve())
    return str(path.resolve().relative_to(folder.resolve()) if inside else path.resolve())


def _record(row: dict[str, str | None], manifest: Path, line: int) -> Record:
    cells = {name: (row.get(name) or "").strip() for name in COLUMNS}
    if not cells["image"]:
        raise InputError(f"manifest {manifest}, line {line}", expected="a path in column 'image'")
    return Record(
        image=manifest.parent / cells["image"],
        mask=manifest.parent / cells["mask"] if cells["mask"] else None,
        patient=cells["patient"],
        label=cells["label"],
        dataset=cells["dataset"],
        spacing_mm=_spacing(cells, manifest, line),
        fold=cells["fold"],
        split=cells["split"],
        duplicate_group=cells["duplicate_group"],
    )


def _spacing(cells: dict[str, str], manifest: Path, line: int) -> tuple[float, float] | None:
    dy, dx = cells["spacing_y_mm"], cells["spacing_x_mm"]
    if not dy and not dx:
        return None
    try:
        spacing = float(dy), float(dx)
    except ValueError:
        spacing = (0.0, 0.0)
    if not (0 < spacing[0] < float("inf") and 0 < spacing[1] < float("inf")):
        raise InputError(
            f"manifest {manifest}, line {line}",
            expected="spacing_y_mm and spacing_x_mm as positive numbers, or both empty",
            found=f"{dy!r} and {dx!r}",
        )
    return spacing
