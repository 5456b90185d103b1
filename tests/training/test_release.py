"""A release: the same bytes, a card that says what it must, and no card without a licence."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from ultrarefiner.cli import main
from ultrarefiner.coarse import CoarseConfig, build_coarse, encode_checkpoint, load_checkpoint
from ultrarefiner.coarse.pretrained import PRETRAINED
from ultrarefiner.data.manifest import read_manifest
from ultrarefiner.data.phantom import PhantomConfig, write_phantoms
from ultrarefiner.data.sources.notices import NOTICES
from ultrarefiner.errors import ConfigError, InputError, LeakError, WeightsError
from ultrarefiner.foundation import FOUNDATION_MODELS, LITE_MEDSAM_WEIGHTS
from ultrarefiner.refine.acceptance import SIGNS, AcceptanceRule
from ultrarefiner.refine.assembly import build_pipeline
from ultrarefiner.refine.checkpoint import add_rule, encode_refiner, load_refiner
from ultrarefiner.training.lineage import card_digests
from ultrarefiner.training.model_card import model_card
from ultrarefiner.training.recipe import TrainingRecipe, trainable_refiner
from ultrarefiner.training.release import release_network
from ultrarefiner.training.tuning import training_pipeline
from ultrarefiner.weights import file_sha256

NETWORK = CoarseConfig(side=64, encoder_weights="none", decoder_channels=(16, 8, 8, 8, 8))
CARD: dict[str, Any] = {
    "command": "ultrarefiner train recipe.yaml",
    "datasets": ["BUS-BRA"],
    "held_out_fold": "3",
    "image_digests": ["0" * 16],
    "num_held_out": 4,
    "num_patients": 7,
    "num_train": 9,
    "num_val": 2,
    "split_sha256": "ab" * 32,
    "versions": {"torch": "2"},
}
REFINER_CARD = CARD | {
    "bf16": False,
    "datasets": ["phantom"],
    "epoch": 3,
    "inner_validation": {"before": {"dsc": 0.81}, "after": {"dsc": 0.87}},
    "phase": 3,
    "recipe": json.loads(json.dumps(asdict(TrainingRecipe(network=NETWORK)))),
    "revision": "0123abcd",
}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "coarse.safetensors"
    path.parent.mkdir()
    path.write_bytes(encode_checkpoint(build_coarse(NETWORK), CARD))
    return path


@pytest.fixture(scope="module")
def refiner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a refiner that has seen no phantom, in the folder of its run."""
    path = tmp_path_factory.mktemp("run") / "joint.safetensors"
    torch.manual_seed(0)
    config = trainable_refiner()
    pipeline = training_pipeline(FOUNDATION_MODELS["lite-medsam"](), config)
    with torch.no_grad():
        for value in pipeline.foundation.mask_decoder.parameters():
            value += 1e-4
    content = encode_refiner(
        build_coarse(NETWORK).eval(),
        pipeline,
        foundation="lite-medsam",
        config=config,
        card=REFINER_CARD,
    )
    path.write_bytes(content)
    return path


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = PhantomConfig(height_px=(120, 140), width_px=(150, 170), relative_radius=(0.2, 0.25))
    return write_phantoms(2, 3, tmp_path_factory.mktemp("data"), rough=False, config=config)


