"""A training run as written in a recipe: every number that a result depends on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ultrarefiner.coarse import CoarseConfig
from ultrarefiner.data.augmentation import AugmentationConfig
from ultrarefiner.data.corruption import CorruptionConfig
from ultrarefiner.errors import ConfigError
from ultrarefiner.losses import CrossEntropyDice, JointLoss, RefinerLoss
from ultrarefiner.refine.assembly import RefinerConfig
from ultrarefiner.refine.gates import GateConfig, build_gate
from ultrarefiner.refine.localization import LocalizerConfig
from ultrarefiner.refine.prompts import PromptConfig
from ultrarefiner.refine.selection import SelectionConfig

_SHARES = ("real_share", "unasked_share", "shape_share", "grey_share")


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """What every phase needs to know to step.

    Attributes:
        epochs: passes over the training images.
        batch_size: images a step; over all processes, if there are several.
        weight_decay: of AdamW.
        warmup_share: share of the steps in which the rate rises.
        max_grad_norm: gradients are clipped to this length.
        ema_decay: of the running average of the weights, which is validated and kept; 0 for none.
    """

    epochs: int
    batch_size: int
    weight_decay: float = 1e-2
    warmup_share: float = 0.15
    max_grad_norm: float = 1.0
    ema_decay: float = 0.99

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            self._require(getattr(self, name) >= 1, name, ">= 1")
        for name in ("warmup_share", "ema_decay"):
            self._require(0 <= getattr(self, name) < 1, name, "0 or more, below 1")
        self._require(self.max_grad_norm > 0, "max_grad_norm", "> 0")
        self._require(self.weight_decay >= 0, "weight_decay", ">= 0")

    def _require(self, ok: bool, name: str, expected: str) -> None:
        if not ok:
            phase = type(self).__name__.removesuffix("Config").lower()
            raise ConfigError(f"{phase} {name}", expected=expected, found=str(getattr(self, name)))


@dataclass(frozen=True, kw_only=True)
class Phase1Config(Schedule):
    """Supervised training of the coarse network.

    Attributes:
        learning_rate: highest of the one-cycle schedule (AdamW).
        loss: of each image.
    """

    epochs: int = 18
    batch_size: int = 16
    learning_rate: float = 1e-3
    loss: CrossEntropyDice = field(default_factory=CrossEntropyDice)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.learning_rate > 0, "learning_rate", "> 0")


@dataclass(frozen=True, kw_only=True)
class InnerConfig:
    """Networks that make masks for patients whom they have not seen, out of the training patients.

    Attributes:
        folds: number of such networks; each is trained on the others' patients.
        epochs: of each; as in phase 1 if not given.
    """

    folds: int = 3
    epochs: int | None = None

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise ConfigError("inner folds", expected="2 or more", found=str(self.folds))
        if self.epochs is not None and self.epochs < 1:
            raise ConfigError("inner epochs", expected=">= 1", found=str(self.epochs))


@dataclass(frozen=True, kw_only=True)
class Phase2Config(Schedule):
    """Training of the foundation model's decoder to correct masks.

    Attributes:
        learning_rate: highest of the cosine schedule (AdamW).
        encoder_learning_rate: highest of the image encoder, where it is trained.
        real_share: probability that an item's mask is an out-of-fold prediction; else it is a
            corrupted truth.
        unasked_share: probability that a given mask is replaced by an empty one, so that the model
            learns to segment without being told where.
        gated: whether masks are validated behind the gate (the loss is that of the decoder's answer
            before it), other lesions taken out of them; a gate that learns always takes part.
        flips: also show mirrored images.
        shape_share: probability that an item is moved and deformed as ``augmentation`` says, image,
            truth and mask alike; above 0 only where the image encoder runs in every step.
        grey_share: the same of grey levels.
        loss: of each image; with an ``iou_weight`` every candidate is supervised, else the selected
            map.
    """

    epochs: int = 12
    batch_size: int = 4
    learning_rate: float = 1e-4
    encoder_learning_rate: float = 3e-5
    warmup_share: float = 0.05
    real_share: float = 0.5
    unasked_share: float = 0.0
    gated: bool = True
    flips: bool = True
    shape_share: float = 0.0
    grey_share: float = 0.0
    loss: RefinerLoss = field(default_factory=RefinerLoss)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.learning_rate > 0, "learning_rate", "> 0")
        self._require(self.encoder_learning_rate > 0, "encoder_learning_rate", "> 0")
        for name in _SHARES:
            self._require(0 <= getattr(self, name) <= 1, name, "0 to 1")


@dataclass(frozen=True, kw_only=True)
class Phase3Config(Schedule):
    """Training of both networks through the prompts.

    Attributes:
        coarse_learning_rate: highest of the coarse network; below ``learning_rate``.
        learning_rate: highest of the foundation model's tuned parts.
        encoder_learning_rate: highest of the image encoder, where it is trained.
        gate_learning_rate: highest of a gate that learns.
        frozen_epochs: epochs at the start in which the coarse network is left as it is.
        interface_scale: alpha, what the gradient of the refined loss is multiplied by where it
            enters the coarse network; 0 cuts it off.
        kept_share: probability that an item keeps a given mask as its prompt (which gives no
            gradient to the coarse network), since the network's own masks of images that it
            trains on are too good.
        real_share: probability that such a mask is an out-of-fold prediction; else it is a
            corrupted truth.
        unasked_share: probability that a given mask is replaced by an empty one, so that the model
            learns to segment without being told where.
        gated: whether loss and validation are those of the gated map; else the gate, which must
            have nothing to learn, acts in prediction alone.
        flips: also show mirrored images.
        shape_share: probability that an item is moved and deformed as ``augmentation`` says, image,
            truth and mask alike; above 0 only where the image encoder runs in every step.
        grey_share: the same of grey levels.
        max_drift: warn when the coarse Dice falls by more than this below that of phase 1.
        loss: of each image.
    """

    epochs: int = 6
    batch_size: int = 4
    coarse_learning_rate: float = 5e-6
    learning_rate: float = 1e-5
    encoder_learning_rate: float = 3e-6
    gate_learning_rate: float = 1e-3
    warmup_share: float = 0.05
    frozen_epochs: int = 1
    interface_scale: float = 1.0
    kept_share: float = 0.5
    real_share: float = 0.5
    unasked_share: float = 0.0
    gated: bool = True
    flips: bool = True
    shape_share: float = 0.0
    grey_share: float = 0.0
    max_drift: float = 0.005
    loss: JointLoss = field(default_factory=JointLoss)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.learning_rate > 0, "learning_rate", "> 0")
        self._require(self.encoder_learning_rate > 0, "encoder_learning_rate", "> 0")
        self._require(self.gate_learning_rate > 0, "gate_learning_rate", "> 0")
        self._require(
            0 < self.coarse_learning_rate < self.learning_rate,
            "coarse_learning_rate",
            "above 0, below that of the foundation model",
        )
        self._require(0 <= self.frozen_epochs < self.epochs, "frozen_epochs", "0 to epochs - 1")
        for name in ("interface_scale", "kept_share", *_SHARES):
            self._require(0 <= getattr(self, name) <= 1, name, "0 to 1")
        self._require(self.max_drift >= 0, "max_drift", ">= 0")


def trainable_refiner() -> RefinerConfig:
    """Return settings under which one answer an item is trained: one box, one candidate."""
    return RefinerConfig(
        localizer=LocalizerConfig(dominant_only=True),
        prompts=PromptConfig(jitter=0.0),
        selection=SelectionConfig(kind="single"),
        gate=GateConfig(kind="none"),
    )


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """One training run.

    Attributes:
        network: the coarse network.
        augmentation: variations of the training images of phase 1, and in later phases of shares
            of them (``shape_share``, ``grey_share``).
        phase1: how the coarse network is trained.
        inner: how masks for phases 2 and 3 are made by networks that have not seen the patient.
        foundation: the promptable model, see ``ultrarefiner list foundation``.
        refiner: the stages around it; the stabiliser takes no part in training.
        trainable: what of the foundation model is trained.
        corruption: errors that true masks get in phases 2 and 3.
        phase2: how the foundation model is trained to correct.
        phase3: how both are trained together.
        inner_share: share of the training patients that are kept aside to choose the checkpoint.
        patient_share: share of the training patients whose true masks are used, for low-data
            studies.
        min_pseudo_iou: predicted IoU below which a mask that a network drew (``--pseudo``) is not
            learned from, in [0, 1].
        num_workers: processes that load images beside the training.
        seed: of everything random.
    """

    network: CoarseConfig = field(default_factory=CoarseConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    phase1: Phase1Config = field(default_factory=Phase1Config)
    inner: InnerConfig = field(default_factory=InnerConfig)
    foundation: str = "lite-medsam"
    refiner: RefinerConfig = field(default_factory=trainable_refiner)
    trainable: Literal["decoder", "decoder+prompt", "decoder+prompt+tail", "all"] = "decoder"
    corruption: CorruptionConfig = field(default_factory=CorruptionConfig)
    phase2: Phase2Config = field(default_factory=Phase2Config)
    phase3: Phase3Config = field(default_factory=Phase3Config)
    inner_share: float = 0.1
    patient_share: float = 1.0
    min_pseudo_iou: float = 0.5
    num_workers: int = 0
    seed: int = 0

    @property
    def encodes_in_training(self) -> bool:
        """Whether the image encoder runs in every step: its view follows the mask, or it learns."""
        return self.refiner.roi.crop or self.trainable in ("decoder+prompt+tail", "all")

    def __post_init__(self) -> None:
        if not 0 < self.inner_share < 1:
            raise ConfigError(
                "inner_share", expected="between 0 and 1", found=str(self.inner_share)
            )
        if not 0 < self.patient_share <= 1:
            raise ConfigError(
                "patient_share", expected="above 0, at most 1", found=str(self.patient_share)
            )
        if not 0 <= self.min_pseudo_iou <= 1:
            raise ConfigError("min_pseudo_iou", expected="0 to 1", found=str(self.min_pseudo_iou))
        if self.refiner.flips:
            raise ConfigError(
                "refiner flips",
                expected="false in training",
                found="true",
                fix="phase2.flips and phase3.flips show mirrored images; --flips is for predict.",
            )
        self._check_phase("phase2", self.phase2)
        self._check_phase("phase3", self.phase3)
        for name in ("num_workers", "seed"):
            if getattr(self, name) < 0:
                raise ConfigError(name, expected=">= 0", found=str(getattr(self, name)))

    def _check_phase(self, name: str, phase: Phase2Config | Phase3Config) -> None:
        """Refuse what the refiner does not allow a phase to do."""
        if self.refiner.second_opinion and not phase.unasked_share:
            raise ConfigError(
                f"{name} unasked_share",
                expected="above 0, since the refiner gives a second_opinion",
                found="0",
                fix="Let the model learn to segment without a prompt, or leave the opinion out.",
            )
        if not phase.gated and list(build_gate(self.refiner.gate).parameters()):
            raise ConfigError(
                f"{name} gated",
                expected=f"true, since the gate {self.refiner.gate.kind} learns",
                found="false",
            )
        for share in ("shape_share", "grey_share"):
            if getattr(phase, share) and not self.encodes_in_training:
                raise ConfigError(
                    f"{name} {share}",
                    expected="0, since the embeddings are cached",
                    found=str(getattr(phase, share)),
                    fix="Train the image encoder, too (trainable), or crop (refiner.roi.crop).",
                )
