"""Turn a trained network into one that can be passed on: the weights and a model card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ultrarefiner.coarse import load_checkpoint
from ultrarefiner.coarse.checkpoint import find_checkpoint
from ultrarefiner.data.atomic import atomic_path, write_text
from ultrarefiner.data.sources.notices import NOTICES
from ultrarefiner.errors import ConfigError
from ultrarefiner.refine.checkpoint import LATEST_FIRST, is_refiner, load_refiner
from ultrarefiner.training.model_card import Loaded, model_card
from ultrarefiner.training.release_result import read_result
from ultrarefiner.weights import file_sha256


@dataclass(frozen=True, kw_only=True)
class Release:
    """What was written.

    Attributes:
        weights: safetensors file.
        card: model card beside it.
        sha256: of the weights.
    """

    weights: Path
    card: Path
    sha256: str


def release_network(
    checkpoint: Path, name: str, out: Path, *, result: Path | None = None
) -> Release:
    """Write ``out/NAME.safetensors``, the checkpoint byte for byte, and ``out/NAME.md``.

    Args:
        checkpoint: file or folder that ``ultrarefiner train`` wrote; of a folder, what its last
            phase left.
        name: of the release.
        out: folder, made if missing.
        result: figures for the card, on patients that it has not seen: the ``eval.json`` of
            ``ultrarefiner evaluate --baseline`` in the folder of a run of ``predict`` with this
            very checkpoint, or, for a coarse network, the JSON of the study ``network-masks``.

    Raises:
        ConfigError: it was trained on data whose licence and citation we do not know, or changes
            weights of which we do not.
        WeightsError: no such checkpoint.
        InputError: the result cannot be read, or is of another network.
        LeakError: the result is of patients that it was trained or chosen on.
    """
    path = find_checkpoint(checkpoint, LATEST_FIRST)
    loaded: Loaded = load_refiner(path) if is_refiner(path) else load_checkpoint(path)
    unknown = sorted(set(loaded.card.get("datasets", [""])) - NOTICES.keys())
    if unknown:
        raise ConfigError(
            f"release of {checkpoint}",
            expected="data sets with a notice: " + ", ".join(NOTICES),
            found=", ".join(map(repr, unknown)),
            fix="Add their licence and citation to data/sources/notices.py.",
        )
    figures = read_result(result, path, loaded) if result else None
    card = model_card(name, path, loaded, figures)
    weights, page = out / f"{name}.safetensors", out / f"{name}.md"
    content = path.read_bytes()
    with atomic_path(weights) as temporary:
        temporary.write_bytes(content)
    write_text(page, card)
    return Release(weights=weights, card=page, sha256=file_sha256(weights))
