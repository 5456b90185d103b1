"""Images by kind: by size of the lesion in thirds, and by what is known of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

SIZES = ("small", "medium", "large")

_MIN_PATIENTS = 2  # of one patient there is no interval


def size_thirds(
    sizes: Float64[np.ndarray, " N"],
) -> tuple[list[str], tuple[float, float] | None]:
    """Return the third of each size, ``"small"``, ``"medium"`` or ``"large"``, and the two cuts.

    Args:
        sizes: areas of the true lesions, in any unit; 0 where there is none, NaN where unknown.

    Returns:
        The level of each, empty where there is no size, and the largest small and the largest
        medium size by linear interpolation; no cuts where there is no size at all.

    Example:
        >>> size_thirds(np.array([1.0, 2.0, 4.0, 8.0, 0.0]))
        (['small', 'small', 'medium', 'large', ''], (2.0, 4.0))
    """
    known = sizes[sizes > 0]
    if not known.size:
        return [""] * len(sizes), None
    low, high = (float(cut) for cut in np.quantile(known, [1 / 3, 2 / 3]))
    levels = [
        SIZES[int(size > low) + int(size > high)] if size > 0 else "" for size in sizes.tolist()
    ]
    return levels, (low, high)


def group_levels(
    levels: Sequence[str], patients: Sequence[str]
) -> tuple[dict[str, list[int]], list[str]]:
    """Return the positions of each level's images, and the levels of too few patients.

    Args:
        levels: the level of each image, empty where it is unknown.
        patients: whose image each is.

    Returns:
        Level to positions, sizes from small to large and others by name; and the names of those
        with fewer than two patients, of which there is no interval.

    Example:
        >>> group_levels(["b", "a", "b", "a", ""], ["1", "2", "3", "2", "4"])
        ({'b': [0, 2]}, ['a'])
    """
    rank = {name: place for place, name in enumerate(SIZES)}
    names = sorted(set(levels) - {""}, key=lambda name: (rank.get(name, len(SIZES)), name))
    groups = {name: [i for i, level in enumerate(levels) if level == name] for name in names}
    too_few = [
        name
        for name, chosen in groups.items()
        if len({patients[i] for i in chosen}) < _MIN_PATIENTS
    ]
    return {name: chosen for name, chosen in groups.items() if name not in too_few}, too_few
