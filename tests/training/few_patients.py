"""Four patients to learn from and one held out: all three phases in seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from ultrarefiner.data.manifest import Record, read_manifest, write_manifest
from ultrarefiner.foundation import lite_medsam
from ultrarefiner.losses import JointLoss
from ultrarefiner.refine.checkpoint import load_refiner
from ultrarefiner.training.engine.hardware import Hardware
from ultrarefiner.training.options import RunOptions
from ultrarefiner.training.recipe import InnerConfig, Phase2Config, Phase3Config, TrainingRecipe
from ultrarefiner.training.run import train_fold

_NUM_OF_FOLD = {"1": 2, "2": 2, "3": 1}


def few_of(manifest: Path, path: Path, change: Callable[[Record], Record] = lambda r: r) -> Path:
    """Write a manifest of a few of the records, each changed, to a path; return it."""
    records = read_manifest(manifest)
    for_each = ([r for r in records if r.fold == fold][:num] for fold, num in _NUM_OF_FOLD.items())
    write_manifest(path, [change(record) for some in for_each for record in some])
    return path


def one_step_recipe(nano: TrainingRecipe) -> TrainingRecipe:
    """A step of two images for each network; what phase 3 changes, the refined mask has asked for.

    Without decay and average, a weight moves only if a gradient has reached it.
    """
    plain = {"epochs": 1, "batch_size": 2, "flips": False, "weight_decay": 0.0, "ema_decay": 0.0}
    loss = JointLoss(coarse_weight=0.0, refined_weight=1.0, anchor_weight=0.0)
    return replace(
        nano,
        phase1=replace(nano.phase1, epochs=1, batch_size=2),
        inner=InnerConfig(folds=2),
        phase2=Phase2Config(**plain, real_share=0.0),
        phase3=Phase3Config(**plain, frozen_epochs=0, kept_share=0.0, loss=loss),
    )


@dataclass(frozen=True, kw_only=True)
class FewRun:
    """A finished run with fold 3 held out, not to be changed."""

    recipe: TrainingRecipe
    folder: Path
    held_out: Record


def run_few(recipe: TrainingRecipe, manifest: Path, out: Path) -> FewRun:
    """Train all phases."""
    train_fold(recipe, manifest, out, fold="3", options=RunOptions(hardware=Hardware(device="cpu")))
    (held_out,) = (record for record in read_manifest(manifest) if record.fold == "3")
    return FewRun(recipe=recipe, folder=out / "fold-3", held_out=held_out)


def learned_in(run: FewRun, phase: int) -> set[str]:
    """Return the parts that the steps of a phase have changed, whichever epoch was kept."""
    start = load_refiner(run.folder / "refiner.safetensors") if phase == 3 else None
    parts = {
        "network.": start.network if start else nn.Module(),
        "pipeline.foundation.": start.foundation if start else lite_medsam(),
    }
    path = run.folder / f"phase{phase}" / "checkpoints" / "last.ckpt"
    last = torch.load(path, weights_only=True)["state_dict"]
    return {
        "network" if prefix == "network." else name.partition(".")[0]
        for prefix, part in parts.items()
        for name, value in part.named_parameters()
        if f"{prefix}{name}" in last and not value.equal(last[f"{prefix}{name}"])
    }
