"""Sample sizes against statsmodels and against simulated studies."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from ultrarefiner.errors import ConfigError
from ultrarefiner.statistics import sample_size


@pytest.mark.parametrize("effect", [0.05, 0.2, 0.5, 0.9])
@pytest.mark.parametrize(("power", "alpha"), [(0.8, 0.05), (0.9, 0.01)])
def test_one_image_per_patient_equals_statsmodels(effect, power, alpha):
    found = sample_size(
        -effect * 3, sd=3.0, icc=0.4, images_per_patient=1, power=power, alpha=alpha
    )
    expected = math.ceil(TTestPower().solve_power(effect, power=power, alpha=alpha))
    assert found.num_patients == found.num_images == expected
    assert found.design_effect == 1.0


@pytest.mark.parametrize(("icc", "images_per_patient"), [(0.3, 2), (0.8, 3)])
def test_simulated_studies_have_the_power(icc, images_per_patient):
    effect, rng = 0.3, np.random.default_rng(0)
    num = sample_size(effect, sd=1.0, icc=icc, images_per_patient=images_per_patient).num_patients

    def power(num_patients: int) -> float:
        shape = (5000, num_patients, images_per_patient)
        intercepts = rng.normal(0.0, math.sqrt(icc), shape[:2])
        noise = rng.normal(0.0, math.sqrt(1 - icc), shape).mean(axis=2)
        return float(
            (stats.ttest_1samp(effect + intercepts + noise, 0.0, axis=1).pvalue < 0.05).mean()
        )

    assert power(num) == pytest.approx(0.8, abs=0.02)  # 3 standard errors are 0.017


def test_images_that_say_nothing_new_do_not_help():
    one = sample_size(0.2, sd=1.0, icc=1.0, images_per_patient=1)
    many = sample_size(0.2, sd=1.0, icc=1.0, images_per_patient=10)
    assert many.num_patients == one.num_patients
    assert (many.num_images, many.design_effect) == (10 * one.num_patients, 10.0)
    independent = sample_size(0.2, sd=1.0, icc=0.0, images_per_patient=2)
    assert independent.num_images == pytest.approx(one.num_images, abs=3)


def test_images_per_patient_may_be_a_mean_and_effects_huge():
    found = sample_size(0.1, sd=0.5, icc=0.2, images_per_patient=1.72)
    assert found.num_images == math.ceil(1.72 * found.num_patients)
    assert sample_size(1e6, sd=1.0, icc=0.0, images_per_patient=1).num_patients == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("effect", 0.0),
        ("effect", math.nan),
        ("sd", 0.0),
        ("icc", 1.1),
        ("images_per_patient", 0.5),
        ("power", 1.0),
        ("power", 0.01),
        ("alpha", 0.0),
    ],
)
def test_refuses_what_no_number_answers(name, value):
    arguments = {"effect": 0.1, "sd": 1.0, "icc": 0.2, "images_per_patient": 2, name: value}
    with pytest.raises(ConfigError, match=f"{name}: expected .*, found {value}"):
        sample_size(arguments.pop("effect"), **arguments)
