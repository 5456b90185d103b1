"""What cannot be compared is refused when an experiment is described."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from ultrarefiner.errors import ConfigError
from ultrarefiner.experiments.ablation import AblationExperiment
from ultrarefiner.experiments.network_masks import NetworkMaskExperiment
from ultrarefiner.experiments.rough_masks import RoughMaskExperiment
from ultrarefiner.experiments.sources import RoughMasks
from ultrarefiner.refine.assembly import RefinerConfig

EXPERIMENTS: dict[str, Callable[[Mapping[str, RefinerConfig]], object]] = {
    "rough": lambda variants: RoughMaskExperiment(folds=("1",), variants=dict(variants)),
    "network": lambda variants: NetworkMaskExperiment(
        checkpoints=(Path("network.safetensors"),), folds=("1",), variants=dict(variants)
    ),
    "ablation": lambda variants: AblationExperiment(
        folds=("1",), sources={"rough": RoughMasks()}, groups={"opinions": dict(variants)}
    ),
}


@pytest.mark.parametrize("name", list(EXPERIMENTS))
def test_maps_of_a_source_have_no_second_opinion(name: str) -> None:
    variants = {"plain": RefinerConfig(), "two views": RefinerConfig(second_opinion=0.5)}
    with pytest.raises(ConfigError, match=r"second_opinion of variant 'two views': expected none"):
        EXPERIMENTS[name](variants)
    assert EXPERIMENTS[name]({"plain": RefinerConfig()})
