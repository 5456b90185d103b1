"""A CSV table that grows row by row and survives being interrupted."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import numpy as np

from ultrarefiner.data.atomic import encoded, refused, write_text
from ultrarefiner.errors import OutputError


class CsvLog:
    """A table that gains one row per finished item and loses none if the program is killed.

    Each row goes to the operating system at once and in full, or not at all. When the log is
    closed without an error, the file is rewritten once, sorted by its first column.

    Args:
        path: the file. What it held is replaced at once, unless ``resume``.
        fields: column names; the first one identifies the row, and a second row with the same
            one replaces the first.
        resume: keep the rows that are there (see :attr:`rows`); a torn last line is dropped.

    Raises:
        OutputError: the file cannot be written, or has other columns and is to be resumed.

    Example:
        >>> import tempfile
        >>> out = Path(tempfile.mkdtemp()) / "results.csv"
        >>> with CsvLog(out, ["image", "seconds"]) as log:
        ...     log.append({"image": "b.png", "seconds": 0.5})
        ...     log.append({"image": "a.png", "seconds": None})
        >>> out.read_text().split()
        ['image,seconds', 'a.png,', 'b.png,0.5']
    """

    def __init__(self, path: Path, fields: Sequence[str], *, resume: bool = False) -> None:
        self.path = path
        self.fields = tuple(fields)
        self._rows: dict[str, dict[str, str]] = {}
        if resume and path.exists():
            self._rows = self._read()
        self._rewrite()
        try:
            self._stream = path.open("ab", buffering=0)
        except OSError as cause:
            raise refused(path, cause) from cause

    @property
    def rows(self) -> tuple[dict[str, str], ...]:
        """The rows so far, as text, sorted by the first column."""
        return tuple(self._rows[key] for key in sorted(self._rows))

    def append(self, row: Mapping[str, object]) -> None:
        """Add one row; None and missing columns are left empty.

        Raises:
            OutputError: the row could not be written, or holds NaN or infinity. The file is as
                before, and the log can still be used.
        """
        assert row.keys() <= set(self.fields), f"unknown columns in {sorted(row)}"
        cells = {field: self._cell(row.get(field)) for field in self.fields}
        line = memoryview(encoded(_csv_line(cells.values())))
        start = self._stream.tell()
        try:
            while line:
                line = line[self._stream.write(line) :]
        except OSError as cause:
            with suppress(OSError):
                self._stream.truncate(start)
            raise refused(self.path, cause) from cause
        self._rows[cells[self.fields[0]]] = cells

    def close(self) -> None:
        """Sort the file and release it."""
        self._stream.close()
        self._rewrite()

    def __enter__(self) -> CsvLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._stream.close()

    def _cell(self, value: object) -> str:
        if isinstance(value, float | np.floating) and not math.isfinite(value):
            raise OutputError(f"will not write {value} to {self.path}", expected="a finite number")
        return "" if value is None else " ".join(str(value).splitlines())

    def _rewrite(self) -> None:
        lines = [self.fields, *(row.values() for row in self.rows)]
        write_text(self.path, "".join(map(_csv_line, lines)))

    def _read(self) -> dict[str, dict[str, str]]:
        try:
            content = self.path.read_text(encoding="utf-8-sig")  # Excel puts a byte order mark
        except (OSError, UnicodeDecodeError) as cause:
            raise OutputError(f"cannot resume {self.path}", found=str(cause)) from cause
        whole_lines = content[: content.rfind("\n") + 1]
        header, *table = list(csv.reader(io.StringIO(whole_lines))) or [list(self.fields)]
        widths = {len(cells) for cells in table}
        if header != list(self.fields) or widths - {len(self.fields)}:
            raise OutputError(
                f"cannot resume {self.path}",
                expected="the columns " + ", ".join(self.fields),
                found=", ".join(header),
                fix="It was changed or written by another version: move it away.",
            )
        return {cells[0]: dict(zip(self.fields, cells, strict=True)) for cells in table}


def _csv_line(cells: Iterable[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()
