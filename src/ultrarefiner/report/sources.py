"""What a report is made of: runs, evaluations, trainings and more, told by their files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ultrarefiner.errors import ConfigError, InputError
from ultrarefiner.refine.acceptance import AcceptanceRule
from ultrarefiner.refine.results import read_results
from ultrarefiner.report.calibrated import CALIBRATION_KEYS, Calibration, read_calibration
from ultrarefiner.report.learning import LOG, PHASES, Training, read_training

Content = dict[str, Any]

_RUN_KEYS = ("device", "config", "data_sha256", "versions", "cases", "notes")
_EVALUATION_TYPES: dict[str, type | tuple[type, ...]] = {
    "summary": dict,
    "baseline": (dict, type(None)),
    "paired": (dict, type(None)),
    "counts": dict,
    "num_images": int,
    "num_patients": int,
    "distance_unit": str,
    "cases": list,
}
_EVALUATION_KEYS = tuple(_EVALUATION_TYPES)
_ROW_KEYS = frozenset({"image", "dsc", "hd95"})
_COMPARISON_KEYS = ("methods", "reference", "metrics", "summaries", "pairs", "num_patients")
_CALIBRATION = "calibration.json"
_NAMED_LIKE_FOLDER = frozenset({"eval.json", "compare.json", _CALIBRATION})
_EXPECTED = (
    "a folder written by 'refine', 'predict' or 'train', an eval.json, a compare.json, "
    "a calibration.json, or a folder of such folders"
)


@dataclass(frozen=True, kw_only=True, eq=False)
class RunSource:
    """A folder that ``refine`` or ``predict`` wrote.

    Attributes:
        name: what tells it from the other sources.
        folder: where it is.
        record: content of ``run.json``.
        rows: lines of ``results.csv``.
        rule: acceptance rule that it used; None if it used none.
        evaluation: content of its ``eval.json``; None without truth.
    """

    name: str
    folder: Path
    record: Content
    rows: list[dict[str, str]]
    rule: AcceptanceRule | None
    evaluation: Content | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Sources:
    """All that a report can show.

    Attributes:
        runs: refinement runs.
        evaluations: name and content of every ``eval.json``, those of the runs first.
        comparison: content of a ``compare.json``; None if none was given.
        trainings: training runs.
        calibrations: of acceptance rules.
    """

    runs: tuple[RunSource, ...]
    evaluations: tuple[tuple[str, Content], ...]
    comparison: Content | None
    trainings: tuple[Training, ...]
    calibrations: tuple[Calibration, ...]

    @property
    def shown(self) -> RunSource | None:
        """The run that is shown case by case: the first with an evaluation, else the first."""
        evaluated = [run for run in self.runs if run.evaluation is not None]
        return next(iter((*evaluated, *self.runs)), None)


def read_sources(paths: Sequence[Path], *, evaluation: Path | None = None) -> Sources:
    """Read what the paths hold.

    Args:
        paths: folders of runs, of trainings, of calibrations, or of folders of those one level
            down; ``eval.json``, ``compare.json`` and ``calibration.json`` files.
        evaluation: ``eval.json`` of the first run; else the one inside its folder, if any.

    Raises:
        InputError: a path holds nothing of the kind or cannot be read, or there is an evaluation
            without its run or a second comparison.
    """
    expanded = [inner for path in paths for inner in _expand(path)]
    calibrated = [path for path, kind in expanded if kind == "calibration"]
    found = [(path, kind) for path, kind in expanded if kind != "calibration"]
    names = _tell_apart([path for path, _ in found])
    runs: list[RunSource] = []
    trainings: list[Training] = []
    evaluations: list[tuple[str, Content]] = []
    comparisons: list[Content] = []
    for (path, kind), name in zip(found, names, strict=True):
        if kind == "run":
            runs.append(_read_run(path, name, evaluation if not runs else None))
        elif kind == "training":
            trainings.append(read_training(path, name=name))
        elif kind == "evaluation":
            evaluations.append((name, read_evaluation(path)))
        else:
            comparisons.append(_read_json(path, "ultrarefiner compare", _COMPARISON_KEYS))
    if evaluation is not None and not runs:
        raise InputError(
            f"{evaluation} is of no run",
            expected="the folder of its run among the sources",
            fix="Give the folder, or the evaluation as a source of its own.",
        )
    if len(comparisons) > 1:
        raise InputError("there are several comparisons", expected="one compare.json")
    own = [(run.name, run.evaluation) for run in runs if run.evaluation is not None]
    return Sources(
        runs=tuple(runs),
        evaluations=(*own, *evaluations),
        comparison=comparisons[0] if comparisons else None,
        trainings=tuple(trainings),
        calibrations=tuple(map(_read_calibration, calibrated, _tell_apart(calibrated))),
    )


def read_evaluation(path: Path) -> Content:
    """Read an ``eval.json``.

    Raises:
        InputError: it cannot be read or is none.
    """
    content = _read_json(path, "ultrarefiner evaluate", _EVALUATION_KEYS)
    wrong = [key for key, kind in _EVALUATION_TYPES.items() if not isinstance(content[key], kind)]
    rows = [*content["cases"], *(content.get("baseline_cases") or [])] if not wrong else []
    if wrong or not all(isinstance(row, dict) and row.keys() >= _ROW_KEYS for row in rows):
        raise InputError(
            f"cannot use {path}",
            expected="a file written by 'ultrarefiner evaluate'",
            found=f"other contents in {wrong[0]}" if wrong else "cases without their metrics",
            fix="Run 'ultrarefiner evaluate' again.",
        )
    return content


def _expand(path: Path) -> list[tuple[Path, str]]:
    """Return the sources that a path stands for, and of which kind each is."""
    if path.is_file():
        return [(path, _kind_of_file(path))]
    known = _sources_in(path)
    if _kind_of_folder(path):
        return known
    try:
        known += [source for child in sorted(path.iterdir()) for source in _sources_in(child)]
    except OSError as cause:
        raise InputError(
            f"cannot read {path}", expected=_EXPECTED, found=cause.strerror or str(cause)
        ) from cause
    if not known:
        raise InputError(
            f"nothing to report in {path}",
            expected=_EXPECTED,
            found=f"neither run.json nor log/metrics.csv nor {_CALIBRATION} in it",
            fix="Run 'ultrarefiner refine' first, or check the path.",
        )
    return known


def _sources_in(folder: Path) -> list[tuple[Path, str]]:
    """Return a folder if it is a source, the later phases within it, and its calibration."""
    kind = _kind_of_folder(folder)
    phases = [folder / name for name in PHASES if kind and (folder / name / LOG).is_file()]
    sources = [(folder, kind)] if kind else []
    sources += [(phase, "training") for phase in phases]
    if (folder / _CALIBRATION).is_file():
        sources.append((folder / _CALIBRATION, "calibration"))
    return sources


def _kind_of_folder(path: Path) -> str:
    if (path / LOG).is_file():
        return "training"
    return "run" if (path / "run.json").is_file() else ""


def _kind_of_file(path: Path) -> str:
    content = _read_json(path, "ultrarefiner evaluate' or 'ultrarefiner compare", ())
    if "methods" in content:
        return "comparison"
    return "calibration" if content.keys() >= set(CALIBRATION_KEYS) else "evaluation"


def _read_run(folder: Path, name: str, evaluation: Path | None) -> RunSource:
    record = _read_json(folder / "run.json", "ultrarefiner refine", _RUN_KEYS)
    if evaluation is None and (folder / "eval.json").is_file():
        evaluation = folder / "eval.json"
    return RunSource(
        name=name,
        folder=folder,
        record=record,
        rows=read_results(folder / "results.csv"),
        rule=_rule_of(record, folder / "run.json"),
        evaluation=read_evaluation(evaluation) if evaluation else None,
    )


def _rule_of(record: Content, path: Path) -> AcceptanceRule | None:
    stored = record.get("rule")
    try:
        return AcceptanceRule.from_json(stored) if stored else None
    except (AttributeError, ConfigError, TypeError, ValueError) as cause:
        raise InputError(
            f"cannot use {path}", expected="the rule of the run", found=str(cause)
        ) from cause


def _read_calibration(path: Path, name: str) -> Calibration:
    content = _read_json(path, "ultrarefiner calibrate", CALIBRATION_KEYS)
    return read_calibration(content, name=name, path=path)


def _read_json(path: Path, command: str, keys: Sequence[str]) -> Content:
    """Read an object that has the given keys."""
    expected = f"a file written by '{command}'"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as cause:
        found = getattr(cause, "strerror", None) or str(cause)
        fix = f"Run '{command}' first, or check the path."
        raise InputError(f"cannot read {path}", expected=expected, found=found, fix=fix) from cause
    if not isinstance(content, dict):
        raise InputError(f"cannot use {path}", expected=expected, found="no object in it")
    missing = [key for key in keys if key not in content]
    if missing:
        raise InputError(
            f"cannot use {path}", expected=expected, found=f"no {', '.join(missing)} in it"
        )
    return content


def _tell_apart(paths: Sequence[Path]) -> list[str]:
    """Return a name for each path: as few of its last parts as tell it from the others.

    An ``eval.json`` and the like is called like its folder, and a fold of a training with its run.
    """
    parts = [_parts(path) for path in paths]
    for depth in range(1, max(map(len, parts), default=0) + 1):
        names = [_name(own, depth) for own in parts]
        if len(set(names)) == len(names):
            return names
    times: Counter[str] = Counter()
    repeated = []
    for own in parts:
        name = _name(own, len(own))
        times[name] += 1
        repeated.append(name if times[name] == 1 else f"{name} ({times[name]})")
    return repeated


def _parts(path: Path) -> tuple[str, ...]:
    whole = path.absolute()
    if whole.name in _NAMED_LIKE_FOLDER:
        whole = whole.parent
    return (whole.with_suffix("") if whole.is_file() else whole).parts[1:]


def _name(parts: Sequence[str], depth: int) -> str:
    is_fold = parts and (parts[-1].startswith("fold-") or parts[-1] == "all")
    return "/".join(parts[-(depth + 1 if is_fold else depth) :])
