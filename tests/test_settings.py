"""Stored settings: what comes back from JSON, and dotted names."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from ultrarefiner.errors import ConfigError
from ultrarefiner.refine.assembly import PRESETS, RefinerConfig
from ultrarefiner.settings import config_from_json, dotted


@pytest.mark.parametrize("config", PRESETS.values(), ids=PRESETS)
def test_settings_survive_json(config: RefinerConfig) -> None:
    assert config_from_json(RefinerConfig, json.loads(json.dumps(asdict(config)))) == config


def test_unknown_and_missing_settings_are_named() -> None:
    stored = asdict(RefinerConfig())
    stored["prompts"]["boxen"] = stored["prompts"].pop("boxes")
    with pytest.raises(ConfigError, match=r"PromptConfig: .*found boxen, boxes"):
        config_from_json(RefinerConfig, stored)


def test_every_value_has_one_dotted_name() -> None:
    names = dotted(asdict(RefinerConfig()))
    assert names["gate.minimum"] == RefinerConfig().gate.minimum
    assert list(names)[-1] == "second_opinion"
    assert not any(isinstance(value, dict) for value in names.values())
    assert dotted({"a": {"b": {}, "c": {"d": None}}, "e": [1]}) == {
        "a.b": {},
        "a.c.d": None,
        "e": [1],
    }
