"""Phase 2: train the foundation model to correct masks, for one outer fold."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl

from ultrarefiner.coarse import load_checkpoint
from ultrarefiner.foundation import FOUNDATION_MODELS
from ultrarefiner.refine.checkpoint import REFINER
from ultrarefiner.training.keeping import keep_refiner
from ultrarefiner.training.material import Material
from ultrarefiner.training.options import RunOptions
from ultrarefiner.training.phase import train_phase
from ultrarefiner.training.phase1 import plan_of
from ultrarefiner.training.refiner_module import RefinerModule
from ultrarefiner.training.tuning import drop_encoder, training_pipeline
from ultrarefiner.weights import file_sha256

SETTINGS = ("foundation", "refiner", "trainable", "corruption", "phase2", "seed")


def train_refiner(material: Material, folder: Path, options: RunOptions) -> Path:
    """Train, and write ``folder/refiner.safetensors``.

    Args:
        material: what to learn from.
        folder: of the outer fold's run, with the ``coarse.safetensors`` of phase 1.
        options: how to carry it out.

    Returns:
        The checkpoint.
    """
    recipe = material.recipe
    pl.seed_everything(recipe.seed, verbose=False)
    model = FOUNDATION_MODELS[recipe.foundation]()
    pipeline = training_pipeline(model, recipe.refiner, gated=recipe.phase2.gated)
    if material.cache is not None:
        drop_encoder(pipeline.foundation)
    module = RefinerModule(pipeline, recipe.phase2, trainable=recipe.trainable, seed=recipe.seed)
    data = material.data(recipe.phase2)
    data.preload(options.track)
    plan = plan_of(recipe, material.split, *SETTINGS) | {
        "out_of_fold_sha256": material.out_of_fold.sha256,
        "coarse_sha256": file_sha256(folder / "coarse.safetensors"),
    }
    result = train_phase(2, module, data, folder=folder, plan=plan, options=options)
    return keep_refiner(
        folder / REFINER,
        load_checkpoint(folder).network,
        pipeline,
        material=material,
        result=result,
        options=options,
    )
