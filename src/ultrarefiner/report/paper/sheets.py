"""The numbers of a paper as CSV, unrounded, for those who draw their own tables.

A name that a spreadsheet would run as a formula gets an apostrophe in front.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ultrarefiner.report.naming import unit_of

Content = Mapping[str, Any]

_ESTIMATE = ("mean", "low", "high", "median")
_COUNTS = ("missed", "false_positive")
_TEST = (
    "p_permutation",
    "p_permutation_holm",
    "p_wilcoxon",
    "p_sign",
    "rank_biserial",
    "standardised_mean",
)


def metrics_sheet(comparison: Content) -> str:
    """Return one row per method and metric."""
    unit = comparison["distance_unit"]
    return _sheet(
        ("method", "metric", "unit", *_ESTIMATE, *_COUNTS),
        (
            [method, name, unit_of(name, unit)]
            + [estimate[part] for part in _ESTIMATE]
            + [summary["counts"][kind] for kind in _COUNTS]
            for method, summary in comparison["summaries"].items()
            for name, estimate in summary["metrics"].items()
        ),
    )


def differences_sheet(comparison: Content) -> str:
    """Return one row per pair of methods and tested metric."""
    return _sheet(
        ("method", "reference", "metric", *_ESTIMATE, *_TEST),
        (
            [pair["method"], pair["reference"], name]
            + [test["difference"][part] for part in _ESTIMATE]
            + [test[part] for part in _TEST]
            for pair in comparison["pairs"]
            for name, test in pair["tests"].items()
        ),
    )


def strata_sheet(comparison: Content) -> str:
    """Return one row per stratum, method and metric."""
    return _sheet(
        ("kind", "level", "num_images", "num_patients", "method", "metric", *_ESTIMATE),
        (
            [kind, level, found["num_images"], found["num_patients"], method, name]
            + [estimate[part] for part in _ESTIMATE]
            for kind, levels in comparison["strata"].items()
            for level, found in levels.items()
            for method, metrics in found["summaries"].items()
            for name, estimate in metrics.items()
        ),
    )


def cases_sheet(methods: Mapping[str, Sequence[Content]]) -> str:
    """Return one row per method and image.

    Args:
        methods: name to its cases as ``eval.json`` holds them.
    """
    rows = [{"method": name} | _flat(case) for name, cases in methods.items() for case in cases]
    head = list(dict.fromkeys(column for row in rows for column in row))
    return _sheet(head, ([row.get(column) for column in head] for row in rows))


def _flat(case: Content) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in case.items():
        if name == "strata":
            flat |= value
        elif name == "nsd_at":
            flat |= {f"nsd_at_{tolerance:g}": nsd for tolerance, nsd in value}
        else:
            flat[name] = value
    return flat


def _sheet(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(map(_cell, head))
    writer.writerows(map(_cell, row) for row in rows)
    return stream.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, str) and value.lstrip().startswith(("=", "+", "-", "@")):
        return f"'{value}"
    return "" if value is None else value
