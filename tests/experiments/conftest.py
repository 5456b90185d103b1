"""Studies run a real model on a few phantoms, again and again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from encoded_once import encoding_once


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Use one thread: beside other test workers, two threads of one model take 3 times the CPU."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", autouse=True)
def _encoding_once() -> Iterator[None]:
    with encoding_once():
        yield
