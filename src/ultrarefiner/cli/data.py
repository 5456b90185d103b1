"""``ultrarefiner data``: import, audit, split and draw data."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from ultrarefiner.cli.output import DONE, LEAK, SOME_FAILED, counted, print_problems, progress
from ultrarefiner.data.audit import audit_manifest, group_duplicates
from ultrarefiner.data.duplicates import find_duplicates
from ultrarefiner.data.folds import assign_folds, lesion_shares
from ultrarefiner.data.manifest import check_files, check_mask_sizes, read_manifest, write_manifest
from ultrarefiner.data.phantom import PRESETS, CopyConfig, write_phantoms
from ultrarefiner.data.sources import SOURCES, import_source
from ultrarefiner.data.writers import write_json
from ultrarefiner.report.phantom_gallery import write_phantom_gallery

_SHOWN = 6


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    return ArgumentParser(description="Import, audit, split or draw data.")


def add_kinds(parser: ArgumentParser) -> None:
    """Add the commands of the command."""
    kinds = parser.add_subcommands(dest="kind", required=True)
    kinds.add_subcommand("import", _import_parser(), help="write the manifest of a data set")
    kinds.add_subcommand("audit", _audit_parser(), help="find duplicates, leaks and faults")
    kinds.add_subcommand("split", _split_parser(), help="assign folds without leaks")
    kinds.add_subcommand("phantom", _phantom_parser(), help="draw synthetic ultrasound images")


def run(args: Namespace) -> int:
    """Run the subcommand."""
    return _KINDS[args.kind](args[args.kind])


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


_KINDS = {"import": _import, "audit": _audit, "split": _split, "phantom": _phantom}
