"""What is calibrated: a trained refiner, or a coarse network with the untrained one behind it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from ultrarefiner.coarse import load_checkpoint
from ultrarefiner.coarse.checkpoint import find_checkpoint
from ultrarefiner.refine.assembly import RefinerConfig
from ultrarefiner.refine.checkpoint import (
    LATEST_FIRST,
    REFINER,
    RefinerCheckpoint,
    encode_refiner,
    is_refiner,
    load_refiner,
    with_settings,
)
from ultrarefiner.refine.predictor import DEFAULT_FOUNDATION, Refiner


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A refiner, exactly as it is measured and stored again with its rule.

    Attributes:
        name: what it was asked for by.
        file: its checkpoint; a rule can be added to it.
        checkpoint: what is in that file.
        is_trained: whether the refiner was trained, rather than the coarse network alone.
    """

    name: str
    file: Path
    checkpoint: RefinerCheckpoint
    is_trained: bool


@contextmanager
def open_subject(
    name: str, *, settings: RefinerConfig | None = None, foundation: str | None = None
) -> Iterator[Subject]:
    """Give the refiner of a checkpoint of ``train``.

    Around a coarse network a checkpoint with the published foundation model is made, for a trained
    refiner with other settings one that holds them; both are removed at last.

    Args:
        name: of a file or folder of ``train``, or of a network that comes with the package.
        settings: of the refiner; of a trained one what :meth:`RefinerCheckpoint.settings` allows.
        foundation: name in the registry, for a refiner that is not trained; LiteMedSAM for
            ``None``.

    Raises:
        ConfigError: other settings, or another foundation model, are asked for than a trained
            refiner has.
        WeightsError: no such checkpoint.
    """
    settings = settings or RefinerConfig()
    if is_refiner(name):
        stored, file = load_refiner(name), find_checkpoint(name, LATEST_FIRST)
        stored.check_foundation(foundation)
        config = replace(stored, rule=None).settings(settings)
        if config == stored.config:
            yield Subject(name=name, file=file, checkpoint=stored, is_trained=True)
            return
        content = with_settings(file, config)
    else:
        content = _with_untrained_refiner(name, settings, foundation or DEFAULT_FOUNDATION)
    with TemporaryDirectory(prefix="ultrarefiner-") as folder:
        file = Path(folder) / REFINER
        file.write_bytes(content)
        yield Subject(
            name=name, file=file, checkpoint=load_refiner(file), is_trained=is_refiner(name)
        )


def _with_untrained_refiner(name: str, settings: RefinerConfig, foundation: str) -> bytes:
    coarse = load_checkpoint(name)
    return encode_refiner(
        coarse.network,
        Refiner(foundation, replace(settings, flips=False), device="cpu").pipeline,
        foundation=foundation,
        config=settings,
        card=coarse.card,
    )
