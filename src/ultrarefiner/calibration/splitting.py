"""Patients in two parts: one to learn the score on, one to choose its threshold on."""

from __future__ import annotations

from collections.abc import Sequence

from ultrarefiner.data.formats import split_name
from ultrarefiner.data.manifest import Record
from ultrarefiner.data.strata import groups_of, shuffled


def patients_of(records: Sequence[Record]) -> tuple[str, ...]:
    """Return a name for the patient of each image, the unit that the guarantee counts.

    An image without patient is a patient of its own, named like the image; patients that share a
    scene (the column ``duplicate_group``) count as one, named like the first of them.

    Example:
        >>> from pathlib import Path
        >>> one = Record(image=Path("1.png"), patient="a")
        >>> patients_of([one, Record(image=Path("2.png"))])
        ('a', '2')
    """
    names = [""] * len(records)
    for group in groups_of(records):
        stem = split_name(records[group[0]].image)[0]
        name = next((records[index].patient for index in group if records[index].patient), stem)
        for index in group:
            names[index] = name
    return tuple(names)


def num_without_patient(records: Sequence[Record]) -> int:
    """Return how many images have no patient, and share no scene with one that has.

    Example:
        >>> from pathlib import Path
        >>> num_without_patient([Record(image=Path("1.png"), patient="a"), Record(image=Path("2"))])
        1
    """
    groups = groups_of(records)
    return sum(len(group) for group in groups if not any(records[i].patient for i in group))


def split_patients(
    records: Sequence[Record], *, learn_share: float, seed: int
) -> tuple[tuple[Record, ...], tuple[Record, ...]]:
    """Return the images to learn the score on, and those to choose the threshold on.

    A patient, and a scene, is on one side. The split depends on the names of the files and the seed
    alone.

    Args:
        records: images to split; of a single patient, all are on the second side.
        learn_share: of the patients, in (0, 1); at least one, and at least one is left.
        seed: of the draw.
    """
    groups = shuffled(records, seed=seed, purpose="calibration")
    num = min(max(round(learn_share * len(groups)), 1), len(groups) - 1)
    learn = {index for group in groups[:num] for index in group}
    return (
        tuple(record for index, record in enumerate(records) if index in learn),
        tuple(record for index, record in enumerate(records) if index not in learn),
    )
