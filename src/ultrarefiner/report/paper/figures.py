"""Figures of a paper, drawn by matplotlib as SVG and PDF: the same input gives the same bytes."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from ultrarefiner.errors import ConfigError
from ultrarefiner.report.naming import unit_of
from ultrarefiner.statistics import limits_of_agreement

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Content = Mapping[str, Any]
Cases = Sequence[Content]

_BLUE, _ORANGE, _GREY = "#0072b2", "#d55e00", "#8a929b"  # told apart without red and green
_STYLE: dict[Any, Any] = {
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that every machine draws alike
    "font.size": 8,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # text stays text, as journals ask
    "svg.fonttype": "path",
    "svg.hashsalt": "ultrarefiner",
    "text.parse_math": False,  # a name with dollars is a name
}
_SIDE_INCH = 3.3  # one column
_UNDATED: dict[str, dict[str, str | None]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}


def draw_figures(
    comparison: Content, methods: Mapping[str, Cases], probabilities: Mapping[str, Content]
) -> dict[str, bytes]:
    """Draw what the numbers can fill.

    Args:
        comparison: JSON of :class:`ultrarefiner.metrics.Comparison`.
        methods: name to its cases as ``eval.json`` holds them, of the same images.
        probabilities: name to its reliability as ``eval.json`` holds it; may be empty.

    Returns:
        File name to content: ``paired``, ``bland_altman``, ``strata`` and ``reliability``, each as
        ``.svg`` and ``.pdf``.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    files: dict[str, bytes] = {}
    with _matplotlib() as new_figure:
        for name, figure in _figures(comparison, methods, probabilities, new_figure):
            for ending in ("svg", "pdf"):
                stream = io.BytesIO()
                metadata = _UNDATED[ending]
                figure.savefig(stream, format=ending, bbox_inches="tight", metadata=metadata)
                files[f"{name}.{ending}"] = stream.getvalue()
    return files


