"""Checkpoints of coarse networks: weights and their whole story in one safetensors file.

The header holds the config that builds the network again and a card: on what it was trained, what
was held out, with which versions. Matrices may be stored in bfloat16 (half the bytes); vectors, the
moments of batch normalisation among them, stay float32.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ultrarefiner.coarse.pretrained import PRETRAINED
from ultrarefiner.coarse.protocol import CoarseConfig, CoarseNetwork, build_coarse
from ultrarefiner.errors import ConfigError, WeightsError

COARSE = "coarse.safetensors"
_KEY, _FORMAT = "ultrarefiner", "coarse-1"


@dataclass(frozen=True, kw_only=True)
class CoarseCheckpoint:
    """A coarse network as it was stored.

    Attributes:
        network: in evaluation mode, float32, on the CPU.
        card: its story, as plain JSON.
        origin: the name or path it was asked for by.
    """

    network: CoarseNetwork
    card: Mapping[str, Any]
    origin: str


def encode_checkpoint(
    network: CoarseNetwork, card: Mapping[str, Any], *, half: bool = True
) -> bytes:
    """Return the content of a checkpoint file; the same bytes for the same network and card.

    Args:
        network: whose weights to store.
        card: JSON to keep beside them, without patient text.
        half: store matrices in bfloat16.
    """
    header = {"format": _FORMAT, "config": asdict(network.config), "card": dict(card)}
    # One key: safetensors writes several in random order.
    metadata = {_KEY: json.dumps(header, sort_keys=True, allow_nan=False)}
    state = {key: _packed(value, half) for key, value in network.state_dict().items()}
    content: bytes = save(state, metadata=metadata)
    return content


def load_checkpoint(name_or_path: str | Path) -> CoarseCheckpoint:
    """Read a checkpoint.

    Args:
        name_or_path: a file, a folder with ``coarse.safetensors``, or the name of a network that
            comes with the package.

    Raises:
        WeightsError: not there, damaged, or not one of ours.
    """
    path = find_checkpoint(name_or_path)
    header, state = _read(path)
    try:
        config = _config(header["config"])
        network = build_coarse(config)
        network.load_state_dict({key: value.float() for key, value in state.items()})
    except (ConfigError, KeyError, TypeError, RuntimeError) as cause:
        raise WeightsError(
            f"cannot use checkpoint {path}",
            expected="a network and weights that fit each other",
            found=str(cause).partition("\n")[0],
            fix="It may be of another version of UltraRefiner.",
        ) from cause
    return CoarseCheckpoint(
        network=network.eval(), card=header.get("card", {}), origin=str(name_or_path)
    )


def find_checkpoint(name_or_path: str | Path, names: Sequence[str] = (COARSE,)) -> Path:
    """Return the file of a checkpoint.

    Args:
        name_or_path: a file, a folder of ``train``, or the name of one that comes with the package.
        names: of the files to look for in a folder, the one to prefer first.

    Raises:
        WeightsError: there is none, or the package's own is damaged.
    """
    path = locate_checkpoint(name_or_path, names)
    if path is None:
        raise WeightsError(
            f"no checkpoint {str(name_or_path)!r}",
            expected="a .safetensors file, a folder that 'ultrarefiner train' wrote, or one of "
            + ", ".join(PRETRAINED),
        )
    return path


def locate_checkpoint(name_or_path: str | Path, names: Sequence[str]) -> Path | None:
    """Return what :func:`find_checkpoint` finds, or None."""
    path = Path(name_or_path)
    for found in (*(path / name for name in names), path):
        if found.is_file():
            return found
    name = str(name_or_path)
    return PRETRAINED[name].verify() if name in PRETRAINED and not path.is_dir() else None


def _packed(value: Tensor, half: bool) -> Tensor:
    if half and value.is_floating_point() and value.ndim > 1:
        value = value.bfloat16()
    return value.detach().cpu().contiguous()


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    expected = "a coarse network stored by UltraRefiner"
    try:
        with safe_open(path, framework="pt") as stream:
            header = json.loads((stream.metadata() or {}).get(_KEY, "{}"))
            state = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118
    except (OSError, ValueError, SafetensorError) as cause:
        raise WeightsError(
            f"cannot read checkpoint {path}", expected=expected, found=str(cause)
        ) from cause
    if header.get("format") != _FORMAT:
        found = f"format {header['format']!r}" if "format" in header else "other tensors"
        raise WeightsError(f"cannot use checkpoint {path}", expected=expected, found=found)
    return header, state


def _config(stored: Mapping[str, Any]) -> CoarseConfig:
    """Return the config without its encoder's own weights, which the checkpoint replaces."""
    known = {field.name for field in fields(CoarseConfig)}
    unknown = sorted(stored.keys() - known)
    if unknown:
        raise ConfigError("checkpoint's config", found="unknown settings " + ", ".join(unknown))
    values = dict(stored) | {"encoder_weights": "none"}
    values["decoder_channels"] = tuple(values["decoder_channels"])
    return CoarseConfig(**values)
