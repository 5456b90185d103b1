"""Records of one size under keys, in a file that a kill at any moment leaves readable.

``records`` holds one after the other; ``index`` has a line of fixed length for each: its key and
its sha256. A record reaches the disk before its line is appended, and neither is changed once it is
whole: a damaged record is written once more at the end, and the last line of a key counts. So
readers need no lock, and what is half written is never read.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from jaxtyping import UInt8

from ultrarefiner.data.atomic import refused
from ultrarefiner.errors import InputError, OutputError

_HEX = 64
_LINE_BYTES = 2 * _HEX + 2
_SPARE = 1.02  # file systems need some room of their own
_GIB = 2**30

Record = UInt8[np.ndarray, "num_bytes"]


class RecordStore:
    """Read records of a folder, which may be missing or grow meanwhile; :meth:`writing` adds some.

    Copies go to other processes without their content. Each process checks a record's sha256 when
    it first reads it.

    Args:
        folder: holds ``records``, ``index`` and ``lock``, and may hold other files.
        num_bytes: size of a record.

    Example:
        >>> import tempfile
        >>> store = RecordStore(Path(tempfile.mkdtemp()), num_bytes=3)
        >>> with store.writing() as writer:
        ...     writer.append("a" * 64, b"xyz")
        >>> bytes(store.read("a" * 64))
        b'xyz'
    """

    def __init__(self, folder: Path, num_bytes: int) -> None:
        self.folder, self.num_bytes = folder, num_bytes
        self._slots: dict[str, tuple[int, str]] = {}
        self._intact: set[tuple[int, str]] = set()
        self._mapped: UInt8[np.ndarray, "N num_bytes"] | None = None
        self.refresh()

    def __len__(self) -> int:
        return len(self._slots)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_mapped": None}

    def refresh(self) -> None:
        """Take note of the records that were added since, by any process."""
        try:
            content = (self.folder / "index").read_bytes()
        except FileNotFoundError:
            content = b""
        whole_lines = range(0, len(content) - _LINE_BYTES + 1, _LINE_BYTES)
        text = content.decode("ascii", errors="replace")  # one character a byte, whatever it is
        self._slots = {
            text[start : start + _HEX]: (slot, text[start + _HEX + 1 : start + _LINE_BYTES - 1])
            for slot, start in enumerate(whole_lines)
        }

    def __contains__(self, key: str) -> bool:
        """Tell whether there is a record of this key, be it damaged."""
        return key in self._slots

    def is_intact(self, key: str) -> bool:
        """Tell whether there is a record of this key that is what was written."""
        return self._find(key) is not None

    def read(self, key: str) -> Record:
        """Return a record in memory mapped from the file, without a copy; writes go nowhere.

        Raises:
            InputError: there is none of this key, or it is damaged.
        """
        record = self._find(key)
        if record is None:  # another process may have added or repaired it
            self.refresh()
            record = self._find(key)
        if record is None:
            raise InputError(
                f"{self.folder / 'records'} cannot be used",
                expected=f"an intact record of key {key[:12]}...",
                found="a damaged one" if key in self else "none",
                fix="Build it again: what is there and intact is kept.",
            )
        return record

    def check_space(self, num_records: int) -> None:
        """Refuse to begin what would fill the disk.

        Raises:
            OutputError: so many more records do not fit; the message says how much is missing.
        """
        needed = num_records * self.num_bytes * _SPARE
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise OutputError(
                f"not enough space in {self.folder}",
                expected=f"{needed / _GIB:.1f} GiB free for {num_records} records",
                found=f"{free / _GIB:.1f} GiB",
                fix="Free some space, or choose a folder on another disk.",
            )

    @contextmanager
    def writing(self, *, wait_s: float = 0) -> Iterator[RecordWriter]:
        """Be the only one to add records; the folder is made if missing.

        The lock ends with the process, however it ends.

        Args:
            wait_s: how long to wait for another writer.

        Raises:
            OutputError: another process is writing, or the folder cannot be written to.
        """
        path = self.folder / "lock"
        lock = FileLock(path)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=wait_s)
        except Timeout as cause:
            raise OutputError(
                f"another process is writing to {self.folder}",
                expected=f"the lock {path.name} to be free"
                + f" within {wait_s:g} s" * (wait_s > 0),
                fix="Wait until it is done and run this again: what it wrote will be kept.",
            ) from cause
        except OSError as cause:
            raise refused(path, cause) from cause
        try:
            self.refresh()
            with _open_writer(self) as writer:
                yield writer
        finally:
            lock.release()
            self.refresh()

    def _find(self, key: str) -> Record | None:
        """Return the record of a key, after its sha256 was found right once; else None."""
        if key not in self._slots:
            return None
        slot, checksum = self._slots[key]
        records = self._map(slot)
        if slot >= len(records):
            return None
        record: Record = records[slot]
        if (slot, checksum) not in self._intact:
            if hashlib.sha256(record.data).hexdigest() != checksum:
                return None
            self._intact.add((slot, checksum))
        return record

    def _map(self, slot: int) -> UInt8[np.ndarray, "N num_bytes"]:
        """Return all records of the file, mapped anew if it may have grown by this one."""
        if self._mapped is None or slot >= len(self._mapped):
            path = self.folder / "records"
            num = path.stat().st_size // self.num_bytes if path.exists() else 0
            shape = (num, self.num_bytes)
            self._mapped = (
                np.memmap(path, dtype=np.uint8, mode="c", shape=shape)
                if num
                else np.empty(shape, np.uint8)
            )
        return self._mapped


class RecordWriter:
    """Adds records; :meth:`RecordStore.writing` gives one."""

    def __init__(self, records: FileIO, index: FileIO, num_bytes: int) -> None:
        self._records, self._index, self._num_bytes = records, index, num_bytes
        # A line that a kill has torn is not counted, and so overwritten, as is its record.
        self._num_slots = index.seek(0, os.SEEK_END) // _LINE_BYTES

    def append(self, key: str, content: bytes | memoryview) -> None:
        """Add a record; if there is one of this key, the new one takes its place.

        Args:
            key: 64 characters, such as a sha256 in hex.
            content: as many bytes as a record has.

        Raises:
            OutputError: the operating system refused; the records before are there.
        """
        content = memoryview(content).cast("B")
        assert len(key) == _HEX, f"no key: {key}"
        assert len(content) == self._num_bytes, f"{len(content)} bytes"
        line = f"{key} {hashlib.sha256(content).hexdigest()}\n".encode("ascii")
        try:
            _write_at(self._records, self._num_slots * self._num_bytes, content)
            os.fsync(self._records.fileno())
            _write_at(self._index, self._num_slots * _LINE_BYTES, memoryview(line))
        except OSError as cause:
            raise refused(Path(os.fsdecode(self._records.name)), cause) from cause
        self._num_slots += 1


@contextmanager
def _open_writer(store: RecordStore) -> Iterator[RecordWriter]:
    """Open both files for a writer that holds the lock, and flush the index in the end."""
    paths = [store.folder / name for name in ("records", "index")]
    try:
        for path in paths:
            path.touch()
        records, index = (FileIO(path, "r+") for path in paths)
    except OSError as cause:
        raise refused(store.folder, cause) from cause
    with records, index:
        yield RecordWriter(records, index, store.num_bytes)
        os.fsync(index.fileno())


def _write_at(stream: FileIO, offset: int, content: memoryview) -> None:
    stream.seek(offset)
    while content:
        content = content[stream.write(content) :]
