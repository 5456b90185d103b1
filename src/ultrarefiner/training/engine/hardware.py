"""Where a training computes: one device, several, or several machines."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities import rank_zero_only

from ultrarefiner.errors import ConfigError
from ultrarefiner.precision import bf16_is_fast, choose_device


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """Where to compute. Nothing in here changes the result beyond rounding.

    Several processes share every batch (Lightning's DDP; gloo on the CPU). Under ``torchrun`` its
    own numbers of processes and machines count.

    Attributes:
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        num_devices: processes on each machine, each with a device of its own.
        num_nodes: machines, on each of which the same command is run.
    """

    device: str = "auto"
    num_devices: int = 1
    num_nodes: int = 1

    def __post_init__(self) -> None:
        for name in ("num_devices", "num_nodes"):
            if getattr(self, name) < 1:
                raise ConfigError(name, expected=">= 1", found=str(getattr(self, name)))
        if ":" in self.device and self.num_devices > 1:
            raise ConfigError(
                "num_devices", expected=f"1 on {self.device}", found=str(self.num_devices)
            )

    def trainer_settings(self) -> dict[str, Any]:
        """Return what a Lightning trainer has to know.

        Raises:
            ConfigError: no such device.
        """
        device = choose_device(self.device)
        num_devices, num_nodes = self._processes()
        settings: dict[str, Any] = {
            "accelerator": device.type,
            "devices": num_devices if device.index is None else [device.index],
            "num_nodes": num_nodes,
            "precision": "bf16-mixed" if bf16_is_fast(device) else "32-true",
            "use_distributed_sampler": False,
        }
        if self.num_processes > 1:
            # Not every output is in every loss: that of the IoU head may be in none.
            settings["strategy"] = DDPStrategy(
                find_unused_parameters=True,
                process_group_backend="nccl" if device.type == "cuda" else "gloo",
            )
        return settings

    @property
    def num_processes(self) -> int:
        """How many train together, on all machines."""
        num_devices, num_nodes = self._processes()
        return num_devices * num_nodes

    def _processes(self) -> tuple[int, int]:
        """Return the processes on this machine and the machines."""
        if not torch.distributed.is_torchelastic_launched():
            return self.num_devices, self.num_nodes
        here, everywhere = (int(os.environ[name]) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
        return here, everywhere // here


def is_first_process() -> bool:
    """Tell whether this process is the one that writes files."""
    return int(getattr(rank_zero_only, "rank", None) or 0) == 0


def wait_for_others() -> None:
    """Return when every process of this training has come here."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
