"""The way into a region of interest and back: ours against the source document's, through 1024.

Run: ``python benchmarks/roi.py`` (a minute on 2 cores, of which it uses one). Eight images of
480 x 640 with a lesion each, coarse maps of 224 x 224, squares around the lesions. The alternative
does what the document says (section 5.2): it scales the image to the 1024 x 1024 frame, samples the
square from there as 1024 x 1024 px, and shrinks that to the model's input; on the way back it
enlarges the answer to 1024 x 1024, samples it into the frame, puts it over the enlarged coarse map,
and shrinks that to the coarse grid. Both sides know the squares.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from _lesions import BATCH, COARSE_SIDE, StoredAnswers, draw_lesions, scene_of
from _timing import measure, print_result, print_table, versions
from ultrarefiner.ops.frames import Frames
from ultrarefiner.ops.resampling import resample_between
from ultrarefiner.refine.localization import Localizer
from ultrarefiner.refine.roi import CropToLesion, RoiConfig

NATIVE_HW = (480, 640)
FRAME_SIDE, INPUT_SIDE, MASK_SIDE = 1024, 256, 256
RADIUS_PX = (40.0, 110.0)
REPEATS = 15

# Bilinear interpolation twice instead of once, on edges 6 px and more wide: of a range of 1.
TOLERANCE = 0.02
# Of the gradient's length, in means over 8 x 8 px: grid_sample looks at some pixels of the answer
# more than at others where it shrinks it, so that single ones differ by a fifth.
GRADIENT_TOLERANCE, GRADIENT_CELL = 0.05, 8


class Document:
    """The source document's way, all pixels of the frame at every step.

    Args:
        windows_xyxy: ``B 4`` the squares [native px].
    """

    def __init__(self, windows_xyxy: Tensor):
        scale = FRAME_SIDE / max(NATIVE_HW)
        self.content_hw = tuple(round(length * scale) for length in NATIVE_HW)
        # In units of the frame, which grid_sample knows as -1 to 1.
        low, high = (scale / FRAME_SIDE * windows_xyxy).view(-1, 2, 2).unbind(dim=1)
        self.way_in = affine(high - low, low + high - 1)
        self.way_back = affine(1 / (high - low), (1 - low - high) / (high - low))

    def crop(self, images: Tensor, side: int) -> Tensor:
        """Return the squares as ``side`` x ``side`` px."""
        large = F.interpolate(images, self.content_hw, mode="bilinear")
        frame = F.pad(large, (0, FRAME_SIDE - large.shape[-1], 0, FRAME_SIDE - large.shape[-2]))
        # As everywhere else, what a border pixel lacks is not black but the border.
        settings = {"padding_mode": "border", "align_corners": False}
        square = F.grid_sample(frame, grid_of(self.way_in), **settings)
        return square if side == FRAME_SIDE else F.interpolate(square, (side, side), mode="area")

    def paste(self, answer: Tensor, coarse: Tensor) -> Tensor:
        """Return the answer over the coarse map, on the coarse grid."""
        square = F.interpolate(answer, (FRAME_SIDE, FRAME_SIDE), mode="bilinear")
        grid = grid_of(self.way_back)
        pasted = F.grid_sample(square, grid, align_corners=False)
        inside = (grid.abs() <= 1).all(dim=-1)[:, None]
        large = F.interpolate(coarse, (FRAME_SIDE, FRAME_SIDE), mode="bilinear")
        return F.interpolate(torch.where(inside, pasted, large), coarse.shape[-2:], mode="area")


def affine(scale: Tensor, offset: Tensor) -> Tensor:
    """Return ``B 2 3`` from ``B 2``, xy."""
    return torch.cat([torch.diag_embed(scale), offset[..., None]], dim=-1)


def grid_of(theta: Tensor) -> Tensor:
    return F.affine_grid(theta, [len(theta), 1, FRAME_SIDE, FRAME_SIDE], align_corners=False)


def smooth_noise(shape: tuple[int, int, int, int], generator: torch.Generator) -> Tensor:
    """Return images in [0, 1] whose details are 20 px and more wide."""
    *lead, height, width = shape
    noise = torch.rand(*lead, height // 20, width // 20, generator=generator)
    return F.interpolate(noise, (height, width), mode="bicubic").clamp(0, 1)


def frame_coarse(native: Tensor) -> Tensor:
    """Return native maps on the coarse grid, letterboxed."""
    native_hw = torch.tensor(NATIVE_HW).expand(len(native), 2)
    whole = Frames.native(native_hw, NATIVE_HW)
    return resample_between(whole, Frames.letterboxed(native_hw, COARSE_SIDE))(native)


def gradients(
    paste: Callable[[Tensor, Tensor], Tensor], maps: tuple[Tensor, Tensor], weights: Tensor
) -> tuple[Tensor, ...]:
    """Return the gradients of a weighted sum of the pasted map: of answer and coarse map."""
    leaves = [values.clone().requires_grad_() for values in maps]
    return torch.autograd.grad((paste(*leaves) * weights).sum(), leaves)


def cell_difference(found: Tensor, expected: Tensor) -> float:
    """Return how far two gradients are apart, averaged over cells, relative to their length."""
    found, expected = (F.avg_pool2d(values, GRADIENT_CELL) for values in (found, expected))
    return float((found - expected).norm() / expected.norm())


def main() -> int:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    images = smooth_noise((BATCH, 1, *NATIVE_HW), generator)
    coarse = frame_coarse(draw_lesions(RADIUS_PX, NATIVE_HW, generator))
    scene = scene_of(coarse, images)
    lesions, roi = Localizer()(scene), CropToLesion(RoiConfig(crop=True))
    models = {
        side: StoredAnswers(torch.empty(0), input_size=side, mask_size=MASK_SIDE)
        for side in (INPUT_SIDE, FRAME_SIDE)
    }
    view = roi.look(scene, lesions, models[INPUT_SIDE])
    document = Document(view.frames.windows)
    answer = view.to_mask_grid(coarse) ** 2  # another map, which meets the coarse one outside
    weights = smooth_noise((BATCH, 1, COARSE_SIDE, COARSE_SIDE), generator)
    weights = weights * scene.content()  # in the padding only the document has gradients
    maps = (answer, coarse)

    def our_paste(answer: Tensor, coarse: Tensor) -> Tensor:
        return replace(view, scene=replace(scene, coarse=coarse)).paste(answer)

    def our_crop(side: int) -> Tensor:
        return roi.look(scene, lesions, models[side]).images()[0]

    pairs = {
        "crop": (partial(our_crop, INPUT_SIDE), partial(document.crop, images, INPUT_SIDE)),
        "crop_1024": (partial(our_crop, FRAME_SIDE), partial(document.crop, images, FRAME_SIDE)),
        "paste": (partial(our_paste, *maps), partial(document.paste, *maps)),
    }
    pairs = {key: (torch.no_grad()(a), torch.no_grad()(b)) for key, (a, b) in pairs.items()}
    differences = {
        key: float((ours() - theirs()).abs().max()) for key, (ours, theirs) in pairs.items()
    }
    backward = tuple(
        partial(gradients, paste, maps, weights) for paste in (our_paste, document.paste)
    )
    gradient_difference = max(
        cell_difference(*pair) for pair in zip(backward[0](), backward[1](), strict=True)
    )
    ratios = {}
    print(f"{BATCH} images of 480 x 640, coarse maps of 224 x 224, {REPEATS} repeats, one thread")
    for key, (ours, theirs) in (pairs | {"paste_forward_backward": backward}).items():
        timings = measure({"ultrarefiner": ours, "document": theirs}, repeats=REPEATS, warmup=1)
        print(key)
        print_table(timings, reference="ultrarefiner")
        ratios[key] = timings["document"].median_s / timings["ultrarefiner"].median_s
    agree = max(differences.values()) <= TOLERANCE and gradient_difference <= GRADIENT_TOLERANCE
    print_result(
        "roi",
        ratios=ratios,
        checks={
            "agree": agree,
            "largest_differences": differences,
            "paste_gradient_difference": gradient_difference,
            "threads": torch.get_num_threads(),
        },
        versions=versions("ultrarefiner", "torch"),
    )
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
