"""What a user asks of a calibration, and the measuring that every kind of it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ultrarefiner.calibration.outcomes import (
    CoarseMasks,
    GivenMasks,
    Measured,
    PredictedMasks,
    Track,
    measure_outcomes,
)
from ultrarefiner.calibration.promise import Promise
from ultrarefiner.calibration.rule import Calibration
from ultrarefiner.calibration.spare import Spare, readable, spare_records
from ultrarefiner.calibration.splitting import num_without_patient
from ultrarefiner.calibration.subject import Subject
from ultrarefiner.coarse import CoarsePredictor
from ultrarefiner.data.manifest import Record
from ultrarefiner.refine.acceptance import MASKS, NETWORK
from ultrarefiner.refine.assembly import RefinerConfig
from ultrarefiner.refine.opinion import CoarseOpinions
from ultrarefiner.refine.predictor import Refiner


@dataclass(frozen=True, kw_only=True)
class Task:
    """A calibration to be made.

    Attributes:
        run: what ``predict`` takes for ``--checkpoint``; for a cross-calibration the folder with
            ``fold-1``, ``fold-2``, ...
        records: images with truth and patient.
        promise: what is to be kept.
        coarse: folder of coarse masks; the network's own where there is none.
        label: value of the lesion in true masks that are label maps.
        coarse_label: the same in given coarse masks.
        leave_out_seen: pass over patients that the network knows.
        trust_patients: believe that it knows none of them where its card lists images alone.
        settings: of the refiner; of a trained one what is free, the rest is in its checkpoint.
        foundation: its model; ``None`` for the default.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        command: recorded.
        track: wraps the iteration over images, for a progress bar.
    """

    run: str
    records: Sequence[Record]
    promise: Promise = field(default_factory=Promise)
    coarse: Path | None = None
    label: int | None = None
    coarse_label: int | None = None
    leave_out_seen: bool = False
    trust_patients: bool = False
    settings: RefinerConfig = field(default_factory=RefinerConfig)
    foundation: str | None = None
    device: str = "auto"
    command: str = ""
    track: Track = lambda items, _: items

    @property
    def source(self) -> str:
        """Where the coarse masks come from, as a rule stores it."""
        return NETWORK if self.coarse is None else MASKS

    def spare(self, subject: Subject, records: Sequence[Record]) -> Spare:
        """Return the images that a refiner does not know.

        With given masks the coarse network takes no part, so that nothing trained is left where the
        refiner is not.

        Raises:
            LeakError: it knows some of them.
        """
        if self.coarse is not None and not subject.is_trained:
            return readable(records)
        return spare_records(
            records,
            subject.checkpoint.card,
            name=subject.name,
            leave_out_seen=self.leave_out_seen,
            trust_patients=self.trust_patients,
        )

    def measure(self, subject: Subject, records: Sequence[Record]) -> Measured:
        """Refine images, whatever a rule that is there already would say.

        Raises:
            InputError: the coarse masks cannot be found.
        """
        refiner = replace(subject.checkpoint, rule=None).refiner(device=self.device)
        coarse = self._masks(subject, records, refiner)
        return measure_outcomes(records, refiner, coarse, label=self.label, track=self.track)

    def _masks(self, subject: Subject, records: Sequence[Record], refiner: Refiner) -> CoarseMasks:
        if self.coarse is not None:
            return GivenMasks(self.coarse, records, label=self.coarse_label)
        networks, flips = [subject.checkpoint.network], refiner.config.flips
        network = CoarsePredictor(networks, flips=flips, device=self.device)
        return PredictedMasks(CoarseOpinions(network, refiner))


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came of a calibration.

    Attributes:
        calibration: the rule and what it rests on.
        checkpoints: that were written; none where no rule is worth storing.
        statement: what is guaranteed, in words; or why there is no rule.
        num_left_out: images of patients that the network knows.
        failures: file and reason of everything that was passed over.
        notes: file and remark of everything that was understood with a caveat.
    """

    calibration: Calibration
    checkpoints: tuple[Path, ...]
    statement: str
    num_left_out: int = 0
    failures: tuple[tuple[str, str], ...] = ()
    notes: tuple[tuple[str, str], ...] = ()


def remarks_on_patients(records: Sequence[Record]) -> tuple[tuple[str, str], ...]:
    """Return a remark on images without a patient, if there are any."""
    num = num_without_patient(records)
    remark = f"empty for {num} of {len(records)} images: each counts as a patient of its own"
    return (("column 'patient'", remark),) if num else ()
