"""What refinement does to images of which the truth is known: the material of a calibration."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from ultrarefiner.calibration.splitting import patients_of
from ultrarefiner.data.formats import split_name
from ultrarefiner.data.manifest import Record
from ultrarefiner.data.pairing import Pair, find_images, pair_files
from ultrarefiner.data.readers import CoarseMask, read_coarse, read_image
from ultrarefiner.errors import InputError
from ultrarefiner.metrics import evaluate_mask
from ultrarefiner.refine.acceptance import Signs
from ultrarefiner.refine.folder import CoarseFiles
from ultrarefiner.refine.opinion import CoarseOpinions
from ultrarefiner.refine.predictor import RefinedImage, Refiner
from ultrarefiner.shapes import GreyImage, Mask

_NUM_SHOWN = 3

Track = Callable[[Iterable[Record], int], Iterable[Record]]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What refinement did to one image.

    DSC is at native size; 1 where mask and truth are both empty, 0 where one of them is.

    Attributes:
        image: stem of its file.
        patient: whose it is; see :func:`~ultrarefiner.calibration.splitting.patients_of`.
        dsc_coarse: of the coarse mask, in [0, 1].
        dsc_refined: of the mask that is delivered where no rule is asked, in [0, 1].
        signs: of each lesion that was refined; none where the stabiliser refused them all.
        changed: whether the two masks differ in any pixel.
    """

    image: str
    patient: str
    dsc_coarse: float
    dsc_refined: float
    signs: tuple[Signs, ...]
    changed: bool

    @property
    def gain(self) -> float:
        """DSC after minus before, in [-1, 1]."""
        return self.dsc_refined - self.dsc_coarse

    def is_harmed(self, delta: float) -> bool:
        """Return whether the DSC fell by more than ``delta``."""
        return self.gain < -delta


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The outcomes of many images.

    Attributes:
        outcomes: of all that could be read, in the order of the records.
        records: of these images.
        bf16: whether they were refined in bfloat16.
        failures: file and reason of the rest.
        notes: file and remark of what was understood with a caveat.
    """

    outcomes: tuple[Outcome, ...]
    records: tuple[Record, ...]
    bf16: bool
    failures: tuple[tuple[str, str], ...]
    notes: tuple[tuple[str, str], ...]


class CoarseMasks(Protocol):
    """Where the coarse masks come from: the network itself, or files."""

    def open(self, record: Record, image: GreyImage) -> CoarseMask:
        """Return the coarse mask of an image on its grid.

        Raises:
            InputError: there is none, or it cannot be used.
        """
        ...


class PredictedMasks:
    """Coarse masks of a network, made as they are asked for.

    Args:
        predictor: the network, and a second opinion.
    """

    def __init__(self, predictor: CoarseOpinions) -> None:
        self.predictor = predictor

    def open(self, record: Record, image: GreyImage) -> CoarseMask:
        """Return the probability that they give."""
        return CoarseMask(values=self.predictor(image), is_hard=False)


class GivenMasks:
    """Coarse masks of a folder, matched by name and read as ``refine`` does.

    Args:
        folder: of the masks.
        records: whose masks are looked for.
        label: value of the lesion in label maps.

    Raises:
        InputError: the folder is missing, or holds no file named like one of the images.
    """

    def __init__(self, folder: Path, records: Sequence[Record], *, label: int | None = None):
        self.folder = folder
        pairing = pair_files([record.image for record in records], find_images(folder))
        if not pairing.pairs:
            raise InputError(
                f"no coarse mask in {folder} belongs to an image",
                expected=f"files named like the images, such as {records[0].image.name}",
                found=", ".join(path.name for path in find_images(folder)[:3]),
            )
        self._pairs: dict[Path, Pair] = {pair.image: pair for pair in pairing.pairs}
        self._files = CoarseFiles(label)

    def open(self, record: Record, image: GreyImage) -> CoarseMask:
        """Return the mask in the file.

        Raises:
            InputError: there is not exactly one of that name, or it cannot be used.
        """
        if record.image not in self._pairs:
            raise InputError(
                f"no coarse mask of {record.image.name} in {self.folder}",
                expected="one file named like the image",
            )
        found = self._files.open_batch([self._pairs[record.image]], [image])[0]
        if isinstance(found, InputError):
            raise found
        return found


def measure_outcomes(
    records: Sequence[Record],
    refiner: Refiner,
    coarse: CoarseMasks,
    *,
    label: int | None = None,
    track: Track = lambda items, _: items,
) -> Measured:
    """Refine images and measure both masks against the truth.

    Args:
        records: each with a true mask; see :func:`check_truths`.
        refiner: without an acceptance rule: what it would refuse is to be seen.
        coarse: gives the masks to refine.
        label: value of the lesion in true masks that are label maps.
        track: wraps the iteration over records, for a progress bar.
    """
    patients = dict(zip((record.image for record in records), patients_of(records), strict=True))
    stems = [split_name(record.image)[0] for record in records]
    outcomes, used, failures, notes = [], [], [], []
    for record in track(records, len(records)):
        stem = split_name(record.image)[0]
        try:
            if stems.count(stem) > 1:
                raise InputError(f"{stems.count(stem)} images of that name")
            image = read_image(record.image)
            truth, remarks = _read_truth(record, image, label)
            given = coarse.open(record, image)
        except InputError as error:
            failures.append((str(record.image), str(error)))
            continue
        notes += [*remarks, *((str(record.image), note) for note in given.notes)]
        result = refiner(image, given.values, is_hard=given.is_hard)
        outcomes.append(_outcome(stem, patients[record.image], result, truth))
        used.append(record)
    return Measured(
        outcomes=tuple(outcomes),
        records=tuple(used),
        bf16=refiner.bf16,
        failures=tuple(failures),
        notes=tuple(notes),
    )


@contextmanager
def naming(failures: Sequence[tuple[str, str]]) -> Iterator[None]:
    """Where too few images are left, also name the first of those that were passed over.

    Args:
        failures: file and reason of each.

    Raises:
        InputError: as inside, with them in its words.
    """
    try:
        yield
    except InputError as error:
        if not failures:
            raise
        shown = "; ".join(f"{name}: {reason}" for name, reason in failures[:_NUM_SHOWN])
        raise InputError(
            error.what,
            expected=error.expected,
            found=f"{error.found or 'none'}, {len(failures)} passed over ({shown})",
            fix=error.fix,
        ) from error


def check_truths(records: Sequence[Record]) -> None:
    """Make sure that the manifest names a true mask for every image.

    Raises:
        InputError: records without one; the first is named.
    """
    without = [record.image for record in records if record.mask is None]
    if without:
        raise InputError(
            f"{len(without)} of {len(records)} images have no true mask, the first is {without[0]}",
            expected="a mask for every image that is calibrated on",
            fix="Fill the column 'mask', or remove these rows.",
        )


def _read_truth(
    record: Record, image: GreyImage, label: int | None
) -> tuple[Mask, list[tuple[str, str]]]:
    """Return the true mask and remarks on it."""
    assert record.mask is not None
    found = read_coarse(record.mask, label=label)
    if found.values.shape != image.shape:
        raise InputError(
            f"{record.mask} has another size than its image",
            expected=f"{image.shape[1]}x{image.shape[0]} px",
            found=f"{found.values.shape[1]}x{found.values.shape[0]} px",
        )
    remarks = found.notes if found.is_hard else (*found.notes, "lesion is what is above one half")
    return found.values > 0.5, [(str(record.mask), remark) for remark in remarks]


def _outcome(stem: str, patient: str, result: RefinedImage, truth: Mask) -> Outcome:
    return Outcome(
        image=stem,
        patient=patient,
        dsc_coarse=evaluate_mask(result.coarse_mask, truth).dsc,
        dsc_refined=evaluate_mask(result.mask, truth).dsc,
        signs=result.signs,
        changed=bool(np.any(result.mask != result.coarse_mask)),
    )
