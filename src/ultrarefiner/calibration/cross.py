"""Calibrate the networks of a cross-validation on the patients that each has not met.

Every patient is spare for one network: that of the fold that held the patient out. The score of a
network's rule is learned on the outcomes of the others, and one threshold for all is chosen by
conformal risk control on the outcomes of all. What that says is weaker: Barber et al., Predictive
inference with the jackknife+, Annals of Statistics 49 (2021), https://arxiv.org/abs/1905.02928;
Cohen et al., Cross-validation conformal risk control, ISIT 2024, https://arxiv.org/abs/2401.11974.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from ultrarefiner.calibration.outcomes import Measured, check_truths, naming
from ultrarefiner.calibration.rule import Calibration, Scored, conclude, learn_rule
from ultrarefiner.calibration.spare import Spare
from ultrarefiner.calibration.splitting import num_without_patient, patients_of
from ultrarefiner.calibration.statement import refusal, state
from ultrarefiner.calibration.storing import calibrated_file, replaced, store
from ultrarefiner.calibration.subject import Subject, open_subject
from ultrarefiner.calibration.task import Result, Task, remarks_on_patients
from ultrarefiner.calibration.threshold import candidate_thresholds
from ultrarefiner.data.folds import outer_split
from ultrarefiner.errors import ConfigError, InputError
from ultrarefiner.refine.acceptance import CROSS_CONFORMAL, AcceptanceRule

_PREFIX = "fold-"


@dataclass(frozen=True, kw_only=True)
class _Fold:
    """A network, and what it did to the patients that it was not trained on."""

    subject: Subject
    spare: Spare
    measured: Measured


def calibrate_across(task: Task) -> Result:
    """Learn a rule for the network of every fold, and write a calibrated checkpoint beside each.

    The rules differ in their scores, each that with which its fold was measured; the threshold is
    common.

    Args:
        task: its run is the folder with ``fold-1``, ``fold-2``, ...; its records have folds.

    Returns:
        The calibration of the first fold, what all have in common, and all checkpoints.

    Raises:
        InputError: there are fewer than two folds, images without truth, or too few patients.
        LeakError: a network knows patients of its own fold.
        ConfigError: the promise is one that only spare patients allow.
        OutputError: a checkpoint cannot be written.
    """
    if not task.promise.is_expected_only:
        raise ConfigError(
            f"--method {task.promise.method}",
            expected="conformal-risk-control with --cross: no patient is spare for all networks",
        )
    check_truths(task.records)
    folders = _folders(Path(task.run))
    with ExitStack() as stack:
        folds = _measure(task, folders, stack)
        parts = [part for fold in folds.values() for part in (fold.spare, fold.measured)]
        failures = tuple(failure for part in parts for failure in part.failures)
        with naming(failures):
            calibrations = _calibrate(folds, task)
        first = next(iter(calibrations.values()))
        kept = not first.trusts_nothing
        checkpoints = {name: calibrated_file(str(folders[name])) for name in folds if kept}
        records = [record for fold in folds.values() for record in fold.measured.records]
        result = Result(
            calibration=first,
            checkpoints=tuple(checkpoints.values()),
            statement=_state(first.rule, folds) if kept else refusal(first),
            num_left_out=sum(fold.spare.num_left_out for fold in folds.values()),
            failures=failures,
            notes=(
                *(note for part in parts for note in part.notes),
                *remarks_on_patients(records),
                *(note for out in checkpoints.values() for note in replaced(out)),
            ),
        )
        for name, out in checkpoints.items():
            subject, found = folds[name].subject, calibrations[name]
            store(out, subject, found, result=result, task=task, records=records)
    return result


def _state(rule: AcceptanceRule, folds: Mapping[str, _Fold]) -> str:
    """Return what the rules of all folds have in common, in words."""
    records = [record for fold in folds.values() for record in fold.measured.records]
    return state(
        rule,
        num_without_patient=num_without_patient(records),
        only_images=any(fold.spare.only_images for fold in folds.values()),
    )


def _folders(run: Path) -> dict[str, Path]:
    """Return the folder of each fold of a run, by the fold's name."""
    found = {
        path.name.removeprefix(_PREFIX): path
        for path in sorted(run.glob(f"{_PREFIX}*"))
        if path.is_dir()
    }
    if len(found) < 2:
        raise InputError(
            f"cannot calibrate across the folds of {run}",
            expected=f"a folder with {_PREFIX}1, {_PREFIX}2, ..., of which each was held out once",
            found=", ".join(path.name for path in found.values()) or "no folds",
            fix="Train them with 'ultrarefiner train --fold all'.",
        )
    return found


def _measure(task: Task, folders: Mapping[str, Path], stack: ExitStack) -> dict[str, _Fold]:
    """Refine the images of each fold by the network that has not seen them."""
    inside = {name: outer_split(task.records, name)[1] for name in folders}
    patients = [name for records in inside.values() for name in patients_of(records)]
    task.promise.check_patients(len(set(patients)), learn_share=0.0)
    folds = {}
    for name, folder in folders.items():
        opened = open_subject(str(folder), settings=task.settings, foundation=task.foundation)
        subject = stack.enter_context(opened)
        spare = task.spare(subject, inside[name])
        measured = task.measure(subject, spare.records)
        folds[name] = _Fold(subject=subject, spare=spare, measured=measured)
    return folds


def _calibrate(folds: Mapping[str, _Fold], task: Task) -> dict[str, Calibration]:
    """Return the calibration of each fold: a score of its own, a threshold that all share."""
    rules = {name: _rule(name, folds, task) for name in folds}
    cases = [
        Scored(outcome=outcome, score=rules[name].score(outcome.signs), fold=name)
        for name, fold in folds.items()
        for outcome in fold.measured.outcomes
    ]
    num_patients = len({case.outcome.patient for case in cases})
    pooled = {
        name: replace(rule, num_images=len(cases), num_patients=num_patients)
        for name, rule in rules.items()
    }
    thresholds = candidate_thresholds([case.score for case in cases])
    return {name: conclude(rule, cases, thresholds, task.promise) for name, rule in pooled.items()}


def _rule(name: str, folds: Mapping[str, _Fold], task: Task) -> AcceptanceRule:
    """Return a rule for the network of a fold whose score was learned on the other folds.

    The scores of all folds have one scale: of the images that refinement changes the mean is -1.
    """
    others = [fold.measured.outcomes for other, fold in folds.items() if other != name]
    learned = learn_rule(
        [outcome for outcomes in others for outcome in outcomes],
        folds[name].measured.outcomes,
        task.promise,
        source=task.source,
        binding=folds[name].subject.checkpoint.binding,
        bf16=folds[name].measured.bf16,
    )
    return replace(learned, method=CROSS_CONFORMAL)
