"""Phase 1 as a Lightning module: one network, one loss, Dice per image as the judge."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from jaxtyping import Float
from torch import Tensor

from ultrarefiner.coarse import CoarseNetwork, class_probs
from ultrarefiner.data.dataset import Sample
from ultrarefiner.losses import hard_dice
from ultrarefiner.training.engine.schedules import seed_epoch
from ultrarefiner.training.recipe import Phase1Config


class CoarseModule(pl.LightningModule):
    """Train a coarse network.

    Args:
        network: changed in place.
        config: loss and schedule.
        seed: of what is random inside the network (stochastic depth, dropout).
    """

    def __init__(self, network: CoarseNetwork, config: Phase1Config, *, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed
        self.network = network.to(memory_format=torch.channels_last)
        self.config = config

    def on_train_epoch_start(self) -> None:
        """Seed what is random inside the network by the number of the epoch."""
        seed_epoch(self.seed, self.current_epoch)

    def training_step(self, batch: Sample, index: int) -> Tensor:
        """Return the mean loss of the batch."""
        loss = self._loss(batch)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(batch["image"]))
        return loss

    def validation_step(self, batch: Sample, index: int) -> None:
        """Log the mean Dice of the images, each counted once."""
        logits = self.network(_channels_last(batch["image"]))
        dice = foreground_dice(logits, batch["target"])
        self.log("val_dsc", dice.mean(), on_epoch=True, batch_size=len(dice))

    def configure_optimizers(self) -> Any:
        """AdamW under one cycle that ends with the last step."""
        config = self.config
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        num_steps = int(self.trainer.estimated_stepping_batches)
        # A first step at the full rate needs a cycle of its own; two steps are the shortest.
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            config.learning_rate,
            total_steps=max(num_steps, 2),
            pct_start=max(config.warmup_share, 1.5 / max(num_steps, 2)),
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def _loss(self, batch: Sample) -> Tensor:
        logits = self.network(_channels_last(batch["image"]))
        return self.config.loss(logits, batch["target"]).mean()


def foreground_dice(
    logits: Float[Tensor, "B C H W"], target: Float[Tensor, "B C H W"]
) -> Float[Tensor, "B"]:
    """Return the Dice of each image's foreground above 0.5, on this grid; 1 if both are empty."""
    found = 1 - class_probs(logits)[:, 0] > 0.5
    true = (target[:, 0] if target.shape[1] == 1 else 1 - target[:, 0]) > 0.5
    return hard_dice(found, true)


def _channels_last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)
