"""How to read the numbers: what the settings of an evaluation mean, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_POLICIES = {
    "declared": (
        ("Both masks empty", "overlap 1, distances 0"),
        ("Truth has a lesion, the mask is empty", "overlap 0, distances the image diagonal"),
        ("Truth is empty, the mask is not", "overlap 0, distances the image diagonal"),
    ),
    "metrics-reloaded": (
        ("Both masks empty", "DSC and lesion F1 1, distances 0, else left out"),
        ("Truth has a lesion, the mask is empty", "DSC and precision 0, distances left out"),
        ("Truth is empty, the mask is not", "DSC 0, recall and distances left out"),
    ),
    "strict": (("A mask is empty", "refused wherever a metric has no value: nothing is made up"),),
    "ignore": (("A mask is empty", "a metric without a value is left out of its mean"),),
}
_BOUNDARIES = {
    "pixel": "The boundary is the mask's pixels that have a background neighbour (as in MONAI).",
    "surfel": "The boundary is made of surface elements between pixels (as in surface-distance).",
}


@dataclass(frozen=True, kw_only=True)
class PolicyNotes:
    """What counts where a mask is empty, and how boundaries were drawn.

    Attributes:
        name: of the policy.
        rows: which case, and what it counts.
        boundary: one sentence on the boundary; empty if it is not known.
        tolerance: of NSD, with its unit; empty if it is not known.
    """

    name: str
    rows: tuple[tuple[str, str], ...]
    boundary: str
    tolerance: str


def explain_policy(settings: Mapping[str, Any], distance_unit: str = "px") -> PolicyNotes:
    """Return the notes on an evaluation; one without settings was made by the declared policy.

    Args:
        settings: ``eval.json["settings"]``.
        distance_unit: ``"mm"`` or ``"px"``, of the tolerance.

    Example:
        >>> explain_policy({"policy": "ignore", "tolerance": 1.0}).tolerance
        '1 px'
    """
    name, tolerance = settings.get("policy") or "declared", settings.get("tolerance")
    return PolicyNotes(
        name=name,
        rows=_POLICIES.get(name, ()),
        boundary=_BOUNDARIES.get(settings.get("boundary") or "", ""),
        tolerance="" if tolerance is None else f"{tolerance:g} {distance_unit}",
    )
