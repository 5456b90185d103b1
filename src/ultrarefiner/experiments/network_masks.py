"""The masks of a trained coarse network on patients it has not seen, and their refinement."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ultrarefiner.coarse import CoarseCheckpoint, CoarsePredictor, load_checkpoint
from ultrarefiner.data.manifest import Record
from ultrarefiner.data.sources import read_busbra
from ultrarefiner.errors import ConfigError, LeakError
from ultrarefiner.experiments.remembering import RememberingModel
from ultrarefiner.experiments.scores import Scores, choose_records, open_case
from ultrarefiner.foundation import FOUNDATION_MODELS
from ultrarefiner.refine.predictor import Refiner, RefinerConfig
from ultrarefiner.weights import file_sha256


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
        if not self.variants:
            raise ConfigError("experiment variants", expected="at least one", found="none")


def run_network_masks(
    experiment: NetworkMaskExperiment,
    root: Path,
    *,
    command: str = "",
    device: str = "auto",
    track: Callable[[Iterable[Record], int], Iterable[Record]] = lambda items, _: items,
) -> dict[str, Any]:
    """Predict, refine with every variant, and score both.

    Args:
        experiment: what to run.
        root: folder of BUS-BRA in its original layout.
        command: recorded in the result.
        device: where to compute.
        track: wraps the iteration over images, for a progress bar.

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
    model = RememberingModel(FOUNDATION_MODELS[experiment.foundation]())
    refiners = {
        name: Refiner(model, config, device=device) for name, config in experiment.variants.items()
    }
    scores = Scores(refiners)
    for record in track(records, len(records)):
        image, truth = open_case(record)
        probs = predictor(image)
        scores.begin(record, image, truth, probs > 0.5)
        for name, refiner in refiners.items():
            result = refiner(image, probs, is_hard=False)
            scores.add(name, record, result.mask, truth, result.reason)
        model.forget()
    return scores.result(experiment, command) | {
        "strata": scores.strata(),
        "networks": [_story(checkpoint) for checkpoint in checkpoints],
    }


def refuse_seen_images(checkpoints: Sequence[CoarseCheckpoint], records: Sequence[Record]) -> None:
    """Refuse to score a network on images that it was trained or chosen on.

    Raises:
        LeakError: names network and image.
    """
    for checkpoint in checkpoints:
        seen = set(checkpoint.card.get("image_digests", ()))
        for record in records:
            if file_sha256(record.image)[:16] in seen:
                raise LeakError(
                    f"{record.image.name} cannot be used to score {checkpoint.origin!r}",
                    expected="images that the network has not seen",
                    found="one that it was trained or chosen on",
                    fix="Take the fold that was held out in its training.",
                )


def _story(checkpoint: CoarseCheckpoint) -> dict[str, Any]:
    """Return the card without what only machines read."""
    return {key: value for key, value in checkpoint.card.items() if key != "image_digests"}
