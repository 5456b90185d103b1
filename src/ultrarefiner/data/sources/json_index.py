"""JSON files that list the cases of a data set, bounded and checked as they are taken apart."""

from __future__ import annotations

import json
from pathlib import Path

from ultrarefiner.errors import InputError

MAX_INDEX_BYTES = 256 * 2**20

Entry = dict[str, object]


def read_index(path: Path, layout: str) -> Entry:
    """Read a JSON object; arguments and errors as :func:`read_json`, and any other value."""
    content = read_json(path, layout)
    if not isinstance(content, dict):
        raise broken_index(path, layout, "a JSON value that is no object")
    return content


def read_json(path: Path, layout: str) -> object:
    """Read any JSON value.

    Args:
        path: file of at most :data:`MAX_INDEX_BYTES`.
        layout: what the user should have pointed to, for the message.

    Raises:
        InputError: no such file, too large, or no JSON.
    """
    try:
        if path.stat().st_size > MAX_INDEX_BYTES:
            raise broken_index(path, layout, f"more than {MAX_INDEX_BYTES // 2**20} MiB")
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as cause:
        raise broken_index(path, layout, cause.strerror or type(cause).__name__) from cause
    except UnicodeDecodeError as cause:
        raise broken_index(path, layout, "bytes that are no UTF-8") from cause
    except (ValueError, RecursionError) as cause:
        raise broken_index(path, layout, f"no JSON: {cause}") from cause


def entries(path: Path, content: Entry, key: str, layout: str) -> list[Entry]:
    """Return the list of objects under a key; an empty list if the key is absent.

    Raises:
        InputError: there is something else.
    """
    found = content.get(key, [])
    if isinstance(found, list) and all(isinstance(entry, dict) for entry in found):
        return found
    raise broken_index(path, layout, f"'{key}' that is no list of objects")


def broken_index(path: Path, layout: str, found: str) -> InputError:
    """Return the error of an index file that cannot be understood."""
    return InputError(
        f"cannot use {path}",
        expected=layout,
        found=found,
        fix="Make the file again, or point to another one.",
    )
