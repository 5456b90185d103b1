"""The command line: parse, call one function, format the error."""

from __future__ import annotations

import io
import logging
import shlex
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Protocol, cast

from jsonargparse import ArgumentParser, Namespace

from ultrarefiner._version import __version__
from ultrarefiner.cli.output import INTERRUPTED, LEAK, UNUSABLE
from ultrarefiner.errors import LeakError, OutputError, UltraRefinerError

# Every command is a module with `parser()` and `run(args)`, which is imported only when it is
# asked for: training loads Lightning, but `data import` should not wait for it.
COMMANDS = {
    "refine": "refine a folder of coarse masks",
    "predict": "segment images with a trained network and refine the result",
    "train": "train on the images of a manifest",
    "release": "write a trained network and its model card",
    "data": "import, audit, split, draw or corrupt data",
    "evaluate": "score masks against the truth",
    "compare": "test methods against each other",
    "calibrate": "learn which refinements to accept, with a guarantee",
    "report": "write the report of a run",
    "experiment": "run a recipe on real data",
    "gallery": "show every stage of the refinement",
    "list": "list what can be chosen by name",
    "doctor": "say what is installed and missing",
}


class Command(Protocol):
    """A module of one command."""

    parser: Callable[[], ArgumentParser]
    run: Callable[[Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    _let_any_name_be_printed()
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        parser = build_parser(next((word for word in argv if word in COMMANDS), None))
        args = parser.instantiate(parser.parse_args(_with_recipe_flag(argv)))
        chosen = args[args.command]
        chosen.command_line = shlex.join(["ultrarefiner", *argv])
        return _load(args.command).run(chosen)
    except UltraRefinerError as error:
        print(f"error: {error}", file=sys.stderr)
        if isinstance(error, OutputError):
            print("what was written before is kept", file=sys.stderr)
        return LEAK if isinstance(error, LeakError) else UNUSABLE
    except KeyboardInterrupt:
        print("interrupted; what was done so far is kept", file=sys.stderr)
        return INTERRUPTED


def build_parser(command: str | None = None) -> ArgumentParser:
    """Return the parser of all commands, with the arguments of one of them, if any."""
    parser = ArgumentParser(
        prog="ultrarefiner",
        description="Refine coarse ultrasound segmentations. Research software, not a medical "
        "device.",
        version=__version__,
    )
    commands = parser.add_subcommands(dest="command", required=True)
    for name, summary in COMMANDS.items():
        module = _load(name) if name == command else None
        own = module.parser() if module else ArgumentParser()
        commands.add_subcommand(name, own, help=summary)
        add_kinds = getattr(module, "add_kinds", None)
        if add_kinds:  # a command of commands: jsonargparse wants them level by level
            add_kinds(own)
    return parser


def _load(command: str) -> Command:
    module = "listing" if command == "list" else command  # a module `list` would hide the builtin
    return cast(Command, import_module(f"ultrarefiner.cli.{module}"))


def _with_recipe_flag(argv: list[str]) -> list[str]:
    """Let the recipe of `train` come first and bare: to jsonargparse it is an option."""
    if argv[:1] == ["train"] and len(argv) > 1 and not argv[1].startswith("-"):
        return ["train", "--recipe", *argv[1:]]
    return argv


def _let_any_name_be_printed() -> None:
    """Escape what the terminal's encoding lacks: file names may hold any bytes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
