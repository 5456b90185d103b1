"""Which cases to show: the extremes, the refusals and the ordinary, each image once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from ultrarefiner.report.cases import ReportCase, judge_change
from ultrarefiner.report.look_first import rank_by_trust

MAX_SHOWN = 18

_Value = Callable[[ReportCase], float | None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """Cases shown together.

    Attributes:
        title: heading.
        why: one sentence on what the reader sees here.
        cases: at least one.
    """

    title: str
    why: str
    cases: tuple[ReportCase, ...]


def choose_groups(cases: Sequence[ReportCase], *, delta: float) -> tuple[Group, ...]:
    """Choose at most :data:`MAX_SHOWN` cases, none twice; what went wrong comes first.

    Args:
        cases: the processed cases. If any has metrics, those without are judged only by
            whether they were rejected.
        delta: Dice change up to which an image counts as unchanged.

    Returns:
        The groups that have a case, in the order of the page.
    """
    with_truth = any(case.metrics is not None for case in cases)
    wishes = _by_truth(cases, delta) if with_truth else _by_agreement(cases)
    most = MAX_SHOWN // len(wishes)
    seen: set[int] = set()
    groups = []
    for wish in wishes:
        taken = [case for case in wish.cases if id(case) not in seen][:most]
        seen.update(map(id, taken))
        if taken:
            groups.append(Group(title=wish.title, why=wish.why, cases=tuple(taken)))
    return tuple(groups)


def _by_truth(cases: Sequence[ReportCase], delta: float) -> list[Group]:
    by_gain = _ranked(cases, lambda case: case.gain)
    by_dsc = _ranked(cases, lambda case: case.dsc)
    return [
        Group(
            title="Most harmed",
            why="The largest losses of DSC.",
            cases=tuple(c for c in by_gain if _change(c, delta) == "harmed"),
        ),
        Group(
            title="Most improved",
            why="The largest gains of DSC.",
            cases=tuple(c for c in reversed(by_gain) if _change(c, delta) == "improved"),
        ),
        _rejected([*by_dsc, *(case for case in cases if case.dsc is None)]),
        Group(title="Worst", why="The lowest DSC after refinement.", cases=tuple(by_dsc)),
        Group(
            title="Median",
            why="Nearest to the median DSC after refinement.",
            cases=_central(by_dsc, lambda case: case.dsc),
        ),
        Group(
            title="Best",
            why="The highest DSC after refinement.",
            cases=tuple(reversed(by_dsc)),
        ),
    ]


def _by_agreement(cases: Sequence[ReportCase]) -> list[Group]:
    def agreement(case: ReportCase) -> float | None:
        return case.number("iou_with_coarse")

    by_trust = rank_by_trust(dict(enumerate(cases)))
    by_agreement = _ranked((case for case in cases if case.accepted), agreement)
    return [
        Group(
            title="Least trusted",
            why="Accepted refinements that come first in the list of images to look at.",
            cases=tuple(entry.case for entry in by_trust if entry.case.accepted),
        ),
        _rejected(cases),
        Group(
            title="Typical",
            why="Accepted refinements nearest to the median agreement with the coarse mask.",
            cases=_central(by_agreement, agreement),
        ),
    ]


def _rejected(cases: Iterable[ReportCase]) -> Group:
    return Group(
        title="Rejected",
        why="Refinements that were refused: the result is the coarse mask.",
        cases=tuple(case for case in cases if not case.accepted),
    )


def _ranked(cases: Iterable[ReportCase], value: _Value) -> list[ReportCase]:
    """Return the cases that have the value, lowest first; ties keep their order."""
    ranked = [(key, case) for case in cases if (key := value(case)) is not None]
    return [case for _, case in sorted(ranked, key=lambda pair: pair[0])]


def _central(ranked: Sequence[ReportCase], value: _Value) -> tuple[ReportCase, ...]:
    """Return ranked cases again, nearest to their median first."""
    values = [key for case in ranked if (key := value(case)) is not None]
    centre = median(values) if values else 0.0
    distances = [abs(key - centre) for key in values]
    order = sorted(range(len(ranked)), key=distances.__getitem__)
    return tuple(ranked[i] for i in order)


def _change(case: ReportCase, delta: float) -> str | None:
    return None if case.gain is None else judge_change(case.gain, delta)
