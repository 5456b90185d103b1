"""Calibrate one refiner on patients that it has never met."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ultrarefiner.calibration.outcomes import Measured, check_truths, naming
from ultrarefiner.calibration.promise import Promise
from ultrarefiner.calibration.rule import Calibration, calibrate_rule
from ultrarefiner.calibration.splitting import (
    num_without_patient,
    patients_of,
    split_patients,
)
from ultrarefiner.calibration.statement import refusal, state
from ultrarefiner.calibration.storing import calibrated_file, replaced, store
from ultrarefiner.calibration.subject import open_subject
from ultrarefiner.calibration.task import Result, Task, remarks_on_patients
from ultrarefiner.data.manifest import Record


def calibrate(task: Task, out: Path | None = None) -> Result:
    """Learn an acceptance rule; write a checkpoint that holds it, and ``calibration.json``.

    On one part of the patients the score is learned, on the other its threshold is chosen. Nothing
    is written where the rule would trust no refinement at all.

    Args:
        task: what to calibrate, on what.
        out: the checkpoint to write; ``calibrated.safetensors`` beside that of the run for
            ``None``. One that is there already is replaced, and so is its record; the result
            remarks on it.

    Raises:
        InputError: images have no truth, no coarse mask belongs to one, or there are too few
            patients.
        LeakError: the network knows some of the patients, or does not tell whom it knows.
        ConfigError: ``out`` is no name for it, or other settings or another foundation model are
            asked for than a trained refiner has.
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
        calibration = calibrate_measured(
            measured,
            learned,
            promise,
            source=task.source,
            binding=subject.checkpoint.binding,
        )
        kept = not calibration.trusts_nothing
        if kept:
            statement = state(
                calibration.rule,
                num_without_patient=num_without_patient(measured.records),
                only_images=spare.only_images,
            )
        else:
            statement = refusal(calibration)
        result = Result(
            calibration=calibration,
            checkpoints=(out,) if kept else (),
            statement=statement,
            num_left_out=spare.num_left_out,
            failures=(*spare.failures, *measured.failures),
            notes=(
                *spare.notes,
                *measured.notes,
                *remarks_on_patients(measured.records),
                *(replaced(out) if kept else ()),
            ),
        )
        if kept:
            store(out, subject, calibration, result=result, task=task, records=measured.records)
    return result


def calibrate_measured(
    measured: Measured,
    learned: Sequence[Record],
    promise: Promise,
    *,
    source: str,
    binding: str,
) -> Calibration:
    """Return the rule that some patients give the score of, and the others the threshold.

    Args:
        measured: outcomes of both.
        learned: images of those that the score is learned on.
        promise: what is to be kept.
        source: of the coarse masks, ``network`` or ``masks``.
        binding: sha256 of the checkpoint that the outcomes are of.

    Raises:
        InputError: there are too few patients.
    """
    to_learn = set(patients_of(learned))
    with naming(measured.failures):
        return calibrate_rule(
            [outcome for outcome in measured.outcomes if outcome.patient in to_learn],
            [outcome for outcome in measured.outcomes if outcome.patient not in to_learn],
            promise,
            source=source,
            binding=binding,
            bf16=measured.bf16,
        )
