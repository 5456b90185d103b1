"""Prompt encoder and mask decoder of the Segment Anything family, batched and differentiable.

Paper: Kirillov et al., "Segment Anything", ICCV 2023 (Apache-2.0). Parameter names are upstream's,
so that its weights load unchanged.

What we changed: every item carries its own image; nothing is written in place and no value is read
back to the host, so gradients reach points, boxes and masks; coordinates are taken as they are
(pixel centres at i + 0.5) instead of being shifted by half a pixel. The image stays ``B P C`` (P
pixels) to the end, and no linear layer runs over it that can run over the few tokens instead (see
:class:`TokenToImageAttention`): the same numbers from less than half the operations.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ultrarefiner.foundation.protocol import Decoded, Prompts
from ultrarefiner.foundation.tiny_vit import LayerNorm2d
from ultrarefiner.shapes import Candidates, Embeddings

Tokens = Float[Tensor, "B T D"]
Pixels = Float[Tensor, "B P D"]


class FourierPositions(nn.Module):
    """Positional encoding by fixed random frequencies."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, num_features: int):
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.zeros(2, num_features))

    def forward(self, coords: Float[Tensor, "*B 2"]) -> Float[Tensor, "*B D"]:
        """Encode xy coordinates in [0, 1]; always in float32 or better."""
        matrix = self.positional_encoding_gaussian_matrix
        with torch.autocast(coords.device.type, enabled=False):
            coords = coords.to(matrix.dtype) if coords.dtype.itemsize < 4 else coords
            phase = 2 * math.pi * ((2 * coords - 1) @ matrix.to(coords.dtype))
            return torch.cat([phase.sin(), phase.cos()], dim=-1)

    def grid(self, side: int) -> Float[Tensor, "1 D h w"]:
        """Encode the pixel centres of a ``side x side`` grid."""
        centres = (torch.arange(side, device=self._device) + 0.5) / side
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        encoded: Tensor = self(torch.stack([x, y], dim=-1))
        return encoded.permute(2, 0, 1)[None]

    @property
    def _device(self) -> torch.device:
        return self.positional_encoding_gaussian_matrix.device


