"""How much does refinement help a mediocre mask? Real images, rough versions of their true masks.

Every variant of the refiner gets the same rough masks. The truth is never shown to the refiner.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ultrarefiner.data.manifest import Record
from ultrarefiner.data.readers import read_coarse, read_image
from ultrarefiner.data.rough import RoughConfig, roughen_mask
from ultrarefiner.data.sources import read_busbra
from ultrarefiner.errors import ConfigError
from ultrarefiner.experiments.remembering import RememberingModel
from ultrarefiner.foundation import FOUNDATION_MODELS
from ultrarefiner.metrics import Case, compare_paired, evaluate_mask, summarise
from ultrarefiner.refine.predictor import Refiner, RefinerConfig
from ultrarefiner.shapes import GreyImage, Mask

METRICS = ("dsc", "iou", "hd95", "nsd")


@dataclass(frozen=True, kw_only=True)
class RoughMaskExperiment:
    """One run, as written in a recipe.

    Attributes:
        folds: official folds of BUS-BRA whose images are used.
        num_images: how many of them, patient after patient in random order; all if ``None``.
        seed: of the draw and of the rough masks.
        generator: how rough the masks are.
        foundation: name in the registry.
        variants: name to refiner settings; the first is the one whose cases are recorded.
    """

    folds: tuple[str, ...]
    num_images: int | None = None
    seed: int = 0
    generator: RoughConfig = field(default_factory=RoughConfig)
    foundation: str = "lite-medsam"
    variants: dict[str, RefinerConfig] = field(default_factory=lambda: {"default": RefinerConfig()})

    def __post_init__(self) -> None:
        if not self.variants:
            raise ConfigError("experiment variants", expected="at least one", found="none")


def run_rough_masks(
    experiment: RoughMaskExperiment,
    root: Path,
    *,
    command: str = "",
    device: str = "auto",
    track: Callable[[Iterable[Record], int], Iterable[Record]] = lambda items, _: items,
) -> dict[str, Any]:
    """Run every variant on every image.

    Args:
        experiment: what to run.
        root: folder of BUS-BRA in its original layout.
        command: recorded in the result.
        device: where to compute.
        track: wraps the iteration over images, for a progress bar.

    Returns:
        The result as it is stored: provenance, one summary per variant, cases of the first.
    """
    records = choose_records(read_busbra(root), experiment)
    model = RememberingModel(FOUNDATION_MODELS[experiment.foundation]())
    refiners = {
        name: Refiner(model, config, device=device) for name, config in experiment.variants.items()
    }
    scores = Scores(refiners)
    for index, record in enumerate(track(records, len(records))):
        image, truth, rough = scores.open(record, experiment, index)
        for name, refiner in refiners.items():
            result = refiner(image, rough.astype(np.float32), is_hard=True)
            scores.add(name, record, result.mask, truth, result.reason)
        model.forget()
    return scores.result(experiment, command)


class Scores:
    """What is known so far of every variant, on the same rough masks.

    Args:
        variants: their names; the cases of the first are part of the result.
    """

    def __init__(self, variants: Iterable[str]):
        self.cases: dict[str, list[Case]] = {name: [] for name in variants}
        self.reasons: dict[str, Counter[str]] = {name: Counter() for name in self.cases}
        self.coarse: list[Case] = []
        self._fingerprint = hashlib.sha256()

    def open(
        self, record: Record, experiment: RoughMaskExperiment, index: int
    ) -> tuple[GreyImage, Mask, Mask]:
        """Return image, truth and rough mask of one record, and score the rough mask."""
        assert record.mask is not None, "BUS-BRA has a mask for every image"
        image, truth = read_image(record.image), read_coarse(record.mask).values > 0.5
        rng = np.random.default_rng([experiment.seed, index])
        rough = roughen_mask(truth, rng, experiment.generator)
        self._fingerprint.update(record.image.name.encode() + image.tobytes() + truth.tobytes())
        self.coarse.append(_case(record, rough, truth))
        return image, truth, rough

    def add(self, name: str, record: Record, mask: Mask, truth: Mask, reason: str) -> None:
        """Score what a variant made of one rough mask."""
        self.cases[name].append(_case(record, mask, truth))
        self.reasons[name][reason] += 1

    def result(self, experiment: RoughMaskExperiment, command: str) -> dict[str, Any]:
        """Return what is stored: provenance, a summary of each variant, cases of the first."""
        first = next(iter(self.cases.values()))
        return {
            "command": command,
            "experiment": asdict(experiment),
            "versions": {name: version(name) for name in ("ultrarefiner", "torch", "numpy")},
            "data_sha256": self._fingerprint.hexdigest(),
            "num_images": len(self.coarse),
            "num_patients": len({case.patient for case in self.coarse}),
            "coarse": _summary(self.coarse),
            "variants": {name: self._variant(name) for name in self.cases},
            "cases": [_row(*pair) for pair in zip(self.coarse, first, strict=True)],
        }

    def _variant(self, name: str) -> dict[str, Any]:
        cases = self.cases[name]
        paired = asdict(compare_paired(cases, self.coarse, METRICS))
        return _summary(cases) | {"paired": paired, "reasons": dict(self.reasons[name])}


def choose_records(
    records: tuple[Record, ...], experiment: RoughMaskExperiment
) -> tuple[Record, ...]:
    """Return the records of the folds, or patients of them in random order up to a number."""
    chosen = [record for record in records if record.fold in experiment.folds]
    if experiment.num_images is None:
        return tuple(chosen)
    patients = sorted({record.patient for record in chosen})
    order = np.random.default_rng(experiment.seed).permutation(len(patients))
    rank = {patients[i]: position for position, i in enumerate(order)}
    chosen.sort(key=lambda record: rank[record.patient])
    return tuple(chosen[: experiment.num_images])


def _case(record: Record, mask: Mask, truth: Mask) -> Case:
    metrics = evaluate_mask(mask, truth, record.spacing_mm)
    return Case(image=record.image.stem, metrics=metrics, patient=record.patient)


def _summary(cases: list[Case]) -> dict[str, Any]:
    summary = summarise(cases, METRICS)
    values = np.array([case.metrics.dsc for case in cases])
    return {name: asdict(estimate) for name, estimate in summary.metrics.items()} | {
        "counts": asdict(summary.counts),
        "dsc_sd": float(values.std()),
        "dsc_p5": float(np.percentile(values, 5)),
    }


def _row(coarse: Case, refined: Case) -> dict[str, Any]:
    row: dict[str, Any] = {"image": coarse.image, "patient": coarse.patient}
    for prefix, case in (("coarse", coarse), ("refined", refined)):
        for name in METRICS:
            row[f"{prefix}_{name}"] = round(getattr(case.metrics, name), 4)
    return row
