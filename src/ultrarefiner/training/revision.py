"""Which commit of the code made a result."""

from __future__ import annotations

import subprocess
from pathlib import Path


def git_revision() -> str:
    """Return the commit of a checkout, with ``+`` if files differ from it; empty elsewhere.

    Elsewhere is also an environment within a checkout of something else.
    """
    file = Path(__file__).resolve()
    folder = file.parent
    if not _git(folder, "ls-files", "--", file.name):
        return ""
    revision = _git(folder, "rev-parse", "HEAD")
    return revision + ("+" if revision and _git(folder, "status", "--porcelain", "-uno") else "")


def _git(folder: Path, *words: str) -> str:
    try:
        done = subprocess.run(
            ["git", *words], cwd=folder, capture_output=True, text=True, check=False, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
