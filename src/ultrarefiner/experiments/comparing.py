"""Compare evaluations, runs and folders of masks on the same images."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ultrarefiner.data.formats import split_name
from ultrarefiner.data.writers import write_json
from ultrarefiner.errors import ConfigError, InputError
from ultrarefiner.experiments.scoring import (
    MaskFolder,
    ScoringConfig,
    note_unknown_patients,
    provenance,
    read_records,
    read_truth,
)
from ultrarefiner.metrics import Case, compare_methods
from ultrarefiner.metrics.cases import as_json, matched
from ultrarefiner.metrics.summary import check_delta

Remark = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class ComparisonConfig:
    """How methods are compared.

    Attributes:
        metrics: what is tested; all that every method has if empty.
        delta: change in DSC, in [0, 1), up to which an image counts as unchanged.
        margin: largest difference that does not matter, in DSC, or metric to number in its unit.
        effect: DSC difference that the next study is to find; the one observed if None.
        common: compare the images that all methods have, where some lack some.
        seed: of bootstraps and permutations.
    """

    metrics: tuple[str, ...] = ()
    delta: float = 0.02
    margin: float | Mapping[str, float] | None = None
    effect: float | None = None
    common: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_delta(self.delta)


@dataclass(frozen=True, kw_only=True)
class Truths:
    """What folders of masks are measured against.

    Attributes:
        manifest: names image, mask and patient of every case.
        fold: only the images of this fold.
        scoring: how masks are measured.
    """

    manifest: Path
    fold: str | None = None
    scoring: ScoringConfig = field(default_factory=ScoringConfig)


@dataclass(frozen=True, kw_only=True)
class ComparisonResult:
    """What was compared.

    Attributes:
        content: the object written as ``compare.json``.
        failures: file and reason of every mask that could not be scored.
        notes: what to know about the comparison, as (topic, remark).
    """

    content: dict[str, Any]
    failures: tuple[Remark, ...]
    notes: tuple[Remark, ...]


@dataclass(frozen=True, kw_only=True)
class _Source:
    """One method: where it comes from and its cases."""

    path: Path
    cases: Sequence[Case]
    sha256: str | None = None
    manifest_sha256: str | None = None
    failures: tuple[Remark, ...] = ()
    notes: tuple[Remark, ...] = ()


def compare_sources(
    paths: Sequence[Path],
    out: Path | None = None,
    *,
    names: Sequence[str] = (),
    truths: Truths | None = None,
    config: ComparisonConfig | None = None,
    command: str = "",
) -> ComparisonResult:
    """Compare methods image by image, and write ``compare.json``.

    Args:
        paths: two or more, the reference first: an ``eval.json``, a folder with one in it, or a
            folder of masks, which is scored as ``evaluate`` does.
        out: file to write, if any.
        names: what to call them; the names of their folders if empty.
        truths: what folders of masks are measured against.
        config: how they are compared.
        command: recorded in ``compare.json``.

    Raises:
        InputError: a source cannot be used, or they are not of the same images, patients, truths
            and settings; files and images are named.
        ConfigError: names, or truths without a folder of masks to measure.
    """
    config = config or ComparisonConfig()
    names = _names(paths, names)
    are_masks = [_evaluation_in(path) is None for path in paths]
    _check_truths(paths, are_masks, truths)
    sources = [
        _score(path, truths) if truths and is_folder else _read(path)
        for path, is_folder in zip(paths, are_masks, strict=True)
    ]
    num_images = len({case.image for source in sources for case in source.cases})
    if config.common:
        sources = _share_images(sources)
    matched({str(source.path): source.cases for source in sources})  # errors name the file
    found = compare_methods(
        {name: source.cases for name, source in zip(names, sources, strict=True)},
        metrics=config.metrics or None,
        delta=config.delta,
        margin=config.margin,
        effect=config.effect,
        seed=config.seed,
    )
    num_left_out = num_images - found.num_images
    digests = {source.manifest_sha256 for source in sources if source.manifest_sha256}
    content = found.to_json() | {
        **provenance(command, None),
        "manifest_sha256": min(digests) if len(digests) == 1 else None,
        "settings": _settings(sources[0].cases[0], config, truths),
        "sources": [
            {"name": name, "path": str(source.path), "sha256": source.sha256}
            for name, source in zip(names, sources, strict=True)
        ],
        "num_left_out": num_left_out,
    }
    if out:
        write_json(out, content)
    notes = list(dict.fromkeys(note for source in sources for note in source.notes))
    if num_left_out:
        notes.append(("common", f"{num_left_out} of {num_images} images are left out"))
    if len(digests) > 1:
        notes.append(("manifest", "the methods were evaluated with different ones"))
    return ComparisonResult(
        content=content,
        failures=tuple(dict.fromkeys(one for source in sources for one in source.failures)),
        notes=tuple(notes),
    )


def _names(paths: Sequence[Path], names: Sequence[str]) -> list[str]:
    """Return a name for each path, all different."""
    if len(paths) < 2:
        raise ConfigError("methods to compare", expected="two or more", found=str(len(paths)))
    if names and len(names) != len(paths):
        raise ConfigError("names", expected=f"{len(paths)}, one per method", found=str(len(names)))
    found = list(names) or [_name(path) for path in paths]
    name, times = Counter(found).most_common(1)[0]
    if times > 1:
        raise ConfigError(
            "names of the methods",
            expected="different ones",
            found=f"{name!r} {times} times",
            fix="Name them: --names coarse refined.",
        )
    return found


def _name(path: Path) -> str:
    """Return the name of a folder, or of the one around an ``eval.json`` or ``masks``."""
    whole = path.absolute()
    inner = whole.name in {"eval.json", "masks"} and whole.parent.name
    return inner or (whole.name if whole.is_dir() else whole.stem)


def _evaluation_in(path: Path) -> Path | None:
    """Return the ``eval.json`` that a path stands for; None where it is a folder without one."""
    if not path.is_dir():
        return path
    inside = path / "eval.json"
    return inside if inside.is_file() else None


def _check_truths(paths: Sequence[Path], are_masks: Sequence[bool], truths: Truths | None) -> None:
    """Refuse masks without truth, and a truth that nothing is measured against."""
    if truths is None and any(are_masks):
        path = paths[are_masks.index(True)]
        raise InputError(
            f"{path} is not evaluated yet",
            expected="an eval.json in it, or a manifest",
            fix="Give --manifest, or run 'ultrarefiner evaluate' first.",
        )
    if truths is not None and not any(are_masks):
        raise ConfigError(
            "--manifest and what goes with it",
            expected="a folder of masks to measure",
            found="evaluations, which have been measured",
            fix="Leave it out, or evaluate again with it.",
        )


def _read(path: Path) -> _Source:
    """Return the cases of an evaluation."""
    place = _evaluation_in(path)
    assert place is not None
    expected = "a file written by 'ultrarefiner evaluate'"
    try:
        content = place.read_bytes()
        found = json.loads(content)
        rows = found["cases"]
        cases = [Case.from_json(row) for row in rows]
    except InputError as error:
        raise InputError(
            f"{place}: {error.what}", expected=error.expected, fix=error.fix
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as cause:
        reason = getattr(cause, "strerror", None) or "no cases of an evaluation in it"
        raise InputError(f"cannot compare {place}", expected=expected, found=reason) from cause
    return _Source(
        path=place,
        cases=cases,
        sha256=hashlib.sha256(content).hexdigest(),
        manifest_sha256=found.get("manifest_sha256"),
    )


def _score(path: Path, truths: Truths) -> _Source:
    """Return the cases of a folder of masks, measured now."""
    records = read_records(truths.manifest, truths.fold)
    folder = MaskFolder(path, sorted({record.image for record in records}))
    cases: list[Case] = []
    failures: list[Remark] = []
    notes = note_unknown_patients(records)
    for record in records:
        try:
            truth, remarks = read_truth(record, truths.scoring.label)
            mask = folder.open(split_name(record.image)[0], truth.shape)
        except InputError as error:
            failures.append((record.image.name, str(error)))
        else:
            cases.append(truths.scoring.score(mask, truth, record))
            notes += remarks
    if not cases:
        raise InputError(
            f"nothing to compare in {path}",
            expected="masks named as the images of the manifest",
            found=f"{len(failures)} failures, the first: {failures[0][1]}",
        )
    return _Source(
        path=path,
        cases=cases,
        manifest_sha256=provenance("", truths.manifest)["manifest_sha256"],
        failures=tuple(failures),
        notes=tuple(notes),
    )


def _share_images(sources: Sequence[_Source]) -> list[_Source]:
    """Return the sources with the images that all of them have."""
    shared = set.intersection(*({case.image for case in source.cases} for source in sources))
    if not shared:
        raise InputError(
            "the methods have no image in common",
            expected="some image of all of " + ", ".join(str(source.path) for source in sources),
        )
    return [
        replace(source, cases=[case for case in source.cases if case.image in shared])
        for source in sources
    ]


def _settings(case: Case, config: ComparisonConfig, truths: Truths | None) -> dict[str, Any]:
    """Return how masks were measured and methods compared."""
    names = ("policy", "boundary", "tolerance", "distance_unit")
    measured = {name: getattr(case.metrics, name) for name in names}
    settings: dict[str, Any] = as_json(measured | asdict(config))
    return settings | {"fold": truths.fold if truths else None}
