"""Manifests come back as they were written, and errors point at the line; BUS-BRA is understood."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultrarefiner.data.manifest import (
    COLUMNS,
    Record,
    check_files,
    check_mask_sizes,
    read_manifest,
    relative_names,
    write_manifest,
)
from ultrarefiner.data.sources import read_busbra
from ultrarefiner.errors import InputError, OutputError

_HEADER = ",".join(COLUMNS)


def _manifest(folder: Path, *lines: str) -> Path:
    path = folder / "manifest.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_records_survive_the_round_trip(tmp_path: Path) -> None:
    records = (
        Record(
            image=tmp_path / "images" / "a.png",
            mask=tmp_path / "masks" / "a.png",
            patient="p-1",
            label="benign",
            dataset="phantom",
            spacing_mm=(0.1, 1 / 3),
            fold="2",
            split="train",
            duplicate_group="g7",
            birads="4a",
            device="Logiq 7, @10-14MHz",
        ),
        Record(image=tmp_path.parent / "elsewhere" / "b, with comma.png", label='a "quoted" label'),
    )
    write_manifest(tmp_path / "manifest.csv", records)
    assert read_manifest(tmp_path / "manifest.csv") == records


def test_optional_columns_are_written_only_where_they_say_something(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    bare = Record(image=tmp_path / "a.png")
    write_manifest(path, (bare,))
    assert path.read_text().splitlines() == [
        "image,mask,patient,label,dataset,spacing_y_mm,spacing_x_mm,fold,split,duplicate_group",
        "a.png,,,,,,,,,",
    ]
    other = Record(image=tmp_path / "b.png", device="A")
    write_manifest(path, (bare, other))
    header, *rows = path.read_text().splitlines()
    assert header.endswith(",duplicate_group,device")
    assert rows == ["a.png,,,,,,,,,,", "b.png,,,,,,,,,,A"]
    assert read_manifest(path) == (bare, other)


_NOTHING = {"nan", "none", "null", "na", "n/a", "#n/a", "<na>", "nat"}
_CELLS = (
    st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=12)
    .map(str.strip)
    .filter(lambda cell: cell.lower() not in _NOTHING)
)
_LENGTHS = st.floats(1e-6, 1e3)


@given(
    cells=st.lists(st.tuples(_CELLS, _CELLS, _CELLS, _CELLS), min_size=1, max_size=4),
    split=st.sampled_from(["", "train", "val", "test"]),
    spacing=st.none() | st.tuples(_LENGTHS, _LENGTHS),
)
@settings(max_examples=40, deadline=None)
def test_any_text_and_spacing_survives(
    tmp_path_factory: pytest.TempPathFactory,
    cells: list[tuple[str, str, str, str]],
    split: str,
    spacing: tuple[float, float] | None,
) -> None:
    folder = tmp_path_factory.mktemp("manifest")
    records = tuple(
        Record(
            image=folder / f"{i}.png",
            patient=patient,
            label=label,
            fold=fold,
            duplicate_group=group,
            split=split,
            spacing_mm=spacing,
        )
        for i, (patient, label, fold, group) in enumerate(cells)
    )
    write_manifest(folder / "manifest.csv", records)
    assert read_manifest(folder / "manifest.csv") == records


def test_paths_below_the_manifest_are_relative_and_move_with_it(tmp_path: Path) -> None:
    home, away = tmp_path / "home", tmp_path / "away"
    home.mkdir()
    outside = tmp_path / "outside.png"
    write_manifest(home / "m.csv", (Record(image=home / "images" / "a.png", mask=outside),))
    with (home / "m.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert row["image"] == "images/a.png"
    assert row["mask"] == str(outside)
    home.rename(away)
    (record,) = read_manifest(away / "m.csv")
    assert record.image == away / "images" / "a.png"
    assert record.mask == outside


def test_the_columns_are_those_of_the_contract(tmp_path: Path) -> None:
    write_manifest(tmp_path / "m.csv", (Record(image=tmp_path / "a.png"),))
    lines = (tmp_path / "m.csv").read_text().splitlines()
    assert lines == [
        "image,mask,patient,label,dataset,spacing_y_mm,spacing_x_mm,fold,split,duplicate_group",
        "a.png,,,,,,,,,",
    ]


def test_spacing_is_rows_first(tmp_path: Path) -> None:
    path = _manifest(tmp_path, "image,spacing_x_mm,spacing_y_mm", "a.png,0.2,0.1")
    assert read_manifest(path)[0].spacing_mm == (0.1, 0.2)


def test_missing_columns_short_rows_and_a_byte_order_mark_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes("\ufeffimage,label,notes\r\na.png\r\nb.png, malignant ,x\r\n".encode())
    first, second = read_manifest(path)
    assert first == Record(image=tmp_path / "a.png")
    assert second == Record(image=tmp_path / "b.png", label="malignant")


@pytest.mark.parametrize(
    ("dy", "dx"),
    [("abc", "1"), ("1", ""), ("", "1"), ("0", "1"), ("-1", "1"), ("nan", "1"), ("1", "inf")],
)
def test_a_bad_spacing_names_line_and_columns(tmp_path: Path, dy: str, dx: str) -> None:
    path = _manifest(tmp_path, "image,spacing_y_mm,spacing_x_mm", "a.png,1,1", f"b.png,{dy},{dx}")
    with pytest.raises(InputError) as caught:
        read_manifest(path)
    message = str(caught.value)
    assert f"{path}, line 3" in message
    assert "spacing_y_mm and spacing_x_mm" in message
    assert f"found {dy!r} and {dx!r}" in message


def test_a_missing_image_names_line_and_column(tmp_path: Path) -> None:
    path = _manifest(tmp_path, "image,label", "a.png,benign", "b.png,benign", " ,malignant")
    with pytest.raises(
        InputError, match=r"manifest\.csv, line 4: expected a path in column 'image'"
    ):
        read_manifest(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected a column 'image'.*found the columns none"),
        ("img,mask\na,b\n", "expected a column 'image'.*found the columns img, mask"),
        (_HEADER + "\n", "has no rows. Add one row per image."),
    ],
    ids=["empty", "other-columns", "no-rows"],
)
def test_an_unusable_table_is_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "m.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        read_manifest(path)
    assert str(path) in str(caught.value)


def test_a_missing_or_binary_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read manifest .*absent\.csv"):
        read_manifest(tmp_path / "absent.csv")
    (tmp_path / "binary.csv").write_bytes(b"image\n\xff\xfe\x00")
    with pytest.raises(InputError, match=r"binary\.csv: expected a CSV file in UTF-8"):
        read_manifest(tmp_path / "binary.csv")


def test_a_manifest_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        write_manifest(tmp_path / "file" / "m.csv", (Record(image=tmp_path / "a.png"),))


class TestPathsOfLinks:
    """What is written stays relative, and names the same files, whatever is a link."""

    @staticmethod
    def _written(path: Path, *images: Path) -> list[str]:
        write_manifest(path, tuple(Record(image=image) for image in images))
        with path.open(newline="", encoding="utf-8") as stream:
            return [row["image"] for row in csv.DictReader(stream)]

    def test_data_that_are_linked_in_stay_relative(self, tmp_path: Path) -> None:
        (tmp_path / "archive").mkdir()
        (tmp_path / "study").mkdir()
        (tmp_path / "study" / "data").symlink_to(tmp_path / "archive")
        image = tmp_path / "study" / "data" / "a.png"
        assert self._written(tmp_path / "study" / "m.csv", image) == ["data/a.png"]

    def test_a_manifest_reached_by_a_link_finds_its_own_data(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "real")
        image = tmp_path / "real" / "images" / "a.png"
        assert self._written(tmp_path / "link" / "m.csv", image) == ["images/a.png"]

    def test_a_linked_image_keeps_its_name(self, tmp_path: Path) -> None:
        """Predictions are matched by it."""
        (tmp_path / "real").mkdir()
        (tmp_path / "real" / "blob-17.png").touch()
        (tmp_path / "real" / "case.png").symlink_to(tmp_path / "real" / "blob-17.png")
        (tmp_path / "link").symlink_to(tmp_path / "real")
        image = tmp_path / "real" / "case.png"
        assert self._written(tmp_path / "link" / "m.csv", image) == ["case.png"]

    def test_the_parent_of_a_link_is_where_it_leads(self, tmp_path: Path) -> None:
        (tmp_path / "deep" / "study").mkdir(parents=True)
        (tmp_path / "link").symlink_to(tmp_path / "deep" / "study")
        (tmp_path / "deep" / "a.png").touch()
        (cell,) = self._written(tmp_path / "link" / "m.csv", tmp_path / "link" / ".." / "a.png")
        assert Path(cell) == (tmp_path / "deep" / "a.png").resolve()

    def test_from_the_working_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "out").mkdir()
        images = Path("out", "a.png"), Path("b.png"), tmp_path / "out" / "c.png"
        cells = self._written(Path("out", "m.csv"), *images)
        assert cells == ["a.png", (tmp_path / "b.png").as_posix(), "c.png"]
        assert self._written(Path("m.csv"), *images) == ["out/a.png", "b.png", "out/c.png"]


def test_names_do_not_depend_on_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spelt = [Path("data", "x", "1.png"), tmp_path / "data" / "y" / ".." / "2.png"]
    assert relative_names(spelt) == ("x/1.png", "2.png")
    assert relative_names([Path("/a/b/1.png")]) == ("1.png",)
    assert relative_names([Path("/a/bc/1.png"), Path("/a/b/1.png")]) == ("bc/1.png", "b/1.png")
    assert relative_names([]) == ()


@pytest.mark.parametrize("again", ["a.png", "./a.png", "x/../a.png", "{folder}/a.png"])
def test_an_image_given_twice_names_both_lines(tmp_path: Path, again: str) -> None:
    twice = again.format(folder=tmp_path)
    path = _manifest(tmp_path, "image,mask", "a.png,m1.png", "b.png,", f"{twice},m2.png")
    with pytest.raises(
        InputError, match=r"a\.png comes 2 times: manifest .*\.csv, line 2 and line 4"
    ):
        read_manifest(path)


class TestFiles:
    """Files are looked for before work begins, and what is wrong with the paths is said."""

    @staticmethod
    def _error(path: Path) -> str:
        with pytest.raises(InputError) as caught:
            check_files(read_manifest(path), path)
        return str(caught.value)

    def test_all_there(self, tmp_path: Path) -> None:
        for name in ("a.png", "b.png"):
            (tmp_path / name).touch()
        path = _manifest(tmp_path, "image,mask", "a.png,b.png", "b.png,")
        check_files(read_manifest(path), path)

    def test_five_are_named_and_all_counted(self, tmp_path: Path) -> None:
        (tmp_path / "0.png").touch()
        rows = [f"{i}.png,{i}-mask.png" for i in range(4)]
        message = self._error(_manifest(tmp_path, "image,mask", *rows))
        assert f"7 of 8 files of manifest {tmp_path / 'manifest.csv'} are missing" in message
        named = "no 0-mask.png, 1.png, 1-mask.png, 2.png, 2-mask.png and 2 more"
        assert f"found {named}. Restore them" in message

    def test_all_missing_and_relative(self, tmp_path: Path) -> None:
        message = self._error(_manifest(tmp_path, "image", "x/a.png", "x/b.png"))
        assert f"start at the manifest's folder {tmp_path}: move it beside the data." in message

    @pytest.mark.parametrize(
        ("cells", "folder"),
        [
            (["/mnt/lab/set/images/a.png", "/mnt/lab/set/masks/a.png"], "/mnt/lab/set"),
            (["C:\\lab\\set\\images\\a.png", "C:\\lab\\set\\masks\\a.png"], "C:/lab/set"),
            (["\\\\server\\lab\\i\\a.png", "\\\\server\\lab\\m\\a.png"], "//server/lab"),
        ],
        ids=["posix", "windows", "share"],
    )
    def test_paths_of_another_machine(self, tmp_path: Path, cells: list[str], folder: str) -> None:
        message = self._error(_manifest(tmp_path, "image,mask", ",".join(cells)))
        assert f"found no {cells[0]}, {cells[1]}. These seem to be paths of another" in message
        assert f"make them relative to it, without '{folder}' in front" in message

    def test_backslashes(self, tmp_path: Path) -> None:
        (tmp_path / "b.png").touch()
        message = self._error(_manifest(tmp_path, "image", "x\\a.png", "b.png"))
        assert "Write '/' between folders" in message

    def test_names_that_no_file_can_have(self, tmp_path: Path) -> None:
        (tmp_path / "b.png").touch()
        (tmp_path / "folder").mkdir()
        path = _manifest(tmp_path, "image", "x" * 5000, "folder", "b.png/c.png", "b.png")
        assert "3 of 4 files" in self._error(path)


class TestMaskSizes:
    @staticmethod
    def _record(
        folder: Path, name: str, image_hw: tuple[int, int], mask_hw: tuple[int, int]
    ) -> Record:
        image, mask = folder / f"{name}.png", folder / f"{name}-mask.png"
        assert cv2.imwrite(str(image), np.zeros((*image_hw, 3), np.uint8))
        assert cv2.imwrite(str(mask), np.zeros(mask_hw, np.uint8))
        return Record(image=image, mask=mask)

    def test_both_files_and_sizes_are_named(self, tmp_path: Path) -> None:
        good = self._record(tmp_path, "good", (20, 30), (20, 30))
        turned = self._record(tmp_path, "turned", (20, 30), (30, 20))
        bare = Record(image=tmp_path / "not-read.png")
        check_mask_sizes([good, bare])
        with pytest.raises(InputError) as caught:
            check_mask_sizes([good, turned, bare])
        message = str(caught.value)
        assert message.startswith("1 of 2 masks have another size")
        assert f"{turned.mask} (20x30 px) for {turned.image} (30x20 px)" in message

    def test_a_damaged_file_is_named(self, tmp_path: Path) -> None:
        record = self._record(tmp_path, "a", (20, 30), (20, 30))
        record.image.write_bytes(record.image.read_bytes()[:60])
        with pytest.raises(InputError, match=r"cannot read .*a\.png"):
            check_mask_sizes([record])


_CASES = (
    ("bus_0001-l", "1", "malignant", "3"),
    ("bus_0001-r", "1", "malignant", "3"),
    ("bus_0004-l", "4", "benign", "1"),
    ("bus_0007-s", "7", "benign", "3"),
)


def _fake_busbra(root: Path) -> Path:
    """Write four tiny cases in the original layout, rows in no order."""
    rng = np.random.default_rng(0)
    for folder in ("Images", "Masks"):
        (root / folder).mkdir(parents=True)
    data = ["ID,Case,Histology,Pathology,BIRADS,Device,Width,Height,Side,BBOX"]
    folds = ["ID,Pathology,kFold,valid_1,valid_2,valid_3,valid_4,valid_5"]
    for name, case, pathology, fold in reversed(_CASES):
        image = rng.integers(0, 255, (12, 9), dtype=np.uint8)
        mask = np.zeros((12, 9), dtype=np.uint8)
        mask[3:8, 2:6] = 255
        cv2.imwrite(str(root / "Images" / f"{name}.png"), image)
        cv2.imwrite(str(root / "Masks" / f"mask_{name.removeprefix('bus_')}.png"), mask)
        data.append(f'{name},{case},cyst,{pathology},2,GE Logiq 7,9,12,left,"[2,3,4,5]"')
        folds.append(f"{name},{pathology},{fold},1,1,NaN,1,1")
    (root / "bus_data.csv").write_text("\n".join(data))
    (root / "5-fold-cv.csv").write_text("\n".join(folds))
    return root


def test_busbra_is_read_from_its_own_layout(tmp_path: Path) -> None:
    root = _fake_busbra(tmp_path / "BUSBRA")
    records = read_busbra(root)
    assert records == tuple(
        Record(
            image=root / "Images" / f"{name}.png",
            mask=root / "Masks" / f"mask_{name[4:]}.png",
            patient=f"busbra-{case}",
            label=pathology,
            dataset="BUS-BRA",
            fold=fold,
            birads="2",
            device="GE Logiq 7",
        )
        for name, case, pathology, fold in _CASES
    )
    assert all(record.mask is not None and record.mask.is_file() for record in records)


def test_busbra_becomes_a_manifest_and_back(tmp_path: Path) -> None:
    records = read_busbra(_fake_busbra(tmp_path / "BUSBRA"))
    write_manifest(tmp_path / "busbra.csv", records)
    assert read_manifest(tmp_path / "busbra.csv") == records


def test_a_part_of_busbra_is_enough(tmp_path: Path) -> None:
    root = _fake_busbra(tmp_path)
    (root / "Images" / "bus_0004-l.png").unlink()
    assert [record.image.stem for record in read_busbra(root)] == [
        "bus_0001-l",
        "bus_0001-r",
        "bus_0007-s",
    ]


def test_busbra_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"bus_data\.csv: expected the original layout of BUS-BRA"):
        read_busbra(tmp_path)
    root = _fake_busbra(tmp_path)
    for image in (root / "Images").iterdir():
        image.unlink()
    with pytest.raises(InputError, match=r"no BUS-BRA images under .*holds bus_data\.csv"):
        read_busbra(root)


def test_a_table_of_other_columns_is_named(tmp_path: Path) -> None:
    root = _fake_busbra(tmp_path)
    table = root / "5-fold-cv.csv"
    table.write_text(table.read_text().replace("kFold", "fold"))
    with pytest.raises(InputError, match=r"5-fold-cv.csv has other columns.*kFold"):
        read_busbra(root)


def test_a_bad_row_after_blank_lines_names_its_own_line(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path, "image,label", "", "", "a.png,x", '"",bad')
    with pytest.raises(InputError, match="line 5"):
        read_manifest(manifest)


def test_a_cell_without_end_is_an_input_error(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path, "image,label", "a.png," + "x" * 200_000)
    with pytest.raises(InputError, match=r"line 2.*field larger"):
        read_manifest(manifest)


@pytest.mark.realdata
def test_fold_three_of_busbra(busbra: Path) -> None:
    records = [record for record in read_busbra(busbra) if record.fold == "3"]
    assert len(records) == 366
    assert all(record.mask is not None and record.mask.is_file() for record in records)
    assert {record.label for record in records} == {"benign", "malignant"}


@pytest.mark.realdata
def test_no_patient_of_busbra_is_in_two_folds(busbra: Path) -> None:
    folds: dict[str, set[str]] = {}
    for record in read_busbra(busbra):
        folds.setdefault(record.patient, set()).add(record.fold)
    assert len(folds) > 100
    assert all(len(found) == 1 for found in folds.values())
