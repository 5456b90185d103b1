"""``ultrarefiner list``: what can be chosen by name."""

from __future__ import annotations

from collections.abc import Iterable

from jsonargparse import ArgumentParser, Namespace

from ultrarefiner.cli.output import DONE
from ultrarefiner.coarse import COARSE_NETWORKS
from ultrarefiner.coarse.pretrained import PRETRAINED
from ultrarefiner.data.sources import SOURCES
from ultrarefiner.foundation import FOUNDATION_MODELS
from ultrarefiner.losses import LOSSES
from ultrarefiner.refine.assembly import PRESETS
from ultrarefiner.refine.gates import GATES
from ultrarefiner.refine.selection import SELECTIONS

_LISTS: dict[str, Iterable[str]] = {
    "checkpoints": PRETRAINED,
    "coarse": COARSE_NETWORKS,
    "foundation": FOUNDATION_MODELS,
    "gates": GATES,
    "losses": LOSSES,
    "presets": PRESETS,
    "selections": SELECTIONS,
    "sources": SOURCES,
}


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    parser = ArgumentParser(description="List what can be chosen by name.")
    parser.add_argument("what", choices=sorted(_LISTS), help="what to list")
    return parser


def run(args: Namespace) -> int:
    """Print one name a line."""
    print("\n".join(_LISTS[args.what]))
    return DONE
