"""``ultrarefiner compare``: methods on the same images, tested against each other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from ultrarefiner.cli.evaluate import add_scoring_arguments, chosen_scoring
from ultrarefiner.cli.output import (
    counted,
    empty_masks,
    fail_if_any,
    print_problems,
    print_table,
)
from ultrarefiner.errors import ConfigError
from ultrarefiner.experiments.comparing import ComparisonConfig, Truths, compare_sources
from ultrarefiner.experiments.scoring import ScoringConfig
from ultrarefiner.report.naming import digits_of, label_of

Content = Mapping[str, Any]

_TEST_HEAD = ("", "difference [95 %]", "p", "Holm", "Wilcoxon", "sign", "r", "d_z", "mixed p")


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    parser = ArgumentParser(
        description="Test methods against each other on the same images. Intervals and p are over "
        "patients (BCa bootstrap, sign-flip permutation), Holm over all tests that are printed; "
        "Wilcoxon and sign tests are over images."
    )
    parser.add_argument(
        "sources",
        type=Path,
        nargs="+",
        help="eval.json, folder with one in it, or folder of masks; the first is the reference",
    )
    parser.add_argument("--names", type=str, nargs="+", default=[], help="names of the methods")
    parser.add_argument(
        "--metrics", type=str, nargs="+", default=[], help="what is tested; all if not given"
    )
    parser.add_argument(
        "--delta", type=float, default=0.02, help="DSC change up to which a mask is unchanged"
    )
    parser.add_argument(
        "--margin",
        type=float | dict[str, float] | None,
        default=None,
        help="difference that does not matter: in DSC, or as {dsc: 0.02, hd95: 1}",
    )
    parser.add_argument(
        "--effect", type=float | None, default=None, help="DSC difference to plan a study for"
    )
    parser.add_argument(
        "--common", action="store_true", help="compare the images that all methods have"
    )
    parser.add_argument("--seed", type=int, default=0, help="of bootstraps and permutations")
    parser.add_argument("--out", type=Path | None, default=None, help="compare.json to write")
    parser.add_argument(
        "--manifest", type=Path | None, default=None, help="CSV with image and mask, for masks"
    )
    parser.add_argument(
        "--fold", type=str | None, default=None, help="only this fold of the manifest"
    )
    add_scoring_arguments(parser)
    return parser


def run(args: Namespace) -> int:
    """Compare, and print what was found."""
    result = compare_sources(
        args.sources,
        args.out,
        names=args.names,
        truths=_truths(args),
        config=ComparisonConfig(
            metrics=tuple(args.metrics),
            delta=args.delta,
            margin=args.margin,
            effect=args.effect,
            common=args.common,
            seed=args.seed,
        ),
        command=args.command_line,
    )
    print_problems("note", result.notes)
    code = fail_if_any(result.failures)
    content = result.content
    images, patients = (counted(content[f"num_{what}s"], what) for what in ("image", "patient"))
    print(f"{images} of {patients}" + (f"; see {args.out}" if args.out else ""))
    _print_means(content)
    for pair in content["pairs"]:
        _print_pair(pair, content)
    _print_strata(content)
    _print_plan(content["sample_size"])
    return code


def _truths(args: Namespace) -> Truths | None:
    """Return what masks are measured against, or nothing where only evaluations are compared."""
    scoring = chosen_scoring(args)
    if args.manifest is not None:
        return Truths(manifest=args.manifest, fold=args.fold, scoring=scoring)
    if args.fold is not None or scoring != ScoringConfig():
        raise ConfigError(
            "how masks are measured",
            expected="--manifest beside it",
            found="none: evaluations have been measured",
            fix="Give --manifest for folders of masks, or leave --fold, --policy and so on out.",
        )
    return None


def _print_means(content: Content) -> None:
    """Print the mean of each metric and method, over empty masks too, and how many those are."""
    print("\nmeans [95 %]")
    summaries = [content["summaries"][method] for method in content["methods"]]
    names = {name: None for summary in summaries for name in summary["metrics"]}
    rows = [
        [_label(name, content), *(_estimate(s["metrics"].get(name), name) for s in summaries)]
        for name in names
    ]
    rows.append(["empty masks", *(empty_masks(summary["counts"]) for summary in summaries)])
    if any(summary["undefined"] for summary in summaries):
        rows.append(["undefined, left out", *(_undefined(summary) for summary in summaries)])
    print_table(["", *content["methods"]], rows)


def _print_pair(pair: Content, content: Content) -> None:
    """Print shares, tests and, with a margin, verdicts of one pair."""
    print(
        f"\n{pair['method']} - {pair['reference']}: "
        + ", ".join(f"{_share(pair[kind])} {kind}" for kind in ("improved", "unchanged", "harmed"))
    )
    rows = [
        [
            _label(name, content),
            _estimate(test["difference"], name, sign=True),
            *(_p(test[p]) for p in ("p_permutation", "p_permutation_holm", "p_wilcoxon", "p_sign")),
            *(
                _number(test[effect], 2, sign=True)
                for effect in ("rank_biserial", "standardised_mean")
            ),
            _p(test["mixed"] and test["mixed"]["p"]),
        ]
        for name, test in pair["tests"].items()
    ]
    print_table(_TEST_HEAD, rows)
    for name, test in pair["tests"].items():
        if test["equivalence"]:
            print(f"{_label(name, content)}: {_verdict(test['equivalence'], name)}")


def _print_strata(content: Content) -> None:
    """Print the first metric by stratum."""
    name = content["metrics"][0]
    methods, others = content["methods"], content["methods"][1:]
    rows = [
        [
            f"{kind}: {level}",
            str(found["num_images"]),
            str(found["num_patients"]),
            *(_estimate(found["summaries"][method].get(name), name) for method in methods),
            *(_empty(found["counts"][method]) for method in methods),
            *(
                _estimate(found["differences"][method].get(name), name, sign=True)
                for method in others
            ),
        ]
        for kind, levels in content["strata"].items()
        for level, found in levels.items()
    ]
    if rows:
        print(f"\n{_label(name, content)} by stratum")
        differences = [f"{method} - {content['reference']}" for method in others]
        empty = [f"{method} empty" for method in methods]
        print_table(["", "images", "patients", *methods, *empty, *differences], rows)
        print("empty: lesions missed + false positives")
    for kind, levels in content["strata_left_out"].items():
        print(f"{kind}: too few patients of {', '.join(levels)}")
    if content["size_cuts"]:
        low, high = content["size_cuts"]
        print(f"size: cut at {low:g} and {high:g} {content['distance_unit']}²")


def _print_plan(plan: Content | None) -> None:
    """Print how large a study has to be."""
    if plan:
        print(
            f"\na study that finds {plan['effect']:+.4f} DSC with 80 % power at the 5 % level "
            f"needs {counted(plan['num_patients'], 'patient')} "
            f"({counted(plan['num_images'], 'image')})"
        )


def _label(name: str, content: Content) -> str:
    return label_of(name, content["distance_unit"])


def _estimate(estimate: Content | None, name: str, *, sign: bool = False) -> str:
    if estimate is None:
        return "-"
    mean, low, high = (
        _number(estimate[end], digits_of(name), sign=sign) for end in ("mean", "low", "high")
    )
    return f"{mean} [{low}, {high}]"


def _empty(counts: Content) -> str:
    return f"{counts['missed']} + {counts['false_positive']}"


def _undefined(summary: Content) -> str:
    return ", ".join(f"{name} {num}" for name, num in summary["undefined"].items()) or "none"


def _share(share: Content) -> str:
    low, high = 100 * share["clustered_low"], 100 * share["clustered_high"]
    return f"{100 * share['share']:.1f} % [{low:.1f}, {high:.1f}]"


def _verdict(found: Content, name: str) -> str:
    if found["low"] is None:
        return "nothing can be shown with one patient"
    equivalent = "equivalent" if found["equivalent"] else "equivalence not shown"
    inferior = "non-inferior" if found["non_inferior"] else "non-inferiority not shown"
    low, high = (_number(found[end], digits_of(name), sign=True) for end in ("low", "high"))
    return (
        f"{equivalent} (p {_p(found['p_equivalent'])}), {inferior} "
        f"(p {_p(found['p_non_inferior'])}) within {found['margin']:g}; 90 % [{low}, {high}]"
    )


def _p(p: float | None) -> str:
    if p is None:
        return "-"
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _number(value: float | None, digits: int, *, sign: bool = False) -> str:
    if value is None:
        return "-"
    return f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
