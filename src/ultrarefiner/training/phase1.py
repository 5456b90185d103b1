"""Phase 1: train the coarse network on all folds but one, and choose its weights within them.

The held-out fold is never looked at: the checkpoint is chosen on patients taken out of the
training folds, and a manifest in which a scene or patient is on both sides is refused.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, WeightAveraging
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor

from ultrarefiner.coarse import CoarseNetwork, build_coarse, encode_checkpoint
from ultrarefiner.data.atomic import atomic_path
from ultrarefiner.data.writers import write_json
from ultrarefiner.errors import InputError
from ultrarefiner.precision import bf16_is_fast, choose_device
from ultrarefiner.training.coarse_data import CoarseData
from ultrarefiner.training.coarse_module import CoarseModule
from ultrarefiner.training.estimate import estimate_cost
from ultrarefiner.training.loader_wait import LoaderWait
from ultrarefiner.training.recipe import TrainingRecipe
from ultrarefiner.training.split import TrainingSplit, count_patients, split_for_training
from ultrarefiner.weights import file_sha256


@dataclass(frozen=True, kw_only=True)
class TrainedCoarse:
    """What a run left behind.

    Attributes:
        checkpoint: the file for ``predict``; ``None`` after a dry run.
        val_dsc: Dice per image on the inner validation patients, on the network's grid.
        notes: name and remark of what was understood with a caveat.
    """

    checkpoint: Path | None
    val_dsc: float
    notes: tuple[tuple[str, str], ...]


def train_coarse(
    recipe: TrainingRecipe,
    manifest: Path,
    out: Path,
    *,
    fold: str | None = None,
    drop_leaks: bool = False,
    resume: bool = False,
    dry_run: bool = False,
    device: str = "auto",
    command: str = "",
    say: Callable[[str], None] = lambda _: None,
    track: Callable[[Iterable[Any], int], Iterable[Any]] = lambda items, _: items,
) -> TrainedCoarse:
    """Train a coarse network.

    Args:
        recipe: every setting.
        manifest: names images, masks, patients and folds.
        out: folder of the run; results go to ``out/fold-K`` (``out/all`` if no fold is held out):
            ``coarse.safetensors``, ``run.json``, ``log/metrics.csv`` and ``checkpoints/``.
        fold: fold to hold out.
        drop_leaks: leave out of the training who shares a scene with it, instead of refusing.
        resume: go on from the last finished epoch of an earlier run.
        dry_run: check the data and estimate the cost, but do not train.
        device: ``auto``, ``cpu`` or ``cuda``.
        command: recorded.
        say: told what happens, a line at a time.
        track: wraps long loops over images, for a progress bar.

    Raises:
        InputError: the manifest or a file in it cannot be used.
        LeakError: a scene or patient is learned from and held out.
    """
    split = split_for_training(manifest, recipe, fold=fold, drop_leaks=drop_leaks, track=track)
    say(split.describe())
    data = CoarseData(split.train, split.val, recipe)
    data.train.preload(track)
    data.val.preload(track)
    pl.seed_everything(recipe.seed, verbose=False)
    module = CoarseModule(build_coarse(recipe.network), recipe.phase1, seed=recipe.seed)
    target = choose_device(device)
    say(f"estimated: {estimate_cost(module, recipe, len(split.train), target)}")
    if dry_run:
        return TrainedCoarse(checkpoint=None, val_dsc=0.0, notes=split.notes)
    folder = out / (f"fold-{fold}" if fold is not None else "all")
    run = _Run(recipe, split, folder)
    start = perf_counter()
    val_dsc, network, waited = run.fit(module, data, target, resume=resume)
    minutes = (perf_counter() - start) / 60
    say(f"trained in {minutes:.1f} min, of which {100 * waited:.1f} % waiting for images")
    checkpoint = folder / "coarse.safetensors"
    card = run.card(command) | {"val_dsc": round(val_dsc, 4), "minutes": round(minutes, 1)}
    with atomic_path(checkpoint) as temporary:
        temporary.write_bytes(encode_checkpoint(network, card))
    write_json(folder / "run.json", card | {"loader_wait_share": round(waited, 4)})
    return TrainedCoarse(checkpoint=checkpoint, val_dsc=val_dsc, notes=split.notes)


class _Run:
    """One training run in its folder."""

    def __init__(self, recipe: TrainingRecipe, split: TrainingSplit, folder: Path) -> None:
        self.recipe, self.split, self.folder = recipe, split, folder

    def fit(
        self, module: CoarseModule, data: CoarseData, device: torch.device, *, resume: bool
    ) -> tuple[float, CoarseNetwork, float]:
        """Train, and return the best Dice, the network with its weights, and the loader's wait."""
        best = ModelCheckpoint(
            self.folder / "checkpoints",
            filename="best",
            monitor="val_dsc",
            mode="max",
            enable_version_counter=False,
        )
        newest = ModelCheckpoint(
            self.folder / "checkpoints", filename="last", enable_version_counter=False
        )
        wait = LoaderWait()
        last = self.folder / "checkpoints" / "last.ckpt"
        self._prepare(last, resume=resume)
        with warnings.catch_warnings():
            _ignore_advice()
            trainer = self._trainer([best, newest, wait, *self._averaging()], device)
            try:
                trainer.fit(module, data, ckpt_path=last if resume else None, weights_only=True)
            except SystemExit as cause:  # what Lightning makes of Ctrl-C
                raise KeyboardInterrupt from cause
        state = torch.load(best.best_model_path, map_location="cpu", weights_only=True)
        module.load_state_dict(state["state_dict"])
        assert best.best_model_score is not None, "a finished run was validated"
        return float(best.best_model_score), module.network, wait.share

    def _prepare(self, last: Path, *, resume: bool) -> None:
        """Make sure that a resumed run is the same run, and that a fresh one starts clean."""
        plan = self.folder / "checkpoints" / "plan.json"
        content = {"recipe": asdict(self.recipe), "split_sha256": self.split.fingerprint}
        if not resume:
            for old in (last, last.with_name("best.ckpt"), self.folder / "coarse.safetensors"):
                old.unlink(missing_ok=True)
            write_json(plan, content)
            return
        if not (last.is_file() and plan.is_file()):
            raise InputError(
                f"nothing to resume in {self.folder}",
                expected=f"{last.name} of an earlier run",
                fix="Leave out --resume to start anew.",
            )
        if json.loads(plan.read_text(encoding="utf-8")) != json.loads(json.dumps(content)):
            raise InputError(
                f"cannot resume {self.folder}",
                expected="the recipe, images and split that the run was started with",
                found="others",
                fix="Give the same ones, or leave out --resume to start anew.",
            )

    def card(self, command: str) -> dict[str, Any]:
        """Return the story of the network, for its checkpoint."""
        split = self.split
        used = [*split.train, *split.val]
        return {
            "command": command,
            "recipe": asdict(self.recipe),
            "versions": {
                name: version(name)
                for name in ("ultrarefiner", "torch", "pytorch-lightning", "timm", "numpy")
            },
            "datasets": sorted({record.dataset for record in used}),
            "num_train": len(split.train),
            "num_val": len(split.val),
            "num_patients": count_patients(used),
            "held_out_fold": split.fold,
            "num_held_out": len(split.held_out),
            "split_sha256": split.fingerprint,
            "image_digests": sorted(file_sha256(record.image)[:16] for record in used),
        }

    def _trainer(self, callbacks: list[pl.Callback], device: torch.device) -> pl.Trainer:
        return pl.Trainer(
            accelerator=device.type,
            devices=1 if device.index is None else [device.index],
            precision="bf16-mixed" if bf16_is_fast(device) else "32-true",
            max_epochs=self.recipe.phase1.epochs,
            gradient_clip_val=self.recipe.phase1.max_grad_norm,
            callbacks=callbacks,
            logger=CSVLogger(self.folder, name="log", version=""),
            log_every_n_steps=1,
            num_sanity_val_steps=0,
            enable_model_summary=False,
            enable_progress_bar=False,
        )

    def _averaging(self) -> list[pl.Callback]:
        decay = self.recipe.phase1.ema_decay
        return [WeightAveraging(avg_fn=warm_average(decay))] if decay else []


def warm_average(decay: float) -> Callable[[Tensor, Tensor, int | Tensor], Tensor]:
    """Return the running average of weights that forgets its start: early steps weigh more."""

    def average(old: Tensor, new: Tensor, num_steps: int | Tensor) -> Tensor:
        share = min(decay, (1 + int(num_steps)) / (10 + int(num_steps)))
        return (share * old + (1 - share) * new).to(old.dtype)

    return average


def _ignore_advice() -> None:
    """Silence what Lightning says of settings that were chosen on purpose."""
    for advice in (
        ".*does not have many workers.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*Experiment logs directory .* exists.*",
        ".*lr_scheduler.step.*",
        ".*GPU available but not used.*",
        ".*isinstance\\(treespec, LeafSpec\\).*",
    ):
        warnings.filterwarnings("ignore", message=advice)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
