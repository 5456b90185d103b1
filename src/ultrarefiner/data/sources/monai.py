"""MONAI datalists and Decathlon ``dataset.json``: lists of image and label paths.

``{"training": [{"image": "images/a.png", "label": "labels/a.png", "fold": 0}, ...], ...}``, as
MONAI's ``load_decathlon_datalist`` and Auto3DSeg read them.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from ultrarefiner.data.manifest import Record
from ultrarefiner.data.sources.json_index import Entry, broken_index, read_index
from ultrarefiner.data.sources.source import SOURCES, Found, Remark, list_folder, wrong_layout
from ultrarefiner.errors import InputError

_LAYOUT = 'a JSON file {"training": [{"image": PATH, "label": PATH, "fold": 0}, ...], ...}'
_SPLITS = {"training": "train", "validation": "val", "test": "test", "testing": "test"}
_MASK_KEYS = ("label", "mask", "seg")
_PATIENT_KEYS = ("patient", "patient_id", "subject_id")


@SOURCES.register("monai")
def read_monai(src: Path) -> Found:
    """Read the lists ``training``, ``validation``, ``test`` and ``testing``.

    Paths are relative to the JSON file, or to the folder above it. ``fold`` becomes the fold;
    ``patient``, ``patient_id`` or ``subject_id``, where there is one, the patient. Of several
    channels the first is taken. Entries of the test lists may lack a label.

    Args:
        src: the JSON file, or a folder with exactly one that holds a list ``training``.

    Returns:
        One record per entry; those without a usable image or label are skipped with the reason.

    Raises:
        InputError: no such file, several of them, or another content.
    """
    path, content = _index(src)
    records: list[Record] = []
    notes: list[Remark] = []
    skipped: list[Remark] = []
    for key, split in _SPLITS.items():
        listed = content.get(key, [])
        if not isinstance(listed, list):
            raise broken_index(path, _LAYOUT, f"'{key}' that is no list")
        for number, item in enumerate(listed):
            where = f"{path}, {key}[{number}]"
            entry: object = {"image": item} if isinstance(item, str) else item
            if not isinstance(entry, dict):
                raise broken_index(path, _LAYOUT, f"{key}[{number}] that is no object")
            image, mask = _path(path, entry, "image"), _mask(path, entry)
            if image is None or (mask is None and split != "test"):
                skipped.append((where, "it has no path of a label" if image else "no 'image'"))
                continue
            if isinstance(entry["image"], list) and len(entry["image"]) > 1:
                notes.append((where, f"of {len(entry['image'])} channels the first is used"))
            records.append(_record(path, entry, image, mask, split))
    return Found(records=tuple(records), notes=tuple(notes), skipped=tuple(skipped))


def _index(src: Path) -> tuple[Path, Entry]:
    """Return the datalist and its content; a folder must hold exactly one."""
    if not src.is_dir():
        content = read_index(src, _LAYOUT)
        if not isinstance(content.get("training"), list):
            raise broken_index(src, _LAYOUT, "no list 'training'")
        return src, content
    paths = [path for path in list_folder(src, _LAYOUT) if path.suffix.lower() == ".json"]
    if len(paths) == 1:
        return _index(paths[0])
    lists: list[tuple[Path, Entry]] = []
    for path in paths:
        with suppress(InputError):  # JSON files of other kinds may lie beside it
            lists.append(_index(path))
    if len(lists) != 1:
        several = ", ".join(path.name for path, _ in lists)
        raise wrong_layout(src, _LAYOUT, found=f"several: {several}" if several else None)
    return lists[0]


def _record(path: Path, entry: Entry, image: Path, mask: Path | None, split: str) -> Record:
    patient = next((entry[key] for key in _PATIENT_KEYS if entry.get(key) is not None), "")
    fold = entry.get("fold")
    return Record(
        image=image,
        mask=mask,
        patient=str(patient),
        dataset=path.resolve().parent.name,
        fold=str(fold) if isinstance(fold, int | str) else "",
        split=split,
    )


def _mask(path: Path, entry: Entry) -> Path | None:
    return next(filter(None, (_path(path, entry, key) for key in _MASK_KEYS)), None)


def _path(index: Path, entry: Entry, key: str) -> Path | None:
    """Return the file that an entry names, beside the index or one folder up; None if it is none.

    A label that is a number is a class, not a mask.
    """
    value = entry.get(key)
    name = value[0] if isinstance(value, list) and value else value
    if not isinstance(name, str) or not name:
        return None
    beside, above = index.parent / name, index.parent.parent / name
    return above if above.is_file() and not beside.is_file() else beside
