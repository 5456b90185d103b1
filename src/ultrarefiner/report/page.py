"""Put the parts together: cases and numbers in, one HTML text out."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ultrarefiner.errors import UltraRefinerError
from ultrarefiner.report import wording
from ultrarefiner.report.cases import ReportCase
from ultrarefiner.report.chart import draw_symbol
from ultrarefiner.report.figures import (
    Figure,
    agreement_scatter,
    gain_histogram,
    paired_scatter,
    share_histogram,
)
from ultrarefiner.report.gallery import Group, choose_groups
from ultrarefiner.report.headline import count_decisions, gain_sentence, measure_agreement
from ultrarefiner.report.overlay import Overlay, draw_overlay
from ultrarefiner.report.table import choose_columns

_DEFAULT_DELTA = 0.02  # only sorts the gallery when no paired evaluation declares one


@dataclass(frozen=True, kw_only=True, eq=False)
class _Tile:
    index: int
    case: ReportCase
    overlay: Overlay


@dataclass(frozen=True, kw_only=True, eq=False)
class _Inline:
    """A style sheet or script, with the hash by which the page's own policy lets it run."""

    text: Markup
    sha256: str


def render_report(
    cases: Sequence[ReportCase],
    *,
    title: str,
    evaluation: Mapping[str, Any] | None,
    provenance: Mapping[str, str],
    notes: Sequence[str] = (),
) -> str:
    """Return one self-contained HTML page on a refinement run.

    The page loads nothing and its content security policy forbids it to; the same arguments give
    the same bytes. Pixels are loaded only for the cases in the gallery; one whose pixels can no
    longer be loaded is named in a note instead.

    Args:
        cases: every image of the run, in the order of the table. Those with an error are listed
            apart and left out of everything else.
        title: heading.
        evaluation: content of ``eval.json``; None without truth.
        provenance: what made the run, as name and value: command, versions, config, data.
        notes: remarks for the reader, shown on top.

    Returns:
        HTML text, to be written as UTF-8.
    """
    indexed = {index: case for index, case in enumerate(cases) if not case.error}
    done = list(indexed.values())
    paired = evaluation["paired"] if evaluation else None
    groups = choose_groups(done, delta=paired["delta"] if paired else _DEFAULT_DELTA)
    gallery, lost = _load_tiles(groups, {id(case): index for index, case in indexed.items()})
    unit = evaluation["distance_unit"] if evaluation else "px"
    return (
        _environment()
        .get_template("template.html.j2")
        .render(
            title=title,
            css=_inline("page.css"),
            js=_inline("page.js"),
            notes=[*notes, *lost],
            num_cases=len(done),
            failed=[case for case in cases if case.error],
            evaluation=evaluation,
            paired=paired,
            sentence=gain_sentence(evaluation) if evaluation and paired else "",
            decisions=count_decisions(done),
            agreement=measure_agreement(done),
            figures=_draw_figures(indexed, evaluation),
            gallery=gallery,
            has_truth=any(tile.overlay.truth for _, tiles in gallery for tile in tiles),
            indexed=indexed,
            columns=choose_columns(done, distance_unit=unit),
            distance_unit=unit,
            provenance=provenance,
        )
    )


def _draw_figures(
    cases: Mapping[int, ReportCase], evaluation: Mapping[str, Any] | None
) -> list[Figure]:
    """Return the figures that these cases can fill."""
    if not cases:
        return []
    if evaluation and evaluation["paired"]:
        paired = evaluation["paired"]
        return [
            paired_scatter(cases, paired["delta"]),
            gain_histogram(cases, paired["delta"], paired["differences"]["dsc"]),
        ]
    return [agreement_scatter(cases), _distribution(list(cases.values()))]


def _distribution(cases: Sequence[ReportCase]) -> Figure:
    """Return the histogram of DSC, or without truth that of the agreement with the coarse mask."""
    dsc = [case.dsc for case in cases if case.dsc is not None]
    if dsc:
        return share_histogram(
            dsc, title="How good the masks are", label="DSC", caption="Images by their DSC."
        )
    ious = [case.number("iou_with_coarse") for case in cases if case.accepted]
    return share_histogram(
        [iou for iou in ious if iou is not None],
        title="How much was kept",
        label="IoU with the coarse mask",
        caption="Accepted images by their IoU with the coarse mask.",
    )


def _load_tiles(
    groups: Sequence[Group], index_of: Mapping[int, int]
) -> tuple[list[tuple[Group, list[_Tile]]], list[str]]:
    """Return the tiles of each group, and a note on each case whose pixels cannot be loaded."""
    gallery, lost = [], []
    for group in groups:
        tiles = []
        for case in group.cases:
            try:
                overlay = draw_overlay(case.load())
            except UltraRefinerError as error:
                lost.append(f"{case.stem} cannot be shown: {error}")
            else:
                tiles.append(_Tile(index=index_of[id(case)], case=case, overlay=overlay))
        if tiles:
            gallery.append((group, tiles))
    return gallery, lost


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("ultrarefiner.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    for show in (wording.fixed, wording.signed, wording.percent, wording.interval):
        environment.filters[show.__name__] = show
    environment.globals.update(symbol=draw_symbol, counted=wording.counted)
    return environment


def _inline(name: str) -> _Inline:
    text = files("ultrarefiner.report").joinpath(name).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
    return _Inline(text=Markup(text), sha256=digest)
