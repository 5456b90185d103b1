"""Two methods on the same images, metric by metric: difference, tests, effect sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64, Shaped

from ultrarefiner.errors import ConfigError
from ultrarefiner.metrics.cases import Case, table_of
from ultrarefiner.metrics.summary import dice_changes, patients_of, share_changes
from ultrarefiner.statistics import (
    Equivalence,
    Estimate,
    MixedModel,
    Share,
    equivalence,
    estimate_columns,
    holm,
    random_intercept,
    sample_size,
    sign_flip_test,
    sign_test,
    signed_rank_test,
    standardised_mean,
)

LESS_IS_BETTER = ("hd", "hd95", "assd")
SIGNED = ("area_error", "diameter_error")
"""Metrics without a better end: nearer to zero is better."""

_FLIPS, _FLIPS_PER_TEST = 10_000, 100  # so that Holm's smallest p can be 0.01 or less
_ROUNDING = 1e-9  # a Dice difference or its spread below this is none


@dataclass(frozen=True, kw_only=True)
class MetricTest:
    """One metric of one method against the reference, on the same images.

    The primary analysis is over patients: ``difference`` with its BCa interval, and the sign-flip
    permutation test. Beside it stand tests over images, which take images of one patient for
    independent, and a mixed model.

    Attributes:
        difference: mean of method minus reference, with interval, and median.
        p_permutation: permutation test on patients.
        p_permutation_holm: the same, adjusted for all tests of the comparison.
        p_wilcoxon: Wilcoxon's signed-rank test on images.
        rank_biserial: its effect size, in [-1, 1].
        p_sign: sign test on images.
        sign_balance: its effect size, share of upward minus downward changes, in [-1, 1].
        standardised_mean: Cohen's d_z of patient means; NaN where there is none.
        mixed: mean difference with an intercept per patient; None with fewer than two patients.
        equivalence: the difference against the margin; None where no margin was given.
    """

    difference: Estimate
    p_permutation: float
    p_permutation_holm: float
    p_wilcoxon: float
    rank_biserial: float
    p_sign: float
    sign_balance: float
    standardised_mean: float
    mixed: MixedModel | None
    equivalence: Equivalence | None


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A method against a reference: shares of images by their change in Dice, and all tests."""

    method: str
    reference: str
    improved: Share
    unchanged: Share
    harmed: Share
    tests: Mapping[str, MetricTest]


@dataclass(frozen=True, kw_only=True)
class StudyPlan:
    """The study that would find an effect on the Dice with 80 % power at the 5 % level.

    Attributes:
        effect: difference in Dice to be found.
        sd: standard deviation of the differences of images here.
        icc: intraclass correlation of a patient's differences here.
        images_per_patient: mean number here.
        num_patients: patients that the study needs.
        num_images: their images.
        design_effect: by how much likeness within patients raises the number of images.
    """

    effect: float
    sd: float
    icc: float
    images_per_patient: float
    num_patients: int
    num_images: int
    design_effect: float


def compare_pair(
    reference: tuple[str, Sequence[Case]],
    method: tuple[str, Sequence[Case]],
    *,
    metrics: Sequence[str],
    delta: float,
    margins: Mapping[str, float],
    num_tests: int,
    seed: int,
) -> Pair:
    """Test a method against a reference; p-values are not yet adjusted.

    Args:
        reference: name and cases.
        method: name and cases of the same images in the same order.
        metrics: what to test; a metric that no image has in both is left out.
        delta: Dice change up to which an image counts as unchanged.
        margins: metric to the largest difference that does not matter.
        num_tests: tests of the whole comparison; many need more permutations, as no p-value is
            below one in their number.
        seed: seed of bootstraps and permutations.

    Raises:
        InputError: no image has a Dice in both.
    """
    patients = patients_of(method[1])
    differences = table_of(method[1], metrics) - table_of(reference[1], metrics)
    estimates = estimate_columns(differences, patients, metrics, seed=seed)
    return Pair(
        method=method[0],
        reference=reference[0],
        **share_changes(dice_changes(method[1], reference[1]), patients, delta=delta, seed=seed),
        tests={
            name: _test(
                differences[:, column],
                patients,
                estimates[name],
                name=name,
                margin=margins.get(name),
                num_permutations=max(_FLIPS, _FLIPS_PER_TEST * num_tests),
                seed=seed,
            )
            for column, name in enumerate(metrics)
            if name in estimates
        },
    )


