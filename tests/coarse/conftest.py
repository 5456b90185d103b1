"""Small untrained networks, and phantoms for the trained one."""

from __future__ import annotations

import pytest
import torch

from ultrarefiner.coarse import CoarseConfig, CoarseNetwork, build_coarse


@pytest.fixture(scope="session")
def small_config() -> CoarseConfig:
    return CoarseConfig(side=64, encoder_weights="none", decoder_channels=(32, 16, 16, 8, 8))


@pytest.fixture(scope="session")
def small(small_config: CoarseConfig) -> CoarseNetwork:
    """Untrained, not to be changed."""
    torch.manual_seed(0)
    return build_coarse(small_config).eval()
