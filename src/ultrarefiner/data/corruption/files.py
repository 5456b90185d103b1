"""Settings of the corruption as YAML, and the files that they are fitted to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import yaml

from ultrarefiner.data.atomic import write_text
from ultrarefiner.data.corruption.config import CorruptionConfig
from ultrarefiner.data.formats import split_name
from ultrarefiner.data.manifest import Record
from ultrarefiner.data.pairing import find_images, pair_files
from ultrarefiner.data.readers import read_coarse
from ultrarefiner.errors import ConfigError, InputError
from ultrarefiner.shapes import Mask, ProbMap


def write_config(path: Path, config: CorruptionConfig, *, notes: Sequence[str] = ()) -> None:
    """Write settings as YAML, one line each; the same bytes for the same settings.

    Args:
        path: file to write.
        config: the settings.
        notes: lines of comment above them.
    """
    content = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in asdict(config).items()
    }
    head = "".join(f"# {line}\n" for note in notes for line in note.splitlines())
    write_text(path, head + yaml.safe_dump(content, sort_keys=False, default_flow_style=None))


def read_config(path: Path) -> CorruptionConfig:
    """Read settings; what the file leaves out keeps its default.

    Raises:
        InputError: the file cannot be read or is no mapping.
        ConfigError: a setting is unknown or out of range; the message names the file.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as cause:
        raise InputError(f"cannot read {path}", found=str(cause)) from cause
    known = [field.name for field in fields(CorruptionConfig)]
    if not isinstance(content, dict):
        raise InputError(
            str(path), expected="settings of the corruption, name: value", found="none"
        )
    unknown = [str(name) for name in content if name not in known]
    if unknown:
        raise ConfigError(str(path), expected=", ".join(known), found=", ".join(unknown))
    settings: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in content.items()
    }
    try:
        return CorruptionConfig(**settings)
    except (TypeError, ValueError, AttributeError) as cause:
        raise ConfigError(
            str(path), expected="settings of the right kind", found=str(cause)
        ) from cause


class PredictedMasks:
    """True masks and predictions of the images of a manifest, read one after the other.

    Args:
        records: rows of the manifest; those without a mask are passed over.
        folder: with a mask or probability for each image, named like it.
        label: value of the lesion, where the true masks are label maps.

    Attributes:
        failures: name and message of each image whose files could not be used, complete after
            iteration.

    Raises:
        InputError: nothing matches.
    """

    def __init__(
        self, records: Iterable[Record], folder: Path, *, label: int | None = None
    ) -> None:
        masks = {record.image: record.mask for record in records if record.mask}
        pairing = pair_files(sorted(masks), find_images(folder))
        if not pairing.pairs:
            raise InputError(
                f"no prediction in {folder} for an image of the manifest",
                expected="masks or probabilities named like the images",
                found="other names" if masks else "no image with a true mask",
                fix="Give the folder that holds them, as `coarse_probabilities` of a run.",
            )
        self._ambiguous = [
            (
                group.stem,
                f"{len(group.images)} images and {len(group.coarse)} predictions of this name",
            )
            for group in pairing.ambiguous
        ]
        self.failures = list(self._ambiguous)
        self._label = label
        self._files = [(masks[pair.image], pair.coarse) for pair in pairing.pairs]

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[tuple[Mask, ProbMap]]:
        self.failures = list(self._ambiguous)
        for truth, prediction in self._files:
            assert truth is not None
            try:
                mask = read_coarse(truth, label=self._label).values > 0.5
                probs = read_coarse(prediction).values
                if mask.shape != probs.shape:
                    raise InputError(
                        str(prediction),
                        expected=f"{mask.shape[1]}x{mask.shape[0]} px as {truth.name}",
                        found=f"{probs.shape[1]}x{probs.shape[0]} px",
                    )
            except InputError as error:
                self.failures.append((split_name(prediction)[0], str(error)))
                continue
            yield mask, probs
