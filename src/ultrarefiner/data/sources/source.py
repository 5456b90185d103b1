"""What an importer is: a function that reads one public layout and writes nothing.

It returns records and, for masks that no single file of the data set holds, how to draw them.
:func:`ultrarefiner.data.sources.import_source` checks, draws and writes for all of them. Add one:
write the function, enter it in :data:`SOURCES`, import it in ``__init__``, and give it a fake data
set in ``tests/fakes``; the contract test finds it by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ultrarefiner.data.formats import DECODERS, split_name
from ultrarefiner.data.manifest import Record
from ultrarefiner.errors import InputError
from ultrarefiner.registry import Registry
from ultrarefiner.shapes import Mask

Draw = Callable[[], Mask]
Remark = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Found:
    """What an importer read.

    Attributes:
        records: one per image, in any order; masks of files that exist, or None.
        drawings: for some images, a function that returns the mask (H, W) of the image's size, or
            raises :class:`InputError`. It takes the place of the record's mask.
        notes: what a user should know, as (file or topic, remark).
        skipped: what was left out because it is broken, as (file, reason).
    """

    records: tuple[Record, ...]
    drawings: Mapping[Path, Draw] = field(default_factory=dict)
    notes: tuple[Remark, ...] = ()
    skipped: tuple[Remark, ...] = ()


Source = Callable[[Path], Found]
SOURCES: Registry[Source] = Registry("data source")


def list_folder(folder: Path, layout: str) -> tuple[Path, ...]:
    """Return what lies in a folder, without hidden entries, sorted by name.

    Args:
        folder: where to look.
        layout: the layout that the user should have pointed to, for the message.

    Raises:
        InputError: no such folder, or it cannot be read.
    """
    try:
        entries = sorted(folder.iterdir())
    except OSError as cause:
        raise InputError(
            f"cannot list {folder}",
            expected=layout,
            found=cause.strerror or type(cause).__name__,
            fix="Check the spelling of the path.",
        ) from cause
    return tuple(entry for entry in entries if not entry.name.startswith("."))


def list_images(folder: Path, layout: str) -> tuple[Path, ...]:
    """Return the files of a folder that have a readable ending, sorted; there may be none.

    Raises:
        InputError: no such folder, or it cannot be read.
    """
    entries = list_folder(folder, layout)
    return tuple(path for path in entries if is_image(path) and path.is_file())


def is_image(path: Path) -> bool:
    """Tell by the ending whether a file can be read as an image."""
    return split_name(path)[1] in DECODERS


def wrong_layout(src: Path, layout: str, *, found: str | None = None) -> InputError:
    """Return the error of a folder that is not laid out as its importer needs it."""
    if found is None:
        names = [entry.name for entry in list_folder(src, layout)] if src.is_dir() else [src.name]
        found = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
    return InputError(
        f"{src} has another layout",
        expected=layout,
        found=found or "an empty folder",
        fix="Point to the folder that holds this, or choose another importer.",
    )
