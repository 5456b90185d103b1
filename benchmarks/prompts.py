"""Prompts of 8 coarse maps of 224 x 224: ours against the source document's formulas, at 1024.

Run: ``python benchmarks/prompts.py`` (four minutes on 2 cores, of which it uses one). Both sides
make the ``literal`` prompts of a SAM: centroid, background centroid, box of 2.5 standard
deviations, and a mask of 256 x 256 logits. The alternative does what the document says, in this
order: upsample the map to 1024 x 1024, weighted sums over all its pixels, 33 x 33 Gaussian, logits.
Ours stays on the coarse grid.

Of the spellings of that 33 x 33 convolution, the fastest one of torch is timed: a plain ``conv2d``
for each map. (One grouped call for all eight takes 14 times as long.) Two passes of 33 px are
measured, too: a Gaussian need not be written densely.

``backward`` is the gradient of a random linear function of all prompts with respect to the map.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from _lesions import BATCH, COARSE_SIDE, StoredAnswers, draw_lesions, scene_of
from _timing import Timing, measure, print_result, print_table, versions
from ultrarefiner.ops.mask_logits import adaptive_sigma
from ultrarefiner.refine.assembly import PRESETS
from ultrarefiner.refine.localization import Localizer
from ultrarefiner.refine.prompts import PromptStage
from ultrarefiner.refine.roi import WholeFrame
from ultrarefiner.refine.scene import Scene

FRAME_SIDE, MASK_SIDE = 1024, 256
NUM_STDS, SCALE = 2.5, 10.0
REACH_PX = 16
"""The Gaussian's 33 x 33 px end here, so lesions are so small that it is 3 sigma or more."""
RADIUS_PX = (6.0, 11.0)
REPEATS = 5
CALLS_IN_A_ROW = 20
"""Of ours, which is too short to be timed once between calls of many seconds."""

# Bilinear upsampling widens the map by a triangle of variance 1/6 px of the coarse grid, where ours
# takes pixels for squares of 1/12; the sums are the same otherwise.
# The document's box consists of whole pixels, where ours cuts them: each side is off by up to half
# a pixel, beyond which there is background and inside which there is half lesion.
# The 33 px cut up to 0.3 % of the Gaussian along each axis, and averaging 4 x 4 px adds a variance
# of 1/12 px where ours takes the value at the centre: 1 % of the range, -10 to 10, on a steep edge.
TOLERANCES = {"centroid_px": 0.25, "background_px": 1.0, "box_px": 0.25, "logits": 0.2}
# For the same reason: white noise on the logits is averaged over other pixels than ours.
ANGLE_TOLERANCES = {"centroid_px": 1.0, "box_px": 1.0, "logits": 10.0}

Outputs = tuple[Tensor, Tensor, Tensor, Tensor]
"""Centroid, background centroid and box [px of 1024], mask logits."""
Side = Callable[[Tensor], Outputs]


class Ours:
    """The stages themselves, on a scene that was built before."""

    def __init__(self, scene: Scene, mask: str):
        config = PRESETS["literal"]
        self.scene = scene
        self.localizer, self.roi = Localizer(config.localizer), WholeFrame()
        self.stage = PromptStage(replace(config.prompts, mask=mask))
        self.model = StoredAnswers(torch.empty(0), input_size=FRAME_SIDE, mask_size=MASK_SIDE)

    def __call__(self, coarse: Tensor) -> Outputs:
        scene = replace(self.scene, coarse=coarse)
        lesions = self.localizer(scene)
        view = self.roi.look(scene, lesions, self.model)
        prompts = self.stage(lesions, view)
        here, there = scene.lesion_frames(), view.lesion_frames()
        points = there.from_native(here.to_native(prompts.point_coords))
        boxes = there.boxes_from_native(here.boxes_to_native(prompts.boxes))[:, 0]
        return points[:, 0], points[:, 1], boxes, prompts.masks


