"""Do the scores of new images look like those that a threshold was chosen on?

A guarantee holds for patients drawn like those of the calibration. If the scores of a folder have
another distribution, its patients were not, and the guarantee says nothing about them. The reverse
does not follow: that the test sees nothing is no proof that nothing has shifted. Refinement can
harm more often at the same scores, which no test without truths can see, and few images hide all
but the grossest shift.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ultrarefiner.errors import InputError

MIN_IMAGES = 8
"""Images on either side below which nothing is tested: of fewer nearly any shift goes unseen."""


@dataclass(frozen=True, kw_only=True)
class Drift:
    """Whether two sets of scores differ.

    Attributes:
        p_value: of the hypothesis that they have one distribution; NaN where too few to test.
        num: new images.
        statistic: greatest distance of the two distribution functions, in [0, 1]; NaN likewise.
    """

    p_value: float
    num: int
    statistic: float


def score_drift(scores: Sequence[float], reference: Sequence[float]) -> Drift:
    r"""Return the two-sample Kolmogorov-Smirnov test of scores against the calibration's.

    .. math:: D = \sup_s |F_{new}(s) - F_{calibration}(s)|

    The p-value is exact for up to 10,000 images; equal scores make it too large, never too small.
    Images count as independent. Several images of one patient are alike, which makes it too small:
    use it to warn, at a level such as 0.01, and not to decide.

    Args:
        scores: of the new images.
        reference: of the images that the threshold was chosen on.

    Returns:
        The test; NaN where either side has fewer than :data:`MIN_IMAGES`.

    Raises:
        InputError: a score is no finite number.

    Example:
        >>> score_drift([0.1 * i for i in range(10)], [0.1 * i for i in range(20)]).statistic
        0.5
        >>> score_drift([0.0] * 7, [0.0] * 100).p_value
        nan
    """
    if not (np.isfinite(scores).all() and np.isfinite(reference).all()):
        raise InputError("scores", expected="finite numbers", found="others among them")
    if min(len(scores), len(reference)) < MIN_IMAGES:
        return Drift(p_value=math.nan, num=len(scores), statistic=math.nan)
    with warnings.catch_warnings():  # where the exact sum fails, scipy takes the asymptotic p-value
        warnings.simplefilter("ignore", RuntimeWarning)
        found = stats.ks_2samp(scores, reference)
    return Drift(p_value=float(found.pvalue), num=len(scores), statistic=float(found.statistic))
