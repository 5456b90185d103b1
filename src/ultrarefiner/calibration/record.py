"""``calibration.json``: what was promised, what it rests on, and every case."""

from __future__ import annotations

from dataclasses import asdict, replace
from importlib.metadata import version
from typing import Any

from ultrarefiner.calibration.rule import Calibration, Scored
from ultrarefiner.calibration.threshold import Tried
from ultrarefiner.refine.acceptance import AcceptanceRule

SCHEMA = 1


def record_of(calibration: Calibration) -> dict[str, Any]:
    """Return what ``calibration.json`` says of a calibration, but for how it was made."""
    return {
        "schema": SCHEMA,
        "rule": calibration.rule.to_json(),
        "split": _counts(calibration.cases),
        "before": asdict(calibration.before),
        "after": asdict(calibration.after),
        "kept_gain": calibration.kept_gain,
        "curve": [_point(tried, calibration.rule) for tried in calibration.search.tried],
        "cases": [_case(case) for case in calibration.cases],
        "versions": {name: version(name) for name in ("ultrarefiner", "torch", "numpy", "scipy")},
    }


def _counts(cases: tuple[Scored, ...]) -> dict[str, int]:
    """Return the number of patients and images of each split."""
    counts = {}
    for split in ("A", "B"):
        inside = [case.outcome for case in cases if case.split == split]
        counts[f"images_{split.lower()}"] = len(inside)
        counts[f"patients_{split.lower()}"] = len({outcome.patient for outcome in inside})
    return counts


def _point(tried: Tried, rule: AcceptanceRule) -> dict[str, Any]:
    """Return a point of the curve, its threshold written like the rule's own."""
    threshold = replace(rule, threshold=tried.threshold, scores=()).to_json()["threshold"]
    return asdict(tried) | {"threshold": threshold}


def _case(case: Scored) -> dict[str, Any]:
    outcome = case.outcome
    row = {
        "image": outcome.image,
        "patient": outcome.patient,
        "score": case.score,
        "dsc_coarse": outcome.dsc_coarse,
        "dsc_refined": outcome.dsc_refined,
        "split": case.split,
    }
    return row | ({"fold": case.fold} if case.fold else {})
