"""A series of corrupted masks: its settings, its shares, and all of it can be repeated."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from corrupting import SHAPES, SHARES, lesion, only

from ultrarefiner.data.corruption import (
    DEFAULT_PROBABILITIES,
    PRESETS,
    CorruptionConfig,
    corrupt,
    replay,
)
from ultrarefiner.errors import ConfigError, InputError


class TestSeries:
    """A corruption depends on seed and index alone, and can be replayed."""

    @pytest.mark.parametrize("preset", PRESETS)
    def test_replayed_after_json_byte_for_byte(self, preset: str) -> None:
        for index in range(30):
            mask = lesion(SHAPES[index % 4], SHARES[index // 4 % 4])
            made = corrupt(mask, seed=5, index=index, config=PRESETS[preset])
            parameters = json.loads(json.dumps(made.parameters, allow_nan=False))
            again = replay(mask, parameters)
            assert again.dtype == np.float32
            assert again.tobytes() == made.probs.tobytes()
            assert made.kind in DEFAULT_PROBABILITIES

    def test_seed_and_index(self) -> None:
        mask = lesion("round", 0.05)
        first = corrupt(mask, seed=0, index=7)
        np.random.seed(1)  # noqa: NPY002 - the global state must play no role
        again = corrupt(mask, seed=0, index=7)
        assert first.parameters == again.parameters
        assert np.array_equal(first.probs, again.probs)
        others = [corrupt(mask, seed=s, index=i).parameters for s, i in ((0, 8), (1, 7), (7, 0))]
        assert first.parameters not in others

    def test_the_mask_is_left_alone(self) -> None:
        for kind in DEFAULT_PROBABILITIES:
            mask = lesion("round", 0.05)
            before = mask.copy()
            probs = corrupt(mask, seed=0, index=0, config=only(kind)).probs
            probs[:] = 0.5
            assert np.array_equal(mask, before)

    def test_types_come_as_often_as_asked_for(self) -> None:
        mask = lesion("round", 0.01)[:64, 64:196]
        config = replace(CorruptionConfig(), soft_probability=0.0)
        num = 2000
        made = [corrupt(mask, seed=0, index=i, config=config) for i in range(num)]
        counts = Counter(m.kind for m in made)
        for kind, share in DEFAULT_PROBABILITIES.items():
            std = np.sqrt(share * (1 - share) / num)
            assert counts[kind] / num == pytest.approx(share, abs=4 * std), kind
        second = [m for m in made if m.kind not in ("empty", "scatter")]
        share = np.mean([len(m.parameters["steps"]) == 2 for m in second])
        assert share == pytest.approx(0.15, abs=0.035)

    def test_another_mask_is_refused(self) -> None:
        made = corrupt(lesion("round", 0.05), seed=0, index=0, config=only("over"))
        mask = lesion("round", 0.05)
        others = (lesion("thin", 0.02), mask[:, :100], mask[:, ::-1].copy(), mask.T.copy())
        for other in others:
            with pytest.raises(InputError, match="the mask that they belong to"):
                replay(other, made.parameters)

    def test_other_ratios_than_were_reached_are_refused(self) -> None:
        mask = lesion("round", 0.05)
        made = corrupt(mask, seed=0, index=0, config=only("over"))
        made.parameters["steps"][0]["reached_ratio"] += 0.01
        with pytest.raises(InputError, match="the version of UltraRefiner"):
            replay(mask, made.parameters)

    @pytest.mark.parametrize(
        "broken",
        [
            {},
            {"steps": [{}], "temperature_px": None},
            {"steps": 3},
            {"steps": [{"kind": "empty", "seed": -1, "settings": {}}], "temperature_px": None},
        ],
    )
    def test_what_is_no_corruption_is_refused(self, broken: dict[str, object]) -> None:
        with pytest.raises(InputError, match="parameters of a corruption"):
            replay(lesion("round", 0.05), broken)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("probabilities", {"over": 0.5, "under": 0.4}),
        ("probabilities", {"over": 1.5, "under": -0.5}),
        ("probabilities", {"blur": 1.0}),
        ("probabilities", {}),
        ("identity_px", (0.0, 4.0)),
        ("over_ratio", (0.9, 2.0)),
        ("under_ratio", (0.9, 0.4)),
        ("num_islands", (0, 3)),
        ("num_holes", (1.5, 2.5)),
        ("temperature_px", (0.0, 3.0)),
        ("soft_probability", 1.2),
        ("secondary_probability", -0.1),
        ("max_temperature", 0.0),
    ],
)
def test_a_setting_out_of_range_is_named(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=name):
        CorruptionConfig(**{name: value})  # type: ignore[arg-type]


def test_presets_are_named_as_promised() -> None:
    assert list(PRESETS) == ["default", "mild", "severe", "boundary", "structural"]
    assert CorruptionConfig() == PRESETS["default"]
    assert sum(DEFAULT_PROBABILITIES.values()) == pytest.approx(1)
    assert len(DEFAULT_PROBABILITIES) == 12


def test_presets_differ_in_severity() -> None:
    mask = lesion("round", 0.05)
    dsc = {}
    for name, config in PRESETS.items():
        made = [corrupt(mask, seed=0, index=i, config=config).probs > 0.5 for i in range(80)]
        dsc[name] = np.mean([2 * (m & mask).sum() / (m.sum() + mask.sum()) for m in made])
    assert dsc["mild"] > 0.85 > dsc["default"] > dsc["severe"]
