"""One generic registry: names to factories, with errors that suggest the right name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from difflib import get_close_matches
from typing import Generic, TypeVar

from ultrarefiner.errors import ConfigError

T = TypeVar("T")


class Registry(Generic[T]):
    """Named factories of one kind. Registering is enrolling in that kind's contract test.

    Args:
        kind: what the entries are, for messages (``"foundation model"``).

    Example:
        >>> shapes = Registry[type]("shape")
        >>> @shapes.register("square")
        ... class Square: ...
        >>> shapes["square"] is Square
        True
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that enters its argument under ``name`` (once)."""

        def enter(entry: T) -> T:
            assert name not in self._entries, f"{self.kind} {name!r} is registered twice"
            self._entries[name] = entry
            return entry

        return enter

    def __getitem__(self, name: str) -> T:
        if name not in self._entries:
            near = get_close_matches(name, self._entries, n=1)
            raise ConfigError(
                f"unknown {self.kind} {name!r}",
                expected="one of " + ", ".join(sorted(self._entries)),
                fix=f"Did you mean {near[0]!r}?" if near else None,
            )
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        return len(self._entries)