def adjust_pairs(pairs: Sequence[Pair]) -> tuple[Pair, ...]:
    """Return the pairs with Holm's adjustment over all their tests, which are one family."""
    family = [test.p_permutation for pair in pairs for test in pair.tests.values()]
    adjusted = iter(holm(family))
    return tuple(
        replace(
            pair,
            tests={
                name: replace(test, p_permutation_holm=next(adjusted))
                for name, test in pair.tests.items()
            },
        )
        for pair in pairs
    )


def check_margins(
    margin: float | Mapping[str, float] | None, metrics: Sequence[str]
) -> dict[str, float]:
    """Return the margin of each metric that has one; a bare number is in Dice.

    Raises:
        ConfigError: a margin is not above 0, or of a metric that is not tested or has no better
            end.
    """
    if margin is None:
        return {}
    margins = dict(margin) if isinstance(margin, Mapping) else {"dsc": margin}
    allowed = [name for name in metrics if name not in SIGNED]
    for name, value in margins.items():
        if name not in allowed:
            raise ConfigError(
                "margin", expected="of one of " + ", ".join(allowed), found=f"of {name}"
            )
        if not 0 < value < math.inf:
            raise ConfigError(f"margin of {name}", expected="above 0", found=f"{value}")
    return margins


def plan_study(
    reference: Sequence[Case], method: Sequence[Case], *, effect: float | None = None
) -> StudyPlan | None:
    """Return the study that would find an effect among images that scatter as these do.

    Args:
        reference: cases.
        method: cases of the same images in the same order.
        effect: difference in Dice to be found; the one observed here if None.

    Returns:
        The plan; None where there is nothing to plan by: no difference, no scatter, one patient.
    """
    changes, patients = dice_changes(method, reference), patients_of(method)
    there = ~np.isnan(changes)
    changes, patients = changes[there], patients[there]
    num_patients = len(np.unique(patients))
    if num_patients < 2:
        return None
    sd, observed = float(changes.std(ddof=1)), float(changes.mean())
    if sd < _ROUNDING or (effect is None and abs(observed) < _ROUNDING):
        return None
    effect = observed if effect is None else effect
    icc = random_intercept(changes, patients).icc
    images_per_patient = len(changes) / num_patients
    size = sample_size(effect, sd=sd, icc=icc, images_per_patient=images_per_patient)
    return StudyPlan(
        effect=effect,
        sd=sd,
        icc=icc,
        images_per_patient=images_per_patient,
        num_patients=size.num_patients,
        num_images=size.num_images,
        design_effect=size.design_effect,
    )


def _test(
    differences: Float64[np.ndarray, " N"],
    patients: Shaped[np.ndarray, " N"],
    difference: Estimate,
    *,
    name: str,
    margin: float | None,
    num_permutations: int,
    seed: int,
) -> MetricTest:
    """Return all tests of one metric."""
    ranks, signs = signed_rank_test(differences), sign_test(differences)
    mixed = random_intercept(differences, patients)
    return MetricTest(
        difference=difference,
        p_permutation=sign_flip_test(
            differences, patients, seed=seed, num_permutations=num_permutations
        ),
        p_permutation_holm=math.nan,
        p_wilcoxon=ranks.p,
        rank_biserial=ranks.effect,
        p_sign=signs.p,
        sign_balance=signs.effect,
        standardised_mean=standardised_mean(differences, patients),
        mixed=None if math.isnan(mixed.p) else mixed,
        equivalence=equivalence(
            differences,
            patients,
            margin=margin,
            greater_is_better=name not in LESS_IS_BETTER,
            seed=seed,
        )
        if margin is not None
        else None,
    )
