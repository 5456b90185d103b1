"""Which pairs of images share enough local features to be worth a closer look.

Every feature is compared with every other, in tiles: exact, of bounded memory, and mirrored images
come almost free. With the descriptor split into components that keep their sign under mirroring
and components that change it, the similarity of two features is even + odd, and that of the one
with the mirror image of the other even - odd; so even + abs(odd) is the larger of both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from ultrarefiner.data.duplicates.fingerprint import MIRROR_SIGNS, Fingerprint, inner_products

__all__ = ["Candidate", "find_candidates"]

_BLOCK_IMAGES = 8
_TILE_COLUMNS = 8192
_NUM_FEATURES = 64
_LEAST_SIMILARITY = 0.905
_LEAST_SHARED = 3
_MOST_PARTNERS = 40
# A feature of this many images is the scanner's frame or a letter, not tissue.
_COMMON = 50

Numbers = Int[np.ndarray, " N"]


@dataclass(frozen=True, order=True)
class Candidate:
    """Images number ``first`` < ``second`` may show one scene, the second mirrored or not."""

    first: int
    second: int
    is_mirrored: bool


def find_candidates(
    fingerprints: Sequence[Fingerprint],
    pool: Executor,
    *,
    track: Callable[[Iterable[Any], int], Iterable[Any]] = lambda items, _: items,
) -> tuple[Candidate, ...]:
    """Return the pairs that share at least three local features, mirrored or not.

    The time grows with the square of the number of images: 8 s were measured for 1,127 of them on
    two busy cores.

    Args:
        fingerprints: of different images.
        pool: threads to work in.
        track: wraps the iteration over blocks of images, for a progress bar.

    Returns:
        Candidates in the order of their numbers; of each image the 40 with most in common with it
        among those after it.
    """
    table = _Table(fingerprints)
    starts = range(0, len(fingerprints), _BLOCK_IMAGES)
    blocks = track(pool.map(table.partners, starts), len(starts))
    return tuple(sorted(candidate for block in blocks for candidate in block))


class _Table:
    """The features of all images one below the other."""

    def __init__(self, fingerprints: Sequence[Fingerprint]) -> None:
        parts = [fingerprint.descriptors[:_NUM_FEATURES] for fingerprint in fingerprints]
        descriptors = np.concatenate([np.zeros((0, len(MIRROR_SIGNS)), np.float32), *parts])
        self.owner: Numbers = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        self.first_row = np.searchsorted(self.owner, np.arange(len(parts) + 1))
        self.even = np.ascontiguousarray(descriptors[:, MIRROR_SIGNS > 0])
        self.odd = np.ascontiguousarray(descriptors[:, MIRROR_SIGNS < 0])

    def partners(self, start: int) -> list[Candidate]:
        """Return the candidates between the block of images at ``start`` and all later images."""
        stop = min(start + _BLOCK_IMAGES, len(self.first_row) - 1)
        rows = slice(self.first_row[start], self.first_row[stop])
        feature, other, mirrored = self._similar(rows)
        first, second = self.owner[rows][feature], self.owner[other]
        later = second > first
        # A feature counts once for each image, mirrored or not; the numbers sort as one key.
        num_rows, num_images = rows.stop - rows.start, len(self.first_row) - 1
        hits = np.unique((second * 2 + mirrored)[later] * num_rows + feature[later])
        target, feature = np.divmod(hits, num_rows)
        is_tissue = (np.bincount(feature, minlength=1) <= _COMMON)[feature]
        pairs, num_shared = np.unique(
            self.owner[rows][feature[is_tissue]] * (2 * num_images) + target[is_tissue],
            return_counts=True,
        )
        first, target = np.divmod(pairs, 2 * num_images)
        return _most_shared(first, target, num_shared)

    def _similar(self, rows: slice) -> tuple[Numbers, Numbers, Bool[np.ndarray, " N"]]:
        """Return number in the block, number in the table and mirroring of similar features."""
        found: list[tuple[Numbers, Numbers, Bool[np.ndarray, " N"]]] = []
        last = len(self.owner) if rows.stop > rows.start else rows.start
        for column in range(rows.start, last, _TILE_COLUMNS):
            columns = slice(column, column + _TILE_COLUMNS)
            odd = inner_products(self.odd[rows], self.odd[columns])
            total = inner_products(self.even[rows], self.even[columns], np.abs(odd))
            feature, other = np.divmod(np.flatnonzero(total > _LEAST_SIMILARITY), total.shape[1])
            found.append((feature, other + column, odd[feature, other] < 0))
        if not found:
            none = np.zeros(0, np.int64)
            return none, none, none.astype(bool)
        feature, other, mirrored = (np.concatenate(part) for part in zip(*found, strict=True))
        return feature, other, mirrored


def _most_shared(first: Numbers, target: Numbers, num_shared: Numbers) -> list[Candidate]:
    """Return the candidates of each first image; a target is 2 x image + mirroring."""
    enough = num_shared >= _LEAST_SHARED
    first, target, num_shared = first[enough], target[enough], num_shared[enough]
    order = np.lexsort((target, -num_shared, first))
    chosen: dict[int, list[Candidate]] = {}
    for one, other in zip(first[order].tolist(), target[order].tolist(), strict=True):
        partners = chosen.setdefault(one, [])
        if len(partners) < _MOST_PARTNERS:
            partners.append(Candidate(one, other // 2, bool(other % 2)))
    return [candidate for partners in chosen.values() for candidate in partners]
