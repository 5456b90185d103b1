"""Find the images that show one scene: exactly equal, or saved, cut or marked another way."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ultrarefiner.data.duplicates.alignment import compare
from ultrarefiner.data.duplicates.candidates import Candidate, find_candidates
from ultrarefiner.data.duplicates.fingerprint import Fingerprint, take_fingerprint
from ultrarefiner.data.duplicates.grouping import Link, join_links
from ultrarefiner.errors import ConfigError, InputError

__all__ = [
    "DuplicateConfig",
    "DuplicateGroup",
    "Track",
    "find_duplicates",
    "group_fingerprints",
    "take_fingerprints",
]

_LOG = logging.getLogger(__name__)

Track = Callable[[Iterable[Any], int], Iterable[Any]]


@dataclass(frozen=True, kw_only=True)
class DuplicateConfig:
    """How alike two images must be to show one scene.

    Attributes:
        least_score: median local correlation from which two images are near duplicates.
        sure_score: correlation from which that is beyond doubt: such links may chain.
        least_overlap: share of the smaller image's texture that both must have.
        num_features: local features kept of each image.
        num_threads: threads to work in, 0 for one a core; the result does not depend on it.
    """

    least_score: float = 0.4
    sure_score: float = 0.7
    least_overlap: float = 0.3
    num_features: int = 128
    num_threads: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.least_score <= self.sure_score <= 1:
            raise ConfigError(
                "least_score and sure_score",
                expected="0 < least_score <= sure_score <= 1",
                found=f"{self.least_score} and {self.sure_score}",
            )
        if not 0 < self.least_overlap <= 1:
            raise ConfigError(
                "least_overlap", expected="a value in (0, 1]", found=f"{self.least_overlap}"
            )
        if not 16 <= self.num_features <= 1024:
            raise ConfigError(
                "num_features", expected="a value in [16, 1024]", found=f"{self.num_features}"
            )
        if self.num_threads < 0:
            raise ConfigError("num_threads", expected="0 or more", found=f"{self.num_threads}")


@dataclass(frozen=True, kw_only=True)
class DuplicateGroup:
    """Images of one scene.

    Attributes:
        kind: ``exact`` if all have the same grey levels, else ``near``.
        images: their paths, sorted; one that was given twice is there twice.
        score: correlation of the weakest link that joins them, 1 for ``exact``.
        identifier: a name for the group. Made from the content of the images by
            :func:`find_duplicates`, whatever their order and place; from ``images`` if not given.
    """

    kind: Literal["exact", "near"]
    images: tuple[Path, ...]
    score: float
    identifier: str = field(default="")

    def __post_init__(self) -> None:
        if not self.identifier:
            names = sorted({path.as_posix() for path in self.images})
            object.__setattr__(self, "identifier", _identifier(names))


def find_duplicates(
    images: Sequence[Path],
    *,
    config: DuplicateConfig | None = None,
    track: Track = lambda items, _: items,
) -> tuple[DuplicateGroup, ...]:
    """Find images of one scene, however they were saved, cut, toned, marked or mirrored.

    A scene is one frame, or frames so close that their speckle still agrees; another plane of the
    same lesion is another scene. The stages: fingerprints, pairs that share local features
    (:mod:`.candidates`), their alignment and local correlation (:mod:`.alignment`), groups
    (:mod:`.grouping`).

    Args:
        images: files; one that cannot be read is named in the log and left out.
        config: thresholds, default :class:`DuplicateConfig`.
        track: wraps each stage's iteration, for a progress bar.

    Returns:
        Disjoint groups of at least two, sorted by path, whatever the order of ``images``.

    Example:
        >>> find_duplicates([])
        ()
    """
    config = config or DuplicateConfig()
    found = take_fingerprints(images, config=config, track=track)
    for outcome in found.values():
        if isinstance(outcome, InputError):
            _LOG.warning("left out of the search for duplicates: %s", outcome)
    readable = [path for path in images if isinstance(found[path], Fingerprint)]
    fingerprints = {path: f for path, f in found.items() if isinstance(f, Fingerprint)}
    return group_fingerprints(readable, fingerprints, config=config, track=track)


def take_fingerprints(
    images: Iterable[Path],
    *,
    config: DuplicateConfig,
    track: Track = lambda items, _: items,
) -> dict[Path, Fingerprint | InputError]:
    """Return the fingerprint of each file, or the error that says why there is none."""
    paths = sorted(set(images))

    def take(path: Path) -> Fingerprint | InputError:
        try:
            return take_fingerprint(path, num_features=config.num_features)
        except InputError as error:
            return error

    with _threads(config) as pool:
        outcomes = track(pool.map(take, paths), len(paths))
        return dict(zip(paths, outcomes, strict=True))


def group_fingerprints(
    images: Sequence[Path],
    fingerprints: Mapping[Path, Fingerprint],
    *,
    config: DuplicateConfig,
    track: Track = lambda items, _: items,
) -> tuple[DuplicateGroup, ...]:
    """Return the groups among files whose fingerprints are known; see :func:`find_duplicates`."""
    holders: dict[str, list[Path]] = {}
    for path in sorted(images):
        holders.setdefault(fingerprints[path].digest, []).append(path)
    digests = sorted(holders)  # so that the order of files decides nothing
    distinct = [fingerprints[holders[digest][0]] for digest in digests]
    links = _near_links(distinct, config, track)
    scenes = join_links(links, sure_score=config.sure_score)
    near = [
        _group("near", [digests[number] for number in scene.images], holders, scene.score)
        for scene in scenes
    ]
    in_near = {number for scene in scenes for number in scene.images}
    exact = [
        _group("exact", [digest], holders, 1.0)
        for number, digest in enumerate(digests)
        if number not in in_near and len(holders[digest]) > 1
    ]
    return tuple(sorted(near + exact, key=lambda group: group.images))


def _near_links(
    distinct: Sequence[Fingerprint], config: DuplicateConfig, track: Track
) -> list[Link]:
    def link(candidate: Candidate) -> Link | None:
        likeness = compare(
            distinct[candidate.first],
            distinct[candidate.second],
            is_mirrored=candidate.is_mirrored,
        )
        if likeness.score < config.least_score or likeness.overlap < config.least_overlap:
            return None
        return Link(candidate.first, candidate.second, min(1.0, likeness.score))

    with _threads(config) as pool:
        candidates = find_candidates(distinct, pool, track=track)
        links = track(pool.map(link, candidates), len(candidates))
        return [found for found in links if found is not None]


def _group(
    kind: Literal["exact", "near"],
    digests: Sequence[str],
    holders: Mapping[str, Sequence[Path]],
    score: float,
) -> DuplicateGroup:
    images = sorted(path for digest in digests for path in holders[digest])
    return DuplicateGroup(
        kind=kind,
        images=tuple(images),
        score=round(score, 4),
        identifier=_identifier(digests),
    )


def _identifier(parts: Iterable[str]) -> str:
    return "scene-" + hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()[:12]


def _threads(config: DuplicateConfig) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(config.num_threads or os.cpu_count() or 1)
