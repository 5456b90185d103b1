"""Probability maps of a method against the truth, image after image: Brier score, calibration."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ultrarefiner.data.formats import decode
from ultrarefiner.errors import InputError
from ultrarefiner.metrics import ProbMetrics, evaluate_probs
from ultrarefiner.metrics.cases import as_json
from ultrarefiner.metrics.probabilities import calibration_error, pool_bins
from ultrarefiner.shapes import Mask, ProbMap
from ultrarefiner.statistics import estimate_columns

_ENDINGS = (".npy", ".png")  # the exact file first
_WHITE = 255


def find_probability(folder: Path, stem: str) -> Path | None:
    """Return the file of an image's probability, as ``refine`` and ``predict`` name it."""
    paths = (folder / f"{stem}{ending}" for ending in _ENDINGS)
    return next((path for path in paths if path.is_file()), None)


def read_probability(path: Path) -> ProbMap:
    """Read a probability map that ``refine`` or ``predict`` wrote.

    Unlike a coarse mask from anywhere, whose levels have to be guessed, an 8-bit file is always
    in steps of 1/255.

    Raises:
        InputError: it cannot be read, or holds no probabilities.
    """
    values = decode(path).values
    probs = values.astype(np.float32)
    if values.dtype == np.uint8:
        probs /= _WHITE
    if probs.ndim != 2 or not (probs.min() >= 0 and probs.max() <= 1):
        raise InputError(
            f"{path} is no probability map",
            expected="8-bit grey levels, or floats in [0, 1]",
            found=f"{values.dtype} of shape {values.shape}, {values.min()} to {values.max()}",
            fix="Run 'refine' again with --options.save_probabilities true.",
        )
    return probs


class ProbabilityScores:
    """The scores of one method's probability maps so far."""

    def __init__(self) -> None:
        self._scores: list[ProbMetrics] = []
        self._patients: list[str] = []

    def __len__(self) -> int:
        return len(self._scores)

    def add(self, probs: ProbMap, truth: Mask, *, patient: str) -> None:
        """Take in the next image.

        Raises:
            InputError: probabilities and truth are not of one size.
        """
        self._scores.append(evaluate_probs(probs, truth))
        self._patients.append(patient)

    def to_json(self, *, seed: int = 0) -> dict[str, Any]:
        """Return the mean Brier score over images, and calibration over all pixels near lesions.

        Returns:
            ``brier`` with its interval over patients, ``ece`` and ``bins`` of all images together;
            None where no pixel counts. At least one image has to be there.
        """
        brier = np.array([[scores.brier] for scores in self._scores])
        patients = np.array(self._patients)
        estimates = estimate_columns(brier, patients, ["brier"], seed=seed)
        bins = pool_bins(scores.bins for scores in self._scores)
        content: dict[str, Any] = as_json(
            {
                "brier": asdict(estimates["brier"]) if estimates else None,
                "ece": calibration_error(bins),
                "num_images": len(self),
            }
        )
        content["bins"] = [
            {
                "low": place / len(bins),
                "high": (place + 1) / len(bins),
                "count": count,
                "confidence": sum_probs / count if count else None,
                "frequency": num_lesion / count if count else None,
            }
            for place, (count, sum_probs, num_lesion) in enumerate(bins)
        ]
        return content
