"""Who may be calibrated on: patients that the network does not know, each on one side."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ultrarefiner.calibration.spare import spare_records
from ultrarefiner.calibration.splitting import (
    num_without_patient,
    patients_of,
    split_patients,
)
from ultrarefiner.data.manifest import Record
from ultrarefiner.errors import LeakError
from ultrarefiner.training.lineage import card_digests


@pytest.fixture
def records(tmp_path: Path) -> tuple[Record, ...]:
    """Ada and Bob with two images each, two without a patient; Bob's second shares a scene."""
    patients = ("Ada", "Ada", "Bob", "Bob", "", "")
    scenes = ("", "", "", "scene-7", "", "scene-7")
    made = []
    for index, (patient, scene) in enumerate(zip(patients, scenes, strict=True)):
        image = tmp_path / f"{index}.png"
        image.write_bytes(f"pixels {index}".encode())
        made.append(Record(image=image, patient=patient, duplicate_group=scene))
    return tuple(made)


def test_patients_of_one_scene_count_as_one(records: tuple[Record, ...]) -> None:
    assert patients_of(records) == ("Ada", "Ada", "Bob", "Bob", "4", "Bob")


def test_the_split_keeps_a_patient_together(records: tuple[Record, ...]) -> None:
    seen = set()
    for seed in range(20):
        learned, chosen = split_patients(records, learn_share=0.4, seed=seed)
        assert sorted(map(str, (r.image for r in (*learned, *chosen)))) == sorted(
            str(record.image) for record in records
        )
        assert not set(patients_of(learned)) & set(patients_of(chosen))
        assert len(set(patients_of(learned))) == 1  # 0.4 of 3, rounded
        assert split_patients(records[::-1], learn_share=0.4, seed=seed)[0] == learned[::-1]
        seen.add(patients_of(learned))
    assert len(seen) == 3


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_neither_side_is_empty(records: tuple[Record, ...], share: float) -> None:
    assert all(split_patients(records, learn_share=share, seed=0))


def test_a_patient_alone_is_on_the_second_side(records: tuple[Record, ...]) -> None:
    assert split_patients(records[:2], learn_share=0.4, seed=0) == ((), records[:2])
    assert split_patients((), learn_share=0.4, seed=0) == ((), ())


def test_images_without_a_patient(records: tuple[Record, ...]) -> None:
    """The last one shares a scene with Bob."""
    assert num_without_patient(records) == 1
    assert num_without_patient(records[:4]) == 0
    assert num_without_patient([records[4], records[5]]) == 2


@pytest.mark.parametrize("bond", [{}, {"patient_digests": []}], ids=["old card", "empty list"])
def test_a_card_without_patients_takes_somebodys_word(
    records: tuple[Record, ...], bond: dict[str, list[str]]
) -> None:
    card = {"image_digests": ["0"]} | bond
    with pytest.raises(LeakError, match="unknown which patients net was trained on") as refused:
        spare_records(records, card, name="net")
    assert "--trust-patients" in str(refused.value)
    found = spare_records(records, card, name="net", trust_patients=True)
    assert found.records == records
    assert found.only_images
    ((name, remark),) = found.notes
    assert (name, "patients not" in remark) == ("net", True)


def test_whom_the_network_does_not_know(records: tuple[Record, ...]) -> None:
    other = {"image_digests": ["0"], "patient_digests": ["0"], "scene_digests": []}
    found = spare_records(records, other, name="net")
    assert (found.records, found.num_left_out, found.notes) == (records, 0, ())
    assert not found.only_images


def test_whom_it_knows_is_refused_or_left_out(records: tuple[Record, ...]) -> None:
    card = card_digests(records[:1])
    with pytest.raises(LeakError, match="net has seen what is held out") as refused:
        spare_records(records, card, name="net")
    assert str(records[0].image) in str(refused.value)
    assert "--leave-out-seen" in str(refused.value)
    assert "Ada" not in str(refused.value)
    found = spare_records(records, card, name="net", leave_out_seen=True)
    assert found.records == records[2:]
    assert found.num_left_out == 2


def test_all_images_of_a_known_one_are_left_out(records: tuple[Record, ...]) -> None:
    """Also where the card, of an earlier version, lists images alone."""
    card = {"image_digests": card_digests(records[3:4])["image_digests"]}
    found = spare_records(records, card, name="net", leave_out_seen=True, trust_patients=True)
    assert [record.image.stem for record in found.records] == ["0", "1", "4"]
    assert "patients not" in found.notes[0][1]


@pytest.mark.parametrize("leave_out", [False, True])
def test_without_spare_patients_the_weaker_statement_is_offered(
    records: tuple[Record, ...], leave_out: bool
) -> None:
    with pytest.raises(LeakError, match="--cross") as refused:
        spare_records(records, card_digests(records), name="net", leave_out_seen=leave_out)
    assert "--leave-out-seen" not in str(refused.value)


def test_a_network_that_does_not_tell(records: tuple[Record, ...]) -> None:
    with pytest.raises(LeakError, match="unknown what net was trained on"):
        spare_records(records, {}, name="net", leave_out_seen=True)


def test_files_that_are_gone_are_named(records: tuple[Record, ...], tmp_path: Path) -> None:
    gone = replace(records[0], image=tmp_path / "gone.png")
    found = spare_records([gone, *records[2:]], card_digests(records[:1]), name="net",
                          leave_out_seen=True)  # fmt: skip
    assert [Path(name).name for name, _ in found.failures] == ["gone.png"]
    assert found.records == records[2:]
