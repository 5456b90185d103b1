"""How much does refinement help a mediocre mask? Real images, rough versions of their true masks.

Every variant of the refiner gets the same rough masks. The truth is never shown to the refiner.
"""

from __future__ import annotations

import hashlib
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
        num_images: how many of them, drawn by patient; all if ``None``.
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
    coarse_cases: list[Case] = []
    cases: dict[str, list[Case]] = {name: [] for name in refiners}
    reasons: dict[str, dict[str, int]] = {name: {} for name in refiners}
    fingerprint = hashlib.sha256()
    for index, record in enumerate(track(records, len(records))):
        image, truth = _read(record)
        fingerprint.update(record.image.name.encode() + image.tobytes() + truth.tobytes())
        rough = roughen_mask(
            truth, np.random.default_rng([experiment.seed, index]), experiment.generator
        )
        coarse_cases.append(_case(record, rough, truth))
        for name, refiner in refiners.items():
            result = refiner(image, rough.astype(np.float32), is_hard=True)
            cases[name].append(_case(record, result.mask, truth))
            reasons[name][result.reason] = reasons[name].get(result.reason, 0) + 1
        model.forget()
    first = next(iter(refiners))
    return {
        "command": command,
        "experiment": asdict(experiment),
        "versions": {name: version(name) for name in ("ultrarefiner", "torch", "numpy")},
        "data_sha256": fingerprint.hexdigest(),
        "num_images": len(records),
        "num_patients": len({record.patient for record in records}),
        "coarse": _summary(coarse_cases),
        "variants": {
            name: _summary(cases[name])
            | {"paired": _paired(cases[name], coarse_cases), "reasons": reasons[name]}
            for name in refiners
        },
        "cases": [
            {"image": fine.image, "patient": fine.patient}
            | {f"coarse_{m}": round(getattr(rough.metrics, m), 4) for m in METRICS}
            | {f"refined_{m}": round(getattr(fine.metrics, m), 4) for m in METRICS}
            for rough, fine in zip(coarse_cases, cases[first], strict=True)
        ],
    }


def choose_records(
    records: tuple[Record, ...], experiment: RoughMaskExperiment
) -> tuple[Record, ...]:
    """Return the records of the folds, or whole patients of them in random order up to a number."""
    chosen = [record for record in records if record.fold in experiment.folds]
    if experiment.num_images is None:
        return tuple(chosen)
    patients = sorted({record.patient for record in chosen})
    order = np.random.default_rng(experiment.seed).permutation(len(patients))
    rank = {patients[i]: position for position, i in enumerate(order)}
    chosen.sort(key=lambda record: rank[record.patient])
    return tuple(chosen[: experiment.num_images])


def _read(record: Record) -> tuple[GreyImage, Mask]:
    assert record.mask is not None, "BUS-BRA has a mask for every image"
    return read_image(record.image), read_coarse(record.mask).values > 0.5


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


def _paired(cases: list[Case], baseline: list[Case]) -> dict[str, Any]:
    paired = compare_paired(cases, baseline, METRICS)
    return asdict(paired)
