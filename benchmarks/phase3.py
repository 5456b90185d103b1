"""A step of joint training at the paper's size: TransUNet and SAM ViT-B, images of phantoms.

Run: ``python benchmarks/phase3.py`` (a quarter of an hour on 2 cores, 10 GB), after ``python -m pip
install -r benchmarks/requirements.txt``. A step is the module's loss, the backward pass, clipping
and AdamW over TransUNet (105 million parameters), prompt encoder and mask decoder. The prompts are
those of the ``literal`` preset: box, two points, blurred mask. All weights are random.

- ``cached_step``: ours takes the frozen encoder's embeddings from the bfloat16 cache and makes its
  prompts on the 256 px grid. The alternative recomputes them in float32 and makes its prompts as
  the document says, on 1024 x 1024 (see ``prompts.py``); the rest is the same, under bfloat16
  autocast too. ``cached_step_vs_fp32`` compares with the same in float32 throughout.
- ``roi_step``: each lesion has a crop of its own, so that nothing can be cached. Ours encodes it in
  bfloat16 and takes the crop as given; the alternative (``roi.gradient: full``) builds the graph
  through crop and encoder, in float32.

Memory is the peak of a process of its own for each side, less what Python and the libraries hold
before the first weight (0.9 GB here; both are printed): weights, the copy that they are anchored
to, gradients, the optimizer's moments, activations. Ours drops the encoder, as training does.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from _joint import (
    SAM_MASK,
    SamViTB,
    Step,
    TransUNet,
    draw_records,
    peak_gigabytes,
    peaks_of,
    relative_difference,
)
from _timing import measure, print_result, print_table, versions
from prompts import FRAME_SIDE, Literal
from ultrarefiner.data.manifest import read_manifest
from ultrarefiner.data.readers import read_image
from ultrarefiner.precision import bf16_is_fast
from ultrarefiner.refine.assembly import PRESETS, grid_side
from ultrarefiner.refine.localization import Lesions, clamp_boxes
from ultrarefiner.refine.prompts import BACKGROUND, LESION, LesionPrompts
from ultrarefiner.refine.roi import RoiConfig, View
from ultrarefiner.refine.scene import Scene
from ultrarefiner.training.embedding_cache import IDENTITY, EmbeddingCache, pixels_sha256
from ultrarefiner.training.joint_module import JointModule
from ultrarefiner.training.recipe import Phase3Config
from ultrarefiner.training.refinement_data import (
    Collate,
    Mixture,
    RefinementBatch,
    RefinementDataset,
)
from ultrarefiner.training.tuning import drop_encoder, training_pipeline


@dataclass(frozen=True, kw_only=True)
class Side:
    """How a step is made.

    Attributes:
        cached: embeddings come from the cache.
        document: prompts are made on 1024 x 1024.
        roi: what the foundation model looks at.
        bf16: all under autocast; else all in float32.
        exact_encoder: the encoder alone in float32.
        limit_gb: what it may hold in memory, libraries apart.
    """

    cached: bool = False
    document: bool = False
    roi: RoiConfig = field(default_factory=RoiConfig)
    bf16: bool = False
    exact_encoder: bool = False
    limit_gb: float | None = None


OURS, OURS_ROI = "ultrarefiner", "ultrarefiner, roi"
CACHED = {
    OURS: Side(cached=True, bf16=True, limit_gb=3.5),
    "recomputed": Side(document=True, bf16=True, exact_encoder=True),
    "recomputed, all fp32": Side(document=True),
}
ROI = {
    OURS_ROI: Side(roi=RoiConfig(crop=True), bf16=True, limit_gb=5.0),
    "graph through encoder": Side(roi=RoiConfig(crop=True, gradient="full")),
}
SIDES = CACHED | ROI
RATIOS = {
    "recomputed": "cached_step",
    "recomputed, all fp32": "cached_step_vs_fp32",
    "graph through encoder": "roi_step",
}
PHASE3 = Phase3Config(frozen_epochs=0)
# Of the logits' spread and of a loss of about 0.7: bfloat16 in decoder and embeddings, and the
# document's prompts, which are off by up to half a px (see prompts.py).
LOGIT_TOLERANCE, LOSS_TOLERANCE = 0.05, 0.02


class DocumentLocalizer(nn.Module):
    """The document's statistics of the whole map on the 1024 x 1024 frame, in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.literal = Literal("gaussian")
        self.found: tuple[Tensor, ...] = ()

    def forward(self, scene: Scene) -> Lesions:
        with torch.autocast(scene.coarse.device.type, enabled=False):
            self.found = self.literal(scene.coarse)
        boxes = self.found[2] * (scene.coarse.shape[-1] / FRAME_SIDE)
        return Lesions(
            probs=scene.coarse,
            weights=scene.coarse,
            boxes=clamp_boxes(boxes, scene.content_boxes()),
            no_lesion=torch.zeros(len(boxes), dtype=torch.bool),
        )


