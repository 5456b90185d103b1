"""Two processes that train the gate of one pipeline: the same gradients as one process alone."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from models import LesionFinder
from scenes import scene_of
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ultrarefiner.refine.assembly import RefinerConfig, build_pipeline
from ultrarefiner.refine.gates import GateConfig
from ultrarefiner.refine.pipeline import RefinementPipeline
from ultrarefiner.refine.prompts import PromptConfig
from ultrarefiner.refine.scene import Scene
from ultrarefiner.refine.stabilization import StabilizerConfig

_SIDE = 64


def _pipeline() -> RefinementPipeline:
    """A pipeline in training: everything frozen but the gate."""
    config = RefinerConfig(
        prompts=PromptConfig(foreground="interior", background="ring", mask="gaussian"),
        gate=GateConfig(kind="hybrid", minimum=0.0, maximum=1.0),
        stabilizer=StabilizerConfig(enabled=False),
    )
    return build_pipeline(LesionFinder(_SIDE, _SIDE), config)


def _scene(rank: int) -> Scene:
    centres = torch.arange(_SIDE) + 0.5
    distance = ((centres - 30 - 4 * rank) ** 2 + (centres[:, None] - 34) ** 2).sqrt()
    image = 0.2 + 0.6 * torch.sigmoid((distance - 12) / 2)
    return scene_of(torch.sigmoid((9 - distance) / 3)[None, None], image)


def _loss(module: nn.Module, rank: int) -> Tensor:
    probs: Tensor = module(_scene(rank)).probs
    return ((probs - _scene(rank).images.lt(0.5).float()) ** 2).sum()


def _gradients(module: nn.Module) -> list[Tensor]:
    return [p.grad.clone() for p in module.parameters() if p.grad is not None]


def _train(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    parallel = DistributedDataParallel(_pipeline())
    _loss(parallel, rank).backward()
    torch.save(_gradients(parallel), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_share_their_gradients(tmp_path: Path) -> None:
    mp.get_context("forkserver").set_forkserver_preload(["ultrarefiner.refine.assembly"])
    mp.start_processes(_train, args=(str(tmp_path),), nprocs=2, start_method="forkserver")
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    alone = _pipeline()
    (sum(_loss(alone, rank) for rank in (0, 1)) / 2).backward()
    expected = _gradients(alone)
    assert len(expected) == len(list(alone.gate.parameters())) > 0
    for one, other, both in zip(first, second, expected, strict=True):
        assert torch.equal(one, other)
        assert both.any()
        torch.testing.assert_close(one, both, rtol=1e-4, atol=1e-6)
