"""Everything between the networks: 8 coarse maps of 224 x 224 from map to refined map.

Run: ``python benchmarks/pipeline.py`` (a minute on 2 cores, of which it uses one). The images were
encoded before, and the decoder answers at once with logits that it was made with, 256 x 256; what
is timed is the rest of ``RefinementPipeline.forward``, and the backward pass of a weighted sum of
the final maps. There are three settings:

- ``training``: one box, the single mask, uncertainty gate, no stabiliser. To be under 15 ms.
- ``literal``: the source document's, with two points, a mask prompt, three candidates and rules.
- ``default``: nine boxes per lesion, each answer weighed by its contrast in the image. For that,
  72 masks are blurred; it is meant for prediction, where the decoder is asked 72 times, too.

The alternative to the whole is the document's way through 1024 x 1024, part by part in
``prompts.py`` and ``roi.py``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from _lesions import BATCH, COARSE_SIDE, StoredAnswers, draw_lesions, scene_of
from _timing import measure, print_result, print_table, versions
from ultrarefiner.refine.assembly import PRESETS, RefinerConfig, build_pipeline
from ultrarefiner.refine.gates import GateConfig
from ultrarefiner.refine.pipeline import RefinementPipeline
from ultrarefiner.refine.prompts import PromptConfig
from ultrarefiner.refine.scene import Scene
from ultrarefiner.refine.selection import SelectionConfig
from ultrarefiner.refine.stabilization import StabilizerConfig

INPUT_SIDE, MASK_SIDE = 256, 256
EMBEDDING_SHAPE = (256, 64, 64)
RADIUS_PX = (15.0, 45.0)
REPEATS = 15
LIMIT_MS = 15.0

SETTINGS = {
    "training": RefinerConfig(
        prompts=PromptConfig(jitter=0.0),
        selection=SelectionConfig(kind="single"),
        gate=GateConfig(kind="uncertainty", minimum=0.0, maximum=0.8),
        stabilizer=StabilizerConfig(enabled=False),
    ),
    "literal": PRESETS["literal"],
    "default": PRESETS["default"],
}


def build_scene(coarse: Tensor, images: Tensor) -> Scene:
    return scene_of(coarse, images, embeddings=torch.zeros(BATCH, *EMBEDDING_SHAPE))


@torch.no_grad()
def forward(pipeline: RefinementPipeline, coarse: Tensor, images: Tensor) -> Tensor:
    """Return the final maps; the scene is new, as in training and prediction."""
    return pipeline(build_scene(coarse, images)).probs


def gradient(
    pipeline: RefinementPipeline, coarse: Tensor, images: Tensor, weights: Tensor
) -> Tensor:
    """Return the gradient of a weighted sum of the final maps with respect to the coarse maps."""
    leaf = coarse.clone().requires_grad_()
    final = pipeline(build_scene(leaf, images)).probs
    return torch.autograd.grad((final * weights).sum(), leaf)[0]


def main() -> int:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    hw = (COARSE_SIDE, COARSE_SIDE)
    coarse = draw_lesions(RADIUS_PX, hw, generator)
    images = torch.rand(BATCH, 1, *hw, generator=generator) - 0.5 * coarse
    answers = 4 * (torch.nn.functional.interpolate(coarse, (MASK_SIDE, MASK_SIDE)) - 0.4)
    model = StoredAnswers(answers, input_size=INPUT_SIDE, mask_size=MASK_SIDE)
    pipelines = {name: build_pipeline(model, config) for name, config in SETTINGS.items()}
    weights = torch.randn(coarse.shape, generator=generator)

    sides: dict[str, Callable[[], object]] = {}
    finite, bounded = True, True
    for name, pipeline in pipelines.items():
        sides[f"{name}, forward"] = partial(forward, pipeline, coarse, images)
        sides[f"{name}, forward + backward"] = partial(gradient, pipeline, coarse, images, weights)
        final = forward(pipeline, coarse, images)
        bounded &= bool(((final >= 0) & (final <= 1)).all())
        finite &= bool(gradient(pipeline, coarse, images, weights).isfinite().all())
    timings = measure(sides, repeats=REPEATS)
    print(f"{BATCH} maps of {hw[0]} x {hw[1]}, {REPEATS} repeats, one thread, no networks")
    print_table(timings, reference="training, forward")
    milliseconds = {name: round(1e3 * timing.median_s, 2) for name, timing in timings.items()}
    print_result(
        "pipeline",
        ratios={"limit": LIMIT_MS / milliseconds["training, forward"]},
        checks={
            "probabilities": bounded,
            "finite_gradients": finite,
            "milliseconds": milliseconds,
            "threads": torch.get_num_threads(),
        },
        versions=versions("ultrarefiner", "torch"),
    )
    return 0 if bounded and finite else 1


if __name__ == "__main__":
    sys.exit(main())
