"""One run over many images: read, refine, write, remember; shared by ``refine`` and ``predict``.

Every result is written as soon as it is there, whole or not at all; a file that cannot be used is
named in ``results.csv`` and passed over.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import numpy as np

from ultrarefiner.data.atomic import refused
from ultrarefiner.data.readers import CoarseMask, read_image
from ultrarefiner.data.writers import CsvLog, write_json, write_mask, write_probability
from ultrarefiner.errors import ConfigError, InputError
from ultrarefiner.refine.predictor import RefinedImage, Refiner
from ultrarefiner.refine.results import RESULT_COLUMNS, result_row
from ultrarefiner.refine.validity import doubts
from ultrarefiner.shapes import GreyImage

FLOAT, EIGHT_BIT = ".npy", ".png"

RESULT_FOLDERS = ("masks", "probabilities", "gates")
"""Folders that every run writes to."""


@dataclass(frozen=True, kw_only=True)
class FolderOptions:
    """What to write, and how much at a time.

    Attributes:
        save_probabilities: also write ``probabilities/STEM.npy``, float32.
        save_8bit_probabilities: also write ``probabilities/STEM.png``, in steps of 1/255.
        batch_size: images per forward pass; more than one only helps a GPU.
    """

    save_probabilities: bool = False
    save_8bit_probabilities: bool = False
    batch_size: int = 1

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError("batch_size", expected=">= 1", found=str(self.batch_size))

    @property
    def probability_endings(self) -> tuple[str, ...]:
        """The endings of the probability files to write."""
        wanted = {FLOAT: self.save_probabilities, EIGHT_BIT: self.save_8bit_probabilities}
        return tuple(ending for ending, is_wanted in wanted.items() if is_wanted)


@dataclass(frozen=True, kw_only=True)
class FolderResult:
    """How a run went.

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


class Item(Protocol):
    """An image to work on; ``stem`` names its results."""

    @property
    def stem(self) -> str:
        """Name of the results, unique in the run."""

    @property
    def image(self) -> Path:
        """File of the image."""

    @property
    def coarse(self) -> Path:
        """File of the coarse mask, given or written by the run."""


class CoarseSource(Protocol):
    """Where coarse masks come from: files, or a network."""

    @property
    def kind(self) -> str:
        """One of :data:`~ultrarefiner.refine.acceptance.SOURCES`."""

    def open_batch(
        self, items: Sequence[Item], images: Sequence[GreyImage]
    ) -> list[CoarseMask | InputError]:
        """Return the coarse mask of each image on its grid, or why there is none."""

    def remove(self, stem: str) -> None:
        """Remove what an earlier run left for an image that this run cannot use."""


