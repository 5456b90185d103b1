"""Prompt encoder and mask decoder of the Segment Anything family, batched and differentiable.

Paper: Kirillov et al., "Segment Anything", ICCV 2023 (Apache-2.0). Parameter names are upstream's,
so that its weights load unchanged.

What we changed: every item carries its own image; attention is fused; nothing is written in place
and no value is read back to the host, so gradients reach points, boxes and masks; coordinates are
taken as they are (pixel centres at i + 0.5) instead of being shifted by half a pixel.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ultrarefiner.foundation.protocol import Decoded, Prompts
from ultrarefiner.foundation.tiny_vit import LayerNorm2d
from ultrarefiner.shapes import Embeddings

Tokens = Float[Tensor, "B T D"]


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
        return torch.cat([embedding.weight for embedding in self.point_embeddings])

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
        heads = [
            projection(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for projection, x in ((self.q_proj, q), (self.k_proj, k), (self.v_proj, v))
        ]
        attended = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        out: Tensor = self.out_proj(attended)
        return out


class TwoWayBlock(nn.Module):
    """Tokens look at each other and at the image; then the image looks at the tokens."""

    def __init__(self, dim: int, num_heads: int, mlp_dim: int, *, first: bool):
        super().__init__()
        self.first = first
        self.self_attn = Attention(dim, num_heads)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn_token_to_image = Attention(dim, num_heads, downsample_rate=2)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Perceptron([dim, mlp_dim, dim], names=("lin1", "lin2"))
        self.norm3 = nn.LayerNorm(dim)
        self.norm4 = nn.LayerNorm(dim)
        self.cross_attn_image_to_token = Attention(dim, num_heads, downsample_rate=2)

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
        self.final_attn_token_to_image = Attention(dim, num_heads, downsample_rate=2)
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
        linears = [nn.Linear(a, b) for a, b in zip(dims, dims[1:], strict=False)]
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
        return layers[-1](x)


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
            nn.ConvTranspose2d(dim, dim // 4, 2, 2),
            LayerNorm2d(dim // 4),
            nn.GELU(),
            nn.ConvTranspose2d(dim // 4, dim // 8, 2, 2),
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
        image = (embeddings + dense).flatten(2).transpose(1, 2)
        tokens, image = self.transformer(image, image_pe.flatten(2).transpose(1, 2), tokens)
        image = image.transpose(1, 2).unflatten(2, embeddings.shape[-2:])
        upscaled = self.output_upscaling(image)
        weights = [self.output_hypernetworks_mlps[i](tokens[:, 1 + i]) for i in wanted]
        logits = torch.einsum("bkc,bchw->bkhw", torch.stack(weights, dim=1), upscaled)
        iou = self.iou_prediction_head(tokens[:, 0])
        return Decoded(logits=logits, iou_predictions=iou[:, wanted.start : wanted.stop])
