"""Loaders of phase 1: shuffled and varied for training, as they are for choosing a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytorch_lightning as pl
from torch.utils.data import DataLoader, Sampler

from ultrarefiner.data.dataset import Sample, SegmentationDataset
from ultrarefiner.data.manifest import Record
from ultrarefiner.training.recipe import TrainingRecipe


class EpochSampler(Sampler[tuple[int, int]]):
    """A new order every epoch, a pure function of seed and epoch.

    It yields ``(epoch, index)``, so that the dataset's variations are replayable too. Lightning
    calls :meth:`set_epoch`, also when a run is resumed.
    """

    def __init__(self, num_items: int, seed: int) -> None:
        self.num_items, self.seed, self.epoch = num_items, seed, 0

    def __len__(self) -> int:
        return self.num_items

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.num_items)
        return iter([(self.epoch, int(index)) for index in order])

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch."""
        self.epoch = epoch


class CoarseData(pl.LightningDataModule):
    """Training and inner validation images of one run.

    Args:
        train: what is learned from.
        val: what the checkpoint is chosen on; patients apart from ``train``.
        recipe: frame, variations and batch size.
    """

    def __init__(
        self, train: Sequence[Record], val: Sequence[Record], recipe: TrainingRecipe
    ) -> None:
        super().__init__()
        network = recipe.network
        self.recipe = recipe
        self.train = SegmentationDataset(
            train,
            network.side,
            num_classes=network.num_classes,
            augmentation=recipe.augmentation,
            seed=recipe.seed,
        )
        self.val = SegmentationDataset(val, network.side, num_classes=network.num_classes)

    def train_dataloader(self) -> DataLoader[Sample]:
        """Return whole batches in random order; one smaller batch if there are too few images."""
        batch_size = self.recipe.phase1.batch_size
        return DataLoader(
            self.train,
            batch_size=batch_size,
            sampler=EpochSampler(len(self.train), self.recipe.seed),
            drop_last=len(self.train) >= batch_size,
            num_workers=self.recipe.num_workers,
        )

    def val_dataloader(self) -> DataLoader[Sample]:
        """Return every validation image once, in order."""
        return DataLoader(
            self.val, batch_size=self.recipe.phase1.batch_size, num_workers=self.recipe.num_workers
        )
