"""Acceptance rules for tests."""

from __future__ import annotations

from typing import Any

from ultrarefiner.refine.acceptance import SIGNS, AcceptanceRule, Signs


def rule_of(**changes: Any) -> AcceptanceRule:
    """Return a rule that only looks at how far a mask moved, with some fields changed."""
    fields: dict[str, Any] = {
        "weights": dict.fromkeys(SIGNS, 0.0) | {"moved": 1.0},
        "threshold": -0.5,
        "alpha": 0.05,
        "delta": 0.02,
        "eta": 0.05,
        "method": "learn-then-test",
        "source": "masks",
        "scores": (-0.5, -0.25, 0.0),
        "binding": "0" * 64,
        "num_images": 3,
        "num_patients": 2,
    }
    return AcceptanceRule(**(fields | changes))


def signs_of(**values: float) -> Signs:
    """Return signs that are harmless but for some."""
    return Signs(**(dict.fromkeys(SIGNS, 0.0) | values))
