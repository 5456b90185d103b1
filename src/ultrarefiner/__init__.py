"""UltraRefiner: refine coarse ultrasound segmentations with promptable foundation models.

Research software, not a medical device.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ultrarefiner._version import __version__

if TYPE_CHECKING:
    from ultrarefiner.metrics import evaluate_mask
    from ultrarefiner.refine.assembly import RefinerConfig
    from ultrarefiner.refine.checkpoint import load_refiner
    from ultrarefiner.refine.folder import refine_folder
    from ultrarefiner.refine.predictor import RefinedImage, Refiner

__all__ = [
    "RefinedImage",
    "Refiner",
    "RefinerConfig",
    "__version__",
    "evaluate_mask",
    "load_refiner",
    "refine_folder",
]

_HOMES = {
    "RefinedImage": "ultrarefiner.refine.predictor",
    "Refiner": "ultrarefiner.refine.predictor",
    "RefinerConfig": "ultrarefiner.refine.assembly",
    "evaluate_mask": "ultrarefiner.metrics",
    "load_refiner": "ultrarefiner.refine.checkpoint",
    "refine_folder": "ultrarefiner.refine.folder",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that ``import ultrarefiner`` is quick (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
