"""What a metric counts where its formula has no answer, mostly because a mask is empty.

``"metrics-reloaded"`` gives what ``BinaryPairwiseMeasures`` of the code beside Maier-Hein et al.,
Metrics reloaded, https://doi.org/10.1038/s41592-023-02151-z, gives for one image (Apache-2.0,
https://github.com/Project-MONAI/MetricsReloaded; rewritten, nothing copied). Why an empty mask must
not be passed over in silence: Reinke et al., https://doi.org/10.1038/s41592-023-02150-0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from ultrarefiner.errors import ConfigError, InputError

Outcome = Literal["ok", "missed", "false_positive", "both_empty"]
Policy = Literal["declared", "metrics-reloaded", "strict", "ignore"]
POLICIES: tuple[Policy, ...] = ("declared", "metrics-reloaded", "strict", "ignore")

_OVERLAPS = ("dsc", "iou", "precision", "recall", "specificity", "boundary_iou", "lesion_f1", "nsd")
_DISTANCES = ("hd", "hd95", "assd")
_DIAGONAL = dict.fromkeys(_DISTANCES, math.inf)  # stands for the diagonal of the image

_COUNTS_AS: dict[tuple[Policy, Outcome], dict[str, float]] = {
    ("declared", "both_empty"): dict.fromkeys(_OVERLAPS, 1.0) | dict.fromkeys(_DISTANCES, 0.0),
    ("declared", "missed"): {"precision": 0.0, "specificity": 1.0} | _DIAGONAL,
    ("declared", "false_positive"): {"recall": 0.0} | _DIAGONAL,
    ("declared", "ok"): {"specificity": 1.0},
    ("metrics-reloaded", "both_empty"): {"dsc": 1.0, "lesion_f1": 1.0}
    | dict.fromkeys(_DISTANCES, 0.0),
    ("metrics-reloaded", "missed"): {"precision": 0.0},
}
_EMPTY: dict[Outcome, str] = {
    "both_empty": "no pixel in either mask",
    "missed": "no predicted pixel",
    "false_positive": "no target pixel",
    "ok": "no background pixel in the target",
}


def settle(
    values: Mapping[str, float], *, outcome: Outcome, policy: Policy, diagonal: float
) -> dict[str, float]:
    """Return the metrics with a policy's word where the formulas have none.

    ==================== ================================================================
    policy               an undefined metric counts
    ==================== ================================================================
    ``declared``         as perfect where nothing was there to be found or missed, as the
                         worst where one mask is empty: overlap 0, distance the diagonal
    ``metrics-reloaded`` both empty: DSC and lesion F1 1, distances 0; precision of a
                         missed lesion 0; else nothing
    ``strict``           nothing: it is an error
    ``ignore``           nothing: it stays NaN, and means leave it out
    ==================== ================================================================

    Args:
        values: metrics by name, NaN where the formula is 0 / 0 or measures to nothing.
        outcome: which mask is empty.
        policy: one of :data:`POLICIES`.
        diagonal: of the image from corner to corner, in the unit of the distances.

    Returns:
        The same names; NaN where the policy says nothing.

    Raises:
        InputError: the policy is strict and a metric is undefined.
        ConfigError: there is no such policy.

    Example:
        >>> values = {"dsc": 0.0, "precision": math.nan, "hd95": math.nan}
        >>> settle(values, outcome="missed", policy="declared", diagonal=5.0)
        {'dsc': 0.0, 'precision': 0.0, 'hd95': 5.0}
    """
    if policy not in POLICIES:
        raise ConfigError(f"unknown policy {policy!r}", expected="one of " + ", ".join(POLICIES))
    undefined = [name for name, value in values.items() if math.isnan(value)]
    if policy == "strict" and undefined:
        raise InputError(
            f"undefined: {', '.join(undefined)}",
            expected="masks for which every metric is defined",
            found=_EMPTY[outcome],
            fix="Leave the image out and say so, or choose another policy for empty masks.",
        )
    counts_as = _COUNTS_AS.get((policy, outcome), {})
    filled = {name: counts_as.get(name, math.nan) for name in undefined}
    return {**values, **{n: diagonal if v == math.inf else v for n, v in filled.items()}}
