"""Timing shared by the benchmarks: interleaved sides, medians and quartiles, one JSON line."""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np


@dataclass(frozen=True)
class Timing:
    """Seconds per call: median and quartiles over the repeats."""

    median_s: float
    q1_s: float
    q3_s: float


def repeats_and_threads(doc: str) -> argparse.Namespace:
    """Return ``repeats`` and ``threads`` from the command line of a script with this docstring."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="(default: %(default)s)")
    return parser.parse_args()


def measure(
    sides: Mapping[str, Callable[[], object]], repeats: int, warmup: int = 3
) -> dict[str, Timing]:
    """Time every side in turn, round after round, so that load on the machine hits all alike."""
    for _ in range(warmup):
        for call in sides.values():
            call()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, call in sides.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return {name: _timing(values) for name, values in seconds.items()}


def print_table(timings: Mapping[str, Timing], reference: str) -> None:
    """Print one row per side, with its median relative to the reference side's."""
    columns = f"{'median ms':>11} {'q1 ms':>9} {'q3 ms':>9} {'ratio':>8}"
    width = max(len(name) for name in timings)
    print(f"{'':{width}} {columns}")
    for name, timing in timings.items():
        median, q1, q3 = (1e3 * s for s in (timing.median_s, timing.q1_s, timing.q3_s))
        ratio = timing.median_s / timings[reference].median_s
        print(f"{name:{width}} {median:11.3f} {q1:9.3f} {q3:9.3f} {ratio:8.1f}")


def versions(*distributions: str) -> dict[str, str]:
    """Return the versions of Python and of the named installed distributions."""
    return {"python": platform.python_version()} | {name: version(name) for name in distributions}


def print_result(
    name: str,
    ratios: Mapping[str, float],
    checks: Mapping[str, object],
    versions: Mapping[str, str],
) -> None:
    """Print the benchmark's last line; a ratio is the alternative's time over ours."""
    rounded = {key: round(ratio, 2) for key, ratio in ratios.items()}
    result = {"name": name, "ratios": rounded, "checks": checks, "versions": versions}
    print(json.dumps(result))


def _timing(seconds: list[float]) -> Timing:
    q1, median, q3 = np.percentile(seconds, [25, 50, 75])
    return Timing(float(median), float(q1), float(q3))
