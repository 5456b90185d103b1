r"""One monotone score of an image, learned from what refinement did to others.

The score is minus a weighted sum of signs; weights are never negative, so that more of a sign never
raises it. They are those of a logistic regression that tells harm from gain,

.. math:: \min_{b, w \ge 0} \; \tfrac12 \sum_i \tilde h_i \log(1 + e^{-b - w^T x_i})
          + \tfrac12 \sum_i \tilde g_i \log(1 + e^{b + w^T x_i})
          + \lambda \min_a \lVert w - a v \rVert^2, \quad
          v_j = \pi_j \Big( \sum_k \rho_{jk}^2 \Big)^{-1}, \quad
          \tilde h_i \propto \sigma\Big(\frac{-\delta - d_i}{\tau}\Big), \quad
          \tilde g_i \propto \sigma\Big(\frac{\delta + d_i}{\tau}\Big) \max(d_i, 0)

with d the gain in DSC, signs x in units of their standard deviation with correlations rho, and both
kinds of weights of sum 1. Few images are harmed (3-12 % of 100-200), hence three choices, compared
on simulated images and on patients of BUS-BRA (fold 2, refiners trained on fold 1, and frozen):

- Harm is graded: a fall of nearly delta says nearly as much as one just beyond it.
- What is not harmed counts by its gain, so that the sum tends to the log-ratio of harm to gain: to
  keep the most gain for a given harm, images are accepted by that ratio (Neyman and Pearson). On
  patients both together kept more gain in three cases of four, though they rank harm less well.
- The penalty pulls weights towards votes v, not to zero: signs that say the same share one vote,
  and what the model and the image say of the new mask (pi = 1) counts for more than the rest
  (0.1): how far a mask moved goes with gain as much as with harm, and among one to nine harmed
  images a free fit cannot tell which.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from jaxtyping import Float64
from scipy.optimize import minimize
from scipy.special import expit

from ultrarefiner.calibration.outcomes import Outcome
from ultrarefiner.errors import ConfigError
from ultrarefiner.refine.acceptance import SIGNS

_SOFTNESS: Final = 0.01  # tau, in DSC
_PULL: Final = 1.0  # lambda
_RIDGE: Final = 1e-3  # keeps weights finite where harm and gain are told apart without error
_NEAR_ZERO: Final = 1e-9
_PRIOR: Final = dict.fromkeys(SIGNS, 0.1) | {"doubted": 1.0, "unsupported": 1.0}  # pi


def learn_weights(outcomes: Sequence[Outcome], delta: float) -> dict[str, float]:
    """Return a weight of each sign, so that their sum is higher the more harm is to be feared.

    Images that refinement left as they were say nothing and are passed over. Of several lesions the
    greatest of each sign counts: the worst lesion decides over an image, but which one that is
    depends on the weights. A sign that never varies weighs nothing. Where no DSC fell or none rose,
    or where no sign goes with harm, the votes are the weights.

    Args:
        outcomes: of images that no threshold is chosen on.
        delta: fall of DSC from which on an image counts as harmed, in [0, 1).

    Returns:
        Weights of at least 0 by name, not all 0, in units in which the mean sum of the images
        that refinement changed is 1. The same outcomes in any order give the same weights, up to
        rounding.

    Raises:
        ConfigError: delta is out of range.

    Example:
        >>> weights = learn_weights([], delta=0.02)
        >>> weights["moved"], weights["doubted"]
        (0.1, 1.0)
    """
    if not 0 <= delta < 1:
        raise ConfigError("delta", expected="a DSC in [0, 1)", found=f"{delta}")
    changed = [outcome for outcome in outcomes if outcome.changed and outcome.signs]
    signs = np.array([_greatest(outcome) for outcome in changed]).reshape(-1, len(SIGNS))
    gains = np.array([outcome.gain for outcome in changed])
    spread = signs.std(axis=0) if changed else np.zeros(len(SIGNS))
    varies = spread > _NEAR_ZERO
    if not varies.any():
        return dict(_PRIOR)
    weights = np.zeros(len(SIGNS))
    standardised = signs[:, varies] / spread[varies]
    prior = np.array([_PRIOR[name] for name in SIGNS])[varies]
    fitted = _fit(standardised, gains, delta, votes=_votes(standardised, prior))
    weights[varies] = fitted / spread[varies]
    weights /= (signs @ weights).mean()
    return dict(zip(SIGNS, weights.tolist(), strict=True))


def _greatest(outcome: Outcome) -> list[float]:
    """Return the greatest of each sign over the lesions of an image."""
    return [max(getattr(signs, name) for signs in outcome.signs) for name in SIGNS]


def _fit(
    signs: Float64[np.ndarray, "N K"],
    gains: Float64[np.ndarray, " N"],
    delta: float,
    *,
    votes: Float64[np.ndarray, " K"],
) -> Float64[np.ndarray, " K"]:
    """Return the weights of standardised signs, their votes where nothing can be learned."""
    if gains.min() >= 0 or gains.max() <= 0:
        return votes
    harm = expit((-delta - gains) / _SOFTNESS)
    kept = (1 - harm) * np.maximum(gains, 0)
    harm, kept = harm / harm.sum() / 2, kept / kept.sum() / 2

    def objective(point: Float64[np.ndarray, " P"]) -> tuple[float, Float64[np.ndarray, " P"]]:
        offset, weights = point[0], point[1:]
        logits = offset + signs @ weights
        apart = weights - (weights @ votes) / (votes @ votes) * votes
        loss = harm @ np.logaddexp(0, -logits) + kept @ np.logaddexp(0, logits)
        penalty = _PULL * apart @ apart + _RIDGE * weights @ weights
        slope = kept * expit(logits) - harm * expit(-logits)
        to_weights = signs.T @ slope + 2 * _PULL * apart + 2 * _RIDGE * weights
        return float(loss + penalty), np.append(slope.sum(), to_weights)

    found = minimize(
        objective,
        np.append(0.0, votes / votes.sum()),
        jac=True,
        method="L-BFGS-B",
        bounds=[(None, None)] + [(0, None)] * signs.shape[1],
        options={"maxiter": 1000, "ftol": 1e-12, "gtol": 1e-8},
    )
    fitted: Float64[np.ndarray, " K"] = found.x[1:]
    return fitted if fitted.sum() > _NEAR_ZERO else votes


def _votes(
    signs: Float64[np.ndarray, "N K"], prior: Float64[np.ndarray, " K"]
) -> Float64[np.ndarray, " K"]:
    """Return how much each sign counts beforehand: those that say the same share one vote."""
    correlation = np.atleast_2d(np.corrcoef(signs, rowvar=False))
    votes: Float64[np.ndarray, " K"] = prior / np.square(correlation).sum(axis=1)
    return votes
