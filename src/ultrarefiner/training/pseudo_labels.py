"""Masks that a trained network drew, for training images that have no true one.

The network and its refiner, trained on few true masks, segment images without (``ultrarefiner
predict``). A new network that learns from both sees more anatomy than the first; what the first
was unsure of is left out (self-training; Xie et al. 2020, "Noisy student"). Such a mask is only
ever learned from: nothing is chosen or scored by it.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ultrarefiner.coarse import load_checkpoint
from ultrarefiner.data.manifest import Record
from ultrarefiner.errors import InputError, LeakError, UltraRefinerError
from ultrarefiner.refine.checkpoint import is_refiner, load_refiner
from ultrarefiner.training.lineage import card_sha256, known_digests


@dataclass(frozen=True, kw_only=True)
class PseudoLabels:
    """What a run of ``predict`` left behind, as masks to learn from.

    Attributes:
        folder: of the run.
        masks: the refined mask of each image, by its path without links.
        predicted_iou: how good the foundation model thought it, in [0, 1]; 0 where nothing was
            found.
        teachers: by the name of each checkpoint that drew them, digests of all whom it knows.
    """

    folder: Path
    masks: Mapping[str, Path]
    predicted_iou: Mapping[str, float]
    teachers: Mapping[str, Mapping[str, Any]]

    def label(
        self, records: Sequence[Record], *, min_predicted_iou: float
    ) -> tuple[tuple[Record, ...], str]:
        """Give images the masks that were drawn for them.

        Args:
            records: images without a true mask, or whose true mask is not to be used.
            min_predicted_iou: a mask below this, in [0, 1], is not learned from.

        Returns:
            Those that have a mask, with it, in their order; and how many have none, in words.

        Raises:
            InputError: none has.
        """
        names = [_name(record.image) for record in records]
        labelled = tuple(
            replace(record, mask=self.masks[name])
            for record, name in zip(records, names, strict=True)
            if self.predicted_iou.get(name, -1.0) >= min_predicted_iou
        )
        if not labelled:
            raise InputError(
                f"none of the masks of {self.folder} can be learned from",
                expected="images of the manifest without a true mask, drawn with a predicted IoU "
                f"of {min_predicted_iou:g} or more",
                found=f"{len(records)} such images, masks of {len(self.masks)} files",
                fix="Run 'ultrarefiner predict' on these very files, or lower min_pseudo_iou.",
            )
        num_drawn = sum(name in self.masks for name in names)
        remark = (
            f"{len(labelled)} of {len(records)} images without a true mask are learned from; "
            f"{num_drawn - len(labelled)} have a predicted IoU below {min_predicted_iou:g}, "
            f"{len(records) - num_drawn} were not segmented"
        )
        return labelled, remark


def read_pseudo_labels(folder: Path) -> PseudoLabels:
    """Read a folder that ``ultrarefiner predict`` wrote.

    Args:
        folder: with ``run.json``, ``results.csv`` and ``masks/``.

    Raises:
        InputError: it is no such folder, or a mask is gone.
        LeakError: a checkpoint that drew the masks is not there any more, or another, or it refined
            masks that were given, so that nothing tells whom they owe something to.
    """
    try:
        run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        with (folder / "results.csv").open(encoding="utf-8", newline="") as stream:
            rows = {row["image"]: row for row in csv.DictReader(stream)}
        checkpoints = dict(zip(run["checkpoints"], run["card_sha256"], strict=True))
        stems = {case["image"]: case["stem"] for case in run["cases"]}
        trust = {image: float(rows[stem]["predicted_iou"] or 0) for image, stem in stems.items()}
    except (OSError, ValueError, KeyError, TypeError) as cause:
        raise InputError(
            f"cannot take masks from {folder}",
            expected="a folder that 'ultrarefiner predict' of this version wrote",
            found=f"{type(cause).__name__}: {cause}",
            fix="Segment the images without a true mask first: ultrarefiner predict --out FOLDER.",
        ) from cause
    if "coarse" in run:
        raise LeakError(
            f"it is unknown who made the masks that were refined in {folder}",
            expected="a folder that 'ultrarefiner predict' wrote: its network is known",
            found=f"one of 'ultrarefiner refine', of the masks of {run['coarse']}",
            fix="Segment the images without a true mask: ultrarefiner predict --out FOLDER.",
        )
    masks = {image: folder / "masks" / f"{stem}.png" for image, stem in stems.items()}
    gone = [path for path in masks.values() if not path.is_file()]
    if gone:
        raise InputError(
            f"{len(gone)} of {len(masks)} masks of {folder} are gone",
            found=f"no {gone[0]}",
            fix="Run 'ultrarefiner predict' again.",
        )
    return PseudoLabels(
        folder=folder,
        masks={_name(Path(image)): path for image, path in masks.items()},
        predicted_iou={_name(Path(image)): value for image, value in trust.items()},
        teachers={name: _knows(name, sha, folder) for name, sha in checkpoints.items()},
    )


def _knows(name: str, sha256: str, folder: Path) -> Mapping[str, Any]:
    """Return the digests of all whom a checkpoint knows, if it is the one that drew the masks."""
    found = "another"
    try:
        card = load_refiner(name).card if is_refiner(name) else load_checkpoint(name).card
        if card_sha256(card) == sha256:
            return known_digests(card)
    except UltraRefinerError as error:
        found = str(error)
    raise LeakError(
        f"it is unknown what {name} was trained on, which drew the masks of {folder}",
        expected="the checkpoint that drew them, where it was",
        found=found,
        fix="Bring it back, or run 'ultrarefiner predict' again.",
    )


def _name(image: Path) -> str:
    return os.path.realpath(image)
