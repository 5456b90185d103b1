"""Put the parts together: cases and numbers in, one HTML text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment

from ultrarefiner.refine.acceptance import AcceptanceRule
from ultrarefiner.report import naming, wording
from ultrarefiner.report.bland_altman import compare_sizes
from ultrarefiner.report.calibrated import Calibration
from ultrarefiner.report.cases import ReportCase, judge_change
from ultrarefiner.report.chart import draw_symbol
from ultrarefiner.report.evidence import count_tests, sample_sentence, weigh_pairs
from ultrarefiner.report.figures import choose_figures
from ultrarefiner.report.gate_map import GATE_COLOURS
from ultrarefiner.report.headline import count_decisions, gain_sentence, measure_agreement
from ultrarefiner.report.inline import inline_files, open_templates
from ultrarefiner.report.learning import Training, draw_learning
from ultrarefiner.report.look_first import look_first
from ultrarefiner.report.reading import explain_policy
from ultrarefiner.report.reliability import draw_reliability
from ultrarefiner.report.selective import select_cases, show_threshold
from ultrarefiner.report.strata import tabulate_strata
from ultrarefiner.report.summaries import tabulate_comparison, tabulate_evaluation
from ultrarefiner.report.table import choose_columns
from ultrarefiner.report.viewer import build_gallery

Content = Mapping[str, Any]

DEFAULT_DELTA = 0.02  # only sorts cases when no paired evaluation declares one


def render_report(
    cases: Sequence[ReportCase],
    *,
    title: str,
    evaluation: Content | None,
    provenance: Mapping[str, Mapping[str, str]],
    notes: Sequence[str] = (),
    comparison: Content | None = None,
    trainings: Sequence[Training] = (),
    rule: AcceptanceRule | None = None,
    calibrations: Sequence[Calibration] = (),
    with_pictures: bool = True,
) -> str:
    """Return one self-contained HTML page on a run, a comparison, trainings, and so on.

    The page loads nothing and its content security policy forbids it to; the same arguments give
    the same bytes. A section without data is left out. A case whose pixels can no longer be loaded
    is named in a note instead of shown.

    Args:
        cases: every image of the run, in the order of the table. Those with an error are listed
            apart and left out of everything else.
        title: heading.
        evaluation: content of ``eval.json``; None without truth.
        provenance: what made the numbers: of each source its heading, and names and values such
            as command, versions, settings, data.
        notes: remarks for the reader, shown on top.
        comparison: JSON of a comparison of methods; else the one in the evaluation, if any.
        trainings: training runs whose learning curves are shown.
        rule: acceptance rule that the run used, if any.
        calibrations: of acceptance rules.
        with_pictures: whether the cases have pixels to load.

    Returns:
        HTML text, to be written as UTF-8.
    """
    indexed = {index: case for index, case in enumerate(cases) if not case.error}
    comparison = comparison or (evaluation or {}).get("comparison")
    unit = (evaluation or comparison or {}).get("distance_unit", "px")
    parts: dict[str, Any] = {
        "title": title,
        "css": inline_files("page.css", "gallery.css"),
        "js": inline_files("gallery.js", "page.js"),
        "failed": [case for case in cases if case.error],
        "distance_unit": unit,
        "metrics_table": _metrics_table(evaluation, comparison),
        "policy": explain_policy((evaluation or comparison or {}).get("settings") or {}, unit),
        "provenance": provenance,
        "trainings": trainings,
        "learning": draw_learning(trainings),
        "calibrations": calibrations,
        "looked": look_first(indexed),
        **_case_parts(
            indexed, evaluation, rule=rule, distance_unit=unit, with_pictures=with_pictures
        ),
        **_comparison_parts(comparison),
        **_probability_parts(evaluation),
    }
    parts["notes"] = [*notes, *parts["gallery"].notes]
    parts["contents"] = _contents(parts)
    return _environment().get_template("template.html.j2").render(parts)


def _case_parts(
    cases: Mapping[int, ReportCase],
    evaluation: Content | None,
    *,
    rule: AcceptanceRule | None,
    distance_unit: str,
    with_pictures: bool,
) -> dict[str, Any]:
    """Return the headline, figures, images and table of the cases of one run."""
    done = list(cases.values())
    paired = evaluation["paired"] if evaluation else None
    delta = paired["delta"] if paired else DEFAULT_DELTA
    sizes, size_figures = compare_sizes(cases, distance_unit=distance_unit, delta=delta)
    return {
        "indexed": cases,
        "num_run": sum("accepted" in case.row for case in done),
        "evaluation": evaluation,
        "paired": paired,
        "sentence": gain_sentence(evaluation) if evaluation and paired else "",
        "decisions": count_decisions(done),
        "agreement": measure_agreement(done),
        "figures": choose_figures(cases, evaluation),
        "selective": select_cases(cases, rule, delta=delta),
        "sizes": sizes,
        "size_figures": size_figures,
        "gallery": build_gallery(
            cases if with_pictures else {}, delta=delta, distance_unit=distance_unit
        ),
        "gate_colours": GATE_COLOURS,
        "columns": choose_columns(done, distance_unit=distance_unit),
        "changes": _changes(cases, delta),
    }


def _comparison_parts(comparison: Content | None) -> dict[str, Any]:
    """Return what the sections on tests and strata show."""
    if not comparison:
        return {"comparison": None, "evidence": [], "strata": None, "sample": "", "num_tests": 0}
    return {
        "comparison": comparison,
        "evidence": weigh_pairs(comparison),
        "num_tests": count_tests(comparison),
        "sample": sample_sentence(comparison.get("sample_size")),
        "strata": tabulate_strata(comparison),
    }


def _probability_parts(evaluation: Content | None) -> dict[str, Any]:
    probabilities = (evaluation or {}).get("probabilities") or {}
    return {"probabilities": probabilities, "reliability": draw_reliability(probabilities)}


def _metrics_table(evaluation: Content | None, comparison: Content | None) -> Any:
    """Return the table of all methods; the evaluation's own where it compares but two."""
    if comparison and (evaluation is None or len(comparison["methods"]) > 2):
        return tabulate_comparison(comparison)
    return tabulate_evaluation(evaluation) if evaluation else None


