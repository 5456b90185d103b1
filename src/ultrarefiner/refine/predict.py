"""From images alone: a coarse network finds the lesion, the refiner improves its mask."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ultrarefiner.data.formats import split_name
from ultrarefiner.data.readers import CoarseMask
from ultrarefiner.data.writers import write_mask, write_probability
from ultrarefiner.errors import InputError
from ultrarefiner.refine.acceptance import NETWORK
from ultrarefiner.refine.job import (
    EIGHT_BIT,
    FLOAT,
    RESULT_FOLDERS,
    FolderJob,
    FolderOptions,
    FolderResult,
    Item,
    refuse_overwriting,
    remove_file,
)
from ultrarefiner.refine.opinion import CoarseOpinions
from ultrarefiner.shapes import GreyImage


def predict_images(
    images: Sequence[Path],
    out: Path,
    predictor: CoarseOpinions,
    *,
    options: FolderOptions | None = None,
    about: Mapping[str, Any] | None = None,
    track: Callable[[Iterable[Sequence[Item]], int], Iterable[Sequence[Item]]] = (
        lambda items, _: items
    ),
) -> FolderResult:
    """Segment images: a coarse mask from a network, then its refinement.

    Args:
        images: files; of those that share a stem, none can be named and all are passed over.
        out: folder for ``masks/STEM.png`` (final, 0/255, native size), ``coarse/STEM.png``,
            ``gates/STEM.png`` (how far each pixel moved, in steps of 1/255), ``results.csv``,
            ``run.json``, and probabilities on request (``probabilities/`` final,
            ``coarse_probabilities/``).
        predictor: makes the coarse probability; its refiner improves it.
        options: what to write.
        about: recorded in ``run.json``, such as the command.
        track: wraps the iteration over batches, for a progress bar.

    Interrupted, it still writes ``run.json``, so that the part that is done can be reported.

    Raises:
        InputError: ``out`` would overwrite input or files of others.
        OutputError: a result cannot be written; what was written before stays.
    """
    options = options or FolderOptions()
    folders = sorted({path.parent for path in images})
    refuse_overwriting(out, folders, (*RESULT_FOLDERS, "coarse", "coarse_probabilities"))
    _refuse_given_masks(out)
    source = PredictedCoarse(predictor, out, options)
    items, unusable = _items(images, out)
    job = FolderJob(out, predictor.refiner, source=source, options=options)
    return job.run(items, unusable=unusable, about=dict(about or {}), track=track)


@dataclass(frozen=True)
class _Prediction:
    """An image to segment; the coarse mask is written on the way."""

    stem: str
    image: Path
    coarse: Path


class PredictedCoarse:
    """Coarse masks from a network, written beside the final ones.

    Args:
        predictor: the network or ensemble, and a second opinion.
        out: folder of the run.
        options: which probabilities to write.
    """

    kind = NETWORK

    def __init__(self, predictor: CoarseOpinions, out: Path, options: FolderOptions) -> None:
        self.predictor, self.out, self.options = predictor, out, options

    def open_batch(
        self, items: Sequence[Item], images: Sequence[GreyImage]
    ) -> list[CoarseMask | InputError]:
        """Return the coarse probability of each image."""
        answers: list[CoarseMask | InputError] = []
        for item, probs in zip(items, self.predictor.predict_batch(images), strict=True):
            write_mask(item.coarse, probs > 0.5)
            for ending in self.options.probability_endings:
                write_probability(self._probabilities(item.stem, ending), probs)
            answers.append(CoarseMask(values=probs, is_hard=False))
        return answers

    def remove(self, stem: str) -> None:
        """Remove what an earlier run left for an image that this run cannot use."""
        remove_file(self.out / "coarse" / f"{stem}.png")
        for ending in (FLOAT, EIGHT_BIT):
            remove_file(self._probabilities(stem, ending))

    def _probabilities(self, stem: str, ending: str) -> Path:
        return self.out / "coarse_probabilities" / f"{stem}{ending}"


def _refuse_given_masks(out: Path) -> None:
    """Refuse to write over coarse masks that an earlier ``refine`` into this folder was given."""
    try:
        run = json.loads((out / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    given = run.get("coarse") if isinstance(run, dict) else None
    if given and Path(given).resolve() == (out / "coarse").resolve():
        raise InputError(
            f"results would overwrite the coarse masks in {out / 'coarse'}",
            expected="a folder for --out that 'refine' did not read from",
            fix="Choose another folder for --out.",
        )


def _items(images: Sequence[Path], out: Path) -> tuple[list[_Prediction], list[tuple[str, str]]]:
    """Return what can be named, sorted, and name and reason of the rest."""
    counts = Counter(split_name(path)[0] for path in images)
    items = [
        _Prediction(stem, path, out / "coarse" / f"{stem}.png")
        for path in sorted(images)
        if counts[stem := split_name(path)[0]] == 1
    ]
    shared = sorted(stem for stem, count in counts.items() if count > 1)
    return items, [(stem, f"{counts[stem]} images of that name") for stem in shared]
