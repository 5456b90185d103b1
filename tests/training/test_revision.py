"""Which commit made a result: that of this code, and of nothing around it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from ultrarefiner.training import revision


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    done = subprocess.run(
        ["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a checkout; with a mark once it is changed; none of an environment in another checkout."""
    own, other = tmp_path / "own.py", tmp_path / "env" / "installed.py"
    other.parent.mkdir()
    for path in (own, other):
        path.write_text("")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", own.name)
    git(tmp_path, "commit", "-qm", "first")
    monkeypatch.setattr(revision, "__file__", str(own))
    assert re.fullmatch("[0-9a-f]{40}", revision.git_revision())
    assert revision.git_revision() == git(tmp_path, "rev-parse", "HEAD")
    own.write_text("changed")
    assert revision.git_revision() == git(tmp_path, "rev-parse", "HEAD") + "+"
    monkeypatch.setattr(revision, "__file__", str(other))
    assert revision.git_revision() == ""
