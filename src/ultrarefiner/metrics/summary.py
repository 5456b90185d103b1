"""What many evaluated masks say together: means, paired differences, counts of misses.

All intervals respect patients; see :mod:`ultrarefiner.metrics.intervals`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from ultrarefiner.errors import ConfigError, InputError
from ultrarefiner.metrics.intervals import (
    Estimate,
    Share,
    central_interval,
    clustered_bootstrap,
    estimate_columns,
    share_of,
)
from ultrarefiner.metrics.masks import METRICS, DistanceUnit, MaskMetrics


@dataclass(frozen=True, kw_only=True)
class Case:
    """One evaluated image.

    Args:
        image: path or name of the image, unique among the cases.
        metrics: what :func:`~ultrarefiner.metrics.evaluate_mask` gave.
        patient: whose image it is; when unknown, the image's stem stands for the patient.
    """

    image: str
    metrics: MaskMetrics
    patient: str = ""

    def __post_init__(self) -> None:
        if not self.patient:
            object.__setattr__(self, "patient", Path(self.image).stem)


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Images whose metrics the empty-mask policy gave, by outcome."""

    missed: int
    false_positive: int
    both_empty: int


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Metrics of one method over all its cases.

    ``metrics`` also has ``hd95_detected``, HD95 over the cases with outcome ``"ok"`` alone, when
    HD95 was asked for and there is such a case.
    """

    metrics: Mapping[str, Estimate]
    counts: Counts
    num_images: int
    num_patients: int
    distance_unit: DistanceUnit


@dataclass(frozen=True, kw_only=True)
class PairedSummary:
    """Cases against baseline cases of the same images.

    ``differences`` are case minus baseline, so that a good distance difference is negative. An
    image is improved or harmed when its Dice moves by more than ``delta``. ``harmed_clustered``
    is the interval of the harmed share by the bootstrap over patients.
    """

    differences: Mapping[str, Estimate]
    delta: float
    improved: Share
    unchanged: Share
    harmed: Share
    harmed_clustered: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Everything that ``eval.json`` says."""

    cases: tuple[Case, ...]
    summary: Summary
    baseline: Summary | None = None
    paired: PairedSummary | None = None

    def to_json(self) -> dict[str, object]:
        """Return the ``eval.json`` object, ready for ``json.dump``."""
        summary = asdict(self.summary)
        baseline = asdict(self.baseline) if self.baseline else {}
        return {
            "summary": summary.pop("metrics"),
            **summary,
            "baseline": baseline.get("metrics"),
            "baseline_counts": baseline.get("counts"),
            "paired": asdict(self.paired) if self.paired else None,
            "cases": [
                {"image": case.image, "patient": case.patient, **asdict(case.metrics)}
                for case in self.cases
            ],
        }


def evaluate_cases(
    cases: Sequence[Case], baseline_cases: Sequence[Case] | None = None, *, seed: int = 0
) -> Evaluation:
    """Summarise cases, and compare them with a baseline's where there is one.

    Args:
        cases: one method's cases.
        baseline_cases: another method's cases of the same images.
        seed: seed of the bootstraps.

    Returns:
        The content of ``eval.json``.

    Raises:
        InputError: see :func:`summarise` and :func:`compare_paired`.
    """
    summary = summarise(cases, seed=seed)
    if baseline_cases is None:
        return Evaluation(cases=tuple(cases), summary=summary)
    return Evaluation(
        cases=tuple(cases),
        summary=summary,
        baseline=summarise(baseline_cases, seed=seed),
        paired=compare_paired(cases, baseline_cases, seed=seed),
    )


