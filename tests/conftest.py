"""Fixtures that several test folders share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def busbra() -> Path:
    """Folder of the BUS-BRA data set; the test is skipped where it is absent."""
    default = _REPOSITORY.parent / "shared" / "data"
    folder = Path(os.environ.get("ULTRAREFINER_DATA", default)) / "BUSBRA"
    if not folder.is_dir():
        pytest.skip(f"BUS-BRA not found at {folder}; set ULTRAREFINER_DATA to the folder above it")
    return folder
