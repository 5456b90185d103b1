"""Who is learned from, who chooses the checkpoint, who is held out; and proof that they differ."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ultrarefiner.data.audit import find_leaks, group_duplicates, refuse_leaks
from ultrarefiner.data.duplicates import find_duplicates
from ultrarefiner.data.folds import (
    groups_of,
    inner_split,
    outer_split,
    split_fingerprint,
    subset_patients,
)
from ultrarefiner.data.manifest import Record, check_files, check_mask_sizes, read_manifest
from ultrarefiner.errors import LeakError
from ultrarefiner.training.pseudo_labels import PseudoLabels
from ultrarefiner.training.recipe import TrainingRecipe


@dataclass(frozen=True, kw_only=True)
class TrainingSplit:
    """Sets of images: learned from, choosing, held out; these have no common patient or scene.

    Attributes:
        train: learned from.
        val: inner validation, to choose the checkpoint.
        held_out: the outer fold, not looked at.
        fold: its name; ``None`` if nothing is held out.
        fingerprint: sha256 of who is where.
        pseudo: learned from like ``train``, but their masks were drawn by a network; no patient or
            scene of ``val`` or ``held_out``.
        teachers: by the name of each network that drew them, digests of whom it knows: who learns
            from it knows them, too.
        barred: held out, of a scene that is, or of split ``test``: no teacher may know them.
        notes: name and remark of what was understood with a caveat.
    """

    train: tuple[Record, ...]
    val: tuple[Record, ...]
    held_out: tuple[Record, ...]
    fold: str | None
    fingerprint: str
    pseudo: tuple[Record, ...] = ()
    teachers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    barred: tuple[Record, ...] = ()
    notes: tuple[tuple[str, str], ...] = ()

    @property
    def learned(self) -> tuple[Record, ...]:
        """What is learned from, true masks first."""
        return (*self.train, *self.pseudo)

    @property
    def used(self) -> tuple[Record, ...]:
        """All images that are learned from or chosen on."""
        return (*self.learned, *self.val)

    def describe(self) -> str:
        """Return the split as one line."""
        name = "split test" if self.fold is None else f"fold {self.fold}"
        held_out = (
            f"{_counted(self.held_out)} held out ({name})" if self.held_out else "nothing held out"
        )
        learned = _counted(self.train)
        if self.pseudo:
            learned += f" and {_counted(self.pseudo)} with pseudo-labels"
        return (
            f"training on {learned}, choosing on {_counted(self.val)}, {held_out}; "
            f"split {self.fingerprint[:12]}"
        )


def split_for_training(
    manifest: Path,
    recipe: TrainingRecipe,
    *,
    fold: str | None,
    drop_leaks: bool = False,
    pseudo: PseudoLabels | None = None,
    track: Callable[[Iterable[Any], int], Iterable[Any]] = lambda items, _: items,
) -> TrainingSplit:
    """Split a manifest, after comparing all its images with each other.

    Near duplicates count as one scene: across the outer folds they are refused, within the training
    folds they are kept on one side of the inner split. Of what is held out only the images are
    opened, for the comparison, and no mask.

    Args:
        manifest: names images, masks, patients and folds.
        recipe: shares and seed.
        fold: fold to hold out; ``None`` for none.
        drop_leaks: instead of refusing, leave out of the training every patient who shares a scene
            with the held-out fold. The held-out fold stays whole.
        pseudo: masks for training images that have no true one, or that ``recipe.patient_share``
            leaves out.
        track: wraps long loops over images, for a progress bar.

    Raises:
        InputError: the manifest cannot be used.
        LeakError: a patient or scene is both learned from and held out.
    """
    records = read_manifest(manifest)
    check_files(records, manifest)
    check_mask_sizes([record for record in records if not _is_held_out(record, fold)], track=track)
    groups = find_duplicates([record.image for record in records], track=track)
    if not drop_leaks:
        refuse_leaks(find_leaks(records, groups))
    records = group_duplicates(records, groups)
    return split_records(records, recipe, fold=fold, drop_leaks=drop_leaks, pseudo=pseudo)


def split_records(
    records: tuple[Record, ...],
    recipe: TrainingRecipe,
    *,
    fold: str | None,
    drop_leaks: bool,
    pseudo: PseudoLabels | None = None,
) -> TrainingSplit:
    """Split the rows of a manifest by what they say, as :func:`split_for_training`; opens no file.

    Args:
        records: images of one scene share a ``duplicate_group``.
        recipe: shares and seed.
        fold: fold to hold out; ``None`` for none.
        drop_leaks: leave out who is on both sides, instead of refusing.
        pseudo: masks for training images that have no true one, or that ``recipe.patient_share``
            leaves out.

    Raises:
        InputError: no such fold, or too few patients.
        LeakError: a patient or scene is both learned from and held out.
    """
    dropped = _tied(records, lambda record: _is_held_out(record, fold))
    if dropped and not drop_leaks:
        raise LeakError(
            "the manifest leaks",
            expected="every patient and every scene learned from or held out",
            found=", ".join(record.image.name for record in dropped[:3])
            + ", of a patient or scene that is held out too",
            fix="Train with --drop-leaks to leave them out.",
        )
    kept = tuple(record for record in records if record not in dropped)
    inside, val, held_out = _parts(kept, fold)
    train = inside if pseudo is None else tuple(record for record in inside if record.mask)
    if recipe.patient_share < 1:
        train = subset_patients(train, share=recipe.patient_share, seed=recipe.seed)
    if not val:
        train, val = inner_split(train, share=recipe.inner_share, seed=recipe.seed)
    notes = [
        (record.image.name, "not trained on: its patient or scene is held out")
        for record in dropped
    ]
    labelled: tuple[Record, ...] = ()
    if pseudo is not None:
        aside = {record.image for record in val}
        tied = _tied((*val, *inside), lambda record: record.image in aside)
        known = {record.image for record in (*train, *val, *tied)}
        others = tuple(record for record in inside if record.image not in known)
        labelled, remark = pseudo.label(others, min_predicted_iou=recipe.min_pseudo_iou)
        notes.append((str(pseudo.folder), remark))
    return TrainingSplit(
        train=train,
        val=val,
        held_out=held_out,
        fold=fold,
        fingerprint=split_fingerprint((*train, *labelled, *val), held_out),
        pseudo=labelled,
        teachers=pseudo.teachers if pseudo is not None else {},
        barred=tuple(r for r in records if r in dropped or _is_held_out(r, fold)),
        notes=tuple(notes),
    )


def _parts(
    records: tuple[Record, ...], fold: str | None
) -> tuple[tuple[Record, ...], tuple[Record, ...], tuple[Record, ...]]:
    """Return training, official validation (empty if there is none) and held-out images."""
    if fold is not None:
        train, held_out = outer_split(records, fold)
        return tuple(record for record in train if record.split != "test"), (), held_out
    val = tuple(record for record in records if record.split == "val")
    train = tuple(record for record in records if record.split not in ("val", "test"))
    return train, val, tuple(record for record in records if record.split == "test")


def _tied(records: tuple[Record, ...], is_apart: Callable[[Record], bool]) -> tuple[Record, ...]:
    """Return the images of patients and scenes of which others are to be kept apart from them."""
    tied: list[Record] = []
    for group in groups_of(records):
        members = [records[index] for index in group]
        if any(is_apart(record) for record in members):
            tied += [record for record in members if not is_apart(record)]
    return tuple(tied)


def _is_held_out(record: Record, fold: str | None) -> bool:
    return record.split == "test" or (fold is not None and record.fold == fold)


def count_patients(records: Sequence[Record]) -> int:
    """Return how many patients there are; an image without a name is a patient of its own."""
    names = {record.patient for record in records} - {""}
    return len(names) + sum(not record.patient for record in records)


def _counted(records: tuple[Record, ...]) -> str:
    return f"{len(records)} images of {count_patients(records)} patients"