class FolderJob:
    """The state of one run: what was done, what failed, what to remark.

    Args:
        out: folder of the results.
        refiner: does the work.
        source: where coarse masks come from.
        options: what to write.
    """

    def __init__(
        self, out: Path, refiner: Refiner, *, source: CoarseSource, options: FolderOptions
    ) -> None:
        self.out, self.refiner = out, refiner
        self.source, self.options = source, options
        self.cases: list[dict[str, Any]] = []
        self.num_accepted = 0
        self.scores: list[float] = []
        self.failures: list[tuple[str, str]] = []
        self.notes: list[tuple[str, str]] = []
        self._fingerprint = hashlib.sha256()

    def run(
        self,
        items: Sequence[Item],
        *,
        unusable: Iterable[tuple[str, str]] = (),
        about: Mapping[str, Any],
        track: Callable[[Iterable[Sequence[Item]], int], Iterable[Sequence[Item]]],
    ) -> FolderResult:
        """Work through all items and write ``results.csv`` and ``run.json``.

        Interrupted, it still writes ``run.json``, so that the part that is done can be reported.

        Args:
            items: what to refine.
            unusable: name and reason of files that are only reported.
            about: recorded in ``run.json``; its ``notes``, if any, come before those of the run.
            track: wraps the iteration over batches, for a progress bar.
        """
        self.notes += about.get("notes", ())
        size = self.options.batch_size
        batches = [items[start : start + size] for start in range(0, len(items), size)]
        try:
            with CsvLog(self.out / "results.csv", RESULT_COLUMNS) as log:
                _remove_summaries(self.out)
                for name, reason in unusable:
                    self._fail(log, name, reason)
                for batch in track(batches, len(batches)):
                    self._run_batch(log, batch)
        except KeyboardInterrupt:
            done = f"interrupted: {len(self.cases)} of {len(items)} images were refined"
            self.notes.append((str(self.out), done))
            self._doubt_rule()
            write_json(self.out / "run.json", self._record(about))
            raise
        self._doubt_rule()
        write_json(self.out / "run.json", self._record(about))
        return FolderResult(
            num_refined=len(self.cases),
            num_accepted=self.num_accepted,
            failures=tuple(self.failures),
            notes=tuple(self.notes),
        )

    def _fail(self, log: CsvLog, name: str, error: str) -> None:
        self.failures.append((name, error))
        log.append({"image": name, "error": error})

    def _run_batch(self, log: CsvLog, batch: Sequence[Item]) -> None:
        """Read, refine and write some images."""
        start = perf_counter()
        ready = self._read_batch(log, batch)
        if not ready:
            return
        items, images, coarse = zip(*ready, strict=True)
        results = self.refiner.refine_batch(
            images, [mask.values for mask in coarse], are_hard=[mask.is_hard for mask in coarse]
        )
        for item, result in zip(items, results, strict=True):
            self._write(item, result)
            seconds = (perf_counter() - start) / len(ready)
            log.append(result_row(item.stem, result, seconds))
            self.num_accepted += result.accepted
            if result.score is not None:
                self.scores.append(result.score)

    def _read_batch(
        self, log: CsvLog, batch: Sequence[Item]
    ) -> list[tuple[Item, GreyImage, CoarseMask]]:
        """Return what can be used; name the rest and remove what an earlier run left of it."""
        failed: dict[str, InputError] = {}
        images: dict[str, GreyImage] = {}
        for item in batch:
            try:
                images[item.stem] = read_image(item.image)
            except InputError as error:
                failed[item.stem] = error
        readable = [item for item in batch if item.stem in images]
        ready = []
        answers = self.source.open_batch(readable, list(images.values())) if readable else []
        for item, coarse in zip(readable, answers, strict=True):
            if isinstance(coarse, InputError):
                failed[item.stem] = coarse
            else:
                self._remember(item, images[item.stem], coarse)
                ready.append((item, images[item.stem], coarse))
        for stem, reason in failed.items():
            self._remove_results(stem)
            self._fail(log, stem, str(reason))
        return ready

    def _remember(self, item: Item, image: GreyImage, coarse: CoarseMask) -> None:
        self.notes += [(str(item.coarse), note) for note in coarse.notes]
        self._fingerprint.update(item.stem.encode(errors="backslashreplace"))
        self._fingerprint.update(image.tobytes())
        self._fingerprint.update(coarse.values.tobytes())

    def _write(self, item: Item, result: RefinedImage) -> None:
        write_mask(self.out / "masks" / f"{item.stem}.png", result.mask)
        for ending in self.options.probability_endings:
            write_probability(self.out / "probabilities" / f"{item.stem}{ending}", result.probs)
        write_probability(self.out / "gates" / f"{item.stem}.png", result.gate)
        boxes, points, labels = (
            np.concatenate([getattr(lesion, name) for lesion in result.lesions])
            for name in ("boxes_xyxy", "points_xy", "point_labels")
        )
        self.cases.append(
            {
                "stem": item.stem,
                "image": str(item.image.absolute()),
                "coarse": str(item.coarse.absolute()),
                "boxes_xyxy": boxes.round(2).tolist(),
                "points_xy": points.round(2).tolist(),
                "point_labels": labels.tolist(),
            }
        )

    def _doubt_rule(self) -> None:
        """Remark where what the acceptance rule promises does not hold for these images."""
        if self.refiner.rule is not None and self.scores:
            found = doubts(
                self.refiner.rule,
                self.scores,
                source=self.source.kind,
                bf16=self.refiner.bf16,
            )
            self.notes += [("acceptance rule", doubt) for doubt in found]

    def _remove_results(self, stem: str) -> None:
        """Remove what an earlier run left for an image that this run cannot use."""
        for folder in ("masks", "gates"):
            remove_file(self.out / folder / f"{stem}.png")
        for ending in (FLOAT, EIGHT_BIT):
            remove_file(self.out / "probabilities" / f"{stem}{ending}")
        self.source.remove(stem)

    def _record(self, about: Mapping[str, Any]) -> dict[str, Any]:
        """Return what ``run.json`` holds: enough to repeat the run and to draw its report."""
        rule = self.refiner.rule
        return dict(about) | {
            "config": asdict(self.refiner.config),
            "rule": rule.to_json() if rule else None,
            "device": str(self.refiner.device),
            "versions": {name: version(name) for name in ("ultrarefiner", "torch", "numpy")},
            "data_sha256": self._fingerprint.hexdigest(),
            "cases": sorted(self.cases, key=lambda case: str(case["image"])),
            "notes": [list(note) for note in self.notes],
        }


def refuse_overwriting(out: Path, inputs: Iterable[Path], subfolders: Iterable[str]) -> None:
    """Refuse to write over the input, or over masks that no earlier run wrote (the truth, say).

    Raises:
        InputError: a folder that would be written to is an input, or holds files of others.
    """
    folders = [out / name for name in subfolders]
    for folder in inputs:
        if folder.resolve() in [written.resolve() for written in folders]:
            raise InputError(
                f"results would overwrite the input folder {folder}",
                fix="Choose another folder for --out.",
            )
    for folder in folders:
        if folder.is_dir() and any(folder.iterdir()) and not (out / "results.csv").is_file():
            raise InputError(
                f"results would mix with the files in {folder}",
                expected="an empty folder or one that an earlier run wrote",
                found="files but no results.csv beside them",
                fix="Choose another folder for --out.",
            )


def remove_file(path: Path) -> None:
    """Remove a file if it is there.

    Raises:
        OutputError: the operating system refused.
    """
    try:
        path.unlink(missing_ok=True)
    except NotADirectoryError:
        return
    except OSError as cause:
        raise refused(path, cause) from cause


def _remove_summaries(out: Path) -> None:
    """Remove what an earlier run of this folder says about masks that are about to change."""
    for name in ("run.json", "eval.json", "report.html"):
        remove_file(out / name)
