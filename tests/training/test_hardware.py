"""Where a training computes: what cannot be is refused."""

from __future__ import annotations

import pytest

from ultrarefiner.errors import ConfigError
from ultrarefiner.training.engine.hardware import Hardware


def test_one_device_by_number_is_no_several() -> None:
    assert Hardware(device="cuda:1").num_processes == 1
    with pytest.raises(ConfigError, match=r"num_devices: expected 1 on cuda:1"):
        Hardware(device="cuda:1", num_devices=2)
