"""``ultrarefiner evaluate``: masks against the truth, with intervals."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from ultrarefiner.cli.output import counted, fail_if_any, headline, print_problems
from ultrarefiner.experiments.evaluation import evaluate_folder


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    parser = ArgumentParser(description="Score masks, and a baseline beside them.")
    parser.add_argument("--manifest", type=Path, required=True, help="CSV with image and mask")
    parser.add_argument(
        "--fold", type=str | None, default=None, help="only this fold of the manifest"
    )
    parser.add_argument("--preds", type=Path, required=True, help="folder of masks, or of a run")
    parser.add_argument("--baseline", type=Path | None, default=None, help="masks to compare with")
    parser.add_argument("--out", type=Path, required=True, help="eval.json to write")
    return parser


def run(args: Namespace) -> int:
    """Score, and print the headline."""
    result = evaluate_folder(
        args.manifest, args.preds, args.out, baseline=args.baseline, fold=args.fold
    )
    content = result.content
    counts = content["counts"]
    print_problems("note", result.notes)
    code = fail_if_any(result.failures)
    print(
        f"{counted(content['num_images'], 'image')}, {counts['missed']} missed, "
        f"{counts['false_positive']} false positive; see {args.out}"
    )
    print(headline(content))
    return code
