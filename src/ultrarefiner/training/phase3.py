"""Phase 3: train both networks through the prompts between them, for one outer fold."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytorch_lightning as pl

from ultrarefiner.errors import ConfigError, InputError
from ultrarefiner.refine.assembly import RefinerConfig
from ultrarefiner.refine.checkpoint import JOINT, REFINER, RefinerCheckpoint, load_refiner
from ultrarefiner.training.joint_module import JointModule
from ultrarefiner.training.keeping import keep_refiner
from ultrarefiner.training.lineage import refuse_contamination
from ultrarefiner.training.material import Material
from ultrarefiner.training.options import RunOptions
from ultrarefiner.training.phase import train_phase
from ultrarefiner.training.phase1 import plan_of
from ultrarefiner.training.tuning import drop_encoder, training_pipeline
from ultrarefiner.weights import file_sha256

SETTINGS = ("foundation", "refiner", "trainable", "corruption", "phase3", "seed")


def train_jointly(material: Material, folder: Path, options: RunOptions) -> Path:
    """Train, and write ``folder/joint.safetensors``.

    Args:
        material: what to learn from.
        folder: of the outer fold's run, with the ``refiner.safetensors`` of phase 2.
        options: how to carry it out.

    Returns:
        The checkpoint.

    Raises:
        WeightsError: phase 2 left no usable checkpoint.
        ConfigError: it was made with other settings of the refiner.
        InputError: it is of another foundation model or split.
        LeakError: it has seen what is held out.
    """
    recipe = material.recipe
    start = load_refiner(folder / REFINER)
    _refuse_other(start, material, folder / REFINER)
    pl.seed_everything(recipe.seed, verbose=False)
    pipeline = training_pipeline(start.foundation, recipe.refiner, gated=recipe.phase3.gated)
    pipeline.gate.load_state_dict(start.gate)
    if material.cache is not None:
        drop_encoder(pipeline.foundation)
    module = JointModule(
        start.network, pipeline, recipe.phase3, trainable=recipe.trainable, seed=recipe.seed
    )
    data = material.data(recipe.phase3, network=start.network.config)
    data.preload(options.track)
    plan = plan_of(recipe, material.split, *SETTINGS) | {
        "out_of_fold_sha256": material.out_of_fold.sha256,
        "refiner_sha256": file_sha256(folder / REFINER),
    }
    result = train_phase(3, module, data, folder=folder, plan=plan, options=options)
    before, after = result.before, result.after
    if after.coarse_dsc < before.coarse_dsc - recipe.phase3.max_drift:
        options.warn(
            f"the coarse network fell from DSC {before.coarse_dsc:.4f} to {after.coarse_dsc:.4f}: "
            "protect it with phase3.loss.coarse_weight, a larger anchor or a smaller "
            "phase3.interface_scale"
        )
    return keep_refiner(
        folder / JOINT,
        start.network,
        pipeline,
        material=material,
        result=result,
        options=options,
    )


def _refuse_other(start: RefinerCheckpoint, material: Material, path: Path) -> None:
    """Make sure that the refiner of phase 2 is the one that this recipe and split go on with."""
    recipe, split = material.recipe, material.split
    different = [
        item.name
        for item in fields(RefinerConfig)
        if getattr(start.config, item.name) != getattr(recipe.refiner, item.name)
    ]
    if different:
        raise ConfigError(
            f"refiner of {path}",
            expected="the settings of phase 2",
            found="others of " + ", ".join(different),
            fix="Run phase 2 again, or give the recipe it was run with.",
        )
    expected = (recipe.foundation, split.fingerprint)
    there = (start.card.get("recipe", {}).get("foundation"), start.card.get("split_sha256"))
    if there != expected:
        words = "foundation {}, split {:.12}"
        raise InputError(
            f"{path} is of another run",
            expected=words.format(*expected),
            found=words.format(*map(str, there)),
            fix="Run phase 2 again, or give the recipe and manifest it was run with.",
        )
    refuse_contamination(split.held_out, {str(path): start.card})
