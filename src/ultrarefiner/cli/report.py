"""``ultrarefiner report``: runs, evaluations, comparisons and trainings as one HTML file."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from ultrarefiner.cli.output import DONE, counted
from ultrarefiner.report.paper import write_paper_of
from ultrarefiner.report.run import write_report


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    parser = ArgumentParser(description="Write one self-contained HTML file on what was found.")
    parser.add_argument(
        "sources",
        type=Path,
        nargs="+",
        help="folders written by 'refine', 'predict', 'train' or 'calibrate' (or a folder of "
        "those), eval.json, compare.json, calibration.json",
    )
    parser.add_argument(
        "--evaluation", type=Path | None, default=None, help="eval.json of the first run"
    )
    parser.add_argument("--title", type=str, default="", help="heading of the page")
    parser.add_argument(
        "--paper",
        type=Path | None,
        default=None,
        help="also write tables (LaTeX, CSV), figures (SVG, PDF) and a checklist to this folder",
    )
    parser.add_argument("--out", type=Path, required=True, help="HTML file to write")
    return parser


def run(args: Namespace) -> int:
    """Write it."""
    write_report(args.sources, args.out, evaluation=args.evaluation, title=args.title)
    print(f"see {args.out}")
    if args.paper:
        files = write_paper_of(args.sources, args.paper, evaluation=args.evaluation)
        print(f"{counted(len(files), 'file')} for a paper in {args.paper}")
    return DONE
