"""Spare patients: those that nothing was trained or chosen on; a promise can rest on them alone."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ultrarefiner.data.manifest import Record
from ultrarefiner.data.strata import groups_of
from ultrarefiner.errors import LeakError
from ultrarefiner.training.lineage import refuse_contamination, seen_in_training

_CROSS = (
    "Calibrate on other patients; with a network for every fold, --cross gives a weaker statement."
)


@dataclass(frozen=True, kw_only=True)
class Spare:
    """Images to calibrate on.

    Attributes:
        records: readable ones, of patients and scenes that the network does not know.
        num_left_out: images of patients that it knows.
        failures: file and reason of those that cannot be read.
        notes: name and remark of what could not be checked.
        only_images: whether the network's card lists no patients, so that images were compared
            alone.
    """

    records: tuple[Record, ...]
    num_left_out: int = 0
    failures: tuple[tuple[str, str], ...] = ()
    notes: tuple[tuple[str, str], ...] = ()
    only_images: bool = False


def readable(records: Sequence[Record]) -> Spare:
    """Return the images that are there, without asking who knows them."""
    is_there = {record: os.access(record.image, os.R_OK) for record in records}
    return Spare(
        records=tuple(record for record in records if is_there[record]),
        failures=tuple(
            (str(record.image), "there is no such file, or it may not be read")
            for record in records
            if not is_there[record]
        ),
    )


def spare_records(
    records: Sequence[Record],
    card: Mapping[str, Any],
    *,
    name: str,
    leave_out_seen: bool = False,
    trust_patients: bool = False,
) -> Spare:
    """Return the images of patients that a network was neither trained nor chosen on.

    Args:
        records: images to calibrate on.
        card: of the network.
        name: of the network, for messages.
        leave_out_seen: pass over the patients that it knows, with all their images, where they
            would otherwise be refused.
        trust_patients: believe that it knows none of the patients where its card lists images
            alone.

    Raises:
        LeakError: it knows some of the patients (all of them, if these may be left out), or does
            not tell whom it knows.
    """
    there = readable(records)
    known = {item.record for item in seen_in_training(there.records, card)}
    left = there.records
    if known and leave_out_seen:
        groups = groups_of(left)
        kept = {i for group in groups if not any(left[j] in known for j in group) for i in group}
        left = tuple(record for index, record in enumerate(left) if index in kept)
    if not left:
        left = there.records  # refused below, by name
    try:
        notes = refuse_contamination(left, {name: card})
    except LeakError as error:
        if not known:
            raise
        num_spare = len(there.records) - len(known)
        ways = "--leave-out-seen passes over them. " if num_spare and not leave_out_seen else ""
        raise LeakError(
            error.what, expected=error.expected, found=error.found, fix=ways + _CROSS
        ) from error
    only_images = not card.get("patient_digests")
    if only_images and not trust_patients:
        raise LeakError(
            f"it is unknown which patients {name} was trained on",
            expected="a card with the digests of its patients",
            found="those of its images alone, so that other images of its patients cannot be told",
            fix="Train it with this version and a manifest that names patients, or, if you know "
            "that it has seen none of these, say --trust-patients.",
        )
    if only_images:
        notes = ((name, "its card lists no patients: images were compared, patients not"),)
    return Spare(
        records=left,
        num_left_out=len(there.records) - len(left),
        failures=there.failures,
        notes=notes,
        only_images=only_images,
    )
