"""Where the foundation model looks: whole images or a crop of each lesion; and the way back."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ultrarefiner.errors import ConfigError
from ultrarefiner.foundation import FoundationModel
from ultrarefiner.ops.frames import Frames
from ultrarefiner.ops.resampling import resample, resample_between
from ultrarefiner.refine.localization import Lesions
from ultrarefiner.refine.scene import Scene, stretch_grey
from ultrarefiner.shapes import Boxes, Embeddings, Images, ProbMaps

GRADIENTS = ("prompts", "full")


@dataclass(frozen=True, kw_only=True)
class RoiConfig:
    """What the foundation model looks at.

    Attributes:
        crop: a square around each lesion instead of the whole image; the image is then encoded once
            per lesion.
        expand: how much context the square keeps on each side, as a share of the box's longer side.
        min_side_px: smallest side of the square [native px].
        gradient: ``prompts`` takes the square as given; ``full`` also differentiates through its
            corners, into image, prompts and paste (the encoder then builds a graph).
    """

    crop: bool = False
    expand: float = 0.3
    min_side_px: float = 64.0
    gradient: str = "prompts"

    def __post_init__(self) -> None:
        if self.expand < 0:
            raise ConfigError("roi expand", expected=">= 0", found=str(self.expand))
        if self.min_side_px <= 0:
            raise ConfigError("roi min_side_px", expected="> 0", found=str(self.min_side_px))
        if self.gradient not in GRADIENTS:
            raise ConfigError(
                "roi gradient", expected="one of " + ", ".join(GRADIENTS), found=self.gradient
            )


@dataclass(frozen=True, kw_only=True)
class View:
    """What the foundation model sees of a scene: V views.

    Attributes:
        scene: what it is a view of.
        frames: V frames of the model's input.
        mask_frames: the same on the model's low-resolution mask grid.
        image_index: ``V`` the image that each view shows.
        view_index: ``B`` the view that each coarse map is refined in.
        embeddings: ``V D h w`` if the views were encoded before, else ``None``.
        image_gradient: whether gradients go through the views' pixels to their frames.
        closeness: the images' longest side over the smallest side of a window.
    """

    scene: Scene
    frames: Frames
    mask_frames: Frames
    image_index: Int[Tensor, "V"]
    view_index: Int[Tensor, "B"]
    embeddings: Embeddings | None = None
    image_gradient: bool = False
    closeness: float = 1.0

    def images(self) -> tuple[Images, Bool[Tensor, "V 1 H W"]]:
        """Return ``V C H W`` pixels as the model's input, and where they are image."""
        with nullcontext() if self.image_gradient else torch.no_grad():
            return self._images_on(self.frames)

    def grid_images(self) -> tuple[Images, Images]:
        """Return each lesion's view on the mask grid, ``B 1 h w`` in [0, 1], and where it is."""
        if self.mask_frames.same_as(self.scene.frames):
            return self.scene.grid_images()
        with torch.no_grad():
            grey, valid = stretch_grey(*self._images_on(self.mask_frames))
        return grey[self.view_index], valid[self.view_index]

    def _images_on(self, frames: Frames) -> tuple[Images, Bool[Tensor, "V 1 H W"]]:
        return self.scene.images_on(frames, self.image_index)

    def lesion_frames(self) -> Frames:
        """Return the model's input frame of each of the B lesions."""
        return self.frames.select(self.view_index)

    def to_mask_grid(self, maps: ProbMaps) -> ProbMaps:
        """Bring maps of the coarse grids to the mask grid."""
        if self.mask_frames.same_as(self.scene.frames):
            return maps
        here, there = self.scene.lesion_frames(), self.lesion_mask_frames()
        if not here.letterbox:  # a squashed grid may be finer along one axis, who knows how much
            return resample_between(here, there)(maps)
        shrinkage = max(here.grid_hw) / min(there.grid_hw)
        return resample(maps, here, there, max_shrinkage=shrinkage)[0]

    def paste(self, refined: ProbMaps) -> ProbMaps:
        """Paste probabilities of each lesion's view over its coarse map, by inverse resampling.

        In the padding there is nothing, whatever the model sees there. Where a pixel of the coarse
        grid lies partly on the view, both are blended by its share.

        Args:
            refined: ``B 1 m m`` on the mask grid.

        Returns:
            ``B 1 h w`` on the coarse grid.
        """
        here, there = self.lesion_mask_frames(), self.scene.lesion_frames()
        content = self.scene.content()
        if here.same_as(there):
            return refined * content
        shrinkage = self.closeness * max(here.grid_hw) / min(there.grid_hw)
        pasted, coverage = resample(refined, here, there, max_shrinkage=shrinkage)
        return torch.lerp(self.scene.coarse.to(pasted.dtype), pasted, coverage) * content

    def coarse_scale(self) -> Float[Tensor, "B"]:
        """Return how many px of the mask grid a px of each coarse grid measures."""
        here, there = self.scene.lesion_frames(), self.lesion_mask_frames()
        return (there.px_per_native() / here.px_per_native()).prod(dim=-1).sqrt()

    def lesion_mask_frames(self) -> Frames:
        """Return the frame of the mask grid of each of the B lesions."""
        return self.mask_frames.select(self.view_index)


