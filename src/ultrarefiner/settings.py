"""Settings as they are stored: dataclasses from JSON, and one dotted name for each single value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

from ultrarefiner.errors import ConfigError


def config_from_json(kind: type[Any], stored: Mapping[str, Any]) -> Any:
    """Return a settings object from what ``asdict`` and JSON made of it.

    Args:
        kind: its dataclass; fields that are dataclasses are rebuilt, too.
        stored: every field by name.

    Raises:
        ConfigError: a setting is missing, unknown or out of range.
    """
    names = {item.name for item in fields(kind)}
    if stored.keys() != names:
        different = ", ".join(sorted(stored.keys() ^ names))
        raise ConfigError(kind.__name__, expected=", ".join(sorted(names)), found=different)
    hints = get_type_hints(kind)
    values = {}
    for name, value in stored.items():
        if is_dataclass(hints[name]):
            value = config_from_json(hints[name], value)
        values[name] = tuple(value) if isinstance(value, list) else value
    return kind(**values)


def dotted(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return every single value by its dotted name, in order.

    Args:
        settings: nested mappings, such as ``asdict`` makes; one without content is a value.

    Example:
        >>> dotted({"seed": 0, "gate": {"kind": "none", "range": [0, 1]}})
        {'seed': 0, 'gate.kind': 'none', 'gate.range': [0, 1]}
    """
    return dict(_leaves(settings, ""))


def _leaves(settings: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
