"""Pairs of masks that the tests of the metrics share."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ultrarefiner.metrics import METRICS


def mask(*rows: str) -> np.ndarray:
    return np.array([[pixel == "#" for pixel in row] for row in rows])


def values(metrics) -> dict[str, float]:
    return {name: getattr(metrics, name) for name in METRICS}


def blob(rng, shape, radius, wobble=0.15) -> np.ndarray:
    y, x = np.indices(shape)
    cy, cx = rng.uniform(0.45, 0.55, 2) * shape
    theta = np.arctan2(y - cy, x - cx)
    outline = sum(
        rng.normal(0, wobble) / k * np.cos(k * theta + rng.uniform(0, 2 * np.pi))
        for k in range(1, 6)
    )
    return np.hypot(y - cy, 0.7 * (x - cx)) < radius * (1 + outline)


def oracle_pairs() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    row, column = np.zeros((2, 40, 30), dtype=bool)
    row[20], column[:, 7] = True, True
    corner = np.zeros((40, 30), dtype=bool)
    corner[:9, :6] = True
    pixel = np.zeros((40, 30), dtype=bool)
    pixel[39, 29] = True
    island = np.pad(np.ones((20, 16), dtype=bool), ((10, 10), (7, 7)))
    island[14:26, 10:20], island[18:22, 13:17] = False, True
    return {
        **{f"blob-{r}": (blob(rng, (64, 80), r), blob(rng, (64, 80), r)) for r in (5, 10, 20, 60)},
        "noise": (rng.random((40, 30)) < 0.3, rng.random((40, 30)) < 0.3),
        "sparse-noise": (rng.random((40, 30)) < 0.01, rng.random((40, 30)) < 0.01),
        "full": (np.ones((40, 30), dtype=bool), corner),
        "corners": (corner, corner[::-1, ::-1]),
        "one-pixel": (pixel, corner),
        "one-pixel-each": (pixel, pixel[::-1, ::-1]),
        "thin-lines": (row, column),
        "thin-line-and-pixel": (row, pixel),
        "one-row-image": (rng.random((1, 50)) < 0.5, rng.random((1, 50)) < 0.5),
        "island-in-a-hole": (island, np.roll(island, 1, axis=0)),
    }


PAIRS = oracle_pairs()

pairs = hnp.array_shapes(min_dims=2, max_dims=2, max_side=12).flatmap(
    lambda shape: st.tuples(hnp.arrays(bool, shape), hnp.arrays(bool, shape))
)
spacings = st.tuples(st.floats(0.01, 10), st.floats(0.01, 10))