def summarise(cases: Sequence[Case], metrics: Sequence[str] = METRICS, *, seed: int = 0) -> Summary:
    """Return mean, 95 % interval and median of each metric, and the counts of empty masks.

    Args:
        cases: at least one case; all in one distance unit and with one NSD tolerance.
        metrics: names out of :data:`METRICS`.
        seed: seed of the bootstrap.

    Returns:
        The summary. Empty masks count with the values that the policy gives them; beside HD95,
        ``hd95_detected`` leaves them out.

    Raises:
        InputError: there is no case, an image comes twice, or units or tolerances are mixed.
        ConfigError: a metric name is unknown.
    """
    _check_cases(cases)
    _check_names(metrics)
    patients = np.array([case.patient for case in cases])
    estimates = estimate_columns(_table(cases, metrics), patients, metrics, seed)
    detected = np.array([case.metrics.outcome == "ok" for case in cases])
    if "hd95" in metrics and detected.any():
        hd95 = _table(cases, ["hd95"])[detected]
        estimates |= estimate_columns(hd95, patients[detected], ["hd95_detected"], seed)
    outcomes = [case.metrics.outcome for case in cases]
    return Summary(
        metrics=estimates,
        counts=Counts(
            missed=outcomes.count("missed"),
            false_positive=outcomes.count("false_positive"),
            both_empty=outcomes.count("both_empty"),
        ),
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
        seed: seed of the bootstrap.

    Returns:
        Mean differences (case minus baseline) and the shares improved, unchanged and harmed.

    Raises:
        InputError: the two do not cover the same images with the same patients, unit and
            tolerance, or one of them is not fit for :func:`summarise`.
        ConfigError: a metric name is unknown or ``delta`` is out of range.
    """
    baseline = _matched(cases, baseline_cases)
    _check_names(metrics)
    if not 0 <= delta < 1:
        raise ConfigError("delta is out of range", expected="a Dice in [0, 1)", found=f"{delta}")
    patients = np.array([case.patient for case in cases])
    differences = _table(cases, metrics) - _table(baseline, metrics)
    dsc_change = _table(cases, ["dsc"]) - _table(baseline, ["dsc"])
    harmed = dsc_change < -delta
    rng = np.random.default_rng(seed)
    low, high = central_interval(clustered_bootstrap(harmed.astype(np.float64), patients, rng))
    return PairedSummary(
        differences=estimate_columns(differences, patients, metrics, seed),
        delta=delta,
        improved=share_of(dsc_change > delta),
        unchanged=share_of(np.abs(dsc_change) <= delta),
        harmed=share_of(harmed),
        harmed_clustered=(float(low[0]), float(high[0])),
    )


def _table(cases: Sequence[Case], names: Sequence[str]) -> Float64[np.ndarray, "N M"]:
    """Return the named metrics, one row per case."""
    return np.array([[getattr(case.metrics, name) for name in names] for case in cases], float)


def _matched(cases: Sequence[Case], baseline_cases: Sequence[Case]) -> list[Case]:
    """Return the baseline's cases in the order of the cases, or say why they do not pair."""
    _check_cases(cases)
    _check_cases(baseline_cases)
    by_image = {case.image: case for case in baseline_cases}
    unpaired = by_image.keys() ^ {case.image for case in cases}
    if unpaired:
        raise InputError(
            "cases and baseline cover different images",
            expected="every image in both",
            found=f"{len(unpaired)} in one alone, such as {min(unpaired)}",
            fix="Evaluate both methods on the same manifest.",
        )
    baseline = [by_image[case.image] for case in cases]
    for case, other in zip(cases, baseline, strict=True):
        if _setting(case) != _setting(other) or case.patient != other.patient:
            raise InputError(
                f"case and baseline of {case.image} were measured differently",
                expected=f"patient {case.patient}, {_setting(case)}",
                found=f"patient {other.patient}, {_setting(other)}",
                fix="Evaluate both methods with the same manifest and tolerance.",
            )
    return baseline


def _check_cases(cases: Sequence[Case]) -> None:
    """Refuse cases that have no common summary."""
    if not cases:
        raise InputError(
            "there is no case to summarise",
            expected="at least one evaluated image",
            fix="Check that the predictions' names match the manifest's images.",
        )
    image, times = Counter(case.image for case in cases).most_common(1)[0]
    if times > 1:
        raise InputError(
            f"image {image} comes {times} times",
            expected="one case per image",
            fix="Keep one row of it, or give the images unique paths.",
        )
    settings = sorted({_setting(case) for case in cases})
    if len(settings) > 1:
        raise InputError(
            "cases differ in distance unit or tolerance",
            expected="one of each",
            found=" and ".join(settings),
            fix="Give the pixel spacing of all images, or of none.",
        )


def _setting(case: Case) -> str:
    """Return what has to agree before distances and NSD can be averaged."""
    return f"tolerance {case.metrics.tolerance:g} {case.metrics.distance_unit}"


def _check_names(names: Sequence[str]) -> None:
    """Refuse metric names that no mask has."""
    unknown = sorted(set(names) - set(METRICS))
    if unknown:
        raise ConfigError(f"unknown metric {unknown[0]!r}", expected="one of " + ", ".join(METRICS))
