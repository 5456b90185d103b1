"""``ultrarefiner gallery``: every stage of the refinement, on real images and hard shapes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from ultrarefiner.cli.output import DONE, counted, progress
from ultrarefiner.data.sources import read_busbra
from ultrarefiner.errors import ConfigError, InputError
from ultrarefiner.experiments.rough_masks import RoughMaskExperiment
from ultrarefiner.experiments.scores import choose_records, open_case
from ultrarefiner.experiments.sources import RoughMasks
from ultrarefiner.foundation import FOUNDATION_MODELS
from ultrarefiner.refine.assembly import PRESETS
from ultrarefiner.refine.predictor import Refiner
from ultrarefiner.refine.roi import RoiConfig
from ultrarefiner.report.hard_shapes import draw_hard_shapes
from ultrarefiner.report.stages import StagedCase, show_case
from ultrarefiner.report.stages_gallery import (
    check_picture_name,
    write_stages_gallery,
    write_stages_picture,
)

_VARIANTS = {
    "literal": PRESETS["literal"],
    "default": PRESETS["default"],
    "default, close up": replace(PRESETS["default"], roi=RoiConfig(crop=True)),
}
_IN_PICTURE = ("literal", "default")


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    parser = ArgumentParser(
        description="Write a page that shows every stage of the refinement, with the literal and "
        "the default settings: on hard synthetic shapes and, with --data, on real images with "
        "rough versions of their true masks."
    )
    parser.add_argument("--data", type=Path | None, default=None, help="folder of BUS-BRA")
    parser.add_argument("--out", type=Path, required=True, help="HTML file to write")
    parser.add_argument("--num", type=int, default=12, help="how many real images")
    parser.add_argument("--folds", type=str, default="1,2", help="official folds to draw from")
    parser.add_argument("--seed", type=int, default=0, help="of the draw, the masks and the shapes")
    parser.add_argument("--foundation", type=str, default="lite-medsam", help="see 'list'")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument(
        "--picture", type=Path | None, default=None, help="JPEG of the synthetic part to write"
    )
    return parser


def run(args: Namespace) -> int:
    """Refine, draw and write."""
    for name, least in (("num", 1), ("seed", 0)):
        if getattr(args, name) < least:
            raise ConfigError(f"--{name}", expected=f">= {least}", found=str(getattr(args, name)))
    if args.picture is not None:
        check_picture_name(args.picture)
    cases = [*_real_cases(args), *draw_hard_shapes(args.seed)]
    foundation = FOUNDATION_MODELS[args.foundation]()
    refiners = {
        name: Refiner(foundation, config, device=args.device) for name, config in _VARIANTS.items()
    }
    track = progress("refining")
    shown = [
        show_case(case, refiners, key=f"case-{number}")
        for number, case in enumerate(track(cases, len(cases)))
    ]
    write_stages_gallery(args.out, shown)
    if args.picture is not None:
        write_stages_picture(args.picture, shown, _IN_PICTURE)
        print(f"see {args.picture}")
    print(f"{counted(len(shown), 'case')}; see {args.out}")
    return DONE


def _real_cases(args: Namespace) -> Iterator[StagedCase]:
    """Read real images and roughen their masks, as the experiment of that name does."""
    if args.data is None:
        return
    draw = RoughMaskExperiment(
        folds=tuple(args.folds.split(",")), num_images=args.num, seed=args.seed
    )
    source = RoughMasks(generator=draw.generator, seed=draw.seed)
    records = choose_records(read_busbra(args.data), draw)
    if not records:
        raise InputError(
            f"no image to show in {args.data}",
            expected="folds of BUS-BRA, as in --folds 1,2",
            found=args.folds,
        )
    for index, record in enumerate(records):
        case = open_case(record, index)
        coarse = source(case)
        yield StagedCase(
            name=record.image.stem,
            about=f"BUS-BRA, fold {record.fold}, {record.label}; a rough version of the true mask.",
            image=case.image,
            truth=case.truth,
            coarse=coarse.probs,
            is_hard=coarse.is_hard,
            is_synthetic=False,
        )
