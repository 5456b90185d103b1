"""Refine a folder of images with a folder of coarse masks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ultrarefiner.data.pairing import Pairing, pair_by_stem
from ultrarefiner.data.readers import CoarseMask, read_coarse
from ultrarefiner.errors import ConfigError, InputError
from ultrarefiner.refine.acceptance import MASKS
from ultrarefiner.refine.job import (
    RESULT_FOLDERS,
    FolderJob,
    FolderOptions,
    FolderResult,
    Item,
    refuse_overwriting,
)
from ultrarefiner.refine.predictor import Refiner
from ultrarefiner.shapes import GreyImage


def refine_folder(
    images: Path,
    coarse: Path,
    out: Path,
    refiner: Refiner,
    *,
    label: int | None = None,
    options: FolderOptions | None = None,
    about: Mapping[str, Any] | None = None,
    track: Callable[[Iterable[Sequence[Item]], int], Iterable[Sequence[Item]]] = (
        lambda items, _: items
    ),
) -> FolderResult:
    """Refine every image that has a coarse mask.

    Args:
        images: folder of images.
        coarse: folder of coarse masks, matched by file stem.
        out: folder for ``masks/STEM.png`` (0/255, native size), ``gates/STEM.png`` (how far each
            pixel moved, in steps of 1/255), ``results.csv``, ``run.json``.
        refiner: does the work.
        label: value of the lesion in coarse masks that are label maps.
        options: what to write.
        about: recorded in ``run.json``, such as the command; its ``notes`` come before the run's.
        track: wraps the iteration over batches, for a progress bar.

    Interrupted, it still writes ``run.json``, so that the part that is done can be reported.

    Raises:
        ConfigError: the label is that of the background.
        InputError: a folder is missing or empty, nothing matches, or ``out`` would overwrite input.
        OutputError: a result cannot be written; what was written before stays.
    """
    source = CoarseFiles(label)
    pairing = pair_by_stem(images, coarse)
    refuse_overwriting(out, (images, coarse), RESULT_FOLDERS)
    job = FolderJob(out, refiner, source=source, options=options or FolderOptions())
    notes = [*(about or {}).get("notes", ())]
    if refiner.config.second_opinion:
        notes.append(("refiner second_opinion", "not used, since masks are given"))
    given = {"images": str(images), "coarse": str(coarse), "label": label, "notes": notes}
    about = {**(about or {}), **given}
    return job.run(pairing.pairs, unusable=_unpaired(pairing), about=about, track=track)


class CoarseFiles:
    """Coarse masks that the user already has, brought to the grid of their images.

    Args:
        label: value of the lesion in label maps.

    Raises:
        ConfigError: the label is that of the background.
    """

    kind = MASKS

    def __init__(self, label: int | None) -> None:
        if label is not None and label < 1:
            raise ConfigError(
                "label of the lesion", expected=">= 1: 0 is background", found=str(label)
            )
        self.label = label

    def open_batch(
        self, items: Sequence[Item], images: Sequence[GreyImage]
    ) -> list[CoarseMask | InputError]:
        """Return the coarse mask of each image on its grid, or why there is none."""
        return [self._open(item.coarse, image) for item, image in zip(items, images, strict=True)]

    def remove(self, stem: str) -> None:
        """Do nothing: the files are the user's."""

    def _open(self, path: Path, image: GreyImage) -> CoarseMask | InputError:
        try:
            coarse = read_coarse(path, label=self.label)
        except InputError as error:
            return error
        if coarse.values.shape == image.shape:
            return coarse
        note = f"resampled from {_size(coarse.values)} to the image's {_size(image)}"
        coarse = resample_coarse(coarse, image.shape)
        return CoarseMask(values=coarse.values, is_hard=coarse.is_hard, notes=(*coarse.notes, note))


def resample_coarse(coarse: CoarseMask, shape: tuple[int, ...]) -> CoarseMask:
    """Bring a coarse mask to another grid of the same field of view; a hard one stays hard."""
    smaller = shape[0] < coarse.values.shape[0]
    how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    values = cv2.resize(coarse.values, (shape[1], shape[0]), interpolation=how)
    if coarse.is_hard:
        values = (values > 0.5).astype(np.float32)
    return CoarseMask(values=values, is_hard=coarse.is_hard, notes=coarse.notes)


def _size(values: np.ndarray) -> str:
    return f"{values.shape[1]}x{values.shape[0]} px"


def _unpaired(pairing: Pairing) -> list[tuple[str, str]]:
    """Return name and reason of every file that has no partner."""
    return [
        *((path.name, "no coarse mask of that name") for path in pairing.unmatched_images),
        *((path.name, "no image of that name") for path in pairing.unmatched_coarse),
        *(
            (
                group.stem,
                "several files of that name: "
                + ", ".join(path.name for path in (*group.images, *group.coarse)),
            )
            for group in pairing.ambiguous
        ),
    ]
