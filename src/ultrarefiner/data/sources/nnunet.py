"""nnU-Net's raw layout, ``DatasetXXX_Name`` (version 2) or ``TaskXXX_Name`` (version 1).

Isensee et al., "nnU-Net: a self-configuring method for deep learning-based biomedical image
segmentation", Nature Methods 18 (2021); the layout is that of its documentation.
"""

from __future__ import annotations

import re
from pathlib import Path

from ultrarefiner.data.formats import DECODERS
from ultrarefiner.data.manifest import Record
from ultrarefiner.data.sources.json_index import broken_index, read_index, read_json
from ultrarefiner.data.sources.source import SOURCES, Found, Remark, list_folder, wrong_layout

_LAYOUT = "dataset.json, imagesTr/CASE_0000.png and labelsTr/CASE.png (any file_ending)"
_FIRST_VERSION_ENDING = ".nii.gz"
_SPLITS = "splits_final.json"
_SPLITS_LAYOUT = "a list of {'train': [CASE, ...], 'val': [CASE, ...]}"
_PARTS = (("imagesTr", "labelsTr", "train"), ("imagesTs", "labelsTs", "test"))


@SOURCES.register("nnunet")
def read_nnunet(src: Path) -> Found:
    """Read a raw data set; ``splits_final.json`` becomes folds.

    That file is looked for in ``src`` and in the folder of the same name under
    ``nnUNet_preprocessed`` beside ``nnUNet_raw``. ``imagesTr`` is split ``train`` and ``imagesTs``
    is ``test``, without a mask where ``labelsTs`` has none.

    Label files are taken as they are. With several classes in them, readers need to be told which
    label is the lesion; the notes say so. Of several channels the first is taken.

    Args:
        src: folder that holds ``dataset.json``.

    Returns:
        One record per case, the data set's name in the column of that name.

    Raises:
        InputError: no such folder, another layout, a broken JSON file, or an unreadable ending.
    """
    list_folder(src, _LAYOUT)
    index = src / "dataset.json"
    if not index.is_file() or not (src / "imagesTr").is_dir():
        raise wrong_layout(src, _LAYOUT)
    content = read_index(index, _LAYOUT)
    ending = content.get("file_ending", _FIRST_VERSION_ENDING)
    if not isinstance(ending, str) or ending.lower() not in DECODERS:
        raise broken_index(index, "a file_ending of " + ", ".join(DECODERS), f"{ending!r}")
    folds, notes = _folds(src)
    records: list[Record] = []
    skipped: list[Remark] = []
    num_unused = 0
    for images, labels, split in _PARTS:
        cases, num_others = _cases(src / images, ending)
        num_unused += num_others
        for case, image in cases.items():
            label = src / labels / f"{case}{ending}"
            has_label = label.is_file()
            if split == "train" and not has_label:
                skipped.append((str(image), f"it has no label {label}"))
                continue
            records.append(
                Record(
                    image=image,
                    mask=label if has_label else None,
                    dataset=str(content.get("name") or src.name),
                    fold=folds.get(case, "") if split == "train" else "",
                    split=split,
                )
            )
    notes += _remarks(index, content, num_unused)
    return Found(records=tuple(records), notes=notes, skipped=tuple(skipped))


def _cases(folder: Path, ending: str) -> tuple[dict[str, Path], int]:
    """Return the first channel of each case, and how many files of other channels there are."""
    if not folder.is_dir():
        return {}, 0
    name = re.compile(rf"(?P<case>.+)_(?P<channel>\d{{4}}){re.escape(ending)}")
    found = [(path, name.fullmatch(path.name)) for path in list_folder(folder, _LAYOUT)]
    cases = {match["case"]: path for path, match in found if match and match["channel"] == "0000"}
    return cases, sum(match is not None for _, match in found) - len(cases)


def _remarks(index: Path, content: dict[str, object], num_unused: int) -> tuple[Remark, ...]:
    notes: list[Remark] = []
    if num_unused:
        notes.append((str(index), f"{num_unused} files of further channels are not used"))
    labels = content.get("labels")
    if isinstance(labels, dict) and len(labels) > 2:
        several = f"{len(labels) - 1} classes: name the lesion's label when masks are read"
        notes.append((str(index), several))
    return tuple(notes)


def _folds(src: Path) -> tuple[dict[str, str], tuple[Remark, ...]]:
    """Return the fold in which each case is validated, and a remark if there is no such thing."""
    preprocessed = src.resolve().parent.parent / "nnUNet_preprocessed" / src.resolve().name
    path = next((at for at in (src / _SPLITS, preprocessed / _SPLITS) if at.is_file()), None)
    if path is None:
        return {}, ()
    content = _read_splits(path)
    folds: dict[str, str] = {}
    for number, held_out in enumerate(content):
        for case in held_out:
            if case in folds:
                return {}, ((str(path), f"not used: case {case} is validated in two splits"),)
            folds[case] = str(number)
    return folds, ()


def _read_splits(path: Path) -> list[list[str]]:
    """Read the cases that each split validates on."""
    content = read_json(path, _SPLITS_LAYOUT)
    if not isinstance(content, list):
        raise broken_index(path, _SPLITS_LAYOUT, "something else")
    try:
        return [[str(case) for case in split["val"]] for split in content]
    except (TypeError, LookupError) as cause:
        raise broken_index(path, _SPLITS_LAYOUT, "another content") from cause
