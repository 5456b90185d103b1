"""Checkpoints of trained refiners: what was changed, and all that it only fits together with.

One safetensors file holds the change of the foundation model's weights (8 bits: the rounding is
relative to the change, not to the weight), the weights of a gate that learned, the coarse network
that the refiner was trained behind (bfloat16 as phase 1 stored it, float32 once phase 3 has changed
it: its steps are smaller than what bfloat16 tells apart), and a header: the refiner's settings, the
sha256 of the published weights that were changed, a card that tells how it was made, and, once it
was calibrated, the acceptance rule with the hash of the weights and settings that it holds for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ultrarefiner.coarse import CoarseConfig, CoarseNetwork, build_coarse
from ultrarefiner.coarse.checkpoint import COARSE, locate_checkpoint
from ultrarefiner.errors import ConfigError, WeightsError
from ultrarefiner.foundation import FOUNDATION_MODELS, FoundationModel
from ultrarefiner.refine.acceptance import SIGNS_VERSION, AcceptanceRule
from ultrarefiner.refine.assembly import RefinerConfig
from ultrarefiner.refine.gates import build_gate
from ultrarefiner.refine.packing import pack_changes, unpack_changes
from ultrarefiner.refine.pipeline import RefinementPipeline
from ultrarefiner.refine.predictor import Refiner
from ultrarefiner.settings import config_from_json

FORMAT = "refiner-2"
_READABLE = ("refiner-1", FORMAT)
"""In the first, every change was in bfloat16."""
JOINT, REFINER = "joint.safetensors", "refiner.safetensors"
LATEST_FIRST = (JOINT, REFINER, COARSE)
_KEY, _REFINERS = "ultrarefiner", (JOINT, REFINER)
_UNTRAINED = ("softening", "stabilizer", "flips", "second_opinion")
"""Settings that training does not depend on: they may be others at prediction, without a rule.
So may be the gate, if neither the trained nor the other one has weights."""
_BOUND = ("network", "foundation", "foundation_sha256", "refiner")
"""Parts of the header that an acceptance rule holds for, beside all tensors."""


@dataclass(frozen=True, kw_only=True)
class RefinerCheckpoint:
    """A trained refiner as it was stored.

    Attributes:
        network: the coarse network that it was trained behind, in evaluation mode.
        foundation: the model with its changed weights, in evaluation mode.
        gate: weights of the gate, empty for one that has none.
        foundation_name: of that model in the registry.
        config: the settings that it was trained with.
        card: its story, as plain JSON.
        origin: the name or path it was asked for by.
        binding: sha256 of its weights and settings, which an acceptance rule is bound to.
        rule: tells which refinements to deliver, if it was calibrated.
    """

    network: CoarseNetwork
    foundation: FoundationModel
    foundation_name: str
    gate: Mapping[str, Tensor]
    config: RefinerConfig
    card: Mapping[str, Any]
    origin: str
    binding: str
    rule: AcceptanceRule | None = None

    def settings(self, asked: RefinerConfig | None = None) -> RefinerConfig:
        """Return the settings to predict with: those it was trained with, and what is free.

        Args:
            asked: what a user asks for; a default counts as not asked for.

        Raises:
            ConfigError: it differs in what the weights were trained for, or in what the acceptance
                rule was calibrated with.
        """
        if asked is None:
            return self.config
        default, free = RefinerConfig(), {}
        for item in fields(RefinerConfig):
            given, trained = getattr(asked, item.name), getattr(self.config, item.name)
            if given in (getattr(default, item.name), trained):
                continue
            if not self._is_free(item.name, asked):
                raise ConfigError(
                    f"setting {item.name} of checkpoint {self.origin}",
                    expected=f"what it was trained with: {trained}",
                    found=str(given),
                    fix="Leave the setting out, or train with it.",
                )
            if self.rule is not None:
                raise ConfigError(
                    f"setting {item.name} of checkpoint {self.origin}",
                    expected=f"what its acceptance rule was calibrated with: {trained}",
                    found=str(given),
                    fix="Leave the setting out, leave the rule out, or calibrate with it.",
                )
            free[item.name] = given
        return replace(self.config, **free)

    def allows(self, asked: RefinerConfig) -> bool:
        """Return whether :meth:`settings` takes what a user asks for."""
        try:
            self.settings(asked)
        except ConfigError:
            return False
        return True

    def _is_free(self, name: str, asked: RefinerConfig) -> bool:
        """Return whether a setting may be another than that of the training."""
        if name == "gate":
            return not self.gate and not build_gate(asked.gate).state_dict()
        return name in _UNTRAINED

    def check_foundation(self, asked: str | None) -> None:
        """Make sure that nobody asks for another foundation model than it brings along.

        Args:
            asked: name of a model, ``None`` if a user did not ask for one.

        Raises:
            ConfigError: it is another.
        """
        if asked not in (None, self.foundation_name):
            raise ConfigError(
                f"foundation model of checkpoint {self.origin}",
                expected=f"the one that it was trained with: {self.foundation_name}",
                found=str(asked),
                fix="Leave it out.",
            )

    def refiner(
        self, asked: RefinerConfig | None = None, *, device: str = "auto", bf16: bool | None = None
    ) -> Refiner:
        """Return a refiner with the trained weights and the rule; see :meth:`settings`."""
        settings = self.settings(asked)
        refiner = Refiner(self.foundation, settings, device=device, bf16=bf16, rule=self.rule)
        refiner.pipeline.gate.load_state_dict(self.gate)
        return refiner


def encode_refiner(
    network: CoarseNetwork,
    pipeline: RefinementPipeline,
    *,
    foundation: str,
    config: RefinerConfig,
    card: Mapping[str, Any],
) -> bytes:
    """Return the content of a checkpoint file; the same bytes for the same arguments.

    What comes from a checkpoint may be rounded a second time, so that a rule of the former does not
    hold for the latter: :func:`add_rule` leaves every weight as it is.

    Args:
        network: the coarse network.
        pipeline: its foundation model and gate.
        foundation: name of that model in the registry: what is stored is the change against it.
        config: settings of the pipeline.
        card: JSON to keep beside them, without patient text.
    """
    published = FOUNDATION_MODELS[foundation]()
    header = {
        "format": FORMAT,
        "network": asdict(network.config),
        "foundation": foundation,
        "foundation_sha256": published.weights_sha256,
        "refiner": asdict(config),
        "card": dict(card),
    }
    before = published.state_dict()
    now = {name: value.detach().cpu() for name, value in pipeline.foundation.state_dict().items()}
    changed = [name for name, value in now.items() if not torch.equal(value, before[name])]
    changes = pack_changes({name: now[name] - before[name] for name in changed})
    state = {f"foundation.{name}": value for name, value in changes.items()}
    for name, value in network.state_dict().items():
        state[f"network.{name}"] = _shortened(value.detach().cpu())
    for name, value in pipeline.gate.state_dict().items():
        state[f"gate.{name}"] = value.detach().cpu()
    packed = {name: value.contiguous() for name, value in state.items()}
    return _sealed(header, packed)


def add_rule(path: Path, rule: AcceptanceRule, *, card: Mapping[str, Any] | None = None) -> bytes:
    """Return the content of a checkpoint file with an acceptance rule, every weight as it was.

    Args:
        path: a refiner's file; a rule that it has is replaced. It is not changed.
        rule: calibrated for it: bound to :attr:`RefinerCheckpoint.binding`.
        card: instead of its card.

    Raises:
        ConfigError: the rule was calibrated for other weights or settings.
        WeightsError: the file is damaged or not one of ours.
    """
    header, state = _read(path)
    return _sealed(header if card is None else header | {"card": dict(card)}, state, rule)


def with_settings(path: Path, config: RefinerConfig) -> bytes:
    """Return the content of a checkpoint file with other settings, and without a rule.

    Args:
        path: a refiner's file. It is not changed.
        config: that :meth:`RefinerCheckpoint.settings` allows.

    Raises:
        WeightsError: the file is damaged or not one of ours.
    """
    header, state = _read(path)
    return _sealed(header | {"refiner": asdict(config)}, state)


def is_refiner(name_or_path: str | Path) -> bool:
    """Tell whether a checkpoint is that of a refiner; of none at all, too, it is not."""
    path = locate_checkpoint(name_or_path, _REFINERS)
    if path is None:
        return False
    try:
        return bool(_read_header(path).get("format") in _READABLE)
    except (OSError, ValueError, SafetensorError):
        return False


def load_refiner(name_or_path: str | Path) -> RefinerCheckpoint:
    """Read a checkpoint.

    Args:
        name_or_path: a file, a folder of ``train`` (the result of phase 3, else of phase 2), or the
            name of one that comes with the package.

    Raises:
        WeightsError: not there, damaged, not one of ours, the published weights that it changes are
            others now, or its acceptance rule was calibrated for other weights or settings, or by
            a version that measured other signs.
    """
    path = locate_checkpoint(name_or_path, _REFINERS)
    if path is None:
        raise WeightsError(
            f"no checkpoint {str(name_or_path)!r}",
            expected=f"a .safetensors file, a folder with {JOINT} or {REFINER}, or a name",
        )
    header, state = _read(path)
    _check_signs(header, path)
    try:
        found = _rebuild(header, state, str(name_or_path))
    except (ConfigError, KeyError, TypeError, RuntimeError) as cause:
        raise WeightsError(
            f"cannot use checkpoint {path}",
            expected="settings and weights that fit each other",
            found=str(cause).partition("\n")[0],
            fix="It may be of another version of UltraRefiner.",
        ) from cause
    if found.rule is not None and found.rule.binding != found.binding:
        raise _void(
            path,
            expected=f"the weights and settings of its calibration ({found.rule.binding[:12]})",
            found=f"others ({found.binding[:12]})",
        )
    return found


def _check_signs(header: Mapping[str, Any], path: Path) -> None:
    """Make sure that a rule's signs mean what they meant at its calibration.

    Raises:
        WeightsError: they do not.
    """
    rule = header.get("rule")
    if isinstance(rule, dict) and rule.get("signs_version") != SIGNS_VERSION:
        raise _void(
            path,
            expected=f"signs as this version measures them ({SIGNS_VERSION})",
            found=f"those of another ({rule.get('signs_version', 'none given')})",
        )


def _void(path: Path, *, expected: str, found: str) -> WeightsError:
    return WeightsError(
        f"the acceptance rule in {path} is void",
        expected=expected,
        found=found,
        fix="Calibrate again with 'ultrarefiner calibrate'.",
    )


def _rebuild(
    header: Mapping[str, Any], state: Mapping[str, Tensor], origin: str
) -> RefinerCheckpoint:
    foundation = FOUNDATION_MODELS[header["foundation"]]()
    if foundation.weights_sha256 != header["foundation_sha256"]:
        raise WeightsError(
            f"checkpoint {origin} changes other weights of {header['foundation']!r}",
            expected=f"sha256 {header['foundation_sha256'][:12]}",
            found=f"sha256 {foundation.weights_sha256[:12]}",
        )
    weights = foundation.state_dict()
    for name, change in unpack_changes(_part(state, "foundation")).items():
        weights[name] = weights[name] + change.to(weights[name].dtype)
    foundation.load_state_dict(weights)
    network_config = config_from_json(CoarseConfig, header["network"])
    network = build_coarse(replace(network_config, encoder_weights="none"))
    restored = {
        name: value.float() if value.is_floating_point() else value
        for name, value in _part(state, "network").items()
    }
    network.load_state_dict(restored)
    stored = {"flips": False, "second_opinion": None, **header["refiner"]}  # older ones do not say
    config, gate = config_from_json(RefinerConfig, stored), _part(state, "gate")
    build_gate(config.gate).load_state_dict(gate)  # what does not fit is met here, with its file
    return RefinerCheckpoint(
        network=network.eval(),
        foundation=foundation.eval(),
        foundation_name=header["foundation"],
        gate=gate,
        config=config,
        card=header["card"],
        origin=origin,
        binding=_binding(header, state),
        rule=AcceptanceRule.from_json(dict(header["rule"])) if "rule" in header else None,
    )


def _shortened(value: Tensor) -> Tensor:
    """Return a tensor in bfloat16 if that changes nothing, else as it is."""
    half = value.bfloat16()
    return half if value.is_floating_point() and torch.equal(half.to(value.dtype), value) else value


def _part(state: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    prefix = f"{part}."
    return {
        name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
    }


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return header and tensors of a refiner's file."""
    try:
        header = _read_header(path)
        with safe_open(path, framework="pt") as stream:
            state = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118
    except (OSError, ValueError, SafetensorError) as cause:
        raise WeightsError(f"cannot read checkpoint {path}", found=str(cause)) from cause
    if header.get("format") not in _READABLE:
        raise WeightsError(
            f"cannot use checkpoint {path}",
            expected="a refiner stored by 'ultrarefiner train' in phase 2 or 3",
            found=f"format {header.get('format')!r}",
        )
    return header, state


def _read_header(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as stream:
        header: dict[str, Any] = json.loads((stream.metadata() or {}).get(_KEY, "{}"))
    return header


def _sealed(
    header: Mapping[str, Any], state: Mapping[str, Tensor], rule: AcceptanceRule | None = None
) -> bytes:
    """Return the content of a file with these parts."""
    content = {name: value for name, value in header.items() if name != "rule"}
    if rule is not None:
        binding = _binding(header, state)
        if rule.binding != binding:
            raise ConfigError(
                "acceptance rule",
                expected=f"one calibrated for the weights and settings to store ({binding[:12]})",
                found=f"one for others ({rule.binding[:12]})",
            )
        content["rule"] = rule.to_json()
    # One key: safetensors writes several in random order.
    metadata = {_KEY: json.dumps(content, sort_keys=True, allow_nan=False)}
    packed: bytes = save(dict(state), metadata=metadata)
    return packed


def _binding(header: Mapping[str, Any], state: Mapping[str, Tensor]) -> str:
    """Return the sha256 of every tensor, to the bit, and of the settings that they work with."""
    bound = {name: header[name] for name in _BOUND}
    digest = hashlib.sha256(json.dumps(bound, sort_keys=True, allow_nan=False).encode())
    for name, value in sorted(state.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
