"""The masks of a trained coarse network on patients it has not seen, and their refinement."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ultrarefiner.coarse import CoarseCheckpoint, CoarsePredictor, load_checkpoint
from ultrarefiner.data.sources import read_busbra
from ultrarefiner.experiments.scores import choose_records
from ultrarefiner.experiments.sources import NetworkMasks, refuse_seen_images
from ultrarefiner.experiments.variants import Track, check_variants, score_variants, untracked
from ultrarefiner.refine.assembly import RefinerConfig


@dataclass(frozen=True, kw_only=True)
class NetworkMaskExperiment:
    """One run, as written in a recipe.

    Attributes:
        checkpoints: names or files of coarse networks; several are averaged.
        flips: average with the mirrored image.
        folds: official folds of BUS-BRA whose images are used.
        num_images: how many of them, patient after patient in random order; all if ``None``.
        seed: of the draw.
        foundation: name in the registry.
        variants: name to refiner settings; the first is the one whose cases are recorded.
    """

    checkpoints: tuple[str, ...]
    folds: tuple[str, ...]
    flips: bool = False
    num_images: int | None = None
    seed: int = 0
    foundation: str = "lite-medsam"
    variants: dict[str, RefinerConfig] = field(default_factory=lambda: {"default": RefinerConfig()})

    def __post_init__(self) -> None:
        check_variants(self.variants)


def run_network_masks(
    experiment: NetworkMaskExperiment,
    root: Path,
    *,
    command: str = "",
    device: str = "auto",
    track: Track = untracked,
    partial: Path | None = None,
) -> dict[str, Any]:
    """Predict, refine with every variant, and score both.

    Args:
        experiment: what to run.
        root: folder of BUS-BRA in its original layout.
        command: recorded in the result.
        device: where to compute.
        track: wraps the iteration over images, for a progress bar.
        partial: keeps the finished images of an interrupted run, see :func:`score_variants`.

    Returns:
        The result as it is stored: provenance with the networks' own, one summary per variant,
        strata and cases of the first.

    Raises:
        LeakError: a network was trained, or its checkpoint chosen, on one of the images.
    """
    records = choose_records(read_busbra(root), experiment)
    checkpoints = [load_checkpoint(name) for name in experiment.checkpoints]
    refuse_seen_images(checkpoints, records)
    predictor = CoarsePredictor(
        [checkpoint.network for checkpoint in checkpoints], flips=experiment.flips, device=device
    )
    scores = score_variants(
        records,
        {"network": NetworkMasks(dict.fromkeys(experiment.folds, predictor))},
        experiment.variants,
        foundation=experiment.foundation,
        device=device,
        track=track,
        partial=partial,
    )["network"]
    return scores.result(experiment, command) | {
        "strata": scores.strata(),
        "networks": [_story(checkpoint) for checkpoint in checkpoints],
    }


def _story(checkpoint: CoarseCheckpoint) -> dict[str, Any]:
    """Return the card without what only machines read."""
    return {key: value for key, value in checkpoint.card.items() if not key.endswith("_digests")}
