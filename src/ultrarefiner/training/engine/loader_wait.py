"""How long training waits for images."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import Any

import pytorch_lightning as pl


class LoaderWait(pl.Callback):
    """Measure the share of training time spent between the end of a step and the next batch.

    Its state is kept with a run's, so that a resumed run counts all its sessions.

    Attributes:
        waiting_seconds: spent waiting for batches.
        working_seconds: spent in training steps.
        total_seconds: of whole epochs, with their validation.
    """

    def __init__(self) -> None:
        self.waiting_seconds = 0.0
        self.working_seconds = 0.0
        self.total_seconds = 0.0
        self._mark: float | None = None
        self._epoch_start = 0.0

    @property
    def share(self) -> float:
        """Share of the time that went into waiting; 0 before the first step."""
        total = self.waiting_seconds + self.working_seconds
        return self.waiting_seconds / total if total else 0.0

    def state(self) -> dict[str, float]:
        """Return what a resumed run goes on from."""
        return {
            "waiting": self.waiting_seconds,
            "working": self.working_seconds,
            "total": self.total_seconds,
        }

    def restore(self, state: Mapping[str, float]) -> None:
        """Go on from a state."""
        self.waiting_seconds, self.working_seconds = state["waiting"], state["working"]
        self.total_seconds = state["total"]

    def on_train_epoch_start(self, *_: Any) -> None:
        """Begin to wait for the first batch."""
        self._mark = self._epoch_start = perf_counter()

    def on_train_batch_start(self, *_: Any) -> None:
        """End the wait."""
        self.waiting_seconds += self._since_mark()

    def on_train_batch_end(self, *_: Any) -> None:
        """End the step."""
        self.working_seconds += self._since_mark()

    def on_train_epoch_end(self, *_: Any) -> None:
        """End the epoch."""
        self.total_seconds += perf_counter() - self._epoch_start

    def _since_mark(self) -> float:
        before, self._mark = self._mark, perf_counter()
        return 0.0 if before is None else self._mark - before
