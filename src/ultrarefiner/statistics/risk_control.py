r"""Which thresholds keep a risk below a bound, shown on patients who were not learned from.

A row of losses belongs to one threshold, the strictest first; a column to one patient, drawn like
the patients to come. A loss is in [0, 1], here the share of a patient's images that were made
worse, and the risk of a threshold is its mean over all patients there are.

Learn-then-test is right with a stated confidence: with probability :math:`1 - \eta` over the
calibration patients the risk is at most alpha. Conformal risk control is right on average only: the
risk, averaged over sets of calibration patients, is at most alpha, and a single set is often above.

Reference:
    Angelopoulos et al., Learn then test, Annals of Applied Statistics 19 (2025),
    https://arxiv.org/abs/2110.01052; Bates et al., Distribution-free, risk-controlling prediction
    sets, Journal of the ACM 68 (2021), https://arxiv.org/abs/2101.02703; Angelopoulos et al.,
    Conformal risk control, ICLR 2024, https://arxiv.org/abs/2208.02814. What we changed: fractional
    losses have Bentkus's bound itself, where those papers have its closed form.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.special import bdtr

from ultrarefiner.errors import ConfigError, InputError

_ROUNDING = 1e-12  # rows whose losses fall by less still count as growing


def binomial_p_value(num_losses: int, num: int, alpha: float) -> float:
    r"""Return the exact p-value of "the risk is above alpha" for losses of 0 or 1.

    .. math:: p = P(X \le k), \qquad X \sim \mathrm{Binomial}(n, \alpha)

    Args:
        num_losses: patients with a loss k, in [0, num].
        num: patients n, at least 1.
        alpha: the bound, in (0, 1).

    Returns:
        The p-value in (0, 1].

    Raises:
        InputError: the numbers are not the parts of a share.
        ConfigError: alpha is out of range.

    Example:
        >>> round(binomial_p_value(0, 59, 0.05), 4)
        0.0485
    """
    _check_level("alpha", alpha)
    if not 0 <= num_losses <= num or num == 0:
        raise InputError(
            "these are no losses of patients",
            expected="0 <= num_losses <= num, of one or more",
            found=f"{num_losses} of {num}",
        )
    return float(bdtr(num_losses, num, alpha))


def bentkus_p_value(losses: Float[np.ndarray, " N"], alpha: float) -> float:
    r"""Return a p-value of "the risk is above alpha" for losses anywhere in [0, 1].

    .. math:: p = \min_{m > S} \frac{E (m - X)_+}{m - S}
                = \min_{m > S} \frac{1}{m - S} \sum_{j < m} P(X \le j), \qquad
              S = \sum_i L_i, \quad X \sim \mathrm{Binomial}(n, \alpha), \quad m \in \{1, \dots, n\}

    Of all losses with a given mean those of 0 or 1 are the most spread, so that no convex function
    of S has a greater mean than that of the binomial sum; Markov's inequality does the rest
    (Bentkus, https://doi.org/10.1214/009117904000000360). It holds for any number of patients, is
    never above the Hoeffding-Bentkus p-value of learn-then-test, which bounds it, and without any
    loss it is the binomial one.

    Args:
        losses: one per patient, in [0, 1].
        alpha: the bound, in (0, 1).

    Returns:
        The p-value in (0, 1]; it depends on the sum of the losses alone.

    Raises:
        InputError: there is no loss, or one is not in [0, 1].
        ConfigError: alpha is out of range.

    Example:
        >>> losses = np.zeros(100)
        >>> losses[:2] = 0.5
        >>> round(bentkus_p_value(losses, 0.05), 4)
        0.043
    """
    _check_level("alpha", alpha)
    _check_losses(losses)
    num = len(losses)
    below = np.cumsum(bdtr(np.arange(num), num, alpha))  # E (m - X)+ of m = 1, 2, ...
    gap = np.arange(1, num + 1) - losses.sum()
    bounds = np.divide(below, gap, out=np.ones(num), where=gap > 0)
    return min(1.0, float(bounds.min()))


def p_value(losses: Float[np.ndarray, " N"], alpha: float, *, are_binary: bool = False) -> float:
    """Return the p-value of "the risk is above alpha": Bentkus's, or exact for losses of 0 or 1.

    Args:
        losses: one per patient, in [0, 1].
        alpha: the bound, in (0, 1).
        are_binary: whether a loss can be 0 or 1 only, as with one image a patient. It must be known
            beforehand: to look at these losses for it would be a choice among tests.

    Returns:
        The p-value in (0, 1].

    Raises:
        InputError: there is no loss, one is not in [0, 1], or not of those that can be.
        ConfigError: alpha is out of range.

    Example:
        >>> round(p_value(np.array([1.0] + [0.0] * 99), 0.05, are_binary=True), 4)
        0.0371
    """
    _check_losses(losses)
    if not are_binary:
        return bentkus_p_value(losses, alpha)
    if not np.isin(losses, (0.0, 1.0)).all():
        raise InputError("losses", expected="0 or 1, as was said", found="others among them")
    return binomial_p_value(int(losses.sum()), len(losses), alpha)


def learn_then_test(
    losses: Float[np.ndarray, "T N"], alpha: float, eta: float = 0.05, *, are_binary: bool = False
) -> int | None:
    """Return the last threshold that passes when they are tested from the strictest on.

    The first threshold whose p-value is above eta ends it, so that any number may be tried at no
    price: to err, the first one with a risk above alpha has to pass a test of level eta. The
    thresholds and their order must not depend on these patients. All thresholds of a score in
    falling order do not: as losses change only at the patients' own scores, those stand for all.

    Args:
        losses: a row per threshold, the strictest first, a column per patient, in [0, 1].
        alpha: the bound on the risk, in (0, 1).
        eta: probability of being wrong, in (0, 1).
        are_binary: see :func:`p_value`.

    Returns:
        The row, whose risk is at most alpha with probability 1 - eta; None where the strictest
        fails already.

    Raises:
        InputError: there is no loss, or one is not in [0, 1].
        ConfigError: alpha or eta is out of range.

    Example:
        >>> losses = np.zeros((3, 60))
        >>> losses[2, :9] = 1.0
        >>> learn_then_test(losses, alpha=0.05, eta=0.05)
        1
    """
    _check_level("eta", eta)
    _check_losses(losses)
    passed = None
    for row, of_threshold in enumerate(losses):
        if p_value(of_threshold, alpha, are_binary=are_binary) > eta:
            break
        passed = row
    return passed


def conformal_risk_control(
    losses: Float[np.ndarray, "T N"], alpha: float, *, upper: float = 1.0
) -> int | None:
    r"""Return the laxest threshold whose expected risk is at most alpha.

    .. math:: \max \Big\{ t : \frac{1}{n + 1} \Big( B + \sum_i L_i(t) \Big) \le \alpha \Big\}

    The risk of the threshold that it returns is at most alpha in expectation, over calibration
    patients and the next patient; this calibration's own risk can be above.

    Args:
        losses: a row per threshold, the strictest first, a column per patient; no loss falls from
            one row to the next.
        alpha: the bound on the expected risk, in (0, 1).
        upper: the greatest loss there can be B, in (0, 1].

    Returns:
        The row; None where there is none, and then nothing may be accepted.

    Raises:
        InputError: there is no loss, one is not in [0, upper], or one falls.
        ConfigError: alpha or upper is out of range.

    Example:
        >>> losses = np.zeros((3, 60))
        >>> losses[1, :2], losses[2, :3] = 1.0, 1.0
        >>> conformal_risk_control(losses, alpha=0.05)
        1
    """
    _check_level("alpha", alpha)
    if not 0 < upper <= 1:
        raise ConfigError("upper", expected="in (0, 1]", found=f"{upper}")
    _check_losses(losses, upper=upper)
    if (np.diff(losses, axis=0) < -_ROUNDING).any():
        raise InputError(
            "conformal risk control of these thresholds",
            expected="losses that do not fall from one threshold to the next",
            found="one that falls",
            fix="Order the thresholds from the strictest to the laxest.",
        )
    inflated = (losses.sum(axis=1) + upper) / (losses.shape[1] + 1)
    num_passed = int(np.count_nonzero(inflated <= alpha))
    return num_passed - 1 if num_passed else None


def _check_level(name: str, level: float) -> None:
    """Refuse a probability that is 0, 1, or none."""
    if not 0 < level < 1:
        raise ConfigError(name, expected="in (0, 1)", found=f"{level}")


def _check_losses(losses: Float[np.ndarray, "*T N"], *, upper: float = 1.0) -> None:
    """Refuse losses out of range, and no loss at all."""
    if not losses.size:
        raise InputError("losses", expected="one patient or more", found="none")
    if not ((losses >= 0) & (losses <= upper)).all():  # NaN is refused too
        raise InputError(
            "losses",
            expected=f"in [0, {upper:g}]",
            found=f"{np.min(losses):g} to {np.max(losses):g}",
        )
