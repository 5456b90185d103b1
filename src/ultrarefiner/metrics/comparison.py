"""Several methods on the same images: every pair tested, and the strata of the images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from ultrarefiner.errors import ConfigError
from ultrarefiner.metrics.cases import Case, as_json, check_names, matched, table_of
from ultrarefiner.metrics.masks import METRICS, DistanceUnit
from ultrarefiner.metrics.pairs import (
    Pair,
    StudyPlan,
    adjust_pairs,
    check_margins,
    compare_pair,
    plan_study,
)
from ultrarefiner.metrics.strata import group_levels, size_thirds
from ultrarefiner.metrics.summary import (
    Counts,
    Summary,
    check_delta,
    count_empty,
    dice_changes,
    patients_of,
    share_changes,
    summarise,
)
from ultrarefiner.statistics import Estimate, Share, estimate_columns

Methods = Mapping[str, Sequence[Case]]

_KINDS = ("label", "birads", "device", "dataset")  # the order of the tables; others come after


@dataclass(frozen=True, kw_only=True)
class Stratum:
    """The methods on the images of one kind; differences and harm are against the reference."""

    num_images: int
    num_patients: int
    summaries: Mapping[str, Mapping[str, Estimate]]
    counts: Mapping[str, Counts]
    differences: Mapping[str, Mapping[str, Estimate]]
    harmed: Mapping[str, Share]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What several methods did on the same images.

    Attributes:
        methods: their names, the reference first.
        reference: the method that strata are compared with.
        metrics: what was tested.
        distance_unit: ``"mm"`` or ``"px"``.
        num_images: images, the same of every method.
        num_patients: their patients.
        delta: Dice change up to which an image counts as unchanged.
        margin: metric to the largest difference that does not matter; None if none was given.
        seed: seed of bootstraps and permutations.
        summaries: method to its means and counts of empty masks.
        pairs: every pair of methods, the earlier one as reference; adjusted p-values are Holm's
            over all tests of all pairs.
        strata: kind, such as ``"size"`` or ``"device"``, to level to its numbers. A level that all
            images have says nothing new and is not in it.
        strata_left_out: kind to levels with fewer than two patients.
        size_cuts: largest small and largest medium area of a true lesion, in ``distance_unit``
            squared; None where no area is known.
        sample_size: the study that would find the Dice difference of the first pair.
    """

    methods: tuple[str, ...]
    reference: str
    metrics: tuple[str, ...]
    distance_unit: DistanceUnit
    num_images: int
    num_patients: int
    delta: float
    margin: Mapping[str, float] | None
    seed: int
    summaries: Mapping[str, Summary]
    pairs: tuple[Pair, ...]
    strata: Mapping[str, Mapping[str, Stratum]]
    strata_left_out: Mapping[str, Sequence[str]]
    size_cuts: tuple[float, float] | None
    sample_size: StudyPlan | None

    def to_json(self) -> dict[str, Any]:
        """Return the object that ``compare.json`` holds; NaN is None."""
        content: dict[str, Any] = as_json(asdict(self))
        kept = ("metrics", "counts", "undefined")
        content["summaries"] = {
            name: {key: summary[key] for key in kept}
            for name, summary in content["summaries"].items()
        }
        return content


def compare_methods(
    methods: Methods,
    *,
    reference: str | None = None,
    metrics: Sequence[str] | None = None,
    delta: float = 0.02,
    margin: float | Mapping[str, float] | None = None,
    effect: float | None = None,
    seed: int = 0,
) -> Comparison:
    """Compare methods image by image, each with each.

    Args:
        methods: name to cases, two or more, of the same images in any order.
        reference: name of the method that the others are held against; the first if None.
        metrics: names out of :data:`METRICS` to test; all that every method has if None. Each one
            more raises the adjusted p-values of all, so name those that were meant beforehand.
        delta: Dice change, in [0, 1), up to which an image counts as unchanged.
        margin: the largest difference that does not matter, above 0: a number in Dice, or metric to
            number in its unit. It has to be chosen before looking.
        effect: Dice difference that the next study is to find; that of the first pair if None.
        seed: seed of bootstraps and permutations.

    Returns:
        The comparison; the same for the same cases in any order.

    Raises:
        InputError: the methods are not of the same images, patients, truths and settings, or no
            image has a Dice in both methods of a pair.
        ConfigError: fewer than two methods, an unknown reference or metric, or a setting that is
            out of range.

    Example:
        >>> from ultrarefiner.metrics import evaluate_mask
        >>> target = np.pad(np.ones((6, 6), dtype=bool), 3)
        >>> coarse, refined = (
        ...     [
        ...         Case(image=f"{i}", metrics=evaluate_mask(np.roll(target, shift), target))
        ...         for i in range(6)
        ...     ]
        ...     for shift in (2, 1)
        ... )
        >>> pair = compare_methods({"coarse": coarse, "refined": refined}).pairs[0]
        >>> pair.improved.num, pair.tests["dsc"].p_permutation
        (6, 0.03125)
    """
    check_delta(delta)
    names = _names(methods, reference)
    cases = matched({name: methods[name] for name in names})
    metrics = _metrics(cases, metrics)
    margins = check_margins(margin, metrics)
    summaries = {name: summarise(own, metrics, seed=seed) for name, own in cases.items()}
    first = summaries[names[0]]
    strata, left_out, cuts = _strata(cases, metrics=metrics, delta=delta, seed=seed)
    return Comparison(
        methods=names,
        reference=names[0],
        metrics=metrics,
        distance_unit=first.distance_unit,
        num_images=first.num_images,
        num_patients=first.num_patients,
        delta=delta,
        margin=margins or None,
        seed=seed,
        summaries=summaries,
        pairs=adjust_pairs(
            [
                compare_pair(
                    *two,
                    metrics=metrics,
                    delta=delta,
                    margins=margins,
                    num_tests=len(metrics) * math.comb(len(names), 2),
                    seed=seed,
                )
                for two in combinations(cases.items(), 2)
            ]
        ),
        strata=strata,
        strata_left_out=left_out,
        size_cuts=cuts,
        sample_size=plan_study(cases[names[0]], cases[names[1]], effect=effect),
    )


