"""How many patients a promise takes, and which promises there are."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from ultrarefiner.calibration.promise import Promise
from ultrarefiner.errors import ConfigError, InputError
from ultrarefiner.refine.acceptance import CONFORMAL, CROSS_CONFORMAL
from ultrarefiner.statistics import conformal_risk_control, learn_then_test, p_value


@pytest.mark.parametrize(
    ("alpha", "eta", "fewest"), [(0.05, 0.05, 59), (0.1, 0.05, 29), (0.5, 0.25, 2), (0.3, 0.05, 9)]
)
def test_fewest_patients_to_learn_then_test(alpha: float, eta: float, fewest: int) -> None:
    """Against the binomial distribution: nobody harmed of so many passes, of one less does not."""
    assert Promise(alpha=alpha, eta=eta).fewest_patients == fewest
    assert binom.cdf(0, fewest, alpha) <= eta < binom.cdf(0, fewest - 1, alpha)


@pytest.mark.parametrize(("alpha", "fewest"), [(0.05, 19), (0.1, 9), (0.3, 3), (0.5, 1)])
def test_fewest_patients_of_conformal_risk_control(alpha: float, fewest: int) -> None:
    promise = Promise(alpha=alpha, eta=0.001, method=CONFORMAL)  # eta plays no part
    assert promise.fewest_patients == fewest


@pytest.mark.parametrize(
    ("alpha", "eta"), [(0.2, 0.64), (0.1, 0.729), (0.3, 0.49), (0.5, 0.5), (1 / 3, 4 / 9)]
)
def test_fewest_patients_where_rounding_decides(alpha: float, eta: float) -> None:
    """0.8 ** 2 is more than 0.64 here: two patients pass in theory alone."""
    promise, expected = Promise(alpha=alpha, eta=eta), Promise(alpha=alpha, method=CONFORMAL)
    losses = np.zeros((1, promise.fewest_patients))
    assert learn_then_test(losses, alpha, eta, are_binary=True) == 0
    assert learn_then_test(losses, alpha, eta) == 0
    assert conformal_risk_control(np.zeros((1, expected.fewest_patients)), alpha) == 0


def test_too_few_patients_are_told_how_many_it_takes() -> None:
    Promise().check_patients(59)
    with pytest.raises(InputError, match="too few patients") as refused:
        Promise().check_patients(58)
    for words in ("at least 59 to choose the threshold on", "about 70 with those", "found 58"):
        assert words in str(refused.value)
    with pytest.raises(InputError) as refused:
        Promise(method=CONFORMAL).check_patients(2, learn_share=0.0)
    assert "at least 19 to choose the threshold on," in str(refused.value)
    assert "eta" not in str(refused.value)


@pytest.mark.parametrize(
    "wrong",
    [{"alpha": 0.0}, {"alpha": 1.0}, {"eta": 1.5}, {"learn_share": 0.0}, {"delta": -0.1},
     {"delta": float("nan")}, {"method": "hope"}, {"method": CROSS_CONFORMAL}],
)  # fmt: skip
def test_what_cannot_be_promised(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Promise(**wrong)  # type: ignore[arg-type]


def test_p_value_of_nobody_harmed_decides_as_the_count_does() -> None:
    promise = Promise(alpha=0.07, eta=0.1)
    num = promise.fewest_patients
    assert p_value(np.zeros(num), promise.alpha) <= promise.eta
    assert p_value(np.zeros(num - 1), promise.alpha) > promise.eta
