"""Prompt encoder of the Segment Anything family: points, boxes and masks to tokens and a dense map.

Paper: Kirillov et al., "Segment Anything", ICCV 2023 (Apache-2.0). Parameter names are upstream's,
so that its weights load unchanged.

What we changed: coordinates are taken as they are (pixel centres at i + 0.5) instead of being
shifted by half a pixel; gradients reach points, boxes and masks; items may lack some prompts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ultrarefiner.foundation.protocol import Prompts
from ultrarefiner.foundation.tiny_vit import LayerNorm2d

Tokens = Float[Tensor, "B T D"]
Presence = Bool[Tensor, "B T"] | None


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


@dataclass(frozen=True, kw_only=True)
class EncodedPrompts:
    """Prompts as the decoder takes them.

    Attributes:
        tokens: ``B T D`` points and corners of boxes.
        present: ``B T`` which of them are there; ``None``: all.
        dense: ``B D h w`` the mask on the embedding's grid, or ``1 D 1 1``.
    """

    tokens: Tokens
    present: Bool[Tensor, "B T"] | None
    dense: Float[Tensor, "_ D _ _"]


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

    def forward(self, prompts: Prompts) -> EncodedPrompts:
        """Encode prompts; what an item lacks is marked as absent."""
        tokens: list[Tensor] = []
        present: list[Tensor] = []
        batch, has_box = len(prompts), prompts.has_box
        everywhere = self.no_mask_embed.weight.new_ones(batch, 1, dtype=torch.bool)
        if prompts.point_coords is not None and prompts.point_labels is not None:
            tokens.append(self._points(prompts.point_coords, prompts.point_labels))
            present.append(prompts.point_labels >= 0)
            if prompts.boxes is None or has_box is not None:
                # SAM was trained with a null token in the box's place
                tokens.append(self.not_a_point_embed.weight.expand(batch, 1, -1))
                any_point = (prompts.point_labels >= 0).any(dim=1, keepdim=True)
                present.append(any_point if has_box is None else any_point & ~has_box[:, None])
        if prompts.boxes is not None:
            tokens.append(self._boxes(prompts.boxes))
            present.append((everywhere if has_box is None else has_box[:, None]).expand(-1, 2))
        if not tokens:
            tokens.append(self.no_mask_embed.weight.new_zeros(batch, 0, self._dim))
        ragged = has_box is not None or prompts.point_labels is not None
        return EncodedPrompts(
            tokens=torch.cat(tokens, dim=1),
            present=torch.cat(present, dim=1) if ragged else None,
            dense=self._dense(prompts.masks, prompts.has_mask),
        )

    @property
    def _dim(self) -> int:
        return self.no_mask_embed.embedding_dim

    def _label_vectors(self) -> Float[Tensor, "4 D"]:
        return torch.cat(list(self.point_embeddings.parameters()))

    def _points(self, coords: Tensor, labels: Tensor) -> Tokens:
        encoded: Tensor = self.pe_layer(coords / self.input_size)
        return encoded + self._label_vectors()[labels.long().clamp_min(0)]

    def _boxes(self, boxes: Tensor) -> Tokens:
        corners: Tensor = self.pe_layer(boxes.reshape(-1, 2, 2) / self.input_size)
        return corners + self._label_vectors()[2:]

    def _dense(self, masks: Tensor | None, has_mask: Tensor | None) -> Tensor:
        nothing = self.no_mask_embed.weight[..., None, None]
        if masks is None:
            return nothing
        dense: Tensor = self.mask_downscaling(masks)
        return dense if has_mask is None else torch.where(_column(has_mask), dense, nothing)


def _column(flags: Bool[Tensor, "B"]) -> Bool[Tensor, "B 1 1 1"]:
    return flags[:, None, None, None]
