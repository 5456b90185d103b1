"""Where the foundation model looks: the whole image, or a crop around the lesion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ultrarefiner.ops.frames import content_mask, stretch_content
from ultrarefiner.shapes import Boxes, Embeddings, Images, ProbMaps


@dataclass(frozen=True, kw_only=True)
class Scene:
    """I images in the foundation frame and B coarse maps of lesions in them.

    Attributes:
        images: ``I C H W`` in [0, 1], zero in the padding.
        content_hw: ``I 2`` rows and columns of the frame that hold image.
        coarse: ``B 1 h w`` coarse probabilities on the low-resolution grid over the same frame.
        image_index: ``B`` the image that each coarse map belongs to.
        embeddings: ``I D h w`` if the images were encoded before, else ``None``.
    """

    images: Images
    content_hw: Int[Tensor, "I 2"]
    coarse: ProbMaps
    image_index: Int[Tensor, "B"]
    embeddings: Embeddings | None = None

    def grid_content_hw(self) -> Float[Tensor, "B 2"]:
        """Return rows and columns that hold image, for each coarse map [px of the coarse grid]."""
        scale = self.coarse.shape[-1] / self.images.shape[-1]
        return self.content_hw[self.image_index] * scale

    def grid_images(self) -> tuple[Images, Images]:
        """Return each coarse map's image on the coarse grid, and where the grid holds image.

        Grey levels ``B 1 h w`` are stretched to [0, 1] over the image; the padding is 0.
        """
        grey = self.images.float().mean(dim=1, keepdim=True)
        if grey.shape[-2:] != self.coarse.shape[-2:]:
            grey = F.interpolate(grey, self.coarse.shape[-2:], mode="area")
        content_hw = self.content_hw * (self.coarse.shape[-1] / self.images.shape[-1])
        valid = content_mask(grey, content_hw)
        stretched = stretch_content(grey, valid)
        return stretched[self.image_index], valid[self.image_index].float()


class RegionOfInterest(Protocol):
    """The ROI stage: a way in and the way back."""

    def crop(self, scene: Scene) -> tuple[Scene, Boxes | None]:
        """Return the scene that the foundation model sees, and where it lies in the frame."""
        ...

    def paste(self, refined: ProbMaps, coarse: ProbMaps, roi: Boxes | None) -> ProbMaps:
        """Return refined probabilities on the whole frame, coarse ones outside the ROI."""
        ...


class WholeFrame(nn.Module):
    """No region of interest: the identity."""

    def crop(self, scene: Scene) -> tuple[Scene, Boxes | None]:
        """Return the scene itself."""
        return scene, None

    def paste(self, refined: ProbMaps, coarse: ProbMaps, roi: Boxes | None) -> ProbMaps:
        """Return the refined probabilities themselves."""
        return refined
