"""The model card of a trained network: what it is, whence it comes, and what it is not good for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from ultrarefiner.coarse import CoarseCheckpoint, CoarseConfig
from ultrarefiner.data.sources.notices import NOTICES
from ultrarefiner.errors import ConfigError
from ultrarefiner.foundation import LITE_MEDSAM_WEIGHTS
from ultrarefiner.refine.assembly import RefinerConfig
from ultrarefiner.refine.checkpoint import RefinerCheckpoint
from ultrarefiner.settings import dotted
from ultrarefiner.training.tuning import TUNINGS
from ultrarefiner.weights import PackagedWeights, file_sha256

Loaded: TypeAlias = CoarseCheckpoint | RefinerCheckpoint

_PUBLISHED = {entry.sha256: entry for entry in (LITE_MEDSAM_WEIGHTS,)}


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What was measured.

    Attributes:
        about: on what, and how.
        head: of the columns with numbers.
        rows: name and cells.
    """

    about: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def model_card(name: str, path: Path, loaded: Loaded, figures: Figures | None) -> str:
    """Return the card in Markdown.

    Args:
        name: of the release.
        path: file of the checkpoint; beside it ``train`` left how long it took.
        loaded: what is in it.
        figures: what was measured, if anything was.

    Raises:
        ConfigError: nothing is known of the weights that it changes.
    """
    story = loaded.card
    notices = {dataset: NOTICES[dataset] for dataset in story["datasets"]}
    limits = [f"{notice.limits}." for notice in notices.values()]
    if isinstance(loaded, RefinerCheckpoint):
        limits.append(
            "The refiner has learned from the mistakes of its own coarse network, from corrupted "
            "masks, and where its annotators draw an outline: given masks of other mistakes, or of "
            "another convention, it may do harm."
        )
    sections = [
        f"# {name}",
        "**Research software, not a medical device. Do not use it for diagnosis.**",
        _purpose(name, loaded),
        _table(("", ""), list((_parts(name, path, loaded) | _origin(path, story)).items())),
        *([] if figures is None else _measured(figures)),
        "## Limits",
        *limits,
        "## Data",
        *(
            f"{dataset}: {notice.licence}."
            + (f"\n\nCite: {notice.citation}." if notice.citation else "")
            for dataset, notice in notices.items()
        ),
    ]
    return "\n\n".join(sections) + "\n"


def _purpose(name: str, loaded: Loaded) -> str:
    datasets = ", ".join(loaded.card["datasets"])
    use = f"`ultrarefiner predict --checkpoint {name} --images DIR --out DIR`"
    if isinstance(loaded, RefinerCheckpoint):
        return (
            f"A coarse segmentation network for ultrasound images ({datasets}) and a foundation "
            f"model that was trained to correct it: {use}; the refiner alone, on coarse masks of "
            f"others: `ultrarefiner refine --checkpoint {name} ...`."
        )
    return (
        f"A coarse segmentation network for ultrasound images ({datasets}), to be followed by "
        f"refinement: {use}."
    )


def _parts(name: str, path: Path, loaded: Loaded) -> dict[str, str]:
    """Return what the file holds, under which licence, and what it only fits together with."""
    megabytes = path.stat().st_size / 1e6
    rows = {
        "network": _network(loaded.network.config, loaded.card),
        "file": f"`{name}.safetensors`, {megabytes:.1f} MB, the network in bfloat16 as far as "
        f"that loses nothing, sha256 `{file_sha256(path)}`",
        "licence of the weights": "Apache-2.0, and what the data ask for (below)",
    }
    if not isinstance(loaded, RefinerCheckpoint):
        return rows
    published = _published(loaded)
    return rows | {
        "foundation model": f"`{published.name}`, not in the file: weights "
        f"`{published.distribution}` from <{published.source}>, {published.licence}, sha256 "
        f"`{published.sha256[:12]}`",
        "changed": _changed(loaded),
        "refines with": _settings(loaded.config),
        "computed in": "bfloat16" if loaded.card.get("bf16") else "float32",
        **({} if loaded.rule is None else {"acceptance rule": _promised(loaded.card)}),
    }


def _network(config: CoarseConfig, story: Mapping[str, Any]) -> str:
    """Return a line on the coarse network; which weights it began with, only the recipe tells."""
    began_with = story.get("recipe", {}).get("network", {}).get("encoder_weights", "imagenet")
    if began_with == "none":
        return f"`{config.name}`, {config.side} px, trained from scratch"
    origin = "ImageNet weights, Apache-2.0" if began_with == "imagenet" else f"`{began_with}`"
    return f"`{config.name}`, encoder `{config.encoder_name}` ({origin}), {config.side} px"


