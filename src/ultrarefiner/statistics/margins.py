"""Is a difference small enough not to matter?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Shaped

from ultrarefiner.errors import ConfigError
from ultrarefiner.statistics.bca import bca_interval, bca_p
from ultrarefiner.statistics.bootstrap import clustered_bootstrap
from ultrarefiner.statistics.clusters import drop_missing

_ALPHA = 0.05


@dataclass(frozen=True, kw_only=True)
class Equivalence:
    """A difference against a margin: 90 % interval over patients, p-values, verdicts at 5 %."""

    margin: float
    low: float
    high: float
    p_equivalent: float
    p_non_inferior: float
    equivalent: bool
    non_inferior: bool


def equivalence(
    differences: Float64[np.ndarray, " N"],
    clusters: Shaped[np.ndarray, " N"],
    *,
    margin: float,
    greater_is_better: bool = True,
    seed: int = 0,
) -> Equivalence:
    r"""Return whether the mean difference lies within a margin, by two one-sided tests.

    .. math:: p_{equivalent} = \max(p_-, p_+), \qquad p_\mp: \text{ of } H_0: \mu \le -m
              \text{ and } H_0: \mu \ge m

    Both come from the BCa bootstrap over patients, which is right for one-sided questions on skewed
    gains, where a plain t interval misses more often on one side, and stays finite when few
    patients change at all, where a studentised bootstrap does not.

    Args:
        differences: method minus reference, one per image; NaN where a pair is missing.
        clusters: the patient of each image.
        margin: the largest difference that does not matter, above 0, in the unit of the
            differences. It has to be chosen before looking.
        greater_is_better: whether a positive difference is good; it decides which of the two tests
            shows that the method is not inferior.
        seed: seed of the bootstrap.

    Returns:
        The 90 % interval, p-values, and verdicts: equivalent when both tests reject at 5 %, that is
        when the interval lies within the margin; not inferior when the one that matters rejects.
        Two or three patients show nothing even where the interval is a point. With fewer than two
        all numbers are NaN and nothing is shown.

    Raises:
        ConfigError: the margin is not above 0.
        InputError: see :func:`~ultrarefiner.statistics.clusters.drop_missing`.

    Example:
        >>> gains = np.random.default_rng(0).normal(0.0, 0.02, 60)
        >>> equivalence(gains, np.arange(60) // 2, margin=0.02).equivalent
        True
    """
    if not 0 < margin < math.inf:
        raise ConfigError("margin", expected="a difference above 0", found=f"{margin}")
    there, cluster = drop_missing(differences, clusters)
    num = len(np.unique(cluster))
    if num < 2:
        low = high = p_low = p_high = math.nan
    else:
        values = there[:, None]
        resamples = clustered_bootstrap(values, cluster, np.random.default_rng(seed))
        ends = bca_interval(values, cluster, resamples, level=1 - 2 * _ALPHA)
        low, high = float(ends[0][0]), float(ends[1][0])
        p_low = bca_p(there, cluster, resamples[:, 0], bound=-margin)
        p_high = 1 - bca_p(there, cluster, resamples[:, 0], bound=margin)
    p_non_inferior = p_low if greater_is_better else p_high
    p_equivalent = max(p_low, p_high)
    return Equivalence(
        margin=margin,
        low=low,
        high=high,
        p_equivalent=p_equivalent,
        p_non_inferior=p_non_inferior,
        equivalent=p_equivalent < _ALPHA,
        non_inferior=p_non_inferior < _ALPHA,
    )
