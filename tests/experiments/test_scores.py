"""Scores of a study: kept as JSON, parted into strata, stored case by case."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from ultrarefiner.data.manifest import Record
from ultrarefiner.experiments.rough_masks import RoughMaskExperiment
from ultrarefiner.experiments.scores import (
    METRICS,
    OpenedCase,
    ScoredImage,
    ScoredVariant,
    Scores,
)
from ultrarefiner.metrics import MaskMetrics, evaluate_mask

_SIDE_PX = 60
_RADII_PX = (6, 7, 10, 11, 20, 21)


def _disc(radius_px: float) -> np.ndarray:
    centres = np.arange(_SIDE_PX) + 0.5
    return np.hypot(centres - 30, centres[:, None] - 30) < radius_px


def _opened(index: int) -> OpenedCase:
    record = Record(
        image=Path(f"{index}.png"),
        patient=f"p{index}",
        label="benign" if index < 5 else "malignant",
        device="A",
    )
    image = np.zeros((_SIDE_PX, _SIDE_PX), np.float32)
    return OpenedCase(index=index, record=record, image=image, truth=_disc(_RADII_PX[index]))


@pytest.fixture
def scored() -> tuple[Scores, list[tuple[MaskMetrics, MaskMetrics]]]:
    scores, pairs = Scores(["one"]), []
    for index, radius_px in enumerate(_RADII_PX):
        case = _opened(index)
        coarse, refined = (case.score(_disc(radius_px + change)) for change in (-2, 1))
        variant = ScoredVariant(metrics=refined, reason="accepted")
        scores.add(case, ScoredImage(coarse=coarse, variants={"one": variant}))
        pairs.append((coarse, refined))
    return scores, pairs


def test_a_scored_image_comes_back_from_json() -> None:
    metrics = evaluate_mask(_disc(9), _disc(10), tolerances=(2.0,))
    image = ScoredImage(
        coarse=metrics, variants={"a": ScoredVariant(metrics=metrics, reason="r", seconds=0.5)}
    )
    row = json.loads(json.dumps(asdict(image), allow_nan=False))
    assert ScoredImage.from_json(row) == ScoredImage.from_json(asdict(image)) == image


def test_strata_are_means_of_their_parts(scored) -> None:
    scores, pairs = scored
    strata = scores.strata()
    assert {kind: list(levels) for kind, levels in strata.items()} == {
        "size": ["small", "medium", "large"],
        "label": ["benign"],
    }, "of one malignant patient there is no interval"
    for place, level in enumerate(("small", "medium", "large")):
        part = pairs[2 * place : 2 * place + 2]
        found = strata["size"][level]
        assert found["num_images"] == 2
        for name, column in (("coarse", 0), ("refined", 1)):
            expected = np.mean([pair[column].dsc for pair in part])
            assert found[name]["dsc"]["mean"] == pytest.approx(expected)
        gain = np.mean([refined.dsc - coarse.dsc for coarse, refined in part])
        assert found["paired"]["differences"]["dsc"]["mean"] == pytest.approx(gain)
    assert strata["label"]["benign"]["num_images"] == 5


def test_a_result_has_every_metric_of_every_case(scored) -> None:
    scores, pairs = scored
    result = scores.result(RoughMaskExperiment(folds=("1",)), "a test")
    assert set(METRICS) >= {"precision", "recall", "boundary_iou", "assd"}
    assert result["variants"]["one"].keys() >= {*METRICS, "counts", "dsc_sd", "paired", "reasons"}
    for row, (coarse, refined) in zip(result["cases"], pairs, strict=True):
        for name in METRICS:
            assert row[f"coarse_{name}"] == round(getattr(coarse, name), 4)
            assert row[f"refined_{name}"] == round(getattr(refined, name), 4)
    json.dumps(result, allow_nan=False)
