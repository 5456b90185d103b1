"""Studies run a real model on a few phantoms, again and again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from encoded_once import encoding_once


@pytest.fixture(scope="module", autouse=True)
def _encoding_once() -> Iterator[None]:
    with encoding_once():
        yield
