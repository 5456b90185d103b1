"""Pretrained weights of encoders: from a pip package, a file, a folder, or the hub.

Whatever the source, every tensor of the encoder must be there with its shape; what a file has
beyond them must be a classifier. A partial match is an error, never a quiet random encoder.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
from safetensors import SafetensorError
from safetensors.torch import load_file
from segmentation_models_pytorch.encoders import encoders
from torch import Tensor, nn

from ultrarefiner.coarse.efficientnet_lite0 import EFFICIENTNET_LITE0_WEIGHTS, rename_lite0
from ultrarefiner.errors import WeightsError
from ultrarefiner.weights import file_sha256, load_weights

# Heads of torchvision, timm and smp: what a classifier has beyond an encoder.
_CLASSIFIER = re.compile(r"^(_?fc|classifier|head|last_linear|_fc|AuxLogits|conv_head|bn2)\b")
_LITE0_NAMES = ("timm-tf_efficientnet_lite0", "tu-tf_efficientnet_lite0")
_FILE_NAMES = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth")


def load_encoder_weights(encoder: nn.Module, encoder_name: str, source: str) -> None:
    """Fill an encoder with three input channels.

    Args:
        encoder: as smp builds it, changed in place.
        encoder_name: smp's or timm's (``tu-NAME``) name of it.
        source: ``imagenet``, a file (``.pth``, ``.pt``, ``.bin``, ``.safetensors``), or a folder
            with one of such a name, or with ``ENCODER_NAME`` and such an ending.

    ``imagenet`` takes EfficientNet-Lite0 from its pip package, and others from the hub at the
    revision that smp names, checked by sha256.

    Raises:
        WeightsError: missing, unreadable, or tensors that do not fit.
    """
    if source == "imagenet" and encoder_name in _LITE0_NAMES:
        state = rename_lite0(load_weights(EFFICIENTNET_LITE0_WEIGHTS))
        origin = EFFICIENTNET_LITE0_WEIGHTS.distribution
    elif source == "imagenet":
        path = _download(encoder_name)
        state, origin = _read(path), str(path)
    else:
        path = _find(Path(source), encoder_name)
        state, origin = _read(path), str(path)
    _fill(encoder, state, origin, encoder_name)


def _fill(encoder: nn.Module, state: Mapping[str, Tensor], origin: str, encoder_name: str) -> None:
    wanted = encoder.state_dict()
    prefix = "model." if all(key.startswith("model.") for key in wanted) else ""
    named = {key if key in wanted else prefix + key: value for key, value in state.items()}
    named = {key: named[key] for key in named if key in wanted or not _is_classifier(key, prefix)}
    # Old checkpoints do not count batches; the count is used by no forward pass.
    counters = {key: wanted[key] for key in wanted if key.endswith("num_batches_tracked")}
    named = counters | named
    missing = sorted(wanted.keys() - named.keys())
    surplus = sorted(named.keys() - wanted.keys())
    misfits = sorted(
        key for key in wanted.keys() & named.keys() if wanted[key].shape != named[key].shape
    )
    if missing or surplus or misfits:
        raise WeightsError(
            f"{origin} does not fit the encoder {encoder_name!r}",
            expected=f"its {len(wanted)} tensors, and no others but a classifier",
            found=_differences(missing=missing, surplus=surplus, misfits=misfits),
            fix="Give the weights of this very encoder, or encoder_weights: none.",
        )
    encoder.load_state_dict(named)


def _is_classifier(key: str, prefix: str) -> bool:
    return _CLASSIFIER.match(key.removeprefix(prefix)) is not None


def _differences(**kinds: list[str]) -> str:
    parts = [
        f"{len(keys)} {kind} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        for kind, keys in kinds.items()
        if keys
    ]
    return "; ".join(parts)


def _find(source: Path, encoder_name: str) -> Path:
    if source.is_file():
        return source
    bare = encoder_name.removeprefix("tu-").removeprefix("timm-")
    endings = (".safetensors", ".pth", ".pt", ".bin")
    names = [name + ending for name in (encoder_name, bare) for ending in endings]
    for name in (*names, *_FILE_NAMES):
        if (source / name).is_file():
            return source / name
    raise WeightsError(
        f"no weights of encoder {encoder_name!r} at {source}",
        expected=f"a file, or a folder with {bare}.safetensors, {bare}.pth or model.safetensors",
        found="a folder without them" if source.is_dir() else "nothing of that name",
        fix="encoder_weights may also be 'imagenet' or 'none'.",
    )


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # on old pickle protocols
            state = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as cause:
        raise _unreadable(path, "a pickle with more than tensors, or none") from cause
    except (OSError, EOFError, RuntimeError, ValueError, SafetensorError) as cause:
        raise _unreadable(path, str(cause).partition("\n")[0]) from cause
    for wrapper in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise _unreadable(path, f"a {type(state).__name__}")
    return state


def _unreadable(path: Path, found: str) -> WeightsError:
    return WeightsError(
        f"cannot read weights {path}", expected="a state dict of tensors", found=found
    )


def _download(encoder_name: str) -> Path:
    """Fetch smp's copy of ImageNet weights at its pinned revision, or timm's newest."""
    repository, revision = _on_the_hub(encoder_name)
    name = "model.safetensors"
    try:
        path = Path(hf_hub_download(repository, name, revision=revision))
        published = get_hf_file_metadata(hf_hub_url(repository, name, revision=revision)).etag
    except Exception as cause:  # the hub's own family of network errors is large and changing
        raise WeightsError(
            f"cannot fetch weights of encoder {encoder_name!r} from the hub",
            expected=f"{name} of {repository}",
            found=type(cause).__name__,
            fix="Download it elsewhere and give its file or folder as encoder_weights.",
        ) from cause
    if published and len(published) == 64 and file_sha256(path) != published:
        raise WeightsError(
            f"{path} is damaged",
            expected=f"sha256 {published[:12]}...",
            fix="Delete it and try again.",
        )
    return path


def _on_the_hub(encoder_name: str) -> tuple[str, str | None]:
    settings = encoders.get(encoder_name, {}).get("pretrained_settings", {}).get("imagenet")
    if settings:
        return settings["repo_id"], settings["revision"]
    return f"timm/{encoder_name.removeprefix('tu-')}", None
