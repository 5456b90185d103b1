"""``ultrarefiner doctor``: what is installed and missing."""

from __future__ import annotations

from jsonargparse import ArgumentParser, Namespace

from ultrarefiner.cli.output import DONE, SOME_FAILED
from ultrarefiner.doctor import examine


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    return ArgumentParser(description="Say what is installed and missing.")


def run(args: Namespace) -> int:
    """Print one finding a line."""
    findings = examine()
    for finding in findings:
        print(f"{'ok  ' if finding.ok else 'MISS'}  {finding.name:24s} {finding.detail}")
    return DONE if all(finding.ok or not finding.needed for finding in findings) else SOME_FAILED
