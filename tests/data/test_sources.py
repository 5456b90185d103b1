"""Every importer on a fake data set in its real layout, and what it says about broken ones."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fakes.busbra import write_fake_busbra
from fakes.busi import busi_truth, write_fake_busi
from fakes.coco import write_fake_coco
from fakes.dicom import PATIENT_TEXT, write_fake_dicom
from fakes.dicom import SPACING_MM as DICOM_SPACING_MM
from fakes.folder import write_fake_classes, write_fake_folder
from fakes.monai import write_fake_monai
from fakes.nnunet import SPACING_MM, write_fake_nnunet
from fakes.scenes import NUM_SCENES, draw_scene, save_png
from ultrarefiner.data.manifest import Record, read_manifest
from ultrarefiner.data.readers import read_coarse, read_image
from ultrarefiner.data.sources import SOURCES, Imported, import_source
from ultrarefiner.errors import ConfigError, InputError, OutputError

FAKES: dict[str, Callable[[Path], Path]] = {
    "busbra": write_fake_busbra,
    "busi": write_fake_busi,
    "coco": write_fake_coco,
    "folder": write_fake_folder,
    "monai": write_fake_monai,
    "nnunet": write_fake_nnunet,
}
INDEX_FILES = {
    "busbra": "bus_data.csv",
    "coco": "annotations/instances_train2017.json",
    "monai": "datalist.json",
    "nnunet": "dataset.json",
}


def fake(name: str, folder: Path) -> Path:
    folder.mkdir(parents=True)
    return FAKES[name](folder)


def run(name: str, src: Path, out: Path) -> tuple[Imported, dict[str, Record]]:
    imported = import_source(name, src, out)
    return imported, {record.image.name: record for record in read_manifest(out)}


def mask_of(record: Record) -> np.ndarray:
    assert record.mask is not None
    return read_coarse(record.mask).values > 0.5


def everything_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_every_importer_has_a_fake() -> None:
    assert set(FAKES) == set(SOURCES)


# The contract of an importer


@pytest.mark.parametrize("name", tuple(SOURCES))
def test_four_cases_are_read_with_masks_of_their_size(name: str, tmp_path: Path) -> None:
    src = fake(name, tmp_path / "set")
    imported, records = run(name, src, tmp_path / "out" / "m.csv")
    assert (imported.num_records, imported.skipped) == (4, ())
    assert len(records) == 4
    for record in records.values():
        mask = mask_of(record)
        assert mask.shape == read_image(record.image).shape
        assert record.dataset
        assert read_coarse(record.mask).is_hard
    assert sum(mask_of(record).any() for record in records.values()) >= 3
    with (tmp_path / "out" / "m.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["image"] for row in rows] == sorted(row["image"] for row in rows)


@pytest.mark.parametrize("name", tuple(SOURCES))
def test_a_second_import_writes_the_same_bytes_and_nothing_more(name: str, tmp_path: Path) -> None:
    src, out = fake(name, tmp_path / "set"), tmp_path / "out" / "m.csv"
    import_source(name, src, out)
    files = {path: path.read_bytes() for path in out.parent.rglob("*") if path.is_file()}
    import_source(name, src, out)
    assert {path: path.read_bytes() for path in out.parent.rglob("*") if path.is_file()} == files


@pytest.mark.parametrize("name", tuple(SOURCES))
def test_no_folder_and_an_empty_one_are_named_with_the_layout(name: str, tmp_path: Path) -> None:
    empty, out = tmp_path / "empty", tmp_path / "out" / "m.csv"
    empty.mkdir()
    for src in (tmp_path / "missing", empty):
        with pytest.raises(InputError) as caught:
            import_source(name, src, out)
        assert str(src) in str(caught.value)
        assert caught.value.expected
        assert caught.value.found
    assert not out.parent.exists()


@pytest.mark.parametrize("content", [b"", b"\xff\xfe{", b"[1]", b"{" * 5, b"[" * 100_000])
@pytest.mark.parametrize("name", tuple(INDEX_FILES))
def test_a_broken_index_is_named_and_the_old_manifest_stays(
    name: str, content: bytes, tmp_path: Path
) -> None:
    src, out = fake(name, tmp_path / "set"), tmp_path / "out" / "m.csv"
    import_source(name, src, out)
    before, files = out.read_bytes(), everything_in(out.parent)
    index = src if src.is_file() else src / INDEX_FILES[name]
    index.write_bytes(content)
    with pytest.raises(InputError, match=str(index.name)):
        import_source(name, src, out)
    assert out.read_bytes() == before
    assert everything_in(out.parent) == files


@pytest.mark.parametrize("name", tuple(SOURCES))
def test_a_lost_image_is_skipped_or_left_out_never_listed(name: str, tmp_path: Path) -> None:
    src = fake(name, tmp_path / "set")
    _, records = run(name, src, tmp_path / "before.csv")
    lost = sorted(records)[1]
    records[lost].image.unlink()
    imported, records = run(name, src, tmp_path / "m.csv")
    assert imported.num_records == len(records) == 3
    assert lost not in records


# What all of them share


def test_an_unknown_importer_and_another_ending_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown data source 'busy'.*Did you mean 'busi'"):
        import_source("busy", tmp_path, tmp_path / "m.csv")
    src = fake("folder", tmp_path / "set")
    with pytest.raises(ConfigError, match=r"m\.json.*\.csv"):
        import_source("folder", src, tmp_path / "m.json")


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    src = fake("coco", tmp_path / "set")
    (tmp_path / "out" / "m.csv").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"m\.csv"):
        import_source("coco", src, tmp_path / "out" / "m.csv")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"m\.csv"):
        import_source("coco", src, tmp_path / "file" / "m.csv")
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "m-masks").write_text("in the way")
    with pytest.raises(OutputError, match=r"m\.csv"):
        import_source("coco", src, tmp_path / "masks" / "m.csv")
    assert everything_in(tmp_path / "masks") == {"m-masks"}


def test_a_broken_mask_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    src = fake("busi", tmp_path / "set")
    (src / "benign" / "benign (10)_mask_1.png").write_bytes(b"no image")
    imported, records = run("busi", src, tmp_path / "m.csv")
    assert len(records) == 3
    ((name, reason),) = imported.skipped
    assert name.endswith("benign (10).png")
    assert "benign (10)_mask_1.png" in reason


def test_nothing_usable_is_an_error_with_the_first_reason(tmp_path: Path) -> None:
    src = fake("folder", tmp_path / "set")
    for image in (src / "Images").glob("*.*"):
        image.rename(image.with_suffix(".nii"))
    with pytest.raises(InputError, match=r"nothing in .* 4 that .*case 0\.nii.*NIfTI"):
        import_source("folder", src, tmp_path / "m.csv")
    assert not (tmp_path / "m.csv").exists()
    with pytest.raises(InputError, match="nothing in"):
        import_source("folder", src, tmp_path / "new" / "m.csv")
    assert not (tmp_path / "new").exists()


def test_unknown_patients_are_noted(tmp_path: Path) -> None:
    imported, records = run("busi", fake("busi", tmp_path / "a"), tmp_path / "a.csv")
    assert {record.patient for record in records.values()} == {""}
    assert any("names no patients" in remark for _, remark in imported.notes)
    imported, _ = run("busbra", fake("busbra", tmp_path / "b"), tmp_path / "b.csv")
    assert imported.notes == ()


# One by one


def test_busbra_keeps_patients_pathology_and_folds(tmp_path: Path) -> None:
    _, records = run("busbra", fake("busbra", tmp_path / "set"), tmp_path / "m.csv")
    found = [(r.patient, r.label, r.fold, r.dataset, r.birads) for r in records.values()]
    assert found == [
        ("busbra-1", "malignant", "3", "BUS-BRA", "4"),
        ("busbra-1", "malignant", "3", "BUS-BRA", "4"),
        ("busbra-4", "benign", "1", "BUS-BRA", "2"),
        ("busbra-7", "benign", "3", "BUS-BRA", "3"),
    ]
    assert {record.device for record in records.values()} == {"GE Logiq 7 @10-14MHz"}


def test_busbra_with_a_row_that_ends_early_is_broken(tmp_path: Path) -> None:
    src = fake("busbra", tmp_path / "set")
    with (src / "5-fold-cv.csv").open("a") as stream:
        stream.write("bus_0009-l\n")
    with pytest.raises(InputError, match=r"5-fold-cv\.csv is broken.*row 5"):
        import_source("busbra", src, tmp_path / "m.csv")


@pytest.mark.realdata
def test_busbra_itself_is_imported(busbra: Path, tmp_path: Path) -> None:
    imported, records = run("busbra", busbra, tmp_path / "m.csv")
    assert imported.num_records == len(records) > 1000
    assert imported.skipped == imported.notes == ()
    assert {record.label for record in records.values()} == {"benign", "malignant"}
    assert {record.birads for record in records.values()} == {"2", "3", "4", "5"}
    assert len({record.device for record in records.values()}) == 4


def test_busi_merges_masks_and_cleans_those_that_need_it(tmp_path: Path) -> None:
    src = fake("busi", tmp_path / "set")
    imported, records = run("busi", src.parent, tmp_path / "out" / "busi.csv")
    assert imported.num_masks_drawn == 2
    assert [record.label for record in records.values()] == [
        *("benign", "benign", "malignant", "normal")
    ]
    for record in records.values():
        np.testing.assert_array_equal(mask_of(record), busi_truth(record.image.stem))
    assert records["benign (1).png"].mask == src / "benign" / "benign (1)_mask.png"
    folder = tmp_path / "out" / "busi-masks"
    assert records["benign (10).png"].mask == folder / "benign" / "benign (10).png"
    assert len([path for path in folder.rglob("*") if path.is_file()]) == 2
    assert "busi-masks/benign/benign (10).png" in (tmp_path / "out" / "busi.csv").read_text()


def test_busi_needs_no_mask_for_the_normal_class_only(tmp_path: Path) -> None:
    src = fake("busi", tmp_path / "set")
    (src / "normal" / "normal (1)_mask.png").unlink()
    (src / "benign" / "benign (1)_mask.png").unlink()
    save_png(src / "benign" / "benign (3)_mask_1.png", draw_scene(0).mask)
    imported, records = run("busi", src, tmp_path / "m.csv")
    assert not mask_of(records["normal (1).png"]).any()
    assert imported.skipped == ((str(src / "benign" / "benign (1).png"), "it has no mask"),)
    assert any("(3)_mask_1.png" in name for name, _ in imported.notes)


def test_busi_does_not_merge_masks_of_two_sizes(tmp_path: Path) -> None:
    src = fake("busi", tmp_path / "set")
    save_png(src / "benign" / "benign (10)_mask_1.png", np.zeros((30, 30), dtype=np.bool_))
    imported, _ = run("busi", src, tmp_path / "m.csv")
    assert [reason for _, reason in imported.skipped if "56x40, found 30x30" in reason]


def test_folder_matches_by_name_and_notes_what_is_left(tmp_path: Path) -> None:
    src = fake("folder", tmp_path / "my set")
    save_png(src / "Images" / "alone.png", draw_scene(0).image)
    save_png(src / "Masks" / "lost.png", draw_scene(0).mask)
    imported, records = run("folder", src, tmp_path / "m.csv")
    for index in range(NUM_SCENES):
        record = records[f"case {index}.{'bmp' if index == 0 else 'png'}"]
        np.testing.assert_array_equal(mask_of(record), draw_scene(index).mask)
        assert (record.dataset, record.label, record.split) == ("my set", "", "")
    notes = {Path(name).name: remark for name, remark in imported.notes}
    assert notes["alone.png"] == "an image without a mask"
    assert notes["lost.png"] == "a mask without an image"


def test_folder_takes_classes_and_splits_from_folder_names(tmp_path: Path) -> None:
    classes = write_fake_classes(tmp_path / "classes")
    _, records = run("folder", classes, tmp_path / "a.csv")
    found = [(name, record.label) for name, record in sorted(records.items())]
    assert found == [
        *(("0.v1.png", "benign"), ("1.v1.png", "benign")),
        *(("2.v1.png", "malignant"), ("3.v1.png", "malignant")),
    ]
    for split, part in (("train", "0.v1"), ("Val", "2.v1")):
        for kind in ("images", "labels"):
            label = "benign" if part == "0.v1" else "malignant"
            ending = "" if kind == "images" else "_seg"
            target = tmp_path / "splits" / split / kind / label
            target.mkdir(parents=True)
            shutil.copy(classes / label / f"{part}{ending}.png", target)
    _, records = run("folder", tmp_path / "splits", tmp_path / "b.csv")
    assert {(r.image.name, r.label, r.split) for r in records.values()} == {
        ("0.v1.png", "benign", "train"),
        ("2.v1.png", "malignant", "val"),
    }


def test_folder_of_dicom_has_spacing_and_no_patient_text(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    src = write_fake_dicom(tmp_path / "clinic")
    imported, records = run("folder", src, tmp_path / "m.csv")
    assert [record.spacing_mm for record in records.values()] == [
        pytest.approx(DICOM_SPACING_MM),
        pytest.approx(DICOM_SPACING_MM),
        None,
        None,
    ]
    for index in range(NUM_SCENES):
        image = read_image(records[f"US.{index}.dcm"].image)
        np.testing.assert_allclose(image, draw_scene(index).image / 255, atol=1e-6)
    (src / "images" / "US.0.dcm").write_bytes(b"x" * 200 + PATIENT_TEXT.encode())
    imported, records = run("folder", src, tmp_path / "m.csv")
    assert len(records) == 3
    assert [name for name, _ in imported.skipped] == [str(src / "images" / "US.0.dcm")]
    written = (tmp_path / "m.csv").read_text() + str(imported) + caplog.text
    assert "DOE" not in written


def test_nnunet_gives_spacing_splits_and_folds(tmp_path: Path) -> None:
    src = fake("nnunet", tmp_path / "set")
    _, records = run("nnunet", src, tmp_path / "m.csv")
    found = [(r.fold, r.split, r.dataset) for r in records.values()]
    name = "Dataset027_Breast"
    assert found == [
        *(("0", "train", name), ("1", "train", name), ("0", "train", name), ("", "test", name))
    ]
    for index, record in enumerate(records.values()):
        assert record.spacing_mm == pytest.approx(SPACING_MM)
        np.testing.assert_array_equal(mask_of(record), draw_scene(index).mask)


def test_nnunet_says_what_it_does_not_use(tmp_path: Path) -> None:
    src = fake("nnunet", tmp_path / "set")
    shutil.rmtree(src / "labelsTs")
    (src / "labelsTr" / "breast_001.nii.gz").unlink()
    channel = src / "imagesTr" / "breast_000_0000.nii.gz"
    shutil.copy(channel, channel.with_name("breast_000_0001.nii.gz"))
    content = json.loads((src / "dataset.json").read_text())
    content["labels"]["artery"] = 2
    (src / "dataset.json").write_text(json.dumps(content))
    imported, records = run("nnunet", src, tmp_path / "m.csv")
    assert records["breast_003_0000.nii.gz"].mask is None
    assert len(records) == 3
    assert "labelsTr" in imported.skipped[0][1]
    remarks = " ".join(remark for _, remark in imported.notes)
    assert "1 files of further channels" in remarks
    assert "2 classes" in remarks


@pytest.mark.parametrize(
    ("splits", "message"),
    [("{}", "something else"), ('[{"train": []}]', "another content"), ("[", "no JSON")],
)
def test_nnunet_with_a_broken_splits_file(splits: str, message: str, tmp_path: Path) -> None:
    src = fake("nnunet", tmp_path / "set")
    (src / "splits_final.json").write_text(splits)
    with pytest.raises(InputError, match=rf"splits_final\.json.*{message}"):
        import_source("nnunet", src, tmp_path / "m.csv")


def test_nnunet_without_a_partition_gives_no_folds(tmp_path: Path) -> None:
    src = fake("nnunet", tmp_path / "set")
    splits = [{"val": ["breast_000"]}, {"val": ["breast_000", "breast_001"]}]
    (src / "splits_final.json").write_text(json.dumps(splits))
    imported, records = run("nnunet", src, tmp_path / "m.csv")
    assert {record.fold for record in records.values()} == {""}
    assert any("breast_000 is validated in two splits" in remark for _, remark in imported.notes)


def test_monai_gives_folds_splits_and_patients(tmp_path: Path) -> None:
    src = fake("monai", tmp_path / "set")
    _, records = run("monai", src.parent, tmp_path / "m.csv")
    assert [(r.fold, r.split, r.patient) for r in records.values()] == [
        *(("0", "train", "A"), ("1", "train", "B"), ("", "val", ""), ("", "test", ""))
    ]
    for index, record in enumerate(records.values()):
        np.testing.assert_array_equal(mask_of(record), draw_scene(index).mask)


def test_monai_skips_classes_and_repeated_images_by_their_place(tmp_path: Path) -> None:
    src = fake("monai", tmp_path / "set")
    content = json.loads(src.read_text())
    content["training"][1]["label"] = 1
    content["validation"].append(content["training"][0])
    content["test"].append("images/1.png")
    src.write_text(json.dumps(content))
    imported, records = run("monai", src, tmp_path / "m.csv")
    assert records["1.png"].mask is None
    assert records["0.png"].split == "train"
    reasons = dict(imported.skipped)
    assert reasons[f"{src}, training[1]"] == "it has no path of a label"
    assert "more than once" in reasons[str(records["0.png"].image)]
