"""Duplicates: images of one scene, found whatever was done to the files."""

from __future__ import annotations

from ultrarefiner.data.duplicates.fingerprint import Fingerprint, take_fingerprint
from ultrarefiner.data.duplicates.search import (
    DuplicateConfig,
    DuplicateGroup,
    Track,
    find_duplicates,
    group_fingerprints,
    take_fingerprints,
)

__all__ = [
    "DuplicateConfig",
    "DuplicateGroup",
    "Fingerprint",
    "Track",
    "find_duplicates",
    "group_fingerprints",
    "take_fingerprint",
    "take_fingerprints",
]
