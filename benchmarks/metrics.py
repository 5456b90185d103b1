"""The mask metrics of a 512 x 512 pair: ours against MONAI and surface-distance.

Run: ``python benchmarks/metrics.py`` (about three minutes on 2 cores). The alternatives compute the
five main ones (DSC, IoU, HD95, ASSD, NSD; surface-distance has no IoU) from inputs ready-made in
the type they want; ours computes all thirteen and the sizes. MONAI must give our numbers to 4
digits, surface-distance those of our surfel boundary.
"""

from __future__ import annotations

import sys
import tracemalloc
import warnings
from collections.abc import Callable

import numpy as np
import surface_distance
import torch
from monai.metrics import (
    compute_average_surface_distance,
    compute_dice,
    compute_hausdorff_distance,
    compute_iou,
    compute_surface_dice,
)

from _timing import measure, print_result, print_table, versions
from ultrarefiner.metrics import evaluate_mask

NUM_PAIRS = 20
REPEATS = 15
SHAPE = (512, 512)
TOLERANCE_PX = 2.0
DIGITS = 4
MAIN = ("dsc", "iou", "hd95", "assd", "nsd")

Pair = tuple[np.ndarray, np.ndarray]


def lesion_pair(rng: np.random.Generator) -> Pair:
    """Return a prediction and a target: one wobbly ellipse, and it again a little off."""
    centre, radius = rng.uniform(0.35, 0.65, 2) * SHAPE, rng.uniform(25, 90)
    waves = rng.normal(0, 0.08, (2, 5))
    off_centre = centre + rng.normal(0, 0.08 * radius, 2)
    off_waves = waves + rng.normal(0, 0.03, (2, 5))
    return lesion(off_centre, radius * rng.uniform(0.9, 1.1), off_waves), lesion(
        centre, radius, waves
    )


def lesion(centre: np.ndarray, radius: float, waves: np.ndarray) -> np.ndarray:
    """Return an ellipse, wider than high, whose outline carries five harmonics."""
    y, x = np.indices(SHAPE)
    y, x = y - centre[0], (x - centre[1]) / 1.5
    theta = np.arctan2(y, x)
    outline = sum(
        (a * np.cos(k * theta) + b * np.sin(k * theta)) / (k - 1)
        for k, (a, b) in enumerate(waves.T, start=2)
    )
    return np.hypot(y, x) < radius * (1 + outline)


def ours(pred: np.ndarray, target: np.ndarray, boundary: str = "pixel") -> dict[str, float]:
    metrics = evaluate_mask(pred, target, tolerance=TOLERANCE_PX, boundary=boundary)
    return {name: getattr(metrics, name) for name in MAIN}


def monai(pred: torch.Tensor, target: torch.Tensor) -> dict[str, float]:
    boundary = {"include_background": True}
    return {
        "dsc": compute_dice(pred, target).item(),
        "iou": compute_iou(pred, target).item(),
        "hd95": compute_hausdorff_distance(pred, target, percentile=95, **boundary).item(),
        "assd": compute_average_surface_distance(pred, target, symmetric=True, **boundary).item(),
        "nsd": compute_surface_dice(pred, target, [TOLERANCE_PX], **boundary).item(),
    }


def google(pred: np.ndarray, target: np.ndarray) -> dict[str, float]:
    distances = surface_distance.compute_surface_distances(target, pred, (1.0, 1.0))
    means = surface_distance.compute_average_surface_distance(distances)
    lengths = distances["surfel_areas_gt"].sum(), distances["surfel_areas_pred"].sum()
    return {
        "dsc": surface_distance.compute_dice_coefficient(target, pred),
        "hd95": surface_distance.compute_robust_hausdorff(distances, 95),
        "assd": np.average(means, weights=lengths),
        "nsd": surface_distance.compute_surface_dice_at_tolerance(distances, TOLERANCE_PX),
    }


def largest_difference(found: list[dict[str, float]], expected: list[dict[str, float]]) -> float:
    """Return the largest difference over pairs and over the metrics that are expected."""
    return max(abs(f[name] - e[name]) for f, e in zip(found, expected, strict=True) for name in e)


def peak_mib(call: Callable[[], object]) -> float:
    """Return the peak of the memory that Python and NumPy allocate during one call."""
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def main() -> int:
    warnings.simplefilter("ignore")  # both alternatives warn of their own deprecations
    torch.set_num_threads(1)  # the faster choice for MONAI on 2 cores, and the steadier
    rng = np.random.default_rng(0)
    pairs = [lesion_pair(rng) for _ in range(NUM_PAIRS)]
    # MONAI's confusion matrix is wrong for bool tensors, which it adds up; float32 is its choice.
    tensors = [
        tuple(torch.from_numpy(mask.astype(np.float32))[None, None] for mask in pair)
        for pair in pairs
    ]
    sides = {
        "ultrarefiner": lambda: [ours(*pair) for pair in pairs],
        "ultrarefiner, surfel": lambda: [ours(*pair, "surfel") for pair in pairs],
        "MONAI": lambda: [monai(*pair) for pair in tensors],
        "surface-distance": lambda: [google(*pair) for pair in pairs],
    }
    results = {name: call() for name, call in sides.items()}
    vs_monai = largest_difference(results["ultrarefiner"], results["MONAI"])
    vs_google = largest_difference(results["ultrarefiner, surfel"], results["surface-distance"])
    timings = measure(sides, repeats=REPEATS, warmup=1)
    print(f"{NUM_PAIRS} pairs of {SHAPE[0]} x {SHAPE[1]} masks per call, {REPEATS} repeats")
    print_table(timings, reference="ultrarefiner")
    for name, call in sides.items():
        print(
            f"peak of memory that tracemalloc sees (not torch's), {name}: {peak_mib(call):.1f} MiB"
        )
    agree = max(vs_monai, vs_google) < 10**-DIGITS
    ours_s = timings["ultrarefiner"].median_s
    print_result(
        "metrics",
        ratios={
            "vs_monai": timings["MONAI"].median_s / ours_s,
            "vs_surface_distance": timings["surface-distance"].median_s / ours_s,
            "surfel_vs_surface_distance": timings["surface-distance"].median_s
            / timings["ultrarefiner, surfel"].median_s,
        },
        checks={
            "agree": agree,
            "largest_difference_monai": vs_monai,
            "largest_difference_surface_distance": vs_google,
        },
        versions=versions("ultrarefiner", "numpy", "scipy", "opencv-python-headless", "torch")
        | versions("monai", "surface-distance"),
    )
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
