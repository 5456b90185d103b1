"""Several evaluations of the same images as one comparison of methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ultrarefiner.metrics import Case, compare_methods

Content = Mapping[str, Any]

_DEFAULT_DELTA = 0.02


def compare_evaluations(evaluations: Sequence[tuple[str, Content]]) -> dict[str, Any]:
    """Compare the methods of several evaluations with each other and with the coarse masks.

    Args:
        evaluations: name and content of each ``eval.json``; at least two. Coarse masks that all
            score alike are one method, else each evaluation brings its own. Settings are those of
            the first.

    Returns:
        JSON of :class:`ultrarefiner.metrics.Comparison`.

    Raises:
        InputError: the evaluations are not of the same images, patients and settings.
    """
    methods = {
        name: [Case.from_json(row) for row in rows]
        for name, rows in gather_methods(evaluations).items()
    }
    settings = evaluations[0][1].get("settings") or {}
    delta = settings.get("delta")
    return compare_methods(
        methods,
        delta=_DEFAULT_DELTA if delta is None else delta,
        seed=settings.get("seed") or 0,
    ).to_json()


def gather_methods(evaluations: Sequence[tuple[str, Content]]) -> dict[str, Sequence[Content]]:
    """Return the cases of every method, as they stand in ``eval.json``; coarse masks come first.

    Args:
        evaluations: name and content of each ``eval.json``. The method of a single one is called
            as in its own comparison: ``refined``. Coarse masks whose name another evaluation
            has are called ``(before)``.
    """
    baselines = {
        name: rows for name, content in evaluations if (rows := content.get("baseline_cases"))
    }
    if _are_alike(list(baselines.values())):
        methods = {"coarse": next(iter(baselines.values()))}
    else:
        methods = {f"coarse of {name}": rows for name, rows in baselines.items()}
    if len(evaluations) == 1:
        return methods | {"refined": evaluations[0][1]["cases"]}
    own = {name: content["cases"] for name, content in evaluations}
    return {f"{n} (before)" if n in own else n: rows for n, rows in methods.items()} | own


def _are_alike(tables: Sequence[Sequence[Content]]) -> bool:
    """Return whether there are tables and all of them score the same images the same."""
    scores = [{(row["image"], row["dsc"], row["hd95"]) for row in table} for table in tables]
    return bool(scores) and all(score == scores[0] for score in scores)
