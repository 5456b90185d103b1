"""Results are whole or not there: real full disks, limits and kills, no mocks."""

from __future__ import annotations

import json
import os
import resource
import signal
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ultrarefiner.data.writers import (
    CsvLog,
    atomic_path,
    write_json,
    write_mask,
    write_probability,
    write_text,
)
from ultrarefiner.errors import ConfigError, OutputError

FIELDS = ("image", "accepted", "seconds")
MASK = np.hypot(*np.ogrid[-32:32, -40:40]) < 20


@contextmanager
def file_size_limit(num_bytes: int) -> Iterator[None]:
    """Let the kernel refuse every write past ``num_bytes`` of a file (EFBIG)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_mask_is_an_8_bit_grey_png_of_0_and_255(tmp_path):
    write_mask(tmp_path / "new" / "folder" / "a.png", MASK)
    with Image.open(tmp_path / "new" / "folder" / "a.png") as image:
        assert (image.format, image.mode) == ("PNG", "L")
        np.testing.assert_array_equal(np.asarray(image), MASK * 255)


def test_probabilities_exact_or_in_255_steps(tmp_path):
    prob = np.linspace(0, 1, 400, dtype=np.float32).reshape(20, 20)
    write_probability(tmp_path / "a.npy", prob)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), prob)
    write_probability(tmp_path / "a.png", prob)
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_allclose(np.asarray(image) / 255, prob, atol=0.5001 / 255)


@pytest.mark.parametrize("bad", [np.nan, -0.1, 1.1, np.inf])
def test_values_that_are_no_probability_are_not_written(tmp_path, bad):
    prob = np.full((8, 8), 0.5, np.float32)
    prob[2, 3] = bad
    with pytest.raises(OutputError, match=r"a\.npy.*probabilities in \[0, 1\]"):
        write_probability(tmp_path / "a.npy", prob)
    assert list(tmp_path.iterdir()) == []


def test_other_endings_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"\.png, found \.jpg"):
        write_mask(tmp_path / "a.jpg", MASK)
    with pytest.raises(ConfigError, match=r"\.npy or \.png"):
        write_probability(tmp_path / "a", MASK.astype(np.float32))


def test_json_is_stable_and_finite(tmp_path):
    write_json(tmp_path / "a.json", {"b": [1, None], "a": "ü"})
    write_json(tmp_path / "b.json", {"a": "ü", "b": [1, None]})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert json.loads((tmp_path / "a.json").read_text("utf-8")) == {"a": "ü", "b": [1, None]}
    with pytest.raises(OutputError, match="finite numbers"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert "ü" in (tmp_path / "a.json").read_text("utf-8")


def test_names_that_are_no_utf8_can_be_written(tmp_path):
    write_text(tmp_path / "a.txt", os.fsdecode(b"gr\xf6\xdfe.png"))
    assert (tmp_path / "a.txt").read_text("utf-8") == r"gr\udcf6\udcdfe.png"


def test_permissions_follow_the_umask(tmp_path):
    write_text(tmp_path / "a.txt", "x")
    (tmp_path / "b.txt").write_text("x")
    assert stat.filemode((tmp_path / "a.txt").stat().st_mode) == stat.filemode(
        (tmp_path / "b.txt").stat().st_mode
    )


# Failure: the old file stays, nothing else does


def assert_untouched(folder: Path) -> None:
    assert [path.name for path in folder.iterdir()] == ["a.png"]
    assert (folder / "a.png").read_text() == "old"


@pytest.fixture
def occupied(tmp_path):
    (tmp_path / "a.png").write_text("old")
    return tmp_path


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk(occupied):
    def write_to_full_disk() -> None:
        with atomic_path(occupied / "a.png") as temporary:
            temporary.symlink_to("/dev/full")
            temporary.write_bytes(b"new")

    with pytest.raises(OutputError, match=r"a\.png: found No space left on device\. Free some"):
        write_to_full_disk()
    assert_untouched(occupied)


def test_file_size_limit(occupied):
    noise = np.random.default_rng(0).random((200, 200)) > 0.5
    with file_size_limit(1000), pytest.raises(OutputError, match=r"a\.png: found File too large"):
        write_mask(occupied / "a.png", noise)
    assert_untouched(occupied)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_other_errors_pass_through(occupied, error):
    def write_half() -> None:
        with atomic_path(occupied / "a.png") as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        write_half()
    assert_untouched(occupied)


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot write .*file.a\.png"):
        write_mask(tmp_path / "file" / "a.png", MASK)
    (tmp_path / "a.png").mkdir()
    with pytest.raises(OutputError, match="Move the folder of that name away"):
        write_mask(tmp_path / "a.png", MASK)
    with pytest.raises(OutputError, match="/proc/none"):
        write_text(Path("/proc/none/a.txt"), "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "file"]


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Step down from root, who may write anywhere; nothing to do for others."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_no_permission(tmp_path):
    tmp_path.chmod(0o500)
    with (
        ordinary_user(),
        pytest.raises(OutputError, match=r"denied\. Choose another output folder"),
    ):
        write_text(tmp_path / "a.txt", "x")
    assert list(tmp_path.iterdir()) == []


# The log


def test_rows_are_there_at_once_and_sorted_at_the_end(tmp_path):
    path = tmp_path / "results.csv"
    with CsvLog(path, FIELDS) as log:
        log.append({"image": "b.png", "accepted": True, "seconds": 0.5})
        log.append({"image": "a,1.png", "seconds": np.float32(0.25)})
        assert path.read_text().splitlines()[1:] == ["b.png,True,0.5", '"a,1.png",,0.25']
    lines = ["image,accepted,seconds", '"a,1.png",,0.25', "b.png,True,0.5"]
    assert path.read_text() == "\n".join(lines) + "\n"
    assert [row["image"] for row in log.rows] == ["a,1.png", "b.png"]


def test_a_new_log_replaces_and_a_resumed_one_continues(tmp_path):
    path = tmp_path / "results.csv"
    with CsvLog(path, FIELDS) as log:
        log.append({"image": "b.png", "seconds": 1})
    with path.open("a") as stream:
        stream.write("torn.png,Tr")
    with CsvLog(path, FIELDS, resume=True) as log:
        assert log.rows == ({"image": "b.png", "accepted": "", "seconds": "1"},)
        log.append({"image": "a.png"})
        log.append({"image": "b.png", "seconds": 2})
    assert path.read_text().split() == ["image,accepted,seconds", "a.png,,", "b.png,,2"]
    with CsvLog(path, FIELDS) as log:
        assert log.rows == ()
    assert path.read_text().split() == ["image,accepted,seconds"]


@pytest.mark.parametrize("content", ["x,y\n1,2\n", "image,accepted,seconds\na\n", "\xff\n"])
def test_a_strange_table_is_not_resumed_and_not_touched(tmp_path, content):
    path = tmp_path / "results.csv"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(OutputError, match="cannot resume"):
        CsvLog(path, FIELDS, resume=True)
    assert path.read_text(encoding="latin-1") == content


@pytest.mark.parametrize("content", ["", "image,acc", "\ufeffimage,accepted,seconds\r\n"])
def test_a_log_that_had_hardly_begun_is_resumed(tmp_path, content):
    path = tmp_path / "results.csv"
    path.write_text(content, encoding="utf-8", newline="")
    with CsvLog(path, FIELDS, resume=True) as log:
        log.append({"image": "a.png"})
    assert path.read_text().split() == ["image,accepted,seconds", "a.png,,"]


def test_a_row_stays_on_its_line_and_is_finite(tmp_path):
    with CsvLog(tmp_path / "r.csv", FIELDS) as log:
        log.append({"image": "a.png", "accepted": 'line one\nline "two"'})
        with pytest.raises(OutputError, match=r"nan to .*r\.csv"):
            log.append({"image": "b.png", "seconds": np.float32("nan")})
    assert (tmp_path / "r.csv").read_text().splitlines()[1:] == ['a.png,"line one line ""two""",']


def test_an_error_of_the_caller_leaves_the_rows(tmp_path):
    path = tmp_path / "r.csv"

    def work_until_interrupted() -> None:
        with CsvLog(path, FIELDS) as log:
            log.append({"image": "b.png"})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work_until_interrupted()
    assert path.read_text().split() == ["image,accepted,seconds", "b.png,,"]


def test_a_row_that_does_not_fit_is_taken_back_and_the_log_goes_on(tmp_path):
    path = tmp_path / "r.csv"
    with CsvLog(path, FIELDS) as log:
        log.append({"image": "a.png"})
        before = path.read_bytes()
        with file_size_limit(len(before) + 5), pytest.raises(OutputError, match="File too large"):
            log.append({"image": "b.png"})
        assert path.read_bytes() == before
        log.append({"image": "c.png"})
    assert path.read_text().split()[1:] == ["a.png,,", "c.png,,"]


def test_a_killed_process_loses_no_finished_row(tmp_path):
    program = f"""
        import os, signal
        from pathlib import Path
        from ultrarefiner.data.csv_log import CsvLog
        log = CsvLog(Path({str(tmp_path / "r.csv")!r}), {FIELDS!r})
        for number in range(50):
            log.append({{"image": f"{{number:02d}}.png"}})
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 51