@pytest.fixture(scope="module")
def scored(refiner: Path, phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``eval.json`` of a run of ``predict`` with the refiner's folder."""
    out = tmp_path_factory.mktemp("predicted")
    images = ["--manifest", str(phantoms)]
    model = ["--checkpoint", str(refiner.parent), "--device", "cpu"]
    assert main(["predict", *images, *model, "--out", str(out)]) == 0
    masks = ["--preds", str(out), "--baseline", str(out / "coarse")]
    assert main(["evaluate", *images, *masks, "--out", str(out / "eval.json")]) == 0
    return out / "eval.json"


def copy_of(scored: Path, folder: Path) -> Path:
    folder.mkdir()
    for name in ("eval.json", "run.json"):
        shutil.copy(scored.with_name(name), folder)
    return folder / "eval.json"


def study(path: Path, split: str = CARD["split_sha256"]) -> Path:
    def summary(dsc: float) -> dict[str, Any]:
        estimate = {"mean": dsc, "low": dsc - 0.01, "high": dsc + 0.01, "median": dsc}
        counts = {"missed": 2, "false_positive": 0}
        return {"dsc": estimate, "iou": estimate, "hd95": estimate, "counts": counts}

    content = {
        "networks": [{"split_sha256": split}],
        "num_images": 4,
        "num_patients": 3,
        "coarse": summary(0.8),
        "variants": {"default": summary(0.9)},
    }
    path.write_text(json.dumps(content))
    return path


def test_weights_and_card(checkpoint: Path, tmp_path: Path) -> None:
    scores = study(tmp_path / "result.json")
    release = release_network(checkpoint.parent, "tiny", tmp_path / "out", result=scores)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["tiny.md", "tiny.safetensors"]
    assert release.weights.read_bytes() == checkpoint.read_bytes()
    assert release.sha256 == file_sha256(release.weights)
    assert dict(load_checkpoint(release.weights).card) == CARD
    card = release.card.read_text(encoding="utf-8")
    notice = NOTICES["BUS-BRA"]
    for words in (
        "not a medical device",
        notice.licence,
        notice.citation,
        notice.limits,
        release.sha256,
        "9 images; checkpoint chosen on 2 more; 7 patients",
        "fold 3, 4 images",
        "| | coarse | refined (default) |",
        "| DSC | 0.800 [0.790, 0.810] | 0.900 [0.890, 0.910] |",
        "| missed | 2 | 2 |",
    ):
        assert words in card, words
    assert "training time" not in card


def test_the_time_is_that_of_its_own_training(checkpoint: Path, tmp_path: Path) -> None:
    for story, is_own in ((CARD | {"minutes": 1.52}, True), (CARD | {"num_val": 3}, False)):
        checkpoint.with_name("run.json").write_text(json.dumps({"minutes": 7.0} | story))
        release = release_network(checkpoint, "tiny", tmp_path / "out")
        assert ("| training time | 1.5 minutes |" in release.card.read_text("utf-8")) == is_own
        assert ("training time" in release.card.read_text("utf-8")) == is_own


def test_masks_that_a_network_drew_are_told(tmp_path: Path) -> None:
    path = tmp_path / "coarse.safetensors"
    path.write_bytes(encode_checkpoint(build_coarse(NETWORK), CARD | {"num_pseudo": 30}))
    card = release_network(path, "tiny", tmp_path / "out").card.read_text("utf-8")
    assert "9 images and 30 whose masks a network drew; checkpoint chosen on 2 more" in card


def test_a_study_of_another_network(checkpoint: Path, refiner: Path, tmp_path: Path) -> None:
    other = study(tmp_path / "result.json", split="cd" * 32)
    with pytest.raises(InputError, match="another network"):
        release_network(checkpoint, "tiny", tmp_path / "out", result=other)
    with pytest.raises(InputError, match="of a coarse network alone"):
        release_network(refiner, "tiny", tmp_path / "out", result=study(tmp_path / "own.json"))
    for content in ("{}", "[]", "{", '{"networks": []}'):
        other.write_text(content)
        with pytest.raises(InputError, match="network-masks"):
            release_network(checkpoint, "tiny", tmp_path / "out", result=other)
    assert not (tmp_path / "out").exists()


def test_unknown_data_have_no_release(checkpoint: Path, tmp_path: Path) -> None:
    checkpoint.write_bytes(encode_checkpoint(build_coarse(NETWORK), CARD | {"datasets": ["mine"]}))
    with pytest.raises(ConfigError, match="'mine'"):
        release_network(checkpoint, "tiny", tmp_path / "out")
    with pytest.raises(WeightsError, match="no checkpoint"):
        release_network(tmp_path / "none", "tiny", tmp_path / "out")


def test_a_refiner_says_what_it_changes_and_what_it_measured(
    refiner: Path, scored: Path, phantoms: Path, tmp_path: Path
) -> None:
    release = release_network(refiner.parent, "both", tmp_path / "out", result=scored)
    assert release.weights.read_bytes() == refiner.read_bytes()
    card = release.card.read_text(encoding="utf-8")
    decoder = load_refiner(refiner).foundation.mask_decoder
    num = sum(value.numel() for value in decoder.parameters())
    for words in (
        "`smp-unet`, 64 px, trained from scratch",
        f"from <{LITE_MEDSAM_WEIGHTS.source}>, {LITE_MEDSAM_WEIGHTS.licence}",
        f"| changed | decoder, {num / 1e6:.1f} of 9.8 million weights",
        "phase 1: 18 epochs; 2: 12 epochs; 3: 6 epochs",
        '`localizer.dominant_only: true`, `prompts.jitter: 0.0`, `selection.kind: "single"`, '
        '`gate.kind: "none"`, else the defaults',
        "0.810 before phase 3 and 0.870 after epoch 4",
        "| revision | `0123abcd` |",
        "| computed in | float32 |",
        NOTICES["phantom"].limits,
        "of another convention, it may do harm",
        "2 images of 2 patients that it has not seen",
        f"manifest `{file_sha256(phantoms)[:12]}`",
        "| | coarse | refined | difference |",
    ):
        assert words in card, words
    assert "Cite:" not in card
    measured = json.loads(scored.read_text(encoding="utf-8"))
    gain = measured["paired"]["differences"]["dsc"]
    cells = [
        f"{part['mean']:.3f} [{part['low']:.3f}, {part['high']:.3f}]"
        for part in (measured["baseline"]["dsc"], measured["summary"]["dsc"])
    ]
    cells.append(f"{gain['mean']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]")
    assert f"| DSC | {' | '.join(cells)} |" in card


def test_a_refiner_of_weights_of_unknown_licence(refiner: Path) -> None:
    loaded = load_refiner(refiner)
    loaded.foundation.weights_sha256 = "0" * 64
    with pytest.raises(ConfigError, match="whose licence is known: lite-medsam"):
        model_card("both", refiner, loaded, None)


def test_scores_must_be_of_its_own_masks(
    checkpoint: Path, refiner: Path, scored: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"another network.*coarse\.safetensors"):
        release_network(checkpoint, "tiny", tmp_path / "out", result=scored)
    alone = copy_of(scored, tmp_path / "alone")
    alone.with_name("run.json").unlink()
    with pytest.raises(InputError, match="unknown which network made the masks"):
        release_network(refiner, "both", tmp_path / "out", result=alone)
    without = copy_of(scored, tmp_path / "without")
    content = json.loads(scored.read_text(encoding="utf-8"))
    without.write_text(json.dumps(content | {"baseline": None, "paired": None}))
    with pytest.raises(InputError, match=r"eval\.json with a baseline, found no"):
        release_network(refiner, "both", tmp_path / "out", result=without)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("bond", ["the image itself", "its patient"])
def test_scores_of_what_it_has_seen_prove_nothing(
    bond: str, refiner: Path, scored: Path, phantoms: Path, tmp_path: Path
) -> None:
    """A twin of the network says in its card that it knows one of the images, or its patient."""
    seen = read_manifest(phantoms)[1]
    digests = card_digests([seen])
    key = "image_digests" if bond == "the image itself" else "patient_digests"
    found = load_refiner(refiner)
    twin = tmp_path / "twin.safetensors"
    content = encode_refiner(
        found.network,
        build_pipeline(found.foundation, found.config),
        foundation="lite-medsam",
        config=found.config,
        card=REFINER_CARD | {key: digests[key]},
    )
    twin.write_bytes(content)
    result = copy_of(scored, tmp_path / "run")
    run = json.loads(result.with_name("run.json").read_text(encoding="utf-8"))
    result.with_name("run.json").write_text(json.dumps(run | {"checkpoints": [str(twin)]}))
    with pytest.raises(LeakError, match=rf"1 of 2 seen, such as {seen.image.name} \({bond}\)"):
        release_network(twin, "both", tmp_path / "out", result=result)


@pytest.mark.parametrize(("name", "max_bytes"), [("nano", 12e6), ("busbra-lite", 24e6)])
def test_what_comes_with_the_package(name: str, max_bytes: float) -> None:
    """Small enough, intact, with its card, and held out where it says; it knows its patients."""
    path = PRETRAINED[name].verify()
    assert path.stat().st_size <= max_bytes
    story = load_refiner(name).card
    assert len(story["patient_digests"]) == story["num_patients"]
    card = path.with_suffix(".md").read_text(encoding="utf-8")
    assert PRETRAINED[name].sha256 in card
    assert story["split_sha256"][:12] in card
    assert "not a medical device" in card
    for dataset in story["datasets"]:
        assert NOTICES[dataset].licence in card
        assert NOTICES[dataset].citation in card
    assert "## Measured" in card


def test_the_card_of_a_calibrated_network_says_what_is_promised(tmp_path: Path) -> None:
    """Of a coarse network alone: nothing of the foundation model was trained."""
    plain, calibrated = tmp_path / "plain.safetensors", tmp_path / "calibrated.safetensors"
    pipeline = training_pipeline(FOUNDATION_MODELS["lite-medsam"](), trainable_refiner())
    plain.write_bytes(
        encode_refiner(
            build_coarse(NETWORK).eval(),
            pipeline,
            foundation="lite-medsam",
            config=trainable_refiner(),
            card=CARD,
        )
    )
    rule = AcceptanceRule(
        weights=dict.fromkeys(SIGNS, 1.0),
        threshold=-1.0,
        alpha=0.05,
        delta=0.02,
        eta=0.05,
        method="learn-then-test",
        source="network",
        scores=(-1.0,),
        binding=load_refiner(plain).binding,
        num_images=1,
        num_patients=1,
    )
    card = CARD | {"calibration": {"statement": "With confidence 0.95, few are made worse."}}
    calibrated.write_bytes(add_rule(plain, rule, card=card))
    page = release_network(calibrated, "sure", tmp_path / "out").card.read_text(encoding="utf-8")
    assert "| acceptance rule | With confidence 0.95, few are made worse. |" in page
    assert "| changed | nothing |" in page
