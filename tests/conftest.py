"""Fixtures that several test folders share."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

_REPOSITORY = Path(__file__).resolve().parents[1]
_LONGEST_FIRST = (
    "training/test_fan_out.py",
    "training/test_nano.py",
    "training/test_run.py",
    "training",
    "cli",
)
"""Files and folders of the longest tests: what is left to the end should be short."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest, so that processes that share the files end at the same time."""
    places = [_REPOSITORY / "tests" / name for name in _LONGEST_FIRST]
    assert all(path.exists() for path in places), "renamed?"

    def place(item: pytest.Item) -> int:
        around = {item.path, *item.path.parents}
        return next((i for i, path in enumerate(places) if path in around), len(places))

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """Leave what was imported out of garbage collections: they took a tenth of the short tests."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Let the interpreter free at its end what was left out."""
    gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Beside other test workers, two threads of one model wait for each other: 3 times the CPU."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def busbra() -> Path:
    """Folder of the BUS-BRA data set; the test is skipped where it is absent."""
    default = _REPOSITORY.parent / "shared" / "data"
    folder = Path(os.environ.get("ULTRAREFINER_DATA", default)) / "BUSBRA"
    if not folder.is_dir():
        pytest.skip(f"BUS-BRA not found at {folder}; set ULTRAREFINER_DATA to the folder above it")
    return folder
