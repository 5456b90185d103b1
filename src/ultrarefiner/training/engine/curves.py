"""Learning curves, one row an epoch, as a table and as TensorBoard reads them.

Both files are made of the rows alone, so that those of a resumed run have every epoch once.
"""

from __future__ import annotations

import csv
import io
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import time

from ultrarefiner.data.atomic import atomic_path, write_text

Row = Mapping[str, float]

TABLE, EVENTS = "metrics.csv", "events.out.tfevents.0.ultrarefiner"
_POSITION = ("epoch", "step")
_CASTAGNOLI = 0x82F63B78


class Curves:
    """The log of a run.

    Args:
        folder: gets ``metrics.csv`` and the events of TensorBoard.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._num_written = -1

    def write(self, rows: Sequence[Row]) -> None:
        """Write the table anew, and what is new of the events: TensorBoard may be reading them.

        Args:
            rows: of every epoch so far: ``epoch`` (from 0), ``step`` (number of steps so far) and
                what was measured.
        """
        names = sorted({name for row in rows for name in row} - set(_POSITION))
        table = io.StringIO()
        writer = csv.DictWriter(table, [*_POSITION, *names], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.folder / TABLE, table.getvalue())
        events = self.folder / EVENTS
        if 0 <= self._num_written < len(rows):
            with events.open("ab") as stream:
                stream.write(b"".join(map(_events, rows[self._num_written :])))
        else:
            with atomic_path(events) as temporary:
                temporary.write_bytes(_version() + b"".join(map(_events, rows)))
        self._num_written = len(rows)


# TensorFlow's event.proto and summary.proto, of which we need five fields, in a TFRecord file. The
# package `tensorboard` could write them too, but brings gRPC and a web server for it.


def _version() -> bytes:
    return _record(_wall_time() + _bytes(3, b"brain.Event:2"))


def _events(row: Row) -> bytes:
    """Return a record for each value of a row."""
    start = _wall_time() + b"\x10" + _varint(int(row["step"]))  # field 2, int64: step
    values = [
        _bytes(1, name.encode()) + struct.pack("<Bf", 0x15, row[name])  # tag; simple_value
        for name in sorted(row.keys() - set(_POSITION))
    ]
    return b"".join(_record(start + _bytes(5, _bytes(1, value))) for value in values)


def _wall_time() -> bytes:
    return struct.pack("<Bd", 0x09, time())  # field 1, double


def _record(content: bytes) -> bytes:
    length = struct.pack("<Q", len(content))
    return length + _checksum(length) + content + _checksum(content)


def _bytes(field: int, content: bytes) -> bytes:
    return bytes([field << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*digits, value])


def _checksum(content: bytes) -> bytes:
    """Return the masked CRC-32C of a TFRecord file."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _crc_of_byte(crc: int) -> int:
    for _ in range(8):
        crc = crc >> 1 ^ (_CASTAGNOLI if crc & 1 else 0)
    return crc


_TABLE = tuple(map(_crc_of_byte, range(256)))
