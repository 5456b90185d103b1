"""Images of one patient or scene on both sides of a split: found, refused, and kept together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Literal

from ultrarefiner.data.duplicates import DuplicateGroup
from ultrarefiner.data.manifest import Record
from ultrarefiner.errors import LeakError

__all__ = ["Leak", "find_leaks", "group_duplicates", "refuse_leaks"]

LeakKind = Literal["patient", "duplicate_group", "duplicate", "image"]
Column = Literal["fold", "split"]

_WORDS: dict[LeakKind, str] = {
    "patient": "are of one patient",
    "duplicate_group": "share a duplicate group",
    "duplicate": "show one scene",
    "image": "are one file",
}
_NUM_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Leak:
    """One patient or scene in two parts of a split, with an image of each.

    Attributes:
        kind: what they have in common: ``patient``, the column ``duplicate_group``, ``duplicate``
            (found among the images) or ``image`` (one file in two rows).
        name: the patient, the group, or the file.
        column: the column that parts them.
        parts: its two values.
        images: the first image in each, in the order of ``parts``.
    """

    kind: LeakKind
    name: str
    column: Column
    parts: tuple[str, str]
    images: tuple[Path, Path]

    def describe(self) -> str:
        """Return the leak as a clause that names both files."""
        (one, other), (here, there) = self.images, self.parts
        return (
            f"{one} ({self.column} {here}) and {other} ({self.column} {there}) {_WORDS[self.kind]}"
        )


def find_leaks(
    records: Sequence[Record], groups: Sequence[DuplicateGroup] = ()
) -> tuple[Leak, ...]:
    """Find what lies in two folds, or in two of train, val and test.

    A patient is a name, whatever the data set, as in :mod:`.folds`: importers put the data set into
    the name. Rows without a value in ``fold`` or
    ``split`` are in no part and leak nothing by that column.

    Args:
        records: rows of a manifest.
        groups: duplicates among their images, with the paths that the records have.

    Returns:
        One leak for each patient, group or file and each two parts it lies in, sorted.
    """
    scene_of = {path: group.identifier for group in groups for path in group.images}
    keys: tuple[tuple[LeakKind, Callable[[Record], tuple[str, ...]]], ...] = (
        ("patient", lambda record: (record.patient,)),
        ("duplicate_group", lambda record: (record.duplicate_group,)),
        ("duplicate", lambda record: (scene_of.get(record.image, ""),)),
        ("image", lambda record: (record.image.as_posix(),)),
    )
    columns: tuple[Column, ...] = ("fold", "split")
    leaks = [
        leak
        for kind, key in keys
        for column in columns
        for leak in _leaks_by(records, kind, key, column)
    ]
    return tuple(
        sorted(leaks, key=lambda leak: (leak.kind, leak.column, leak.name, leak.parts, leak.images))
    )


def refuse_leaks(leaks: Sequence[Leak]) -> None:
    """Raise unless there are no leaks.

    Raises:
        LeakError: names both files of the first three leaks and how many there are.
    """
    if not leaks:
        return
    shown = "; ".join(leak.describe() for leak in leaks[:_NUM_SHOWN])
    more = len(leaks) - _NUM_SHOWN
    raise LeakError(
        "the manifest leaks",
        expected="every patient and every scene in one part alone",
        found=shown + (f"; and {more} more" if more > 0 else ""),
        fix="Split it anew with 'ultrarefiner data split --replace', which keeps patients and "
        "duplicates together, or remove one image of each pair. To keep official folds, train "
        "with --drop-leaks: it leaves out who shares a scene with the held-out fold.",
    )


def group_duplicates(
    records: Sequence[Record], groups: Sequence[DuplicateGroup]
) -> tuple[Record, ...]:
    """Fill the column ``duplicate_group``, so that folds keep every scene together.

    Groups that the records have already are kept and joined with the found ones that touch them.
    A name is a function of the images of the group, or the first that its rows had before:
    the order of records and groups changes nothing.

    Args:
        records: rows of a manifest.
        groups: duplicates among their images, with the paths that the records have.

    Returns:
        The records in their order.
    """
    found: dict[Path, list[str]] = {}
    for group in groups:
        for path in set(group.images):
            found.setdefault(path, []).append(group.identifier)
    names_of = [
        [("given", record.duplicate_group)] * bool(record.duplicate_group)
        + [("made", name) for name in sorted(found.get(record.image, []))]
        for record in records
    ]
    leader = _Leaders()
    for names in names_of:
        for name in names:
            leader.join(names[0], name)
    return tuple(
        replace(record, duplicate_group=leader.of(names[0])[1]) if names else record
        for record, names in zip(records, names_of, strict=True)
    )


def _leaks_by(
    records: Sequence[Record],
    kind: LeakKind,
    key: Callable[[Record], tuple[str, ...]],
    column: Column,
) -> Iterator[Leak]:
    first_in: dict[tuple[str, ...], dict[str, Path]] = {}
    for record in records:
        name, part = key(record), record.fold if column == "fold" else record.split
        if name[0] and part:
            parts = first_in.setdefault(name, {})
            parts[part] = min(parts.get(part, record.image), record.image)
    for name, parts in first_in.items():
        for one, other in combinations(sorted(parts), 2):
            yield Leak(
                kind=kind,
                name=name[0],
                column=column,
                parts=(one, other),
                images=(parts[one], parts[other]),
            )


class _Leaders:
    """Disjoint sets of names, each led by its smallest."""

    def __init__(self) -> None:
        self._above: dict[tuple[str, str], tuple[str, str]] = {}

    def of(self, name: tuple[str, str]) -> tuple[str, str]:
        while (above := self._above.get(name, name)) != name:
            name = above
        return name

    def join(self, one: tuple[str, str], other: tuple[str, str]) -> None:
        low, high = sorted((self.of(one), self.of(other)))
        if low != high:
            self._above[high] = low
