"""``ultrarefiner predict``: images in, coarse and refined masks out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from ultrarefiner.cli.output import counted, fail_if_any, print_problems, progress
from ultrarefiner.cli.refine import add_refiner_arguments, chosen_settings
from ultrarefiner.coarse import CoarseCheckpoint, CoarsePredictor, load_checkpoint
from ultrarefiner.data.folds import outer_split
from ultrarefiner.data.manifest import read_manifest
from ultrarefiner.data.pairing import find_images
from ultrarefiner.errors import ConfigError
from ultrarefiner.refine.predict import predict_images
from ultrarefiner.refine.predictor import Refiner
from ultrarefiner.report.run import write_report
from ultrarefiner.weights import file_sha256


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    parser = ArgumentParser(
        description="Segment images with a trained network and refine the result. Research "
        "software, not a medical device."
    )
    parser.add_argument(
        "--checkpoint",
        type=str,
        default=["busbra-lite"],
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
    parser.add_argument(
        "--flips", action="store_true", help="average with the mirrored image: slower"
    )
    add_refiner_arguments(parser)
    return parser


def run(args: Namespace) -> int:
    """Predict, report, and say how it went."""
    images = _images(args)
    checkpoints = [load_checkpoint(name) for name in args.checkpoint]
    predictor = CoarsePredictor(
        [checkpoint.network for checkpoint in checkpoints], flips=args.flips, device=args.device
    )
    result = predict_images(
        images,
        args.out,
        predictor,
        Refiner(args.foundation, chosen_settings(args), device=args.device),
        options=args.options,
        about={"command": args.command_line, "checkpoints": list(args.checkpoint)},
        track=progress("segmenting"),
    )
    write_report([args.out], args.out / "report.html")
    print(
        f"{counted(result.num_refined, 'image')} segmented, {result.num_accepted} of them refined; "
        f"see {args.out / 'report.html'}"
    )
    print("research software, not a medical device: do not use it for diagnosis", file=sys.stderr)
    print_problems("note", [*_seen_in_training(images, checkpoints), *result.notes])
    return fail_if_any(result.failures)


def _images(args: Namespace) -> list[Path]:
    if (args.images is None) == (args.manifest is None):
        raise ConfigError("what to segment", expected="either --images or --manifest")
    if args.images is not None:
        if args.fold is not None:
            raise ConfigError("--fold", expected="--manifest with it", found="--images")
        return list(find_images(args.images))
    records = read_manifest(args.manifest)
    if args.fold is not None:
        _, records = outer_split(records, args.fold)
    return [record.image for record in records]


def _seen_in_training(
    images: list[Path], checkpoints: list[CoarseCheckpoint]
) -> list[tuple[str, str]]:
    """Remark on images that a checkpoint was trained or chosen on: scores on them prove nothing."""
    notes: list[tuple[str, str]] = []
    digests = [_digest(path) for path in images]
    for checkpoint in checkpoints:
        card: dict[str, Any] = dict(checkpoint.card)
        seen = set(card.get("image_digests", ()))
        num_seen = sum(digest in seen for digest in digests)
        if num_seen:
            remark = f"{num_seen} of the {len(images)} images were used to train it"
            notes.append((checkpoint.origin, f"{remark}: a score on them says nothing"))
    return notes


def _digest(path: Path) -> str:
    try:
        return file_sha256(path)[:16]
    except OSError:  # it was named as unreadable before
        return ""
