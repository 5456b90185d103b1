"""Write a calibrated checkpoint and, beside it, what it rests on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ultrarefiner.calibration.record import record_of
from ultrarefiner.calibration.rule import Calibration
from ultrarefiner.calibration.subject import Subject
from ultrarefiner.calibration.task import Result, Task
from ultrarefiner.coarse.checkpoint import COARSE
from ultrarefiner.data.manifest import Record
from ultrarefiner.data.writers import atomic_path, write_json
from ultrarefiner.errors import ConfigError, InputError
from ultrarefiner.refine.checkpoint import JOINT, REFINER, add_rule
from ultrarefiner.training.lineage import card_digests, content_fingerprint

CALIBRATED = "calibrated.safetensors"
"""Name of a checkpoint with a rule, in the folder of the one without."""
RECORD = "calibration.json"
"""Name of the file beside it that says what it rests on."""


def calibrated_file(run: str, out: Path | None = None) -> Path:
    """Return where to write the calibrated checkpoint of a run.

    Args:
        run: name, file or folder of the one without a rule.
        out: where the user wants it.

    Raises:
        ConfigError: the user has to say where, or this would overwrite a network.
    """
    path = Path(run)
    if out is None:
        if not path.exists():
            raise ConfigError(
                f"where to write the calibrated {run}",
                expected="--out FILE.safetensors for a network that lies in the package",
            )
        out = (path if path.is_dir() else path.parent) / CALIBRATED
    if out.suffix != ".safetensors":
        raise ConfigError("--out", expected="a name that ends in .safetensors", found=str(out))
    if out.name in (JOINT, REFINER, COARSE) or out.resolve() == path.resolve():
        raise ConfigError(
            f"the calibrated checkpoint would overwrite {out}",
            expected="another file",
            fix="Choose another name with --out.",
        )
    return out


def replaced(out: Path) -> tuple[tuple[str, str], ...]:
    """Return a remark on the record of an earlier calibration that this one would replace."""
    path = out.with_name(RECORD)
    remark = (
        "that of an earlier calibration is replaced; whoever calibrates several times on the same "
        "patients and chooses has no confidence left"
    )
    return ((str(path), remark),) if path.exists() else ()


def store(
    out: Path,
    subject: Subject,
    calibration: Calibration,
    *,
    result: Result,
    task: Task,
    records: Sequence[Record],
) -> None:
    """Write the checkpoint with the rule, then the record of the calibration.

    The card keeps the story of the network, and says in digests on whom it was calibrated.

    Args:
        out: the checkpoint to write.
        subject: the refiner without the rule.
        calibration: the rule and what it rests on.
        result: what it guarantees, and what was passed over.
        task: what was asked for.
        records: images that it was calibrated on.

    Raises:
        InputError: an image or mask is no longer there.
        OutputError: a file cannot be written.
    """
    about = {"statement": result.statement, "command": task.command, "seed": task.promise.seed}
    card = {**subject.checkpoint.card, "calibration": about | card_digests(records)}
    content = add_rule(subject.file, calibration.rule, card=card)
    record: Mapping[str, Any] = record_of(calibration) | about
    provenance = {
        "checkpoint": out.name,
        "checkpoint_sha256": hashlib.sha256(content).hexdigest(),
        "data_sha256": _fingerprint(records),
        "failures": [list(failure) for failure in result.failures],
        "notes": [list(note) for note in result.notes],
    }
    with atomic_path(out) as temporary:
        temporary.write_bytes(content)
    write_json(out.with_name(RECORD), {**record, **provenance})


def _fingerprint(records: Sequence[Record]) -> str:
    try:
        return content_fingerprint(records)
    except OSError as cause:
        raise InputError(f"cannot read {cause.filename}", found=str(cause)) from cause
