"""Train a module: the one place where a Lightning trainer is made, for all phases.

A module logs ``train_loss`` and ``val_dsc``, steps its schedules by steps, and seeds what is random
inside it by the number of the epoch; its loaders come from
:mod:`ultrarefiner.training.engine.loaders`. Then a run that was killed at any moment and resumed
ends, on the CPU, in the same bits as one that was not.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from ultrarefiner.errors import ConfigError
from ultrarefiner.precision import DepthwiseInFloat32
from ultrarefiner.training.engine.averaging import WeightAverage
from ultrarefiner.training.engine.checkpoints import (
    MONITOR,
    RunFiles,
    StateKeeper,
    load_state,
    load_trained,
)
from ultrarefiner.training.engine.curves import Curves
from ultrarefiner.training.engine.guards import FiniteGuard
from ultrarefiner.training.engine.hardware import Hardware, is_first_process, wait_for_others
from ultrarefiner.training.engine.loader_wait import LoaderWait
from ultrarefiner.training.recipe import Schedule

__all__ = ["Fitted", "Hardware", "fit"]

Track = Callable[[Iterable[Any], int], Iterable[Any]]


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What came of a training.

    Attributes:
        val_dsc: of the checkpoint that was chosen, the first of the highest.
        epoch: of that checkpoint, from 0.
        minutes: of training and validation, all sessions of a resumed run together.
        loader_wait_share: share of the training time that went into waiting for images.
    """

    val_dsc: float
    epoch: int
    minutes: float
    loader_wait_share: float

    def describe(self) -> str:
        """Return a line for the log."""
        return (
            f"DSC {self.val_dsc:.3f} in epoch {self.epoch + 1}; {self.minutes:.1f} min, of which "
            f"{100 * self.loader_wait_share:.1f} % waiting for images"
        )


def fit(
    module: pl.LightningModule,
    data: pl.LightningDataModule,
    folder: Path,
    *,
    schedule: Schedule,
    plan: Mapping[str, Any],
    hardware: Hardware | None = None,
    resume: bool = False,
    track: Track = lambda items, _: items,
) -> Fitted:
    """Train a module, which then holds the weights of the epoch with the highest ``val_dsc``.

    Args:
        module: trained in place.
        data: loaders for training and validation.
        folder: gets ``checkpoints/`` and ``log/``; what an earlier run left there is removed,
            unless it is resumed.
        schedule: epochs, averaging and clipping.
        plan: JSON of all that must be the same for a run to be resumed.
        hardware: where to compute.
        resume: go on after the last finished epoch; a finished run is not trained again.
        track: wraps the loop over steps, for a progress bar.

    Raises:
        InputError: nothing to resume, or another plan or version; or loss or gradient are not
            finite.
        ConfigError: several processes cannot share the batch.
    """
    files, state = RunFiles(folder), None
    if resume:
        files.check_plan(plan)
        state = load_state(files.last) if files.last.is_file() else None
    if state is None or state["epochs"] < schedule.epochs:
        trainer = _trainer(files, schedule, hardware or Hardware(), state=state, track=track)
        if trainer.is_global_zero:
            files.clean()
            if state is None:
                files.start(plan)
        _train(trainer, module, data)
        wait_for_others()
        state = load_state(files.last)
    elif is_first_process():  # a kill may have come between the last state and its curves
        files.clean()
        Curves(files.log).write(state["rows"])
    best = load_state(files.best)
    load_trained(module, best, files.best)
    wait = LoaderWait()
    wait.restore(state["seconds"])
    return Fitted(
        val_dsc=best[MONITOR],
        epoch=best["epoch"],
        minutes=wait.total_seconds / 60,
        loader_wait_share=wait.share,
    )


def _trainer(
    files: RunFiles,
    schedule: Schedule,
    hardware: Hardware,
    *,
    state: dict[str, Any] | None,
    track: Track,
) -> pl.Trainer:
    average, guard = WeightAverage(schedule.ema_decay), FiniteGuard(files.broken)
    wait = LoaderWait()
    keeper = StateKeeper(files, average=average, guard=guard, wait=wait, state=state)
    with _advice_ignored():
        trainer = pl.Trainer(
            **hardware.trainer_settings(),
            max_epochs=schedule.epochs,
            gradient_clip_val=schedule.max_grad_norm,
            callbacks=[wait, guard, average, _Progress(track), keeper],
            logger=False,
            num_sanity_val_steps=0,
            enable_model_summary=False,
            enable_progress_bar=False,
        )
    if schedule.batch_size % trainer.world_size:
        raise ConfigError(
            "batch_size",
            expected=f"a multiple of the {trainer.world_size} processes",
            found=str(schedule.batch_size),
        )
    return trainer


def _train(trainer: pl.Trainer, module: pl.LightningModule, data: pl.LightningDataModule) -> None:
    with _advice_ignored(), DepthwiseInFloat32():
        try:
            trainer.fit(module, data)
        except SystemExit as cause:  # what Lightning makes of Ctrl-C
            raise KeyboardInterrupt from cause


class _Progress(pl.Callback):
    """Go on in a loop over all steps that are left, which draws the bar."""

    def __init__(self, track: Track) -> None:
        self._track = track
        self._steps: Generator[Any] | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        num_left = int(trainer.estimated_stepping_batches) - trainer.global_step
        steps = range(num_left)
        self._steps = (step for step in self._track(steps, num_left))
        next(self._steps, None)

    def on_train_batch_end(self, *_: Any) -> None:
        assert self._steps is not None
        next(self._steps, None)

    def teardown(self, *_: Any, **__: Any) -> None:
        if self._steps is not None:
            self._steps.close()


@contextmanager
def _advice_ignored() -> Iterator[None]:
    """Silence what Lightning says of settings that were chosen on purpose."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        for advice in (
            ".*does not have many workers.*",
            ".*in eval mode at the start of training.*",
            ".*lr_scheduler.step.*",
            ".*recommended to use .*sync_dist.*",
            ".*GPU available but not used.*",
            ".*isinstance\\(treespec, LeafSpec\\).*",
        ):
            warnings.filterwarnings("ignore", message=advice)
        yield
