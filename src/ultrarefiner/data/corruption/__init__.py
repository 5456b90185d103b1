"""True masks, corrupted as coarse networks corrupt them: twelve types of error, soft or hard.

Source: the mask augmentation of the UltraRefiner design (section 4.2.2 and 4.2.3). Factors are
ratios of areas and are reached: pixels are ranked by exact distance, no kernel grows until the area
fits. Lengths are relative to the lesion. Every corruption can be replayed from its parameters.
"""

from ultrarefiner.data.corruption.config import (
    DEFAULT_PROBABILITIES,
    PRESETS,
    CorruptionConfig,
)
from ultrarefiner.data.corruption.engine import Corrupted, corrupt, replay
from ultrarefiner.data.corruption.files import PredictedMasks, read_config, write_config
from ultrarefiner.data.corruption.fitting import CorruptionFit, fit_corruption

__all__ = [
    "DEFAULT_PROBABILITIES",
    "PRESETS",
    "Corrupted",
    "CorruptionConfig",
    "CorruptionFit",
    "PredictedMasks",
    "corrupt",
    "fit_corruption",
    "read_config",
    "replay",
    "write_config",
]
