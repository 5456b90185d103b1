"""What the tests of a comparison say, in sentences that claim no more than the intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ultrarefiner.report.naming import LABELS, LESS_IS_BETTER, SIGNED, digits_of, in_order
from ultrarefiner.report.wording import (
    FEWEST_PATIENTS,
    counted,
    fixed,
    interval,
    p_value,
    signed,
)

Content = Mapping[str, Any]

_LEVEL = 0.05


@dataclass(frozen=True, kw_only=True)
class PairEvidence:
    """Two methods against each other.

    Attributes:
        title: which against which.
        sentences: what was found, plainly.
        tests: metric and its entry of the comparison, in the order of the tables.
        pair: the whole entry of the comparison.
    """

    title: str
    sentences: tuple[str, ...]
    tests: tuple[tuple[str, Content], ...]
    pair: Content

    @property
    def has_equivalence(self) -> bool:
        """Whether a margin was given for some metric."""
        return any(test.get("equivalence") for _, test in self.tests)


def weigh_pairs(comparison: Content) -> list[PairEvidence]:
    """Return the evidence on each pair of methods that was compared.

    Args:
        comparison: JSON of :class:`ultrarefiner.metrics.Comparison`.
    """
    return [
        PairEvidence(
            title=f"{pair['method']} against {pair['reference']}",
            sentences=tuple(_sentences(pair, comparison)),
            tests=tuple((name, pair["tests"][name]) for name in in_order(pair["tests"])),
            pair=pair,
        )
        for pair in comparison["pairs"]
    ]


def count_tests(comparison: Content) -> int:
    """Return how many tests Holm's correction was taken over."""
    tests = (test for pair in comparison["pairs"] for test in pair["tests"].values())
    return sum(test.get("p_permutation") is not None for test in tests)


def sample_sentence(sample: Content | None) -> str:
    """Say how many patients a study needs to see the difference that was observed."""
    if not sample or not sample.get("num_patients"):
        return ""
    effect = sample.get("effect")
    of = f" of {signed(effect)} DSC" if effect is not None else ""
    size = counted(sample["num_patients"], "patient")
    if sample["num_images"] > sample["num_patients"]:
        size += (
            f" with {counted(sample['num_images'], 'image')} (design effect of several images a "
            f"patient {fixed(sample.get('design_effect'), 2)})"
        )
    return (
        f"To see a difference{of} as scattered as here with 80 % power at the 5 % level, a new "
        f"study needs about {size}. This plans a next study; it does not judge this one."
    )


def _sentences(pair: Content, comparison: Content) -> list[str]:
    """Return the sentences on the leading metric of a pair."""
    names = in_order(pair["tests"])
    if not names:
        return []
    name, test = names[0], pair["tests"][names[0]]
    sentences = [
        _difference(pair, name, comparison),
        _tested(test, comparison),
        _mixed(test.get("mixed"), digits_of(name)) if _has_repeats(comparison) else "",
        _margin(test.get("equivalence"), LABELS.get(name, name)),
    ]
    return [sentence for sentence in sentences if sentence]


def _has_repeats(comparison: Content) -> bool:
    """Return whether some patient has several images, so that a mixed model can tell more."""
    return bool(comparison["num_images"] > comparison["num_patients"])


def _difference(pair: Content, name: str, comparison: Content) -> str:
    change, digits = pair["tests"][name]["difference"], digits_of(name)
    label, pairing = LABELS.get(name, name), f"{pair['method']} than for {pair['reference']}"
    if comparison["num_patients"] < FEWEST_PATIENTS:
        return (
            f"The mean {label} changes by {signed(change['mean'], digits)} over "
            f"{counted(comparison['num_patients'], 'patient')}, too few to tell it from chance."
        )
    if change["low"] <= 0 <= change["high"]:
        return (
            f"Whether the mean {label} differs is open: the change is "
            f"{signed(change['mean'], digits)}, and its 95 % interval "
            f"({interval(change, digits, sign=True)}) includes zero."
        )
    higher = change["mean"] > 0
    is_worse = name not in SIGNED and higher == (name in LESS_IS_BETTER)
    low, high = sorted(abs(change[end]) for end in ("low", "high"))
    return (
        f"The mean {label} is {'higher' if higher else 'lower'} for {pairing} by "
        f"{fixed(abs(change['mean']), digits)} (95 % interval {fixed(low, digits)} to "
        f"{fixed(high, digits)}){', which is worse' if is_worse else ''}."
    )


def _tested(test: Content, comparison: Content) -> str:
    p, holm = test.get("p_permutation"), test.get("p_permutation_holm")
    if p is None:
        return ""
    patients = counted(comparison["num_patients"], "patient")
    said = f"The permutation test over {patients} gives p {p_value(p)}"
    if holm is None:
        return f"{said}."
    said += f", and p {p_value(holm)} after Holm's correction over {count_tests(comparison)} tests"
    if p <= _LEVEL < holm:
        return f"{said}: taken alone it would count, among so many tests it does not."
    if p > _LEVEL and not test["difference"]["low"] <= 0 <= test["difference"]["high"]:
        return f"{said}: it does not bear out the interval, so the difference stays open."
    return f"{said}."


def _mixed(mixed: Content | None, digits: int) -> str:
    if not mixed or mixed.get("mean") is None:
        return ""
    return (
        f"A mixed model with an intercept for each patient estimates "
        f"{signed(mixed['mean'], digits)} ({interval(mixed, digits, sign=True)}); "
        f"{fixed(mixed['icc'], 2)} of the variance is between patients."
    )


def _margin(found: Content | None, label: str) -> str:
    """Say what an equivalence test shows, and what it does not."""
    if not found or found.get("low") is None:
        return ""
    said = (
        f"With the margin of {fixed(found['margin'])} {label}, 90 % interval "
        f"{interval(found, sign=True)}: "
    )
    if found["equivalent"]:
        return f"{said}equivalent within the margin (p {p_value(found['p_equivalent'])})."
    if found["non_inferior"]:
        p = p_value(found["p_non_inferior"])
        return f"{said}not inferior (p {p}); equivalence was not shown."
    return f"{said}neither equivalence nor non-inferiority was shown."
