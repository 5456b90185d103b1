"""Losses: logits and targets in, one number an image out."""

from ultrarefiner.losses.segmentation import CrossEntropyDice, soft_dice_loss

__all__ = ["CrossEntropyDice", "soft_dice_loss"]
