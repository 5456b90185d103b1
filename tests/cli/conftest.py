"""Phantom data that is drawn once, and the command line as a function."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
from commands import Command, Outcome, Run, call, refine_args

from encoded_once import encoding_once
from ultrarefiner.data.phantom import PhantomConfig, write_phantoms


@pytest.fixture(scope="module", autouse=True)
def _encoding_once() -> Iterator[None]:
    with encoding_once():
        yield


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = call(arguments)
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.fixture
def refine(command: Command) -> Command:
    def run(images: Path, coarse: Path, out: Path, *more: str) -> Outcome:
        return command(*refine_args(images, coarse, out, *more))

    return run


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with ``images``, ``masks``, ``coarse`` and ``manifest.csv``, not to be changed."""
    folder = tmp_path_factory.mktemp("phantoms")
    config = PhantomConfig(height_px=(120, 140), width_px=(150, 170), relative_radius=(0.2, 0.25))
    write_phantoms(3, 7, folder, config=config)
    return folder


@pytest.fixture(scope="session")
def finished(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("finished") / "run"
    arguments = refine_args(phantoms / "images", phantoms / "coarse", folder)
    out, err = StringIO(), StringIO()
    with encoding_once(), redirect_stdout(out), redirect_stderr(err):
        code = call(arguments)
    return Run(folder, Outcome(code, out.getvalue(), err.getvalue()))