def _changes(cases: Mapping[int, ReportCase], delta: float) -> dict[int, str]:
    """Return what became of each case, for the filters of the table."""
    return {
        index: judge_change(case.gain, delta)
        for index, case in cases.items()
        if case.gain is not None
    }


def _contents(parts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return anchor and title of every section that the page has."""
    sections = [
        ("first", "Look at these first", parts["looked"]),
        ("rule", "Acceptance rule", parts["calibrations"]),
        ("metrics", "Metrics", parts["metrics_table"]),
        ("tests", "Tests", parts["evidence"]),
        ("figures", "Figures", parts["figures"]),
        ("selective", "Risk and coverage", parts["selective"]),
        ("strata", "Strata", parts["strata"]),
        ("sizes", "Size of the masks", parts["sizes"]),
        ("calibration", "Calibration", parts["reliability"]),
        ("gallery", "Images", parts["gallery"].groups),
        ("cases", "All cases", parts["indexed"]),
        ("learning", "Training", parts["learning"]),
        ("reading", "How to read the numbers", parts["indexed"] or parts["comparison"]),
        ("provenance", "Provenance", parts["provenance"]),
    ]
    return [(anchor, label) for anchor, label, content in sections if content]


def _environment() -> Environment:
    environment = open_templates(
        (
            wording.fixed,
            wording.signed,
            wording.percent,
            wording.initial,
            wording.interval,
            wording.p_cell,
            naming.label_of,
            naming.digits_of,
        )
    )
    environment.globals.update(symbol=draw_symbol, counted=wording.counted)
    environment.filters["threshold"] = show_threshold
    return environment
