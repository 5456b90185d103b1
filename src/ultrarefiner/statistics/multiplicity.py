"""Several tests at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def holm(p_values: Sequence[float]) -> list[float]:
    r"""Return the p-values adjusted by Holm's step-down method.

    .. math:: \tilde p_{(k)} = \max_{j \le k} \min\big(1, (m - j + 1)\, p_{(j)}\big)

    The probability of one or more false rejections among the m tests then stays below the level,
    whatever the tests share (Holm 1979, https://www.jstor.org/stable/4615733).

    Args:
        p_values: p-values in [0, 1]; NaN where there was nothing to test.

    Returns:
        Adjusted p-values in the given order; NaN stays NaN and does not count as a test.

    Example:
        >>> holm([0.04, 0.01, float("nan"), 0.02])
        [0.04, 0.03, nan, 0.04]
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]  # NaN sorts to the end
    adjusted = np.full(p.shape, np.nan)
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, factors * p[order]))
    return [float(value) for value in adjusted]
