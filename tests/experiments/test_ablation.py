"""The ablation: one setting at a time on every source, resumed where it was, chosen honestly."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from busbra_phantoms import write_checkpoint, write_phantoms

from ultrarefiner.data.rough import RoughConfig
from ultrarefiner.data.sources import read_busbra
from ultrarefiner.errors import ConfigError, LeakError, OutputError
from ultrarefiner.experiments.ablation import AblationExperiment, run_ablation
from ultrarefiner.experiments.choice import CaseTable, cross_validate
from ultrarefiner.experiments.rough_masks import RoughMaskExperiment, run_rough_masks
from ultrarefiner.experiments.sources import NetworkMasksConfig, RoughMasks
from ultrarefiner.experiments.tables import markdown, variant_row
from ultrarefiner.refine.assembly import RefinerConfig
from ultrarefiner.refine.gates import GateConfig
from ultrarefiner.weights import file_sha256

_CASES = (("0001-l", 1, "1"), ("0001-r", 1, "1"), ("0002-l", 2, "2"), ("0003-l", 3, "2"))
_BASE = RefinerConfig(prompts=replace(RefinerConfig().prompts, jitter=0.0))
_NO_GATE = replace(_BASE, gate=GateConfig(kind="none"))
_CLOSED = replace(_BASE, gate=GateConfig(kind="constant", minimum=0.0, maximum=0.0))
_ROUGHER = RoughMasks(generator=RoughConfig(boundary_std=0.05, shift_std=0.15), seed=7)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms") / "BUSBRA"
    write_phantoms(folder, _CASES)
    return folder


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> AblationExperiment:
    folder = tmp_path_factory.mktemp("networks")
    checkpoints = {
        fold: write_checkpoint(folder / f"{fold}.safetensors", seed=int(fold)) for fold in "12"
    }
    return AblationExperiment(
        folds=("1", "2"),
        seed=3,
        num_inner_folds=3,
        sources={
            "rough": RoughMasks(seed=3),
            "shifted": _ROUGHER,
            "network": NetworkMasksConfig(checkpoints=checkpoints),
        },
        base=_BASE,
        groups={"gate": {"no gate": _NO_GATE}, "nothing": {"closed gate": _CLOSED}},
    )


@pytest.fixture(scope="module")
def result(experiment: AblationExperiment, root: Path) -> dict[str, Any]:
    found = run_ablation(experiment, root, command="c", device="cpu")
    stored: dict[str, Any] = json.loads(json.dumps(found, allow_nan=False))
    return stored


def test_every_source_is_a_study_of_its_own(result: dict[str, Any], root: Path) -> None:
    assert set(result["sources"]) == {"rough", "shifted", "network"}
    variants = {"default": _BASE, "no gate": _NO_GATE, "closed gate": _CLOSED}
    study = RoughMaskExperiment(
        folds=("1", "2"), seed=7, generator=_ROUGHER.generator, variants=variants
    )
    alone = json.loads(json.dumps(run_rough_masks(study, root, device="cpu")))
    shifted = result["sources"]["shifted"]
    assert shifted["coarse"] == alone["coarse"]
    for name in variants:
        found = dict(shifted["variants"][name])
        assert found.pop("seconds_per_image") > 0
        assert found == alone["variants"][name]
    assert result["data_sha256"] == alone["data_sha256"]
    refined = {case["image"]: case["refined_dsc"] for case in alone["cases"]}
    assert shifted["case_dsc"]["default"] == [refined[case["image"]] for case in result["cases"]]


def test_the_averages_are_those_of_the_sources(result: dict[str, Any]) -> None:
    sources = result["sources"].values()
    assert (result["num_images"], result["num_patients"]) == (4, 3)
    for name, found in result["variants"].items():
        parts = [source["variants"][name] for source in sources]
        assert found["dsc"]["mean"] == pytest.approx(
            np.mean([part["dsc"]["mean"] for part in parts]), abs=1e-4
        )
        for share in ("harmed", "improved"):
            assert found["paired"][share]["share"] == pytest.approx(
                np.mean([part["paired"][share]["share"] for part in parts])
            )
    for name, found in result["variants"].items():
        versus = found["dsc"]["mean"] - result["variants"]["default"]["dsc"]["mean"]
        assert found["against_default"]["mean"] == pytest.approx(versus, abs=1e-9), name
    closed = result["variants"]["closed gate"]["paired"]
    assert closed["harmed"]["share"] == closed["improved"]["share"] == 0


def test_the_choice_can_be_made_again_from_the_stored_table(result: dict[str, Any]) -> None:
    rows = [source["case_dsc"] for source in result["sources"].values()]
    names = ["default", "no gate", "closed gate"]
    table = CaseTable(
        [case["patient"] for case in result["cases"]],
        np.array([row["coarse"] for row in rows]),
        {name: np.array([row[name] for row in rows]) for name in names},
    )
    fold = np.array([case["inner_fold"] for case in result["cases"]])
    assert len(set(fold)) == 3
    again = cross_validate(table, fold, names=names)
    stored = result["choice"]["all"]
    assert [part["chosen"] for part in stored["folds"]] == [part.chosen for part in again.folds]
    assert stored["gain"]["mean"] == again.gain.mean
    assert set(result["choice"]["groups"]) == {"gate", "nothing"}


def test_the_tables_show_every_variant_of_every_source(result: dict[str, Any]) -> None:
    lines = markdown(result).splitlines()
    assert variant_row("no gate", result["variants"]["no gate"]) in "\n".join(lines)
    for source in result["sources"].values():
        for name, found in source["variants"].items():
            assert variant_row(name, found) in lines
        assert any(f"coarse DSC {source['coarse']['dsc']['mean']:.3f}" in line for line in lines)
    assert sum(line.startswith("| all variants | ") for line in lines) == 1


def _interrupted(records: Iterable[Any], _: int) -> Iterator[Any]:
    yield from islice(records, 2)
    raise KeyboardInterrupt


def test_an_interrupted_run_goes_on_where_it_was(
    experiment: AblationExperiment, root: Path, result: dict[str, Any], tmp_path: Path
) -> None:
    partial = tmp_path / "r.partial.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run_ablation(experiment, root, device="cpu", track=_interrupted, partial=partial)
    before = partial.read_bytes()
    assert len(before.splitlines()) == 1 + 2
    again = run_ablation(experiment, root, command="c", device="cpu", partial=partial)
    assert partial.read_bytes().startswith(before), "what was there is not computed again"
    assert len(partial.read_bytes().splitlines()) == 1 + 4
    assert _timeless(json.loads(json.dumps(again))) == _timeless(result)
    other = replace(experiment, groups={"gate": {"no gate": _CLOSED}})
    with pytest.raises(OutputError, match="cannot resume"):
        run_ablation(other, root, device="cpu", partial=partial)


def _timeless(result: dict[str, Any]) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(result))
    for source in copy["sources"].values():
        for variant in source["variants"].values():
            del variant["seconds_per_image"]
    return copy


def test_each_network_is_kept_from_the_images_it_has_seen(
    experiment: AblationExperiment, root: Path, tmp_path: Path
) -> None:
    records = read_busbra(root)
    digests = {
        fold: tuple(file_sha256(r.image)[:16] for r in records if r.fold == fold) for fold in "12"
    }
    paths = {
        fold: write_checkpoint(tmp_path / f"{fold}.safetensors", digests[fold]) for fold in "12"
    }
    swapped = NetworkMasksConfig(checkpoints={"1": paths["2"], "2": paths["1"]})
    allowed = replace(experiment, groups={}, num_images=3, sources={"network": swapped})
    assert run_ablation(allowed, root, device="cpu")["num_images"] == 3
    straight = NetworkMasksConfig(checkpoints={"1": paths["2"], "2": paths["2"]})
    with pytest.raises(LeakError, match=r"bus_000[23]"):
        run_ablation(replace(allowed, sources={"network": straight}), root, device="cpu")
    with pytest.raises(ConfigError, match="one for fold 2"):
        run_ablation(
            replace(
                allowed, sources={"network": NetworkMasksConfig(checkpoints={"1": paths["2"]})}
            ),
            root,
            device="cpu",
        )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sources": {}}, "sources: expected at least one"),
        ({"num_inner_folds": 1}, "2 or more"),
        ({"groups": {"a": {"x": _BASE}, "b": {"x": _BASE}}}, "'x' again"),
        ({"groups": {"a": {"default": _BASE}}}, "'default' again"),
    ],
)
def test_an_experiment_that_cannot_be_run(
    experiment: AblationExperiment, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        replace(experiment, **change)
