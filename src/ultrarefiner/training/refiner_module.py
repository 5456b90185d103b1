"""Phase 2 as a Lightning module: the foundation model learns to correct given masks."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from ultrarefiner.losses import LossTerms, RefinerLoss
from ultrarefiner.refine.pipeline import RefinementPipeline
from ultrarefiner.refine.refinement import Refinement
from ultrarefiner.shapes import ProbMaps
from ultrarefiner.training.engine.schedules import adamw_under_cosine, seed_epoch
from ultrarefiner.training.judging import log_dice, log_loss
from ultrarefiner.training.recipe import Phase2Config
from ultrarefiner.training.refinement_data import RefinementBatch, refine_dominant
from ultrarefiner.training.targets import truth_of_lesions
from ultrarefiner.training.tuning import tune, tuned_parameters


class RefinerModule(pl.LightningModule):
    """Train the tuned parts of a pipeline's foundation model.

    Args:
        pipeline: changed in place; without a stabiliser.
        config: loss and schedule.
        trainable: what of the foundation model is trained.
        seed: of what is random inside it.
    """

    def __init__(
        self, pipeline: RefinementPipeline, config: Phase2Config, *, trainable: str, seed: int = 0
    ) -> None:
        super().__init__()
        self.pipeline, self.config, self.seed = pipeline, config, seed
        tune(pipeline.foundation, trainable)
        for parameter in pipeline.gate.parameters():  # it has no say in this loss
            parameter.requires_grad_(False)

    def on_train_epoch_start(self) -> None:
        """Seed what is random inside the model by the number of the epoch."""
        seed_epoch(self.seed, self.current_epoch)

    def training_step(self, batch: RefinementBatch, index: int) -> Tensor:
        """Return the mean loss of the batch."""
        return log_loss(self, self.loss(batch))

    def loss(self, batch: RefinementBatch) -> LossTerms:
        """Return the loss of each image."""
        refinement = self.refine(batch)
        truth = truth_of_lesions(batch["truth"], refinement.lesions)
        return decoder_loss(self.config.loss, refinement, truth)

    def validation_step(self, batch: RefinementBatch, index: int) -> None:
        """Log the mean Dice of given and refined masks, each image counted once."""
        log_dice(self, batch)

    def refine(self, batch: RefinementBatch) -> Refinement:
        """Refine the given masks."""
        return refine_dominant(self.pipeline, batch, batch["prompt"])

    def configure_optimizers(self) -> Any:
        """AdamW, the encoder at its own rate, under a cosine that ends with the last step."""
        config = self.config
        encoder, others = tuned_parameters(self.pipeline.foundation)
        return adamw_under_cosine(
            [
                ("refiner", others, config.learning_rate),
                ("encoder", encoder, config.encoder_learning_rate),
            ],
            int(self.trainer.estimated_stepping_batches),
            weight_decay=config.weight_decay,
            warmup_share=config.warmup_share,
        )


def decoder_loss(loss: RefinerLoss, refinement: Refinement, truth: ProbMaps) -> LossTerms:
    """Return the loss at the decoder's resolution, on what it says before gate and paste.

    Args:
        loss: with an ``iou_weight`` it takes every candidate, else the selected map.
        refinement: of the pipeline.
        truth: share of each px of the coarse grid that is lesion.
    """
    view = refinement.view
    target, coarse = view.to_mask_grid(truth), view.to_mask_grid(refinement.coarse)
    if loss.iou_weight:
        proposals = refinement.proposals
        return loss(proposals.logits, target, coarse, iou_predictions=proposals.iou_predictions)
    return loss(refinement.selected.logits, target, coarse)
