"""How much does refinement help a mediocre mask? Real images, rough versions of their true masks.

Every variant of the refiner gets the same rough masks. The truth is never shown to the refiner.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ultrarefiner.data.rough import RoughConfig
from ultrarefiner.data.sources import read_busbra
from ultrarefiner.experiments.scores import choose_records
from ultrarefiner.experiments.sources import RoughMasks
from ultrarefiner.experiments.variants import Track, check_variants, score_variants, untracked
from ultrarefiner.refine.assembly import RefinerConfig


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
        check_variants(self.variants)


def run_rough_masks(
    experiment: RoughMaskExperiment,
    root: Path,
    *,
    command: str = "",
    device: str = "auto",
    track: Track = untracked,
    partial: Path | None = None,
) -> dict[str, Any]:
    """Run every variant on every image.

    Args:
        experiment: what to run.
        root: folder of BUS-BRA in its original layout.
        command: recorded in the result.
        device: where to compute.
        track: wraps the iteration over images, for a progress bar.
        partial: keeps the finished images of an interrupted run, see :func:`score_variants`.

    Returns:
        The result as it is stored: provenance, one summary per variant, cases of the first.
    """
    records = choose_records(read_busbra(root), experiment)
    source = RoughMasks(generator=experiment.generator, seed=experiment.seed)
    scores = score_variants(
        records,
        {"rough": source},
        experiment.variants,
        foundation=experiment.foundation,
        device=device,
        track=track,
        partial=partial,
    )
    return scores["rough"].result(experiment, command)
