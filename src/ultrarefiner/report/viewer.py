"""What the viewer says of each case, and the gallery as a whole: groups, pictures, numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from ultrarefiner.report.cases import ReportCase
from ultrarefiner.report.gallery import Group, choose_groups
from ultrarefiner.report.naming import LABELS, LESS_IS_BETTER, SIGNED, digits_of, label_of
from ultrarefiner.report.overlay import Overlay
from ultrarefiner.report.pictures import BUDGET_BYTES, Pictures, load_pictures
from ultrarefiner.report.wording import fixed, signed

_STRATA = {"label": "Pathology", "birads": "BI-RADS", "device": "Device", "dataset": "Data set"}
_OUTCOMES = {
    "missed": "missed: the mask is empty, the truth is not",
    "false_positive": "false positive: the truth is empty, the mask is not",
    "both_empty": "mask and truth are both empty",
}
_PICTURE = (
    *("jpeg", "gate", "window", "width_px", "height_px"),
    *("coarse", "refined", "truth", "boxes", "points_on", "points_beside"),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Tile:
    """One case as the gallery shows it.

    Attributes:
        index: index of the case on the page.
        case: what is known of it.
        overlay: its picture.
    """

    index: int
    case: ReportCase
    overlay: Overlay


@dataclass(frozen=True, kw_only=True, eq=False)
class Gallery:
    """Everything that the page shows as images.

    Attributes:
        groups: the tiles of each group.
        data: JSON of every case for the viewer, safe inside a script element.
        notes: what the reader has to know of pictures that are missing.
        layers: kinds of drawing that some picture has.
    """

    groups: tuple[tuple[Group, tuple[Tile, ...]], ...]
    data: Markup
    notes: tuple[str, ...]
    layers: frozenset[str]


def build_gallery(
    cases: Mapping[int, ReportCase],
    *,
    delta: float,
    distance_unit: str,
    budget_bytes: int = BUDGET_BYTES,
) -> Gallery:
    """Choose, draw and describe what can be looked at.

    Args:
        cases: index on the page to case.
        delta: Dice change up to which an image counts as unchanged.
        distance_unit: ``"mm"`` or ``"px"``.
        budget_bytes: how much all pictures together may take.
    """
    chosen = choose_groups(list(cases.values()), delta=delta)
    index_of = {id(case): index for index, case in cases.items()}
    first = [index_of[id(case)] for group in chosen for case in group.cases]
    pictures = load_pictures(cases, first=first, budget_bytes=budget_bytes)
    groups = []
    for group in chosen:
        indices = [index_of[id(case)] for case in group.cases]
        tiles = tuple(
            Tile(index=index, case=cases[index], overlay=pictures.overlays[index])
            for index in indices
            if index in pictures.overlays
        )
        if tiles:
            groups.append((group, tiles))
    return Gallery(
        groups=tuple(groups),
        data=_to_json(cases, pictures, tiles=set(first), distance_unit=distance_unit),
        notes=pictures.notes,
        layers=_find_layers(pictures),
    )


def _find_layers(pictures: Pictures) -> frozenset[str]:
    names = ("coarse", "refined", "truth", "boxes", "points_on", "points_beside", "gate")
    return frozenset(
        name for name in names if any(getattr(o, name) for o in pictures.overlays.values())
    )


def _to_json(
    cases: Mapping[int, ReportCase], pictures: Pictures, *, tiles: set[int], distance_unit: str
) -> Markup:
    """Return what the script reads; the picture of a case with a tile is taken from the tile."""
    content = {
        index: {
            "stem": case.stem,
            "accepted": case.accepted if "accepted" in case.row else None,
            "facts": describe_case(case, pictures.overlays.get(index)),
            "metrics": compare_metrics(case, distance_unit=distance_unit),
            "picture": None if index in tiles else _picture(pictures.overlays.get(index)),
        }
        for index, case in cases.items()
    }
    text = json.dumps(content, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    for mark in "<>&\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return Markup(text)


def _picture(overlay: Overlay | None) -> dict[str, str | int] | None:
    return None if overlay is None else {name: getattr(overlay, name) for name in _PICTURE}


def describe_case(case: ReportCase, overlay: Overlay | None = None) -> list[tuple[str, str]]:
    """Return name and value of what is known of a case beside its metrics."""
    metrics: Mapping[str, Any] = case.metrics or {}
    strata = metrics.get("strata") or {}
    known = [
        ("Decision", case.reason if "accepted" in case.row else ""),
        ("Outcome", _OUTCOMES.get(metrics.get("outcome", ""), "")),
        ("IoU with coarse", _shown(case.number("iou_with_coarse"), 3)),
        ("Area ratio", "× " + fixed(case.area_ratio, 2) if case.area_ratio is not None else ""),
        ("Predicted IoU", _shown(case.number("predicted_iou"), 3)),
        ("Score", _shown(case.score, 2)),
        ("Gate", _gate_range(overlay)),
        *((label, str(strata.get(kind) or "")) for kind, label in _STRATA.items()),
        ("Time", _shown(case.number("seconds"), 2, unit="\xa0s")),
    ]
    return [(name, value) for name, value in known if value]


def _shown(value: float | None, digits: int, *, unit: str = "") -> str:
    return "" if value is None else fixed(value, digits) + unit


def _gate_range(overlay: Overlay | None) -> str:
    if overlay is None or overlay.gate_low is None or overlay.gate_high is None:
        return ""
    low, high = fixed(overlay.gate_low, 2), fixed(overlay.gate_high, 2)
    return low if low == high else f"{low} to {high}"


def compare_metrics(case: ReportCase, *, distance_unit: str) -> list[Sequence[str]]:
    """Return label, coarse value, refined value, change and verdict of each metric.

    Coarse value and change are empty without a baseline. The verdict is ``better``, ``worse`` or
    empty, and judges the change as it is printed.
    """
    if case.metrics is None:
        return []
    return [
        _compare(name, case.metrics, case.baseline, distance_unit=distance_unit)
        for name in LABELS
        if name in case.metrics
    ]


def _compare(
    name: str,
    metrics: Mapping[str, float | None],
    baseline: Mapping[str, float | None] | None,
    *,
    distance_unit: str,
) -> Sequence[str]:
    label, digits = label_of(name, distance_unit), digits_of(name)
    show = signed if name in SIGNED else fixed
    after = metrics[name]
    if baseline is None:
        return label, "", show(after, digits), "", ""
    before = baseline.get(name)
    if before is None or after is None:
        return label, show(before, digits), show(after, digits), fixed(None), ""
    gain = _gain(name, before, after)
    verdict = "" if not round(gain, digits) else "better" if gain > 0 else "worse"
    change = signed(after - before, digits)
    return label, show(before, digits), show(after, digits), change, verdict


def _gain(name: str, before: float, after: float) -> float:
    """Return by how much a metric got better."""
    if name in SIGNED:
        return abs(before) - abs(after)
    return before - after if name in LESS_IS_BETTER else after - before
