"""A release: the same weights, a card that says what it must, and no card without a licence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ultrarefiner.coarse import CoarseConfig, build_coarse, encode_checkpoint, load_checkpoint
from ultrarefiner.coarse.pretrained import PRETRAINED
from ultrarefiner.data.sources.notices import NOTICES
from ultrarefiner.errors import ConfigError, InputError
from ultrarefiner.training.release import release_network
from ultrarefiner.weights import file_sha256

CARD: dict[str, Any] = {
    "command": "ultrarefiner train recipe.yaml",
    "datasets": ["BUS-BRA"],
    "held_out_fold": "3",
    "image_digests": ["0" * 16],
    "minutes": 1.5,
    "num_held_out": 4,
    "num_patients": 7,
    "num_train": 9,
    "num_val": 2,
    "split_sha256": "ab" * 32,
    "versions": {"torch": "2"},
}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    network = build_coarse(
        CoarseConfig(side=64, encoder_weights="none", decoder_channels=(16, 8, 8, 8, 8))
    )
    path = tmp_path / "coarse.safetensors"
    path.write_bytes(encode_checkpoint(network, CARD))
    return path


def result(path: Path, split: str = CARD["split_sha256"]) -> Path:
    def summary(dsc: float) -> dict[str, Any]:
        estimate = {"mean": dsc, "low": dsc - 0.01, "high": dsc + 0.01, "median": dsc}
        return {"dsc": estimate, "iou": estimate, "hd95": estimate, "counts": {"missed": 2}}

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
    scores = result(tmp_path / "result.json")
    release = release_network(checkpoint, "tiny", tmp_path / "out", result=scores)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["tiny.md", "tiny.safetensors"]
    assert release.sha256 == file_sha256(release.weights)
    before, after = load_checkpoint(checkpoint), load_checkpoint(release.weights)
    assert dict(after.card) == CARD
    for key, value in before.network.state_dict().items():
        assert torch.equal(value, after.network.state_dict()[key])
    card = release.card.read_text(encoding="utf-8")
    notice = NOTICES["BUS-BRA"]
    for words in (
        "not a medical device",
        notice.licence,
        notice.citation,
        release.sha256,
        "9 images; checkpoint chosen on 2 more; 7 patients",
        "fold 3, 4 images",
        "| DSC | 0.800 [0.790, 0.810] | 0.900 [0.890, 0.910] |",
        "| missed | 2 | 2 |",
    ):
        assert words in card, words


def test_a_result_of_another_network(checkpoint: Path, tmp_path: Path) -> None:
    other = result(tmp_path / "result.json", split="cd" * 32)
    with pytest.raises(InputError, match="another network"):
        release_network(checkpoint, "tiny", tmp_path / "out", result=other)
    other.write_text("{}")
    with pytest.raises(InputError, match="network-masks"):
        release_network(checkpoint, "tiny", tmp_path / "out", result=other)
    assert not (tmp_path / "out").exists()


def test_unknown_data_have_no_release(checkpoint: Path, tmp_path: Path) -> None:
    network = load_checkpoint(checkpoint).network
    checkpoint.write_bytes(encode_checkpoint(network, CARD | {"datasets": ["mine"]}))
    with pytest.raises(ConfigError, match="'mine'"):
        release_network(checkpoint, "tiny", tmp_path / "out")


@pytest.mark.parametrize("name", list(PRETRAINED))
def test_what_comes_with_the_package(name: str) -> None:
    """Small enough, intact, with its card, and held out where it says."""
    path = PRETRAINED[name].verify()
    assert path.stat().st_size <= 14_000_000
    story = load_checkpoint(name).card
    card = path.with_suffix(".md").read_text(encoding="utf-8")
    assert PRETRAINED[name].sha256 in card
    assert story["split_sha256"][:12] in card
    assert "not a medical device" in card
    assert all(NOTICES[dataset].citation in card for dataset in story["datasets"])
    assert "## Measured" in card
