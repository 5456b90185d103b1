"""Corrupted masks: ours against the search with growing kernels that the source describes.

Run: ``python benchmarks/corruption.py`` (a minute on 2 cores, of which it uses one). The default
mix on synthetic lesions that cover 2 to 20 % of frames of 256 and 512 px. The alternative (sections
4.2.2 and 4.2.3 of the document) dilates or erodes with an ellipse that grows by a pixel until the
drawn area ratio is passed, and softens with two Euclidean distance transforms of SciPy over the
whole frame. It gets our kinds, ratios and temperatures; what takes no search (holes, islands, cuts,
shift) it leaves to our code, so that only the two steps differ. Second errors are left out there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import cv2
import numpy as np
from scipy.ndimage import distance_transform_edt
from scipy.special import expit

from _timing import measure, print_result, print_table, versions
from ultrarefiner.data.corruption import Corrupted, CorruptionConfig, corrupt, replay

SIDES = (256, 512)
NUM_MASKS, REPEATS, SEED = 40, 3, 0
SHARES = (0.02, 0.20)
SEARCHED = ("over", "giant", "under")
TOLERANCE = 0.05  # of the drawn area ratio
PROBABILITY_TOLERANCE = 2e-3

Masks = Sequence[np.ndarray]


def draw_lesions(side: int) -> Masks:
    """Return masks of uneven blobs of two ellipses each."""
    rng = np.random.default_rng(SEED)
    masks = []
    for share in np.exp(rng.uniform(*np.log(SHARES), size=NUM_MASKS)):
        canvas = np.zeros((side, side), dtype=np.uint8)
        radius_px = np.sqrt(share * side**2 / np.pi)
        centre = rng.uniform(0.3, 0.7, size=2) * side
        for scale in (1.0, 0.6):
            stretch = rng.uniform(1.0, 1.6)
            half_axes = np.array([stretch, 1 / stretch]) ** 0.5 * radius_px * scale
            place = centre + (1 - scale) * rng.normal(0, 1.5, size=2) * radius_px
            turn = rng.uniform(0, 180)
            cv2.ellipse(
                canvas,
                place.astype(int).tolist(),
                half_axes.astype(int).tolist(),
                turn,
                0,
                360,
                1,
                -1,
            )
        masks.append(canvas.astype(bool))
    return masks


def search(mask: np.ndarray, area_ratio: float) -> np.ndarray:
    """Grow or shrink with larger and larger kernels until the ratio is passed."""
    pixels, area_px = mask.astype(np.uint8), int(mask.sum())
    change = cv2.dilate if area_ratio > 1 else cv2.erode
    best = pixels
    for radius_px in range(1, max(mask.shape)):
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius_px + 1,) * 2)
        found = change(pixels, kernel)
        gaps = [abs(int(candidate.sum()) / area_px - area_ratio) for candidate in (found, best)]
        if gaps[0] > gaps[1] or found.all() or not found.any():
            break
        best = found
    return best.astype(bool)


def soften(mask: np.ndarray, temperature_px: float) -> np.ndarray:
    """Squash the difference of two distances, half a pixel each."""
    inside, outside = distance_transform_edt(mask), distance_transform_edt(~mask)
    signed = np.where(mask, inside - 0.5, 0.5 - outside)
    return expit(signed / temperature_px).astype(np.float32)


def by_search(mask: np.ndarray, parameters: dict[str, Any]) -> np.ndarray:
    """Make the mask that the parameters describe in the source's way."""
    first = parameters["steps"][0]
    if first["kind"] in SEARCHED and len(parameters["steps"]) == 1:
        done = search(mask, first["settings"]["area_ratio"])
    else:
        done = replay(mask, {**parameters, "temperature_px": None}) > 0.5
    temperature_px = parameters["temperature_px"]
    return done if temperature_px is None or done.all() else soften(done, temperature_px)


def everything(call: Callable[[int], object]) -> None:
    for index in range(NUM_MASKS):
        call(index)


def check(masks: Masks, made: Sequence[Corrupted]) -> dict[str, float]:
    """Return how far the two sides are apart: softened maps anywhere, areas where it searched."""
    soft, ours, theirs = 0.0, 0.0, []
    for mask, corrupted in zip(masks, made, strict=True):
        first, temperature_px = (
            corrupted.parameters["steps"][0],
            corrupted.parameters["temperature_px"],
        )
        if temperature_px is not None:
            expected = soften(corrupted.probs > 0.5, temperature_px)
            soft = max(soft, float(np.abs(corrupted.probs - expected).max()))
        if first["kind"] in SEARCHED:
            wanted_px = min(first["settings"]["area_ratio"] * mask.sum(), mask.size)
            ours = max(ours, abs(first["reached_ratio"] * mask.sum() / wanted_px - 1))
            found = search(mask, first["settings"]["area_ratio"])
            theirs.append(abs(found.sum() / wanted_px - 1))
    return {
        "softening": soft,
        "area_ours": ours,
        "area_search_median": float(np.median(theirs)),
        "area_search_largest": float(np.max(theirs)),
    }


def main() -> int:
    cv2.setNumThreads(1)
    config = replace(CorruptionConfig(), secondary_probability=0.0)
    ratios, checks, agree = {}, {}, True
    for side in SIDES:
        masks = draw_lesions(side)
        made = [corrupt(mask, seed=SEED, index=i, config=config) for i, mask in enumerate(masks)]

        def ours(index: int, masks: Masks = masks) -> object:
            return corrupt(masks[index], seed=SEED, index=index, config=config)

        def default(index: int, masks: Masks = masks) -> object:
            return corrupt(masks[index], seed=SEED, index=index)

        def theirs(index: int, masks: Masks = masks, made: Sequence[Corrupted] = made) -> object:
            return by_search(masks[index], made[index].parameters)

        sides = {"ultrarefiner": ours, "with second errors": default, "growing kernels": theirs}
        timings = measure(
            {name: partial(everything, call) for name, call in sides.items()}, REPEATS, warmup=1
        )
        print(f"{NUM_MASKS} masks of {side} x {side}, {REPEATS} repeats, one thread")
        print_table(timings, reference="ultrarefiner")
        per_second = NUM_MASKS / timings["with second errors"].median_s
        print(f"default mix: {per_second:.0f} masks/s")
        found = check(masks, made)
        ratios[f"default_{side}"] = (
            timings["growing kernels"].median_s / timings["ultrarefiner"].median_s
        )
        checks[str(side)] = {"masks_per_s": round(per_second), **found}
        agree &= found["softening"] <= PROBABILITY_TOLERANCE and found["area_ours"] <= TOLERANCE
        agree &= found["area_search_median"] <= TOLERANCE
    print_result(
        "corruption",
        ratios=ratios,
        checks={"agree": bool(agree), "threads": cv2.getNumThreads(), **checks},
        versions=versions("ultrarefiner", "opencv-python-headless", "scipy", "numpy"),
    )
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
