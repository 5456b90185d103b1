"""Where coarse masks come from: rough versions of the truth, or networks new to the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ultrarefiner.coarse import CoarseCheckpoint, CoarsePredictor, load_checkpoint
from ultrarefiner.data.manifest import Record
from ultrarefiner.data.rough import RoughConfig, rough_version
from ultrarefiner.errors import ConfigError, LeakError
from ultrarefiner.experiments.scores import OpenedCase
from ultrarefiner.shapes import Mask, ProbMap
from ultrarefiner.weights import file_sha256


@dataclass(frozen=True, kw_only=True)
class CoarseMap:
    """What is given to a refiner.

    Attributes:
        probs: ``H W`` in [0, 1], of the image's size.
        is_hard: whether it is a mask rather than a probability.
    """

    probs: ProbMap
    is_hard: bool

    @property
    def mask(self) -> Mask:
        """The map above 0.5."""
        return self.probs > 0.5


class CoarseSource(Protocol):
    """Gives the coarse map of a case; the same one whenever it is asked."""

    def __call__(self, case: OpenedCase) -> CoarseMap:
        """Return the coarse map of a case."""
        ...


@dataclass(frozen=True, kw_only=True)
class RoughMasks:
    """Rough versions of the true masks; settings and source in one.

    Attributes:
        generator: how rough they are.
        seed: of the masks; that of a case depends on it and on the case's position alone.
    """

    generator: RoughConfig = field(default_factory=RoughConfig)
    seed: int = 0

    def __call__(self, case: OpenedCase) -> CoarseMap:
        """Return a rough version of the case's truth."""
        rough = rough_version(case.truth, seed=self.seed, index=case.index, config=self.generator)
        return CoarseMap(probs=rough.astype(np.float32), is_hard=True)


@dataclass(frozen=True, kw_only=True)
class NetworkMasksConfig:
    """Networks that have not seen the images whose masks they give.

    Attributes:
        checkpoints: official fold of BUS-BRA to the name or file of the network for its images.
        flips: average with the mirrored image.
    """

    checkpoints: dict[str, str]
    flips: bool = False

    def __post_init__(self) -> None:
        if not self.checkpoints:
            raise ConfigError("checkpoints", expected="one for each fold", found="none")


class NetworkMasks:
    """Probabilities of trained networks.

    Args:
        predictors: fold to the network for its images.
    """

    def __init__(self, predictors: Mapping[str, CoarsePredictor]):
        self.predictors = predictors

    def __call__(self, case: OpenedCase) -> CoarseMap:
        """Return what the network of the case's fold says."""
        return CoarseMap(probs=self.predictors[case.record.fold](case.image), is_hard=False)


def open_networks(
    config: NetworkMasksConfig, records: Sequence[Record], *, device: str = "auto"
) -> NetworkMasks:
    """Load the network of each fold that has images.

    Args:
        config: which networks.
        records: the images to be scored.
        device: where to compute.

    Raises:
        ConfigError: a fold has images and no network.
        LeakError: a network was trained, or chosen, on one of the images of its fold.
    """
    predictors = {}
    for fold in sorted({record.fold for record in records}):
        if fold not in config.checkpoints:
            raise ConfigError(
                "checkpoints",
                expected=f"one for fold {fold}, which has images",
                found="folds " + ", ".join(config.checkpoints),
            )
        checkpoint = load_checkpoint(config.checkpoints[fold])
        refuse_seen_images([checkpoint], [record for record in records if record.fold == fold])
        predictors[fold] = CoarsePredictor([checkpoint.network], flips=config.flips, device=device)
    return NetworkMasks(predictors)


def refuse_seen_images(checkpoints: Sequence[CoarseCheckpoint], records: Sequence[Record]) -> None:
    """Refuse to score a network on images that it was trained or chosen on.

    Raises:
        LeakError: names network and image; or nothing says which images the network has seen.
    """
    for checkpoint in checkpoints:
        if "image_digests" not in checkpoint.card:
            raise LeakError(
                f"no image can be used to score {checkpoint.origin!r}",
                expected="a card that lists the images that the network has seen",
                found="none",
                fix="Train it with 'ultrarefiner train'.",
            )
        seen = set(checkpoint.card["image_digests"])
        for record in records:
            if file_sha256(record.image)[:16] in seen:
                raise LeakError(
                    f"{record.image.name} cannot be used to score {checkpoint.origin!r}",
                    expected="images that the network has not seen",
                    found="one that it was trained or chosen on",
                    fix="Take the fold that was held out in its training.",
                )
