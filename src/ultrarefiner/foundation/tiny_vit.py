"""TinyViT image encoder of LiteMedSAM: 256x256 image to 64x64x256 embedding.

Paper: Wu et al., "TinyViT: Fast Pretraining Distillation for Small Vision Transformers", ECCV 2022.
Architecture as in LiteMedSAM (Ma et al., Apache-2.0; TinyViT by Microsoft, MIT): no stem stride, no
stride before the last stage. Parameter names are upstream's, so that its weights load unchanged.

What we changed: tensors stay channels-last throughout, so that moving between convolution and
attention costs no copy; attention is fused; batch norms are folded into their convolutions when
frozen; on a CPU the full-resolution first stage runs in strips that need little memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ultrarefiner.shapes import Embeddings, Images

_STRIP_ROWS = 32
"""Rows of the full-resolution stage that a CPU computes at once, over all images of a batch. Larger
hidden tensors are fresh pages from the system each time, and its zeroing of them takes longer than
the arithmetic (measured: 16 to 64 rows are equally good, all 256 take 1.7 x as long)."""


@dataclass(frozen=True, kw_only=True)
class TinyViTConfig:
    """Shape of the encoder; the defaults are LiteMedSAM's.

    Attributes:
        embed_dims: channels of the four stages.
        depths: blocks of the four stages.
        num_heads: attention heads of the four stages (the first has none).
        window_sizes: side of the attention windows of the four stages [tokens].
        out_channels: channels of the embedding.
    """

    embed_dims: tuple[int, int, int, int] = (64, 128, 160, 320)
    depths: tuple[int, int, int, int] = (2, 2, 6, 2)
    num_heads: tuple[int, int, int, int] = (2, 4, 5, 10)
    window_sizes: tuple[int, int, int, int] = (7, 7, 14, 7)
    out_channels: int = 256


class ConvBN(nn.Sequential):
    """Convolution without bias, then batch norm; :meth:`fold` makes one convolution of both."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 1, stride: int = 1, groups: int = 1):
        super().__init__()
        pad = kernel // 2
        self.c = nn.Conv2d(c_in, c_out, kernel, stride, pad, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(c_out)

    def fold(self) -> nn.Conv2d:
        """Return the equivalent convolution with bias (evaluation statistics)."""
        return fuse_conv_bn_eval(self.c, self.bn)


def gelu(x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """GELU of a channels-last tensor.

    It is shown to PyTorch as the contiguous ``B H W C`` that it is: only those get oneDNN's kernel,
    which is several times faster in bfloat16.
    """
    return F.gelu(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class PatchEmbed(nn.Module):
    """Two 1x1 convolutions at full resolution (LiteMedSAM took the strides out)."""

    def __init__(self, c_out: int):
        super().__init__()
        self.seq = nn.Sequential(ConvBN(3, c_out // 2), nn.GELU(), ConvBN(c_out // 2, c_out))

    def forward(self, x: Images) -> Tensor:
        """``B 3 H W -> B C H W``."""
        out: Tensor = self.seq(x)
        return out


class MBConv(nn.Module):
    """Inverted bottleneck with a depthwise 3x3 convolution."""

    def __init__(self, channels: int, expand: int = 4):
        super().__init__()
        hidden = channels * expand
        self.conv1 = ConvBN(channels, hidden)
        self.conv2 = ConvBN(hidden, hidden, 3, groups=hidden)
        self.conv3 = ConvBN(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """``B C H W -> B C H W``; on a CPU strip by strip, with the same result."""
        height = x.shape[2]
        rows = max(4, _STRIP_ROWS // len(x)) if x.device.type == "cpu" else height
        tops = range(0, height, rows)
        return torch.cat([self._strip(x, top, min(top + rows, height)) for top in tops], dim=2)

    def _strip(self, x: Tensor, top: int, bottom: int) -> Tensor:
        """Return output rows ``top`` to ``bottom``, from input rows that reach one further."""
        above = min(top, 1)
        hidden = gelu(self.conv1(x[:, :, top - above : bottom + 1]))
        hidden = gelu(self.conv2(hidden)[:, :, above : above + bottom - top])
        return gelu(self.conv3(hidden) + x[:, :, top:bottom])


class PatchMerging(nn.Module):
    """Change of width and (optionally) halving of resolution between two stages."""

    def __init__(self, c_in: int, c_out: int, stride: int):
        super().__init__()
        self.conv1 = ConvBN(c_in, c_out)
        self.conv2 = ConvBN(c_out, c_out, 3, stride, groups=c_out)
        self.conv3 = ConvBN(c_out, c_out)

    def forward(self, x: Tensor) -> Tensor:
        """``B C_in H W -> B C_out H/stride W/stride``."""
        out: Tensor = self.conv3(gelu(self.conv2(gelu(self.conv1(x)))))
        return out


def attention(
    q: Float[Tensor, "W h N d"],
    k: Float[Tensor, "W h N d"],
    v: Float[Tensor, "W h N d"],
    bias: Float[Tensor, "h N N"],
) -> Float[Tensor, "W h N d"]:
    """Attend with a bias per head, fused where nothing is learned.

    On a CPU the fused one takes 1.4 to 3.8 times as long as plain matrix products, forward and
    backward together (bfloat16, one thread with AMX; ``benchmarks/attention.py``).
    """
    if not (q.requires_grad and q.device.type == "cpu"):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None])
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2) + bias
    out: Tensor = scores.softmax(dim=-1, dtype=torch.float32).to(v.dtype) @ v
    return out


class WindowAttention(nn.Module):
    """Self-attention inside a window, with a learned bias per relative offset."""

    bias_index: Tensor

    def __init__(self, dim: int, num_heads: int, window: int):
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.attention_biases = nn.Parameter(torch.zeros(num_heads, window * window))
        rows, cols = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
        rows, cols = rows.flatten(), cols.flatten()
        offset = (rows[:, None] - rows).abs() * window + (cols[:, None] - cols).abs()
        self.register_buffer("bias_index", offset, persistent=False)

    def forward(self, x: Float[Tensor, "W N C"]) -> Float[Tensor, "W N C"]:
        """Attend among the N tokens of each of W windows."""
        windows, tokens, dim = x.shape
        qkv = self.qkv(self.norm(x)).view(windows, tokens, self.num_heads, 3, -1)
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(3))
        bias = self.attention_biases[:, self.bias_index].to(q.dtype)
        out = attention(q, k, v, bias)
        attended: Tensor = self.proj(out.transpose(1, 2).reshape(windows, tokens, dim))
        return attended


class Mlp(nn.Module):
    """Pre-normalised two-layer perceptron."""

    def __init__(self, dim: int, expand: int = 4):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, dim * expand)
        self.fc2 = nn.Linear(dim * expand, dim)

    def forward(self, x: Tensor) -> Tensor:
        """``... C -> ... C``."""
        out: Tensor = self.fc2(F.gelu(self.fc1(self.norm(x))))
        return out


class TinyViTBlock(nn.Module):
    """Window attention, depthwise convolution, perceptron."""

    def __init__(self, dim: int, num_heads: int, window: int):
        super().__init__()
        self.window = window
        self.attn = WindowAttention(dim, num_heads, window)
        self.local_conv = ConvBN(dim, dim, 3, groups=dim)
        self.mlp = Mlp(dim)

    def forward(self, x: Tensor) -> Tensor:
        """``B C H W -> B C H W``, channels-last in memory."""
        tokens = x.permute(0, 2, 3, 1)
        tokens = tokens + self._attend(tokens)
        tokens = self.local_conv(tokens.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        out: Tensor = (tokens + self.mlp(tokens)).permute(0, 3, 1, 2)
        return out

    def _attend(self, x: Float[Tensor, "B H W C"]) -> Float[Tensor, "B H W C"]:
        """Cut into windows (padded with zeros below and right), attend, put together again."""
        batch, height, width, dim = x.shape
        side = self.window
        x = F.pad(x, (0, 0, 0, -width % side, 0, -height % side))
        rows, cols = x.shape[1] // side, x.shape[2] // side
        x = x.view(batch, rows, side, cols, side, dim).transpose(2, 3)
        x = self.attn(x.reshape(-1, side * side, dim))
        x = x.view(batch, rows, cols, side, side, dim).transpose(2, 3)
        return x.reshape(batch, rows * side, cols * side, dim)[:, :height, :width]


class Stage(nn.Module):
    """Blocks of one resolution, then the way down to the next."""

    def __init__(self, blocks: list[nn.Module], downsample: nn.Module | None):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """``B C H W -> B C' H' W'``."""
        for block in self.blocks:
            x = block(x)
        if self.downsample is not None:
            x = self.downsample(x)
        return x


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of a ``B C H W`` tensor."""

    def __init__(self, channels: int):
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each pixel's channels."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class TinyViT(nn.Module):
    """The encoder: full-resolution convolutional stage, three attention stages, neck."""

    def __init__(self, config: TinyViTConfig | None = None):
        super().__init__()
        config = config or TinyViTConfig()
        dims = config.embed_dims
        self.patch_embed = PatchEmbed(dims[0])
        blocks: list[list[nn.Module]] = [[MBConv(dims[0]) for _ in range(config.depths[0])]]
        for i in (1, 2, 3):
            heads, window = config.num_heads[i], config.window_sizes[i]
            blocks.append([TinyViTBlock(dims[i], heads, window) for _ in range(config.depths[i])])
        strides = (2, 2, 1)
        merges = [PatchMerging(dims[i], dims[i + 1], strides[i]) for i in range(3)]
        self.layers = nn.ModuleList(map(Stage, blocks, [*merges, None]))
        out = config.out_channels
        self.neck = nn.Sequential(
            nn.Conv2d(dims[3], out, 1, bias=False),
            LayerNorm2d(out),
            nn.Conv2d(out, out, 3, padding=1, bias=False),
            LayerNorm2d(out),
        )

    def forward(self, images: Images) -> Embeddings:
        """Encode ``B 3 256 256`` images in [0, 1] to ``B 256 64 64`` embeddings."""
        x = self.patch_embed(images.contiguous(memory_format=torch.channels_last))
        for stage in self.layers:
            x = stage(x)
        out: Tensor = self.neck(x)
        return out


def fold_batch_norm(module: nn.Module) -> None:
    """Replace every :class:`ConvBN` inside ``module`` by one convolution, in place (frozen use)."""
    for name, child in module.named_children():
        if isinstance(child, ConvBN):
            setattr(module, name, child.fold())
        else:
            fold_batch_norm(child)
