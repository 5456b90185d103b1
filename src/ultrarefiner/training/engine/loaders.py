"""Loaders whose batches are a pure function of seed and epoch, on one process or on several."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sized
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ultrarefiner.errors import ConfigError


class EpochSampler(Sampler[tuple[int, int]]):
    """A new order every epoch, a pure function of seed and epoch.

    It yields ``(epoch, index)``, so that the dataset's variations are replayable too. Lightning
    calls :meth:`set_epoch`, also when a run is resumed.

    Of several processes each gets its part of every batch: process r of N the r-th of N equal
    parts. Put together they see the batches of one process.

    Args:
        num_items: of the dataset.
        seed: of the order.
        batch_size: items a step, over all processes.
        rank: which process this is.
        num_ranks: how many there are; they divide the batch.
    """

    def __init__(
        self, num_items: int, seed: int, *, batch_size: int = 1, rank: int = 0, num_ranks: int = 1
    ) -> None:
        self.num_items, self.seed, self.epoch = num_items, seed, 0
        self.batch_size, self.rank, self.num_ranks = batch_size, rank, num_ranks

    def __len__(self) -> int:
        return self.num_items if self.num_ranks == 1 else len(self._part(np.arange(self.num_items)))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.num_items)
        if self.num_ranks > 1:
            order = self._part(order)
        return iter([(self.epoch, int(index)) for index in order])

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch."""
        self.epoch = epoch

    def _part(self, order: np.ndarray) -> np.ndarray:
        """Return this process's part of every whole batch."""
        whole = order[: len(order) - len(order) % self.batch_size]
        return whole.reshape(-1, self.num_ranks, self.batch_size // self.num_ranks)[
            :, self.rank
        ].ravel()


def training_loader(
    dataset: Dataset[Any],
    *,
    batch_size: int,
    seed: int,
    trainer: pl.Trainer | None = None,
    num_workers: int = 0,
    collate: Callable[[list[Any]], Any] | None = None,
) -> DataLoader[Any]:
    """Return whole batches in random order; one smaller batch if there are too few images.

    The loader's own random numbers (it draws one for its workers) come from a generator of its own:
    out of torch's global one they would change what a network draws, unlike when it is resumed.

    Args:
        dataset: asked for ``(epoch, index)``.
        batch_size: over all processes.
        seed: of the order.
        trainer: knows how many processes there are; one if ``None``.
        num_workers: processes that load beside each training process.
        collate: brings items together; the default of torch if ``None``.

    Raises:
        ConfigError: several processes cannot share a batch equally.
    """
    assert isinstance(dataset, Sized), "a dataset of known length"
    num_items = len(dataset)
    rank, num_ranks = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
    if num_ranks > 1 and (batch_size % num_ranks or num_items < batch_size):
        raise ConfigError(
            "batch_size",
            expected=f"a multiple of the {num_ranks} processes, at most the {num_items} images",
            found=str(batch_size),
        )
    return DataLoader(
        dataset,
        batch_size=batch_size // num_ranks,
        sampler=EpochSampler(
            num_items, seed, batch_size=batch_size, rank=rank, num_ranks=num_ranks
        ),
        drop_last=num_items >= batch_size,
        num_workers=num_workers,
        collate_fn=collate,
        generator=torch.Generator().manual_seed(seed),
    )


def validation_loader(
    dataset: Dataset[Any],
    *,
    batch_size: int,
    num_workers: int = 0,
    collate: Callable[[list[Any]], Any] | None = None,
) -> DataLoader[Any]:
    """Return every image once, in order, on every process: its score is that of one process.

    Args:
        dataset: asked for an index.
        batch_size: images at a time.
        num_workers: processes that load beside each training process.
        collate: brings items together; the default of torch if ``None``.
    """
    return DataLoader(
        dataset,
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=collate,
        generator=torch.Generator().manual_seed(0),
    )
