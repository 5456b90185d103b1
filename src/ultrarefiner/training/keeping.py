"""What phases 2 and 3 leave behind: a checkpoint with its story, and that story as a file."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from ultrarefiner.coarse import CoarseNetwork
from ultrarefiner.data.atomic import atomic_path
from ultrarefiner.data.writers import write_json
from ultrarefiner.precision import bf16_is_fast, choose_device
from ultrarefiner.refine.checkpoint import encode_refiner
from ultrarefiner.refine.pipeline import RefinementPipeline
from ultrarefiner.training.engine.hardware import is_first_process, wait_for_others
from ultrarefiner.training.lineage import card_digests
from ultrarefiner.training.material import Material
from ultrarefiner.training.options import RunOptions
from ultrarefiner.training.phase import PhaseResult
from ultrarefiner.training.revision import git_revision
from ultrarefiner.training.split import count_patients


def keep_refiner(
    path: Path,
    network: CoarseNetwork,
    pipeline: RefinementPipeline,
    *,
    material: Material,
    result: PhaseResult,
    options: RunOptions,
) -> Path:
    """Write a checkpoint, and its card with what depends on the machine beside the phase's log.

    What a resumed run finds finished keeps its bytes, since later phases depend on them.
    """
    recipe, split = material.recipe, material.split
    card = {
        "command": options.command,
        "phase": result.phase,
        "recipe": asdict(recipe),
        "revision": git_revision(),
        "versions": {
            name: version(name) for name in ("ultrarefiner", "torch", "pytorch-lightning", "numpy")
        },
        "bf16": bf16_is_fast(choose_device(options.hardware.device)),
        "datasets": sorted({record.dataset for record in split.used}),
        "num_train": len(split.train),
        "num_pseudo": len(split.pseudo),
        "num_val": len(split.val),
        "num_patients": count_patients(split.used),
        "held_out_fold": split.fold,
        "num_held_out": len(split.held_out),
        "plan": dict(result.plan),
        "split_sha256": split.fingerprint,
        "inner_validation": {"before": asdict(result.before), "after": asdict(result.after)},
        "epoch": result.fitted.epoch,
        **card_digests(split.used, split.teachers.values()),
    }
    is_kept = options.resume and path.is_file()
    if is_first_process() and not is_kept:
        content = encode_refiner(
            network, pipeline, foundation=recipe.foundation, config=recipe.refiner, card=card
        )
        write_json(path.parent / f"phase{result.phase}" / "run.json", card | asdict(result.fitted))
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
    wait_for_others()
    return path
