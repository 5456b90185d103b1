"""From the files of a run to its report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ultrarefiner.data.atomic import write_text
from ultrarefiner.data.readers import read_coarse, read_image
from ultrarefiner.errors import InputError
from ultrarefiner.refine.folder import resample_coarse
from ultrarefiner.refine.results import as_cell, read_results
from ultrarefiner.report.cases import CaseImages, ReportCase
from ultrarefiner.report.page import render_report

_RUN_KEYS = ("command", "device", "config", "data_sha256", "versions", "cases", "notes")
_EVALUATION_KEYS = ("summary", "baseline", "paired", "counts", "num_images", "cases")


def write_run_report(run: Path, out: Path, *, evaluation: Path | None = None) -> None:
    """Write the report of a refinement run.

    Args:
        run: folder with ``run.json``, ``results.csv`` and ``masks/``.
        out: HTML file to write.
        evaluation: ``eval.json`` of this run, if there is truth; else ``run/eval.json`` if there.

    Raises:
        InputError: the run or the evaluation cannot be read.
    """
    record = _read_json(run / "run.json", "ultrarefiner refine", _RUN_KEYS)
    if evaluation is None and (run / "eval.json").is_file():
        evaluation = run / "eval.json"
    scores = (
        _read_json(evaluation, "ultrarefiner evaluate", _EVALUATION_KEYS) if evaluation else None
    )
    made = {as_cell(case["stem"]): case for case in record["cases"]}
    rows = read_results(run / "results.csv")
    label = record.get("label")
    cases = [_case(run, row, made.get(row["image"]), scores, label=label) for row in rows]
    provenance = {
        "command": record["command"],
        "device": record["device"],
        "config": json.dumps(record["config"]),
        "data sha256": record["data_sha256"],
        **{f"version of {name}": number for name, number in record["versions"].items()},
    }
    notes = [f"{Path(name).name}: {note}" for name, note in record["notes"]]
    title = f"Refinement of {len(made)} coarse mask{'s' if len(made) != 1 else ''}"
    page = render_report(cases, title=title, evaluation=scores, provenance=provenance, notes=notes)
    write_text(out, page)


def _read_json(path: Path, command: str, keys: Sequence[str]) -> dict[str, Any]:
    expected = f"a file written by '{command}'"
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as cause:
        found = getattr(cause, "strerror", None) or str(cause)
        fix = f"Run '{command}' first, or check the path."
        raise InputError(f"cannot read {path}", expected=expected, found=found, fix=fix) from cause
    missing = [key for key in keys if key not in content] if isinstance(content, dict) else keys
    if missing:
        raise InputError(
            f"cannot use {path}", expected=expected, found=f"no {', '.join(missing)} in it"
        )
    return content


def _case(
    run: Path,
    row: Mapping[str, str],
    made: dict[str, Any] | None,
    scores: dict[str, Any] | None,
    *,
    label: int | None,
) -> ReportCase:
    stem = row["image"]
    truth = (scores or {}).get("truths", {}).get(stem)
    return ReportCase(
        stem=stem,
        row=row,
        metrics=_find(scores, "cases", stem),
        baseline=_find(scores, "baseline_cases", stem),
        load=partial(_load, run, stem, made, truth=truth, label=label),
    )


def _find(scores: dict[str, Any] | None, table: str, stem: str) -> dict[str, Any] | None:
    cases: list[dict[str, Any]] = (scores or {}).get(table) or []
    return next((case for case in cases if case["image"] == stem), None)


def _load(
    run: Path, stem: str, made: dict[str, Any] | None, *, truth: str | None, label: int | None
) -> CaseImages:
    if made is None:
        raise InputError(f"run.json in {run} does not know {stem}")
    image = read_image(Path(made["image"]))
    coarse = read_coarse(Path(made["coarse"]), label=label)
    if coarse.values.shape != image.shape:
        coarse = resample_coarse(coarse, image.shape)
    return CaseImages(
        image=image,
        coarse=coarse.values > 0.5,
        refined=read_coarse(run / "masks" / f"{made['stem']}.png").values > 0.5,
        truth=read_coarse(Path(truth)).values > 0.5 if truth else None,
        boxes_xyxy=tuple(tuple(box) for box in made["boxes_xyxy"]),
    )
