"""Where the numbers of a report come from: commands, settings, versions, fingerprints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ultrarefiner.report.calibrated import Calibration
from ultrarefiner.report.learning import Training
from ultrarefiner.report.sources import RunSource, Sources
from ultrarefiner.settings import dotted

Entries = dict[str, str]

_TRAINED = {
    "datasets": "data sets",
    "num_patients": "patients",
    "held_out_fold": "fold held out",
    "split_sha256": "split sha256",
}


def trace(sources: Sources) -> dict[str, Entries]:
    """Return name and value of all that is known of each source, under the source's heading."""
    found = {f"Run {run.name}": _of_run(run) for run in sources.runs}
    found |= {f"Evaluation {name}": _of_scores(content) for name, content in sources.evaluations}
    if sources.comparison:
        found["Comparison"] = _of_scores(sources.comparison)
    found |= {f"Training {training.name}": _of_training(training) for training in sources.trainings}
    found |= {f"Calibration {c.name}": _of_calibration(c) for c in sources.calibrations}
    return {heading: entries for heading, entries in found.items() if entries}


def flatten(settings: Mapping[str, Any]) -> str:
    """Return nested settings one a line, named as their flags are.

    Example:
        >>> print(flatten({"seed": 0, "prompts": {"jitter": 4, "box": None}}))
        seed: 0
        prompts.jitter: 4
        prompts.box: none
    """
    return "\n".join(f"{name}: {_text(value)}" for name, value in dotted(settings).items())


def _of_run(run: RunSource) -> Entries:
    record = run.record
    entries = {
        "command": record.get("command") or "",
        "checkpoints": ", ".join(record.get("checkpoints") or ()),
        "device": record["device"],
        "data sha256": record["data_sha256"],
        "versions": _versions(record["versions"]),
        "settings": flatten(record["config"]),
    }
    return {name: value for name, value in entries.items() if value}


def _of_scores(content: Mapping[str, Any]) -> Entries:
    """Return the entries of an ``eval.json`` or ``compare.json``; old ones know little."""
    entries = {
        "command": content.get("command") or "",
        "manifest sha256": content.get("manifest_sha256") or "",
        "versions": _versions(content.get("versions") or {}),
        "settings": flatten(content.get("settings") or _declared(content)),
    }
    return {name: value for name, value in entries.items() if value}


def _declared(content: Mapping[str, Any]) -> dict[str, Any]:
    names = ("delta", "margin", "seed", "reference")
    return {name: content[name] for name in names if content.get(name) is not None}


def _of_training(training: Training) -> Entries:
    card = training.card
    entries = {"command": str(card.get("command") or "")}
    entries |= {label: _text(card[key]) for key, label in _TRAINED.items() if key in card}
    entries["versions"] = _versions(card.get("versions") or {})
    entries["settings"] = flatten(card.get("recipe") or {})
    return {name: value for name, value in entries.items() if value}


def _of_calibration(calibration: Calibration) -> Entries:
    content, rule = calibration.content, calibration.rule
    settings = ("method", "alpha", "delta", "eta", "source")
    entries = {
        "command": str(content.get("command") or ""),
        "checkpoint": str(content.get("checkpoint") or ""),
        "checkpoint sha256": str(content.get("checkpoint_sha256") or ""),
        "data sha256": str(content.get("data_sha256") or ""),
        "binding": rule.binding,
        "versions": _versions(content.get("versions") or {}),
        "settings": flatten(
            {name: getattr(rule, name) for name in settings}
            | {name: content[name] for name in ("seed", "split") if name in content}
        ),
    }
    return {name: value for name, value in entries.items() if value}


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items())


def _text(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value)) or "none"
    return str(value)
