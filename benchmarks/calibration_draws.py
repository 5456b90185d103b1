"""How much a calibration depends on which patients it drew, and whether its promise holds.

Run: ``python benchmarks/calibration_draws.py CHECKPOINT --manifest A.csv --fold 2
--test-manifest B.csv --test-fold 3 [--coarse DIR --test-coarse DIR] [--flips]``. The images of both
folds are refined once. Then the calibration patients are split into A and B in ``--draws`` ways,
a rule is made of each as by ``ultrarefiner calibrate``, and applied to the patients of the test,
who take part in none. Prints JSON: per draw the threshold, and what is delivered on B and on the
test; and over the draws the mean, the standard deviation and how often the test's share of harmed
images is above alpha. Such draws share most patients: they tell the scatter by the split alone.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from _timing import versions
from ultrarefiner.calibration.calibrate import calibrate_measured
from ultrarefiner.calibration.outcomes import Measured
from ultrarefiner.calibration.promise import Promise
from ultrarefiner.calibration.splitting import patients_of, split_patients
from ultrarefiner.calibration.subject import open_subject
from ultrarefiner.calibration.task import Task
from ultrarefiner.calibration.threshold import deliver
from ultrarefiner.data.folds import outer_split
from ultrarefiner.data.manifest import read_manifest
from ultrarefiner.refine.assembly import RefinerConfig


def tasks(args: argparse.Namespace) -> tuple[Task, Task]:
    """Return what to calibrate on, and what to judge on."""
    settings = RefinerConfig(flips=args.flips)
    calibration, test = (
        Task(
            run=args.checkpoint,
            records=outer_split(read_manifest(manifest), fold)[1],
            coarse=coarse,
            settings=settings,
            leave_out_seen=True,
        )
        for manifest, fold, coarse in (
            (args.manifest, args.fold, args.coarse),
            (args.test_manifest, args.test_fold, args.test_coarse),
        )
    )
    return calibration, test


def refine(task: Task) -> tuple[Measured, str]:
    """Return the outcomes of a task's spare images, and what their rule is bound to."""
    with open_subject(task.run, settings=task.settings) as subject:
        spare = task.spare(subject, task.records)
        return task.measure(subject, spare.records), subject.checkpoint.binding


def draw(measured: Measured, test: Measured, promise: Promise, task: Task, binding: str) -> Any:
    """Return what the rule of one split does."""
    learned, _ = split_patients(
        measured.records, learn_share=promise.learn_share, seed=promise.seed
    )
    found = calibrate_measured(measured, learned, promise, source=task.source, binding=binding)
    accepted = np.array(
        [found.rule.accepts(found.rule.score(item.signs)) for item in test.outcomes]
    )
    on_test = deliver(test.outcomes, accepted, delta=promise.delta)
    return {
        "seed": promise.seed,
        "threshold": found.rule.to_json()["threshold"],
        "calibration": asdict(found.after) | {"kept_gain": found.kept_gain},
        "test": asdict(on_test),
    }


def main() -> None:
    """Measure, draw, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint")
    for name in ("--manifest", "--test-manifest"):
        parser.add_argument(name, type=Path, required=True)
    for name in ("--fold", "--test-fold"):
        parser.add_argument(name, required=True)
    for name in ("--coarse", "--test-coarse"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--flips", action="store_true")
    parser.add_argument("--draws", type=int, default=100)
    args = parser.parse_args()
    calibration, test = tasks(args)
    (measured, binding), (judged, _) = refine(calibration), refine(test)
    shared = set(patients_of(measured.records)) & set(patients_of(judged.records))
    if shared:
        parser.error(f"{len(shared)} patients are in both folds, such as {min(shared)}")
    promise = calibration.promise
    everything = np.ones(len(judged.outcomes), dtype=bool)
    before = deliver(judged.outcomes, everything, delta=promise.delta)
    rows = [
        draw(measured, judged, replace(promise, seed=seed), calibration, binding)
        for seed in range(args.draws)
    ]
    harmed = np.array([row["test"]["harmed_share"] for row in rows])
    kept = np.array([row["test"]["gain"] for row in rows]) / before.gain
    print(
        json.dumps(
            {
                "settings": asdict(promise) | {"flips": args.flips, "draws": args.draws},
                "command": shlex.join(["python", *sys.argv]),
                "binding": binding,
                "versions": versions("numpy", "torch", "ultrarefiner"),
                "calibration_patients": len(set(patients_of(measured.records))),
                "test_without_rule": asdict(before),
                "test_harmed": _spread(harmed)
                | {"above_alpha": float((harmed > promise.alpha).mean())},
                "test_kept_gain": _spread(kept) | {"80_or_more": float((kept >= 0.8).mean())},
                "draws": rows,
            },
            indent=1,
        )
    )


def _spread(values: np.ndarray) -> dict[str, float]:
    low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
    return {
        "mean": float(values.mean()),
        "sd": float(values.std(ddof=1)),
        "q05": float(low),
        "median": float(middle),
        "q95": float(high),
    }


if __name__ == "__main__":
    main()