class Literal:
    """The source document, sections 2.3.1 and 3.1-3.3."""

    def __init__(self, mask: str, blur: Callable[[Tensor, Tensor], Tensor] | None = None):
        self.mask, self.blur = mask, blur or dense_blur
        centres = torch.arange(FRAME_SIDE) + 0.5
        self.y, self.x = torch.meshgrid(centres, centres, indexing="ij")

    def __call__(self, coarse: Tensor) -> Outputs:
        probs = F.interpolate(coarse, (FRAME_SIDE, FRAME_SIDE), mode="bilinear")[:, 0]
        centroid, std = self.moments(probs)
        box = torch.cat([centroid - NUM_STDS * std, centroid + NUM_STDS * std], dim=-1)
        x0, y0, x1, y1 = box[..., None, None].unbind(1)
        inside = (self.x >= x0) & (self.x <= x1) & (self.y >= y0) & (self.y <= y1)
        background = self.mean((1 - probs) * inside)
        return centroid, background, box, self.logits(probs)

    def mean(self, weights: Tensor) -> Tensor:
        sums = [(weights * axis).sum(dim=(-2, -1)) for axis in (self.x, self.y)]
        return torch.stack(sums, dim=-1) / weights.sum(dim=(-2, -1))[:, None]

    def moments(self, probs: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.mean(probs)
        squares = [
            (probs * (axis - mean[:, i, None, None]) ** 2).sum(dim=(-2, -1))
            for i, axis in enumerate((self.x, self.y))
        ]
        variance = torch.stack(squares, dim=-1) / probs.sum(dim=(-2, -1))[:, None]
        return mean, variance.sqrt()

    def logits(self, probs: Tensor) -> Tensor:
        ratio = FRAME_SIDE // MASK_SIDE
        if self.mask == "gaussian":
            area_px = probs.sum(dim=(-2, -1)) / ratio**2
            probs = self.blur(probs, ratio * adaptive_sigma(area_px))
        return (2 * F.avg_pool2d(probs[:, None], ratio) - 1) * SCALE


def gaussian_taps(sigma_px: Tensor) -> Tensor:
    offsets = torch.arange(-REACH_PX, REACH_PX + 1)
    return torch.softmax(-0.5 * (offsets / sigma_px[:, None]) ** 2, dim=-1)


def dense_blur(maps: Tensor, sigma_px: Tensor) -> Tensor:
    taps = gaussian_taps(sigma_px)
    kernels = taps[:, :, None] * taps[:, None]
    pairs = zip(maps[:, None, None], kernels[:, None, None], strict=True)
    return torch.cat([F.conv2d(item, kernel, padding=REACH_PX)[0] for item, kernel in pairs])


def two_pass_blur(maps: Tensor, sigma_px: Tensor) -> Tensor:
    taps = gaussian_taps(sigma_px)
    settings = {"groups": len(maps)}  # here, one grouped call is the fastest
    columns = F.conv2d(maps[None], taps[:, None, :, None], padding=(REACH_PX, 0), **settings)
    return F.conv2d(columns, taps[:, None, None], padding=(0, REACH_PX), **settings)[0]


def largest_differences(found: Outputs, expected: Outputs) -> dict[str, float]:
    pairs = zip(TOLERANCES, found, expected, strict=True)
    return {name: float((f - e).abs().max()) for name, f, e in pairs}


def gradient(side: Side, coarse: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    """Return the gradient of the weighted sum of some outputs with respect to the map."""
    leaf = coarse.clone().requires_grad_()
    outputs = dict(zip(TOLERANCES, side(leaf), strict=True))
    total = sum((outputs[name] * weight).sum() for name, weight in weights.items())
    return torch.autograd.grad(total, leaf)[0]


@torch.no_grad()
def forward(side: Side, coarse: Tensor, weights: Mapping[str, Tensor]) -> Outputs:
    return side(coarse)


def angles(
    sides: tuple[Side, Side], coarse: Tensor, weights: Mapping[str, Tensor]
) -> dict[str, float]:
    """Return the largest angle between both sides' gradients of each output [degrees].

    The background point is left out: the document's box is an indicator and passes it no gradient.
    """
    found = {}
    for name in ANGLE_TOLERANCES:
        first, second = (gradient(side, coarse, {name: weights[name]}) for side in sides)
        cosines = F.cosine_similarity(first.flatten(1).double(), second.flatten(1).double())
        found[name] = math.degrees(math.acos(min(1.0, float(cosines.min()))))
    return found


def in_a_row(call: Callable[[], object]) -> Callable[[], object]:
    return lambda: [call() for _ in range(CALLS_IN_A_ROW)]


def measure_in_turn(
    ours: dict[str, Callable[[], object]], others: dict[str, Callable[[], object]]
) -> dict[str, Timing]:
    """Time all sides in turn; ours several times in a row."""
    sides = {name: in_a_row(call) for name, call in ours.items()} | others
    timings = measure(sides, repeats=REPEATS, warmup=1)
    for name in ours:
        total = timings[name]
        seconds = (total.median_s, total.q1_s, total.q3_s)
        timings[name] = Timing(*(s / CALLS_IN_A_ROW for s in seconds))
    return timings


def main() -> int:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    hw = (COARSE_SIDE, COARSE_SIDE)
    coarse = draw_lesions(RADIUS_PX, hw, generator)
    scene = scene_of(coarse, torch.zeros(BATCH, 1, *hw))
    ours = {mask: Ours(scene, mask) for mask in ("gaussian", "direct")}
    literal = {mask: Literal(mask) for mask in ours}
    outputs = {mask: (ours[mask](coarse), literal[mask](coarse)) for mask in ours}
    pairs = zip(TOLERANCES, outputs["direct"][0], strict=True)
    weights = {name: torch.randn(values.shape, generator=generator) for name, values in pairs}
    differences = {mask: largest_differences(*pair) for mask, pair in outputs.items()}
    degrees = {mask: angles((ours[mask], literal[mask]), coarse, weights) for mask in ours}
    agree = all(found[name] <= TOLERANCES[name] for found in differences.values() for name in found)
    agree &= all(
        found[name] <= ANGLE_TOLERANCES[name] for found in degrees.values() for name in found
    )

    others = {f"document, {mask}": side for mask, side in literal.items()}
    others["document, gaussian in two passes"] = Literal("gaussian", two_pass_blur)
    mine = {f"ultrarefiner, {mask}": side for mask, side in ours.items()}
    ratios: dict[str, float] = {}
    for way, run in (("forward", forward), ("forward_backward", gradient)):
        timings = measure_in_turn(
            {name: partial(run, side, coarse, weights) for name, side in mine.items()},
            {name: partial(run, side, coarse, weights) for name, side in others.items()},
        )
        print(f"{way}: {BATCH} maps of {hw[0]} x {hw[1]}, {REPEATS} repeats, one thread")
        print_table(timings, reference="ultrarefiner, gaussian")
        times = {name: timing.median_s for name, timing in timings.items()}
        for mask in ours:
            found = times[f"document, {mask}"] / times[f"ultrarefiner, {mask}"]
            ratios[f"{way}_{mask}"] = found
        two_passes_s = times["document, gaussian in two passes"]
        ratios[f"{way}_two_passes"] = two_passes_s / times["ultrarefiner, gaussian"]
    print_result(
        "prompts",
        ratios=ratios,
        checks={
            "agree": agree,
            "largest_differences": differences,
            "gradient_angles_degrees": degrees,
            "threads": torch.get_num_threads(),
        },
        versions=versions("ultrarefiner", "torch"),
    )
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
