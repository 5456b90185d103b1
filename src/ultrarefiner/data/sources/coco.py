"""COCO annotations: one JSON file of images, outlines and categories, with a folder of images.

Lin et al., "Microsoft COCO: Common objects in context", ECCV 2014. Understood are the original
layout (``annotations/instances_train2017.json`` beside ``train2017``) and those of the tools that
export it (``result.json`` with ``images``, ``train/_annotations.coco.json`` beside the images).
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ultrarefiner.data.formats.raster import check_extent
from ultrarefiner.data.manifest import Record
from ultrarefiner.data.sources.coco_masks import draw_segmentation
from ultrarefiner.data.sources.json_index import Entry, broken_index, entries, read_index
from ultrarefiner.data.sources.source import (
    SOURCES,
    Draw,
    Found,
    Remark,
    list_folder,
    wrong_layout,
)
from ultrarefiner.errors import InputError
from ultrarefiner.shapes import Mask

_LAYOUT = "a COCO file {'images': [...], 'annotations': [...], 'categories': [...]}"
_INSTANCES = "instances_"
_SPLIT = re.compile(r"(?:^|[^a-z])(train|valid|val|test)(?:ing|ation)?(?=$|[^a-z])")


@dataclass(frozen=True, kw_only=True)
class _Index:
    """One annotation file, its annotations grouped by image."""

    path: Path
    images: dict[object, Entry]
    annotations: dict[object, list[Entry]]
    categories: dict[object, str]


@SOURCES.register("coco")
def read_coco(src: Path) -> Found:
    """Read one annotation file, or all of a folder.

    All annotations of an image are merged into one mask, crowds too; an image without any gets an
    empty mask. Its label is the category, if there is one only. ``train``, ``val`` or ``test`` in
    the name of the file or its folder is the split. Images that are not there are skipped: parts of
    a set are allowed. So is an image with an annotation that is a box without an outline, whose
    mask would not be the truth.

    Args:
        src: the JSON file, or the folder that holds it, alone or in ``annotations`` or a subfolder.

    Returns:
        One record per image, and how to draw its mask.

    Raises:
        InputError: no such file, no JSON, or another content.
    """
    indices, notes = _indices(src)
    records: dict[Path, Record] = {}
    drawings: dict[Path, Draw] = {}
    skipped: list[Remark] = []
    dataset = _name(src)
    for index in indices:
        folders = _image_folders(index.path)
        for key, entry in index.images.items():
            name = entry.get("file_name")
            if not isinstance(name, str) or not name:
                raise broken_index(index.path, _LAYOUT, "an image without 'file_name'")
            image = next((folder / name for folder in folders if (folder / name).is_file()), None)
            if image is None or image in records:
                reason = "no such image" if image is None else "it is listed more than once"
                skipped.append((name, reason))
                continue
            records[image] = _record(index, key, image, dataset)
            drawings[image] = partial(_draw, entry, index.annotations.get(key, []))
        lost = sum(len(index.annotations[key]) for key in index.annotations.keys() - index.images)
        if lost:
            notes.append((str(index.path), f"{lost} annotations belong to no listed image"))
    return Found(
        records=tuple(records.values()),
        drawings=drawings,
        notes=tuple(notes),
        skipped=tuple(skipped),
    )


def _index_files(src: Path) -> list[Path]:
    """Return the annotation files; captions and key points of the same images are left out."""
    if not src.is_dir():
        return [src]
    folders = [src, *(entry for entry in list_folder(src, _LAYOUT) if entry.is_dir())]
    files = [
        path
        for folder in folders
        for path in list_folder(folder, _LAYOUT)
        if path.suffix.lower() == ".json"
    ]
    if not files:
        raise wrong_layout(src, _LAYOUT)
    return [path for path in files if path.name.startswith(_INSTANCES)] or files


def _indices(src: Path) -> tuple[list[_Index], list[Remark]]:
    """Read all annotation files, and note JSON files of other kinds; one must be of this kind."""
    indices: list[_Index] = []
    failures: list[tuple[Path, InputError]] = []
    for path in _index_files(src):
        try:
            indices.append(_read(path))
        except InputError as error:
            failures.append((path, error))
    if not indices:
        raise failures[0][1]
    return indices, [(str(path), f"not used: {error.found}") for path, error in failures]


def _read(path: Path) -> _Index:
    content = read_index(path, _LAYOUT)
    if not content.keys() >= {"images", "annotations"}:
        raise broken_index(path, _LAYOUT, "no 'images' and 'annotations'")
    images = {_key(path, entry, "id"): entry for entry in entries(path, content, "images", _LAYOUT)}
    if len(images) < len(entries(path, content, "images", _LAYOUT)):
        raise broken_index(path, _LAYOUT, "two images of one 'id'")
    annotations: defaultdict[object, list[Entry]] = defaultdict(list)
    for entry in entries(path, content, "annotations", _LAYOUT):
        annotations[_key(path, entry, "image_id")].append(entry)
    categories = {
        _key(path, entry, "id"): str(entry.get("name", ""))
        for entry in entries(path, content, "categories", _LAYOUT)
    }
    return _Index(path=path, images=images, annotations=dict(annotations), categories=categories)


def _key(path: Path, entry: Entry, name: str) -> object:
    value = entry.get(name)
    if isinstance(value, int | str):
        return value
    raise broken_index(path, _LAYOUT, f"an entry without '{name}'")


def _image_folders(index: Path) -> list[Path]:
    """Return where the images may be, nearest first."""
    here, above = index.parent, index.parent.parent
    name = index.stem.removeprefix(_INSTANCES)
    return [
        here,
        here / "images",
        here / name,
        above / "images",
        above / name,
        above / "images" / name,
        above,
    ]


def _name(src: Path) -> str:
    folder = src.resolve() if src.is_dir() else src.resolve().parent
    return folder.parent.name if folder.name == "annotations" else folder.name


def _record(index: _Index, key: object, image: Path, dataset: str) -> Record:
    kinds = {entry.get("category_id") for entry in index.annotations.get(key, [])}
    names = {index.categories.get(kind, "") for kind in kinds if isinstance(kind, int | str)}
    words = (index.path.stem.lower(), index.path.parent.name.lower())
    split = next((found[1] for word in words if (found := _SPLIT.search(word))), "")
    return Record(
        image=image,
        label=names.pop() if len(names) == 1 else "",
        dataset=dataset,
        split="val" if split == "valid" else split,
    )


def _draw(image: Entry, annotations: list[Entry]) -> Mask:
    """Return the union of all annotations of an image.

    Raises:
        InputError: no size, too large, or an annotation that cannot be drawn.
    """
    height, width = image.get("height"), image.get("width")
    name = Path(str(image["file_name"]))
    if not isinstance(height, int) or not isinstance(width, int):
        raise InputError(f"the entry of {name}", expected="whole numbers 'height' and 'width'")
    check_extent(name, (height, width))
    mask = np.zeros((height, width), dtype=np.bool_)
    for annotation in annotations:
        mask |= draw_segmentation(annotation.get("segmentation"), height, width)
    return mask
