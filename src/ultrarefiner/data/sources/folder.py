"""Plain folders: images here, masks there, or both side by side, in subfolders or not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ultrarefiner.data.formats import split_name
from ultrarefiner.data.manifest import Record
from ultrarefiner.data.pairing import Pairing, pair_files
from ultrarefiner.data.sources.source import (
    SOURCES,
    Found,
    Remark,
    is_image,
    list_folder,
    list_images,
    wrong_layout,
)

_LAYOUT = "folders 'images' and 'masks' with equal file names, or X.png beside X_mask.png"
_IMAGE_FOLDERS = {"images", "image", "imgs", "img"}
_MASK_FOLDERS = {
    "masks",
    "mask",
    "labels",
    "label",
    "annotations",
    "annotation",
    "segmentations",
    "segmentation",
    "gt",
    "groundtruth",
    "ground_truth",
    "ground truth",
}
_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
_MASK_NAME = re.compile(r"^mask_|_(?:mask(?:_\d+)?|seg|segmentation)$")
_MAX_DEPTH = 2


@dataclass(frozen=True, kw_only=True)
class _Group:
    """Images and masks that are matched with each other, and the folders that led to them."""

    images: tuple[Path, ...]
    masks: tuple[Path, ...]
    names: tuple[str, ...]


@SOURCES.register("folder")
def read_folder(src: Path) -> Found:
    """Match images with masks by their names, by the rules of :mod:`ultrarefiner.data.pairing`.

    Understood are ``images/X`` with ``masks/X`` (or ``labels``, ``annotations``, ``gt``, ..., in
    any case) and ``X`` beside ``X_mask``, ``X_seg`` or ``mask_X``; with other folders above or
    below these names, up to two deep: train, val or test gives the split, any other the label.

    Args:
        src: the folder above them.

    Returns:
        One record per matched image; what is left over is in the notes.

    Raises:
        InputError: no such folder, or not one image that has a mask.
    """
    records: list[Record] = []
    notes: list[Remark] = []
    for group in _groups(src, ()):
        pairing = pair_files(group.images, group.masks)
        notes += _left_over(pairing)
        splits = [_SPLITS[name.lower()] for name in group.names if name.lower() in _SPLITS]
        labels = [name for name in group.names if name.lower() not in _SPLITS]
        records += [
            Record(
                image=pair.image,
                mask=pair.coarse,
                label="/".join(labels),
                dataset=src.resolve().name,
                split=splits[-1] if splits else "",
            )
            for pair in pairing.pairs
        ]
    if not records:
        raise wrong_layout(src, _LAYOUT)
    return Found(records=tuple(records), notes=tuple(notes))


def _groups(folder: Path, names: tuple[str, ...]) -> Iterator[_Group]:
    """Walk down; a folder of images with its folder of masks is one group per subfolder."""
    folders = [entry for entry in list_folder(folder, _LAYOUT) if entry.is_dir()]
    images = next((entry for entry in folders if entry.name.lower() in _IMAGE_FOLDERS), None)
    masks = next((entry for entry in folders if entry.name.lower() in _MASK_FOLDERS), None)
    if images and masks:
        yield from _two_folders(images, masks, names)
        folders = [entry for entry in folders if entry not in (images, masks)]
    files = list_images(folder, _LAYOUT)
    stems = {path: split_name(path)[0] for path in files}
    if any(_MASK_NAME.search(stem) for stem in stems.values()):
        yield _Group(
            images=tuple(path for path in files if not _MASK_NAME.search(stems[path])),
            masks=tuple(path for path in files if _MASK_NAME.search(stems[path])),
            names=names,
        )
    if len(names) < _MAX_DEPTH:
        for entry in folders:
            yield from _groups(entry, (*names, entry.name))


def _two_folders(images: Path, masks: Path, names: tuple[str, ...]) -> Iterator[_Group]:
    """Match a folder of images with one of masks, and equally named subfolders likewise."""
    yield _Group(
        images=list_images(images, _LAYOUT), masks=list_images(masks, _LAYOUT), names=names
    )
    if len(names) >= _MAX_DEPTH:
        return
    for entry in list_folder(images, _LAYOUT):
        if entry.is_dir() and not is_image(entry):
            partner = masks / entry.name
            below = (*names, entry.name)
            if partner.is_dir():
                yield from _two_folders(entry, partner, below)
            else:
                yield _Group(images=list_images(entry, _LAYOUT), masks=(), names=below)


def _left_over(pairing: Pairing) -> list[Remark]:
    several = "several images or masks share this name: none of them is taken"
    return [
        *((str(path), "an image without a mask") for path in pairing.unmatched_images),
        *((str(path), "a mask without an image") for path in pairing.unmatched_coarse),
        *((group.stem, several) for group in pairing.ambiguous),
    ]
