"""Phase 1: train the coarse network on all folds but one, and choose its weights within them.

The held-out fold is never looked at: the checkpoint is chosen on patients taken out of the
training folds, and a manifest in which a scene or patient is on both sides is refused.
"""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from ultrarefiner.coarse import build_coarse, encode_checkpoint
from ultrarefiner.coarse.checkpoint import COARSE
from ultrarefiner.data.atomic import atomic_path
from ultrarefiner.data.writers import write_json
from ultrarefiner.precision import choose_device
from ultrarefiner.training.coarse_data import CoarseData
from ultrarefiner.training.coarse_module import CoarseModule
from ultrarefiner.training.engine.fitting import fit
from ultrarefiner.training.engine.hardware import is_first_process, wait_for_others
from ultrarefiner.training.estimate import estimate_cost
from ultrarefiner.training.lineage import card_digests, content_fingerprint
from ultrarefiner.training.options import RunOptions
from ultrarefiner.training.recipe import TrainingRecipe
from ultrarefiner.training.revision import git_revision
from ultrarefiner.training.split import TrainingSplit, count_patients

STORY = "run.json"
SETTINGS = ("network", "augmentation", "phase1", "inner_share", "patient_share", "seed")


def train_coarse(
    recipe: TrainingRecipe, split: TrainingSplit, folder: Path, options: RunOptions
) -> Path:
    """Train a coarse network, and write ``folder/coarse.safetensors``.

    Args:
        recipe: every setting.
        split: who is learned from, chosen on, held out.
        folder: of the run; also gets ``run.json``, ``checkpoints/`` and ``log/``.
        options: how to carry it out.

    Returns:
        The checkpoint.

    Raises:
        InputError: an image cannot be used, or there is nothing to resume; or loss or gradient are
            not finite.
    """
    module, data = prepare_coarse(recipe, split, options)
    checkpoint, story = folder / COARSE, folder / STORY
    if not options.resume and is_first_process():
        checkpoint.unlink(missing_ok=True)
        story.unlink(missing_ok=True)
    plan = plan_of(recipe, split, *SETTINGS)
    fitted = fit(
        module,
        data,
        folder,
        schedule=recipe.phase1,
        plan=plan,
        hardware=options.hardware,
        resume=options.resume,
        track=options.track,
    )
    options.say(f"phase 1: {fitted.describe()}")
    # What is finished keeps its bytes, command and all: later phases depend on them. It comes last.
    if is_first_process() and not checkpoint.is_file():
        card = _card(recipe, split, options.command) | {
            "data_sha256": plan["data_sha256"],
            "val_dsc": round(fitted.val_dsc, 4),
        }
        spent = {"minutes": fitted.minutes, "loader_wait_share": fitted.loader_wait_share}
        write_json(story, card | {name: round(value, 4) for name, value in spent.items()})
        with atomic_path(checkpoint) as temporary:
            temporary.write_bytes(encode_checkpoint(module.network, card))
    wait_for_others()
    return checkpoint


def prepare_coarse(
    recipe: TrainingRecipe, split: TrainingSplit, options: RunOptions
) -> tuple[CoarseModule, CoarseData]:
    """Build the network, read every image, and say what the training will cost.

    Args:
        recipe: every setting.
        split: who is learned from and chosen on.
        options: where to compute, and whom to tell.

    Raises:
        InputError: an image or mask cannot be used.
    """
    data = CoarseData(split.learned, split.val, recipe)
    data.train.preload(options.track)
    data.val.preload(options.track)
    pl.seed_everything(recipe.seed, verbose=False)
    module = CoarseModule(build_coarse(recipe.network), recipe.phase1, seed=recipe.seed)
    device = choose_device(options.hardware.device)
    cost = estimate_cost(module, recipe, len(split.learned), device)
    options.say(f"phase 1, estimated: {cost}")
    return module, data


def plan_of(recipe: TrainingRecipe, split: TrainingSplit, *names: str) -> dict[str, Any]:
    """Return what must be the same for a phase to be resumed: some settings, the split, the data.

    Args:
        recipe: every setting.
        split: who is learned from, chosen on, held out.
        names: of the settings that the phase depends on.
    """
    settings = asdict(recipe)
    return {
        "recipe": {name: settings[name] for name in names},
        "split_sha256": split.fingerprint,
        "data_sha256": content_fingerprint(split.used),
    }


def _card(recipe: TrainingRecipe, split: TrainingSplit, command: str) -> dict[str, Any]:
    """Return the story of the network, for its checkpoint."""
    return {
        "command": command,
        "recipe": asdict(recipe),
        "revision": git_revision(),
        "versions": {
            name: version(name)
            for name in ("ultrarefiner", "torch", "pytorch-lightning", "timm", "numpy")
        },
        "datasets": sorted({record.dataset for record in split.used}),
        "num_train": len(split.train),
        "num_pseudo": len(split.pseudo),
        "num_val": len(split.val),
        "num_patients": count_patients(split.used),
        "held_out_fold": split.fold,
        "num_held_out": len(split.held_out),
        "split_sha256": split.fingerprint,
        **card_digests(split.used, split.teachers.values()),
    }
