"""The table of a manifest as text: CSV of any common dialect, read strictly, named by its lines."""

from __future__ import annotations

import csv
import difflib
import io
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ultrarefiner.errors import InputError

_LOG = logging.getLogger(__name__)

COLUMNS = (
    "image",
    "mask",
    "patient",
    "label",
    "dataset",
    "spacing_y_mm",
    "spacing_x_mm",
    "fold",
    "split",
    "duplicate_group",
    "birads",
    "device",
)
OPTIONAL_COLUMNS = ("birads", "device")
"""The last of the columns: written only where a record has one."""

# They keep a patient on one side: to overlook one of these is a leak, not a detail.
_GUARDS = ("patient", "fold", "split", "duplicate_group")
_NON_VALUES = {"nan", "none", "null", "na", "n/a", "#n/a", "<na>", "nat"}

_SYNONYMS = {
    "img": "image",
    "file": "image",
    "filename": "image",
    "path": "image",
    "subject": "patient",
}
_NAME_ENDING = re.compile(r"_(ids?|uid|nr|no|num|number|key|code|path|file|filename|name)$")
_CLOSE = 0.85  # 'pateint' is as close to 'patient'; 'patient_age' and 'fold_1' are not

_OTHER_TABLES = {".parquet", ".pq", ".feather", ".arrow", ".xlsx", ".xls", ".ods"}
_MAX_CHARACTERS = 256 * 2**20
_NUM_SHOWN = 12


def read_table(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each row of a manifest with the words that name its place.

    Commas, semicolons or tabs part the cells, whichever the header has most of. Cells are
    stripped, empty rows passed over, unknown columns ignored (with a warning where one is named
    nearly like a known one).

    Args:
        path: CSV file in UTF-8.

    Yields:
        ``manifest PATH, line N`` and one cell for each of :data:`COLUMNS`, empty where there is
        none.

    Raises:
        InputError: the file cannot be read; the column ``image`` is missing, a column is given
            twice or named nearly like one that keeps patients apart (``patient_id``); or a row has
            no image, more cells than the header, or a word for nothing (``nan``) in such a column.
    """
    rows = _rows(path, _read_text(path))
    _, header = next(rows, (1, []))
    _check_header(path, header)
    for line, cells in rows:
        if any(cells):
            where = f"manifest {path}, line {line}"
            yield where, _row(header, cells, where)


def _read_text(path: Path) -> str:
    if path.suffix.lower() in _OTHER_TABLES:
        raise InputError(
            f"cannot read manifest {path}",
            expected="a CSV file in UTF-8",
            found=f"a {path.suffix} file",
            fix="Convert it, for instance with pandas: table.to_csv('manifest.csv', index=False).",
        )
    fix = None
    try:
        with path.open(encoding="utf-8-sig") as stream:
            text = stream.read(_MAX_CHARACTERS + 1)
    except OSError as cause:
        found = str(cause)
    except UnicodeDecodeError as cause:
        found, fix = str(cause), "Save it as 'CSV UTF-8'."
    else:
        if len(text) <= _MAX_CHARACTERS and "\0" not in text:
            return text
        found = "zero bytes" if "\0" in text else f"more than {_MAX_CHARACTERS:,} characters"
    raise InputError(
        f"cannot read manifest {path}", expected="a CSV file in UTF-8", found=found, fix=fix
    )


def _rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each row as the number of its first line and its stripped cells."""
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
    line = 1
    try:
        for cells in reader:
            yield line, [cell.strip() for cell in cells]
            line = reader.line_num + 1
    except csv.Error as cause:
        raise InputError(
            f"manifest {path}, line {line}",
            expected="CSV",
            found=str(cause),
            fix='Put a cell that holds a quote in quotes, and write each quote in it twice: "".',
        ) from cause


def _check_header(path: Path, header: Sequence[str]) -> None:
    near = {name: meant for name in header if (meant := _meant(name)) and meant not in header}
    doubled = [name for name in COLUMNS if header.count(name) > 1]
    guards = [name for name, meant in near.items() if meant in _GUARDS]
    if "image" not in header:
        shown = [name[:40] for name in header if name][:_NUM_SHOWN]
        renamed = [f"Rename {name!r} to 'image'." for name in near if near[name] == "image"]
        raise InputError(
            f"manifest {path}",
            expected="a column 'image' (and 'mask', 'patient', ...)",
            found="the columns " + (", ".join(shown) or "none"),
            fix=renamed[0] if renamed else None,
        )
    if doubled:
        raise InputError(f"manifest {path}", expected=f"one column {doubled[0]!r}", found="several")
    if guards:
        raise InputError(
            f"manifest {path}",
            expected=f"{near[guards[0]]!r} as the name of the column",
            found=f"{guards[0]!r}, which would not be used",
            fix="Rename it; if it is something else, call it by a name that is less like this.",
        )
    for name, meant in near.items():
        _LOG.warning("%s: column %r is not used; was %r meant?", path, name, meant)


def _meant(name: str) -> str | None:
    """Return the column that a name stands for if it is not quite its name."""
    plain = _NAME_ENDING.sub("", re.sub(r"[\W_]+", "_", name.lower()).strip("_"))
    plain = _SYNONYMS.get(plain, plain)
    close = difflib.get_close_matches(plain, COLUMNS, n=1, cutoff=_CLOSE)
    return close[0] if close and close[0] != name else None


def _row(header: Sequence[str], cells: Sequence[str], where: str) -> dict[str, str]:
    if any(cells[len(header) :]):
        raise InputError(
            where,
            expected=f"at most {len(header)} cells, as in the header",
            found=str(len(cells)),
            fix="Put a cell that holds a comma in double quotes.",
        )
    found = dict(zip(header, cells, strict=False))
    row = {name: found.get(name, "") for name in COLUMNS}
    if not row["image"]:
        raise InputError(where, expected="a path in column 'image'")
    for name in _GUARDS:
        if row[name].lower() in _NON_VALUES:
            raise InputError(
                f"{where}, column {name!r}",
                expected="a name, or nothing where there is none",
                found=repr(row[name]),
                fix="Leave the cell empty.",
            )
    return row
