"""Calibrate one refiner on patients that it has never met."""

from __future__ import annotations

from pathlib import Path

from ultrarefiner.calibration.outcomes import check_truths
from ultrarefiner.calibration.rule import calibrate_rule
from ultrarefiner.calibration.splitting import patients_of, split_patients
from ultrarefiner.calibration.statement import refusal, state
from ultrarefiner.calibration.storing import calibrated_file, store
from ultrarefiner.calibration.subject import open_subject
from ultrarefiner.calibration.task import Result, Task


def calibrate(task: Task, out: Path | None = None) -> Result:
    """Learn an acceptance rule; write a checkpoint that holds it, and ``calibration.json``.

    On one part of the patients the score is learned, on the other its threshold is chosen. Nothing
    is written where the rule would trust no refinement at all.

    Args:
        task: what to calibrate, on what.
        out: the checkpoint to write; ``calibrated.safetensors`` beside that of the run for
            ``None``. What is there already is not touched.

    Raises:
        InputError: images have no truth, or there are too few patients.
        LeakError: the network knows some of the patients.
        ConfigError: ``out`` is no name for it.
        WeightsError: no such checkpoint.
        OutputError: it cannot be written.
    """
    out, promise = calibrated_file(task.run, out), task.promise
    check_truths(task.records)
    with open_subject(task.run, settings=task.settings, foundation=task.foundation) as subject:
        spare = task.spare(subject, task.records)
        learned, chosen = split_patients(
            spare.records, learn_share=promise.learn_share, seed=promise.seed
        )
        promise.check_patients(len(set(patients_of(chosen))))
        measured = task.measure(subject, spare.records)
        to_learn = set(patients_of(learned))
        calibration = calibrate_rule(
            [outcome for outcome in measured.outcomes if outcome.patient in to_learn],
            [outcome for outcome in measured.outcomes if outcome.patient not in to_learn],
            promise,
            source=task.source,
            binding=subject.checkpoint.binding,
        )
        kept = not calibration.trusts_nothing
        statement = state(calibration.rule) if kept else refusal(calibration)
        if kept:
            store(out, subject, calibration, statement=statement, task=task, records=spare.records)
    return Result(
        calibration=calibration,
        checkpoints=(out,) if kept else (),
        statement=statement,
        num_left_out=spare.num_left_out,
        failures=(*spare.failures, *measured.failures),
        notes=(*spare.notes, *measured.notes),
    )