class DocumentPrompts(nn.Module):
    """Box, centroid, background centroid and mask logits that the localiser found."""

    def __init__(self, localizer: DocumentLocalizer) -> None:
        super().__init__()
        self.localizer = localizer

    def forward(self, lesions: Lesions, view: View) -> LesionPrompts:
        centroid, background, _, masks = self.localizer.found
        points = torch.stack([centroid, background], dim=1)
        return LesionPrompts(
            boxes=lesions.boxes[:, None],
            has_box=None,
            point_coords=points * (view.scene.coarse.shape[-1] / FRAME_SIDE),
            point_labels=torch.tensor([LESION, BACKGROUND]).expand(len(points), 2),
            masks=masks,
            has_mask=None,
        )


@dataclass(frozen=True, kw_only=True)
class Networks:
    """What all sides train, and the images that they train on.

    Attributes:
        coarse: TransUNet.
        foundation: SAM ViT-B.
        folder: with phantoms and embeddings.
    """

    coarse: TransUNet
    foundation: SamViTB
    folder: Path

    def step(self, name: str) -> Step:
        """Return a side's step."""
        side = SIDES[name]
        config = replace(PRESETS["literal"], roi=side.roi)
        foundation = copy.copy(self.foundation)  # the same parts
        foundation.exact = side.exact_encoder
        pipeline = training_pipeline(foundation, config)
        if side.document:
            pipeline.localizer = DocumentLocalizer()
            pipeline.prompts = DocumentPrompts(pipeline.localizer)
        module = JointModule(self.coarse, pipeline, PHASE3, trainable="decoder+prompt")
        batch = self.batch(grid_side(foundation, config), cached=side.cached)
        return Step(module, batch, bf16=side.bf16)

    def batch(self, grid_px: int, *, cached: bool) -> RefinementBatch:
        """Return corrupted truths and, for every other image, the network's own map instead."""
        records = read_manifest(self.folder / "manifest.csv")
        items = RefinementDataset(
            records,
            Mixture(given_share=1.0, real_share=0.0),
            grid_px,
            out_of_fold=None,
            digests=[pixels_sha256(read_image(r.image)) for r in records] if cached else None,
            network_frame=(self.coarse.config.side, 1),
        )
        collate = Collate(self.cache() if cached else None)
        batch = collate([items[i] for i in range(len(items))])
        batch["is_given"] = torch.arange(len(items)) % 2 == 0
        return batch

    def cache(self) -> EmbeddingCache:
        bf16 = bf16_is_fast(torch.device("cpu"))
        folder = self.folder / "embeddings"
        return EmbeddingCache.open(folder, self.foundation, views=(IDENTITY,), bf16=bf16)


def load(folder: Path) -> Networks:
    """Return the same networks in every process."""
    torch.manual_seed(0)
    return Networks(coarse=TransUNet(), foundation=SamViTB(), folder=folder)


