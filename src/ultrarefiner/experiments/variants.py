"""The loop of every study that compares refiners: each variant on each coarse map of each image."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from ultrarefiner.data.manifest import Record
from ultrarefiner.errors import ConfigError
from ultrarefiner.experiments.partial import FinishedImages, fingerprint
from ultrarefiner.experiments.remembering import RememberingModel
from ultrarefiner.experiments.scores import (
    OpenedCase,
    ScoredImage,
    ScoredVariant,
    Scores,
    open_case,
)
from ultrarefiner.experiments.sources import CoarseMap, CoarseSource
from ultrarefiner.foundation import FOUNDATION_MODELS
from ultrarefiner.precision import choose_device
from ultrarefiner.refine.assembly import RefinerConfig
from ultrarefiner.refine.predictor import Refiner

Track = Callable[[Iterable[Record], int], Iterable[Record]]


def untracked(records: Iterable[Record], num_records: int) -> Iterable[Record]:
    """Return the records as they are: no progress bar."""
    return records


def check_variants(variants: Mapping[str, RefinerConfig]) -> None:
    """Refuse variants that cannot be compared.

    Raises:
        ConfigError: there are none, or one has a second opinion, which a source's map cannot have.
    """
    if not variants:
        raise ConfigError("experiment variants", expected="at least one", found="none")
    for name, config in variants.items():
        if config.second_opinion:
            raise ConfigError(
                f"second_opinion of variant {name!r}",
                expected="none: an experiment refines the coarse maps of its sources as they are",
                found=str(config.second_opinion),
            )


def score_variants(
    records: Sequence[Record],
    sources: Mapping[str, CoarseSource],
    variants: Mapping[str, RefinerConfig],
    *,
    foundation: str = "lite-medsam",
    device: str = "auto",
    track: Track = untracked,
    partial: Path | None = None,
) -> dict[str, Scores]:
    """Score every variant of the refiner on every coarse map of every image.

    What variants and sources ask the foundation model alike, it is asked once an image.

    Args:
        records: images with masks.
        sources: name to where coarse maps come from.
        variants: name to settings of the refiner.
        foundation: name in the registry.
        device: where to compute.
        track: wraps the iteration over images, for a progress bar.
        partial: file that keeps the finished images of an interrupted run, and gives them back to
            the next one of the same variants, versions and code, on the same images and coarse
            maps. The caller removes it.

    Returns:
        Source to scores.

    Raises:
        OutputError: ``partial`` belongs to something else or cannot be written.
    """
    where = choose_device(device)
    settings = {name: asdict(config) for name, config in variants.items()}
    finished = FinishedImages(
        partial, fingerprint({"variants": settings, "foundation": foundation, "device": str(where)})
    )
    model = RememberingModel(FOUNDATION_MODELS[foundation]())
    refiners = {name: Refiner(model, config, device=device) for name, config in variants.items()}
    scores = {name: Scores(variants) for name in sources}
    for index, record in enumerate(track(records, len(records))):
        case = open_case(record, index)
        maps = {name: source(case) for name, source in sources.items()}
        key = _key(case, maps)
        row = finished.get(key)
        if row is None:
            row = {
                name: asdict(_score(case, maps[name], refiners=refiners, model=model))
                for name in maps
            }
            finished.add(key, row)
            model.forget()
        for name, scored in row.items():
            scores[name].add(case, ScoredImage.from_json(scored))
    return scores


def _score(
    case: OpenedCase,
    coarse: CoarseMap,
    *,
    refiners: Mapping[str, Refiner],
    model: RememberingModel,
) -> ScoredImage:
    """Refine one coarse map with every variant.

    A variant's time is what it would have taken alone: what the model answered from memory counts
    with the time of the first answer.
    """
    variants = {}
    for name, refiner in refiners.items():
        start, saved = time.perf_counter(), model.seconds_saved
        result = refiner(case.image, coarse.probs, is_hard=coarse.is_hard)
        seconds = time.perf_counter() - start + model.seconds_saved - saved
        variants[name] = ScoredVariant(
            metrics=case.score(result.mask), reason=result.reason, seconds=seconds
        )
    return ScoredImage(coarse=case.score(coarse.mask), variants=variants)


def _key(case: OpenedCase, maps: Mapping[str, CoarseMap]) -> str:
    """Return a digest of all that the scores of an image depend on, but for the variants."""
    digest = hashlib.sha256(case.fingerprint)
    digest.update(repr((case.record.spacing_mm, case.image.shape)).encode())
    for name, coarse in maps.items():
        digest.update(repr((name, coarse.is_hard)).encode() + coarse.probs.tobytes())
    return digest.hexdigest()
