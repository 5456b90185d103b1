"""Mask decoder of the Segment Anything family, batched and differentiable.

Paper: Kirillov et al., "Segment Anything", ICCV 2023 (Apache-2.0). Parameter names are upstream's,
so that its weights load unchanged.

What we changed: every item carries its own image and may lack some tokens; nothing is written in
place and no value is read back to the host. The image stays ``B P C`` (P pixels) to the end, and no
linear layer runs over it that can run over the few tokens instead (see
:class:`TokenToImageAttention`): the same numbers from less than half the operations.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ultrarefiner.foundation.protocol import Decoded
from ultrarefiner.foundation.sam_prompts import EncodedPrompts, Presence, Tokens
from ultrarefiner.shapes import Candidates, Embeddings

Pixels = Float[Tensor, "B P D"]


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

    def forward(self, q: Tokens, k: Tokens, v: Tokens, present: Presence = None) -> Tokens:
        """Attend from ``q`` to those ``k`` that are present, and gather ``v``."""
        mask = None if present is None else present[:, None, None]
        q = self._split(self.q_proj(q)).transpose(1, 2)
        k = self._split(self.k_proj(k)).transpose(1, 2)
        v = self._split(self.v_proj(v)).transpose(1, 2)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)
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

    def forward(self, q: Tokens, k: Pixels, v: Pixels, present: Presence = None) -> Tokens:
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

    def forward(self, q: Pixels, k: Tokens, v: Tokens, present: Presence = None) -> Pixels:
        """Attend from pixels ``q`` to those tokens ``k`` that are present, and gather ``v``."""
        k = self._split(self.k_proj(k) * self._scale)
        offset = torch.einsum("bthd,hd->bht", k, self._split(self.q_proj.bias))
        k = torch.einsum("bthd,hdc->bhtc", k, self._rows_by_head(self.q_proj))
        scores = (k.flatten(1, 2) @ q.transpose(1, 2)).view(*k.shape[:3], -1)
        if present is not None:
            offset = offset.masked_fill(~present[:, None], -torch.inf)
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
        self, tokens: Tokens, image: Tokens, token_pe: Tokens, image_pe: Tokens, present: Presence
    ) -> tuple[Tokens, Tokens]:
        """Return updated tokens and image; absent tokens are seen by none of the others."""
        if self.first:  # the tokens still are their own positional encoding
            tokens = self.norm1(self.self_attn(tokens, tokens, tokens, present))
        else:
            q = tokens + token_pe
            tokens = self.norm1(tokens + self.self_attn(q, q, tokens, present))
        located = image + image_pe
        tokens = self.norm2(
            tokens + self.cross_attn_token_to_image(tokens + token_pe, located, image)
        )
        tokens = self.norm3(tokens + self.mlp(tokens))
        image = self.norm4(
            image + self.cross_attn_image_to_token(located, tokens + token_pe, tokens, present)
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

    def forward(
        self, image: Tokens, image_pe: Tokens, tokens: Tokens, present: Presence = None
    ) -> tuple[Tokens, Tokens]:
        """Return processed tokens and image, both ``B T D``."""
        token_pe = tokens
        for layer in self.layers:
            tokens, image = layer(tokens, image, token_pe, image_pe, present)
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
        prompts: EncodedPrompts,
        *,
        multimask_output: bool = False,
    ) -> Decoded:
        """Decode B items, each with its own embedding."""
        wanted = range(1, self.num_mask_tokens) if multimask_output else range(1)
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([own.expand(len(embeddings), -1, -1), prompts.tokens], dim=1)
        present = prompts.present
        if present is not None:
            present = F.pad(present, (len(own), 0), value=True)
        image = _as_pixels(embeddings) + _as_pixels(prompts.dense).to(embeddings.dtype)
        image_pe = _as_pixels(image_pe).to(image.dtype)
        tokens, image = self.transformer(image, image_pe, tokens, present)
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