@contextmanager
def _matplotlib() -> Iterator[Callable[..., Figure]]:
    """Give the maker of figures, in our style; no window system is touched."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ModuleNotFoundError as cause:
        raise ConfigError(
            "cannot draw the figures of a paper",
            expected="matplotlib",
            found="none",
            fix='pip install "ultrarefiner[paper]"',
        ) from cause
    logging.getLogger("fontTools").setLevel(logging.WARNING)
    with mpl.rc_context(_STYLE):
        yield Figure


def _figures(
    comparison: Content,
    methods: Mapping[str, Cases],
    probabilities: Mapping[str, Content],
    new_figure: Callable[..., Figure],
) -> Iterator[tuple[str, Figure]]:
    for name, pair in _file_names(comparison["pairs"]).items():
        figure = new_figure(figsize=(_SIDE_INCH, _SIDE_INCH))
        _draw_pair(figure.subplots(), pair, methods, comparison["delta"])
        yield name, figure
    sized = {name: own for name, cases in methods.items() if (own := _with_areas(cases))}
    if sized:
        figure = new_figure(figsize=(_SIDE_INCH * len(sized), _SIDE_INCH))
        panels = figure.subplots(1, len(sized), sharex=True, sharey=True, squeeze=False)[0]
        unit = unit_of("area_error", comparison["distance_unit"])
        for axes, (name, cases) in zip(panels, sized.items(), strict=True):
            _draw_agreement(axes, name, cases, unit)
        panels[0].set(ylabel=f"Area of mask − truth [{unit}]")
        yield "bland_altman", figure
    rows = list(_forest_rows(comparison))
    if rows:
        figure = new_figure(figsize=(_SIDE_INCH, 0.6 + 0.2 * len(rows)))
        _draw_forest(figure.subplots(), rows)
        yield "strata", figure
    if probabilities:
        figure = new_figure(figsize=(_SIDE_INCH, _SIDE_INCH))
        _draw_reliability(figure.subplots(), probabilities)
        yield "reliability", figure


def _draw_pair(axes: Axes, pair: Content, methods: Mapping[str, Cases], delta: float) -> None:
    """Draw the DSC of every image with one method against another."""
    after = {case["image"]: case["dsc"] for case in methods[pair["method"]]}
    points = [(c["dsc"], after[c["image"]]) for c in methods[pair["reference"]]]
    x, y = np.array(points, float).T
    kinds = (
        ("improved", y - x > delta, "o", _BLUE),
        ("unchanged", np.abs(y - x) <= delta, "D", _GREY),
        ("harmed", y - x < -delta, "v", _ORANGE),
    )
    axes.plot([0, 1], [0, 1], color=_GREY, linewidth=0.6)
    for kind, chosen, marker, colour in kinds:
        label = f"{kind} ({np.count_nonzero(chosen)})"
        marks = axes.scatter(x[chosen], y[chosen], s=9, color=colour, marker=marker, alpha=0.8)
        marks.set_label(label)
        marks.set(linewidths=0, clip_on=False)
    low = min(np.floor(10 * np.nanmin([x, y])) / 10, 0.9)
    axes.set(xlim=(low, 1), ylim=(low, 1), aspect="equal")
    axes.set(xlabel=f"DSC, {pair['reference']}", ylabel=f"DSC, {pair['method']}")
    axes.legend(loc="lower right")


def _with_areas(cases: Cases) -> Cases:
    """Return the cases whose areas are known; evaluations of older versions have none."""
    names = ("area_pred", "area_target")
    return [case for case in cases if all(case.get(name) is not None for name in names)]


def _draw_agreement(axes: Axes, name: str, cases: Cases, unit: str) -> None:
    """Draw predicted minus true area against their mean, with bias and limits of agreement."""
    areas = np.array([(case["area_pred"], case["area_target"]) for case in cases], float)
    error, middle = areas[:, 0] - areas[:, 1], areas.mean(axis=1)
    axes.scatter(middle, error, s=9, color=_BLUE, linewidths=0, alpha=0.6)
    limits = limits_of_agreement(error.tolist(), [case["patient"] for case in cases])
    if limits is not None:
        for bound, style in ((limits.bias, "-"), (limits.lower, "--"), (limits.upper, "--")):
            axes.axhline(bound.value, color="black", linewidth=0.8, linestyle=style)
    axes.set(title=name, xlabel=f"Mean of mask and truth [{unit}]")


def _forest_rows(comparison: Content) -> Iterator[tuple[str, Content]]:
    """Yield stratum and change of DSC, of the last method against the reference."""
    for kind, levels in comparison["strata"].items():
        for level, found in levels.items():
            changes = list(found["differences"].values())
            if changes and "dsc" in changes[-1]:
                yield f"{kind}: {level} ({found['num_images']})", changes[-1]["dsc"]


def _draw_forest(axes: Axes, rows: Sequence[tuple[str, Content]]) -> None:
    """Draw one interval per stratum."""
    for height, (_, change) in enumerate(rows):
        axes.plot([change["low"], change["high"]], [height, height], color=_BLUE, linewidth=1.2)
        axes.plot(change["mean"], height, "s", color=_BLUE, markersize=4)
    axes.axvline(0, color=_GREY, linewidth=0.6)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set(xlabel="Change of DSC, 95 % interval over patients")


def _draw_reliability(axes: Axes, probabilities: Mapping[str, Content]) -> None:
    """Draw how often a pixel is lesion against how probable it was called."""
    axes.plot([0, 1], [0, 1], color=_GREY, linewidth=0.6)
    styles = zip(("o", "s", "D", "v"), (_BLUE, _ORANGE, _GREY, "black"), strict=True)
    for (name, found), (marker, colour) in zip(probabilities.items(), styles, strict=False):
        filled = [part for part in found["bins"] if part["count"]]
        x, y = ([part[axis] for part in filled] for axis in ("confidence", "frequency"))
        label = f"{name}, ECE {found['ece']:.3f}"
        axes.plot(x, y, marker=marker, color=colour, markersize=3.5, linewidth=1, label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set(xlabel="Probability of lesion", ylabel="Share of lesion pixels")
    axes.legend(loc="upper left")


def _file_names(pairs: Sequence[Content]) -> dict[str, Content]:
    """Return the pairs by the name of their figure; names that look alike get a number."""
    if len(pairs) == 1:
        return {"paired": pairs[0]}
    names: dict[str, Content] = {}
    for number, pair in enumerate(pairs, start=1):
        name = f"paired_{_slug(pair)}"
        names[f"{name}_{number}" if name in names else name] = pair
    return names


def _slug(pair: Content) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", f"{pair['method']} vs {pair['reference']}").strip("-")
