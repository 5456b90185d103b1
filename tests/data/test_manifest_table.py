"""A table is read as it was meant, or refused by line and column; nothing is guessed in silence."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from ultrarefiner.data.manifest import Record, read_manifest
from ultrarefiner.data.manifest_table import read_table
from ultrarefiner.errors import InputError


def _table(folder: Path, *lines: str) -> Path:
    path = folder / "m.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_each_row_comes_with_its_place_and_all_columns(tmp_path: Path) -> None:
    path = _table(tmp_path, "label,image,notes", "", "benign, a.png ,x", '"two\nlines",b.png', ",c")
    places, rows = zip(*read_table(path), strict=True)
    assert places == tuple(f"manifest {path}, line {line}" for line in (3, 4, 6))
    assert [row["image"] for row in rows] == ["a.png", "b.png", "c"]
    assert rows[0]["label"] == "benign"
    assert "notes" not in rows[0]
    assert rows[2]["label"] == rows[2]["fold"] == ""


@pytest.mark.parametrize("delimiter", [";", "\t"], ids=["semicolon", "tab"])
def test_tables_of_spreadsheets(tmp_path: Path, delimiter: str) -> None:
    lines = ["image;patient;spacing_y_mm;spacing_x_mm;;", "a,1.png;p1;0,1;0,25;;", ";;;;;"]
    path = _table(tmp_path, *(line.replace(";", delimiter) for line in lines))
    assert read_manifest(path) == (
        Record(image=tmp_path / "a,1.png", patient="p1", spacing_mm=(0.1, 0.25)),
    )


def test_more_cells_than_columns(tmp_path: Path) -> None:
    path = _table(tmp_path, "image,label", "a.png,x,,", "b, with comma.png,benign")
    with pytest.raises(InputError, match=r"line 3: expected at most 2 cells.*found 3.*quotes"):
        read_manifest(path)


def test_a_quote_without_end_does_not_swallow_the_rest(tmp_path: Path) -> None:
    path = _table(tmp_path, "image,label", "a.png,x", '"b.png,benign', "c.png,benign")
    with pytest.raises(InputError, match="line 3: expected CSV"):
        read_manifest(path)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("patient_id", "patient"),
        ("PatientID", "patient"),
        ("Patient", "patient"),
        ("patients", "patient"),
        ("pateint", "patient"),
        ("subject_id", "patient"),
        ("Fold", "fold"),
        ("folds", "fold"),
        ("kfold", "fold"),
        ("Split", "split"),
        ("duplicate-group", "duplicate_group"),
        ("Duplicate Groups", "duplicate_group"),
    ],
)
def test_a_column_that_keeps_patients_apart_is_not_overlooked(
    tmp_path: Path, name: str, meant: str
) -> None:
    with pytest.raises(InputError, match=f"expected '{meant}' as .*, found '{name}'.*Rename it"):
        read_manifest(_table(tmp_path, f"image,{name}", "a.png,1"))
    assert read_manifest(_table(tmp_path, f"image,{name},{meant}", "a.png,1,"))  # it is there


@pytest.mark.parametrize(
    "name", ["patient_age", "fold_1", "split_1", "age", "side", "histology", "outpatient"]
)
def test_other_columns_are_ignored_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    (record,) = read_manifest(_table(tmp_path, f"image,{name}", "a.png,1"))
    assert record == Record(image=tmp_path / "a.png")
    assert caplog.records == []


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("mask_path", "mask"),
        ("Labels", "label"),
        ("spacing_y", "spacing_y_mm"),
        ("BI-RADS", "birads"),
    ],
)
def test_a_column_nearly_named_like_another_is_ignored_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, meant: str
) -> None:
    with caplog.at_level(logging.WARNING):
        read_manifest(_table(tmp_path, f"image,{name}", "a.png,"))
    (message,) = caplog.messages
    assert message.endswith(f"m.csv: column '{name}' is not used; was '{meant}' meant?")


@pytest.mark.parametrize("name", ["Image", "images", "image_path", "img", "filename", "File Name"])
def test_the_column_image_under_another_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=f"a column 'image'.*Rename '{name}' to 'image'"):
        read_manifest(_table(tmp_path, f"{name};label", "a.png;x"))


def test_a_column_given_twice(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected one column 'patient', found several"):
        read_manifest(_table(tmp_path, "image,patient,patient", "a.png,1,2"))


@pytest.mark.parametrize("column", ["patient", "fold", "split", "duplicate_group"])
@pytest.mark.parametrize("word", ["nan", "NaN", "None", "NULL", "#N/A"])
def test_a_word_for_nothing_is_no_name(tmp_path: Path, column: str, word: str) -> None:
    path = _table(tmp_path, f"image,{column}", "a.png,", f"b.png,{word}")
    with pytest.raises(InputError, match=f"line 3, column '{column}': .*found '{word}'.*empty"):
        read_manifest(path)


def test_a_split_is_one_of_three(tmp_path: Path) -> None:
    good = _table(tmp_path, "image,split", "a,train", "b,val", "c,test", "d,")
    assert [record.split for record in read_manifest(good)] == ["train", "val", "test", ""]
    bad = _table(tmp_path, "image,split", "a,train", "b,validation")
    with pytest.raises(InputError, match="line 3, column 'split': expected train, val, test or no"):
        read_manifest(bad)


@pytest.mark.parametrize("ending", [".parquet", ".xlsx", ".PQ"])
def test_tables_of_other_formats_are_to_be_converted(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"m{ending}"
    path.write_bytes(b"PAR1")
    with pytest.raises(InputError, match=rf"m\{ending}: .*found a \{ending} file. Convert it"):
        read_manifest(path)


def test_other_encodings_are_named(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes("image,label\nmüller.png,x\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"m\.csv: .*UTF-8.*Save it as 'CSV UTF-8'\."):
        read_manifest(path)
    path.write_bytes("image,label\na.png,x\n".encode("utf-16-le"))
    with pytest.raises(InputError, match="found zero bytes"):
        read_manifest(path)
    with pytest.raises(InputError, match="cannot read manifest"):
        read_manifest(tmp_path)


def test_line_endings_of_any_system(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    for ending in (b"\n", b"\r\n", b"\r"):
        path.write_bytes(ending.join([b"image,label", b"a.png,x", b"b.png,y"]))
        assert [record.label for record in read_manifest(path)] == ["x", "y"]
