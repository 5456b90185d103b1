"""A module that trains in milliseconds; run as a script, on one process or on several.

``python tiny_fit.py FOLDER [NUM_PROCESSES]`` leaves what ``fit`` leaves in the folder.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ultrarefiner.training.engine import hardware
from ultrarefiner.training.engine.fitting import Fitted, fit
from ultrarefiner.training.engine.hardware import Hardware
from ultrarefiner.training.engine.loaders import training_loader, validation_loader
from ultrarefiner.training.engine.schedules import seed_epoch
from ultrarefiner.training.recipe import Phase1Config

SCHEDULE = Phase1Config(epochs=4, batch_size=4, learning_rate=3e-2)
CPU = Hardware(device="cpu")


class StopError(RuntimeError):
    """What a module raises that was told to stop."""


class TinyItems(Dataset[dict[str, Any]]):
    """Noise, and whether it is brighter than the mean; varied by epoch."""

    def __init__(self, num_items: int, *, bad: tuple[int, int] | None = None) -> None:
        self.num_items, self.bad = num_items, bad

    def __len__(self) -> int:
        return self.num_items

    def __getitem__(self, item: int | tuple[int, int]) -> dict[str, Any]:
        epoch, index = (0, item) if isinstance(item, int) else item
        generator = torch.Generator().manual_seed(1000 * epoch + index)
        image = torch.randn(1, 8, 8, generator=generator)
        target = (image > 0).float()
        if self.bad == (epoch, index):
            image[0, 3, 3] = torch.nan
        return {"image": image, "target": target, "names": f"{index}.png"}


class TinyData(pl.LightningDataModule):
    """Ten images to learn from (two batches of four) and three to choose on."""

    def __init__(self, *, bad: tuple[int, int] | None = None, num_workers: int = 0) -> None:
        super().__init__()
        self.train, self.num_workers = TinyItems(10, bad=bad), num_workers

    def train_dataloader(self) -> DataLoader[Any]:
        return training_loader(
            self.train, batch_size=4, seed=5, trainer=self.trainer, num_workers=self.num_workers
        )

    def val_dataloader(self) -> DataLoader[Any]:
        return validation_loader(TinyItems(3), batch_size=2)


class TinyModule(pl.LightningModule):
    """Two convolutions with whatever normalisation, dropout, and a head that no loss needs."""

    def __init__(self, *norm: nn.Module, spare: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), *norm, nn.Conv2d(4, 1, 1))
        self.head = nn.Linear(4, 1) if spare else None
        self.num_steps = 0
        self.stop_after = -1

    def on_train_epoch_start(self) -> None:
        seed_epoch(0, self.current_epoch)

    def training_step(self, batch: Mapping[str, Any], index: int) -> Tensor:
        if self.num_steps == self.stop_after:
            raise StopError("told to stop")
        self.num_steps += 1
        loss = nn.functional.binary_cross_entropy_with_logits(
            self.body(batch["image"]), batch["target"]
        )
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(batch["image"]))
        return loss

    def validation_step(self, batch: Mapping[str, Any], index: int) -> None:
        right = ((self.body(batch["image"]) > 0) == (batch["target"] > 0)).float().mean()
        self.log("val_dsc", right, on_epoch=True, batch_size=len(batch["image"]))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(
            [value for value in self.parameters() if value.requires_grad], lr=3e-2
        )
        num_steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-2, total_steps=num_steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint."""
    content: dict[str, Any] = torch.load(path, weights_only=True)
    return content


def with_statistics() -> TinyModule:
    """Return the module whose state is hardest to keep: running statistics and random masks."""
    return TinyModule(nn.BatchNorm2d(4), nn.Dropout(0.3))


def fit_tiny(module: pl.LightningModule, folder: Path, **options: Any) -> Fitted:
    """Train it on the CPU."""
    chosen = {"schedule": SCHEDULE, "plan": {"a": 1}, "hardware": CPU, "data": TinyData()} | options
    return fit(module, chosen.pop("data"), folder, **chosen)


def train_rank(
    folder: Path, rank: int, num_ranks: int, port: int, stop_after: int | None = None
) -> None:
    """Train as one of several processes of torchrun, or alone; resume if there is something."""
    torch.set_num_threads(1)
    hardware.bf16_is_fast = lambda _: False  # type: ignore[assignment]
    if num_ranks > 1:
        os.environ |= {
            "TORCHELASTIC_RUN_ID": "test",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "GLOO_SOCKET_IFNAME": "lo",
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(num_ranks),
            "LOCAL_WORLD_SIZE": str(num_ranks),
        }
    module = TinyModule(nn.GroupNorm(2, 4), spare=True)
    resume = (folder / "checkpoints" / "plan.json").is_file()
    if stop_after is None:
        fit_tiny(module, folder, resume=resume)
        return
    with suppress(StopError):
        module.stop_after = stop_after
        fit_tiny(module, folder, resume=resume)


if __name__ == "__main__":
    torch.set_num_threads(1)
    hardware.bf16_is_fast = lambda _: False  # type: ignore[assignment]
    fit_tiny(
        TinyModule(nn.GroupNorm(2, 4), spare=True),
        Path(sys.argv[1]),
        hardware=Hardware(device="cpu", num_devices=int(sys.argv[2]) if sys.argv[2:] else 1),
    )
