"""Outcomes of refinement that are drawn rather than measured."""

from __future__ import annotations

import numpy as np

from ultrarefiner.calibration.outcomes import Outcome
from ultrarefiner.refine.acceptance import SIGNS, Signs


def signs(**named: float) -> Signs:
    """Signs that are 0 but for those named."""
    return Signs(**(dict.fromkeys(SIGNS, 0.0) | named))


def outcome(patient: str, gain: float, *, moved: float = 0.1, image: str = "") -> Outcome:
    return Outcome(
        image=image or patient,
        patient=patient,
        dsc_coarse=0.5,
        dsc_refined=0.5 + gain,
        signs=(signs(moved=moved),),
        changed=True,
    )


def drawn(num_patients: int, *, seed: int, harm_from: float = 0.8) -> list[Outcome]:
    """Patients with one to three images each; those that moved far are mostly harmed."""
    rng = np.random.default_rng(seed)
    found = []
    for patient in range(num_patients):
        for view in range(rng.integers(1, 4)):
            moved = float(rng.uniform())
            is_harmed = moved > harm_from and rng.uniform() < 0.9
            gain = -0.1 if is_harmed else 0.05
            name = f"{seed}-{patient}"
            found.append(outcome(name, gain, moved=moved, image=f"{name}-{view}"))
    return found
