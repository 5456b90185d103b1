"""Losses: logits and targets in, one number an image out."""

from ultrarefiner.losses.anchor import AnchorReduction, weight_anchor, weights_of
from ultrarefiner.losses.compound import Combo, ExponentialLogarithmic, Loss, WeightedSum
from ultrarefiner.losses.interface import scale_gradient
from ultrarefiner.losses.joint import JOINT_LOSSES, BCEDice, JointLoss
from ultrarefiner.losses.monai_losses import MonaiLoss
from ultrarefiner.losses.overlap import dice_loss, hard_dice
from ultrarefiner.losses.pixels import Focal, bce, bce_of_probs, focal
from ultrarefiner.losses.ranked import Lovasz, TopK
from ultrarefiner.losses.refiner import (
    REFINER_LOSSES,
    ChangePenalty,
    RefinerLoss,
    iou_head_loss,
)
from ultrarefiner.losses.segmentation import CrossEntropyDice
from ultrarefiner.losses.terms import LossTerms
from ultrarefiner.losses.zoo import LOSSES

__all__ = [
    "JOINT_LOSSES",
    "LOSSES",
    "REFINER_LOSSES",
    "AnchorReduction",
    "BCEDice",
    "ChangePenalty",
    "Combo",
    "CrossEntropyDice",
    "ExponentialLogarithmic",
    "Focal",
    "JointLoss",
    "Loss",
    "LossTerms",
    "Lovasz",
    "MonaiLoss",
    "RefinerLoss",
    "TopK",
    "WeightedSum",
    "bce",
    "bce_of_probs",
    "dice_loss",
    "focal",
    "hard_dice",
    "iou_head_loss",
    "scale_gradient",
    "weight_anchor",
    "weights_of",
]
