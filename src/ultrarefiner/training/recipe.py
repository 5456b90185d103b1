"""A training run as written in a recipe: every number that a result depends on."""

from __future__ import annotations

from dataclasses import dataclass, field

from ultrarefiner.coarse import CoarseConfig
from ultrarefiner.data.augmentation import AugmentationConfig
from ultrarefiner.errors import ConfigError
from ultrarefiner.losses import CrossEntropyDice


@dataclass(frozen=True, kw_only=True)
class Phase1Config:
    """Supervised training of the coarse network.

    Attributes:
        epochs: passes over the training images.
        batch_size: images a step.
        learning_rate: highest of the one-cycle schedule (AdamW).
        weight_decay: of AdamW.
        warmup_share: share of the steps in which the rate rises.
        max_grad_norm: gradients are clipped to this length.
        ema_decay: of the running average of the weights, which is validated and kept.
        loss: of each image.
    """

    epochs: int = 18
    batch_size: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    warmup_share: float = 0.15
    max_grad_norm: float = 1.0
    ema_decay: float = 0.99
    loss: CrossEntropyDice = field(default_factory=CrossEntropyDice)

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"phase1 {name}", expected=">= 1", found=str(getattr(self, name)))
        for name in ("learning_rate", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"phase1 {name}", expected="> 0", found=str(getattr(self, name)))
        for name in ("warmup_share", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(
                    f"phase1 {name}", expected="0 or more, below 1", found=str(getattr(self, name))
                )
        if self.weight_decay < 0:
            raise ConfigError("phase1 weight_decay", expected=">= 0", found=str(self.weight_decay))


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """One training run.

    Attributes:
        network: the coarse network.
        augmentation: variations of the training images.
        phase1: how the coarse network is trained.
        inner_share: share of the training patients that are kept aside to choose the checkpoint.
        patient_share: share of the training patients that are used at all, for low-data studies.
        num_workers: processes that load images beside the training.
        seed: of everything random.
    """

    network: CoarseConfig = field(default_factory=CoarseConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    phase1: Phase1Config = field(default_factory=Phase1Config)
    inner_share: float = 0.1
    patient_share: float = 1.0
    num_workers: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.inner_share < 1:
            raise ConfigError(
                "inner_share", expected="between 0 and 1", found=str(self.inner_share)
            )
        if not 0 < self.patient_share <= 1:
            raise ConfigError(
                "patient_share", expected="above 0, at most 1", found=str(self.patient_share)
            )
        for name in ("num_workers", "seed"):
            if getattr(self, name) < 0:
                raise ConfigError(name, expected=">= 0", found=str(getattr(self, name)))
