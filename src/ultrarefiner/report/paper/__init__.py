"""What a paper needs of an evaluation: tables, figures, sheets and a checklist, as files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ultrarefiner.data.atomic import atomic_path, write_text
from ultrarefiner.errors import InputError
from ultrarefiner.report.methods import compare_evaluations, gather_methods
from ultrarefiner.report.paper.checklist import fill_checklist
from ultrarefiner.report.paper.figures import draw_figures
from ultrarefiner.report.paper.latex import differences_table, metrics_table, strata_table
from ultrarefiner.report.paper.sheets import (
    cases_sheet,
    differences_sheet,
    metrics_sheet,
    strata_sheet,
)
from ultrarefiner.report.sources import read_sources

__all__ = ["write_paper", "write_paper_of"]

Content = Mapping[str, Any]


def write_paper_of(
    paths: Sequence[Path], out: Path, *, evaluation: Path | None = None
) -> tuple[Path, ...]:
    """Write the files of a paper on what the paths hold; see :func:`write_paper`.

    Args:
        paths: as :func:`~ultrarefiner.report.run.write_report` takes them.
        out: folder to write into.
        evaluation: ``eval.json`` of the first run; else the one in its folder, if any.

    Raises:
        InputError: a source cannot be read, there are no two methods to compare, or a compare.json
            is of others.
    """
    sources = read_sources(paths, evaluation=evaluation)
    evaluations = sources.evaluations
    methods = gather_methods(evaluations) if evaluations else {}
    if len(methods) < 2:
        raise InputError(
            "there is nothing to compare in " + ", ".join(map(str, paths)),
            expected="evaluations of two methods on the same images, coarse and refined for one",
            found=", ".join(methods) or "no eval.json",
            fix="Run 'ultrarefiner evaluate' with --baseline, or give several runs.",
        )
    first, run = evaluations[0][1], sources.shown
    comparison = first.get("comparison") if len(evaluations) == 1 else None
    if sources.comparison:
        comparison, methods = sources.comparison, _methods_of(sources.comparison, methods)
    return write_paper(
        out,
        comparison or compare_evaluations(evaluations),
        methods,
        evaluation=first,
        run=run.record if run and run.evaluation is first else None,
    )


def _methods_of(
    comparison: Content, methods: Mapping[str, Sequence[Content]]
) -> dict[str, Sequence[Content]]:
    """Return the cases of the methods of a ``compare.json``, whose numbers the page shows too."""
    missing = [name for name in comparison["methods"] if name not in methods]
    if missing:
        raise InputError(
            "the cases of the comparison are not among the sources",
            expected="evaluations of " + ", ".join(comparison["methods"]),
            found=", ".join(methods),
            fix="Leave compare.json out, or give its evaluations under the names that it has.",
        )
    return {name: methods[name] for name in comparison["methods"]}


def write_paper(
    out: Path,
    comparison: Content,
    methods: Mapping[str, Sequence[Content]],
    *,
    evaluation: Content,
    run: Content | None = None,
) -> tuple[Path, ...]:
    """Write tables (LaTeX, CSV), figures (SVG, PDF) and a checklist; same input, same bytes.

    Args:
        out: folder to write into; other files in it stay.
        comparison: JSON of :class:`ultrarefiner.metrics.Comparison`.
        methods: name to its cases as ``eval.json`` holds them, of the same images.
        evaluation: content of ``eval.json``, of the run that the paper is about.
        run: content of its ``run.json``, if there is one.

    Returns:
        The files.

    Raises:
        ConfigError: matplotlib is not installed.
        OutputError: a file cannot be written.
    """
    texts = {
        "metrics.tex": metrics_table(comparison),
        "differences.tex": differences_table(comparison),
        "strata.tex": strata_table(comparison),
        "metrics.csv": metrics_sheet(comparison),
        "differences.csv": differences_sheet(comparison),
        "strata.csv": strata_sheet(comparison),
        "cases.csv": cases_sheet(methods),
        "checklist.md": fill_checklist(evaluation, comparison, run),
    }
    figures = draw_figures(comparison, methods, evaluation.get("probabilities") or {})
    for name, text in texts.items():
        if text:
            write_text(out / name, text)
    for name, content in figures.items():
        with atomic_path(out / "figures" / name) as temporary:
            temporary.write_bytes(content)
    written = [name for name, text in texts.items() if text]
    return tuple(out / name for name in (*written, *(f"figures/{name}" for name in figures)))
