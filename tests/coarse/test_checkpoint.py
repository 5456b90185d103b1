"""Checkpoints: the same network comes back, and nothing else is taken for one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ultrarefiner.coarse import CoarseNetwork, encode_checkpoint, load_checkpoint
from ultrarefiner.errors import WeightsError

CARD = {"held_out_fold": "3", "num_patients": 2}


@pytest.mark.parametrize("half", [True, False])
def test_round_trip(small: CoarseNetwork, tmp_path: Path, half: bool) -> None:
    path = tmp_path / "coarse.safetensors"
    path.write_bytes(encode_checkpoint(small, CARD, half=half))
    checkpoint = load_checkpoint(tmp_path)
    assert dict(checkpoint.card) == CARD
    assert not checkpoint.network.training
    state, found = small.state_dict(), checkpoint.network.state_dict()
    assert state.keys() == found.keys()
    for key, value in found.items():
        is_exact = not half or value.ndim < 2
        torch.testing.assert_close(
            value, state[key], rtol=0 if is_exact else 2**-8, atol=0, check_dtype=False
        )
    images = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(
            checkpoint.network(images), small(images), rtol=0, atol=0.1 if half else 0
        )


def test_half_is_half_the_size(small: CoarseNetwork) -> None:
    whole, half = (len(encode_checkpoint(small, {}, half=half)) for half in (False, True))
    assert half < 0.55 * whole


def test_same_network_same_bytes(small: CoarseNetwork) -> None:
    assert encode_checkpoint(small, CARD) == encode_checkpoint(small, dict(reversed(CARD.items())))


def test_a_changed_weight_changes_the_bytes(small: CoarseNetwork) -> None:
    before = encode_checkpoint(small, CARD, half=False)
    with torch.no_grad():
        bias = small.unet.segmentation_head[0].bias  # type: ignore[union-attr,index]
        bias += 1
        after = encode_checkpoint(small, CARD, half=False)
        bias -= 1
    assert before != after


def test_what_is_no_checkpoint_is_refused(small: CoarseNetwork, tmp_path: Path) -> None:
    good = encode_checkpoint(small, CARD)
    for name, content in {"empty": b"", "text": b"hello", "cut": good[: len(good) // 2]}.items():
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=f"cannot read checkpoint .*{name}"):
            load_checkpoint(path)
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="other tensors"):
        load_checkpoint(tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b'"coarse-1"', b'"coarse-9"', "format 'coarse-9'"),
        (b'"smp-unet"', b'"smp-unit"', "unknown coarse network"),
        (b'"side"', b'"sode"', "unknown settings sode"),
    ],
)
def test_headers_of_other_versions(
    small: CoarseNetwork, tmp_path: Path, old: bytes, new: bytes, words: str
) -> None:
    content = encode_checkpoint(small, CARD)
    escaped_old, escaped_new = (word.replace(b'"', b'\\"') for word in (old, new))
    assert content.count(escaped_old) == 1
    path = tmp_path / "a.safetensors"
    path.write_bytes(content.replace(escaped_old, escaped_new))
    with pytest.raises(WeightsError, match=words):
        load_checkpoint(path)


def test_weights_of_another_network_are_refused(small: CoarseNetwork, tmp_path: Path) -> None:
    content = encode_checkpoint(small, CARD)
    path = tmp_path / "a.safetensors"
    path.write_bytes(content.replace(b"[32, 16, 16, 8, 8]", b"[32, 16, 16, 8, 9]"))
    with pytest.raises(WeightsError, match="fit each other"):
        load_checkpoint(path)


def test_unknown_name() -> None:
    with pytest.raises(WeightsError, match="no checkpoint 'busbra-light'"):
        load_checkpoint("busbra-light")
