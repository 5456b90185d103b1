"""The log as a table and as TensorBoard's events, against bytes that TensorBoard wrote."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from ultrarefiner.training.engine import curves
from ultrarefiner.training.engine.curves import EVENTS, Curves

ROWS = [
    {"epoch": 0, "step": 3, "train_loss": 0.5, "val_dsc": 0.25},
    {"epoch": 1, "step": 300, "train_loss": 0.1, "val_dsc": 0.75, "late": -1.0},
]


# What tensorboard 2.21 writes for these rows at the time 1.5.
BY_TENSORBOARD = bytes.fromhex(
    "1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c"
    "200000000000000029eda95009000000000000f83f10032a130a110a0a747261696e5f6c6f737315"
    "0000003f18f565111d00000000000000602fdf2309000000000000f83f10032a100a0e0a0776616c"
    "5f647363150000803e5f7180fb1b000000000000001a0d9e1309000000000000f83f10ac022a0d0a"
    "0b0a046c61746515000080bf3e62dc8e2100000000000000017becf609000000000000f83f10ac02"
    "2a130a110a0a747261696e5f6c6f737315cdcccc3d6db355c91e00000000000000d9dc1232090000"
    "00000000f83f10ac022a100a0e0a0776616c5f647363150000403f521d159d"
)


def read_table(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_table_holds_every_row_once_and_exactly(tmp_path: Path) -> None:
    log = Curves(tmp_path)
    for num in range(3):
        log.write(ROWS[:num])
    Curves(tmp_path).write(ROWS)  # a resumed run
    table = read_table(tmp_path)
    assert list(table[0]) == ["epoch", "step", "late", "train_loss", "val_dsc"]
    assert [(row["epoch"], row["late"]) for row in table] == [("0", ""), ("1", "-1.0")]
    assert [float(row["train_loss"]) for row in table] == [0.5, 0.1]


def test_events_are_those_of_tensorboard_appended_or_written_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curves, "time", lambda: 1.5)
    log = Curves(tmp_path / "slowly")
    for num in range(3):
        log.write(ROWS[:num])
    Curves(tmp_path / "at once").write(ROWS)
    for name in ("slowly", "at once"):
        assert (tmp_path / name / EVENTS).read_bytes() == BY_TENSORBOARD
