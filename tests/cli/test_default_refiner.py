"""Who refines where nobody says who: the trained refiner, unless the published model is meant."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from commands import Command

from ultrarefiner.refine.assembly import PRESETS, RefinerConfig
from ultrarefiner.refine.checkpoint import load_refiner
from ultrarefiner.refine.prompts import PromptConfig
from ultrarefiner.training.lineage import card_sha256

STEM = "phantom-7-0000"


@pytest.fixture
def given(phantoms: Path, tmp_path: Path) -> tuple[str, ...]:
    """Arguments for one phantom."""
    for name in ("images", "coarse"):
        (tmp_path / name).mkdir()
        shutil.copy(phantoms / name / f"{STEM}.png", tmp_path / name)
    images, coarse = tmp_path / "images", tmp_path / "coarse"
    return ("refine", "--images", str(images), "--coarse", str(coarse), "--device", "cpu")


def record(out: Path) -> dict[str, Any]:
    return json.loads((out / "run.json").read_text(encoding="utf-8"))


def plain(config: RefinerConfig) -> dict[str, Any]:
    return json.loads(json.dumps(asdict(config)))


def test_the_trained_refiner_comes_first(
    command: Command, given: tuple[str, ...], tmp_path: Path
) -> None:
    """And says so, in the run's record, too."""
    outcome = command(*given, "--out", tmp_path / "default")
    assert outcome.code == 0
    assert outcome.out.startswith("1 mask refined, 0 kept as given; see ")
    remark = "trained on BUS-BRA; --checkpoint none asks the published model"
    assert outcome.err == f"note: refined by busbra-lite: {remark}\n"
    run = record(tmp_path / "default")
    assert run["checkpoints"] == ["busbra-lite"]
    store = load_refiner("busbra-lite")
    assert run["card_sha256"] == [card_sha256(store.card)]
    assert run["config"] == plain(store.config)
    assert run["notes"] == [["refined by busbra-lite", remark]]
    named = command(*given, "--checkpoint", "busbra-lite", "--out", tmp_path / "named")
    assert (named.code, named.err) == (0, "")
    masks = [
        (tmp_path / out / "masks" / f"{STEM}.png").read_bytes() for out in ("default", "named")
    ]
    assert masks[0] == masks[1]
    other = command(*given, "--checkpoint", "none", "--out", tmp_path / "other")
    assert (other.code, other.err) == (0, "")
    assert record(tmp_path / "other")["config"] == plain(RefinerConfig())
    assert (tmp_path / "other" / "masks" / f"{STEM}.png").read_bytes() != masks[0]


@pytest.mark.parametrize(
    ("arguments", "config"),
    [
        (("--foundation", "lite-medsam"), RefinerConfig()),
        (("--preset", "literal"), PRESETS["literal"]),
        (
            ("--refiner.prompts.jitter", "0.2"),
            replace(RefinerConfig(), prompts=PromptConfig(jitter=0.2)),
        ),
    ],
)
def test_who_speaks_of_the_published_model_gets_it(
    command: Command,
    given: tuple[str, ...],
    arguments: tuple[str, ...],
    config: RefinerConfig,
    tmp_path: Path,
) -> None:
    """By name, or by what the trained refiner was not trained with."""
    outcome = command(*given, *arguments, "--out", tmp_path / "out")
    assert (outcome.code, outcome.err) == (0, "")
    run = record(tmp_path / "out")
    assert run["checkpoints"] == ["none"]
    assert "card_sha256" not in run
    assert run["config"] == plain(config)


@pytest.mark.parametrize(
    ("arguments", "setting"),
    [
        (("--flips",), ("flips", True)),
        (("--refiner.flips", "true"), ("flips", True)),
        (("--refiner.second_opinion", "0"), ("second_opinion", 0)),
        (("--refiner.stabilizer.min_iou", "0.01"), ("stabilizer", {"min_iou": 0.01})),
    ],
)
def test_settings_that_training_leaves_free_are_no_reason_to_ask_another(
    command: Command,
    given: tuple[str, ...],
    arguments: tuple[str, ...],
    setting: tuple[str, Any],
    tmp_path: Path,
) -> None:
    outcome = command(*given, *arguments, "--no-rule", "--out", tmp_path / "out")
    assert outcome.code == 0
    run = record(tmp_path / "out")
    assert run["checkpoints"] == ["busbra-lite"]
    name, value = setting
    found = run["config"][name]
    assert (found.items() >= value.items()) if isinstance(value, dict) else found == value


@pytest.mark.parametrize("name", ["", "null", "busbra-light"])
def test_a_name_that_is_none_is_no_default(
    command: Command, given: tuple[str, ...], name: str, tmp_path: Path
) -> None:
    """An empty variable of a shell, say."""
    outcome = command(*given, "--checkpoint", name, "--out", tmp_path / "out")
    assert outcome.code == 2
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "out").exists()
