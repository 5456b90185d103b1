"""Coarse networks behind one protocol: grey images in, logits out."""

from ultrarefiner.coarse.checkpoint import CoarseCheckpoint, encode_checkpoint, load_checkpoint
from ultrarefiner.coarse.monai_unet import MonaiUnet
from ultrarefiner.coarse.predictor import CoarsePredictor
from ultrarefiner.coarse.protocol import (
    COARSE_NETWORKS,
    CoarseConfig,
    CoarseNetwork,
    build_coarse,
    class_probs,
)
from ultrarefiner.coarse.smp_unet import SmpUnet

__all__ = [
    "COARSE_NETWORKS",
    "CoarseCheckpoint",
    "CoarseConfig",
    "CoarseNetwork",
    "CoarsePredictor",
    "MonaiUnet",
    "SmpUnet",
    "build_coarse",
    "class_probs",
    "encode_checkpoint",
    "load_checkpoint",
]
