"""Made-up refinement runs: discs of any size and place, measured as a real run is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np

from ultrarefiner.metrics import Case, evaluate_cases, evaluate_mask
from ultrarefiner.refine.acceptance import SIGNS, SIGNS_VERSION
from ultrarefiner.report import CaseImages, ReportCase

SIDE_PX = 96
TRUE_RADIUS_PX = 20.0


def disc(radius_px: float, x_px: float = 48.0, y_px: float = 48.0) -> np.ndarray:
    centres = np.arange(SIDE_PX) + 0.5
    return np.hypot(centres - x_px, centres[:, None] - y_px) < radius_px


def speckle(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((SIDE_PX, SIDE_PX), dtype=np.float32)


def make_case(
    stem: str,
    coarse_px: float,
    refined_px: float,
    *,
    reason: str = "accepted",
    with_truth: bool = True,
) -> ReportCase:
    """Return a case whose masks are discs about the truth's centre."""
    coarse, refined, truth = disc(coarse_px), disc(refined_px), disc(TRUE_RADIUS_PX)
    union = np.count_nonzero(coarse | refined)
    row = {
        "image": f"{stem}.png",
        "accepted": str(reason == "accepted"),
        "reason": reason,
        "iou_with_coarse": str(np.count_nonzero(coarse & refined) / union if union else 1.0),
        "area_coarse_px": str(np.count_nonzero(coarse)),
        "area_refined_px": str(np.count_nonzero(refined)),
        "predicted_iou": "0.9",
        "seconds": "0.5",
        "error": "",
    }
    images = CaseImages(
        image=speckle(),
        coarse=coarse,
        refined=refined,
        truth=truth if with_truth else None,
        boxes_xyxy=((20.0, 20.0, 76.0, 76.0), (22.5, 18.0, 75.0, 77.0)),
    )
    return ReportCase(
        stem=stem,
        row=row,
        metrics=asdict(evaluate_mask(refined, truth)) if with_truth else None,
        baseline=asdict(evaluate_mask(coarse, truth)) if with_truth else None,
        load=lambda: images,
    )


def broken(stem: str, error: str) -> ReportCase:
    def load() -> CaseImages:
        raise AssertionError("the pixels of a case with an error must not be asked for")

    row = {"image": f"{stem}.png", "error": error}
    return ReportCase(stem=stem, row=row, metrics=None, baseline=None, load=load)


def evaluate(cases: Sequence[ReportCase], *, paired: bool = True) -> dict:
    """Return ``eval.json`` of the cases that are not broken."""
    done = [case for case in cases if not case.error]
    images = [case.load() for case in done]
    refined, coarse = (
        [
            Case(image=case.stem, metrics=evaluate_mask(getattr(pixels, mask), pixels.truth))
            for case, pixels in zip(done, images, strict=True)
        ]
        for mask in ("refined", "coarse")
    )
    return evaluate_cases(refined, coarse if paired else None).to_json()


def small_run(*, with_truth: bool = True) -> list[ReportCase]:
    """Return 12 cases: 5 improved, 3 harmed, 2 rejected, 1 unchanged, 1 missed."""
    radii = [(12, 16), (13, 18), (14, 19), (15, 20), (16, 19.5), (20, 15), (19, 14), (21, 26)]
    cases = [
        make_case(f"case-{i:02d}", *pair, with_truth=with_truth) for i, pair in enumerate(radii)
    ]
    for stem, radius, reason in [
        ("refused-a", 17, "area changed too much"),
        ("refused-b", 18, "low agreement with coarse mask"),
        ("missed", 0, "no lesion in coarse mask"),
    ]:
        cases.append(make_case(stem, radius, radius, reason=reason, with_truth=with_truth))
    return [*cases, make_case("same", 19, 19, with_truth=with_truth)]


def renamed(case: ReportCase, stem: str) -> ReportCase:
    return replace(case, stem=stem)


def scored(case: ReportCase, score: float, *, patient: str = "") -> ReportCase:
    """Return the case with the score of an acceptance rule, and its patient if one is given."""
    row = case.row | {"score": str(score)}
    metrics = case.metrics and case.metrics | ({"patient": patient} if patient else {})
    return replace(case, row=row, metrics=metrics)


def rule_json(**changes) -> dict:
    """Return an acceptance rule as checkpoints and calibration.json hold it."""
    rule = {
        "weights": dict.fromkeys(SIGNS, 0.0) | {"moved": 1.5, "doubted": 3.25},
        "threshold": -1.0,
        "alpha": 0.1,
        "delta": 0.02,
        "eta": 0.05,
        "method": "learn-then-test",
        "source": "network",
        "scores": [-2.0, -1.0, -0.5, 0.0],
        "binding": "ab" * 32,
        "num_images": 120,
        "num_patients": 80,
        "bf16": False,
        "signs_version": SIGNS_VERSION,
    }
    return rule | changes


def calibration_json(**changes) -> dict:
    """Return a made-up calibration.json: five thresholds, the third was chosen."""
    curve = [
        (None, 1.0, 0.12, 0.03, 0.9),
        (-2.0, 0.9, 0.09, 0.029, 0.2),
        (-1.0, 0.75, 0.04, 0.026, 0.01),
        (-0.5, 0.4, 0.01, 0.012, 0.0004),
        ("none", 0.0, 0.0, 0.0, 0.0001),
    ]
    names = ("threshold", "coverage", "harmed_share", "gain", "p_value")
    delivered = {"images": 120, "patients": 80}
    content = {
        "schema": 1,
        "rule": rule_json(),
        "split": {"patients_a": 50, "patients_b": 80, "images_a": 70, "images_b": 120},
        "checkpoint": "runs/net/fold-1",
        "before": delivered
        | {"harmed_share": 0.12, "harmed_low": 0.06, "harmed_high": 0.19}
        | {"gain": 0.03, "accepted_share": 1.0},
        "after": delivered
        | {"harmed_share": 0.04, "harmed_low": 0.01, "harmed_high": 0.09}
        | {"gain": 0.026, "accepted_share": 0.75},
        "kept_gain": 0.026 / 0.03,
        "curve": [dict(zip(names, step, strict=True)) for step in curve],
        "cases": [],
        "statement": "With 95 % confidence at most 10 % <are> made worse.",
        "versions": {"ultrarefiner": "0.1.0"},
        "command": "ultrarefiner calibrate runs/net",
        "seed": 0,
    }
    return content | changes
