"""A checkpoint that cannot be written: the old one stays, and the error says what to do."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch

from ultrarefiner.errors import OutputError
from ultrarefiner.training.engine.checkpoints import load_state, save_state


def test_where_there_is_no_room_the_old_one_stays(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    save_state(path, {"epoch": 1})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"cannot write .*last\.ckpt.*disk is full.*--resume"):
            save_state(path, {"epoch": 2, "weights": torch.zeros(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert load_state(path) == {"epoch": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]
