"""The table of all metrics: what each method reached, with the empty masks that its means hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ultrarefiner.report.naming import SIGNED, digits_of, in_order, label_of

Content = Mapping[str, Any]

_COUNTS = {
    "missed": "Missed lesions",
    "false_positive": "False positives",
    "both_empty": "Both masks empty",
}


@dataclass(frozen=True, kw_only=True)
class MetricRow:
    """One metric.

    Attributes:
        label: its name with its unit.
        digits: decimals to print.
        is_signed: whether its values have a sign to print, as errors have.
        cells: mean, interval and median of each method; None where it has no value.
        undefined: of how many images each method has no value.
        change: mean difference of the second method from the first with its interval.
    """

    label: str
    digits: int
    is_signed: bool
    cells: tuple[Content | None, ...]
    undefined: tuple[int, ...]
    change: Content | None


@dataclass(frozen=True, kw_only=True)
class MetricsTable:
    """All metrics of all methods.

    Attributes:
        methods: names of the columns.
        rows: one a metric.
        counts: label and number of each method, of the images whose metrics a policy gave.
        has_change: whether there are two methods and their difference.
    """

    methods: tuple[str, ...]
    rows: tuple[MetricRow, ...]
    counts: tuple[tuple[str, tuple[int, ...]], ...]
    has_change: bool


def tabulate_evaluation(evaluation: Content) -> MetricsTable:
    """Return the table of one evaluation: the masks, and the coarse ones where there are some."""
    after = {
        "metrics": evaluation["summary"],
        "counts": evaluation["counts"],
        "undefined": evaluation.get("undefined"),
    }
    paired, unit = evaluation["paired"], evaluation["distance_unit"]
    if not paired:
        return _tabulate({"mask": after}, unit=unit)
    before = {
        "metrics": evaluation["baseline"],
        "counts": evaluation.get("baseline_counts") or {},
        "undefined": evaluation.get("baseline_undefined"),
    }
    summaries = {"coarse": before, "refined": after}
    return _tabulate(summaries, unit=unit, changes=paired["differences"])


def tabulate_comparison(comparison: Content) -> MetricsTable:
    """Return the table of a comparison, the reference first."""
    summaries = {name: comparison["summaries"][name] for name in comparison["methods"]}
    changes = None
    if len(summaries) == 2:
        tests = comparison["pairs"][0]["tests"]
        changes = {name: test["difference"] for name, test in tests.items()}
    return _tabulate(summaries, unit=comparison["distance_unit"], changes=changes)


def _tabulate(
    summaries: Mapping[str, Content], *, unit: str, changes: Content | None = None
) -> MetricsTable:
    names = in_order(dict.fromkeys(n for s in summaries.values() for n in s["metrics"]))
    return MetricsTable(
        methods=tuple(summaries),
        rows=tuple(
            MetricRow(
                label=label_of(name, unit),
                digits=digits_of(name),
                is_signed=name in SIGNED,
                cells=tuple(summary["metrics"].get(name) for summary in summaries.values()),
                undefined=tuple(
                    (summary.get("undefined") or {}).get(name, 0) for summary in summaries.values()
                ),
                change=(changes or {}).get(name),
            )
            for name in names
        ),
        counts=_count_rows([summary["counts"] for summary in summaries.values()]),
        has_change=changes is not None,
    )


def _count_rows(counts: Sequence[Content]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Return missed and false positive always, both empty where it happened."""
    return tuple(
        (label, tuple(count.get(kind, 0) for count in counts))
        for kind, label in _COUNTS.items()
        if kind != "both_empty" or any(count.get(kind) for count in counts)
    )
