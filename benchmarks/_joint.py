"""What the benchmarks of phases 2 and 3 share: networks of the paper's size, steps, memory.

No weights are downloaded: they are drawn at random, which costs as much. The encoder of SAM ViT-B
is that of ``transformers`` (Apache-2.0), the parts of TransUNet are those of ``timm``.
"""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytorch_lightning as pl
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ultrarefiner.coarse import CoarseConfig, CoarseNetwork
from ultrarefiner.data.manifest import Record, read_manifest
from ultrarefiner.data.phantom import PhantomConfig, write_phantoms
from ultrarefiner.foundation import Decoded, FoundationModel, Prompts
from ultrarefiner.foundation.sam_decoder import MaskDecoder
from ultrarefiner.foundation.sam_prompts import PromptEncoder
from ultrarefiner.ops.intensity import stretch_content
from ultrarefiner.precision import autocast
from ultrarefiner.training.refinement_data import RefinementBatch, scene_of

GIGABYTE = 1e9
SAM_INPUT, SAM_MASK, SAM_EMBEDDING = 1024, 256, 64
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MAX_GRAD_NORM = 1.0


def sam_encoder() -> nn.Module:
    """Return the image encoder of SAM ViT-B with random weights."""
    try:
        from transformers import SamVisionConfig
        from transformers.models.sam.modeling_sam import SamVisionEncoder
    except ImportError as cause:
        message = "transformers is missing: python -m pip install -r benchmarks/requirements.txt"
        raise SystemExit(message) from cause
    config = SamVisionConfig(initializer_range=0.02, attn_implementation="sdpa")
    encoder: nn.Module = SamVisionEncoder(config)
    for name, parameter in encoder.named_parameters():
        if "pos" in name:  # zeros as built, which a trained model's are not
            nn.init.normal_(parameter, std=0.02)
    return encoder


class SamViTB(FoundationModel):
    """SAM ViT-B: the encoder of ``transformers`` before our prompt encoder and mask decoder.

    Args:
        exact: encode in float32 under autocast, too.
    """

    input_size, mask_size = SAM_INPUT, SAM_MASK
    multimask_trained = True
    mean: Tensor
    std: Tensor

    def __init__(self, *, exact: bool = False):
        super().__init__()
        self.exact = exact
        self.image_encoder = sam_encoder()
        self.prompt_encoder = PromptEncoder(256, SAM_EMBEDDING, SAM_INPUT)
        positions = self.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix
        positions.normal_()
        self.mask_decoder = MaskDecoder(256)
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(values)[:, None, None])
        self.eval()

    def normalise(self, images: Tensor, valid: Tensor) -> Tensor:
        scaled = (stretch_content(images, valid) - self.mean) / self.std
        return torch.where(valid, scaled, 0)

    def encode(self, images: Tensor) -> Tensor:
        with autocast(images.device, enabled=False) if self.exact else nullcontext():
            return self.image_encoder(images).last_hidden_state

    def decode(
        self, embeddings: Tensor, prompts: Prompts, *, multimask_output: bool = False
    ) -> Decoded:
        if prompts.image_index is not None:
            embeddings = embeddings[prompts.image_index]
        image_pe = self.prompt_encoder.pe_layer.grid(SAM_EMBEDDING)
        encoded = self.prompt_encoder(prompts)
        return self.mask_decoder(embeddings, image_pe, encoded, multimask_output=multimask_output)


