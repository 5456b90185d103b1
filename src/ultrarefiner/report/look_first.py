"""Which images a person should look at first: the least trusted of a run, with or without truth."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ultrarefiner.report.cases import ReportCase
from ultrarefiner.report.wording import percent

MAX_LISTED = 10
"""How many images the list names."""

_SIGNS = {"predicted_iou": "predicted IoU", "iou_with_coarse": "IoU with the coarse mask"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Listed:
    """One image of the list.

    Attributes:
        index: index of the case on the page.
        case: what is known of it.
        why: what speaks against its mask.
    """

    index: int
    case: ReportCase
    why: str

    @property
    def score(self) -> float | None:
        """Of the acceptance rule; None where the stabiliser left it nothing to judge."""
        is_judged = self.case.accepted or self.case.is_refused_by_rule
        return self.case.score if is_judged else None


@dataclass(frozen=True, kw_only=True, eq=False)
class LookFirst:
    """The head of the list.

    Attributes:
        listed: at most :data:`MAX_LISTED` images, the least trusted first.
        num_images: images in the whole list.
        has_score: whether a score of the acceptance rule orders them.
    """

    listed: tuple[Listed, ...]
    num_images: int
    has_score: bool


def look_first(cases: Mapping[int, ReportCase]) -> LookFirst | None:
    """Return the images of a run to look at first; None without a run.

    Args:
        cases: cases by their index on the page.
    """
    ranked = rank_by_trust(cases)
    if not ranked:
        return None
    return LookFirst(
        listed=tuple(ranked[:MAX_LISTED]),
        num_images=len(ranked),
        has_score=any(entry.score is not None for entry in ranked),
    )


def rank_by_trust(cases: Mapping[int, ReportCase]) -> list[Listed]:
    """Return the images of a run, the least trusted first.

    First come those that an acceptance rule refused, by their score; then those that the
    stabiliser refused, by the predicted IoU: nobody vouches for the coarse masks of both. Then
    come the accepted ones by their score, or without a rule by the mean of two ranks, that of the
    predicted IoU and that of the IoU with the coarse mask. Ties keep their order.

    Args:
        cases: cases by their index on the page; those that no run decided on are left out.
    """
    decided = [
        Listed(index=i, case=c, why=c.reason) for i, c in cases.items() if "accepted" in c.row
    ]
    by_rule = [entry for entry in decided if entry.case.is_refused_by_rule]
    accepted = [entry for entry in decided if entry.case.accepted]
    by_stabilizer = [e for e in decided if not (e.case.accepted or e.case.is_refused_by_rule)]
    if any(entry.score is not None for entry in accepted):
        ranked = _by_score(accepted)
    else:
        ranked = _by_ranks(accepted, tuple(_SIGNS))
    return [*_by_score(by_rule), *_by_ranks(by_stabilizer, ("predicted_iou",)), *ranked]


def _by_score(entries: Sequence[Listed]) -> list[Listed]:
    return sorted(entries, key=lambda e: math.inf if e.score is None else e.score)


def _by_ranks(entries: Sequence[Listed], signs: Sequence[str]) -> list[Listed]:
    """Return entries by the mean of the ranks that are known; accepted ones say which is low."""
    cases = {entry.index: entry.case for entry in entries}
    ranks = {name: _mid_ranks(cases, name) for name in signs}
    known = {
        index: {name: rank[index] for name, rank in ranks.items() if index in rank}
        for index in cases
    }
    trust = {index: sum(own.values()) / len(own) if own else 2.0 for index, own in known.items()}
    return [
        replace(entry, why=_why(entry.case, known[entry.index]))
        for entry in sorted(entries, key=lambda entry: trust[entry.index])
    ]


def _mid_ranks(cases: Mapping[int, ReportCase], name: str) -> dict[int, float]:
    """Return of each case that has the value the share of them with a lower one; ties share."""
    known = {i: value for i, case in cases.items() if (value := case.number(name)) is not None}
    ordered = sorted(known.values())
    return {
        i: (bisect_left(ordered, value) + bisect_right(ordered, value)) / (2 * len(ordered))
        for i, value in known.items()
    }


def _why(case: ReportCase, ranks: Mapping[str, float]) -> str:
    """Return the reason of the decision, or of an ordinary acceptance what is low about it."""
    name = min(ranks, key=ranks.__getitem__, default=None)
    if case.reason != "accepted" or name is None:
        return case.reason
    return f"accepted; {_SIGNS[name]} higher in {percent(1 - ranks[name])} of those accepted"
