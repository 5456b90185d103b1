"""The registry: names to entries, each once, and a hint for the name that was meant."""

from __future__ import annotations

import pytest

from ultrarefiner.errors import ConfigError
from ultrarefiner.registry import Registry


def _shapes() -> Registry[int]:
    shapes = Registry[int]("shape")
    shapes.register("square")(4)
    shapes.register("hexagon")(6)
    return shapes


def test_an_entry_is_found_under_its_name() -> None:
    shapes = _shapes()
    assert shapes["square"] == 4
    assert shapes["hexagon"] == 6


def test_registering_returns_the_entry_itself() -> None:
    shapes = Registry[type]("shape")

    @shapes.register("square")
    class Square:
        pass

    assert shapes["square"] is Square
    assert Square.__name__ == "Square"


def test_names_come_sorted_and_are_counted() -> None:
    assert list(_shapes()) == ["hexagon", "square"]
    assert len(_shapes()) == 2
    assert len(Registry[int]("nothing")) == 0


def test_an_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError) as caught:
        _shapes()["sqare"]
    assert str(caught.value) == (
        "unknown shape 'sqare': expected one of hexagon, square. Did you mean 'square'?"
    )


def test_a_name_like_no_other_gets_none() -> None:
    with pytest.raises(ConfigError) as caught:
        _shapes()["xyz"]
    assert str(caught.value) == "unknown shape 'xyz': expected one of hexagon, square"


def test_a_name_is_taken_once() -> None:
    with pytest.raises(AssertionError, match="shape 'square' is registered twice"):
        _shapes().register("square")(5)


def test_registries_do_not_share_entries() -> None:
    other = Registry[int]("shape")
    _shapes()
    assert list(other) == []
