"""Files that are either whole or not there, whatever happens while they are written."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ultrarefiner.errors import OutputError

_FIXES = {
    errno.ENOSPC: "Free some space and run it again.",
    errno.EDQUOT: "Free some of your quota and run it again.",
    errno.EFBIG: "Raise the limit on file sizes (ulimit -f) and run it again.",
    errno.EACCES: "Choose another output folder, or ask for write permission.",
    errno.EPERM: "Choose another output folder, or ask for write permission.",
    errno.EROFS: "Choose an output folder on a writable disk.",
    errno.EISDIR: "Move the folder of that name away.",
    errno.ENAMETOOLONG: "Shorten the name of the input file.",
}
_PREFIX = ".ultrarefiner-"
_DEFAULT_FIX = "Check the disk and the output folder, and run it again."


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary file's name to write to; move it to ``path`` if the body succeeds.

    The temporary is hidden, in the same folder (made if missing) and of the same suffix. It is
    flushed to the disk before it takes the name, and removed if anything fails: ``path`` is then
    what it was before. After a power cut it holds the old content or the new, never a mixture.

    Raises:
        OutputError: the operating system refused; the message names ``path`` and what to do.

    Example:
        >>> import tempfile
        >>> out = Path(tempfile.mkdtemp()) / "sub" / "a.txt"
        >>> with atomic_path(out) as temporary:
        ...     _ = temporary.write_text("done")
        >>> out.read_text()
        'done'
    """
    temporary = path.with_name(f"{_PREFIX}{secrets.token_hex(8)}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OutputError:
        raise
    except OSError as cause:
        raise refused(path, cause) from cause
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes left half written in a folder that nobody else writes to."""
    for temporary in folder.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text; bytes of file names that are no UTF-8 become backslash escapes."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded(text))


def encoded(text: str) -> bytes:
    """Return UTF-8; bytes of file names that are no UTF-8 become backslash escapes."""
    return text.encode("utf-8", errors="backslashreplace")


def refused(path: Path, cause: OSError) -> OutputError:
    """Return the error of a path that the operating system would not write."""
    return OutputError(
        f"cannot write {path}",
        found=cause.strerror or str(cause) or type(cause).__name__,
        fix=_FIXES.get(cause.errno or 0, _DEFAULT_FIX),
    )
