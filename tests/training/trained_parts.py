"""LiteMedSAM, a small coarse network and a batch of phantoms, for the modules of phases 2 and 3."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from ultrarefiner.data.manifest import read_manifest
from ultrarefiner.training.refinement_data import Collate, Mixture, RefinementDataset

SIDE = 256


def phantom_batch(manifest: Path, num: int = 2, *, given_share: float = 1.0) -> Any:
    """Return phantoms with corrupted masks; their embeddings are noise of the right scale."""
    records = read_manifest(manifest)[:num]
    mixture = Mixture(given_share=given_share, real_share=0.0)
    items = RefinementDataset(
        records, mixture, SIDE, out_of_fold=None, digests=None, network_frame=(SIDE, 1), seed=5
    )
    batch = Collate(None)([items[0, index] for index in range(num)])
    noise = torch.randn(num, 256, 64, 64, generator=torch.Generator().manual_seed(0))
    batch["embeddings"] = noise.bfloat16()
    return batch


class Logged:
    """What a module logs, instead of a trainer that listens."""

    def __init__(self, module: pl.LightningModule) -> None:
        self.values: dict[str, Tensor] = {}
        module.log = self._log  # type: ignore[method-assign, assignment]
        module.log_dict = self._log_all  # type: ignore[method-assign, assignment]

    def _log(self, name: str, value: Tensor, **_: Any) -> None:
        self.values[name] = value

    def _log_all(self, values: dict[str, Tensor], **_: Any) -> None:
        self.values |= values


def copy_state(module: nn.Module) -> dict[str, Tensor]:
    """Return a copy of parameters and buffers."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def changed(module: nn.Module, before: dict[str, Tensor]) -> set[str]:
    """Return the names of what is no longer bit-equal."""
    return {
        name for name, value in module.state_dict().items() if not torch.equal(value, before[name])
    }
