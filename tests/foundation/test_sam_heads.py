"""Prompt encoder and mask decoder: upstream's numbers, exact shortcuts, true gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ultrarefiner.foundation import Prompts
from ultrarefiner.foundation.sam_decoder import (
    Attention,
    ImageToTokenAttention,
    MaskDecoder,
    PixelsToQuads,
    TokenToImageAttention,
)
from ultrarefiner.foundation.sam_prompts import PromptEncoder

POINTS = torch.tensor([[[100.5, 90.5], [30.0, 200.25]]])
LABELS = torch.tensor([[1, 0]])
BOXES = torch.tensor([[60.5, 70.0, 150.25, 160.5]])
KINDS = [
    ("boxes",),
    ("point_coords",),
    ("masks",),
    ("point_coords", "boxes"),
    ("point_coords", "masks"),
    ("boxes", "masks"),
    ("point_coords", "boxes", "masks"),
]


def make_prompts(kinds: tuple[str, ...]) -> Prompts:
    masks = 4 * torch.randn(1, 1, 256, 256, generator=torch.Generator().manual_seed(0))
    values = {"boxes": BOXES, "point_coords": POINTS, "masks": masks}
    labels = LABELS if "point_coords" in kinds else None
    return Prompts(**{kind: values[kind] for kind in kinds}, point_labels=labels)


def encode_upstream(upstream, prompts: Prompts) -> tuple[Tensor, Tensor]:
    """Upstream takes pixel indices and adds half a pixel itself."""
    points = prompts.point_coords
    return upstream.prompt_encoder(
        points=None if points is None else (points - 0.5, prompts.point_labels),
        boxes=None if prompts.boxes is None else prompts.boxes - 0.5,
        masks=prompts.masks,
    )


@pytest.mark.parametrize("kinds", KINDS, ids="+".join)
def test_golden_prompt_encoder(model, upstream, kinds):
    prompts = make_prompts(kinds)
    found = model.prompt_encoder(prompts)
    expected_sparse, expected_dense = encode_upstream(upstream, prompts)
    torch.testing.assert_close(found.tokens, expected_sparse, atol=1e-5, rtol=0)
    dense = found.dense.expand_as(expected_dense)
    torch.testing.assert_close(dense, expected_dense, atol=1e-5, rtol=0)


@pytest.mark.parametrize("multimask_output", [False, True])
@pytest.mark.parametrize("kinds", KINDS, ids="+".join)
def test_golden_decoder(model, upstream, encoded, kinds, multimask_output):
    embeddings = encoded[0][:1]
    prompts = make_prompts(kinds)
    sparse, dense = encode_upstream(upstream, prompts)
    logits, scores = upstream.mask_decoder(
        image_embeddings=embeddings,
        image_pe=upstream.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=multimask_output,
    )
    decoded = model.decode(embeddings, prompts, multimask_output=multimask_output)
    torch.testing.assert_close(decoded.logits, logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(decoded.iou_predictions, scores, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", [TokenToImageAttention, ImageToTokenAttention])
def test_shortcut_equals_attention(kind):
    torch.manual_seed(0)
    attention = kind(16, 4, downsample_rate=2).double()
    tokens, pixels = torch.randn(2, 3, 16).double(), torch.randn(2, 25, 16).double()
    q, k = (tokens, pixels) if kind is TokenToImageAttention else (pixels, tokens)
    v = k + 1
    torch.testing.assert_close(
        attention(q, k, v), Attention.forward(attention, q, k, v), atol=1e-12, rtol=0
    )


def test_quads_equal_transposed_convolution():
    torch.manual_seed(0)
    layer = PixelsToQuads(3, 2)
    x = torch.randn(2, 3, 4, 5)
    expected = F.conv_transpose2d(x, layer.weight, layer.bias, stride=2)
    quads = layer(x.permute(0, 2, 3, 1)).view(2, 4, 5, 2, 2, 2)
    placed = quads.permute(0, 5, 1, 3, 2, 4).reshape(2, 2, 8, 10)
    torch.testing.assert_close(placed, expected)


class SmallHeads(torch.nn.Module):
    """Prompt encoder and decoder over a 4 x 4 embedding of a 16 px frame."""

    def __init__(self):
        super().__init__()
        self.encoder = PromptEncoder(16, embedding_size=4, input_size=16, mask_channels=8)
        self.decoder = MaskDecoder(16, num_heads=2, mlp_dim=32)
        torch.nn.init.normal_(self.encoder.pe_layer.positional_encoding_gaussian_matrix)
        self.register_buffer("embeddings", torch.randn(1, 16, 4, 4))

    def forward(self, points: Tensor, boxes: Tensor, masks: Tensor) -> Tensor:
        prompts = Prompts(point_coords=points, point_labels=LABELS, boxes=boxes, masks=masks)
        encoded = self.encoder(prompts)
        position = self.encoder.pe_layer.grid(4).double()
        decoded = self.decoder(self.embeddings, position, encoded, multimask_output=True)
        return torch.cat([decoded.logits.flatten(), decoded.iou_predictions.flatten()])


def small_inputs(**which: bool) -> list[Tensor]:
    values = {
        "points": torch.tensor([[[5.3, 6.1], [12.2, 3.4]]]),
        "boxes": torch.tensor([[3.2, 4.1, 11.7, 12.9]]),
        "masks": torch.randn(1, 1, 16, 16),
    }
    return [x.double().requires_grad_(which[name]) for name, x in values.items()]


@pytest.mark.parametrize("name", ["points", "boxes", "masks"])
def test_gradcheck(name):
    torch.manual_seed(0)
    heads = SmallHeads().double()
    which = {key: key == name for key in ("points", "boxes", "masks")}
    assert torch.autograd.gradcheck(heads, small_inputs(**which), fast_mode=True)


def test_gradient_reaches_every_used_parameter():
    torch.manual_seed(0)
    heads = SmallHeads().double()
    heads(*small_inputs(points=True, boxes=True, masks=True)).square().sum().backward()
    unused = ("not_a_point", "no_mask", "output_hypernetworks_mlps.0", "k_proj.bias")
    for name, parameter in heads.named_parameters():
        if not any(part in name for part in unused):  # a key's bias drops out of a softmax
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name
