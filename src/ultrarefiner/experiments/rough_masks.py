"""How much does refinement help a mediocre mask? Real images, rough versions of their true masks.

Every variant of the refiner gets the same rough masks. The truth is never shown to the refiner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ultrarefiner.data.manifest import Record
from ultrarefiner.data.rough import RoughConfig, roughen_mask
from ultrarefiner.data.sources import read_busbra
from ultrarefiner.errors import ConfigError
from ultrarefiner.experiments.remembering import RememberingModel
from ultrarefiner.experiments.scores import Scores, choose_records, open_case
from ultrarefiner.foundation import FOUNDATION_MODELS
from ultrarefiner.refine.predictor import Refiner, RefinerConfig
from ultrarefiner.shapes import GreyImage, Mask


@dataclass(frozen=True, kw_only=True)
class RoughMaskExperiment:
    """One run, as written in a recipe.

    Attributes:
        folds: official folds of BUS-BRA whose images are used.
        num_images: how many of them, patient after patient in random order; all if ``None``.
        seed: of the draw and of the rough masks.
        generator: how rough the masks are.
        foundation: name in the registry.
        variants: name to refiner settings; the first is the one whose cases are recorded.
    """

    folds: tuple[str, ...]
    num_images: int | None = None
    seed: int = 0
    generator: RoughConfig = field(default_factory=RoughConfig)
    foundation: str = "lite-medsam"
    variants: dict[str, RefinerConfig] = field(default_factory=lambda: {"default": RefinerConfig()})

    def __post_init__(self) -> None:
        if not self.variants:
            raise ConfigError("experiment variants", expected="at least one", found="none")


def run_rough_masks(
    experiment: RoughMaskExperiment,
    root: Path,
    *,
    command: str = "",
    device: str = "auto",
    track: Callable[[Iterable[Record], int], Iterable[Record]] = lambda items, _: items,
) -> dict[str, Any]:
    """Run every variant on every image.

    Args:
        experiment: what to run.
        root: folder of BUS-BRA in its original layout.
        command: recorded in the result.
        device: where to compute.
        track: wraps the iteration over images, for a progress bar.

    Returns:
        The result as it is stored: provenance, one summary per variant, cases of the first.
    """
    records = choose_records(read_busbra(root), experiment)
    model = RememberingModel(FOUNDATION_MODELS[experiment.foundation]())
    refiners = {
        name: Refiner(model, config, device=device) for name, config in experiment.variants.items()
    }
    scores = Scores(refiners)
    for index, record in enumerate(track(records, len(records))):
        image, truth, rough = open_rough(scores, record, experiment, index)
        for name, refiner in refiners.items():
            result = refiner(image, rough.astype(np.float32), is_hard=True)
            scores.add(name, record, result.mask, truth, result.reason)
        model.forget()
    return scores.result(experiment, command)


def open_rough(
    scores: Scores, record: Record, experiment: RoughMaskExperiment, index: int
) -> tuple[GreyImage, Mask, Mask]:
    """Return image, truth and rough mask of one record, and score the rough mask."""
    image, truth = open_case(record)
    rng = np.random.default_rng([experiment.seed, index])
    rough = roughen_mask(truth, rng, experiment.generator)
    scores.begin(record, image, truth, rough)
    return image, truth, rough
