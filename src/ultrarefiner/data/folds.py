"""Folds and smaller splits that keep a patient, and a scene, on one side.

What comes out depends on the manifest's content and the seed alone: not on the order of rows, the
place of the data or the machine. Groups (:func:`groups_of`) are ordered by a hash of seed and file
names, and only whole numbers are compared.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from ultrarefiner.data.manifest import Record, relative_names
from ultrarefiner.data.strata import (
    Group,
    Stratum,
    groups_of,
    lesion_shares,
    proportional,
    shuffled,
    strata_of,
)
from ultrarefiner.errors import ConfigError, InputError, LeakError

__all__ = [
    "Folds",
    "assign_folds",
    "groups_of",
    "inner_split",
    "lesion_shares",
    "outer_split",
    "split_fingerprint",
    "subset_patients",
]

_SCALE = 2**64
_FIX = "Make folds with 'ultrarefiner data split'."
_TEST = "test"


@dataclass(frozen=True, kw_only=True)
class Folds:
    """A manifest with folds.

    Attributes:
        records: all rows in their order; those of the split ``test`` may have no fold.
        notes: what a user should know: a class that a fold lacks, unknown patients, ...
    """

    records: tuple[Record, ...]
    notes: tuple[str, ...] = ()


def assign_folds(
    records: Sequence[Record],
    *,
    num_folds: int,
    seed: int,
    sizes: Sequence[float] | None = None,
    replace: bool = False,
) -> Folds:
    r"""Deal images to the folds ``1`` to ``num_folds``: groups whole, classes even.

    The largest group goes first, each to the fold that has least of what it brings:

    .. math:: \arg\min_f \sum_t v_t\, n_{tf} / N_t^2

    with :math:`v_t` images of trait :math:`t` in the group, :math:`n_{tf}` in the fold so far and
    :math:`N_t` in all: the step that least increases :math:`\sum_{tf} (n_{tf}/N_t - 1/k)^2`.
    Traits are: any image; its data set; its label; data set, label and lesion size together
    (small, medium or large by thirds of the data set, none, unknown). No fold is left empty.

    Folds that are there (official ones) are kept. Images whose split is ``test`` are held out
    already and get no fold.

    Args:
        records: the rows of a manifest.
        num_folds: at least 2.
        seed: of the order among groups of one size.
        sizes: lesion share of each image, as :func:`lesion_shares` gives it; NaN if unknown.
        replace: make new folds where there are some.

    Raises:
        ConfigError: ``num_folds`` is below 2.
        InputError: there are fewer patients than folds, only some images have a fold, or sizes do
            not fit.
        LeakError: folds that are kept part a patient or a scene.
    """
    if num_folds < 2:
        raise ConfigError("num_folds", expected="2 or more", found=str(num_folds))
    strata = strata_of(records, sizes)
    if replace:
        records = [_with_fold(record, "") for record in records]
    active = [index for index, record in enumerate(records) if _takes_part(record)]
    inside = [records[index] for index in active]
    if not inside:
        raise InputError("there are no images to make folds of", found="none but of split 'test'")
    if _have_folds(inside):
        return _keep(records, inside, num_folds)
    groups = shuffled(inside, seed=seed, purpose="folds")
    _check_enough(groups, num_folds)
    folds = _deal(groups, [_traits(strata[index]) for index in active], num_folds)
    dealt = list(records)
    for index, fold in zip(active, folds, strict=True):
        dealt[index] = _with_fold(records[index], str(fold + 1))
    return Folds(records=tuple(dealt), notes=_notes(dealt, groups_of(inside)))


def outer_split(
    records: Sequence[Record], fold: str
) -> tuple[tuple[Record, ...], tuple[Record, ...]]:
    """Return the images to learn from and those of the fold that is held out.

    Images whose split is ``test`` and that have no fold are in neither.

    Raises:
        InputError: no fold of that name, or images without one.
        LeakError: a patient or scene would be on both sides.
    """
    inside = [record for record in records if _takes_part(record)]
    if not inside or not _have_folds(inside):
        raise InputError("no image of the manifest has a fold", expected=f"fold {fold!r}", fix=_FIX)
    names = sorted({record.fold for record in inside}, key=lambda name: (len(name), name))
    if fold not in names or len(names) < 2:
        raise InputError(
            f"cannot hold out fold {fold!r}",
            expected="one of " + ", ".join(names) if len(names) > 1 else "several folds",
            found=f"only fold {names[0]!r}" if len(names) == 1 else None,
            fix=_FIX if len(names) == 1 else None,
        )
    _refuse_parted(inside, [record.fold == fold for record in inside])
    train = tuple(record for record in inside if record.fold != fold)
    return train, tuple(record for record in inside if record.fold == fold)


def inner_split(
    records: Sequence[Record],
    *,
    share: float = 0.1,
    seed: int,
    sizes: Sequence[float] | None = None,
) -> tuple[tuple[Record, ...], tuple[Record, ...]]:
    """Set some patients of a training set aside, to choose checkpoints and thresholds on.

    Patients are taken in a random order that mirrors labels and sizes, as long as they fit in the
    share of images; if none fits, the smallest. Neither side is empty.

    Args:
        records: what is learned from, without the outer fold.
        share: of the images, in (0, 1).
        seed: of the order.
        sizes: as for :func:`assign_folds`.

    Returns:
        Training and validation images, each in the order of ``records``.

    Raises:
        ConfigError: ``share`` is out of range.
        InputError: there is a single patient, or sizes do not fit.
    """
    if not 0 < share < 1:
        raise ConfigError("share", expected="a value between 0 and 1", found=str(share))
    groups = shuffled(records, seed=seed, purpose="inner split")
    _check_enough(groups, 2)
    aside: set[int] = set()
    for group in proportional(groups, strata_of(records, sizes)):
        if len(aside) + len(group) <= share * len(records):
            aside.update(group)
    if not aside:
        aside.update(sorted(groups, key=len)[0])
    train = tuple(record for index, record in enumerate(records) if index not in aside)
    return train, tuple(records[index] for index in sorted(aside))


def subset_patients(records: Sequence[Record], *, share: float, seed: int) -> tuple[Record, ...]:
    """Return the images of some patients, as if no more data had been collected.

    A smaller share is part of a larger one of the same seed. Labels are as in the whole as far as
    whole patients allow.

    Args:
        records: images to choose from.
        share: of the patients, in (0, 1]; at least 2 patients are kept.
        seed: of the choice.

    Returns:
        Images in the order of ``records``.

    Raises:
        ConfigError: ``share`` is out of range.
        InputError: there is a single patient.
    """
    if not 0 < share <= 1:
        raise ConfigError("share", expected="a value above 0 and at most 1", found=str(share))
    groups = shuffled(records, seed=seed, purpose="subset")
    _check_enough(groups, 2)
    num = max(2, math.floor(share * len(groups) + 0.5))
    chosen = proportional(groups, strata_of(records, None))[:num]
    return tuple(records[index] for index in sorted(index for group in chosen for index in group))


def split_fingerprint(train: Sequence[Record], held_out: Sequence[Record]) -> str:
    """Return the sha256 of which image of which patient is on which side.

    The order of images and the place of the data do not matter: a result carries it to say on what
    it was measured.
    """
    names = relative_names([record.image for record in (*train, *held_out)])
    roles = ["train"] * len(train) + ["held out"] * len(held_out)
    patients = [record.patient for record in (*train, *held_out)]
    lines = sorted(json.dumps(line) for line in zip(names, patients, roles, strict=True))
    return hashlib.sha256("\n".join(lines).encode("ascii")).hexdigest()


def _deal(
    groups: Sequence[Group], traits: Sequence[tuple[Hashable, ...]], num_folds: int
) -> list[int]:
    """Return the number of the fold of each image, from 0."""
    totals = Counter(trait for image in traits for trait in image)
    weight = {trait: _SCALE // total**2 for trait, total in totals.items()}
    held: list[Counter[Hashable]] = [Counter() for _ in range(num_folds)]
    folds = [0] * len(traits)
    for group in sorted(groups, key=len, reverse=True):
        brought = Counter(trait for index in group for trait in traits[index])
        costs = [
            sum(num * inside[trait] * weight[trait] for trait, num in brought.items())
            for inside in held
        ]
        fold = costs.index(min(costs))
        held[fold].update(brought)
        for index in group:
            folds[index] = fold
    return folds


def _traits(stratum: Stratum) -> tuple[Hashable, ...]:
    dataset, label, _ = stratum
    return ("image",), ("dataset", dataset), ("label", label), stratum


def _takes_part(record: Record) -> bool:
    """Tell whether an image belongs to the folds; one held out for testing does not."""
    return bool(record.fold) or record.split != _TEST


def _with_fold(record: Record, fold: str) -> Record:
    return dataclasses.replace(record, fold=fold)


def _have_folds(records: Sequence[Record]) -> bool:
    without = [record for record in records if not record.fold]
    if 0 < len(without) < len(records):
        raise InputError(
            f"{len(without)} of {len(records)} images have no fold, the first is "
            f"{without[0].image}",
            expected="a fold for all of them, or for none",
            fix="Fill or empty the column 'fold', or replace all folds: "
            "'ultrarefiner data split --replace'.",
        )
    return len(without) == 0


def _check_enough(groups: Sequence[Group], num_parts: int) -> None:
    if len(groups) < num_parts:
        images = sum(map(len, groups))
        raise InputError(
            f"cannot part {images} images into {num_parts} sets that share no patient or scene",
            expected=f"at least {num_parts} patients (those of a common scene count as one)",
            found="a single one" if len(groups) == 1 else str(len(groups)),
            fix="Ask for fewer folds, or check the columns 'patient' and 'duplicate_group'.",
        )


def _refuse_parted(records: Sequence[Record], sides: Sequence[Hashable]) -> None:
    for group in groups_of(records):
        for index in group[1:]:
            if sides[index] != sides[group[0]]:
                one, other = records[group[0]], records[index]
                raise LeakError(
                    f"{one.image} (fold {one.fold}) and {other.image} (fold {other.fold})",
                    expected="images of one patient or scene in one fold",
                    fix="Replace the folds: 'ultrarefiner data split --replace'. "
                    "Two people of one name need two names.",
                )


def _keep(records: Sequence[Record], inside: Sequence[Record], num_folds: int) -> Folds:
    _refuse_parted(inside, [record.fold for record in inside])
    num = len({record.fold for record in inside})
    asked = "" if num == num_folds else f", not the {num_folds} asked for"
    kept = f"the {num} folds of the manifest are kept{asked}; '--replace' makes new ones"
    return Folds(records=tuple(records), notes=(kept, *_notes(records, groups_of(inside))))


def _notes(records: Sequence[Record], groups: Sequence[Group]) -> tuple[str, ...]:
    """Remark on what the folds cannot give."""
    inside = [record for record in records if record.fold]
    folds = sorted({record.fold for record in inside}, key=lambda name: (len(name), name))
    notes = []
    for label in sorted({record.label for record in inside} - {""}):
        there = {record.fold for record in inside if record.label == label}
        num = sum(any(inside[index].label == label for index in group) for group in groups)
        notes += [
            f"class {label!r} is absent in fold {fold}: it has {num} patients"
            for fold in folds
            if fold not in there
        ]
    num_unknown = sum(not record.patient for record in inside)
    if num_unknown:
        notes.append(
            f"{num_unknown} of {len(inside)} images name no patient: each counts as its own"
        )
    largest = max(map(len, groups))
    if largest * len(folds) > len(inside):
        notes.append(
            f"{largest} of {len(inside)} images share a patient or scene: folds differ in size"
        )
    if len(inside) < len(records):
        notes.append(f"{len(records) - len(inside)} images of the split 'test' are in no fold")
    return tuple(notes)
