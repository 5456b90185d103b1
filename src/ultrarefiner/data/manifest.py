"""The manifest: one row per image, with its truth, patient, label, spacing and fold."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from ultrarefiner.data.atomic import write_text
from ultrarefiner.data.formats import decode
from ultrarefiner.data.manifest_table import COLUMNS, OPTIONAL_COLUMNS, read_table
from ultrarefiner.errors import InputError

__all__ = [
    "COLUMNS",
    "Record",
    "check_files",
    "check_mask_sizes",
    "read_manifest",
    "relative_names",
    "write_manifest",
]

_SPLITS = ("train", "val", "test")
_NUM_SHOWN = 5


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
        birads: BI-RADS category, such as ``4`` or ``4a``; empty if unknown.
        device: ultrasound machine; empty if unknown.
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
    birads: str = ""
    device: str = ""


def read_manifest(path: Path) -> tuple[Record, ...]:
    """Read a manifest; relative paths are taken from its own folder.

    How the table is read is said at :func:`ultrarefiner.data.manifest_table.read_table`. No file
    that it names is looked at: see :func:`check_files`.

    Raises:
        InputError: the table cannot be read or has no rows; or a row, named by its line, has no
            image, one of an earlier row, or a spacing, split or fold that is none.
    """
    records: list[Record] = []
    places: dict[str, str] = {}
    for where, row in read_table(path):
        record = _record(row, folder=path.parent, where=where)
        first = places.setdefault(os.path.normpath(record.image), where)
        if first != where:
            line = where.removeprefix(f"manifest {path}, ")
            raise InputError(
                f"{record.image} comes 2 times: {first} and {line}",
                expected="one row per image",
                fix="Remove one of the rows; merge several masks of an image into one.",
            )
        records.append(record)
    if not records:
        raise InputError(f"manifest {path} has no rows", fix="Add one row per image.")
    return tuple(records)


def write_manifest(path: Path, records: tuple[Record, ...]) -> None:
    """Write a manifest; paths below its folder become relative to it, with ``/`` everywhere.

    Links stay links: data that are linked into the folder are below it. Optional columns that no
    record fills are left out.

    Raises:
        OutputError: it cannot be written; what was there before is kept.
    """
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    extra = [name for name in OPTIONAL_COLUMNS if any(getattr(r, name) for r in records)]
    table.writerow([name for name in COLUMNS if name in extra or name not in OPTIONAL_COLUMNS])
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
                *(getattr(record, name) for name in extra),
            ]
        )
    write_text(path, stream.getvalue())


def check_files(records: Sequence[Record], path: Path) -> None:
    """Make sure that every image and mask of a manifest is there, before any work begins.

    Args:
        records: what :func:`read_manifest` made of ``path``.
        path: the manifest.

    Raises:
        InputError: files are missing; the first five are named, and how to repair the paths.
    """
    files = [file for record in records for file in (record.image, record.mask) if file]
    missing = [file for file in files if not _is_file(file)]
    if missing:
        cells = [_cell(file, path.parent) for file in missing]
        raise InputError(
            f"{len(missing)} of {len(files)} files of manifest {path} are missing",
            found="no " + _listed(cells),
            fix=_repair(cells, path.parent, are_all=len(missing) == len(files)),
        )


def check_mask_sizes(
    records: Sequence[Record],
    *,
    track: Callable[[Iterable[Record], int], Iterable[Record]] = lambda items, _: items,
) -> None:
    """Make sure that every mask has its image's size, upright; reads all files.

    Args:
        records: those without a mask are passed over.
        track: wraps the iteration over records, for a progress bar.

    Raises:
        InputError: sizes differ (the first five pairs are named), or a file cannot be used.
    """
    wrong = []
    with_mask = [record for record in records if record.mask]
    for record in track(with_mask, len(with_mask)):
        assert record.mask is not None
        height, width = decode(record.image).values.shape[:2]
        mask_height, mask_width = decode(record.mask).values.shape[:2]
        if (height, width) != (mask_height, mask_width):
            wrong.append(
                f"{record.mask} ({mask_width}x{mask_height} px) for {record.image} "
                f"({width}x{height} px)"
            )
    if wrong:
        raise InputError(
            f"{len(wrong)} of {len(with_mask)} masks have another size than their images",
            found=_listed(wrong),
            fix="Export them again at the native size, or correct the pairs.",
        )


def relative_names(paths: Sequence[Path]) -> tuple[str, ...]:
    """Name files from the deepest folder that holds them all, with ``/`` between folders.

    So a file has the same name wherever the data are, and however the manifest gives its path.

    Example:
        >>> relative_names([Path("/data/images/a.png"), Path("/data/more/../b.png")])
        ('images/a.png', 'b.png')
    """
    places = [Path(os.path.normpath(path.absolute())) for path in paths]
    depth = len(_common_parts([place.parent.parts for place in places]))
    return tuple("/".join(place.parts[depth:]) for place in places)


def _record(row: dict[str, str], *, folder: Path, where: str) -> Record:
    if row["split"] and row["split"] not in _SPLITS:
        raise InputError(
            f"{where}, column 'split'",
            expected=", ".join(_SPLITS) + " or nothing",
            found=repr(row["split"]),
        )
    return Record(
        image=folder / row["image"],
        mask=folder / row["mask"] if row["mask"] else None,
        patient=row["patient"],
        label=row["label"],
        dataset=row["dataset"],
        spacing_mm=_spacing(row["spacing_y_mm"], row["spacing_x_mm"], where),
        fold=row["fold"],
        split=row["split"],
        duplicate_group=row["duplicate_group"],
        birads=row["birads"],
        device=row["device"],
    )


def _spacing(dy: str, dx: str, where: str) -> tuple[float, float] | None:
    if not dy and not dx:
        return None
    try:  # spreadsheets that write semicolons write decimal commas
        spacing = float(dy.replace(",", ".")), float(dx.replace(",", "."))
    except ValueError:
        spacing = (0.0, 0.0)
    if not (0 < spacing[0] < float("inf") and 0 < spacing[1] < float("inf")):
        raise InputError(
            where,
            expected="spacing_y_mm and spacing_x_mm as positive numbers, or both empty",
            found=f"{dy!r} and {dx!r}",
        )
    return spacing


def _relative(path: Path, folder: Path) -> str:
    """Name a file from a folder if it is below it, as it is spelt or where its links lead."""
    spelt, led = path.absolute(), path.parent.resolve() / path.name
    for place, root in ((spelt, folder.absolute()), (led, folder.resolve())):
        if ".." not in place.parts and place.is_relative_to(root):
            return place.relative_to(root).as_posix()
    return (led if ".." in spelt.parts else spelt).as_posix()


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long a name, no permission, a zero byte
        return False


def _cell(path: Path, folder: Path) -> str:
    """Return a path as the manifest in this folder gives it."""
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)


def _repair(cells: Sequence[str], folder: Path, *, are_all: bool) -> str:
    """Say what to do about files that are missing."""
    is_windows = os.sep == "\\"
    absolute = [PureWindowsPath(cell).drive or Path(cell).is_absolute() for cell in cells]
    if are_all and all(absolute):
        parents = [PurePosixPath(cell.replace("\\", "/")).parent.parts for cell in cells]
        shared = "/".join(_common_parts(parents)).replace("//", "/")
        return (
            "These seem to be paths of another machine: put the manifest beside the data and make "
            f"them relative to it, without {shared or 'the drive'!r} in front and with '/' between "
            "folders."
        )
    if not is_windows and any("\\" in cell for cell in cells):
        return "Write '/' between folders: a '\\' is part of the name here."
    if are_all and not any(absolute):
        return f"Relative paths start at the manifest's folder {folder}: move it beside the data."
    return "Restore them, or correct or remove their rows."


def _common_parts(paths: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the folders that all paths start with."""
    shared = zip(*paths, strict=False)
    num = next((i for i, names in enumerate(shared) if len(set(names)) > 1), None)
    return min(paths, key=len, default=())[:num]


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NUM_SHOWN
    return ", ".join(names[:_NUM_SHOWN]) + (f" and {more} more" if more > 0 else "")
