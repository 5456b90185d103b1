"""Turn a trained network into one that can be passed on: the weights and a model card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ultrarefiner.coarse import CoarseCheckpoint, encode_checkpoint, load_checkpoint
from ultrarefiner.data.atomic import atomic_path, write_text
from ultrarefiner.data.sources.notices import NOTICES
from ultrarefiner.errors import ConfigError, InputError
from ultrarefiner.weights import file_sha256

_METRICS = {"dsc": ("DSC", ".3f"), "iou": ("IoU", ".3f"), "hd95": ("HD95 [px]", ".1f")}


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
    """Write ``out/NAME.safetensors`` (matrices in bfloat16) and ``out/NAME.md``.

    Args:
        checkpoint: what ``ultrarefiner train`` left.
        name: of the release.
        out: folder, made if missing.
        result: JSON of the study ``network-masks`` on patients that it has not seen; its figures go
            into the card.

    Raises:
        ConfigError: it was trained on data whose licence and citation we do not know.
        WeightsError: no such checkpoint.
        InputError: the result cannot be read, or is of another network.
    """
    loaded = load_checkpoint(checkpoint)
    unknown = sorted(set(loaded.card.get("datasets", [""])) - NOTICES.keys())
    if unknown:
        raise ConfigError(
            f"release of {checkpoint}",
            expected="data sets with a notice: " + ", ".join(NOTICES),
            found=", ".join(map(repr, unknown)),
            fix="Add their licence and citation to data/sources/notices.py.",
        )
    scores = _read_result(result, loaded) if result else None
    weights, card = out / f"{name}.safetensors", out / f"{name}.md"
    with atomic_path(weights) as temporary:
        temporary.write_bytes(encode_checkpoint(loaded.network, loaded.card))
    digest = file_sha256(weights)
    write_text(card, _card(name, loaded, scores, digest, weights.stat().st_size))
    return Release(weights=weights, card=card, sha256=digest)


def _read_result(path: Path, checkpoint: CoarseCheckpoint) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        story = content["networks"][0]["split_sha256"]
    except (OSError, ValueError, KeyError, IndexError, TypeError) as cause:
        raise InputError(
            f"cannot use {path}", expected="a result of the study 'network-masks'", found=str(cause)
        ) from cause
    if story != checkpoint.card["split_sha256"]:
        raise InputError(
            f"{path} is of another network",
            expected=f"split {checkpoint.card['split_sha256'][:12]}",
            found=f"split {story[:12]}",
        )
    return content


def _card(
    name: str,
    checkpoint: CoarseCheckpoint,
    result: Mapping[str, Any] | None,
    digest: str,
    num_bytes: int,
) -> str:
    story, config = checkpoint.card, checkpoint.network.config
    notices = [NOTICES[dataset] for dataset in story["datasets"]]
    sections = [
        f"# {name}",
        "**Research software, not a medical device. Do not use it for diagnosis.**",
        f"A coarse segmentation network for ultrasound images ({', '.join(story['datasets'])}), to "
        "be followed by refinement: "
        f"`ultrarefiner predict --checkpoint {name} --images DIR --out DIR`.",
        _table(
            {
                "network": f"`{config.name}`, encoder `{config.encoder_name}` (ImageNet weights, "
                f"Apache-2.0), {config.side} px",
                "file": f"`{name}.safetensors`, {num_bytes / 1e6:.1f} MB, matrices in bfloat16, "
                f"sha256 `{digest}`",
                "licence of the weights": "Apache-2.0, and what the data ask for (below)",
                "trained on": f"{story['num_train']} images; checkpoint chosen on "
                f"{story['num_val']} more; {story['num_patients']} patients in all",
                "held out": f"fold {story['held_out_fold']}, {story['num_held_out']} images; split "
                f"`{story['split_sha256'][:12]}`",
                "training time": f"{story['minutes']} minutes",
                "made by": f"`{story['command']}`",
                "versions": ", ".join(f"{k} {v}" for k, v in sorted(story["versions"].items())),
            }
        ),
        *([] if result is None else _figures(result)),
        "## Limits",
        "Trained on one data set of one country: images of other scanners, organs or presentations "
        "may fail, also badly. It finds a lesion in nearly every image, since every image it has "
        "seen holds one: do not use it to decide whether there is one.",
        "## Data",
        *(
            f"{dataset}: {notice.licence}.\n\nCite: {notice.citation}."
            for dataset, notice in zip(story["datasets"], notices, strict=True)
        ),
    ]
    return "\n\n".join(sections) + "\n"


def _figures(result: Mapping[str, Any]) -> list[str]:
    variant, refined = next(iter(result["variants"].items()))
    rows = [f"| | coarse | refined ({variant}) |", "|---|---|---|"]
    for key, (label, form) in _METRICS.items():
        cells = [_interval(part[key], form) for part in (result["coarse"], refined)]
        rows.append(f"| {label} | {cells[0]} | {cells[1]} |")
    missed = [part["counts"]["missed"] for part in (result["coarse"], refined)]
    rows.append(f"| missed | {missed[0]} | {missed[1]} |")
    return [
        "## Measured",
        f"{result['num_images']} images of {result['num_patients']} patients that it has not seen, "
        "at native size; mean and 95 % interval by patient.",
        "\n".join(rows),
    ]


def _interval(estimate: Mapping[str, float], form: str) -> str:
    mean, low, high = (format(estimate[key], form) for key in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def _table(rows: Mapping[str, str]) -> str:
    return "\n".join(
        ["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items())]
    )
