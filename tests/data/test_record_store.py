"""Records that are whole or not there: real kills, a real limit, damage of every byte."""

from __future__ import annotations

import hashlib
import pickle
import resource
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from ultrarefiner.data.record_store import RecordStore
from ultrarefiner.errors import InputError, OutputError

NUM_BYTES = 40


def key_of(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def content_of(number: int, num_bytes: int = NUM_BYTES) -> bytes:
    return np.random.default_rng(number).bytes(num_bytes)


def write(folder: Path, *numbers: int) -> RecordStore:
    store = RecordStore(folder, NUM_BYTES)
    with store.writing() as writer:
        for number in numbers:
            writer.append(key_of(number), content_of(number))
    return store


def is_right(store: RecordStore, number: int) -> bool:
    return store.read(key_of(number)).tobytes() == content_of(number)


def change_byte(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_what_was_written_is_read_and_the_rest_is_not_there(tmp_path):
    for store in (write(tmp_path, 0, 1, 2), RecordStore(tmp_path, NUM_BYTES)):
        assert len(store) == 3
        assert all(is_right(store, number) for number in (2, 0, 1))
        assert key_of(3) not in store
        assert not store.is_intact(key_of(3))
        with pytest.raises(InputError, match=r"records cannot be used: .* found none"):
            store.read(key_of(3))


def test_an_empty_folder_holds_nothing_and_reading_makes_nothing(tmp_path):
    store = RecordStore(tmp_path / "new", NUM_BYTES)
    assert len(store) == 0
    assert not store.is_intact(key_of(0))
    assert list(tmp_path.iterdir()) == []


def test_a_record_is_the_mapped_file_and_writing_into_it_changes_no_file(tmp_path):
    store = write(tmp_path, 0)
    record = store.read(key_of(0))
    assert np.shares_memory(record, store.read(key_of(0)))
    record[:] = 0
    assert is_right(RecordStore(tmp_path, NUM_BYTES), 0)


def test_a_copy_for_another_process_is_small(tmp_path):
    store = write(tmp_path, *range(5))
    assert is_right(store, 3)
    parcel = pickle.dumps(store)
    assert not any(content_of(number) in parcel for number in range(5))
    assert is_right(pickle.loads(parcel), 3)


def test_a_reader_sees_what_is_added_or_repaired_later(tmp_path):
    reader = write(tmp_path, 0)
    assert is_right(reader, 0)
    write(tmp_path, 1)
    assert is_right(reader, 1)
    change_byte(tmp_path / "records", NUM_BYTES)
    late = RecordStore(tmp_path, NUM_BYTES)
    with pytest.raises(InputError, match="found a damaged one"):
        late.read(key_of(1))
    write(tmp_path, 1)
    assert is_right(late, 1)
    assert len(late) == 2


@pytest.mark.parametrize("num_left", [0, 1, 64, 65, 129])
def test_a_torn_line_of_the_index_is_as_if_not_written(tmp_path, num_left):
    write(tmp_path, 0, 1)
    index = tmp_path / "index"
    index.write_bytes(index.read_bytes()[: 130 + num_left])
    store = RecordStore(tmp_path, NUM_BYTES)
    assert is_right(store, 0)
    assert key_of(1) not in store
    store = write(tmp_path, 2, 1)
    assert all(is_right(store, number) for number in range(3))
    assert index.stat().st_size == 3 * 130


@pytest.mark.parametrize("num_left", [0, 1, NUM_BYTES - 1])
def test_a_half_written_record_is_overwritten(tmp_path, num_left):
    write(tmp_path, 0)
    with (tmp_path / "records").open("ab") as stream:
        stream.write(content_of(1)[:num_left])
    store = write(tmp_path, 2)
    assert is_right(store, 0)
    assert is_right(store, 2)
    assert (tmp_path / "records").stat().st_size == 2 * NUM_BYTES


def test_an_index_that_outlived_its_records_in_a_power_cut(tmp_path):
    write(tmp_path, 0, 1)
    records = tmp_path / "records"
    records.write_bytes(records.read_bytes()[: NUM_BYTES + 7])
    store = RecordStore(tmp_path, NUM_BYTES)
    assert is_right(store, 0)
    assert key_of(1) in store
    assert not store.is_intact(key_of(1))
    store = write(tmp_path, 1)
    assert all(is_right(store, number) for number in (0, 1))


@pytest.mark.parametrize("name", ["records", "index"])
def test_damage_of_any_byte_is_found(tmp_path, name):
    write(tmp_path, 0, 1)
    path = tmp_path / name
    whole = path.read_bytes()
    separators = (64, 129, 194, 259) if name == "index" else ()
    for place in range(len(whole)):
        change_byte(path, place)
        store = RecordStore(tmp_path, NUM_BYTES)
        intact = [number for number in (0, 1) if store.is_intact(key_of(number))]
        struck = place // (len(whole) // 2)
        assert intact == ([0, 1] if place in separators else [1 - struck]), place
        assert all(is_right(store, number) for number in intact)
        path.write_bytes(whole)


def test_a_record_in_the_place_of_another_is_found(tmp_path):
    write(tmp_path, 0, 1)
    (tmp_path / "records").write_bytes(content_of(1) + content_of(0))
    store = RecordStore(tmp_path, NUM_BYTES)
    assert not any(store.is_intact(key_of(number)) for number in (0, 1))


def test_a_full_disk_keeps_what_was_there_and_says_what_to_do(tmp_path):
    store = write(tmp_path, 0, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * 130 + 129, hard))  # the third line is torn
    try:
        with pytest.raises(OutputError, match=r"cannot write .*records.*limit"):
            write(tmp_path, 2)
        with pytest.raises(OutputError, match="limit"), store.writing() as writer:
            writer.append(key_of(2), content_of(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(RecordStore(tmp_path, NUM_BYTES)) == 2
    store = write(tmp_path, 3)
    assert all(is_right(store, number) for number in (0, 1, 3))


def test_more_than_the_disk_can_hold_is_refused_before_it_is_begun(tmp_path):
    store = RecordStore(tmp_path, 2**21)
    store.check_space(1)
    with pytest.raises(OutputError, match=r"expected 1\d{6}\.\d GiB free for 1000000000 records"):
        store.check_space(10**9)


def start(program: str) -> subprocess.Popen[str]:
    """Start Python and return when it has printed a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_one_writer_at_a_time_whom_others_may_wait_for(tmp_path):
    program = f"""
        import time
        from pathlib import Path
        from ultrarefiner.data.record_store import RecordStore
        with RecordStore(Path({str(tmp_path)!r}), {NUM_BYTES}).writing() as writer:
            print("ready", flush=True)
            time.sleep(0.5)
            writer.append({key_of(0)!r}, {content_of(0)!r})
    """
    with start(program) as process:
        with pytest.raises(OutputError, match=r"another process is writing to .*Wait until"):
            write(tmp_path, 1)
        store = RecordStore(tmp_path, NUM_BYTES)
        with store.writing(wait_s=30) as writer:
            assert store.is_intact(key_of(0))
            writer.append(key_of(1), content_of(1))
    assert process.returncode == 0
    assert all(is_right(store, number) for number in (0, 1))


def test_kills_at_random_moments_cost_one_record_and_no_lock(tmp_path):
    """Two MiB a record, so that most kills strike while one is being written."""
    num_bytes, rng = 2**21, np.random.default_rng(0)
    program = f"""
        from pathlib import Path
        import numpy as np
        from ultrarefiner.data.record_store import RecordStore
        store = RecordStore(Path({str(tmp_path)!r}), {num_bytes})
        with store.writing() as writer:
            print("ready", flush=True)
            for number in range(len(store), 10_000):
                content = np.random.default_rng(number).bytes({num_bytes})
                writer.append(f"{{number:064d}}", content)
    """
    num_before = 0
    for _ in range(5):
        with start(program) as process:
            time.sleep(rng.uniform(0.01, 0.1))
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        store = RecordStore(tmp_path, num_bytes)
        for number in range(len(store)):
            expected = content_of(number, num_bytes)
            assert store.read(f"{number:064d}").tobytes() == expected
        assert len(store) >= num_before
        num_before = len(store)
    assert num_before > 0
    with store.writing() as writer:
        writer.append(f"{num_before:064d}", content_of(num_before, num_bytes))
    assert store.is_intact(f"{num_before:064d}")
