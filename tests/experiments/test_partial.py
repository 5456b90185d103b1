"""Finished images outlive an interruption; those of other settings are not mixed in."""

from __future__ import annotations

from pathlib import Path

import pytest

from ultrarefiner.errors import OutputError
from ultrarefiner.experiments.partial import FinishedImages, fingerprint, partial_path

_ROW = {"rough": {"dsc": 0.1 + 0.2}}


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    path = partial_path(tmp_path / "new" / "result.json")
    assert path.name == "result.partial.jsonl"
    finished = FinishedImages(path, "f")
    finished.add("a", _ROW)
    finished.add("b", {})
    again = FinishedImages(path, "f")
    assert (again.get("a"), again.get("b"), again.get("c"), len(again)) == (_ROW, {}, None, 2)


@pytest.mark.parametrize("num_lost", [1, 7])
def test_a_torn_last_line_is_dropped(tmp_path: Path, num_lost: int) -> None:
    path = tmp_path / "p.jsonl"
    finished = FinishedImages(path, "f")
    finished.add("a", _ROW)
    finished.add("b", _ROW)
    path.write_bytes(path.read_bytes()[:-num_lost])
    again = FinishedImages(path, "f")
    assert (again.get("a"), again.get("b")) == (_ROW, None)
    again.add("b", _ROW)
    assert len(FinishedImages(path, "f")) == 2


def test_a_file_torn_in_its_first_line_starts_over(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"finger')
    finished = FinishedImages(path, "f")
    finished.add("a", _ROW)
    assert FinishedImages(path, "f").get("a") == _ROW


def test_other_settings_are_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    FinishedImages(path, "f").add("a", _ROW)
    before = path.read_bytes()
    with pytest.raises(OutputError, match=r"p\.jsonl.*Remove the file to start over"):
        FinishedImages(path, "g")
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"\xff\xfe\n", b'{"fingerprint": "f"}\n[1, 2, 3]\n'])
def test_what_is_no_such_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(content)
    with pytest.raises(OutputError, match="cannot resume"):
        FinishedImages(path, "f")


def test_without_a_file_rows_live_as_long_as_the_run() -> None:
    finished = FinishedImages(None, "f")
    finished.add("a", _ROW)
    assert finished.get("a") == _ROW


def test_the_fingerprint_is_of_the_settings() -> None:
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
