"""A stored result of a study as Markdown, the rows as they stand in ``docs/results.md``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Content = Mapping[str, Any]

_HEAD = ("variant", "DSC", "gain [95 %]", "harmed", "improved")
_STRATA_HEAD = ("stratum", "images", "coarse DSC [95 %]", "HD95 [px]", "refined DSC")
_BASE = "default"


def markdown(result: Content) -> str:
    """Return the tables of a result: its variants and, where it has them, strata or sources.

    Args:
        result: what a study returned, or the JSON that was stored of it, or a ``compare.json``.
    """
    if "pairs" in result:
        return "\n".join(_comparison(result))
    return "\n".join(_ablation(result) if "sources" in result else _study(result))


def variant_row(name: str, variant: Content) -> str:
    """Return the line of one variant: DSC, gain with interval, shares harmed and improved."""
    paired = variant["paired"]
    return (
        f"| {name} | {variant['dsc']['mean']:.3f} | {_signed(paired['differences']['dsc'])} "
        f"| {100 * paired['harmed']['share']:.1f} % | {100 * paired['improved']['share']:.0f} % |"
    )


def stratum_row(name: str, stratum: Content) -> str:
    """Return the line of one stratum."""
    coarse, paired = stratum["coarse"], stratum["paired"]
    return (
        f"| {name} | {stratum['num_images']} | {_interval(coarse['dsc'])} "
        f"| {coarse['hd95']['mean']:.1f} | {stratum['refined']['dsc']['mean']:.3f} "
        f"| {_signed(paired['differences']['dsc'])} | {100 * paired['harmed']['share']:.1f} % |"
    )


def pair_row(pair: Content, metric: str) -> str:
    """Return the line of one metric of two methods: difference, tests over patients, harm."""
    test = pair["tests"][metric]
    p_values = " | ".join(_p_value(test[name]) for name in ("p_permutation", "p_permutation_holm"))
    return (
        f"| {pair['method']} − {pair['reference']} | {metric} | {_signed(test['difference'])} "
        f"| {p_values} | {test['standardised_mean']:+.2f} | {_share(pair['harmed'])} |"
    )


def level_row(kind: str, level: str, stratum: Content, method: str) -> str:
    """Return the line of one stratum of a comparison: change of DSC, harm."""
    return (
        f"| {kind}: {level} | {stratum['num_images']} | {stratum['num_patients']} "
        f"| {_signed(stratum['differences'][method]['dsc'])} "
        f"| {_share(stratum['harmed'][method])} |"
    )


def _comparison(result: Content) -> Iterator[str]:
    """Every pair by every metric, then the strata of the second method against the first."""
    yield f"{_images(result)}; Holm over {len(result['pairs']) * len(result['metrics'])} tests."
    yield ""
    yield from _head(("methods", "metric", "difference [95 %]", "p", "Holm", "d_z", "harmed"))
    for pair in result["pairs"]:
        yield from (pair_row(pair, metric) for metric in result["metrics"])
    yield ""
    yield from _head(("stratum", "images", "patients", "gain [95 %]", "harmed [95 %]"))
    for kind, levels in result["strata"].items():
        for level, stratum in levels.items():
            yield level_row(kind, level, stratum, result["methods"][1])


def _study(result: Content) -> Iterator[str]:
    yield from _variants(result, _images(result))
    strata = [row for group in result.get("strata", {}).values() for row in group.items()]
    if strata:
        yield ""
        yield from _head((*_STRATA_HEAD, "gain [95 %]", "harmed"))
        yield from (stratum_row(name, found) for name, found in strata)


def _variants(part: Content, images: str) -> Iterator[str]:
    dsc = part["coarse"]
    spread = f" (sd {dsc['dsc_sd']:.3f}, 5th percentile {dsc['dsc_p5']:.2f})"
    yield f"{images}, coarse DSC {dsc['dsc']['mean']:.3f}{spread}."
    yield ""
    yield from _head(_HEAD)
    yield from (variant_row(name, found) for name, found in part["variants"].items())


def _ablation(result: Content) -> Iterator[str]:
    """The average over sources by group, then each source, then what choosing is worth."""
    sources, variants = result["sources"], result["variants"]
    coarse = f"coarse DSC {result['coarse']['dsc']['mean']:.3f}"
    yield f"{_images(result)}, {coarse} (average of: {', '.join(sources)})."
    for name, group in result["experiment"]["groups"].items():
        yield from ("", f"**{name}**", "")
        yield from _head((*_HEAD, f"against {_BASE} [95 %]", "s/image"))
        for variant in (_BASE, *group):
            found = variants[variant]
            times = [s["variants"][variant]["seconds_per_image"] for s in sources.values()]
            against = "" if variant == _BASE else _signed(found["against_default"])
            seconds = sum(times) / len(times)
            yield f"{variant_row(variant, found)} {against} | {seconds:.2f} |"
    for name, source in sources.items():
        yield from ("", f"**{name}**", "")
        yield from _variants(source, _images(result))
    yield from ("", *_choice(result))


def _choice(result: Content) -> Iterator[str]:
    yield from _head(
        ("chosen among", "best", "gain seen", "gain held out [95 %]", "harmed", f"against {_BASE}")
    )
    choices = {"all variants": result["choice"]["all"]} | dict(result["choice"]["groups"])
    for name, choice in choices.items():
        yield (
            f"| {name} | {choice['best']} | {choice['apparent_gain']:+.3f} "
            f"| {_signed(choice['gain'])} | {100 * choice['harmed']['mean']:.1f} % "
            f"| {_signed(choice['against_first'])} |"
        )


def _images(result: Content) -> str:
    return f"{result['num_images']} images of {result['num_patients']} patients"


def _head(cells: tuple[str, ...]) -> Iterator[str]:
    yield f"| {' | '.join(cells)} |"
    yield "|" + "---|" * len(cells)


def _signed(estimate: Content) -> str:
    return f"{estimate['mean']:+.3f} [{estimate['low']:+.3f}, {estimate['high']:+.3f}]"


def _interval(estimate: Content) -> str:
    return f"{estimate['mean']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"


def _share(share: Content) -> str:
    """Return a share of images with its interval over patients."""
    low, high = 100 * share["clustered_low"], 100 * share["clustered_high"]
    return f"{100 * share['share']:.1f} % [{low:.1f}, {high:.1f}]"


def _p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
