"""Finished images of an interrupted study, kept beside its result until that is written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ultrarefiner
from ultrarefiner.data.atomic import refused, write_text
from ultrarefiner.errors import OutputError


def partial_path(out: Path) -> Path:
    """Return the file that holds the finished images of a result until it is written."""
    return out.with_name(f"{out.stem}.partial.jsonl")


def fingerprint(settings: Mapping[str, Any]) -> str:
    """Return a digest of settings, versions and the package's own code.

    Args:
        settings: JSON of everything that what is stored of an image depends on, but the image.

    Returns:
        SHA-256 in hexadecimal. Rows of another fingerprint must not be mixed in.
    """
    versions = {name: version(name) for name in ("ultrarefiner", "torch", "numpy")}
    text = json.dumps([settings, versions], sort_keys=True)
    digest = hashlib.sha256(text.encode())
    folder = Path(ultrarefiner.__file__).parent
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


class FinishedImages:
    """Rows by key, each written to the file in full as soon as it is added.

    A torn last line, of a run that was killed while it wrote, is dropped.

    Args:
        path: JSON lines, the first one the fingerprint; ``None`` keeps nothing beyond this run.
        fingerprint: of everything that the rows depend on beside their keys.

    Raises:
        OutputError: the file belongs to something else, or cannot be read or written.
    """

    def __init__(self, path: Path | None, fingerprint: str):
        self.path = path
        self._rows: dict[str, Any] = {}
        if path is None:
            return
        header = json.dumps({"fingerprint": fingerprint})
        lines = _whole_lines(path) if path.exists() else []
        if lines and lines[0] != header:
            raise OutputError(
                f"cannot resume {path}",
                expected="images of the same settings, versions and code",
                found="those of others",
                fix="Remove the file to start over, or choose another output.",
            )
        self._rows = dict(_row(path, line) for line in lines[1:])
        write_text(path, "".join(f"{line}\n" for line in [header, *lines[1:]]))

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, key: str) -> Any | None:
        """Return the row of a key, or nothing."""
        return self._rows.get(key)

    def add(self, key: str, row: Any) -> None:
        """Keep a row.

        Args:
            key: what it belongs to.
            row: JSON.

        Raises:
            OutputError: it could not be written; the file is as before.
        """
        self._rows[key] = row
        if self.path is None:
            return
        line = memoryview(json.dumps([key, row], allow_nan=False).encode() + b"\n")
        try:
            with self.path.open("ab", buffering=0) as stream:
                start = stream.tell()
                try:
                    while line:
                        line = line[stream.write(line) :]
                except OSError:
                    with suppress(OSError):
                        stream.truncate(start)
                    raise
        except OSError as cause:
            raise refused(self.path, cause) from cause


def _whole_lines(path: Path) -> list[str]:
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as cause:
        raise OutputError(f"cannot resume {path}", found=str(cause)) from cause
    return content[: content.rfind("\n") + 1].splitlines()


def _row(path: Path, line: str) -> tuple[str, Any]:
    try:
        key, row = json.loads(line)
    except ValueError as cause:
        raise OutputError(
            f"cannot resume {path}", expected="a key and a row in each line", found=str(cause)
        ) from cause
    return key, row
