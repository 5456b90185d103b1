"""One evaluated image as a row of ``eval.json``, and which rows belong together."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any

import numpy as np
from jaxtyping import Float64

from ultrarefiner.errors import ConfigError, InputError
from ultrarefiner.metrics.masks import METRICS, MaskMetrics

_NUM_SHOWN = 5
_SAME_AREA = 1e-6  # relative; areas of one truth differ by rounding alone


@dataclass(frozen=True, kw_only=True)
class Case:
    """One evaluated image.

    Args:
        image: path or name of the image, unique among the cases.
        metrics: what :func:`~ultrarefiner.metrics.evaluate_mask` gave.
        patient: whose image it is; when unknown, the image stands for the patient.
        strata: what kind of image it is, such as ``{"label": "benign", "device": "A"}``.
    """

    image: str
    metrics: MaskMetrics
    patient: str = ""
    strata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.patient:
            object.__setattr__(self, "patient", self.image)

    def to_json(self) -> dict[str, Any]:
        """Return the row of ``eval.json``; an undefined metric is None."""
        errors = {name: getattr(self.metrics, name) for name in ("area_error", "diameter_error")}
        values: dict[str, Any] = as_json(asdict(self.metrics) | errors)
        about = {"image": self.image, "patient": self.patient, "strata": dict(self.strata)}
        return about | values

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Case:
        """Return the case of a row of ``eval.json``; see :func:`metrics_from_json`.

        Raises:
            InputError: the row is none of an evaluated image.
        """
        if not isinstance(row, Mapping) or not isinstance(row.get("image"), str):
            raise _no_row("a row", "one with the name of its image")
        if not isinstance(row.get("strata") or {}, Mapping):
            raise _no_row(f"the row of {row['image']}", "kinds of image and their levels as strata")
        return cls(
            image=row["image"],
            metrics=metrics_from_json(row),
            patient=row.get("patient") or "",
            strata=row.get("strata") or {},
        )


def metrics_from_json(row: Mapping[str, Any]) -> MaskMetrics:
    """Return the metrics that a row of JSON holds; NaN for what is null, or older than a metric.

    Raises:
        InputError: the row does not say its outcome, unit and tolerance, or a metric is no number.
    """
    values: dict[str, Any] = {}
    try:
        for entry in fields(MaskMetrics):
            value = row.get(entry.name)
            if entry.name == "nsd_at":
                values["nsd_at"] = tuple((float(at), _number(nsd)) for at, nsd in value or ())
            elif entry.type == "float":
                values[entry.name] = _number(value)
            elif value is not None or entry.default is MISSING:
                values[entry.name] = str(row[entry.name])
    except (KeyError, TypeError, ValueError) as cause:
        what = f"the row of {row.get('image', 'an image')}"
        raise _no_row(what, f"{entry.name} as 'evaluate' writes it") from cause
    metrics = MaskMetrics(**values)
    if math.isnan(metrics.tolerance):
        raise _no_row(f"the row of {row.get('image', 'an image')}", "the tolerance of its NSD")
    return metrics


def as_json(value: Any) -> Any:
    """Return nested dicts and tuples with lists in place of tuples and None in place of NaN.

    Example:
        >>> as_json({"dsc": float("nan"), "nsd_at": ((2.0, 0.5),)})
        {'dsc': None, 'nsd_at': [[2.0, 0.5]]}
    """
    if isinstance(value, Mapping):
        return {name: as_json(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def table_of(cases: Sequence[Case], names: Sequence[str]) -> Float64[np.ndarray, "N M"]:
    """Return the named metrics, one row per case; ``nsd@2`` is the NSD at a tolerance of 2."""
    return np.array([[_value_of(case, name) for name in names] for case in cases], float)


def with_tolerances(cases: Sequence[Case], names: Sequence[str]) -> list[str]:
    """Return the names, and with NSD among them those of the NSD at every further tolerance."""
    further = cases[0].metrics.nsd_at if "nsd" in names else ()
    return [*names, *(f"nsd@{tolerance:g}" for tolerance, _ in further)]


def _value_of(case: Case, name: str) -> float:
    if not name.startswith("nsd@"):
        value: float = getattr(case.metrics, name)
        return value
    return {f"nsd@{tolerance:g}": nsd for tolerance, nsd in case.metrics.nsd_at}[name]


def in_order(cases: Sequence[Case], *, name: str = "") -> list[Case]:
    """Return the cases by name of their image, so that their order cannot change a number.

    Args:
        cases: those of one method.
        name: whose they are, for messages.

    Raises:
        InputError: there is no case, an image comes twice, or they were measured differently.
    """
    whose = f"{name}: " if name else ""
    if not cases:
        raise InputError(
            f"{whose}there is no case to summarise",
            expected="at least one evaluated image",
            fix="Check that the predictions' names match the manifest's images.",
        )
    image, times = Counter(case.image for case in cases).most_common(1)[0]
    if times > 1:
        raise InputError(
            f"{whose}image {image} comes {times} times",
            expected="one case per image",
            fix="Keep one row of it, or give the images unique paths.",
        )
    settings: dict[str, list[str]] = {}
    for case in cases:
        settings.setdefault(setting_of(case), []).append(case.image)
    if len(settings) > 1:
        raise InputError(
            f"{whose}cases were measured in several ways",
            expected="one distance unit, tolerance, boundary and policy",
            found=" and ".join(f"{how} ({shown(settings[how])})" for how in sorted(settings)),
            fix="Give the pixel spacing of all images or of none, and evaluate them together.",
        )
    return sorted(cases, key=lambda case: case.image)


def matched(methods: Mapping[str, Sequence[Case]]) -> dict[str, list[Case]]:
    """Return every method's cases of the same images in the same order.

    Raises:
        InputError: the methods do not cover the same images, or patient, setting, truth or stratum
            of an image differ between them.
    """
    ordered = {name: in_order(cases, name=name) for name, cases in methods.items()}
    images = {case.image for cases in ordered.values() for case in cases}
    for name, cases in ordered.items():
        missing = sorted(images - {case.image for case in cases})
        if missing:
            raise InputError(
                f"{name} lacks {len(missing)} of {len(images)} images",
                expected="the same images of every method",
                found="no " + shown(missing),
                fix="Evaluate all on one manifest, or compare the images they share: --common.",
            )
    first, *others = ordered.items()
    for name, cases in others:
        for case, other in zip(first[1], cases, strict=True):
            _check_pair(case, other, names=(first[0], name))
    return ordered


def setting_of(case: Case) -> str:
    """Return what has to agree before distances and NSD can be averaged."""
    metrics = case.metrics
    tolerances = (metrics.tolerance, *(further for further, _ in metrics.nsd_at))
    return (
        f"tolerance {', '.join(f'{t:g}' for t in tolerances)} {metrics.distance_unit}, "
        f"{metrics.boundary} boundaries, policy {metrics.policy}"
    )


def shown(names: Sequence[str]) -> str:
    """Return the first names of many, and how many more there are."""
    more = len(names) - _NUM_SHOWN
    return ", ".join(names[:_NUM_SHOWN]) + (f" and {more} more" if more > 0 else "")


def check_names(names: Sequence[str]) -> None:
    """Refuse metric names that no mask has.

    Raises:
        ConfigError: a name is unknown or comes twice.
    """
    unknown = sorted(set(names) - set(METRICS))
    if unknown:
        raise ConfigError(f"unknown metric {unknown[0]!r}", expected="one of " + ", ".join(METRICS))
    if len(set(names)) < len(names):
        raise ConfigError("metrics", expected="each once", found=", ".join(names))


def _check_pair(case: Case, other: Case, *, names: tuple[str, str]) -> None:
    """Refuse two cases of one image that are not of one truth, measured alike."""
    kinds = sorted(case.strata.keys() & other.strata.keys())
    about, about_other = (
        f"patient {one.patient}, {setting_of(one)}"
        + "".join(f", {kind} {one.strata[kind]}" for kind in kinds)
        for one in (case, other)
    )
    area, area_other = case.metrics.area_target, other.metrics.area_target
    if abs(area - area_other) > _SAME_AREA * max(area, area_other):  # never of unknown ones
        about += f", a truth of {area:g} {case.metrics.distance_unit}²"
        about_other += f", a truth of {area_other:g} {other.metrics.distance_unit}²"
    if about != about_other:
        raise InputError(
            f"{case.image} was measured differently for {names[0]} and {names[1]}",
            expected=about,
            found=about_other,
            fix="Evaluate all methods with the same manifest and the same settings.",
        )


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _no_row(what: str, expected: str) -> InputError:
    return InputError(
        f"{what} is not of an evaluated image",
        expected=expected,
        fix="Run 'ultrarefiner evaluate' again.",
    )
