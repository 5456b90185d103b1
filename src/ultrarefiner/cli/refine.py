"""``ultrarefiner refine``: coarse masks from anywhere in, better ones out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from ultrarefiner.cli.output import counted, fail_if_any, print_problems, progress
from ultrarefiner.cli.refiners import (
    DEFAULT_CHECKPOINT,
    add_refiner_arguments,
    calibrated_beside,
    chosen_settings,
    refuse_opinion,
    seen_before,
    trained_refiner,
    untrained_refiner,
)
from ultrarefiner.data.manifest import Record
from ultrarefiner.data.pairing import pair_by_stem
from ultrarefiner.refine.checkpoint import RefinerCheckpoint, load_refiner
from ultrarefiner.refine.folder import refine_folder
from ultrarefiner.refine.predictor import Refiner
from ultrarefiner.report.run import write_report
from ultrarefiner.training.lineage import card_sha256

UNTRAINED = "none"


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    parser = ArgumentParser(description="Refine every image that has a coarse mask.")
    parser.add_argument("--images", type=Path, required=True, help="folder of images")
    parser.add_argument(
        "--coarse", type=Path, required=True, help="folder of coarse masks, matched by file stem"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for masks, results.csv and report.html"
    )
    parser.add_argument(
        "--label", type=int | None, default=None, help="value of the lesion in label maps"
    )
    parser.add_argument(
        "--checkpoint",
        type=str,
        default=None,
        help="a trained refiner: a name, a file or a folder of 'train'; or none, which is the "
        f"published model; default: {DEFAULT_CHECKPOINT}, or none where --foundation, --preset or "
        "--refiner say what it was not trained with",
    )
    add_refiner_arguments(parser)
    return parser


def run(args: Namespace) -> int:
    """Refine, report, and say how it went."""
    refuse_opinion(args.refiner)
    refiner, checkpoint = _refiner(args)
    result = refine_folder(
        args.images,
        args.coarse,
        args.out,
        refiner,
        label=args.label,
        options=args.options,
        about={"command": args.command_line} | _origin(args, checkpoint),
        track=progress("refining"),
    )
    write_report([args.out], args.out / "report.html")
    kept = result.num_refined - result.num_accepted
    print(
        f"{counted(result.num_accepted, 'mask')} refined, {kept} kept as given; "
        f"see {args.out / 'report.html'}"
    )
    print_problems("note", result.notes)
    return fail_if_any(result.failures)


def _refiner(args: Namespace) -> tuple[Refiner, RefinerCheckpoint | None]:
    """Return the refiner, and where it comes from; nothing for the published model."""
    if args.checkpoint == UNTRAINED:
        return untrained_refiner(args), None
    if args.checkpoint is not None:
        checkpoint = load_refiner(args.checkpoint)
        return trained_refiner(checkpoint, args), checkpoint
    if args.foundation is None and args.preset is None:
        checkpoint = load_refiner(DEFAULT_CHECKPOINT)
        if checkpoint.allows(chosen_settings(args)):
            return trained_refiner(checkpoint, args), checkpoint
    return untrained_refiner(args), None


def _origin(args: Namespace, checkpoint: RefinerCheckpoint | None) -> dict[str, Any]:
    """Return what ``run.json`` is to say of where the refiner comes from."""
    if checkpoint is None:
        return {"checkpoints": [UNTRAINED]}
    name, card = checkpoint.origin, checkpoint.card
    notes = calibrated_beside([name])
    if args.checkpoint is None:
        datasets = ", ".join(card["datasets"])
        remark = f"trained on {datasets}; --checkpoint {UNTRAINED} asks the published model"
        notes.append((f"refined by {name}", remark))
    # The network behind which the published model was calibrated takes no part here.
    knows = card if "phase" in card else {"calibration": card.get("calibration", {})}
    pairs = pair_by_stem(args.images, args.coarse).pairs
    notes += seen_before([Record(image=pair.image) for pair in pairs], [(name, knows)])
    return {"checkpoints": [name], "card_sha256": [card_sha256(card)], "notes": notes}
