"""A record of every file that this process opens."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_recorders: list[set[Path]] = []
_is_installed = False


@contextmanager
def opened_files() -> Iterator[set[Path]]:
    """Give a set that fills with the paths of the files that are opened meanwhile, links resolved.

    It sees what goes through Python, in any thread: ``open``, ``os.open`` and all that is built on
    them, as Pillow, nibabel, pydicom and NumPy are. It does not see libraries that open files on
    their own (``cv2.imread``, safetensors), nor other processes.

    >>> with opened_files() as files:
    ...     _ = Path(__file__).read_text()
    >>> Path(__file__).resolve() in files
    True
    """
    global _is_installed
    if not _is_installed:  # for good: an audit hook cannot be taken out again
        sys.addaudithook(_note)
        _is_installed = True
    files: set[Path] = set()
    _recorders.append(files)
    try:
        yield files
    finally:
        _recorders[:] = [recorder for recorder in _recorders if recorder is not files]


def _note(event: str, args: tuple[object, ...]) -> None:
    if event != "open" or not _recorders or not isinstance(args[0], (str, bytes, os.PathLike)):
        return
    path = Path(os.path.realpath(os.fsdecode(args[0])))
    for recorder in _recorders:
        recorder.add(path)
