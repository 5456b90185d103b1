"""Score a folder of predicted masks against the truth of a manifest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ultrarefiner.data.formats import split_name
from ultrarefiner.data.manifest import Record, read_manifest
from ultrarefiner.data.pairing import find_images
from ultrarefiner.data.readers import read_coarse
from ultrarefiner.data.writers import write_json
from ultrarefiner.errors import InputError
from ultrarefiner.metrics import Case, evaluate_cases, evaluate_mask
from ultrarefiner.shapes import Mask


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """What was scored.

    Attributes:
        content: the object written as ``eval.json``.
        failures: file and reason of everything that could not be scored.
    """

    content: dict[str, Any]
    failures: tuple[tuple[str, str], ...]


def evaluate_folder(
    manifest: Path, preds: Path, out: Path, *, baseline: Path | None = None
) -> EvaluationResult:
    """Score predictions, and a baseline beside them, and write ``eval.json``.

    Args:
        manifest: names image, mask and patient of every case.
        preds: folder of masks named as the images, or a run folder with ``masks/`` in it.
        out: file to write.
        baseline: folder of masks to compare with, such as the coarse ones.

    Raises:
        InputError: nothing could be scored.
    """
    predicted, compared = _by_stem(preds), _by_stem(baseline) if baseline else {}
    cases: list[Case] = []
    baseline_cases: list[Case] = []
    failures: list[tuple[str, str]] = []
    truths: dict[str, str] = {}
    for record in read_manifest(manifest):
        stem = split_name(record.image)[0]
        try:
            truth = _truth(record)
            scored = _score(stem, predicted, preds, truth, record)
            other = _score(stem, compared, baseline, truth, record) if baseline else None
        except InputError as error:
            failures.append((record.image.name, str(error)))
            continue
        cases.append(scored)
        baseline_cases += [other] if other else []
        truths[stem] = str(record.mask)
    if not cases:
        raise InputError(
            f"nothing to evaluate in {preds}",
            expected="masks named as the images of the manifest",
            found=failures[0][1] if failures else None,
        )
    content = evaluate_cases(cases, baseline_cases if baseline else None).to_json()
    if baseline:
        content["baseline_cases"] = evaluate_cases(baseline_cases).to_json()["cases"]
    content["truths"] = truths
    content["failures"] = [list(failure) for failure in failures]
    write_json(out, content)
    return EvaluationResult(content=content, failures=tuple(failures))


def _by_stem(folder: Path) -> dict[str, Path]:
    inside = folder / "masks"
    return {
        split_name(path)[0]: path for path in find_images(inside if inside.is_dir() else folder)
    }


def _truth(record: Record) -> Mask:
    if record.mask is None:
        raise InputError(f"{record.image.name} has no mask in the manifest")
    return read_coarse(record.mask).values > 0.5


def _score(
    stem: str, found: dict[str, Path], folder: Path | None, truth: Mask, record: Record
) -> Case:
    if stem not in found:
        raise InputError(f"no mask named {stem} in {folder}")
    mask = read_coarse(found[stem]).values > 0.5
    if mask.shape != truth.shape:
        raise InputError(
            f"{found[stem]}",
            expected=f"the truth's size {truth.shape[1]}x{truth.shape[0]} px",
            found=f"{mask.shape[1]}x{mask.shape[0]} px",
        )
    return Case(
        image=stem,
        metrics=evaluate_mask(mask, truth, record.spacing_mm),
        patient=record.patient,
    )
