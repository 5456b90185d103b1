"""From outcomes to a rule: weights of the score on some patients, its threshold on others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ultrarefiner.calibration.learning import learn_weights
from ultrarefiner.calibration.outcomes import Outcome
from ultrarefiner.calibration.promise import Promise
from ultrarefiner.calibration.threshold import (
    Delivery,
    Search,
    candidate_thresholds,
    deliver,
    search_threshold,
)
from ultrarefiner.errors import InputError
from ultrarefiner.refine.acceptance import AcceptanceRule


@dataclass(frozen=True, kw_only=True)
class Scored:
    """An image with the score that a rule gives it.

    Attributes:
        outcome: what refinement did to it.
        score: at most 0, the best.
        split: ``A`` if the rule was learned on it, ``B`` if the threshold was chosen on it.
        fold: that held it out, where every fold has a rule of its own.
    """

    outcome: Outcome
    score: float
    split: str = "B"
    fold: str = ""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A rule and what it rests on.

    Attributes:
        rule: score and threshold.
        cases: all images, those that the threshold was chosen on and those that it was learned on.
        search: the thresholds that were tried.
        before: what is delivered without a rule, of the images that the threshold was chosen on.
        after: what is delivered with it.
    """

    rule: AcceptanceRule
    cases: tuple[Scored, ...]
    search: Search
    before: Delivery
    after: Delivery

    @property
    def trusts_nothing(self) -> bool:
        """Whether the rule undoes all that the refiner did: none of its changes is accepted."""
        changed = [case for case in self.cases if case.split == "B" and case.outcome.changed]
        return bool(changed) and not any(self.rule.accepts(case.score) for case in changed)

    @property
    def kept_gain(self) -> float | None:
        """Share of the gain in DSC that is kept; none where there was none to keep."""
        return self.after.gain / self.before.gain if self.before.gain > 0 else None


def learn_rule(
    learned: Sequence[Outcome],
    chosen: Sequence[Outcome],
    promise: Promise,
    *,
    source: str,
    binding: str,
    bf16: bool = False,
) -> AcceptanceRule:
    """Return a rule that has learned its score, but trusts nothing yet.

    Args:
        learned: outcomes to learn the score on.
        chosen: outcomes of other patients, to choose the threshold on.
        promise: what is to be kept.
        source: of the coarse masks, ``network`` or ``masks``.
        binding: sha256 of the checkpoint that the outcomes are of.
        bf16: whether they are of refining in bfloat16.

    Raises:
        InputError: one of both is empty.
    """
    for outcomes, what in ((learned, "learn the score on"), (chosen, "choose the threshold on")):
        if not outcomes:
            raise InputError(f"no image is left to {what}", fix="Give more patients.")
    blank = AcceptanceRule(
        weights=learn_weights(learned, promise.delta),
        threshold=math.inf,
        alpha=promise.alpha,
        delta=promise.delta,
        eta=promise.eta,
        method=promise.method,
        source=source,
        scores=(),
        binding=binding,
        num_images=len(chosen),
        num_patients=len({outcome.patient for outcome in chosen}),
        bf16=bf16,
    )
    return replace(blank, scores=tuple(sorted(blank.score(item.signs) for item in chosen)))


def calibrate_rule(
    learned: Sequence[Outcome],
    chosen: Sequence[Outcome],
    promise: Promise,
    *,
    source: str,
    binding: str,
    bf16: bool = False,
) -> Calibration:
    """Learn a score on some patients and choose its threshold on others; see :func:`learn_rule`.

    Every threshold there is is tried, in falling order, which is settled beforehand. What is seen
    of that are the scores of the second kind of patients: between two of them nothing changes.

    Raises:
        InputError: there are too few patients.
    """
    rule = learn_rule(learned, chosen, promise, source=source, binding=binding, bf16=bf16)
    cases = [
        Scored(outcome=outcome, score=rule.score(outcome.signs), split=split)
        for split, outcomes in (("A", learned), ("B", chosen))
        for outcome in outcomes
    ]
    thresholds = candidate_thresholds([case.score for case in cases if case.split == "B"])
    return conclude(rule, cases, thresholds, promise)


def conclude(
    rule: AcceptanceRule,
    cases: Sequence[Scored],
    thresholds: Sequence[float],
    promise: Promise,
) -> Calibration:
    """Choose the threshold of a rule on the cases of split B.

    Args:
        rule: with its score.
        cases: scored images.
        thresholds: to try, from strict to loose.
        promise: what is to be kept.

    Raises:
        InputError: there are too few patients.
    """
    outcomes = [case.outcome for case in cases if case.split == "B"]
    scores = [case.score for case in cases if case.split == "B"]
    search = search_threshold(outcomes, scores, thresholds, promise=promise)
    accepted = np.asarray(scores) >= search.threshold
    everything = np.ones_like(accepted)
    return Calibration(
        rule=replace(rule, threshold=search.threshold),
        cases=tuple(cases),
        search=search,
        before=deliver(outcomes, everything, delta=promise.delta, seed=promise.seed),
        after=deliver(outcomes, accepted, delta=promise.delta, seed=promise.seed),
    )
