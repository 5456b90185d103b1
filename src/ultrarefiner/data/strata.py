"""Which images must stay together in a split, and which are alike.

A group is what must stay together: images that share a patient, a duplicate group or the file,
directly or by way of others. An image without patient counts as a patient of its own. A patient's
name means one person in the whole manifest, whatever the data set.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction

import numpy as np

from ultrarefiner.data.coding import interpret_mask
from ultrarefiner.data.formats import Raster, decode
from ultrarefiner.data.manifest import Record, relative_names
from ultrarefiner.errors import InputError

__all__ = [
    "Group",
    "Stratum",
    "groups_of",
    "lesion_shares",
    "proportional",
    "shuffled",
    "strata_of",
]

Group = tuple[int, ...]
Stratum = tuple[str, str, str]

_MAX_LABEL = 31  # as in data.coding: whole numbers up to it are labels, not grey levels


def groups_of(records: Sequence[Record]) -> tuple[Group, ...]:
    """Return what must stay together: indices of images that share patient, scene or file.

    Returns:
        Disjoint groups that cover all records, each ascending, sorted by their first index.

    Example:
        >>> from pathlib import Path
        >>> one = Record(image=Path("1.png"), patient="a")
        >>> two = Record(image=Path("2.png"))
        >>> three = Record(image=Path("3.png"), patient="a")
        >>> groups_of([one, two, three])
        ((0, 2), (1,))
    """
    parent = list(range(len(records)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    names = relative_names([record.image for record in records])
    first: dict[tuple[str, str], int] = {}
    for index, (record, name) in enumerate(zip(records, names, strict=True)):
        bonds = {"patient": record.patient, "scene": record.duplicate_group, "file": name}
        for bond in bonds.items():
            if bond[1]:
                low, high = sorted((root(first.setdefault(bond, index)), root(index)))
                parent[high] = low
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for index in range(len(records)):
        groups[root(index)].append(index)
    return tuple(tuple(group) for group in groups.values())


def lesion_shares(
    records: Sequence[Record],
    *,
    track: Callable[[Iterable[Record], int], Iterable[Record]] = lambda items, _: items,
) -> tuple[float, ...]:
    """Return each image's share of lesion pixels in its mask at native size, in [0, 1].

    In a map of several labels every label above 0 is lesion; a probability counts from one half.

    Args:
        records: NaN comes back for those without a mask.
        track: wraps the iteration over records, for a progress bar.

    Raises:
        InputError: a mask cannot be used; the message names it.
    """
    return tuple(_lesion_share(record) for record in track(records, len(records)))


def strata_of(records: Sequence[Record], sizes: Sequence[float] | None) -> tuple[Stratum, ...]:
    """Return data set, label and size class of each image.

    Sizes are ``small``, ``medium`` or ``large`` by thirds of the lesions of the data set, equal
    sizes alike; ``none`` without lesion; empty if unknown (NaN, or no ``sizes``).

    Raises:
        InputError: there are not as many sizes as records, or one is negative or infinite.
    """
    if sizes is None:
        return tuple((record.dataset, record.label, "") for record in records)
    if len(sizes) != len(records):
        raise InputError(
            "sizes",
            expected=f"one for each of {len(records)} images, in order",
            found=str(len(sizes)),
        )
    lesions: defaultdict[str, list[float]] = defaultdict(list)
    for record, size in zip(records, sizes, strict=True):
        if size < 0 or math.isinf(size):
            raise InputError(
                f"size of {record.image}", expected="a finite number >= 0, or NaN", found=str(size)
            )
        if size > 0:
            lesions[record.dataset].append(size)
    thirds = {name: _thirds(found) for name, found in lesions.items()}
    return tuple(
        (record.dataset, record.label, _size_class(size, thirds.get(record.dataset, (0, 0))))
        for record, size in zip(records, sizes, strict=True)
    )


def shuffled(records: Sequence[Record], *, seed: int, purpose: str) -> tuple[Group, ...]:
    """Return the groups in a random order: a hash of purpose, seed and the group's first file name.

    The order does not depend on that of the records, on where the files are or on what patients
    are called.
    """
    names = relative_names([record.image for record in records])

    def rank(group: Group) -> bytes:
        key = "\0".join([purpose, str(seed), min(names[index] for index in group)])
        return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()

    return tuple(sorted(groups_of(records), key=rank))


def proportional(groups: Sequence[Group], strata: Sequence[Stratum]) -> tuple[Group, ...]:
    """Order groups so that every beginning of the list mirrors the whole.

    Group j of the n of its stratum goes to (j + 1/2) / n of the list; the stratum of a group is the
    most frequent among its images, the rarer one if there are two.

    Args:
        groups: in the order that they keep within their stratum.
        strata: of the images that the groups index.
    """
    frequency = Counter(strata)

    def stratum(group: Group) -> Stratum:
        inside = Counter(strata[index] for index in group)
        return min(inside, key=lambda name: (-inside[name], frequency[name], name))

    alike: defaultdict[Stratum, list[Group]] = defaultdict(list)
    for group in groups:
        alike[stratum(group)].append(group)
    rank = {group: number for number, group in enumerate(groups)}
    places = [
        (Fraction(2 * j + 1, 2 * len(members)), j, rank[group], group)
        for members in alike.values()
        for j, group in enumerate(members)
    ]
    return tuple(group for *_, group in sorted(places))


def _lesion_share(record: Record) -> float:
    if record.mask is None:
        return math.nan
    raster = decode(record.mask)
    if _is_label_map(raster):
        return float((raster.values > 0).mean())
    return float((interpret_mask(record.mask, raster).values > 0.5).mean())


def _is_label_map(raster: Raster) -> bool:
    """Tell whether the values are small whole numbers: labels, or 0 and 1."""
    values = raster.values
    if values.ndim != 2 or raster.is_lossy:
        return False
    if raster.palette is not None:
        colours = raster.palette[np.unique(values)]
        return bool((colours != colours[:, :1]).any())  # greys of a palette are levels
    is_small = values.min() >= 0 and values.max() <= _MAX_LABEL
    return bool(is_small and np.array_equal(values, np.rint(values)))


def _thirds(sizes: Sequence[float]) -> tuple[float, float]:
    """Return the largest small and the largest medium size."""
    ordered = sorted(sizes)
    return ordered[math.ceil(len(ordered) / 3) - 1], ordered[math.ceil(2 * len(ordered) / 3) - 1]


def _size_class(size: float, thirds: tuple[float, float]) -> str:
    if math.isnan(size):
        return ""
    if size == 0:
        return "none"
    return "small" if size <= thirds[0] else "medium" if size <= thirds[1] else "large"
