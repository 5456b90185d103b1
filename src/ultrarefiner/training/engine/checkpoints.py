"""What a run keeps, so that it can be stopped at any moment and resumed with the same result.

``last.ckpt`` is the state after the newest epoch, with all that was measured so far; the curves are
made from it. ``best.ckpt`` holds the weights of the best epoch. It is written first: if
the run is killed between the two, the epoch is done again, and gives the same.
"""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from torch import Tensor

from ultrarefiner.data.atomic import atomic_path, remove_unfinished
from ultrarefiner.data.writers import write_json
from ultrarefiner.errors import InputError, OutputError
from ultrarefiner.settings import dotted
from ultrarefiner.training.engine.averaging import WeightAverage
from ultrarefiner.training.engine.curves import EVENTS, TABLE, Curves
from ultrarefiner.training.engine.guards import FiniteGuard
from ultrarefiner.training.engine.loader_wait import LoaderWait

MONITOR = "val_dsc"
_NUM_SHOWN, _ABSENT = 3, object()


class ResumeError(InputError):
    """What an earlier run left cannot be gone on with; a new run could begin."""


class RunFiles:
    """The files of one training.

    Args:
        folder: with ``checkpoints/`` and ``log/``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "log"
        self.plan, self.last, self.best, self.broken = (
            folder / "checkpoints" / name
            for name in ("plan.json", "last.ckpt", "best.ckpt", "not-finite.ckpt")
        )

    def clean(self) -> None:
        """Remove what a kill left half written."""
        for folder in (self.folder, self.plan.parent, self.log):
            remove_unfinished(folder)

    def start(self, plan: Mapping[str, Any]) -> None:
        """Remove what an earlier run left, and write down what this one is.

        A plan is replaced, not removed: other processes may be about to read it.
        """
        self._remove_results()
        write_json(self.plan, plan)

    def forget(self) -> None:
        """Remove all that an earlier run left."""
        self.plan.unlink(missing_ok=True)
        self._remove_results()

    def check_plan(self, plan: Mapping[str, Any]) -> None:
        """Make sure that a resumed run is the same run.

        Raises:
            ResumeError: nothing was begun here, or something else.
        """
        if not self.plan.is_file():
            raise ResumeError(
                f"nothing to resume in {self.folder}",
                expected=f"checkpoints/{self.plan.name} of an earlier run",
                fix="Leave out --resume to start anew.",
            )
        was, now = json.loads(self.plan.read_text(encoding="utf-8")), json.loads(json.dumps(plan))
        if was != now:
            changes = _changes(was, now)
            more = f" and {len(changes) - _NUM_SHOWN} more" if len(changes) > _NUM_SHOWN else ""
            raise ResumeError(
                f"cannot resume {self.folder}",
                expected="the recipe, images and split that the run was started with",
                found="others (was -> is): " + "; ".join(changes[:_NUM_SHOWN]) + more,
                fix="Give the same ones, or leave out --resume to start anew.",
            )

    def _remove_results(self) -> None:
        logs = [self.log / name for name in (TABLE, EVENTS)]
        for old in (self.last, self.best, self.broken, *logs):
            old.unlink(missing_ok=True)


def _changes(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return each value that differs by its dotted name, with what it was and is, in short."""
    old, new = dotted(was), dotted(now)
    return [
        f"{name}: {_shown(old, name)} -> {_shown(new, name)}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name, _ABSENT) != new.get(name, _ABSENT)
    ]


def _shown(values: Mapping[str, Any], name: str) -> str:
    return f"{json.dumps(values[name]):.24}" if name in values else "absent"


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint: the old one is there until the new one is whole.

    Raises:
        OutputError: it cannot be written, as on a full disk.
    """
    with atomic_path(path) as temporary:
        try:
            torch.save(dict(state), temporary)
        # PyTorch's writer does not say what the system said.
        except RuntimeError as cause:
            raise OutputError(
                f"cannot write {path}",
                found=str(cause).partition("\n")[0],
                fix="Check whether the disk is full, and run it again with --resume.",
            ) from cause


def load_state(path: Path) -> dict[str, Any]:
    """Read a checkpoint of tensors and plain values; no code in it is run.

    Raises:
        ResumeError: it cannot be read.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as cause:
        raise ResumeError(
            f"cannot read checkpoint {path}",
            expected="one that this version wrote",
            found=str(cause).partition("\n")[0],
            fix="Leave out --resume to start anew.",
        ) from cause
    return state


