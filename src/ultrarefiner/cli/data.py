"""``ultrarefiner data``: import, audit, split, draw and corrupt data."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from ultrarefiner.cli.output import DONE, LEAK, SOME_FAILED, counted, print_problems, progress
from ultrarefiner.data.audit import audit_manifest, group_duplicates
from ultrarefiner.data.corruption import (
    PRESETS as CORRUPTIONS,
)
from ultrarefiner.data.corruption import (
    CorruptionFit,
    PredictedMasks,
    fit_corruption,
    read_config,
    write_config,
)
from ultrarefiner.data.duplicates import find_duplicates
from ultrarefiner.data.folds import assign_folds, lesion_shares
from ultrarefiner.data.manifest import (
    Record,
    check_files,
    check_mask_sizes,
    read_manifest,
    write_manifest,
)
from ultrarefiner.data.phantom import PRESETS, CopyConfig, write_phantoms
from ultrarefiner.data.rough import write_rough_masks
from ultrarefiner.data.sources import SOURCES, import_source
from ultrarefiner.data.writers import write_json
from ultrarefiner.errors import ConfigError, InputError
from ultrarefiner.report.corruption_gallery import write_corruption_picture
from ultrarefiner.report.phantom_gallery import write_phantom_gallery

_SHOWN = 6


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    return ArgumentParser(description="Import, audit, split, draw or corrupt data.")


def add_kinds(parser: ArgumentParser) -> None:
    """Add the commands of the command."""
    kinds = parser.add_subcommands(dest="kind", required=True)
    kinds.add_subcommand("import", _import_parser(), help="write the manifest of a data set")
    kinds.add_subcommand("audit", _audit_parser(), help="find duplicates, leaks and faults")
    kinds.add_subcommand("split", _split_parser(), help="assign folds without leaks")
    kinds.add_subcommand("phantom", _phantom_parser(), help="draw synthetic ultrasound images")
    kinds.add_subcommand("rough", _rough_parser(), help="write mediocre versions of true masks")
    fit = "fit the errors of corrupted masks to predictions"
    kinds.add_subcommand("fit-corruption", _fit_corruption_parser(), help=fit)
    gallery = "draw every type of error on six lesions"
    kinds.add_subcommand("corruption-gallery", _corruption_gallery_parser(), help=gallery)


def run(args: Namespace) -> int:
    """Run the subcommand."""
    chosen = args[args.kind]
    chosen.command_line = args.command_line
    return _KINDS[args.kind](chosen)


def _import_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Read a data set in its own layout, write its manifest.")
    parser.add_argument("source", choices=sorted(SOURCES), help="layout of the data set")
    parser.add_argument("folder", type=Path, help="folder of the data set, or its index file")
    parser.add_argument("--out", type=Path, required=True, help="manifest to write (.csv)")
    return parser


def _import(args: Namespace) -> int:
    imported = import_source(args.source, args.folder, args.out)
    drawn = f", {counted(imported.num_masks_drawn, 'mask')} drawn" * bool(imported.num_masks_drawn)
    print(f"{counted(imported.num_records, 'image')}{drawn}; see {imported.manifest}")
    print_problems("note", imported.notes)
    print_problems("skipped", imported.skipped)
    return SOME_FAILED if imported.skipped else DONE


def _audit_parser() -> ArgumentParser:
    parser = ArgumentParser(
        description="Compare all images of a manifest with each other, and check every file."
    )
    parser.add_argument("manifest", type=Path, help="CSV file")
    parser.add_argument("--json", type=Path | None, default=None, help="audit.json to write")
    return parser


def _audit(args: Namespace) -> int:
    audit = audit_manifest(args.manifest, track=progress("comparing"))
    content = audit.as_dict()
    if args.json is not None:
        write_json(args.json, content)
    counts = [(kind, len(found)) for kind, found in content.items() if isinstance(found, list)]
    print("\n".join(f"{count:6d} {kind.replace('_', ' ')}" for kind, count in counts))
    print_problems("leak", [(leak.kind, leak.describe()) for leak in audit.leaks])
    unreadable = [(fault["file"], fault["message"]) for fault in content["unreadable"]]
    print_problems("unreadable", unreadable)
    if audit.leaks:
        return LEAK
    return SOME_FAILED if unreadable else DONE


def _split_parser() -> ArgumentParser:
    parser = ArgumentParser(
        description="Assign folds by patient and scene, stratified by label and lesion size."
    )
    parser.add_argument("manifest", type=Path, help="CSV file")
    parser.add_argument("--folds", type=int, default=5, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="of the assignment")
    parser.add_argument(
        "--replace", action="store_true", help="assign anew where folds are official"
    )
    parser.add_argument("--out", type=Path, required=True, help="manifest to write (.csv)")
    return parser


def _split(args: Namespace) -> int:
    records = read_manifest(args.manifest)
    check_files(records, args.manifest)
    check_mask_sizes(records, track=progress("checking masks"))
    groups = find_duplicates([record.image for record in records], track=progress("comparing"))
    records = group_duplicates(records, groups)
    are_kept = not args.replace and all(record.fold for record in records)
    folds = assign_folds(
        records,
        num_folds=args.folds,
        seed=args.seed,
        sizes=None if are_kept else lesion_shares(records, track=progress("measuring")),
        replace=args.replace,
    )
    write_manifest(args.out, folds.records)
    num_folds = len({record.fold for record in folds.records} - {""})
    num_scenes = sum(len(group.images) for group in groups)
    print(
        f"{counted(len(folds.records), 'image')} in {counted(num_folds, 'fold')}, "
        f"{num_scenes} of them in {counted(len(groups), 'group')} of duplicates; see {args.out}"
    )
    print_problems("note", [(str(args.manifest), note) for note in folds.notes])
    return DONE


def _phantom_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Draw synthetic ultrasound images with rough masks.")
    parser.add_argument("--num", type=int, default=24, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="series to draw from")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="breast", help="anatomy")
    parser.add_argument("--images_per_patient", type=int, default=1, help="of the same label")
    parser.add_argument(
        "--duplicates", type=int, default=0, help="near copies to add, for testing an audit"
    )
    parser.add_argument("--gallery", action="store_true", help="also write gallery.html")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    return parser


def _phantom(args: Namespace) -> int:
    config = PRESETS[args.preset].config(images_per_patient=args.images_per_patient)
    copies = CopyConfig(num=args.duplicates)
    manifest = write_phantoms(args.num, args.seed, args.out, config=config, copies=copies)
    print(f"{counted(args.num, 'phantom')}; see {manifest}")
    if args.gallery:
        page = args.out / "gallery.html"
        write_phantom_gallery(page, seed=args.seed, num_per_preset=min(args.num, _SHOWN))
        print(f"see {page}")
    return DONE


def _rough_parser() -> ArgumentParser:
    parser = ArgumentParser(
        description="Write mediocre versions of true masks (DSC 0.81 on average), to see what "
        "refinement makes of them."
    )
    parser.add_argument("--manifest", type=Path, required=True, help="images and true masks")
    parser.add_argument("--fold", type=str | None, default=None, help="only this fold")
    parser.add_argument("--seed", type=int, default=0, help="of the errors")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    return parser


def _rough(args: Namespace) -> int:
    _check_seed(args.seed)
    written = write_rough_masks(
        _records_of(args), args.out, seed=args.seed, track=progress("drawing")
    )
    print_problems("skipped", written.failures)
    print(f"{counted(written.num_masks, 'rough mask')} in {args.out}")
    return SOME_FAILED if written.failures else DONE


def _fit_corruption_parser() -> ArgumentParser:
    parser = ArgumentParser(
        description="Find which errors, how large and how often, make true masks resemble the "
        "predictions of a network for images that it has not seen."
    )
    parser.add_argument("--manifest", type=Path, required=True, help="images and true masks")
    parser.add_argument(
        "--preds", type=Path, required=True, help="folder of coarse masks or probabilities"
    )
    parser.add_argument("--fold", type=str | None, default=None, help="only this fold")
    parser.add_argument(
        "--label", type=int | None, default=None, help="value of the lesion in true label maps"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the simulated errors")
    parser.add_argument(
        "--masks_per_band", type=int, default=150, help="simulated for each type and size of error"
    )
    parser.add_argument("--out", type=Path, required=True, help="settings to write (.yaml)")
    return parser


def _fit_corruption(args: Namespace) -> int:
    _check_seed(args.seed)
    pairs = PredictedMasks(_records_of(args), args.preds, label=args.label)
    try:
        fit = fit_corruption(
            pairs,
            seed=args.seed,
            masks_per_band=args.masks_per_band,
            track=progress("simulating"),
        )
    finally:  # where too few are left, these say why
        print_problems("skipped", pairs.failures)
    notes = [args.command_line, f"Fitted to {counted(fit.num_pairs, 'prediction')}."]
    write_config(args.out, fit.config, notes=notes)
    _print_fit(fit)
    print(f"{counted(fit.num_pairs, 'prediction')}; see {args.out}")
    return SOME_FAILED if pairs.failures else DONE


def _print_fit(fit: CorruptionFit) -> None:
    """Print how near corrupted masks come to the predictions, with and without the fit."""
    print(f"{'distance to the predictions':28}{'fitted':>8}{'default':>9}")
    for name, (fitted, default) in fit.gaps.items():
        print(f"{name.replace('_', ' '):28}{fitted:8.2f}{default:9.2f}")
    print(f"{'DSC at 5, 25, 50, 75, 95 %':28}")
    for name, quantiles in fit.dsc.items():
        print(f"  {name:26}" + "".join(f"{value:8.2f}" for value in quantiles))


def _corruption_gallery_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Draw every type of error on six synthetic lesions.")
    parser.add_argument(
        "--config",
        default="default",
        help=f"{', '.join(CORRUPTIONS)}, or a file of fit-corruption",
    )
    parser.add_argument("--seed", type=int, default=0, help="series to draw from")
    parser.add_argument("--out", type=Path, required=True, help="picture to write (.jpg)")
    return parser


def _corruption_gallery(args: Namespace) -> int:
    _check_seed(args.seed)
    known = CORRUPTIONS.get(args.config)
    config = read_config(Path(args.config)) if known is None else known
    write_corruption_picture(args.out, seed=args.seed, config=config)
    print(f"see {args.out}")
    return DONE


def _records_of(args: Namespace) -> list[Record]:
    """Return the records of the manifest, or of its one fold."""
    records = [r for r in read_manifest(args.manifest) if args.fold in (None, r.fold)]
    if not records:
        raise InputError(f"manifest {args.manifest}", expected=f"images of fold {args.fold}")
    return records


def _check_seed(seed: int) -> None:
    if seed < 0:
        raise ConfigError("--seed", expected=">= 0", found=str(seed))


_KINDS = {
    "import": _import,
    "audit": _audit,
    "split": _split,
    "phantom": _phantom,
    "rough": _rough,
    "fit-corruption": _fit_corruption,
    "corruption-gallery": _corruption_gallery,
}
