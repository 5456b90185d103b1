"""Score a folder of predicted masks against the truth of a manifest."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ultrarefiner.data.formats import split_name
from ultrarefiner.data.manifest import Record
from ultrarefiner.data.writers import write_json
from ultrarefiner.errors import InputError
from ultrarefiner.experiments.probability_maps import (
    ProbabilityScores,
    find_probability,
    read_probability,
)
from ultrarefiner.experiments.scoring import (
    MaskFolder,
    OpenedMask,
    ScoringConfig,
    note_unknown_patients,
    provenance,
    read_records,
    read_truth,
)
from ultrarefiner.metrics import Case, compare_methods, evaluate_cases
from ultrarefiner.metrics.cases import as_json
from ultrarefiner.metrics.pairs import check_margins
from ultrarefiner.metrics.summary import check_delta
from ultrarefiner.shapes import Mask


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What an evaluation says beside the metrics.

    Attributes:
        delta: change in DSC, in [0, 1), up to which an image counts as unchanged.
        margin: largest difference in DSC that does not matter, above 0; none if None.
        seed: of bootstraps and permutations.
    """

    delta: float = 0.02
    margin: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_delta(self.delta)
        check_margins(self.margin, ["dsc"])


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
    scoring: ScoringConfig | None = None,
    config: EvaluationConfig | None = None,
    command: str = "",
) -> EvaluationResult:
    """Score predictions, and a baseline beside them, and write ``eval.json``.

    Args:
        manifest: names image, mask and patient of every case.
        preds: folder of masks named as the images, or a run folder with ``masks/`` in it; of that
            only the masks that its ``results.csv`` names, and its probabilities if it has some.
        out: file to write.
        baseline: folder of masks to compare with, such as the coarse ones. Those of another size
            are resampled, as the refinement does.
        fold: score only the images of this fold of the manifest.
        scoring: how masks are measured.
        config: what is said of them.
        command: recorded in ``eval.json``.

    Raises:
        InputError: nothing could be scored, or the policy is strict and a metric is undefined.
    """
    scoring, config = scoring or ScoringConfig(), config or EvaluationConfig()
    records = read_records(manifest, fold)
    images = sorted({record.image for record in records})
    folders = [MaskFolder(preds, images)]
    folders += [MaskFolder(baseline, images, resamples=True)] if baseline else []
    maps = _Maps(preds)
    cases: list[list[Case]] = [[] for _ in folders]
    failures: list[tuple[str, str]] = []
    truths: dict[str, str] = {}
    notes = note_unknown_patients(records)
    for record in records:
        stem = split_name(record.image)[0]
        try:
            truth, remarks = read_truth(record, scoring.label)
            masks = [folder.open(stem, truth.shape) for folder in folders]
        except InputError as error:
            failures.append((record.image.name, str(error)))
            continue
        for column, mask in zip(cases, masks, strict=True):
            column.append(scoring.score(mask, truth, record))
        maps.add(masks, truth, cases[0][-1])
        truths[stem] = _mask_path(record)
        notes += remarks
    if not truths:
        raise InputError(
            f"nothing to evaluate in {preds}",
            expected="masks named as the images of the manifest",
            found=f"{len(failures)} failures, the first: {failures[0][1]}",
        )
    content = _summarise(cases, config) | {
        "settings": as_json(asdict(scoring) | asdict(config) | {"fold": fold}),
        "probabilities": maps.to_json(seed=config.seed),
        "truths": truths,
        "failures": [list(failure) for failure in failures],
        **provenance(command, manifest),
    }
    write_json(out, content)
    notes += [note for folder in folders for note in folder.notes] + maps.notes(len(truths))
    return EvaluationResult(content=content, failures=tuple(failures), notes=tuple(notes))


class _Maps:
    """The probabilities of a run and of what it refined, where they were kept.

    The coarse ones are those that ``predict`` kept, or else the coarse masks themselves where they
    are soft.
    """

    def __init__(self, run: Path):
        self.folders = {"refined": run / "probabilities", "coarse": run / "coarse_probabilities"}
        self.scores = {name: ProbabilityScores() for name in self.folders}
        self.unusable: list[tuple[str, str]] = []

    def add(self, masks: list[OpenedMask], truth: Mask, case: Case) -> None:
        """Take in the maps of the next image: of its mask, and of its baseline's."""
        soft = dict(zip(self.folders, masks, strict=False))
        for name, folder in self.folders.items():
            path = find_probability(folder, case.image)
            try:
                if path:
                    self.scores[name].add(read_probability(path), truth, patient=case.patient)
                elif name in soft and not soft[name].coarse.is_hard:
                    self.scores[name].add(soft[name].values, truth, patient=case.patient)
            except InputError as error:
                self.unusable.append((str(path), str(error)))

    def to_json(self, *, seed: int) -> dict[str, Any]:
        """Return the scores of each kind of map that there is."""
        found = {name: scores for name, scores in self.scores.items() if len(scores)}
        return {name: scores.to_json(seed=seed) for name, scores in found.items()}

    def notes(self, num_images: int) -> list[tuple[str, str]]:
        """Return what could not be used, and where some images have a map and others do not."""
        partly = [
            (name, f"{len(scores)} of {num_images} images have probabilities")
            for name, scores in self.scores.items()
            if 0 < len(scores) < num_images
        ]
        return self.unusable + partly


def _summarise(cases: list[list[Case]], config: EvaluationConfig) -> dict[str, Any]:
    """Return what ``eval.json`` says of the cases and, where there is one, of their baseline."""
    found = evaluate_cases(*cases, delta=config.delta, seed=config.seed).to_json()
    if len(cases) == 1:
        return found | {"comparison": None}
    refined, coarse = cases
    comparison = compare_methods(
        {"coarse": coarse, "refined": refined},
        delta=config.delta,
        margin=config.margin,
        seed=config.seed,
    )
    return found | {"comparison": comparison.to_json()}


def _mask_path(record: Record) -> str:
    return str(record.mask.absolute()) if record.mask else ""
