"""Promptable foundation models behind one protocol."""

from ultrarefiner.foundation.lite_medsam import LITE_MEDSAM_WEIGHTS, LiteMedSAM, lite_medsam
from ultrarefiner.foundation.mirrored import Mirrored
from ultrarefiner.foundation.protocol import (
    FOUNDATION_MODELS,
    Decoded,
    FoundationModel,
    Prompts,
)

__all__ = [
    "FOUNDATION_MODELS",
    "LITE_MEDSAM_WEIGHTS",
    "Decoded",
    "FoundationModel",
    "LiteMedSAM",
    "Mirrored",
    "Prompts",
    "lite_medsam",
]