class TransUNet(CoarseNetwork):
    """TransUNet, R50-ViT-B/16: timm's hybrid, and the published decoder; 105 million parameters.

    Paper: Chen et al., "TransUNet", 2021. The stem is a ResNetV2-50 with group norms down to
    14 x 14, whose stages the decoder sees again; then come 12 layers of ViT-B.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, side: int = 224):
        super().__init__(CoarseConfig(name="transunet", side=side, encoder_weights="none"))
        self.trunk = timm.create_model(
            "vit_base_r50_s16_224", img_size=side, num_classes=0, class_token=False, global_pool=""
        )
        self.bridge = two_convolutions(768, 512, num=1)
        widths = [(512 + 512, 256), (256 + 256, 128), (128 + 64, 64), (64, 16)]
        self.blocks = nn.ModuleList(two_convolutions(*pair) for pair in widths)
        self.head = nn.Conv2d(16, 1, 3, padding=1)
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)
        with torch.no_grad():  # a flat map: noise would be another one in each precision
            self.head.weight *= 0.01
            self.head.bias.zero_()

    def forward(self, images: Tensor) -> Tensor:
        stem = self.trunk.patch_embed.backbone
        x = stem.stem.norm(stem.stem.conv((images - self.mean) / self.std))
        skips = [x]
        x = stem.stem.pool(x)
        for stage in stem.stages:
            x = stage(x)
            skips.append(x)
        x = self.trunk.patch_embed.proj(skips.pop())
        hw = x.shape[-2:]
        x = self.trunk.pos_drop(x.flatten(2).transpose(1, 2) + self.trunk.pos_embed)
        x = self.trunk.norm(self.trunk.blocks(x))
        x = self.bridge(x.transpose(1, 2).unflatten(2, hw))
        for block in self.blocks:
            x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)
            x = block(torch.cat([x, skips.pop()], dim=1) if skips else x)
        return self.head(x)


def two_convolutions(c_in: int, c_out: int, *, num: int = 2) -> nn.Sequential:
    """Return 3 x 3 convolutions with batch norm and ReLU."""
    layers: list[nn.Module] = []
    for _ in range(num):
        layers += [nn.Conv2d(c_in, c_out, 3, padding=1, bias=False), nn.BatchNorm2d(c_out)]
        layers += [nn.ReLU(inplace=True)]
        c_in = c_out
    return nn.Sequential(*layers)


class Step:
    """A training step as Lightning does it: loss, backward, clipping, optimizer.

    Args:
        module: to be trained, with the optimizer that it asks for.
        batch: what every step learns from.
        bf16: under autocast, where the processor is made for it.
    """

    def __init__(self, module: pl.LightningModule, batch: RefinementBatch, *, bf16: bool):
        self.module, self.batch, self.bf16 = module, batch, bf16
        module.trainer = SimpleNamespace(estimated_stepping_batches=1000)
        self.optimizer = module.configure_optimizers()["optimizer"]
        module.trainer = None  # so that nothing is logged, of which Lightning warns
        warnings.filterwarnings("ignore", message="You are trying to `self.log")
        module.train()
        module.on_train_epoch_start()

    def precision(self) -> AbstractContextManager[None]:
        return autocast(torch.device("cpu"), enabled=None if self.bf16 else False)

    def loss(self) -> Tensor:
        with self.precision():
            return self.module.training_step(self.batch, 0)

    def __call__(self) -> None:
        self.optimizer.zero_grad()
        self.loss().backward()
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), MAX_GRAD_NORM)
        self.optimizer.step()

    @torch.no_grad()
    def logits(self) -> Tensor:
        """Return the decoder's answers to the given masks."""
        with self.precision():
            scene = scene_of(self.batch, self.batch["prompt"])
            return self.module.pipeline(scene).proposals.logits.float()


def relative_difference(found: Tensor, expected: Tensor) -> float:
    """Return the root mean square of the difference, relative to the spread of what is expected."""
    return float((found - expected).square().mean().sqrt() / expected.std())


def draw_records(num: int, folder: Path, side_px: int | None = None) -> Sequence[Record]:
    """Write phantoms, of any sizes or squares of one."""
    sizes = {} if side_px is None else dict.fromkeys(("height_px", "width_px"), (side_px,) * 2)
    config = PhantomConfig(**sizes)
    return read_manifest(write_phantoms(num, 0, folder, rough=False, config=config))


def peak_gigabytes() -> float:
    """Return the most memory that this process has held; of Linux (``ru_maxrss`` is inherited)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    peak = dict(line.split(":", 1) for line in lines)["VmHWM"]
    return int(peak.split()[0]) * 1024 / GIGABYTE


def peaks_of(script: str, sides: Sequence[str], *options: str) -> Mapping[str, tuple[float, float]]:
    """Run ``script --alone SIDE`` in a process for each side, whose last line says what it held.

    Returns:
        Side to gigabytes: before its weights, and at the most.
    """
    found = {}
    for side in sides:
        command = [sys.executable, script, "--alone", side, *options]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        before, peak = map(float, done.stdout.splitlines()[-1].split())
        found[side] = before, peak
    return found
