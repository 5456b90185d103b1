"""A rule in a checkpoint: it comes back, is used, and is void after any change."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rules import rule_of
from safetensors import safe_open
from safetensors.torch import save_file

from ultrarefiner.coarse.pretrained import PRETRAINED
from ultrarefiner.errors import ConfigError, WeightsError
from ultrarefiner.refine.acceptance import AcceptanceRule
from ultrarefiner.refine.assembly import RefinerConfig, build_pipeline
from ultrarefiner.refine.checkpoint import RefinerCheckpoint, add_rule, encode_refiner, load_refiner
from ultrarefiner.refine.softening import SofteningConfig
from ultrarefiner.refine.stabilization import StabilizerConfig

NANO = PRETRAINED["nano"].verify()


@pytest.fixture(scope="module")
def nano() -> RefinerCheckpoint:
    return load_refiner("nano")


@pytest.fixture(scope="module")
def rule(nano: RefinerCheckpoint) -> AcceptanceRule:
    return rule_of(binding=nano.binding, threshold=-math.inf)


@pytest.fixture(scope="module")
def content(rule: AcceptanceRule) -> bytes:
    return add_rule(NANO, rule)


@pytest.fixture
def path(content: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "calibrated.safetensors"
    path.write_bytes(content)
    return path


def _parts(path: Path) -> tuple[dict[str, object], dict[str, torch.Tensor]]:
    with safe_open(path, framework="pt") as stream:
        header = json.loads(stream.metadata()["ultrarefiner"])
        return header, {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118


def test_it_comes_back_beside_the_same_weights(
    path: Path, nano: RefinerCheckpoint, rule: AcceptanceRule
) -> None:
    assert nano.rule is None
    found = load_refiner(path)
    assert found.rule == rule
    assert (found.card, found.config) == (nano.card, nano.config)
    before, after = _parts(NANO), _parts(path)
    assert after[0] == before[0] | {"rule": rule.to_json()}
    assert before[1].keys() == after[1].keys()
    assert all(torch.equal(before[1][name], after[1][name]) for name in before[1])


def test_the_same_bytes_for_the_same_rule(
    path: Path, content: bytes, rule: AcceptanceRule, nano: RefinerCheckpoint
) -> None:
    assert add_rule(NANO, rule) == content
    other = add_rule(path, replace(rule, threshold=-1.0))
    assert other != content
    path.write_bytes(other)
    assert add_rule(path, rule) == content  # a rule that was there is replaced
    path.write_bytes(add_rule(path, rule, card=dict(nano.card) | {"calibration": {"num": 7}}))
    assert load_refiner(path).card["calibration"] == {"num": 7}


def test_what_is_encoded_without_a_rule_can_be_bound(
    tmp_path: Path, nano: RefinerCheckpoint, rule: AcceptanceRule
) -> None:
    pipeline = build_pipeline(nano.foundation, nano.config)
    pipeline.gate.load_state_dict(nano.gate)
    plain, calibrated = tmp_path / "plain.safetensors", tmp_path / "calibrated.safetensors"
    content = encode_refiner(
        nano.network, pipeline, foundation="lite-medsam", config=nano.config, card=nano.card
    )
    plain.write_bytes(content)
    assert "rule" not in _parts(plain)[0]
    bound = replace(rule, binding=load_refiner(plain).binding)
    calibrated.write_bytes(add_rule(plain, bound))
    assert load_refiner(calibrated).rule == bound
    with pytest.raises(ConfigError, match=r"expected one calibrated for the weights .*0000"):
        add_rule(plain, replace(rule, binding="0" * 64))


def test_one_bit_of_one_weight_makes_it_void(path: Path, content: bytes) -> None:
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(WeightsError, match=r"rule in .*calibrated.* is void: .*Calibrate again"):
        load_refiner(path)


def test_one_setting_makes_it_void(path: Path) -> None:
    header, state = _parts(path)
    assert isinstance(header["refiner"], dict)
    header["refiner"]["softening"]["width"] += 0.01
    save_file(state, path, metadata={"ultrarefiner": json.dumps(header)})
    with pytest.raises(WeightsError, match="is void"):
        load_refiner(path)
    header["card"] = {}
    del header["rule"]
    save_file(state, path, metadata={"ultrarefiner": json.dumps(header)})
    assert load_refiner(path).rule is None


@pytest.mark.parametrize("changes", [{"signs_version": 0}, {}], ids=["another", "none"])
def test_other_signs_make_it_void(path: Path, changes: dict[str, int]) -> None:
    header, state = _parts(path)
    assert isinstance(header["rule"], dict)
    del header["rule"]["signs_version"]
    header["rule"] |= changes
    save_file(state, path, metadata={"ultrarefiner": json.dumps(header)})
    with pytest.raises(WeightsError, match=r"is void: expected signs as .*Calibrate again"):
        load_refiner(path)


def test_it_brings_its_foundation_model_along(nano: RefinerCheckpoint) -> None:
    nano.check_foundation(None)
    nano.check_foundation("lite-medsam")
    with pytest.raises(ConfigError, match=r"of checkpoint nano: .*lite-medsam, found medsam"):
        nano.check_foundation("medsam")


@pytest.mark.parametrize("damage", [{"weights": {}}, {"method": "hope"}, {"alpha": None}])
def test_a_damaged_rule_is_named(path: Path, damage: dict[str, object]) -> None:
    header, state = _parts(path)
    assert isinstance(header["rule"], dict)
    header["rule"] |= damage
    save_file(state, path, metadata={"ultrarefiner": json.dumps(header)})
    with pytest.raises(WeightsError, match=r"cannot use checkpoint .*calibrated"):
        load_refiner(path)


def test_the_card_is_free(nano: RefinerCheckpoint, path: Path) -> None:
    header, state = _parts(path)
    header["card"] = {"phase": 3}
    save_file(state, path, metadata={"ultrarefiner": json.dumps(header)})
    assert load_refiner(path).binding == nano.binding


@pytest.mark.parametrize(
    "asked",
    [
        RefinerConfig(stabilizer=StabilizerConfig(band_px=5.0)),
        RefinerConfig(softening=SofteningConfig(width=0.2)),
    ],
    ids=["stabilizer", "softening"],
)
def test_other_settings_are_only_free_without_it(path: Path, asked: RefinerConfig) -> None:
    found = load_refiner(path)
    with pytest.raises(ConfigError, match=r"calibrated with.*leave the rule out, or calibrate"):
        found.refiner(asked, device="cpu")
    assert replace(found, rule=None).settings(asked) != found.config
    refiner = found.refiner(device="cpu")
    assert refiner.rule == found.rule
    assert refiner.pipeline.acceptance.rule == found.rule
