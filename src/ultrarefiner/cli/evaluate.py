"""``ultrarefiner evaluate``: masks against the truth, with intervals."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from ultrarefiner.cli.output import counted, fail_if_any, headline, print_problems
from ultrarefiner.experiments.evaluation import EvaluationConfig, evaluate_folder
from ultrarefiner.experiments.scoring import ScoringConfig
from ultrarefiner.metrics.boundaries import BOUNDARIES
from ultrarefiner.metrics.policy import POLICIES


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
    add_scoring_arguments(parser)
    parser.add_argument(
        "--delta", type=float, default=0.02, help="DSC change up to which a mask is unchanged"
    )
    parser.add_argument(
        "--margin", type=float | None, default=None, help="DSC difference that does not matter"
    )
    parser.add_argument("--seed", type=int, default=0, help="of bootstraps and permutations")
    return parser


def add_scoring_arguments(parser: ArgumentParser) -> None:
    """Add what every command that measures masks can be told."""
    parser.add_argument(
        "--policy", choices=POLICIES, default="declared", help="what an undefined metric counts"
    )
    parser.add_argument(
        "--boundary", choices=BOUNDARIES, default="pixel", help="what distances measure"
    )
    parser.add_argument(
        "--tolerance", type=float, default=1.0, help="of the NSD, in mm if spacing is known, or px"
    )
    parser.add_argument(
        "--tolerances", type=float, nargs="+", default=[], help="further tolerances of the NSD"
    )
    parser.add_argument(
        "--label", type=int | None, default=None, help="value of the lesion in true label maps"
    )


def chosen_scoring(args: Namespace) -> ScoringConfig:
    """Return how masks are to be measured.

    Raises:
        ConfigError: a setting is out of range.
    """
    return ScoringConfig(
        policy=args.policy,
        boundary=args.boundary,
        tolerance=args.tolerance,
        tolerances=tuple(args.tolerances),
        label=args.label,
    )


def run(args: Namespace) -> int:
    """Score, and print the headline."""
    result = evaluate_folder(
        args.manifest,
        args.preds,
        args.out,
        baseline=args.baseline,
        fold=args.fold,
        scoring=chosen_scoring(args),
        config=EvaluationConfig(delta=args.delta, margin=args.margin, seed=args.seed),
        command=args.command_line,
    )
    content = result.content
    print_problems("note", result.notes)
    code = fail_if_any(result.failures)
    images, patients = (counted(content[f"num_{what}s"], what) for what in ("image", "patient"))
    print(f"{images} of {patients}; see {args.out}")
    print(headline(content))
    if content["undefined"]:
        parts = ", ".join(f"{name} of {num}" for name, num in content["undefined"].items())
        print(f"undefined and left out of their means: {parts}")
    return code
