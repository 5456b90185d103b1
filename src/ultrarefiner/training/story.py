"""The whole story of a run in one file: its phases, what they came to, and all their curves."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ultrarefiner.data.writers import write_text

STORY = "training.json"
_REPEATED = ("recipe", "plan", "image_digests", "patient_digests", "scene_digests")


def write_story(folder: Path) -> Path:
    """Write ``training.json`` from what the phases of an outer fold have left so far.

    Args:
        folder: ``RUN/fold-K``.

    Returns:
        The file: recipe, split and data fingerprint once; of each phase and inner network its card
        and, column by column and each column on one line, its ``metrics.csv``.
    """
    later = _cards((f"phase {number}", folder / f"phase{number}") for number in (2, 3))
    num_inner = later[-1][2]["recipe"]["inner"]["folds"] if later else 0
    inner = [f"fold-{number + 1}" for number in range(num_inner)]
    cards = [
        *_cards([("phase 1", folder)]),
        *_cards((f"inner {name}", folder / "inner" / name) for name in inner),
        *later,
    ]
    newest = cards[-1][2] if cards else {}
    story = {
        "recipe": newest.get("recipe"),
        "data_sha256": newest.get("plan", newest).get("data_sha256"),
        "phases": [
            {
                "name": name,
                **{key: value for key, value in card.items() if key not in _REPEATED},
                "curves": _curves(path),
            }
            for name, path, card in cards
        ],
    }
    path = folder / STORY
    write_text(path, _json(story) + "\n")
    return path


def _json(story: Any) -> str:
    """Return JSON as all is written here, but with lists of numbers on one line each."""
    text = json.dumps(story, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    # In a string there is no line break and hence no match.
    return re.sub(r"\[\n([^\[\]{}\"]*)\]", lambda m: f"[{' '.join(m[1].split())}]", text)


def _cards(parts: Iterable[tuple[str, Path]]) -> list[tuple[str, Path, dict[str, Any]]]:
    """Return name, folder and card of those that are finished."""
    return [
        (name, path, json.loads((path / "run.json").read_text(encoding="utf-8")))
        for name, path in parts
        if (path / "run.json").is_file()
    ]


def _curves(folder: Path) -> dict[str, list[Any]]:
    """Return the columns of a log, to six digits; a cell that is empty is ``None``."""
    path = folder / "log" / "metrics.csv"
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    return {
        name: [float(f"{float(row[name]):.6g}") if row[name] else None for row in rows]
        for name in (rows[0] if rows else ())
    }
