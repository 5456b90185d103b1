"""What is left to calibrate on, and what is said of the rest."""

from __future__ import annotations

import pytest

from ultrarefiner.calibration.outcomes import naming
from ultrarefiner.calibration.promise import Promise
from ultrarefiner.errors import InputError


def test_too_few_patients_after_failures_name_the_first() -> None:
    failures = [(f"{index}.png", "is broken") for index in range(5)]
    with pytest.raises(InputError) as refused, naming(failures):
        Promise().check_patients(3)
    for words in (
        "at least 59",
        "found 3, 5 passed over",
        "0.png: is broken",
        "Give more patients",
    ):
        assert words in str(refused.value)
    assert "3.png" not in str(refused.value)
    with pytest.raises(InputError) as plain, naming([]):
        Promise().check_patients(3)
    assert "passed over" not in str(plain.value)
