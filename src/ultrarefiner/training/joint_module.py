"""Phase 3 as a Lightning module: both networks learn, through the prompts between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ultrarefiner.coarse import CoarseNetwork, class_probs
from ultrarefiner.losses import LossTerms, scale_gradient, weight_anchor, weights_of
from ultrarefiner.ops.frames import Frames
from ultrarefiner.ops.resampling import resample_between
from ultrarefiner.refine.pipeline import RefinementPipeline
from ultrarefiner.refine.refinement import Refinement
from ultrarefiner.shapes import ProbMaps
from ultrarefiner.training.engine.schedules import adamw_under_cosine, seed_epoch
from ultrarefiner.training.judging import log_dice, log_loss
from ultrarefiner.training.recipe import Phase3Config
from ultrarefiner.training.refinement_data import RefinementBatch, is_outcome, refine_dominant
from ultrarefiner.training.targets import truth_of_lesions
from ultrarefiner.training.tuning import tune, tuned_parameters


class JointModule(pl.LightningModule):
    """Train a coarse network and the tuned parts of a pipeline together.

    Args:
        network: as phase 1 left it, which is also what it is anchored to; changed in place.
        pipeline: as phase 2 left it; changed in place; without a stabiliser.
        config: losses, protection and schedule.
        trainable: what of the foundation model is trained.
        seed: of what is random inside the networks.
    """

    def __init__(
        self,
        network: CoarseNetwork,
        pipeline: RefinementPipeline,
        config: Phase3Config,
        *,
        trainable: str,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)
        self.pipeline, self.config, self.seed = pipeline, config, seed
        tune(pipeline.foundation, trainable)
        self._start = weights_of(network) if config.loss.anchor_weight else None
        self.takes_logits = is_outcome(pipeline)

    @property
    def is_frozen(self) -> bool:
        """Whether the coarse network is left as it is in this epoch.

        Its parameters then take part in no graph; ``requires_grad`` would not do, since what DDP
        keeps equal between processes is settled at the start.
        """
        return self.current_epoch < self.config.frozen_epochs

    def on_train_epoch_start(self) -> None:
        """Set the coarse network's mode, and seed what is random by the number of the epoch."""
        seed_epoch(self.seed, self.current_epoch)
        self.network.train(not self.is_frozen)
        keep_statistics(self.network)

    def training_step(self, batch: RefinementBatch, index: int) -> Tensor:
        """Return the mean loss of the batch."""
        return log_loss(self, self.loss(batch))

    def loss(self, batch: RefinementBatch) -> LossTerms:
        """Return the loss of each image."""
        with torch.set_grad_enabled(not self.is_frozen):
            logits, own = self.predict_coarse(batch)
        own = scale_gradient(own, self.config.interface_scale)
        coarse = torch.where(batch["is_given"][:, None, None, None], batch["prompt"], own)
        refinement = refine_dominant(self.pipeline, batch, coarse)
        return self.joint_loss(logits, refinement, batch)

    def validation_step(self, batch: RefinementBatch, index: int) -> None:
        """Log the mean Dice of the network's own masks and of the refined ones."""
        log_dice(self, batch)

    def refine(self, batch: RefinementBatch) -> Refinement:
        """Refine what the coarse network says."""
        return refine_dominant(self.pipeline, batch, self.predict_coarse(batch)[1])

    def predict_coarse(self, batch: RefinementBatch) -> tuple[Float[Tensor, "B C n n"], ProbMaps]:
        """Return the coarse network's logits, and its lesion map on the pipeline's grid."""
        images = batch["network_images"].contiguous(memory_format=torch.channels_last)
        logits = self.network(images)
        probs = 1 - class_probs(logits)[:, :1]
        there = Frames.letterboxed(batch["native_hw"], batch["images"].shape[-1])
        if probs.shape[-1] != there.grid_hw[0]:
            here = Frames.letterboxed(batch["native_hw"], probs.shape[-1])
            probs = resample_between(here, there)(probs)
        return logits, probs * there.content()

    def joint_loss(
        self,
        logits: Float[Tensor, "B C n n"],
        refinement: Refinement,
        batch: RefinementBatch,
    ) -> LossTerms:
        """Return the loss of each image.

        The refined map is taken as logits where the decoder's answer is the outcome, else as the
        pasted and gated probability.
        """
        loss, truth = self.config.loss, truth_of_lesions(batch["truth"], refinement.lesions)
        if self.takes_logits:
            target = refinement.view.to_mask_grid(truth)
            refined = loss.refined(target, logits=refinement.selected.logits)
        else:
            refined = loss.refined(truth, probs=refinement.probs)
        anchor = None
        if self._start is not None and not self.is_frozen:
            anchor = weight_anchor(
                self.network, self._placed_start(), reduction=loss.anchor_reduction
            )
        return loss(loss.coarse(logits, batch["classes"]), refined, anchor=anchor)

    def configure_optimizers(self) -> Any:
        """AdamW with a rate for each network, under a cosine that ends with the last step."""
        config = self.config
        encoder, others = tuned_parameters(self.pipeline.foundation)
        return adamw_under_cosine(
            [
                ("coarse", list(self.network.parameters()), config.coarse_learning_rate),
                ("refiner", others, config.learning_rate),
                ("encoder", encoder, config.encoder_learning_rate),
                ("gate", list(self.pipeline.gate.parameters()), config.gate_learning_rate),
            ],
            int(self.trainer.estimated_stepping_batches),
            weight_decay=config.weight_decay,
            warmup_share=config.warmup_share,
        )

    def _placed_start(self) -> Mapping[str, Tensor]:
        """Return the anchor on the device of the network."""
        assert self._start is not None
        if next(iter(self._start.values())).device != self.device:
            self._start = {name: value.to(self.device) for name, value in self._start.items()}
        return self._start


def keep_statistics(network: nn.Module) -> None:
    """Let batch normalisation go on with the moments of phase 1: batches are too small for new."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