def _published(loaded: RefinerCheckpoint) -> PackagedWeights:
    sha256 = loaded.foundation.weights_sha256
    if sha256 not in _PUBLISHED:
        raise ConfigError(
            f"release of {loaded.origin}",
            expected="a change of published weights whose licence is known: "
            + ", ".join(entry.name for entry in _PUBLISHED.values()),
            found=f"sha256 {sha256[:12]}",
        )
    return _PUBLISHED[sha256]


def _promised(card: Mapping[str, Any]) -> str:
    """Return what the calibration says of the rule."""
    return str(card.get("calibration", {}).get("statement", "of unknown origin"))


def _changed(loaded: RefinerCheckpoint) -> str:
    """Return what of the foundation model was trained, and in which phases."""
    if "phase" not in loaded.card:  # a coarse network alone that was calibrated
        return "nothing"
    recipe, model = loaded.card["recipe"], loaded.foundation
    tuned = [value for part in TUNINGS[recipe["trainable"]](model) for value in part.parameters()]
    counts = (sum(value.numel() for value in values) for values in (tuned, model.parameters()))
    own, whole = (f"{count / 1e6:.1f}" for count in counts)
    parts = recipe["trainable"].replace("+prompt", " and prompt encoder")
    parts = parts.replace("+tail", ", tail of the image encoder").replace("all", "all of it")
    phases = "; ".join(
        f"{phase}: {recipe[f'phase{phase}']['epochs']} epochs"
        for phase in range(1, loaded.card["phase"] + 1)
    )
    held = f"{own} of {whole} million weights, of which the file holds the difference"
    return f"{parts}, {held}; phase {phases}"


def _settings(config: RefinerConfig) -> str:
    """Return the settings that are not the defaults."""
    default = dotted(asdict(RefinerConfig()))
    changes = [
        f"`{name}: {json.dumps(value)}`"
        for name, value in dotted(asdict(config)).items()
        if value != default[name]
    ]
    return ", ".join([*changes, "else the defaults"])


def _origin(path: Path, story: Mapping[str, Any]) -> dict[str, str]:
    """Return how it was made."""
    fold, num_held_out = story["held_out_fold"], story["num_held_out"]
    held_out = "split test" if fold is None else f"fold {fold}"
    drawn = story.get("num_pseudo", 0)  # cards of earlier versions know none
    others = f" and {drawn} whose masks a network drew" if drawn else ""
    rows = {
        "trained on": f"{story['num_train']} images{others}; checkpoint chosen on "
        f"{story['num_val']} more; {story['num_patients']} patients in all",
        "held out": (f"{held_out}, {num_held_out} images" if num_held_out else "nothing")
        + f"; split `{story['split_sha256'][:12]}`",
        "chosen by": _inner_validation(story),
        "training time": _minutes(path, story),
        "made by": f"`{story['command']}`",
        "revision": f"`{story['revision']}`" if story.get("revision") else "",
        "versions": ", ".join(f"{k} {v}" for k, v in sorted(story["versions"].items())),
    }
    return {name: text for name, text in rows.items() if text}


def _inner_validation(story: Mapping[str, Any]) -> str:
    if "inner_validation" not in story:
        return ""
    before, after = (story["inner_validation"][when]["dsc"] for when in ("before", "after"))
    return (
        f"DSC on the inner validation, {before:.3f} before phase {story['phase']} and {after:.3f} "
        f"after epoch {story['epoch'] + 1} (which flatters: see what was held out)"
    )


def _minutes(path: Path, story: Mapping[str, Any]) -> str:
    """Return the minutes of each phase from the files beside a checkpoint, if they are its own."""
    last = story.get("phase", 1)
    told = {1: _told(path.parent)}
    told |= {number: _told(path.parent / f"phase{number}") for number in range(2, last + 1)}
    if not story.items() <= told[last].items():
        return ""
    spent = {
        number: f"{content['minutes']:.1f}"
        for number, content in told.items()
        if content.get("split_sha256") == story["split_sha256"] and "minutes" in content
    }
    if last == 1:
        return f"{spent[1]} minutes" if spent else ""
    listed = ", ".join(f"phase {number} {minutes}" for number, minutes in spent.items())
    return f"minutes: {listed}; without inner networks and embeddings"


def _told(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _measured(figures: Figures) -> list[str]:
    return ["## Measured", figures.about, _table(("", *figures.head), figures.rows)]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    first, *others = (
        "|".join(["", *(f" {cell} " if cell else " " for cell in row), ""]) for row in (head, *rows)
    )
    return "\n".join([first, "|---" * len(head) + "|", *others])
