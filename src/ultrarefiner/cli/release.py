"""``ultrarefiner release``: a trained network and its model card, to be passed on."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from ultrarefiner.cli.output import DONE
from ultrarefiner.training.release import release_network


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    parser = ArgumentParser(description="Write a trained network and its model card.")
    parser.add_argument("checkpoint", type=Path, help="folder or file that 'train' wrote")
    parser.add_argument("--name", type=str, required=True, help="of the network")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--result",
        type=Path | None,
        default=None,
        help="eval.json of a run of 'predict' with it, or JSON of the study 'network-masks'",
    )
    return parser


def run(args: Namespace) -> int:
    """Write both files, and print the checksum that the registry of networks wants."""
    release = release_network(args.checkpoint, args.name, args.out, result=args.result)
    print(f"sha256 {release.sha256}; see {release.card}")
    return DONE
