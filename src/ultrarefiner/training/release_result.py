"""The figures of a model card: read from a result, after proof that it is of this network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ultrarefiner.coarse.checkpoint import find_checkpoint
from ultrarefiner.data.manifest import Record
from ultrarefiner.errors import InputError, LeakError
from ultrarefiner.refine.checkpoint import LATEST_FIRST, RefinerCheckpoint
from ultrarefiner.training.lineage import seen_in_training
from ultrarefiner.training.model_card import Figures, Loaded
from ultrarefiner.weights import file_sha256

_METRICS = {"dsc": ("DSC", ".3f"), "iou": ("IoU", ".3f"), "hd95": ("HD95", ".1f")}
_COUNTS = {"missed": "missed", "false_positive": "false positive"}
_EXPECTED = "a result of the study 'network-masks', or an eval.json with a baseline"


@dataclass(frozen=True, kw_only=True)
class _Columns:
    """What two methods and their difference measured: metric to mean, low and high."""

    coarse: Mapping[str, Any]
    refined: Mapping[str, Any]
    difference: Mapping[str, Any]
    coarse_counts: Mapping[str, int]
    refined_counts: Mapping[str, int]
    unit: str

    def rows(self) -> list[tuple[str, ...]]:
        """Return the rows of the table; a metric that is undefined has none."""
        rows = []
        for key, (label, form) in _METRICS.items():
            if key not in self.coarse or key not in self.refined:
                continue
            label += f" [{self.unit}]" if key == "hd95" else ""
            cells = [_interval(part[key], form) for part in (self.coarse, self.refined)]
            cells += [_interval(self.difference[key], "+" + form)] if self.difference else []
            rows.append((label, *cells))
        for key, label in _COUNTS.items():
            if key in self.coarse_counts:
                counts = [str(part[key]) for part in (self.coarse_counts, self.refined_counts)]
                rows.append((label, *counts, *([""] if self.difference else [])))
        return rows


def read_result(path: Path, checkpoint: Path, loaded: Loaded) -> Figures:
    """Return the figures of a result.

    Args:
        path: JSON of the study ``network-masks``; or an ``eval.json`` with a baseline, beside the
            ``run.json`` of ``predict`` that says which checkpoint made the masks.
        checkpoint: file of the network that they must be of.
        loaded: what is in it.

    Raises:
        InputError: it cannot be read, or is of another network.
        LeakError: it is of images or patients that the network has seen.
    """
    content = _read(path)
    try:
        if "networks" in content:
            return _network_masks(path, content, loaded)
        if content["baseline"]:
            return _evaluation(path, content, checkpoint, loaded)
    except (KeyError, IndexError, TypeError) as cause:
        found = f"{type(cause).__name__}: {cause}"
        raise InputError(f"cannot use {path}", expected=_EXPECTED, found=found) from cause
    raise InputError(f"cannot use {path}", expected=_EXPECTED, found="no baseline")


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as cause:
        raise InputError(f"cannot read {path}", expected=_EXPECTED, found=str(cause)) from cause
    if not isinstance(content, dict):
        raise InputError(f"cannot use {path}", expected=_EXPECTED, found="no object")
    return content


def _network_masks(path: Path, content: Mapping[str, Any], loaded: Loaded) -> Figures:
    """The study refuses images that the network has seen, so only its name card is compared."""
    story, own = content["networks"][0]["split_sha256"], loaded.card["split_sha256"]
    if isinstance(loaded, RefinerCheckpoint):
        raise InputError(
            f"{path} is of a coarse network alone",
            expected="for a trained refiner an eval.json of its masks",
            found="a result of the study 'network-masks'",
        )
    if story != own:
        raise InputError(
            f"{path} is of another network",
            expected=f"split {own[:12]}",
            found=f"split {story[:12]}",
        )
    variant, refined = next(iter(content["variants"].items()))
    columns = _Columns(
        coarse=content["coarse"],
        refined=refined,
        difference={},
        coarse_counts=content["coarse"]["counts"],
        refined_counts=refined["counts"],
        unit="px",
    )
    return Figures(
        about=_about(content, "that it has not seen, at native size"),
        head=("coarse", f"refined ({variant})"),
        rows=columns.rows(),
    )


def _evaluation(
    path: Path, content: Mapping[str, Any], checkpoint: Path, loaded: Loaded
) -> Figures:
    run = _read_run(path)
    _require_same_network(path, run["checkpoints"], checkpoint)
    files = {case["stem"]: Path(case["image"]) for case in run["cases"]}
    scored = [
        Record(image=files[case["image"]], patient=case["patient"]) for case in content["cases"]
    ]
    seen = seen_in_training(scored, loaded.card)
    if seen:
        raise LeakError(
            f"{path} proves nothing of {checkpoint}",
            expected="images and patients that the network has not seen",
            found=f"{len(seen)} of {len(scored)} seen, such as {seen[0].record.image.name} "
            f"({seen[0].bond})",
            fix="Score it on what was held out in its training.",
        )
    columns = _Columns(
        coarse=content["baseline"],
        refined=content["summary"],
        difference=content["paired"]["differences"],
        coarse_counts=content["baseline_counts"],
        refined_counts=content["counts"],
        unit=content["distance_unit"],
    )
    fold = content["settings"]["fold"]
    where = f"manifest `{content['manifest_sha256'][:12]}`" + (f", fold {fold}" if fold else "")
    return Figures(
        about=f"{_about(content, f'that it has not seen ({where}), at native size')} "
        f"Masks by `{run['command']}`.",
        head=("coarse", "refined", "difference"),
        rows=columns.rows(),
    )


def _read_run(path: Path) -> dict[str, Any]:
    """Return what ``predict`` says of the masks: it removes the scores of earlier ones."""
    beside = path.with_name("run.json")
    if not beside.is_file():
        raise InputError(
            f"it is unknown which network made the masks of {path}",
            expected="the run.json of 'ultrarefiner predict' beside it",
            found="none",
            fix="Let 'ultrarefiner evaluate' write eval.json into the folder of the run.",
        )
    return _read(beside)


def _require_same_network(path: Path, names: list[str], checkpoint: Path) -> None:
    digests = {file_sha256(find_checkpoint(name, LATEST_FIRST)) for name in names}
    if digests != {file_sha256(checkpoint)}:
        raise InputError(
            f"{path} is of another network",
            expected=f"masks by {checkpoint}",
            found="masks by " + ", ".join(names),
        )


def _about(content: Mapping[str, Any], which: str) -> str:
    return (
        f"{content['num_images']} images of {content['num_patients']} patients {which}; mean and "
        "95 % interval by patient."
    )


def _interval(estimate: Mapping[str, float], form: str) -> str:
    mean, low, high = (format(estimate[key], form) for key in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"