def _names(methods: Methods, reference: str | None) -> tuple[str, ...]:
    """Return the names of the methods, the reference first."""
    names = list(methods)
    if len(names) < 2:
        raise ConfigError("methods", expected="two or more", found=", ".join(names) or "none")
    if reference is None:
        return tuple(names)
    if reference not in methods:
        raise ConfigError("reference", expected="one of " + ", ".join(names), found=reference)
    return (reference, *(name for name in names if name != reference))


def _metrics(cases: Methods, metrics: Sequence[str] | None) -> tuple[str, ...]:
    """Return the metrics to test, without a choice all that every method has of some image."""
    if metrics is None:
        there = [~np.isnan(table_of(own, METRICS)).all(axis=0) for own in cases.values()]
        return tuple(name for i, name in enumerate(METRICS) if all(has[i] for has in there))
    check_names(metrics)
    if not metrics:
        raise ConfigError("metrics", expected="one or more", found="none")
    return tuple(metrics)


def _strata(
    cases: Methods, *, metrics: Sequence[str], delta: float, seed: int
) -> tuple[dict[str, dict[str, Stratum]], dict[str, list[str]], tuple[float, float] | None]:
    """Return the strata by kind and level, the levels left out, and the cuts between sizes."""
    levels, cuts = _levels(cases)
    patients = [case.patient for case in next(iter(cases.values()))]
    groups = {kind: group_levels(own, patients) for kind, own in levels.items()}
    strata = {
        kind: {
            level: _stratum(cases, chosen, metrics=metrics, delta=delta, seed=seed)
            for level, chosen in found.items()
        }
        for kind, (found, _) in groups.items()
        if found
    }
    left_out = {kind: too_few for kind, (_, too_few) in groups.items() if too_few}
    return strata, left_out, cuts


def _levels(cases: Methods) -> tuple[dict[str, list[str]], tuple[float, float] | None]:
    """Return the level of each image in each kind, and the cuts between sizes.

    What one method does not know of an image another may.
    """
    columns = list(zip(*cases.values(), strict=True))
    known = [
        {kind: level for case in reversed(column) for kind, level in case.strata.items() if level}
        for column in columns
    ]
    areas = np.array([_area(column) for column in columns])
    sizes, cuts = size_thirds(areas)
    found = {kind for strata in known for kind in strata}
    kinds = [kind for kind in _KINDS if kind in found] + sorted(found.difference(_KINDS))
    levels = {"size": sizes} | {kind: [one.get(kind, "") for one in known] for kind in kinds}
    return {kind: own for kind, own in levels.items() if len(set(own)) > 1}, cuts


def _area(column: Sequence[Case]) -> float:
    """Return the area of the truth, as the first method that knows it has it."""
    areas = [case.metrics.area_target for case in column]
    return next((area for area in areas if not math.isnan(area)), math.nan)


def _stratum(
    cases: Methods, chosen: Sequence[int], *, metrics: Sequence[str], delta: float, seed: int
) -> Stratum:
    """Return the numbers of some of the images."""
    parts = {name: [own[i] for i in chosen] for name, own in cases.items()}
    reference, *others = parts
    patients = patients_of(parts[reference])
    tables = {name: table_of(own, metrics) for name, own in parts.items()}
    changes = {name: dice_changes(parts[name], parts[reference]) for name in others}
    return Stratum(
        num_images=len(chosen),
        num_patients=len(np.unique(patients)),
        summaries={
            name: estimate_columns(table, patients, metrics, seed=seed)
            for name, table in tables.items()
        },
        counts={name: count_empty(own) for name, own in parts.items()},
        differences={
            name: estimate_columns(tables[name] - tables[reference], patients, metrics, seed=seed)
            for name in others
        },
        harmed={
            name: share_changes(change, patients, delta=delta, seed=seed)["harmed"]
            for name, change in changes.items()
            if not np.isnan(change).all()
        },
    )
