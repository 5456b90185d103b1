"""A network's masks on patients it has not seen: refused where it has, stratified, replayable."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from busbra_phantoms import write_checkpoint

from fakes.busbra import write_fake_busbra
from ultrarefiner.coarse import load_checkpoint
from ultrarefiner.data.sources import read_busbra
from ultrarefiner.errors import LeakError
from ultrarefiner.experiments.network_masks import NetworkMaskExperiment, run_network_masks
from ultrarefiner.experiments.sources import refuse_seen_images
from ultrarefiner.refine.assembly import RefinerConfig
from ultrarefiner.weights import file_sha256

FAST = {"one box": RefinerConfig(prompts=replace(RefinerConfig().prompts, jitter=0.0))}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("busbra")
    write_fake_busbra(folder)
    return folder


def test_the_result(root: Path, tmp_path: Path) -> None:
    folds = tuple({record.fold for record in read_busbra(root)})
    experiment = NetworkMaskExperiment(
        checkpoints=(write_checkpoint(tmp_path / "coarse.safetensors"),), folds=folds, variants=FAST
    )
    result = run_network_masks(experiment, root, command="c", device="cpu")
    again = run_network_masks(experiment, root, command="c", device="cpu")
    assert json.dumps(result, sort_keys=True) == json.dumps(again, sort_keys=True)
    assert result["num_images"] == len(result["cases"]) == 4
    assert result["variants"].keys() == FAST.keys()
    assert result["networks"] == [{"split_sha256": "0" * 64}]
    assert 0 <= result["coarse"]["dsc"]["mean"] <= 1
    for strata in result["strata"].values():
        assert sum(stratum["num_images"] for stratum in strata.values()) <= 4
        assert all(0 <= s["coarse"]["dsc"]["mean"] <= 1 for s in strata.values())


def test_images_of_the_training_are_refused(root: Path, tmp_path: Path) -> None:
    records = read_busbra(root)
    seen = records[-1]
    digest = file_sha256(seen.image)[:16]
    experiment = NetworkMaskExperiment(
        checkpoints=(write_checkpoint(tmp_path / "c.safetensors", (digest,)),),
        folds=(seen.fold,),
        variants=FAST,
    )
    with pytest.raises(LeakError, match=seen.image.name):
        run_network_masks(experiment, root, device="cpu")


def test_a_network_that_hides_what_it_has_seen_is_refused(root: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(write_checkpoint(tmp_path / "coarse.safetensors"))
    silent = replace(checkpoint, card={"split_sha256": "0" * 64})
    with pytest.raises(LeakError, match="a card that lists the images"):
        refuse_seen_images([silent], read_busbra(root))
