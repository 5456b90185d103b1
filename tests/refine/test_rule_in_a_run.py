"""A folder refined by a rule: scores and reasons are written, doubts about the rule are said."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import LesionFinder
from PIL import Image
from rules import rule_of

from ultrarefiner.data.phantom import PhantomConfig, write_phantoms
from ultrarefiner.refine.acceptance import MASKS, NETWORK, AcceptanceRule
from ultrarefiner.refine.assembly import RefinerConfig
from ultrarefiner.refine.folder import refine_folder
from ultrarefiner.refine.gates import GateConfig
from ultrarefiner.refine.job import FolderResult
from ultrarefiner.refine.predictor import Refiner
from ultrarefiner.refine.prompts import PromptConfig
from ultrarefiner.refine.results import RESULT_COLUMNS, read_results
from ultrarefiner.refine.stabilization import StabilizerConfig
from ultrarefiner.refine.validity import doubts

_DARK = PhantomConfig(
    height_px=(80, 90), width_px=(90, 100), contrast_db=(14.0, 16.0), lesion_count_probs=(1, 0, 0)
)
_CONFIG = RefinerConfig(
    prompts=PromptConfig(jitter=0.0),
    gate=GateConfig(kind="none"),
    stabilizer=StabilizerConfig(enabled=False),
)


def _phantoms(folder: Path, num: int, seed: int) -> Path:
    write_phantoms(num, seed, folder, config=_DARK)
    return folder


def _run(data: Path, rule: AcceptanceRule | None, out: Path) -> tuple[FolderResult, dict[str, Any]]:
    refiner = Refiner(LesionFinder(64, 64), _CONFIG, device="cpu", bf16=False, rule=rule)
    result = refine_folder(data / "images", data / "coarse", out, refiner)
    return result, json.loads((out / "run.json").read_text(encoding="utf-8"))


def _scores(out: Path) -> list[float]:
    return [float(row["score"]) for row in read_results(out / "results.csv")]


@pytest.fixture(scope="module")
def rule(tmp_path_factory: pytest.TempPathFactory) -> AcceptanceRule:
    """A rule that accepts half of the phantoms that its threshold was chosen on."""
    folder = tmp_path_factory.mktemp("calibration")
    data, out = _phantoms(folder / "data", 30, 1), folder / "out"
    _run(data, rule_of(threshold=-math.inf, scores=()), out)
    scores = sorted(_scores(out))
    return rule_of(threshold=float(np.median(scores)), scores=tuple(scores), num_images=30)


def test_every_image_gets_its_score_and_its_reason(rule: AcceptanceRule, tmp_path: Path) -> None:
    """Other images of the same kind: there is nothing to remark on."""
    data = _phantoms(tmp_path / "data", 12, 2)
    result, record = _run(data, rule, tmp_path / "out")
    rows = read_results(tmp_path / "out" / "results.csv")
    assert 0 < result.num_accepted < len(rows) == 12
    for row in rows:
        is_accepted = float(row["score"]) >= rule.threshold
        assert row["accepted"] == ("yes" if is_accepted else "no")
        refused = "calibrated rule: mask moved too far"
        assert row["reason"] == ("accepted" if is_accepted else refused)
        mask, coarse = (
            np.asarray(Image.open(folder / f"{row['image']}.png")) > 0
            for folder in (tmp_path / "out" / "masks", data / "coarse")
        )
        assert np.array_equal(mask, coarse) == (not is_accepted)
    assert AcceptanceRule.from_json(record["rule"]) == rule
    assert result.notes == ()
    assert record["notes"] == []


def test_shifted_images_are_remarked_on(rule: AcceptanceRule, tmp_path: Path) -> None:
    """Black is white, as some scanners store it."""
    data = _phantoms(tmp_path / "data", 12, 2)
    for path in (data / "images").iterdir():
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    result, record = _run(data, rule, tmp_path / "out")
    ((name, note),) = result.notes
    assert name == "acceptance rule"
    assert note.startswith("scores differ from those of the calibration (p = ")
    assert note.endswith(" 12 images): the guarantee may not hold for these images")
    assert record["notes"] == [[name, note]]


def test_masks_of_another_source_are_remarked_on(rule: AcceptanceRule) -> None:
    assert doubts(rule, rule.scores, source=MASKS, bf16=False) == []
    (note,) = doubts(rule, rule.scores, source=NETWORK, bf16=False)
    assert note.startswith("calibrated on given masks, used on masks of the checkpoint's own")
    network = replace(rule, source=NETWORK)
    assert doubts(network, rule.scores, source=NETWORK, bf16=False) == []
    (note,) = doubts(network, rule.scores, source=MASKS, bf16=False)
    assert note.startswith("calibrated on masks of the checkpoint's own network, used on given")


def test_few_images_are_not_compared(rule: AcceptanceRule) -> None:
    assert doubts(rule, [-4.0] * 7, source=MASKS, bf16=False) == []
    assert len(doubts(rule, [-4.0] * 8, source=MASKS, bf16=False)) == 1
    few = replace(rule, scores=rule.scores[:7])
    assert doubts(few, [-4.0] * 8, source=MASKS, bf16=False) == []


def test_another_precision_is_remarked_on(rule: AcceptanceRule, tmp_path: Path) -> None:
    """The refiner of this run computes in float32."""
    data = _phantoms(tmp_path / "data", 1, 2)
    result, record = _run(data, replace(rule, bf16=True), tmp_path / "out")
    ((_, note),) = result.notes
    assert note.startswith("calibrated in bfloat16, used in float32: scores differ a little")
    assert record["rule"]["bf16"] is True
    (note,) = doubts(rule, rule.scores, source=MASKS, bf16=True)
    assert note.startswith("calibrated in float32, used in bfloat16")


def test_an_interrupted_run_has_its_doubts_too(rule: AcceptanceRule, tmp_path: Path) -> None:
    data, out = _phantoms(tmp_path / "data", 2, 2), tmp_path / "out"
    refiner = Refiner(LesionFinder(64, 64), _CONFIG, device="cpu", bf16=False,
                      rule=replace(rule, bf16=True))  # fmt: skip

    def stop_after_one(batches: Iterable[Any], num: int) -> Iterator[Any]:
        yield next(iter(batches))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        refine_folder(data / "images", data / "coarse", out, refiner, track=stop_after_one)
    notes = [note for _, note in json.loads((out / "run.json").read_text())["notes"]]
    assert any(note.startswith("interrupted: 1 of 2") for note in notes)
    assert any(note.startswith("calibrated in bfloat16") for note in notes)


def test_without_a_rule_there_is_no_score(tmp_path: Path) -> None:
    result, record = _run(_phantoms(tmp_path / "data", 1, 2), None, tmp_path / "out")
    assert [row["score"] for row in read_results(tmp_path / "out" / "results.csv")] == [""]
    assert record["rule"] is None
    assert result.notes == ()


def test_tables_of_earlier_versions_are_read(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    columns = [name for name in RESULT_COLUMNS if name != "score"]
    path.write_text(",".join(columns) + "\na" + "," * (len(columns) - 1) + "\n", encoding="utf-8")
    (row,) = read_results(path)
    assert tuple(row) == RESULT_COLUMNS
    assert (row["image"], row["score"]) == ("a", "")


def test_given_masks_have_no_second_opinion(tmp_path: Path) -> None:
    """Where settings ask for one, the run says that it was not used."""
    data = _phantoms(tmp_path / "data", 1, 3)
    remark = ("refiner second_opinion", "not used, since masks are given")
    for share, notes in ((None, ()), (0.5, (remark,))):
        model, config = LesionFinder(64, 64), replace(_CONFIG, second_opinion=share)
        refiner = Refiner(model, config, device="cpu", bf16=False)
        result = refine_folder(data / "images", data / "coarse", tmp_path / "out", refiner)
        assert tuple(result.notes) == notes
