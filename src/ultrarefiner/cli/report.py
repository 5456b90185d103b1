"""``ultrarefiner report``: a run as one HTML file."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from ultrarefiner.cli.output import DONE
from ultrarefiner.report.run import write_run_report


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    parser = ArgumentParser(description="Write the report of a run as one HTML file.")
    parser.add_argument("folder", type=Path, help="written by 'refine' or 'predict'")
    parser.add_argument("--evaluation", type=Path | None, default=None, help="eval.json of the run")
    parser.add_argument("--out", type=Path, required=True, help="HTML file to write")
    return parser


def run(args: Namespace) -> int:
    """Write it."""
    write_run_report(args.folder, args.out, evaluation=args.evaluation)
    print(f"see {args.out}")
    return DONE
