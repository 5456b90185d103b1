"""What many evaluated masks say together: means, paired differences, counts of misses.

All intervals respect patients; see :mod:`ultrarefiner.statistics`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Shaped

from ultrarefiner.errors import ConfigError, InputError
from ultrarefiner.metrics.cases import (
    Case,
    as_json,
    check_names,
    in_order,
    matched,
    table_of,
    with_tolerances,
)
from ultrarefiner.metrics.masks import METRICS, DistanceUnit
from ultrarefiner.statistics import Estimate, Share, estimate_columns, share_of


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Images of which a mask is empty, by outcome."""

    missed: int
    false_positive: int
    both_empty: int


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Metrics of one method over all its cases.

    ``metrics`` also has ``hd95_detected``, HD95 over the cases with outcome ``"ok"`` alone, when
    HD95 was asked for and there is such a case. ``undefined`` says of how many images a metric has
    no value under the policy, so that its mean is over the others; metrics without any are not in
    it.
    """

    metrics: Mapping[str, Estimate]
    counts: Counts
    undefined: Mapping[str, int]
    num_images: int
    num_patients: int
    distance_unit: DistanceUnit


@dataclass(frozen=True, kw_only=True)
class PairedSummary:
    """Cases against baseline cases of the same images.

    ``differences`` are case minus baseline, so that a good distance difference is negative. An
    image is improved or harmed when its Dice moves by more than ``delta``; shares are of the images
    that have a Dice in both.
    """

    differences: Mapping[str, Estimate]
    delta: float
    improved: Share
    unchanged: Share
    harmed: Share


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What ``eval.json`` says of its cases."""

    cases: tuple[Case, ...]
    summary: Summary
    baseline_cases: tuple[Case, ...] = ()
    baseline: Summary | None = None
    paired: PairedSummary | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the ``eval.json`` object, ready for ``json.dump``: NaN is None."""
        summary = asdict(self.summary)
        baseline = asdict(self.baseline) if self.baseline else {}
        content: dict[str, Any] = as_json(
            {
                "summary": summary.pop("metrics"),
                **summary,
                "baseline": baseline.get("metrics"),
                "baseline_counts": baseline.get("counts"),
                "baseline_undefined": baseline.get("undefined"),
                "paired": asdict(self.paired) if self.paired else None,
            }
        )
        content["cases"] = [case.to_json() for case in self.cases]
        if self.baseline:
            content["baseline_cases"] = [case.to_json() for case in self.baseline_cases]
        return content


def evaluate_cases(
    cases: Sequence[Case],
    baseline_cases: Sequence[Case] | None = None,
    *,
    delta: float = 0.02,
    seed: int = 0,
) -> Evaluation:
    """Summarise cases, and compare them with a baseline's where there is one.

    Args:
        cases: one method's cases.
        baseline_cases: another method's cases of the same images.
        delta: Dice change, in [0, 1), up to which an image counts as unchanged.
        seed: seed of the bootstraps.

    Returns:
        The content of ``eval.json``.

    Raises:
        InputError: see :func:`summarise` and :func:`compare_paired`.
        ConfigError: ``delta`` is out of range.
    """
    check_delta(delta)
    summary = summarise(cases, seed=seed)
    if baseline_cases is None:
        return Evaluation(cases=tuple(cases), summary=summary)
    return Evaluation(
        cases=tuple(cases),
        summary=summary,
        baseline_cases=tuple(baseline_cases),
        baseline=summarise(baseline_cases, seed=seed),
        paired=compare_paired(cases, baseline_cases, delta=delta, seed=seed),
    )


def summarise(cases: Sequence[Case], metrics: Sequence[str] = METRICS, *, seed: int = 0) -> Summary:
    """Return mean, 95 % interval and median of each metric, and the counts of empty masks.

    Args:
        cases: at least one case, in any order; all measured alike.
        metrics: names out of :data:`METRICS`.
        seed: seed of the bootstrap.

    Returns:
        The summary. Empty masks count with the values that the policy gives them, or not at all
        where it gives none; beside HD95, ``hd95_detected`` leaves them out, and
        beside NSD stands ``nsd@2`` and so on for each further tolerance.

    Raises:
        InputError: there is no case, an image comes twice, or cases were measured differently.
        ConfigError: a metric name is unknown.
    """
    check_names(metrics)
    cases = in_order(cases)
    patients = patients_of(cases)
    names = with_tolerances(cases, metrics)
    values = table_of(cases, names)
    estimates = estimate_columns(values, patients, names, seed=seed)
    detected = np.array([case.metrics.outcome == "ok" for case in cases])
    if "hd95" in metrics and detected.any():
        hd95 = table_of(cases, ["hd95"])[detected]
        estimates |= estimate_columns(hd95, patients[detected], ["hd95_detected"], seed=seed)
    num_undefined = np.count_nonzero(np.isnan(values), axis=0)
    return Summary(
        metrics=estimates,
        counts=count_empty(cases),
        undefined={n: int(num) for n, num in zip(names, num_undefined, strict=True) if num},
        num_images=len(cases),
        num_patients=len(np.unique(patients)),
        distance_unit=cases[0].metrics.distance_unit,
    )


def compare_paired(
    cases: Sequence[Case],
    baseline_cases: Sequence[Case],
    metrics: Sequence[str] = METRICS,
    *,
    delta: float = 0.02,
    seed: int = 0,
) -> PairedSummary:
    """Compare two methods image by image.

    Args:
        cases: the method's cases.
        baseline_cases: the baseline's cases of the same images, in any order.
        metrics: names out of :data:`METRICS` to take differences of.
        delta: Dice change, in [0, 1), up to which an image counts as unchanged.
        seed: seed of the bootstraps.

    Returns:
        Mean differences (case minus baseline) and the shares improved, unchanged and harmed.

    Raises:
        InputError: the two do not cover the same images with the same patients and settings, one
            of them is not fit for :func:`summarise`, or no image has a Dice in both.
        ConfigError: a metric name is unknown or ``delta`` is out of range.
    """
    check_names(metrics)
    check_delta(delta)
    own, baseline = matched({"the method": cases, "the baseline": baseline_cases}).values()
    patients = patients_of(own)
    names = with_tolerances(own, metrics)
    differences = table_of(own, names) - table_of(baseline, names)
    return PairedSummary(
        differences=estimate_columns(differences, patients, names, seed=seed),
        delta=delta,
        **share_changes(dice_changes(own, baseline), patients, delta=delta, seed=seed),
    )


def dice_changes(cases: Sequence[Case], baseline: Sequence[Case]) -> Float64[np.ndarray, " N"]:
    """Return Dice of the cases minus that of the baseline; both in the same order."""
    change: Float64[np.ndarray, "N 1"] = table_of(cases, ["dsc"]) - table_of(baseline, ["dsc"])
    return change[:, 0]


def share_changes(
    changes: Float64[np.ndarray, " N"],
    patients: Shaped[np.ndarray, " N"],
    *,
    delta: float,
    seed: int = 0,
) -> dict[str, Share]:
    """Return the shares of images improved, unchanged and harmed.

    Args:
        changes: change in Dice, one per image; NaN, where one of both has none, does not count.
        patients: the patient of each image.
        delta: change up to which an image counts as unchanged.
        seed: seed of the bootstraps.

    Raises:
        InputError: no image has a Dice in both.
    """
    there = ~np.isnan(changes)
    if not there.any():
        raise InputError(
            "no image has a DSC in both",
            expected="at least one lesion, true or predicted",
            found=f"{len(changes)} images without any",
            fix="Choose the policy 'declared', which counts an image that is rightly empty as 1.",
        )
    changes, patients = changes[there], patients[there]
    kinds = {
        "improved": changes > delta,
        "unchanged": np.abs(changes) <= delta,
        "harmed": changes < -delta,
    }
    return {name: share_of(holds, patients, seed=seed) for name, holds in kinds.items()}


def count_empty(cases: Sequence[Case]) -> Counts:
    """Return of how many cases a mask is empty, by outcome."""
    times = Counter(case.metrics.outcome for case in cases)
    return Counts(
        missed=times["missed"],
        false_positive=times["false_positive"],
        both_empty=times["both_empty"],
    )


def patients_of(cases: Sequence[Case]) -> Shaped[np.ndarray, " N"]:
    """Return the patient of each case."""
    return np.array([case.patient for case in cases])


def check_delta(delta: float) -> None:
    """Refuse a threshold that is no Dice.

    Raises:
        ConfigError: it is not in [0, 1).
    """
    if not 0 <= delta < 1:
        raise ConfigError("delta is out of range", expected="a Dice in [0, 1)", found=f"{delta}")
