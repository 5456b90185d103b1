"""From the files of runs, evaluations and trainings to their report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ultrarefiner.data.atomic import write_text
from ultrarefiner.errors import InputError
from ultrarefiner.refine.results import as_cell
from ultrarefiner.report.cases import CaseImages, ReportCase
from ultrarefiner.report.methods import compare_evaluations
from ultrarefiner.report.page import render_report
from ultrarefiner.report.pictures import load_images
from ultrarefiner.report.provenance import trace
from ultrarefiner.report.sources import RunSource, Sources, read_sources
from ultrarefiner.report.wording import counted

Content = Mapping[str, Any]

_SHOWN_FAILURES = 5


def write_report(
    paths: Sequence[Path], out: Path, *, evaluation: Path | None = None, title: str = ""
) -> None:
    """Write one report on everything that the paths hold.

    The first run that has an evaluation is shown case by case; if none has, the first run; without
    a run, the first evaluation. Several evaluations are compared with each other.

    Args:
        paths: run folders, training folders, folders of those, ``eval.json``, ``compare.json``,
            ``calibration.json``.
        out: HTML file to write.
        evaluation: ``eval.json`` of the first run; else the one in its folder, if any.
        title: heading; else it says what is reported.

    Raises:
        InputError: a source cannot be read, or evaluations cannot be compared.
        OutputError: the report cannot be written.
    """
    sources = read_sources(paths, evaluation=evaluation)
    run = sources.shown
    if run:
        scores: Content | None = run.evaluation
        cases = _cases_of_run(run)
    else:
        scores = sources.evaluations[0][1] if sources.evaluations else None
        cases = _cases_of_scores(scores) if scores else []
    comparison = sources.comparison
    if comparison is None and len(sources.evaluations) > 1:
        comparison = compare_evaluations(sources.evaluations)
    page = render_report(
        cases,
        title=title or _title(sources, comparison),
        evaluation=scores,
        provenance=trace(sources),
        notes=_notes(run, scores, sources),
        comparison=comparison,
        trainings=sources.trainings,
        rule=run.rule if run else None,
        calibrations=sources.calibrations,
        with_pictures=run is not None,
    )
    write_text(out, page)


def _title(sources: Sources, comparison: Content | None) -> str:
    if comparison:
        return "Comparison of " + ", ".join(comparison["methods"])
    if sources.shown:
        return f"Refinement of {counted(len(sources.shown.record['cases']), 'coarse mask')}"
    if sources.evaluations:
        return f"Evaluation of {counted(sources.evaluations[0][1]['num_images'], 'mask')}"
    if sources.calibrations:
        names = ", ".join(calibration.name for calibration in sources.calibrations)
        return f"Calibration of {names}"
    return "Training of " + ", ".join(training.name for training in sources.trainings)


def _notes(run: RunSource | None, scores: Content | None, sources: Sources) -> list[str]:
    """Return what the reader has to know first."""
    notes = [f"{Path(name).name}: {note}" for name, note in run.record["notes"]] if run else []
    failures = (scores or {}).get("failures") or []
    if failures:
        named = "; ".join(f"{name}: {why}" for name, why in failures[:_SHOWN_FAILURES])
        more = f"; and {len(failures) - _SHOWN_FAILURES} more"
        notes.append(
            f"{counted(len(failures), 'image')} could not be scored and count nowhere: {named}"
            + (more if len(failures) > _SHOWN_FAILURES else "")
        )
    if len(sources.evaluations) > 1 and (run or scores):
        name = run.name if run else sources.evaluations[0][0]
        notes.append(
            f"Headline, figures, sizes, calibration, images and the table of all cases are those "
            f"of {name}."
        )
    if run and scores is None and sources.evaluations:
        notes.append(
            f"No evaluation is known to be of {run.name}; name its file by --evaluation to have "
            "it scored here."
        )
    for other in sources.runs:
        if other is not run and other.evaluation is None:
            notes.append(
                f"{other.name} has no eval.json, so that only its provenance is shown; run "
                "'ultrarefiner evaluate' on it to compare it."
            )
    return notes


def _cases_of_run(run: RunSource) -> list[ReportCase]:
    made = {as_cell(case["stem"]): case for case in run.record["cases"]}
    scores = run.evaluation or {}
    metrics, baseline = _by_image(scores, "cases"), _by_image(scores, "baseline_cases")
    truths, label = scores.get("truths") or {}, run.record.get("label")
    return [
        ReportCase(
            stem=(stem := row["image"]),
            row=row,
            metrics=metrics.get(stem),
            baseline=baseline.get(stem),
            load=partial(
                load_images, run.folder, stem, made.get(stem), truth=truths.get(stem), label=label
            ),
        )
        for row in run.rows
    ]


def _cases_of_scores(scores: Content) -> list[ReportCase]:
    """Return the cases of an evaluation whose run is not known."""
    baseline = _by_image(scores, "baseline_cases")
    return [
        ReportCase(
            stem=stem, row={}, metrics=case, baseline=baseline.get(stem), load=partial(_gone, stem)
        )
        for stem, case in _by_image(scores, "cases").items()
    ]


def _by_image(scores: Content, table: str) -> dict[str, Any]:
    return {case["image"]: case for case in scores.get(table) or []}


def _gone(stem: str) -> CaseImages:
    raise InputError(f"the run of {stem} is not known", fix="Report the folder of its run.")
