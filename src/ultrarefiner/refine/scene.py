"""What a refinement starts from: native images, coarse maps, and how their grids lie on them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ultrarefiner.ops.frames import Frames
from ultrarefiner.ops.intensity import stretch_content
from ultrarefiner.ops.resampling import resample
from ultrarefiner.shapes import Boxes, Embeddings, Images, ProbMaps


@dataclass(frozen=True, kw_only=True)
class Scene:
    """I native images and B coarse maps of lesions in them.

    Attributes:
        images: ``I C H W`` native pixels in [0, 1], padded below and right to a common size.
        native_hw: ``I 2`` rows and columns of each image [px].
        coarse: ``B 1 h w`` coarse probabilities, zero in their padding.
        frames: where the coarse grid of each of the I images lies.
        image_index: ``B`` the image that each coarse map belongs to.
        embeddings: ``I D h w`` of the whole images if they were encoded before, else ``None``.
    """

    images: Images
    native_hw: Int[Tensor, "I 2"]
    coarse: ProbMaps
    frames: Frames
    image_index: Int[Tensor, "B"]
    embeddings: Embeddings | None = None

    def __post_init__(self) -> None:
        """Bring coarse maps of a network under autocast to float32: places need it."""
        if self.coarse.dtype.itemsize < 4:
            object.__setattr__(self, "coarse", self.coarse.float())

    def content_boxes(self) -> Boxes:
        """Return the part of each coarse map that holds image, ``B 4`` xyxy [px of its grid]."""
        return self.frames.content_boxes()[self.image_index]

    def content(self) -> Bool[Tensor, "B 1 h w"]:
        """Return which pixels of each coarse map hold image."""
        return self.frames.content()[self.image_index]

    def lesion_frames(self) -> Frames:
        """Return the frame of each of the B coarse maps."""
        return self.frames.select(self.image_index)

    def images_on(
        self, frames: Frames, image_index: Int[Tensor, "V"]
    ) -> tuple[Images, Bool[Tensor, "V 1 H W"]]:
        """Return images in other frames, resampled once from their native pixels.

        Args:
            frames: V frames to fill; no window may be larger than its image is long.
            image_index: ``V`` the image that each of them shows.

        Returns:
            ``V C H W`` grey levels, 0 beyond the image; and ``V 1 H W`` true on the image.
        """
        height, width = self.images.shape[-2:]
        natives = Frames.native(self.native_hw, (height, width)).select(image_index)
        shrinkage = max(height, width) / min(frames.grid_hw)
        images, coverage = resample(
            self.images[image_index], natives, frames, max_shrinkage=shrinkage
        )
        valid = coverage >= 0.5
        return images * valid, valid

    def grid_images(self) -> tuple[Images, Images]:
        """Return each coarse map's image on the coarse grid, and where the grid holds image.

        Grey levels ``B 1 h w`` are stretched to [0, 1] over the image; the padding is 0.
        """
        grey, valid = self._grid_images
        return grey[self.image_index], valid[self.image_index]

    @cached_property
    def _grid_images(self) -> tuple[Images, Images]:
        everything = torch.arange(len(self.images), device=self.image_index.device)
        images, valid = self.images_on(self.frames, everything)
        return stretch_grey(images, valid)


def stretch_grey(
    images: Images, valid: Bool[Tensor, "V 1 H W"]
) -> tuple[Float[Tensor, "V 1 H W"], Float[Tensor, "V 1 H W"]]:
    """Return the mean over channels stretched to [0, 1] on the image, and ``valid`` as numbers."""
    grey = images.float().mean(dim=1, keepdim=True)
    return stretch_content(grey, valid), valid.float()
