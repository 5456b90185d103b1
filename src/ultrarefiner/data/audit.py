"""The audit of a manifest: what would spoil a score, found before anything is learned."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np

from ultrarefiner._version import __version__
from ultrarefiner.data.audit_leaks import Leak, find_leaks, group_duplicates, refuse_leaks
from ultrarefiner.data.audit_masks import (
    Fault,
    FaultKind,
    check_mask,
    masks_iou,
    read_hard_mask,
    unreadable_file,
)
from ultrarefiner.data.duplicates import (
    DuplicateConfig,
    DuplicateGroup,
    Fingerprint,
    Track,
    group_fingerprints,
    take_fingerprints,
)
from ultrarefiner.data.manifest import Record, read_manifest
from ultrarefiner.errors import InputError

__all__ = [
    "Audit",
    "Conflict",
    "Fault",
    "Leak",
    "audit_manifest",
    "find_leaks",
    "group_duplicates",
    "refuse_leaks",
]

_LEAST_IOU = 0.9


@dataclass(frozen=True, kw_only=True)
class Conflict:
    """Images of one scene that the manifest says different things of.

    Attributes:
        kind: ``label``, ``patient``, or ``mask``: equal images, masks with an IoU below 0.9.
        images: their paths, sorted.
        values: the different labels or patients, sorted; the least IoU of the masks.
    """

    kind: Literal["label", "patient", "mask"]
    images: tuple[Path, ...]
    values: tuple[str | float, ...]


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What was found in a manifest.

    Attributes:
        manifest: the file.
        records: its rows.
        duplicates: groups of images of one scene.
        conflicts: where their labels, patients or masks contradict each other.
        leaks: patients and scenes in two parts of a split.
        faults: files and masks that cannot be used as they are.
    """

    manifest: Path
    records: tuple[Record, ...]
    duplicates: tuple[DuplicateGroup, ...]
    conflicts: tuple[Conflict, ...]
    leaks: tuple[Leak, ...]
    faults: tuple[Fault, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the content of ``audit.json``; paths below the manifest are relative to it."""
        content: dict[str, Any] = {
            "num_images": len(self.records),
            "duplicates": [
                {"kind": group.kind, "images": self._names(group.images), "score": group.score}
                for group in self.duplicates
            ],
            "label_conflicts": [
                {"kind": c.kind, "images": self._names(c.images), "values": list(c.values)}
                for c in self.conflicts
                if c.kind != "patient"
            ],
            "patient_conflicts": [
                {"images": self._names(c.images), "patients": list(c.values)}
                for c in self.conflicts
                if c.kind == "patient"
            ],
            "leaks": [self._leak(leak) for leak in self.leaks],
            "versions": {
                "ultrarefiner": __version__,
                "numpy": np.__version__,
                "opencv": cv2.__version__,
            },
        }
        content |= {kind: [] for kind in get_args(FaultKind)}
        for fault in self.faults:
            files = {role: self._name(path) for role, path in fault.files.items()}
            content[fault.kind].append(files | dict(fault.details))
        return content

    def _leak(self, leak: Leak) -> dict[str, Any]:
        return {
            "kind": leak.kind,
            "name": self._name(Path(leak.name)) if leak.kind == "image" else leak.name,
            "by": leak.column,
            "parts": list(leak.parts),
            "images": self._names(leak.images),
        }

    def _names(self, paths: Iterable[Path]) -> list[str]:
        return [self._name(path) for path in paths]

    def _name(self, path: Path) -> str:
        folder = self.manifest.parent
        return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()


def audit_manifest(
    path: Path,
    *,
    config: DuplicateConfig | None = None,
    track: Track = lambda items, _: items,
) -> Audit:
    """Look for duplicates, contradictions, leaks and unusable files in a manifest.

    Args:
        path: CSV file, see :mod:`ultrarefiner.data.manifest`.
        config: what counts as a duplicate, default :class:`DuplicateConfig`.
        track: wraps the iterations, for a progress bar.

    Returns:
        Audit. A file that cannot be read is a fault in it and stops nothing.

    Raises:
        InputError: the manifest itself cannot be read.
    """
    config = config or DuplicateConfig()
    records = read_manifest(path)
    images = [record.image for record in records]
    outcomes = take_fingerprints(images, config=config, track=track)
    fingerprints = {p: found for p, found in outcomes.items() if isinstance(found, Fingerprint)}
    readable = [image for image in images if image in fingerprints]
    groups = group_fingerprints(readable, fingerprints, config=config, track=track)
    faults = [
        unreadable_file(image, error)
        for image, error in outcomes.items()
        if isinstance(error, InputError)
    ]
    for record in track(records, len(records)):
        found = fingerprints.get(record.image)
        faults += check_mask(record, image_hw=found.shape_hw if found else None)
    return Audit(
        manifest=path,
        records=records,
        duplicates=groups,
        conflicts=tuple(_conflicts(records, groups, fingerprints)),
        leaks=find_leaks(records, groups),
        faults=tuple(faults),
    )


def _conflicts(
    records: Sequence[Record],
    groups: Sequence[DuplicateGroup],
    fingerprints: Mapping[Path, Fingerprint],
) -> Iterator[Conflict]:
    rows: dict[Path, list[Record]] = {}
    for record in records:
        rows.setdefault(record.image, []).append(record)
    for group in groups:
        members = [record for image in dict.fromkeys(group.images) for record in rows[image]]
        labels = sorted({record.label for record in members} - {""})
        if len(labels) > 1:
            yield Conflict(kind="label", images=group.images, values=tuple(labels))
        patients = sorted({record.patient for record in members} - {""})
        if len(patients) > 1:
            yield Conflict(kind="patient", images=group.images, values=tuple(patients))
        equal: dict[str, list[Record]] = {}
        for record in members:
            equal.setdefault(fingerprints[record.image].digest, []).append(record)
        for same in equal.values():
            yield from _mask_conflict(same)


def _mask_conflict(records: Sequence[Record]) -> Iterator[Conflict]:
    """Compare the masks of equal images with the first of them."""
    read = {r.image: read_hard_mask(r.mask) for r in records if r.mask} if records[1:] else {}
    masks = {image: mask for image, mask in read.items() if mask is not None}
    if len(masks) < 2:
        return
    first = next(iter(masks.values()))
    least = min(masks_iou(first, mask) for mask in masks.values())
    if least < _LEAST_IOU:
        yield Conflict(kind="mask", images=tuple(sorted(masks)), values=(round(least, 4),))
