"""Write the manifest of a data set that an importer has read, and the masks that it lacks."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ultrarefiner.data.atomic import refused
from ultrarefiner.data.formats import split_name
from ultrarefiner.data.manifest import Record, write_manifest
from ultrarefiner.data.readers import read_spacing
from ultrarefiner.data.sources.source import SOURCES, Draw, Found, Remark
from ultrarefiner.data.writers import write_mask
from ultrarefiner.errors import ConfigError, InputError, OutputError

_NO_PATIENTS = (
    "the data set names no patients: splitting takes each image as a patient of its own. "
    "Fill in the column 'patient' if you know better"
)


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What :func:`import_source` wrote.

    Attributes:
        manifest: the CSV file.
        num_records: rows in it, one per image.
        num_masks_drawn: masks that were merged, drawn or cleaned, beside the manifest.
        notes: what a user should know, as (file or topic, remark).
        skipped: what was left out because it is broken, as (file, reason).
    """

    manifest: Path
    num_records: int
    num_masks_drawn: int
    notes: tuple[Remark, ...]
    skipped: tuple[Remark, ...]


def import_source(name: str, src: Path, out: Path) -> Imported:
    """Read a data set in its own layout and write its manifest.

    Images stay where they are. Masks that no single file holds (several lesions in one file each,
    polygons) go to ``<stem of out>-masks/`` beside the manifest, as 0 and 255. Every file is made
    under another name first: after an error the manifest and its masks are what they were before.

    Args:
        name: importer, one of :data:`SOURCES`.
        src: folder of the data set, or its index file.
        out: manifest to write, ``.csv``; rows sorted by image.

    Returns:
        Counts and remarks. Spacing is taken from the image where its format has one.

    Raises:
        ConfigError: unknown importer, or ``out`` does not end in ``.csv``.
        InputError: another layout, a broken index, or not one image that can be used.
        OutputError: something cannot be written.
    """
    source = SOURCES[name]
    if out.suffix != ".csv":
        raise ConfigError(f"cannot write {out}", expected="a name ending in .csv")
    found = source(src)
    records, skipped = _usable(found)
    skipped = (*found.skipped, *skipped)
    if not records:
        raise _nothing(src, skipped)
    notes = found.notes
    if not any(record.patient for record in records):
        notes = (*notes, (str(src), _NO_PATIENTS))
    with _staging(out) as staging:
        records, failed, num_drawn = _draw(records, found.drawings, staging / "masks", out)
        skipped = (*skipped, *failed)
        if not records:
            raise _nothing(src, skipped)
        _publish(records, staging / "masks", out)
    return Imported(
        manifest=out,
        num_records=len(records),
        num_masks_drawn=num_drawn,
        notes=notes,
        skipped=skipped,
    )


def _usable(found: Found) -> tuple[tuple[Record, ...], tuple[Remark, ...]]:
    """Return the records whose files are there, sorted, with spacing, and why others are not."""
    records: dict[Path, Record] = {}
    skipped: list[Remark] = []
    for record in sorted(found.records, key=lambda record: str(record.image)):
        identity = _normal(record.image)
        if identity in records:
            skipped.append((str(record.image), "it is named more than once; one row is kept"))
        elif not record.image.is_file():
            skipped.append((str(record.image), "no such image"))
        elif record.mask and record.image not in found.drawings and not record.mask.is_file():
            skipped.append((str(record.image), f"its mask {record.mask} is not there"))
        else:
            try:
                spacing_mm = record.spacing_mm or read_spacing(record.image)
            except InputError as error:
                skipped.append((str(record.image), str(error)))
            else:
                records[identity] = replace(record, spacing_mm=spacing_mm)
    return tuple(records.values()), tuple(skipped)


def _draw(
    records: tuple[Record, ...], drawings: Mapping[Path, Draw], staging: Path, out: Path
) -> tuple[tuple[Record, ...], tuple[Remark, ...], int]:
    """Draw what is to be drawn into the staging folder; name the masks as they will be."""
    names = _mask_names([record.image for record in records])
    done: list[Record] = []
    failed: list[Remark] = []
    num_drawn = 0
    for record in records:
        if record.image not in drawings:
            done.append(record)
            continue
        try:
            mask = drawings[record.image]()
        except InputError as error:
            failed.append((str(record.image), str(error)))
            continue
        name = names[record.image]
        write_mask(staging / name, mask)
        num_drawn += 1
        done.append(replace(record, mask=_mask_folder(out) / name))
    return tuple(done), tuple(failed), num_drawn


def _mask_names(images: list[Path]) -> dict[Path, Path]:
    """Name each mask by its image's stem, in subfolders as far as the images are in several."""
    if not images:
        return {}
    folders = {image: _normal(image).parent for image in images}
    top = os.path.commonpath(folders.values())
    names: dict[Path, Path] = {}
    taken: set[Path] = set()
    for image in images:
        name = folders[image].relative_to(top) / f"{split_name(image)[0]}.png"
        while name in taken:  # a.jpg and a.png side by side
            name = name.with_name(f"{name.stem}{image.suffix}.png")
        taken.add(name)
        names[image] = name
    return names


def _normal(path: Path) -> Path:
    """Return an absolute path without '..'; links are kept, as their names are the cases'."""
    return Path(os.path.normpath(path.absolute()))


def _mask_folder(out: Path) -> Path:
    return out.with_name(f"{out.stem}-masks")


@contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """Give a hidden folder beside ``out`` that is gone afterwards."""
    folder = out.parent / f".ultrarefiner-{secrets.token_hex(8)}"
    try:
        folder.mkdir(parents=True)
        yield folder
    except OutputError:
        raise
    except OSError as cause:
        raise refused(out, cause) from cause
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _publish(records: tuple[Record, ...], masks: Path, out: Path) -> None:
    """Put masks and manifest in their places; while masks change there is no manifest."""
    ready = out.with_name(f".ultrarefiner-{secrets.token_hex(8)}.csv")
    try:
        write_manifest(ready, records)
        drawn = sorted(path for path in masks.rglob("*.png")) if masks.is_dir() else []
        for path in drawn:
            (_mask_folder(out) / path.relative_to(masks)).parent.mkdir(parents=True, exist_ok=True)
        if drawn:
            out.unlink(missing_ok=True)
        for path in drawn:
            path.replace(_mask_folder(out) / path.relative_to(masks))
        ready.replace(out)
    finally:
        ready.unlink(missing_ok=True)


def _nothing(src: Path, skipped: tuple[Remark, ...]) -> InputError:
    name, reason = skipped[0] if skipped else (str(src), "no images")
    return InputError(
        f"nothing in {src} can be imported",
        expected="images with their masks",
        found=f"{len(skipped)} that cannot be used, first {name}: {reason}",
    )
