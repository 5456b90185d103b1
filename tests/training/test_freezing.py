"""Frozen is frozen: parameters and buffers, to the bit, whoever calls ``train``."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from tiny_fit import TinyModule, fit_tiny, load
from torch import nn

from ultrarefiner.errors import InputError
from ultrarefiner.training.engine.freezing import freeze, unfreeze


def network() -> nn.Sequential:
    inner = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5))
    return nn.Sequential(nn.Linear(3, 3), inner, nn.Linear(3, 3))


def modes(module: nn.Module) -> list[bool]:
    return [part.training for part in module.modules()]


@pytest.mark.parametrize("make", [lambda module: module, deepcopy])
def test_it_stays_in_evaluation(make: object) -> None:
    module = network()
    freeze(module[1])
    module = make(module)  # type: ignore[operator]
    x = torch.randn(5, 3)
    for mode in (True, False, True):
        module.train(mode)
        assert modes(module) == [mode, mode, False, False, False, mode]
    assert [p.requires_grad for p in module.parameters()] == [True, True, False, False, True, True]
    before = {name: value.clone() for name, value in module[1].state_dict().items()}
    assert torch.equal(module[1](x), module[1](x))
    for name, value in module[1].state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_part_of_a_frozen_model_follows_the_mode_again() -> None:
    module = network()
    freeze(module)
    unfreeze(module[1])
    assert modes(module) == [False, False, True, True, True, False]
    assert modes(module.eval()) == [False] * 6
    assert modes(module.train()) == [False, False, True, True, True, False]
    assert [p.requires_grad for p in module.parameters()] == [
        False,
        False,
        True,
        True,
        False,
        False,
    ]
    unfreeze(module)
    assert modes(module) == [True] * 6
    assert all("train" not in vars(part) for part in module.modules())


@pytest.mark.parametrize("is_frozen", [True, False])
def test_training_leaves_frozen_parts_as_they_are(tmp_path: Path, is_frozen: bool) -> None:
    """Through a whole fit with validation and averaging; not frozen, everything changes."""
    module = TinyModule(nn.BatchNorm2d(4), nn.Dropout(0.3))
    if is_frozen:
        freeze(module.body[0])
        freeze(module.body[1])
    before = {name: value.clone() for name, value in module.state_dict().items()}
    fit_tiny(module, tmp_path)
    last = load(tmp_path / "checkpoints" / "last.ckpt")
    frozen = {name for name in before if name.startswith(("body.0.", "body.1."))}
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]) == (is_frozen and name in frozen), name
    assert set(last["fixed"]) == (
        {n for n in frozen if n.endswith(("weight", "bias"))} if is_frozen else set()
    )
    assert not set(last["average"]["weights"]) & set(last["fixed"])


def test_what_is_frozen_is_not_in_the_checkpoint_and_need_not_be(tmp_path: Path) -> None:
    def build() -> TinyModule:
        module = TinyModule(nn.BatchNorm2d(4))
        freeze(module.body[0])
        return module

    whole, stopped, resumed = build(), build(), build()
    fit_tiny(whole, tmp_path / "whole")
    stopped.stop_after = 5
    with pytest.raises(RuntimeError, match="told to stop"):
        fit_tiny(stopped, tmp_path / "stopped")
    fit_tiny(resumed, tmp_path / "stopped", resume=True)
    for name, value in resumed.state_dict().items():
        assert torch.equal(value, whole.state_dict()[name]), name
    kept = load(tmp_path / "whole" / "checkpoints" / "last.ckpt")["state_dict"]
    assert "body.0.weight" not in kept
    assert "body.1.running_mean" in kept


def test_a_module_that_trains_something_else_cannot_be_resumed(tmp_path: Path) -> None:
    """Of another version of the code, since its plan is the same."""
    fit_tiny(TinyModule(), tmp_path)
    with pytest.raises(InputError, match=r"best\.ckpt.*head\.bias.*start anew"):
        fit_tiny(TinyModule(spare=True), tmp_path, resume=True)
