"""Phantom patients in folds, and a recipe that trains in seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from ultrarefiner.coarse import CoarseConfig
from ultrarefiner.data.folds import assign_folds
from ultrarefiner.data.manifest import read_manifest, write_manifest
from ultrarefiner.data.phantom import PhantomConfig, write_phantoms
from ultrarefiner.training.recipe import Phase1Config, TrainingRecipe


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve phantom patients in three folds, not to be changed."""
    folder = tmp_path_factory.mktemp("phantoms")
    config = PhantomConfig(height_px=(120, 140), width_px=(150, 170), relative_radius=(0.2, 0.25))
    path = write_phantoms(12, 3, folder, rough=False, config=config)
    folds = assign_folds(read_manifest(path), num_folds=3, seed=0)
    write_manifest(path, folds.records)
    return path


@pytest.fixture(scope="session")
def nano() -> TrainingRecipe:
    return TrainingRecipe(
        network=CoarseConfig(side=64, encoder_weights="none", decoder_channels=(32, 16, 16, 8, 8)),
        phase1=Phase1Config(epochs=2, batch_size=4),
        inner_share=0.25,
    )
