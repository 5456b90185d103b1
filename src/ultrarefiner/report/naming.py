"""What metrics are called, in the order of the tables, their units and their decimals."""

from __future__ import annotations

from collections.abc import Iterable

from ultrarefiner.metrics import pairs

LABELS = {
    "dsc": "DSC",
    "iou": "IoU",
    "precision": "Precision",
    "recall": "Recall",
    "specificity": "Specificity",
    "boundary_iou": "Boundary IoU",
    "lesion_f1": "Lesion F1",
    "nsd": "NSD",
    "hd": "HD",
    "hd95": "HD95",
    "hd95_detected": "HD95, detected lesions",
    "assd": "ASSD",
    "area_error": "Area error",
    "diameter_error": "Diameter error",
}
"""Name of a metric to its label."""

LESS_IS_BETTER = frozenset({*pairs.LESS_IS_BETTER, "hd95_detected"})
"""Metrics of which a negative change is a gain."""

SIGNED = frozenset(pairs.SIGNED)
"""Metrics that say too large or too small: nearer to zero is better."""

_LENGTHS = LESS_IS_BETTER | {"diameter_error"}


def unit_of(metric: str, distance_unit: str) -> str:
    """Return the unit of a metric; empty where it has none.

    Example:
        >>> unit_of("hd95", "mm"), unit_of("area_error", "px"), unit_of("dsc", "mm")
        ('mm', 'px²', '')
    """
    if metric == "area_error":
        return f"{distance_unit}²"
    return distance_unit if metric in _LENGTHS else ""


def label_of(metric: str, distance_unit: str) -> str:
    """Return the label of a metric with its unit.

    Example:
        >>> label_of("hd95", "mm"), label_of("dsc", "mm"), label_of("nsd@2", "mm")
        ('HD95 [mm]', 'DSC', 'NSD at 2 mm')
    """
    if metric.startswith("nsd@"):
        return f"NSD at {metric.removeprefix('nsd@')} {distance_unit}"
    unit = unit_of(metric, distance_unit)
    return LABELS.get(metric, metric) + (f" [{unit}]" if unit else "")


def digits_of(metric: str) -> int:
    """Return how many decimals of a metric are worth printing.

    Example:
        >>> digits_of("dsc"), digits_of("hd95"), digits_of("area_error")
        (3, 2, 1)
    """
    if metric == "area_error":
        return 1
    return 2 if metric in _LENGTHS else 3


def in_order(names: Iterable[str]) -> list[str]:
    """Return metrics in the order of the tables, NSD at further tolerances after NSD.

    Example:
        >>> in_order(["new", "hd", "nsd@5", "nsd@2", "nsd", "dsc"])
        ['dsc', 'nsd', 'nsd@2', 'nsd@5', 'hd', 'new']
    """
    rank = {name: i for i, name in enumerate(LABELS)}

    def place(name: str) -> tuple[int, float]:
        kind, _, tolerance = name.partition("@")
        return rank.get(kind, len(rank)), float(tolerance or 0)

    return sorted(names, key=place)
