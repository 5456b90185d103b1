"""Killed at random moments and resumed: every bit of what is left is that of an unbroken run."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from killing import assert_same, finish, start, state_of, train_with_kills

from ultrarefiner.training.engine.hardware import Hardware
from ultrarefiner.training.options import RunOptions
from ultrarefiner.training.phase1 import train_coarse
from ultrarefiner.training.recipe import TrainingRecipe
from ultrarefiner.training.split import split_for_training


def train_phase1(folder: Path, resume: bool, recipe: TrainingRecipe, manifest: Path) -> None:
    torch.set_num_threads(1)
    options = RunOptions(hardware=Hardware(device="cpu"), resume=resume)
    train_coarse(recipe, split_for_training(manifest, recipe, fold="3"), folder, options)


@pytest.fixture(scope="module")
def recipe(nano: TrainingRecipe) -> TrainingRecipe:
    """EfficientNet-Lite0: batch statistics and stochastic depth; five epochs of three steps."""
    return replace(nano, phase1=replace(nano.phase1, epochs=5, batch_size=2))


@pytest.mark.slow  # three kills over all phases are in test_run.py
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("num_kills", [20])
def test_killed_at_random_moments(
    recipe: TrainingRecipe, manifest: Path, tmp_path: Path, num_kills: int
) -> None:
    finish(start(train_phase1, tmp_path / "warm-up", False, _short(recipe), manifest))
    begin = time.perf_counter()
    finish(start(train_phase1, tmp_path / "whole", False, recipe, manifest))
    seconds = time.perf_counter() - begin
    whole, num_met, rng = state_of(tmp_path / "whole"), 0, np.random.default_rng(num_kills)
    while num_met < num_kills:
        folder = tmp_path / f"killed-{num_met}"
        moments = rng.uniform(0.1, 0.8, num_kills - num_met)
        num_met += train_with_kills(
            train_phase1, folder, recipe, manifest, moments=moments, seconds=seconds
        )
        assert_same(state_of(folder), whole)


def _short(recipe: TrainingRecipe) -> TrainingRecipe:
    return replace(recipe, phase1=replace(recipe.phase1, epochs=1))
