"""Who has seen whom: by image, patient and scene, without their names."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ultrarefiner.data.manifest import Record
from ultrarefiner.errors import InputError, LeakError
from ultrarefiner.training.lineage import card_digests, refuse_contamination, seen_in_training
from ultrarefiner.weights import file_sha256


@pytest.fixture
def records(tmp_path: Path) -> tuple[Record, ...]:
    """Two images of Ada, one of Bob, two without a patient of which one shows a known scene."""
    patients = ("Ada Kowalska", "Ada Kowalska", "Bob", "", "")
    scenes = ("", "", "scene-7", "", "scene-7")
    made = []
    for index, (patient, scene) in enumerate(zip(patients, scenes, strict=True)):
        image = tmp_path / f"{index}.png"
        image.write_bytes(f"pixels {index}".encode())
        made.append(Record(image=image, patient=patient, dataset="clinic", duplicate_group=scene))
    return tuple(made)


def test_what_a_card_says(records: tuple[Record, ...]) -> None:
    digests = card_digests(records)
    assert digests["image_digests"] == sorted(file_sha256(r.image)[:16] for r in records)
    assert len(digests["patient_digests"]) == 2  # who has no name is an image
    assert len(digests["scene_digests"]) == 1
    assert card_digests(records[::-1]) == digests
    text = json.dumps(digests)
    assert not any(name in text for name in ("Ada", "Bob", "clinic", "scene-7", ".png"))
    assert json.loads(text) == digests


@pytest.mark.parametrize(
    ("trained_on", "held_out", "bond"),
    [
        ([0], [0], "the image itself"),
        ([0], [1], "its patient"),
        ([2], [4], "its scene"),
        ([3], [3], "the image itself"),
        ([0, 2], [3], None),
        ([3], [4], None),
    ],
)
def test_by_image_patient_or_scene(
    records: tuple[Record, ...], trained_on: list[int], held_out: list[int], bond: str | None
) -> None:
    card = card_digests([records[index] for index in trained_on])
    outside = [records[index] for index in held_out]
    seen = seen_in_training(outside, card)
    assert [item.bond for item in seen] == ([] if bond is None else [bond])
    if bond is None:
        assert refuse_contamination(outside, {"inner": card}) == ()
        return
    with pytest.raises(LeakError) as refusal:
        refuse_contamination(
            outside, {"clean": card_digests([]) | {"image_digests": ["0"]}, "inner": card}
        )
    message = str(refusal.value)
    assert message.startswith("inner has seen")
    assert f"{outside[0].image} ({bond})" in message
    assert "Ada" not in message


def test_a_patient_is_one_person_in_every_data_set(records: tuple[Record, ...]) -> None:
    """As in the folds; a scene called like a patient is no patient."""
    elsewhere = replace(records[1], dataset="other")
    assert seen_in_training([elsewhere], card_digests(records[:1]))
    scene = replace(records[3], duplicate_group="Bob")
    assert not seen_in_training([scene], card_digests([records[2]]))


def test_a_copy_under_another_name_is_the_same_image(
    records: tuple[Record, ...], tmp_path: Path
) -> None:
    copy = tmp_path / "copy.png"
    copy.write_bytes(records[3].image.read_bytes())
    with pytest.raises(LeakError, match=r"copy\.png \(the image itself\)"):
        refuse_contamination([Record(image=copy)], {"inner": card_digests(records)})


def test_many_are_counted(records: tuple[Record, ...]) -> None:
    with pytest.raises(LeakError, match="and 2 more"):
        refuse_contamination(records, {"inner": card_digests(records)})


def test_a_card_of_an_earlier_version(records: tuple[Record, ...]) -> None:
    """It lists images alone: these are compared, and a note says that patients are not."""
    old = {"image_digests": card_digests(records[:1])["image_digests"]}
    notes = refuse_contamination(records[1:], {"old": old, "new": card_digests(records[:0]) | old})
    assert [name for name, _ in notes] == ["old"]
    assert "patients not" in notes[0][1]
    with pytest.raises(LeakError, match="old has seen"):
        refuse_contamination(records, {"old": old})


def test_a_card_that_lists_nothing_proves_nothing(records: tuple[Record, ...]) -> None:
    with pytest.raises(LeakError, match="unknown what foreign was trained on"):
        refuse_contamination(records, {"foreign": {"command": "train"}})


def test_an_image_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    gone = Record(image=tmp_path / "gone.png")
    with pytest.raises(InputError, match=r"cannot read .*gone\.png"):
        refuse_contamination([gone], {})
