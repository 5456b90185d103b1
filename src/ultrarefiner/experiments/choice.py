"""What choosing the best of many settings is worth: chosen on some patients, scored on others.

The best of thirty settings looks better than it is, because it was picked for looking good. Here it
is picked again on four fifths of the patients and scored on the fifth that had no say, five times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from ultrarefiner.errors import ConfigError, InputError
from ultrarefiner.statistics import Estimate, estimate_columns

DECIMALS = 4
"""Of every DSC in a table, as it is stored; what is said of a table can be computed again."""


@dataclass(frozen=True, kw_only=True)
class CriterionConfig:
    """Which setting is the best.

    The highest mean gain in DSC of those that harm few enough; if none does, the one that harms
    least. Of equals, the first.

    Attributes:
        max_harmed: largest share of harmed images, averaged over the sources, in [0, 1].
        delta: an image is harmed when its DSC falls by more than this, in [0, 1).
    """

    max_harmed: float = 0.05
    delta: float = 0.02

    def __post_init__(self) -> None:
        if not 0 <= self.max_harmed <= 1:
            raise ConfigError("max_harmed", expected="in [0, 1]", found=str(self.max_harmed))
        if not 0 <= self.delta < 1:
            raise ConfigError("delta", expected="in [0, 1)", found=str(self.delta))


class CaseTable:
    """The DSC of every variant on every coarse mask of every image.

    Args:
        patients: whose image each is, ``N``.
        coarse: ``S N`` DSC of the coarse masks from S sources.
        refined: name of the variant to ``S N`` DSC of what it made of them.

    Raises:
        InputError: the parts differ in size.
    """

    def __init__(
        self,
        patients: Sequence[str],
        coarse: Float64[np.ndarray, "S N"],
        refined: dict[str, Float64[np.ndarray, "S N"]],
    ):
        self.patients = np.array(patients)
        self.coarse = np.round(coarse, DECIMALS)
        self.refined = {name: np.round(values, DECIMALS) for name, values in refined.items()}
        for name, values in self.refined.items():
            if values.shape != self.coarse.shape or values.shape[1] != len(self.patients):
                raise InputError(
                    f"scores of {name!r}",
                    expected=f"{len(self.coarse)} sources x {len(self.patients)} images",
                    found=str(values.shape),
                )

    def gains(self, names: Sequence[str]) -> Float64[np.ndarray, "V S N"]:
        """Return refined minus coarse DSC; rounded, so that a threshold means what it says."""
        refined = np.stack([self.refined[name] for name in names])
        return np.round(refined - self.coarse, DECIMALS)


@dataclass(frozen=True, kw_only=True)
class HeldOutFold:
    """One inner fold.

    Attributes:
        chosen: variant that was best on the patients of all other inner folds.
        num_images: images of this fold.
        num_patients: their patients.
        gain: mean gain in DSC of the chosen variant on them.
        harmed: share of harmed images among them.
    """

    chosen: str
    num_images: int
    num_patients: int
    gain: float
    harmed: float


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What choosing by the criterion gives on patients that had no say in it.

    All averages are over images, and over sources with equal weight. Intervals are over patients,
    given the choices made.

    Attributes:
        best: variant that is best on all patients: the one to take.
        apparent_gain: its gain on the same patients, which flatters it.
        gain: gain of the choices on held-out patients.
        harmed: share of images that they harm there.
        against_first: their gain minus that of the first variant, which was not chosen but given.
        folds: the inner folds.
    """

    best: str
    apparent_gain: float
    gain: Estimate
    harmed: Estimate
    against_first: Estimate
    folds: tuple[HeldOutFold, ...]


def choose_variant(
    gains: Float64[np.ndarray, "V S N"], criterion: CriterionConfig | None = None
) -> int:
    """Return the index of the best variant.

    Args:
        gains: refined minus coarse DSC of V variants.
        criterion: what is best.

    Example:
        >>> choose_variant(np.array([[[0.01, 0.01]], [[0.30, -0.10]]]))  # the second harms a half
        0
    """
    criterion = criterion or CriterionConfig()
    gain = gains.mean(axis=(1, 2))
    harmed = (gains < -criterion.delta).mean(axis=(1, 2))
    allowed = harmed <= criterion.max_harmed
    if not allowed.any():
        allowed = harmed == harmed.min()
    return int(np.argmax(np.where(allowed, gain, -np.inf)))


def deal_patients(patients: Sequence[str], num_folds: int, *, seed: int) -> Int64[np.ndarray, " N"]:
    """Return the inner fold of each image: patients in random order, dealt like cards.

    Args:
        patients: whose image each is.
        num_folds: at least 2.
        seed: of the order.

    Raises:
        InputError: there are fewer patients than folds.
    """
    names, patient = np.unique(np.array(patients), return_inverse=True)
    if len(names) < num_folds:
        raise InputError(
            "too few patients for the inner folds",
            expected=f"{num_folds} or more",
            found=str(len(names)),
            fix="Use more images or fewer folds.",
        )
    place = np.empty(len(names), dtype=np.int64)
    place[np.random.default_rng(seed).permutation(len(names))] = np.arange(len(names))
    fold: Int64[np.ndarray, " N"] = place[patient] % num_folds
    return fold


def cross_validate(
    table: CaseTable,
    fold: Int64[np.ndarray, " N"],
    *,
    names: Sequence[str] | None = None,
    criterion: CriterionConfig | None = None,
) -> Choice:
    """Choose on all inner folds but one, score on that one, for each in turn.

    Args:
        table: DSC of every case.
        fold: inner fold of each image, see :func:`deal_patients`.
        names: variants to choose among; all of the table if ``None``. The first is the given one.
        criterion: what is best.
    """
    names = list(table.refined) if names is None else list(names)
    criterion = criterion or CriterionConfig()
    gains = table.gains(names)
    per_image, harmed = gains.mean(axis=1), (gains < -criterion.delta).mean(axis=1)
    chosen = np.empty(len(fold), dtype=np.int64)
    folds = []
    for number in np.unique(fold):
        held_out: Bool[np.ndarray, " N"] = fold == number
        best = choose_variant(gains[..., ~held_out], criterion)
        chosen[held_out] = best
        folds.append(
            HeldOutFold(
                chosen=names[best],
                num_images=int(held_out.sum()),
                num_patients=len(np.unique(table.patients[held_out])),
                gain=float(per_image[best, held_out].mean()),
                harmed=float(harmed[best, held_out].mean()),
            )
        )
    rows = np.arange(len(fold))
    picked = per_image[chosen, rows]
    columns = np.stack([picked, harmed[chosen, rows], picked - per_image[0]], axis=1)
    estimates = estimate_columns(columns, table.patients, ("gain", "harmed", "against_first"))
    overall = choose_variant(gains, criterion)
    return Choice(
        best=names[overall],
        apparent_gain=float(per_image[overall].mean()),
        folds=tuple(folds),
        **estimates,
    )
