"""Loaders of phase 1: shuffled and varied for training, as they are for choosing a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

import pytorch_lightning as pl
from torch.utils.data import DataLoader, Dataset

from ultrarefiner.data.dataset import Sample, SegmentationDataset
from ultrarefiner.data.manifest import Record
from ultrarefiner.training.engine.loaders import training_loader, validation_loader
from ultrarefiner.training.recipe import TrainingRecipe

__all__ = ["CoarseData", "NamedSample"]


class NamedSample(Sample):
    """``names``: the image's file, for messages; a list of them in a batch."""

    names: str


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

    def train_dataloader(self) -> DataLoader[NamedSample]:
        """Return the training batches; see :func:`training_loader`."""
        return training_loader(
            _Named(self.train),
            batch_size=self.recipe.phase1.batch_size,
            seed=self.recipe.seed,
            trainer=self.trainer,
            num_workers=self.recipe.num_workers,
        )

    def val_dataloader(self) -> DataLoader[NamedSample]:
        """Return every validation image once, in order."""
        return validation_loader(
            _Named(self.val),
            batch_size=self.recipe.phase1.batch_size,
            num_workers=self.recipe.num_workers,
        )


class _Named(Dataset[NamedSample]):
    """Samples with the names of their files."""

    def __init__(self, samples: SegmentationDataset) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, item: int | tuple[int, int]) -> NamedSample:
        index = item if isinstance(item, int) else item[1]
        return {**self.samples[item], "names": self.samples.records[index].image.name}
