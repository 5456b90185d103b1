"""Small untrained networks, and phantoms for the trained one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from ultrarefiner.coarse import CoarseConfig, CoarseNetwork, build_coarse


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads that wait for each other are slow where tests already run side by side."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def small_config() -> CoarseConfig:
    return CoarseConfig(side=64, encoder_weights="none", decoder_channels=(32, 16, 16, 8, 8))


@pytest.fixture(scope="session")
def small(small_config: CoarseConfig) -> CoarseNetwork:
    """Untrained, not to be changed."""
    torch.manual_seed(0)
    return build_coarse(small_config).eval()
