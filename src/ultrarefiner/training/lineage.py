"""Whom a network has seen, written into its card; proof that it has not seen who is held out.

A card holds digests, no names: of image files, of patients and of scenes (the column
``duplicate_group``). They tell equal from different and nothing else; but who has a list of names
can find out which of them are in it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ultrarefiner.data.manifest import Record
from ultrarefiner.errors import InputError, LeakError
from ultrarefiner.weights import file_sha256

_NUM_DIGITS = 16
_NUM_SHOWN = 3
_BONDS = {
    "image_digests": "the image itself",
    "patient_digests": "its patient",
    "scene_digests": "its scene",
}


class Seen(NamedTuple):
    """An image that a network knows, and from where.

    Attributes:
        record: the image.
        bond: what the network was trained or chosen on: ``the image itself``, ``its patient`` or
            ``its scene``.
    """

    record: Record
    bond: str


def card_digests(
    records: Sequence[Record], teachers: Iterable[Mapping[str, Any]] = ()
) -> dict[str, list[str]]:
    """Return what the card of a network says of the images that it was trained or chosen on.

    A patient is a name, whatever the data set, as in :mod:`ultrarefiner.data.strata`. An image
    without one stands for itself.

    Args:
        records: all of them; the image files are read.
        teachers: cards of networks whose masks it learned from: whom they know, it knows.

    Returns:
        ``image_digests``, ``patient_digests`` and ``scene_digests``, each sorted, without repeats.

    Raises:
        InputError: an image cannot be read.
    """
    found = [_digests(record) for record in records]
    cards = list(teachers)
    return {
        bond: sorted(
            {digests[bond] for digests in found}.union(*(card.get(bond, ()) for card in cards))
            - {""}
        )
        for bond in _BONDS
    }


def known_digests(card: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the digests of all whom a checkpoint owes its masks to, those it is calibrated on too.

    Args:
        card: of the checkpoint.
    """
    calibration = card.get("calibration", {})
    return {
        bond: sorted({*card[bond], *calibration.get(bond, ())})
        for bond in _BONDS
        if bond in card  # those of earlier versions list no patients
    }


def card_sha256(card: Mapping[str, Any]) -> str:
    """Return the sha256 of a card, to tell whether a checkpoint is still the one it was."""
    return hashlib.sha256(json.dumps(card, sort_keys=True).encode()).hexdigest()


def content_fingerprint(records: Sequence[Record]) -> str:
    """Return the sha256 of the files of images and masks, whatever their order and names."""
    lines = sorted(
        " ".join(file_sha256(path) for path in (record.image, record.mask) if path)
        for record in records
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def seen_in_training(records: Sequence[Record], card: Mapping[str, Any]) -> tuple[Seen, ...]:
    """Return the images that a network knows, or whose patient or scene it knows, in their order.

    Args:
        records: images that it is to be scored on.
        card: of its checkpoint; what it does not list counts as not seen.

    Raises:
        InputError: an image cannot be read.
    """
    known = {bond: frozenset(card.get(bond, ())) for bond in _BONDS}
    return tuple(_seen([(record, _digests(record)) for record in records], known))


def refuse_contamination(
    held_out: Sequence[Record], cards: Mapping[str, Mapping[str, Any]]
) -> tuple[tuple[str, str], ...]:
    """Make sure that no network has seen an image, patient or scene that is held out.

    Args:
        held_out: images that the networks' predictions, or what is trained on these, are for.
        cards: of every network that contributes, by its name or path.

    Returns:
        Name and remark of each network of which less than all could be checked: cards of earlier
        versions list no patients.

    Raises:
        InputError: an image cannot be read.
        LeakError: names the network and up to three of the images; or the card lists no images, so
            that nothing can be checked.
    """
    found = [(record, _digests(record)) for record in held_out]
    notes = []
    for name, card in cards.items():
        known = {bond: frozenset(card.get(bond, ())) for bond in _BONDS}
        if not known["image_digests"]:
            raise LeakError(
                f"it is unknown what {name} was trained on",
                expected="a card with the digests of its images",
                found="none",
                fix="Train it with this version.",
            )
        seen = tuple(_seen(found, known))
        if seen:
            raise LeakError(
                f"{name} has seen what is held out",
                expected="no image, patient or scene of which it knows one",
                found=_listed(seen),
                fix="Train it without them, in a folder of its own.",
            )
        if "patient_digests" not in card:
            notes.append(
                (name, "its card is of an earlier version: images were compared, patients not")
            )
    return tuple(notes)


def _digests(record: Record) -> dict[str, str]:
    """Return a digest for each bond; empty where there is no patient or scene."""
    try:
        image = file_sha256(record.image)[:_NUM_DIGITS]
    except OSError as cause:
        raise InputError(f"cannot read {record.image}", found=str(cause)) from cause
    return {
        "image_digests": image,
        "patient_digests": _digest("patient", record.patient),
        "scene_digests": _digest("scene", record.duplicate_group),
    }


def _digest(kind: str, name: str) -> str:
    """Return a digest that no name of another kind has."""
    text = f"{kind}\0{name}".encode("utf-8", "surrogatepass")
    return hashlib.sha256(text).hexdigest()[:_NUM_DIGITS] if name else ""


def _seen(
    found: Sequence[tuple[Record, Mapping[str, str]]], known: Mapping[str, frozenset[str]]
) -> Iterator[Seen]:
    for record, digests in found:
        bond = next((bond for bond, digest in digests.items() if digest in known[bond]), None)
        if bond is not None:
            yield Seen(record, _BONDS[bond])


def _listed(seen: Sequence[Seen]) -> str:
    shown = ", ".join(f"{item.record.image} ({item.bond})" for item in seen[:_NUM_SHOWN])
    more = len(seen) - _NUM_SHOWN
    return shown + (f" and {more} more" if more > 0 else "")
