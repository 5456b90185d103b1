"""Training LiteMedSAM's decoder to correct masks: embeddings from the cache, or encoded each time.

Run: ``python benchmarks/phase2.py`` (five minutes on 2 cores). A step is phase 2's loss, the
backward pass, clipping and AdamW on a batch of 4, with the settings of the recipes. Ours takes the
frozen encoder's embeddings from the bfloat16 cache, under autocast where the processor is made for
it; the alternative encodes the images at every step, in float32. Each is timed with one thread and
with two; the masks are corrupted truths.

Then a short training is run as ``ultrarefiner train`` runs it, without worker processes: images are
read, masks corrupted and embeddings fetched beside nothing, and the share of the time that the
steps wait for that is reported.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from _joint import Step, draw_records, relative_difference
from _timing import measure, print_result, print_table, versions
from ultrarefiner.data.manifest import Record
from ultrarefiner.foundation import FoundationModel, lite_medsam
from ultrarefiner.precision import bf16_is_fast
from ultrarefiner.refine.assembly import grid_side
from ultrarefiner.training.embedding_cache import IDENTITY, EmbeddingCache
from ultrarefiner.training.engine.fitting import Fitted, Hardware, fit
from ultrarefiner.training.material import RefinementData
from ultrarefiner.training.recipe import Phase2Config, trainable_refiner
from ultrarefiner.training.refinement_data import Collate, Mixture, RefinementDataset
from ultrarefiner.training.refiner_module import RefinerModule
from ultrarefiner.training.tuning import training_pipeline

THREADS = (1, 2)
NUM_VALIDATED = 4
LIMIT_PER_S = 5.0
MAX_WAIT_SHARE = 0.05
PHASE2 = Phase2Config(epochs=2)
REFINER = trainable_refiner()
OURS, OTHER = "ultrarefiner", "encoded each time, fp32"
# Of the logits' spread, and of a loss of about 0.5: bfloat16 in encoder, cache and decoder.
LOGIT_TOLERANCE, LOSS_TOLERANCE = 0.1, 0.03


def new_module() -> RefinerModule:
    """Return pretrained LiteMedSAM, to be trained."""
    return RefinerModule(training_pipeline(lite_medsam(), REFINER), PHASE2, trainable="decoder")


class Material:
    """Corrupted truths of phantoms, and embeddings of their images.

    Args:
        records: the last few are for validation.
        folder: for the embeddings.
        model: that makes them.
    """

    def __init__(self, records: Sequence[Record], folder: Path, model: FoundationModel) -> None:
        self.records, self.side = records, grid_side(model, REFINER)
        bf16 = bf16_is_fast(torch.device("cpu"))
        self.cache = EmbeddingCache.open(folder, model, views=(IDENTITY,), bf16=bf16)
        self.digests = self.cache.build(model, [record.image for record in records]).images

    def items(self, part: slice, *, cached: bool = True) -> RefinementDataset:
        return RefinementDataset(
            self.records[part],
            Mixture(real_share=0.0),
            self.side,
            out_of_fold=None,
            digests=self.digests[part] if cached else None,
        )

    def step(self, *, ours: bool) -> Step:
        """Return a step on the first images."""
        items = self.items(slice(PHASE2.batch_size), cached=ours)
        collate = Collate(self.cache if ours else None)
        batch = collate([items[i] for i in range(len(items))])
        return Step(new_module(), batch, bf16=ours)

    def train(self, folder: Path) -> Fitted:
        """Train for some epochs."""
        data = RefinementData(
            self.items(slice(-NUM_VALIDATED)),
            self.items(slice(-NUM_VALIDATED, None)),
            collate=Collate(self.cache),
            batch_size=PHASE2.batch_size,
        )
        data.preload(lambda items, _: items)
        hardware = Hardware(device="cpu")
        return fit(new_module(), data, folder, schedule=PHASE2, plan={}, hardware=hardware)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7, help="(default: %(default)s)")
    parser.add_argument("--num", type=int, default=36, help="images (default: %(default)s)")
    given = parser.parse_args()
    ratios: dict[str, float] = {}
    per_s: dict[str, float] = {}
    with TemporaryDirectory() as name:
        records = draw_records(given.num, Path(name) / "images")
        material = Material(records, Path(name) / "embeddings", lite_medsam())
        steps = {OURS: material.step(ours=True), OTHER: material.step(ours=False)}
        apart = {
            "logits": relative_difference(*(step.logits() for step in steps.values())),
            "loss": abs(float(steps[OURS].loss().detach() - steps[OTHER].loss().detach())),
        }
        for threads in THREADS:
            torch.set_num_threads(threads)
            timings = measure(steps, repeats=given.repeats, warmup=1)
            print(f"batch of {PHASE2.batch_size}, {given.repeats} repeats, threads: {threads}")
            print_table(timings, reference=OURS)
            seconds = {side: timing.median_s for side, timing in timings.items()}
            per_s |= {f"{s}, {threads}": PHASE2.batch_size / seconds[s] for s in steps}
            ratios[f"threads_{threads}"] = seconds[OTHER] / seconds[OURS]
        for side, found in per_s.items():
            print(f"images per second, {side} threads: {found:.2f}")
        fitted = material.train(Path(name) / "run")
    num = PHASE2.epochs * (given.num - NUM_VALIDATED)
    print(f"{num} images trained on, {fitted.describe()}")
    agree = apart["logits"] <= LOGIT_TOLERANCE and apart["loss"] <= LOSS_TOLERANCE
    print_result(
        "phase2",
        ratios=ratios,
        checks={
            "agree": agree,
            "differences": apart,
            "images_per_s": {side: round(found, 2) for side, found in per_s.items()},
            "fast_enough": per_s[f"{OURS}, {THREADS[-1]}"] >= LIMIT_PER_S,
            "loader_wait_share": round(fitted.loader_wait_share, 4),
            "never_starved": fitted.loader_wait_share <= MAX_WAIT_SHARE,
            "bf16": bf16_is_fast(torch.device("cpu")),
        },
        versions=versions("ultrarefiner", "torch", "pytorch-lightning"),
    )
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
