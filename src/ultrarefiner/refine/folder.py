"""Refine a folder of images with a folder of coarse masks.

Every result is written as soon as it is there, whole or not at all; a file that cannot be used is
named in ``results.csv`` and passed over.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any, TextIO

import cv2
import numpy as np

from ultrarefiner.data.atomic import encoded, refused
from ultrarefiner.data.pairing import Pair, Pairing, pair_by_stem
from ultrarefiner.data.readers import CoarseMask, read_coarse, read_image
from ultrarefiner.data.writers import CsvLog, write_json, write_mask, write_probability
from ultrarefiner.errors import ConfigError, InputError
from ultrarefiner.refine.predictor import RefinedImage, Refiner
from ultrarefiner.shapes import GreyImage

RESULT_COLUMNS = (
    "image",
    "accepted",
    "reason",
    "iou_with_coarse",
    "area_coarse_px",
    "area_refined_px",
    "predicted_iou",
    "seconds",
    "error",
)


@dataclass(frozen=True, kw_only=True)
class FolderOptions:
    """What to read and what to write.

    Attributes:
        label: value of the lesion in coarse masks that are label maps.
        save_probabilities: also write ``probabilities/STEM.npy``.
        batch_size: images per forward pass; more than one only helps a GPU.
    """

    label: int | None = None
    save_probabilities: bool = False
    batch_size: int = 1

    def __post_init__(self) -> None:
        if self.label is not None and self.label < 1:
            raise ConfigError(
                "label of the lesion", expected=">= 1: 0 is background", found=str(self.label)
            )
        if self.batch_size < 1:
            raise ConfigError("batch_size", expected=">= 1", found=str(self.batch_size))


@dataclass(frozen=True, kw_only=True)
class FolderResult:
    """How a folder went.

    Attributes:
        num_refined: images with a result, accepted or not.
        num_accepted: those of them where the refinement was taken.
        failures: file and reason of everything that was passed over.
        notes: file and remark of everything that was understood with a caveat.
    """

    num_refined: int
    num_accepted: int
    failures: tuple[tuple[str, str], ...]
    notes: tuple[tuple[str, str], ...]


def refine_folder(
    images: Path,
    coarse: Path,
    out: Path,
    refiner: Refiner,
    *,
    options: FolderOptions | None = None,
    command: str = "",
    track: Callable[[Iterable[list[Pair]], int], Iterable[list[Pair]]] = lambda items, _: items,
) -> FolderResult:
    """Refine every image that has a coarse mask.

    Args:
        images: folder of images.
        coarse: folder of coarse masks, matched by file stem.
        out: folder for ``masks/STEM.png`` (0/255, native size), ``results.csv``, ``run.json``.
        refiner: does the work.
        options: what to read and write.
        command: recorded in ``run.json``.
        track: wraps the iteration over batches, for a progress bar.

    Interrupted, it still writes ``run.json``, so that the part that is done can be reported.

    Raises:
        InputError: a folder is missing or empty, nothing matches, or ``out`` would overwrite input.
        OutputError: a result cannot be written; what was written before stays.
    """
    options = options or FolderOptions()
    pairing = pair_by_stem(images, coarse)
    _refuse_overwriting(out, images, coarse)
    job = _Job(out, refiner, options)
    size = options.batch_size
    batches = [list(pairing.pairs[i : i + size]) for i in range(0, len(pairing.pairs), size)]
    try:
        with CsvLog(out / "results.csv", RESULT_COLUMNS) as log:
            _remove_summaries(out)
            for name, reason in _unpaired(pairing):
                job.fail(log, name, reason)
            for batch in track(batches, len(batches)):
                job.run(log, batch)
    except KeyboardInterrupt:
        done = f"interrupted: {len(job.cases)} of {len(pairing.pairs)} images were refined"
        job.notes.append((str(out), done))
        write_json(out / "run.json", job.record(images, coarse, command))
        raise
    write_json(out / "run.json", job.record(images, coarse, command))
    return FolderResult(
        num_refined=len(job.cases),
        num_accepted=job.num_accepted,
        failures=tuple(job.failures),
        notes=tuple(job.notes),
    )


class _Job:
    """The state of one run: what was done, what failed, what to remark."""

    def __init__(self, out: Path, refiner: Refiner, options: FolderOptions):
        self.out = out
        self.refiner = refiner
        self.options = options
        self.cases: list[dict[str, Any]] = []
        self.num_accepted = 0
        self.failures: list[tuple[str, str]] = []
        self.notes: list[tuple[str, str]] = []
        self.fingerprint = hashlib.sha256()

    def fail(self, log: CsvLog, name: str, error: str) -> None:
        """Name a file that cannot be used."""
        self.failures.append((name, error))
        log.append({"image": name, "error": error})

    def run(self, log: CsvLog, batch: list[Pair]) -> None:
        """Read, refine and write some images."""
        start = perf_counter()
        ready: list[tuple[Pair, GreyImage, CoarseMask]] = []
        for pair in batch:
            try:
                ready.append((pair, *self._read(pair)))
            except InputError as error:
                self._remove_results(pair.stem)
                self.fail(log, pair.stem, str(error))
        if not ready:
            return
        pairs, grey, coarse = zip(*ready, strict=True)
        results = self.refiner.refine_batch(
            grey, [mask.values for mask in coarse], are_hard=[mask.is_hard for mask in coarse]
        )
        for pair, result in zip(pairs, results, strict=True):
            self._write(pair, result)
            seconds = (perf_counter() - start) / len(ready)
            log.append(_row(pair.stem, result, seconds))
            self.num_accepted += result.accepted

    def record(self, images: Path, coarse: Path, command: str) -> dict[str, Any]:
        """Return what ``run.json`` holds: enough to repeat the run and to draw its report."""
        return {
            "command": command,
            "images": str(images),
            "coarse": str(coarse),
            "config": asdict(self.refiner.config),
            "device": str(self.refiner.device),
            "versions": {name: version(name) for name in ("ultrarefiner", "torch", "numpy")},
            "data_sha256": self.fingerprint.hexdigest(),
            "cases": sorted(self.cases, key=lambda case: str(case["image"])),
            "notes": [list(note) for note in self.notes],
        }

    def _read(self, pair: Pair) -> tuple[GreyImage, CoarseMask]:
        image = read_image(pair.image)
        coarse = read_coarse(pair.coarse, label=self.options.label)
        notes = list(coarse.notes)
        if coarse.values.shape != image.shape:
            notes.append(f"resampled from {_size(coarse.values)} to the image's {_size(image)}")
            coarse = resample_coarse(coarse, image.shape)
        self.notes += [(str(pair.coarse), note) for note in notes]
        self.fingerprint.update(pair.stem.encode(errors="backslashreplace"))
        self.fingerprint.update(image.tobytes())
        self.fingerprint.update(coarse.values.tobytes())
        return image, coarse

    def _write(self, pair: Pair, result: RefinedImage) -> None:
        mask, probability = self._results(pair.stem)
        write_mask(mask, result.mask)
        if self.options.save_probabilities:
            write_probability(probability, result.probs)
        boxes = np.concatenate([lesion.boxes_xyxy for lesion in result.lesions])
        self.cases.append(
            {
                "stem": pair.stem,
                "image": str(pair.image.absolute()),
                "coarse": str(pair.coarse.absolute()),
                "label": self.options.label,
                "boxes_xyxy": boxes.round(2).tolist(),
            }
        )

    def _results(self, stem: str) -> tuple[Path, Path]:
        return self.out / "masks" / f"{stem}.png", self.out / "probabilities" / f"{stem}.npy"

    def _remove_results(self, stem: str) -> None:
        """Remove what an earlier run left for an image that this run cannot use."""
        for path in self._results(stem):
            _remove(path)


def resample_coarse(coarse: CoarseMask, shape: tuple[int, ...]) -> CoarseMask:
    """Bring a coarse mask to another grid of the same field of view; a hard one stays hard."""
    smaller = shape[0] < coarse.values.shape[0]
    how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    values = cv2.resize(coarse.values, (shape[1], shape[0]), interpolation=how)
    if coarse.is_hard:
        values = (values > 0.5).astype(np.float32)
    return CoarseMask(values=values, is_hard=coarse.is_hard, notes=coarse.notes)


def read_results(path: Path) -> list[dict[str, str]]:
    """Return the rows of ``results.csv``, also of a run that was interrupted.

    Raises:
        InputError: the file is missing, damaged or another table.
    """
    expected = "the table written by 'ultrarefiner refine'"
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            header, rows = _read_table(stream)
    except (OSError, ValueError, csv.Error) as cause:
        found = getattr(cause, "strerror", None) or str(cause)
        raise InputError(f"cannot read {path}", expected=expected, found=found) from cause
    if header != RESULT_COLUMNS:
        found = "the columns " + (", ".join(header) or "of an empty file")
        raise InputError(f"cannot use {path}", expected=expected, found=found)
    return rows


def _read_table(stream: TextIO) -> tuple[tuple[str, ...], list[dict[str, str]]]:
    table = csv.DictReader(stream)
    return tuple(table.fieldnames or ()), list(table)


def as_cell(stem: str) -> str:
    """Return a file stem as ``results.csv`` holds it: on one line, in valid UTF-8."""
    return " ".join(encoded(stem).decode("utf-8").splitlines())


def _row(stem: str, result: RefinedImage, seconds: float) -> dict[str, object]:
    return {
        "image": stem,
        "accepted": "yes" if result.accepted else "no",
        "reason": result.reason,
        "iou_with_coarse": f"{result.iou_with_coarse:.4f}",
        "area_coarse_px": int(result.coarse_mask.sum()),
        "area_refined_px": int(result.mask.sum()),
        "predicted_iou": f"{result.predicted_iou:.4f}",
        "seconds": f"{seconds:.3f}",
    }


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


def _refuse_overwriting(out: Path, images: Path, coarse: Path) -> None:
    """Refuse to write over the input, or over masks that no earlier run wrote (the truth, say)."""
    masks = out / "masks"
    for folder in (images, coarse):
        if folder.resolve() in (masks.resolve(), (out / "probabilities").resolve()):
            raise InputError(
                f"results would overwrite the input folder {folder}",
                fix="Choose another folder for --out.",
            )
    if masks.is_dir() and any(masks.iterdir()) and not (out / "results.csv").is_file():
        raise InputError(
            f"results would mix with the files in {masks}",
            expected="an empty folder or one that 'ultrarefiner refine' wrote",
            found="files but no results.csv beside them",
            fix="Choose another folder for --out.",
        )


def _remove_summaries(out: Path) -> None:
    """Remove what an earlier run of this folder says about masks that are about to change."""
    for name in ("run.json", "eval.json", "report.html"):
        _remove(out / name)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except NotADirectoryError:
        return
    except OSError as cause:
        raise refused(path, cause) from cause