class RegionOfInterest(Protocol):
    """The ROI stage: what the model sees; the view itself knows the way back."""

    def look(self, scene: Scene, lesions: Lesions, model: FoundationModel) -> View:
        """Return what the foundation model sees."""
        ...


class WholeFrame(nn.Module):
    """No region of interest: each image is seen whole, once, letterboxed."""

    def look(self, scene: Scene, lesions: Lesions, model: FoundationModel) -> View:
        """Return one view per image."""
        frames = Frames.letterboxed(scene.native_hw, model.input_size)
        return View(
            scene=scene,
            frames=frames,
            mask_frames=frames.resized((model.mask_size, model.mask_size)),
            image_index=torch.arange(len(scene.images), device=scene.image_index.device),
            view_index=scene.image_index,
            embeddings=scene.embeddings,
        )


class CropToLesion(nn.Module):
    """A square around each lesion, straight from the native pixels; outside stays the coarse map.

    Args:
        config: how large the square is and what it passes gradients to.
    """

    def __init__(self, config: RoiConfig):
        super().__init__()
        self.config = config

    def look(self, scene: Scene, lesions: Lesions, model: FoundationModel) -> View:
        """Return one view per lesion; without a lesion, the whole image."""
        full = self.config.gradient == "full"
        boxes = scene.lesion_frames().boxes_to_native(lesions.boxes[:, None])[:, 0]
        native_hw = scene.native_hw[scene.image_index]
        windows = square_windows(
            boxes if full else boxes.detach(),
            native_hw,
            expand=self.config.expand,
            min_side_px=self.config.min_side_px,
        )
        whole = native_hw.amax(dim=-1, keepdim=True).to(windows) * windows.new_tensor([0, 0, 1, 1])
        windows = torch.where(lesions.no_lesion[:, None], whole, windows)
        side, mask_side = model.input_size, model.mask_size
        longest_px = max(scene.images.shape[-2:])
        return View(
            scene=scene,
            frames=Frames.filling(windows, (side, side)),
            mask_frames=Frames.filling(windows, (mask_side, mask_side)),
            image_index=scene.image_index,
            view_index=torch.arange(len(windows), device=windows.device),
            image_gradient=full,
            closeness=max(1.0, longest_px / self.config.min_side_px),
        )


def build_roi(config: RoiConfig) -> CropToLesion | WholeFrame:
    """Return the ROI stage that a config describes."""
    return CropToLesion(config) if config.crop else WholeFrame()


def square_windows(
    boxes: Boxes, native_hw: Int[Tensor, "B 2"], *, expand: float, min_side_px: float
) -> Boxes:
    """Return squares around boxes with context, shifted (not cut) at the image's borders.

    None is larger than the image is long; along the image's shorter side it may reach beyond it.

    Args:
        boxes: ``B 4`` xyxy [native px].
        native_hw: ``B 2`` rows and columns of the images [native px].
        expand: context on each side, as a share of the box's longer side.
        min_side_px: smallest side [native px].
    """
    extent = (boxes[:, 2:] - boxes[:, :2]).amax(dim=-1, keepdim=True)
    sizes_wh = native_hw.flip(-1).to(boxes)
    side = (extent * (1 + 2 * expand)).clamp_min(min_side_px)
    side = torch.minimum(side, sizes_wh.amax(dim=-1, keepdim=True))
    corner = (boxes[:, :2] + boxes[:, 2:] - side) / 2
    room = sizes_wh - side
    corner = torch.minimum(torch.maximum(corner, room.clamp_max(0)), room.clamp_min(0))
    return torch.cat([corner, corner + side], dim=-1)
