"""What phases 2 and 3 share: the stages, masks for every training image, cached embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from torch.utils.data import DataLoader

from ultrarefiner.coarse import CoarseConfig
from ultrarefiner.data.manifest import Record
from ultrarefiner.foundation import FOUNDATION_MODELS, FoundationModel
from ultrarefiner.precision import bf16_is_fast, choose_device
from ultrarefiner.refine.assembly import grid_side
from ultrarefiner.training.embedding_cache import IDENTITY, VIEWS, EmbeddingCache
from ultrarefiner.training.engine.loaders import training_loader, validation_loader
from ultrarefiner.training.options import RunOptions, Track
from ultrarefiner.training.out_of_fold import OutOfFold, make_out_of_fold
from ultrarefiner.training.recipe import Phase2Config, Phase3Config, TrainingRecipe
from ultrarefiner.training.refinement_data import Collate, Mixture, RefinementDataset
from ultrarefiner.training.split import TrainingSplit

_ANOTHER_BUILDS_S = 24 * 3600.0


@dataclass(frozen=True, kw_only=True)
class Material:
    """What phases 2 and 3 learn from.

    Attributes:
        recipe: every setting.
        split: who is learned from, chosen on, held out.
        side: of the pipeline's coarse grid [px].
        out_of_fold: predictions for every image of the split's training and inner validation.
        cache: embeddings of these images; ``None`` where the view follows the mask or the
            encoder is trained.
        digests: image path to the sha256 of its pixels.
    """

    recipe: TrainingRecipe
    split: TrainingSplit
    side: int
    out_of_fold: OutOfFold
    cache: EmbeddingCache | None
    digests: Mapping[Path, str]

    def data(
        self, config: Phase2Config | Phase3Config, *, network: CoarseConfig | None = None
    ) -> RefinementData:
        """Return the loaders of a phase.

        Args:
            config: shares and batch size.
            network: of the coarse network, if it takes part.
        """
        given, seed = 1.0, self.recipe.seed
        if isinstance(config, Phase3Config):  # what phase 2 has seen is corrupted in another way
            given, seed = config.kept_share, _another_seed(seed)
        train = Mixture(
            given_share=given,
            real_share=config.real_share,
            unasked_share=config.unasked_share,
            flip_share=0.5 if config.flips else 0.0,
            shape_share=config.shape_share,
            grey_share=config.grey_share,
            augmentation=self.recipe.augmentation,
            corruption=self.recipe.corruption,
        )
        val = Mixture(given_share=1.0 if network is None else 0.0)
        return RefinementData(
            self._items(self.split.learned, train, network, seed=seed),
            self._items(self.split.val, val, network, seed=seed),
            collate=Collate(self.cache),
            batch_size=config.batch_size,
            num_workers=self.recipe.num_workers,
        )

    def _items(
        self,
        records: Sequence[Record],
        mixture: Mixture,
        network: CoarseConfig | None,
        *,
        seed: int,
    ) -> RefinementDataset:
        return RefinementDataset(
            records,
            mixture,
            self.side,
            out_of_fold=self.out_of_fold,
            digests=[self.digests[record.image] for record in records] if self.cache else None,
            network_frame=(network.side, network.num_classes) if network else None,
            num_classes=self.recipe.network.num_classes,
            natives=self.recipe.encodes_in_training,
            seed=seed,
        )


def gather_material(
    recipe: TrainingRecipe,
    split: TrainingSplit,
    folder: Path,
    options: RunOptions,
    *,
    embeddings: Path,
) -> Material:
    """Make what phases 2 and 3 learn from; what is there from an earlier run is used again.

    Args:
        recipe: every setting.
        split: of the outer fold.
        folder: of the outer fold's run; the inner networks go to ``folder/inner``.
        options: how to carry it out.
        embeddings: folder of the cache, which may be shared by all folds and runs.

    Raises:
        InputError: an image cannot be used, or there are too few patients.
        OutputError: the disk is too small for the embeddings.
    """
    model = FOUNDATION_MODELS[recipe.foundation]()
    side = grid_side(model, recipe.refiner)
    out_of_fold = make_out_of_fold(
        recipe,
        (*split.train, *split.val),
        folder / "inner",
        side=side,
        options=options,
        others=split.pseudo,
    )
    cache: EmbeddingCache | None = None
    digests: dict[Path, str] = {}
    if not recipe.encodes_in_training:
        cache, digests = _cache(recipe, model, [r.image for r in split.used], options, embeddings)
    predicted = tuple(r for r in split.pseudo if r.image in out_of_fold.places)
    return Material(
        recipe=recipe,
        split=replace(split, pseudo=predicted),
        side=side,
        out_of_fold=out_of_fold,
        cache=cache,
        digests=digests,
    )


class RefinementData(pl.LightningDataModule):
    """Loaders of phases 2 and 3.

    Args:
        train: what is learned from.
        val: what the checkpoint is chosen on.
        collate: brings items together.
        batch_size: items a step.
        num_workers: processes that load beside the training.
    """

    def __init__(
        self,
        train: RefinementDataset,
        val: RefinementDataset,
        *,
        collate: Collate,
        batch_size: int,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.train, self.val, self.collate = train, val, collate
        self.batch_size, self.num_workers = batch_size, num_workers

    def preload(self, track: Track) -> None:
        """Read every case now, so that a bad one is met before anything else is done."""
        self.train.preload(track)
        self.val.preload(track)

    def train_dataloader(self) -> DataLoader[Any]:
        """Return whole batches in random order; one smaller batch if there are too few images."""
        return training_loader(
            self.train,
            batch_size=self.batch_size,
            seed=self.train.seed,
            trainer=self.trainer,
            num_workers=self.num_workers,
            collate=self.collate,
        )

    def val_dataloader(self) -> DataLoader[Any]:
        """Return every validation image once, in order."""
        return validation_loader(
            self.val,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            collate=self.collate,
        )


def _another_seed(seed: int) -> int:
    return int(np.random.SeedSequence([seed, 3]).generate_state(1)[0])


def _cache(
    recipe: TrainingRecipe,
    model: FoundationModel,
    images: Sequence[Path],
    options: RunOptions,
    folder: Path,
) -> tuple[EmbeddingCache, dict[Path, str]]:
    device = choose_device(options.hardware.device)
    flips = recipe.phase2.flips or recipe.phase3.flips
    cache = EmbeddingCache.open(
        folder, model, views=VIEWS if flips else (IDENTITY,), bf16=bf16_is_fast(device)
    )
    built = cache.build(model.to(device), images, wait_s=_ANOTHER_BUILDS_S, track=options.track)
    options.say(built.describe())
    return cache, dict(zip(images, built.images, strict=True))
