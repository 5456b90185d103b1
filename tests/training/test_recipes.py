"""Every recipe for training in recipes/: it can be read, and what it names can be built."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from ultrarefiner.cli import main
from ultrarefiner.cli.train import parser
from ultrarefiner.coarse import COARSE_NETWORKS, build_coarse
from ultrarefiner.errors import ConfigError
from ultrarefiner.foundation import FOUNDATION_MODELS
from ultrarefiner.refine.gates import GateConfig, build_gate
from ultrarefiner.refine.prompts import PromptConfig
from ultrarefiner.refine.roi import RoiConfig
from ultrarefiner.refine.selection import build_selection
from ultrarefiner.training.recipe import TrainingRecipe, trainable_refiner

ROOT = Path(__file__).resolve().parents[2]
STORED = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in sorted((ROOT / "recipes").glob("*.yaml"))
}
TRAINING = [name for name, content in STORED.items() if "study" not in content]
RUNNABLE = [name for name in TRAINING if name != "paper"]


def read(name: str) -> TrainingRecipe:
    path = ROOT / "recipes" / f"{name}.yaml"
    reader = parser()
    arguments = ["--recipe", str(path), "--manifest", "m.csv", "--out", "run"]
    args = reader.instantiate(reader.parse_args(arguments))
    return TrainingRecipe(**{item.name: args[item.name] for item in fields(TrainingRecipe)})


def leaves(content: Mapping[str, Any], *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from leaves(value, *path, key)
        else:
            yield (*path, key), value


def test_there_are_recipes_for_training() -> None:
    assert {"nano", "paper", "busbra_unet"} <= set(TRAINING)


@pytest.mark.parametrize("name", TRAINING)
def test_every_setting_arrives(name: str) -> None:
    recipe = read(name)
    settings = list(leaves(STORED[name]))
    assert len(settings) > 5
    for path, stored in settings:
        value: Any = recipe
        for part in path:
            value = getattr(value, part)
        assert value == (tuple(stored) if isinstance(stored, list) else stored), path


@pytest.mark.parametrize("name", RUNNABLE)
def test_what_it_names_can_be_built(name: str) -> None:
    recipe = read(name)
    network = build_coarse(replace(recipe.network, encoder_weights="none"))
    assert network.config.side == recipe.network.side
    assert recipe.foundation in FOUNDATION_MODELS
    assert build_gate(recipe.refiner.gate)
    assert build_selection(recipe.refiner.selection)


def test_nano_is_small_and_needs_no_weights_of_others() -> None:
    recipe = read("nano")
    network = build_coarse(recipe.network)
    assert sum(value.numel() for value in network.parameters()) < 1_000_000
    assert list(network.buffers()) == []  # no statistics of batches
    assert recipe.network.encoder_weights == "none"
    prompts = PromptConfig(jitter=0.0, mask="direct", mask_scale=4.0)
    assert recipe.refiner == replace(trainable_refiner(), prompts=prompts)


def test_nano_has_not_seen_the_phantoms_of_the_demo() -> None:
    pattern = re.compile(r"data phantom --num \d+ --seed (\d+)")
    demo = pattern.findall((ROOT / "Makefile").read_text(encoding="utf-8"))
    nano = pattern.findall((ROOT / "recipes" / "nano.yaml").read_text(encoding="utf-8"))
    assert demo
    assert len(set(nano)) == 2  # to learn from, and to judge
    assert set(demo).isdisjoint(nano)


def test_flips_of_the_refiner_are_for_prediction() -> None:
    with pytest.raises(
        ConfigError, match=r"refiner flips: expected false in training.*phase2\.flips"
    ):
        TrainingRecipe(refiner=replace(trainable_refiner(), flips=True))


@pytest.mark.parametrize("phase", ["phase2", "phase3"])
@pytest.mark.parametrize("share", ["shape_share", "grey_share"])
def test_images_vary_only_where_they_are_encoded_in_every_step(phase: str, share: str) -> None:
    varied = {phase: replace(getattr(TrainingRecipe(), phase), **{share: 0.5})}
    with pytest.raises(
        ConfigError, match=rf"{phase} {share}: expected 0, .*cached, found 0\.5.*trainable"
    ):
        TrainingRecipe(**varied)
    assert TrainingRecipe(**varied, trainable="decoder+prompt+tail").encodes_in_training
    roi = RoiConfig(crop=True)
    assert TrainingRecipe(**varied, refiner=replace(trainable_refiner(), roi=roi))
    with pytest.raises(ConfigError, match=rf"{phase} {share}: expected 0 to 1, found 1\.5"):
        replace(getattr(TrainingRecipe(), phase), **{share: 1.5})


class TestPaper:
    """What is not here yet is said by name."""

    def test_one_answer_an_item_is_trained(self) -> None:
        refiner = read("paper").refiner
        assert refiner.localizer.dominant_only
        assert refiner.prompts.jitter == 0
        assert build_gate(refiner.gate)
        assert build_selection(refiner.selection)

    def test_running_it_names_the_missing_network(
        self, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        recipe = read("paper")
        assert recipe.network.name not in COARSE_NETWORKS, "it can be run: make it RUNNABLE"
        out = tmp_path / "run"
        arguments = ["--manifest", str(manifest), "--fold", "3", "--out", str(out)]
        assert main(["train", str(ROOT / "recipes" / "paper.yaml"), *arguments]) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: unknown coarse network 'transunet': expected one of ")
        assert not out.exists()

    def test_so_is_the_model(self) -> None:
        assert read("paper").foundation not in FOUNDATION_MODELS, "it can be run: make it RUNNABLE"


@pytest.mark.parametrize("phase", ["phase2", "phase3"])
def test_a_gate_that_learns_takes_part_in_training(phase: str) -> None:
    ungated = {phase: replace(getattr(TrainingRecipe(), phase), gated=False)}
    for kind in ("learned", "hybrid"):
        refiner = replace(trainable_refiner(), gate=GateConfig(kind=kind))
        with pytest.raises(
            ConfigError, match=rf"{phase} gated: expected true, .*{kind} learns, found false"
        ):
            TrainingRecipe(**ungated, refiner=refiner)
        assert TrainingRecipe(refiner=refiner).refiner == refiner
    fixed = replace(trainable_refiner(), gate=GateConfig(kind="evidence"))
    assert not getattr(TrainingRecipe(**ungated, refiner=fixed), phase).gated


@pytest.mark.parametrize("phase", ["phase2", "phase3"])
def test_who_gives_an_opinion_has_learned_to(phase: str) -> None:
    refiner = replace(trainable_refiner(), second_opinion=0.5)
    learned = {
        name: replace(getattr(TrainingRecipe(), name), unasked_share=0.2)
        for name in ("phase2", "phase3")
    }
    assert TrainingRecipe(refiner=refiner, **learned).refiner.second_opinion == 0.5
    del learned[phase]
    with pytest.raises(ConfigError, match=rf"{phase} unasked_share: expected above 0.*found 0"):
        TrainingRecipe(refiner=refiner, **learned)