def report_memory(name: str, folder: Path) -> None:
    """Print what this new process held before it had weights, and at the most [GB]."""
    before = peak_gigabytes()
    networks = load(folder)
    step = networks.step(name)
    if SIDES[name].cached:
        drop_encoder(networks.foundation)
    step()
    step()  # the optimizer's moments are there only after the first
    print(before, peak_gigabytes())


def differences(steps: Mapping[str, Step], reference: str) -> dict[str, dict[str, float]]:
    """Return how far the other sides' answers and losses are from the reference's."""
    logits = {name: step.logits() for name, step in steps.items()}
    losses = {name: float(step.loss().detach()) for name, step in steps.items()}
    return {
        name: {
            "logits": relative_difference(logits[reference], logits[name]),
            "loss": abs(losses[reference] - losses[name]),
        }
        for name in steps
        if name != reference
    }


def compare(
    names: Iterable[str], networks: Networks, repeats: int
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Check and time some sides, the first of which is ours.

    Returns:
        Side to seconds a step; and how far the others are from ours.
    """
    steps = {name: networks.step(name) for name in names}
    ours = next(iter(steps))
    apart = differences(steps, ours)
    timings = measure(steps, repeats=repeats, warmup=1)
    num = len(steps[ours].batch["names"])
    print(f"batch of {num}, {repeats} repeats, {torch.get_num_threads()} threads")
    print_table(timings, reference=ours)
    for name, timing in timings.items():
        print(f"seconds per image, {name}: {timing.median_s / num:.2f}")
    return {name: timing.median_s for name, timing in timings.items()}, apart


def prepare(num: int, folder: Path) -> Networks:
    """Write images and their embeddings, and return the networks."""
    draw_records(num, folder, SAM_MASK)
    networks = load(folder)
    records = read_manifest(folder / "manifest.csv")
    networks.cache().build(networks.foundation, [record.image for record in records])
    return networks


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--batch", type=int, default=2, help="images (default: %(default)s)")
    parser.add_argument("--roi-batch", type=int, default=1, help="images (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--alone", choices=SIDES, help="only take steps of one side, for its peak")
    parser.add_argument("--folder", type=Path, help="with what the other sides use, for --alone")
    return parser.parse_args()


def main() -> int:
    given = arguments()
    torch.set_num_threads(given.threads)
    if given.alone:
        report_memory(given.alone, given.folder)
        return 0
    ratios: dict[str, float] = {}
    apart: dict[str, dict[str, float]] = {}
    peaks: dict[str, tuple[float, float]] = {}
    for sides, num in ((CACHED, given.batch), (ROI, given.roi_batch)):
        with TemporaryDirectory() as name:
            networks = prepare(num, Path(name))
            options = ("--folder", name, "--threads", str(given.threads))
            peaks |= peaks_of(__file__, list(sides), *options)
            for side in sides:
                before, peak = peaks[side]
                print(f"{side}: {peak - before:.2f} GB at most, and {before:.2f} GB of libraries")
            seconds, found = compare(sides, networks, given.repeats)
        ours, *others = sides
        ratios |= {RATIOS[other]: seconds[other] / seconds[ours] for other in others}
        apart |= found
    agree = all(
        found["logits"] <= LOGIT_TOLERANCE and found["loss"] <= LOSS_TOLERANCE
        for found in apart.values()
    )
    print_result(
        "phase3",
        ratios=ratios,
        checks={
            "agree": agree,
            "differences": apart,
            "peak_gb": {name: round(peak - before, 2) for name, (before, peak) in peaks.items()},
            "libraries_gb": {name: round(before, 2) for name, (before, _) in peaks.items()},
            "within_memory": all(
                peaks[name][1] - peaks[name][0] <= side.limit_gb
                for name, side in SIDES.items()
                if side.limit_gb
            ),
            "batch": [given.batch, given.roi_batch],
            "bf16": bf16_is_fast(torch.device("cpu")),
            "threads": given.threads,
        },
        versions=versions("ultrarefiner", "torch", "transformers", "timm"),
    )
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
