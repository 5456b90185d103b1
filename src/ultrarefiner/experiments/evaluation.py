"""Score a folder of predicted masks against the truth of a manifest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ultrarefiner.data.folds import outer_split
from ultrarefiner.data.formats import split_name
from ultrarefiner.data.manifest import Record, read_manifest
from ultrarefiner.data.pairing import find_images, pair_files
from ultrarefiner.data.readers import read_coarse
from ultrarefiner.data.writers import write_json
from ultrarefiner.errors import InputError
from ultrarefiner.metrics import Case, evaluate_cases, evaluate_mask
from ultrarefiner.refine.folder import resample_coarse
from ultrarefiner.refine.results import as_cell, read_results
from ultrarefiner.shapes import Mask


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """What was scored.

    Attributes:
        content: the object written as ``eval.json``.
        failures: file and reason of everything that could not be scored.
        notes: file and remark of everything that was scored with a caveat.
    """

    content: dict[str, Any]
    failures: tuple[tuple[str, str], ...]
    notes: tuple[tuple[str, str], ...]


def evaluate_folder(
    manifest: Path,
    preds: Path,
    out: Path,
    *,
    baseline: Path | None = None,
    fold: str | None = None,
) -> EvaluationResult:
    """Score predictions, and a baseline beside them, and write ``eval.json``.

    Args:
        manifest: names image, mask and patient of every case.
        preds: folder of masks named as the images, or a run folder with ``masks/`` in it; of that
            only the masks that its ``results.csv`` names.
        out: file to write.
        baseline: folder of masks to compare with, such as the coarse ones. Those of another size
            are resampled, as the refinement does.
        fold: score only the images of this fold of the manifest.

    Raises:
        InputError: nothing could be scored.
    """
    records = read_manifest(manifest)
    if fold is not None:
        _, records = outer_split(records, fold)
    images = sorted({record.image for record in records})
    scorers = [_Scorer(preds, images)]
    scorers += [_Scorer(baseline, images, resamples=True)] if baseline else []
    cases: list[tuple[Case, ...]] = []
    failures: list[tuple[str, str]] = []
    truths: dict[str, str] = {}
    for record in records:
        stem = split_name(record.image)[0]
        try:
            truth = _truth(record)
            cases.append(tuple(scorer.score(stem, truth, record) for scorer in scorers))
        except InputError as error:
            failures.append((record.image.name, str(error)))
        else:
            truths[stem] = str(record.mask.absolute()) if record.mask else ""
    if not cases:
        raise InputError(
            f"nothing to evaluate in {preds}",
            expected="masks named as the images of the manifest",
            found=f"{len(failures)} failures, the first: {failures[0][1]}",
        )
    content = _content([list(column) for column in zip(*cases, strict=True)])
    content |= {"truths": truths, "failures": [list(failure) for failure in failures]}
    write_json(out, content)
    notes = tuple(note for scorer in scorers for note in scorer.notes)
    return EvaluationResult(content=content, failures=tuple(failures), notes=notes)


class _Scorer:
    """Scores the masks of one folder."""

    def __init__(self, folder: Path, images: list[Path], *, resamples: bool = False):
        self.folder = folder
        self.resamples = resamples
        self.paths = {pair.stem: pair.coarse for pair in pair_files(images, _masks(folder)).pairs}
        self.notes: list[tuple[str, str]] = []

    def score(self, stem: str, truth: Mask, record: Record) -> Case:
        """Return the metrics of one mask."""
        if stem not in self.paths:
            raise InputError(f"no mask named {stem} in {self.folder}")
        mask = self._read(self.paths[stem], truth.shape)
        return Case(
            image=stem,
            metrics=evaluate_mask(mask, truth, record.spacing_mm),
            patient=record.patient,
        )

    def _read(self, path: Path, shape: tuple[int, ...]) -> Mask:
        mask = read_coarse(path)
        if mask.values.shape == shape:
            return mask.values > 0.5
        if not self.resamples:
            raise InputError(
                f"cannot score {path}",
                expected=f"the truth's size {_size(shape)}",
                found=_size(mask.values.shape),
                fix="Give masks at the native size of their images.",
            )
        remark = f"resampled from {_size(mask.values.shape)} to the truth's {_size(shape)}"
        self.notes.append((str(path), remark))
        return resample_coarse(mask, shape).values > 0.5


def _content(columns: list[list[Case]]) -> dict[str, Any]:
    """Return ``eval.json`` of the cases and, where there is one, of their baseline."""
    content = evaluate_cases(*columns).to_json()
    if len(columns) > 1:
        content["baseline_cases"] = evaluate_cases(columns[1]).to_json()["cases"]
    return content


def _masks(folder: Path) -> list[Path]:
    """Return the masks of a folder, or those that the run in it has finished."""
    inside = folder / "masks"
    paths = list(find_images(inside if inside.is_dir() else folder))
    if not (inside.is_dir() and (folder / "results.csv").is_file()):
        return paths
    done = {row["image"] for row in read_results(folder / "results.csv") if not row.get("error")}
    return [path for path in paths if as_cell(split_name(path)[0]) in done]


def _truth(record: Record) -> Mask:
    if record.mask is None:
        raise InputError(f"{record.image.name} has no mask in the manifest")
    return read_coarse(record.mask).values > 0.5


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]} px"
