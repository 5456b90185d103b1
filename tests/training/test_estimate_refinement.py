"""What a dry run measures of phases 2 and 3: the dear part of each, not the cheap one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from ultrarefiner.training import estimate_refinement
from ultrarefiner.training.joint_module import JointModule
from ultrarefiner.training.recipe import Phase2Config, Phase3Config, TrainingRecipe


def test_phase_3_is_measured_with_both_networks_learning(
    nano: TrainingRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in the state of its first epochs, in which the coarse network is frozen."""
    made: list[JointModule] = []

    class Recorded(JointModule):
        def __init__(self, *args: Any, **settings: Any) -> None:
            super().__init__(*args, **settings)
            made.append(self)

    monkeypatch.setattr(estimate_refinement, "JointModule", Recorded)
    recipe = replace(
        nano,
        phase2=Phase2Config(batch_size=1),
        phase3=Phase3Config(batch_size=2, epochs=3, frozen_epochs=2),
    )
    lines = list(estimate_refinement.estimate_refinement(recipe, 8, 2, torch.device("cpu")))
    assert lines[-1].startswith("phase 3, estimated: ")
    (joint,) = made
    assert all(value.grad is not None for value in joint.network.parameters())