class PromptEncoder(nn.Module):
    """Points, boxes and masks to sparse tokens and a dense map.

    Args:
        embed_dim: channels of the embedding.
        embedding_size: side of the image embedding [tokens].
        input_size: side of the input frame, in which coordinates are given [px].
        mask_channels: hidden channels of the mask path.
    """

    def __init__(
        self, embed_dim: int, embedding_size: int, input_size: int, mask_channels: int = 16
    ):
        super().__init__()
        self.embedding_size = embedding_size
        self.input_size = input_size
        self.pe_layer = FourierPositions(embed_dim // 2)
        # background point, lesion point, top-left corner, bottom-right corner
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, embed_dim) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, embed_dim)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, mask_channels // 4, 2, 2),
            LayerNorm2d(mask_channels // 4),
            nn.GELU(),
            nn.Conv2d(mask_channels // 4, mask_channels, 2, 2),
            LayerNorm2d(mask_channels),
            nn.GELU(),
            nn.Conv2d(mask_channels, embed_dim, 1),
        )
        self.no_mask_embed = nn.Embedding(1, embed_dim)

    def forward(self, prompts: Prompts) -> tuple[Tokens, Float[Tensor, "B D h w"]]:
        """Return sparse tokens ``B T D`` and the dense map ``B D h w`` (or ``1 D 1 1``)."""
        tokens: list[Tensor] = []
        if prompts.point_coords is not None and prompts.point_labels is not None:
            tokens.append(self._points(prompts.point_coords, prompts.point_labels))
            if prompts.boxes is None:  # SAM was trained with a null token in the box's place
                null: Tensor = self.not_a_point_embed.weight
                tokens.append(null.expand(len(prompts), 1, -1))
        if prompts.boxes is not None:
            tokens.append(self._boxes(prompts.boxes))
        if not tokens:
            tokens.append(self.no_mask_embed.weight.new_zeros(len(prompts), 0, self._dim))
        return torch.cat(tokens, dim=1), self._dense(prompts.masks)

    @property
    def _dim(self) -> int:
        return self.no_mask_embed.embedding_dim

    def _label_vectors(self) -> Float[Tensor, "4 D"]:
        return torch.cat(list(self.point_embeddings.parameters()))

    def _points(self, coords: Tensor, labels: Tensor) -> Tokens:
        encoded: Tensor = self.pe_layer(coords / self.input_size)
        return encoded + self._label_vectors()[labels.long()]

    def _boxes(self, boxes: Tensor) -> Tokens:
        corners: Tensor = self.pe_layer(boxes.reshape(-1, 2, 2) / self.input_size)
        return corners + self._label_vectors()[2:]

    def _dense(self, masks: Tensor | None) -> Tensor:
        if masks is None:
            return self.no_mask_embed.weight[..., None, None]
        dense: Tensor = self.mask_downscaling(masks)
        return dense


class Attention(nn.Module):
    """Multi-head attention with an inner width of its own."""

    def __init__(self, dim: int, num_heads: int, downsample_rate: int = 1):
        super().__init__()
        inner = dim // downsample_rate
        self.num_heads = num_heads
        self.q_proj = nn.Linear(dim, inner)
        self.k_proj = nn.Linear(dim, inner)
        self.v_proj = nn.Linear(dim, inner)
        self.out_proj = nn.Linear(inner, dim)

    def forward(self, q: Tokens, k: Tokens, v: Tokens) -> Tokens:
        """Attend from ``q`` to ``k`` and gather ``v``."""
        q = self._split(self.q_proj(q)).transpose(1, 2)
        k = self._split(self.k_proj(k)).transpose(1, 2)
        v = self._split(self.v_proj(v)).transpose(1, 2)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        out: Tensor = self.out_proj(attended.flatten(2))
        return out

    def _split(self, x: Float[Tensor, "*B inner"]) -> Float[Tensor, "*B heads D_head"]:
        return x.reshape(*x.shape[:-1], self.num_heads, -1)

    def _rows_by_head(self, projection: nn.Linear) -> Float[Tensor, "heads D_head D"]:
        return projection.weight.view(self.num_heads, -1, projection.in_features)

    @property
    def _scale(self) -> float:
        return 1 / math.sqrt(self.q_proj.out_features // self.num_heads)


class TokenToImageAttention(Attention):
    r"""A few tokens attend to all pixels, without projecting any pixel.

    .. math:: (W_q t)^\top (W_k x + b_k) = (W_k^\top W_q t)^\top x + \text{const}, \qquad
        \sum_x a_x (W_v x + b_v) = W_v \sum_x a_x x + b_v

    The constant is the same for all pixels and drops out of the softmax; the weights a sum to 1.
    """

    def forward(self, q: Tokens, k: Pixels, v: Pixels) -> Tokens:
        """Attend from tokens ``q`` to pixels ``k`` and gather pixels ``v``."""
        q = self._split(self.q_proj(q) * self._scale)
        q = torch.einsum("bthd,hdc->bhtc", q, self._rows_by_head(self.k_proj))
        scores = q.flatten(1, 2) @ k.transpose(1, 2)
        gathered = (scores.softmax(dim=-1) @ v).view_as(q)
        heads = torch.einsum("bhtc,hdc->bthd", gathered, self._rows_by_head(self.v_proj))
        out: Tensor = self.out_proj(heads.flatten(2) + self.v_proj.bias)
        return out


class ImageToTokenAttention(Attention):
    """All pixels attend to a few tokens, without projecting any pixel (the mirror image)."""

    def forward(self, q: Pixels, k: Tokens, v: Tokens) -> Pixels:
        """Attend from pixels ``q`` to tokens ``k`` and gather tokens ``v``."""
        k = self._split(self.k_proj(k) * self._scale)
        offset = torch.einsum("bthd,hd->bht", k, self._split(self.q_proj.bias))
        k = torch.einsum("bthd,hdc->bhtc", k, self._rows_by_head(self.q_proj))
        scores = (k.flatten(1, 2) @ q.transpose(1, 2)).view(*k.shape[:3], -1)
        weights = (scores + offset[..., None]).softmax(dim=2)
        columns = self._split(self.out_proj.weight)
        v = torch.einsum("bthd,chd->bhtc", self._split(self.v_proj(v)), columns)
        pixel_weights = weights.flatten(1, 2).transpose(1, 2)
        return torch.baddbmm(self.out_proj.bias, pixel_weights, v.flatten(1, 2))


class TwoWayBlock(nn.Module):
    """Tokens look at each other and at the image; then the image looks at the tokens."""

    def __init__(self, dim: int, num_heads: int, mlp_dim: int, *, first: bool):
        super().__init__()
        self.first = first
        self.self_attn = Attention(dim, num_heads)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn_token_to_image = TokenToImageAttention(dim, num_heads, downsample_rate=2)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Perceptron([dim, mlp_dim, dim], names=("lin1", "lin2"))
        self.norm3 = nn.LayerNorm(dim)
        self.norm4 = nn.LayerNorm(dim)
        self.cross_attn_image_to_token = ImageToTokenAttention(dim, num_heads, downsample_rate=2)

    def forward(
        self, tokens: Tokens, image: Tokens, token_pe: Tokens, image_pe: Tokens
    ) -> tuple[Tokens, Tokens]:
        """Return updated tokens and image."""
        if self.first:  # the tokens still are their own positional encoding
            tokens = self.norm1(self.self_attn(tokens, tokens, tokens))
        else:
            q = tokens + token_pe
            tokens = self.norm1(tokens + self.self_attn(q, q, tokens))
        located = image + image_pe
        tokens = self.norm2(
            tokens + self.cross_attn_token_to_image(tokens + token_pe, located, image)
        )
        tokens = self.norm3(tokens + self.mlp(tokens))
        image = self.norm4(
            image + self.cross_attn_image_to_token(located, tokens + token_pe, tokens)
        )
        return tokens, image


class TwoWayTransformer(nn.Module):
    """The decoder's transformer: blocks, then one last look at the image."""

    def __init__(self, depth: int, dim: int, num_heads: int, mlp_dim: int):
        super().__init__()
        self.layers = nn.ModuleList(
            TwoWayBlock(dim, num_heads, mlp_dim, first=i == 0) for i in range(depth)
        )
        self.final_attn_token_to_image = TokenToImageAttention(dim, num_heads, downsample_rate=2)
        self.norm_final_attn = nn.LayerNorm(dim)

    def forward(self, image: Tokens, image_pe: Tokens, tokens: Tokens) -> tuple[Tokens, Tokens]:
        """Return processed tokens and image, both ``B T D``."""
        token_pe = tokens
        for layer in self.layers:
            tokens, image = layer(tokens, image, token_pe, image_pe)
        attended = self.final_attn_token_to_image(tokens + token_pe, image + image_pe, image)
        return self.norm_final_attn(tokens + attended), image


class Perceptron(nn.Module):
    """Linear layers with ReLU between; layer names follow upstream's weights."""

    def __init__(self, dims: list[int], names: tuple[str, ...] | None = None):
        super().__init__()
        linears = [nn.Linear(a, b) for a, b in pairwise(dims)]
        self.names = names
        if names is None:
            self.layers = nn.ModuleList(linears)
        else:
            for name, linear in zip(names, linears, strict=True):
                self.add_module(name, linear)

    def forward(self, x: Tensor) -> Tensor:
        """``... D_in -> ... D_out``."""
        layers = self.layers if self.names is None else [getattr(self, n) for n in self.names]
        for layer in layers[:-1]:
            x = F.relu(layer(x))
        out: Tensor = layers[-1](x)
        return out


class PixelsToQuads(nn.Module):
    """Transposed convolution with stride = kernel = 2, which is one linear map per pixel.

    The four parts of a pixel stay together (row by row) instead of being put in their places, so
    that nothing is moved until the end.
    """

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        weight = torch.empty(c_in, c_out, 2, 2)
        self.weight = nn.Parameter(nn.init.kaiming_uniform_(weight, a=math.sqrt(5)))
        self.bias = nn.Parameter(torch.zeros(c_out))

    def forward(self, x: Float[Tensor, "B *P C_in"]) -> Float[Tensor, "B *P 4 C_out"]:
        """Split every pixel into a quad."""
        weight = self.weight.permute(2, 3, 1, 0).flatten(0, 2)
        return F.linear(x, weight, self.bias.repeat(4)).view(*x.shape[:-1], 4, -1)


class MaskDecoder(nn.Module):
    """Image embedding and prompt tokens to mask logits and predicted IoUs.

    Args:
        dim: channels of the embedding.
        num_multimask_outputs: candidates beside the single mask.
        depth: blocks of the transformer.
        num_heads: attention heads.
        mlp_dim: inner width of the transformer's perceptrons.
    """

    def __init__(
        self,
        dim: int = 256,
        *,
        num_multimask_outputs: int = 3,
        depth: int = 2,
        num_heads: int = 8,
        mlp_dim: int = 2048,
    ):
        super().__init__()
        self.transformer = TwoWayTransformer(depth, dim, num_heads, mlp_dim)
        self.num_mask_tokens = num_multimask_outputs + 1
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(self.num_mask_tokens, dim)
        self.output_upscaling = nn.Sequential(
            PixelsToQuads(dim, dim // 4),
            nn.LayerNorm(dim // 4, eps=1e-6),
            nn.GELU(),
            PixelsToQuads(dim // 4, dim // 8),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(
            Perceptron([dim, dim, dim, dim // 8]) for _ in range(self.num_mask_tokens)
        )
        self.iou_prediction_head = Perceptron([dim, dim, dim, self.num_mask_tokens])

    def forward(
        self,
        embeddings: Embeddings,
        image_pe: Float[Tensor, "1 D h w"],
        sparse: Tokens,
        dense: Float[Tensor, "_ D _ _"],
        *,
        multimask_output: bool = False,
    ) -> Decoded:
        """Decode B items, each with its own embedding and the same number of tokens."""
        wanted = range(1, self.num_mask_tokens) if multimask_output else range(1)
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([own.expand(len(sparse), -1, -1), sparse], dim=1)
        image = _as_pixels(embeddings) + _as_pixels(dense).to(embeddings.dtype)
        tokens, image = self.transformer(image, _as_pixels(image_pe).to(image.dtype), tokens)
        weights = [self.output_hypernetworks_mlps[i](tokens[:, 1 + i]) for i in wanted]
        upscaled = self.output_upscaling(image).flatten(1, 3)
        logits = upscaled @ torch.stack(weights, dim=-1)
        iou = self.iou_prediction_head(tokens[:, 0])
        return Decoded(
            logits=_merge_quads(logits, *embeddings.shape[-2:]),
            iou_predictions=iou[:, wanted.start : wanted.stop],
        )


def _as_pixels(x: Float[Tensor, "B D h w"]) -> Pixels:
    """Return ``B P D``; no copy if ``x`` is channels-last."""
    return x.flatten(2).transpose(1, 2)


def _merge_quads(x: Float[Tensor, "B N K"], height: int, width: int) -> Candidates:
    """Put pixels that were split into quads twice (N = h w 16) in order: ``B K 4h 4w``."""
    batch, _, num = x.shape
    x = x.view(batch, height, width, 2, 2, 2, 2, num)  # row, column; then both again, twice
    return x.permute(0, 7, 1, 3, 5, 2, 4, 6).reshape(batch, num, 4 * height, 4 * width)
