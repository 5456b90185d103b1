"""``ultrarefiner predict``: images in, coarse and refined masks out."""

from __future__ import annotations

import sys
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from ultrarefiner.cli.output import counted, fail_if_any, print_problems, progress
from ultrarefiner.cli.refiners import (
    DEFAULT_CHECKPOINT,
    add_refiner_arguments,
    calibrated_beside,
    seen_before,
    trained_refiner,
    untrained_refiner,
)
from ultrarefiner.coarse import CoarseCheckpoint, CoarsePredictor, load_checkpoint
from ultrarefiner.data.folds import outer_split
from ultrarefiner.data.manifest import Record, read_manifest
from ultrarefiner.data.pairing import find_images
from ultrarefiner.errors import ConfigError
from ultrarefiner.refine.checkpoint import RefinerCheckpoint, is_refiner, load_refiner
from ultrarefiner.refine.opinion import CoarseOpinions
from ultrarefiner.refine.predict import predict_images
from ultrarefiner.refine.predictor import Refiner
from ultrarefiner.report.run import write_report
from ultrarefiner.training.lineage import card_sha256


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    parser = ArgumentParser(
        description="Segment images with a trained network and refine the result. Research "
        "software, not a medical device."
    )
    parser.add_argument(
        "--checkpoint",
        type=str,
        default=[DEFAULT_CHECKPOINT],
        nargs="+",
        help="a name, file or folder of 'train'; several are averaged",
    )
    parser.add_argument("--images", type=Path | None, default=None, help="folder of images")
    parser.add_argument(
        "--manifest", type=Path | None, default=None, help="instead of --images: a manifest"
    )
    parser.add_argument(
        "--fold", type=str | None, default=None, help="only this fold of the manifest"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for masks and results.csv")
    add_refiner_arguments(parser)
    return parser


def run(args: Namespace) -> int:
    """Predict, report, and say how it went."""
    records = _records(args)
    checkpoints, refiner = _load(args)
    network = CoarsePredictor(
        [checkpoint.network for checkpoint in checkpoints],
        flips=refiner.config.flips,
        device=args.device,
    )
    about = {
        "command": args.command_line,
        "checkpoints": list(args.checkpoint),
        "card_sha256": [card_sha256(checkpoint.card) for checkpoint in checkpoints],
        "notes": calibrated_beside(args.checkpoint),
    }
    result = predict_images(
        [record.image for record in records],
        args.out,
        CoarseOpinions(network, refiner),
        options=args.options,
        about=about,
        track=progress("segmenting"),
    )
    write_report([args.out], args.out / "report.html")
    print(
        f"{counted(result.num_refined, 'image')} segmented, {result.num_accepted} of them refined; "
        f"see {args.out / 'report.html'}"
    )
    print("research software, not a medical device: do not use it for diagnosis", file=sys.stderr)
    doubts = _doubtful_opinion(refiner, checkpoints[0])
    seen = seen_before(records, [(known.origin, known.card) for known in checkpoints])
    print_problems("note", [*doubts, *seen, *result.notes])
    return fail_if_any(result.failures)


def _load(args: Namespace) -> tuple[list[CoarseCheckpoint | RefinerCheckpoint], Refiner]:
    """Return the checkpoints whose coarse networks are averaged, and the refiner behind them.

    Raises:
        ConfigError: a trained refiner among several checkpoints: it fits its own network.
    """
    trained = [name for name in args.checkpoint if is_refiner(name)]
    if not trained:
        return [load_checkpoint(name) for name in args.checkpoint], untrained_refiner(args)
    if len(args.checkpoint) > 1:
        raise ConfigError(
            f"--checkpoint {trained[0]}",
            expected="a trained refiner alone, or coarse networks (folder/coarse.safetensors)",
            found=f"{len(args.checkpoint)} checkpoints",
        )
    checkpoint = load_refiner(trained[0])
    return [checkpoint], trained_refiner(checkpoint, args)


def _records(args: Namespace) -> list[Record]:
    """Return the images; only a manifest says whose they are."""
    if (args.images is None) == (args.manifest is None):
        raise ConfigError("what to segment", expected="either --images or --manifest")
    if args.images is not None:
        if args.fold is not None:
            raise ConfigError("--fold", expected="--manifest with it", found="--images")
        return [Record(image=path) for path in find_images(args.images)]
    records = read_manifest(args.manifest)
    if args.fold is not None:
        _, records = outer_split(records, args.fold)
    return list(records)


def _doubtful_opinion(
    refiner: Refiner, checkpoint: CoarseCheckpoint | RefinerCheckpoint
) -> list[tuple[str, str]]:
    """Remark on the second opinion of a foundation model that never learned to give one."""
    if not refiner.config.second_opinion:
        return []
    recipe, last = checkpoint.card.get("recipe") or {}, checkpoint.card.get("phase", 1)
    phases = [recipe.get(f"phase{number}", {}) for number in range(2, last + 1)]
    if any(phase.get("unasked_share") for phase in phases):
        return []
    remark = "the foundation model was not trained without a prompt (unasked_share 0): doubt it"
    return [("refiner second_opinion", remark)]