class StateKeeper(Checkpoint):
    """Keep the state after every epoch, and go on from it.

    Lightning's own resuming is not used: it takes up a loop in its middle, where the loader has
    already drawn from torch's random numbers. Here an epoch begins as it would have anyway.

    Args:
        files: where to keep it.
        average: of the weights.
        guard: knows the length of the gradients.
        wait: knows how long the training took.
        state: to go on from; ``None`` to begin.
    """

    def __init__(
        self,
        files: RunFiles,
        *,
        average: WeightAverage,
        guard: FiniteGuard,
        wait: LoaderWait,
        state: dict[str, Any] | None,
    ) -> None:
        self.files, self.average, self.guard, self.wait = files, average, guard, wait
        self._state = state
        self._curves = Curves(files.log)
        self.rows: list[dict[str, float]] = [] if state is None else state["rows"]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put everything into the state that was kept."""
        assert all(config.interval == "step" for config in trainer.lr_scheduler_configs), (
            "a schedule by epochs steps after the state is kept"
        )
        state, self._state = self._state, None
        if state is not None:
            self._restore(state, trainer, pl_module)
        if trainer.is_global_zero:
            self._curves.write(self.rows)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the state, and the averaged weights if they are the best so far."""
        row = self._measured(trainer)
        is_best = row[MONITOR] > max((old[MONITOR] for old in self.rows), default=-math.inf)
        self.rows.append(row)
        if not trainer.is_global_zero:
            return
        if is_best:
            self.average.swap(pl_module)
            weights = _trained_state(trainer, pl_module)
            save_state(self.files.best, {MONITOR: row[MONITOR], "epoch": row["epoch"], **weights})
            self.average.swap(pl_module)
        save_state(self.files.last, self._kept(trainer, pl_module))
        self._curves.write(self.rows)

    def _measured(self, trainer: pl.Trainer) -> dict[str, float]:
        """Return the row of the epoch, with what the module logged as the mean over processes."""
        assert MONITOR in trainer.callback_metrics, f"the module logs {MONITOR}"
        row: dict[str, float] = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        for name, value in sorted(trainer.callback_metrics.items()):
            row[name] = float(trainer.strategy.reduce(value.detach(), reduce_op="mean"))
        row["grad_norm"] = self.guard.mean_norm()
        row |= _learning_rates(trainer)
        for name, number in row.items():
            if not math.isfinite(number):
                raise InputError(
                    f"training stopped after epoch {trainer.current_epoch}",
                    expected=f"a finite {name}",
                    found=str(number),
                    fix="Lower the learning rate; the last good checkpoint is kept.",
                )
        return row

    def _kept(self, trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, Any]:
        return {
            "epochs": len(self.rows),
            "steps": trainer.global_step,
            **_trained_state(trainer, module),
            "average": self.average.state(),
            "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
            "schedulers": [item.scheduler.state_dict() for item in trainer.lr_scheduler_configs],
            "rows": self.rows,
            "seconds": self.wait.state(),
        }

    def _restore(
        self, state: dict[str, Any], trainer: pl.Trainer, module: pl.LightningModule
    ) -> None:
        load_trained(module, state, self.files.last)
        self.average.restore(state["average"], module)
        self.wait.restore(state["seconds"])
        for optimizer, kept in zip(trainer.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        for item, kept in zip(trainer.lr_scheduler_configs, state["schedulers"], strict=True):
            item.scheduler.load_state_dict(kept)
        done = dict.fromkeys(("ready", "started", "processed", "completed"), state["epochs"])
        trainer.fit_loop.epoch_progress.current.load_state_dict(done)
        stepping = trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress
        stepping.optimizer.step.total.completed = state["steps"]


def load_trained(module: pl.LightningModule, state: Mapping[str, Any], path: Path) -> None:
    """Load what was kept of a module; what is never trained stays as it was built.

    Raises:
        ResumeError: the module, though its plan is the same, is another one now.
    """
    missing, unexpected = module.load_state_dict(state["state_dict"], strict=False)
    different = sorted({*unexpected, *set(missing).symmetric_difference(state["fixed"])})
    if different:
        raise ResumeError(
            f"cannot resume from {path}",
            expected="the weights that this version trains",
            found="different ones: " + ", ".join(different[:3]),
            fix="Use the version it was begun with, or leave out --resume to start anew.",
        )


def _trained_state(trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, Any]:
    """Return weights and buffers, and the names of weights without an optimizer, which stay out."""
    trained = {
        id(parameter)
        for optimizer in trainer.optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    fixed = {name for name, value in module.named_parameters() if id(value) not in trained}
    state: dict[str, Tensor] = {
        name: value for name, value in module.state_dict().items() if name not in fixed
    }
    return {"state_dict": state, "fixed": sorted(fixed & module.state_dict().keys())}


def _learning_rates(trainer: pl.Trainer) -> dict[str, float]:
    """Return ``lr``, or ``lr-NAME`` of each group if there are several."""
    groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
    if len(groups) == 1:
        return {"lr": float(groups[0]["lr"])}
    return {f"lr-{group.get('name', i)}": float(group["lr"]) for i, group in enumerate(groups)}
