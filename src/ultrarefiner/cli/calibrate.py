"""``ultrarefiner calibrate``: when to keep the coarse mask, learned on spare patients."""

from __future__ import annotations

import sys
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from ultrarefiner.calibration.calibrate import calibrate
from ultrarefiner.calibration.cross import calibrate_across
from ultrarefiner.calibration.promise import CHOICES, Promise
from ultrarefiner.calibration.task import Result, Task
from ultrarefiner.cli.output import LEAK, counted, fail_if_any, print_problems, progress
from ultrarefiner.cli.refiners import add_flips, chosen_settings, refuse_opinion
from ultrarefiner.data.folds import outer_split
from ultrarefiner.data.manifest import read_manifest
from ultrarefiner.errors import ConfigError
from ultrarefiner.refine.acceptance import CONFORMAL, LEARN_THEN_TEST
from ultrarefiner.refine.assembly import PRESETS, RefinerConfig
from ultrarefiner.refine.predictor import DEFAULT_FOUNDATION


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    parser = ArgumentParser(
        description="Learn which refinements to accept, so that few masks are made worse, on "
        "patients that the network has not seen; write a checkpoint with that rule. Research "
        "software, not a medical device."
    )
    parser.add_argument("run", type=str, help="name, file or folder of 'train'")
    parser.add_argument("--manifest", type=Path, required=True, help="images, masks and patients")
    parser.add_argument(
        "--fold", type=str | None, default=None, help="only this fold of the manifest"
    )
    parser.add_argument(
        "--coarse",
        type=Path | None,
        default=None,
        help="folder of coarse masks to refine; default: the network's own",
    )
    parser.add_argument(
        "--out", type=Path | None, default=None, help="default: calibrated.safetensors in the run"
    )
    parser.add_argument(
        "--leave-out-seen", action="store_true", help="pass over patients that the network knows"
    )
    parser.add_argument(
        "--trust-patients",
        action="store_true",
        help="the network's card lists no patients, but you know that it has seen none of these",
    )
    parser.add_argument(
        "--cross",
        action="store_true",
        help="run is a folder of folds, each of which calibrates the networks: a weaker statement",
    )
    _add_promise(parser)
    parser.add_argument(
        "--label", type=int | None, default=None, help="value of the lesion in true label maps"
    )
    parser.add_argument(
        "--coarse-label", type=int | None, default=None, help="the same in the masks of --coarse"
    )
    _add_refiner(parser)
    return parser


def _add_promise(parser: ArgumentParser) -> None:
    """Add what is promised, and how it is to be kept."""
    default = Promise()
    parser.add_argument(
        "--alpha", type=float, default=default.alpha, help="largest share of images made worse"
    )
    parser.add_argument(
        "--delta", type=float, default=default.delta, help="loss of DSC that counts as worse"
    )
    parser.add_argument("--eta", type=float, default=default.eta, help="1 - confidence")
    parser.add_argument(
        "--method",
        choices=CHOICES,
        default=None,
        help=f"default: {LEARN_THEN_TEST}; {CONFORMAL} bounds the expectation alone",
    )
    parser.add_argument(
        "--learn-share",
        type=float,
        default=default.learn_share,
        help="share of the patients to learn the score on",
    )
    parser.add_argument("--seed", type=int, default=default.seed, help="of the draw of these")


def _add_refiner(parser: ArgumentParser) -> None:
    """Add how to refine; a trained refiner brings its settings along."""
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument(
        "--foundation",
        type=str | None,
        default=None,
        help=f"model of an untrained refiner; default: {DEFAULT_FOUNDATION}",
    )
    parser.add_argument(
        "--preset", choices=list(PRESETS), default=None, help="settings instead of --refiner"
    )
    parser.add_argument("--refiner", type=RefinerConfig, default=RefinerConfig())
    add_flips(parser)


def run(args: Namespace) -> int:
    """Calibrate, and say what is guaranteed."""
    if args.cross:
        _refuse_with_cross(args)
    if args.coarse is not None:
        refuse_opinion(args.refiner)
    records = read_manifest(args.manifest)
    if args.fold is not None:
        _, records = outer_split(records, args.fold)
    task = Task(
        run=args.run,
        records=records,
        promise=Promise(
            alpha=args.alpha,
            delta=args.delta,
            eta=args.eta,
            method=args.method or (CONFORMAL if args.cross else LEARN_THEN_TEST),
            learn_share=args.learn_share,
            seed=args.seed,
        ),
        coarse=args.coarse,
        label=args.label,
        coarse_label=args.coarse_label,
        leave_out_seen=args.leave_out_seen,
        trust_patients=args.trust_patients,
        settings=chosen_settings(args),
        foundation=args.foundation,
        device=args.device,
        command=args.command_line,
        track=progress("calibrating"),
    )
    return _conclude(calibrate_across(task) if args.cross else calibrate(task, args.out))


def _refuse_with_cross(args: Namespace) -> None:
    """Refuse what belongs to a single network.

    Raises:
        ConfigError: it was given.
    """
    for name in ("fold", "out"):
        if getattr(args, name) is not None:
            raise ConfigError(
                f"--{name}",
                expected="to be left out with --cross, which takes every fold to its own folder",
            )


def _conclude(result: Result) -> int:
    """Say what came of it, and return the exit code."""
    found = result.calibration
    before, after = found.before, found.after
    print_problems("note", result.notes)
    if result.num_left_out:
        print(
            f"note: {counted(result.num_left_out, 'image')} of patients that the network knows "
            f"left out; {len(found.cases)} images of others are calibrated on",
            file=sys.stderr,
        )
    code = fail_if_any(result.failures)
    if not result.checkpoints:
        print(f"error: {result.statement}", file=sys.stderr)
        return LEAK
    kept = "" if found.kept_gain is None else f" ({found.kept_gain:.0%} kept)"
    print(
        f"{counted(after.images, 'image')} of {counted(after.patients, 'patient')}: made worse "
        f"{before.harmed_share:.1%} -> {after.harmed_share:.1%} [{after.harmed_low:.1%}, "
        f"{after.harmed_high:.1%}], gain in DSC {before.gain:+.3f} -> {after.gain:+.3f}{kept}, "
        f"{after.accepted_share:.0%} accepted"
    )
    print(result.statement)
    for checkpoint in result.checkpoints:
        print(f"see {checkpoint}")
    return code
