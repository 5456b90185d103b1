"""Errors: the message says what, expected, found and what to do, in that order."""

from __future__ import annotations

import inspect

import pytest

from ultrarefiner import errors
from ultrarefiner.errors import (
    ConfigError,
    InputError,
    OutputError,
    UltraRefinerError,
    WeightsError,
)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "mask a.png"),
        ({"expected": "one channel"}, "mask a.png: expected one channel"),
        ({"found": "three"}, "mask a.png: found three"),
        ({"expected": "one", "found": "three"}, "mask a.png: expected one, found three"),
        ({"fix": "Convert it."}, "mask a.png. Convert it."),
        (
            {"expected": "one", "found": "three", "fix": "Convert it."},
            "mask a.png: expected one, found three. Convert it.",
        ),
        ({"expected": "", "found": "", "fix": ""}, "mask a.png"),
    ],
)
def test_the_message_is_made_of_its_parts(parts: dict[str, str], message: str) -> None:
    error = UltraRefinerError("mask a.png", **parts)
    assert str(error) == message
    assert error.what == "mask a.png"
    assert error.expected == parts.get("expected")
    assert error.found == parts.get("found")
    assert error.fix == parts.get("fix")


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (InputError, ValueError),
        (ConfigError, ValueError),
        (WeightsError, RuntimeError),
        (OutputError, OSError),
    ],
)
def test_each_error_is_also_the_builtin_it_specialises(
    kind: type[UltraRefinerError], builtin: type[Exception]
) -> None:
    error = kind("mask a.png", expected="one", found="two", fix="Convert it.")
    assert isinstance(error, UltraRefinerError)
    assert isinstance(error, builtin)
    # OSError formats several arguments in its own way; the message must survive that.
    assert str(error) == "mask a.png: expected one, found two. Convert it."


def test_every_error_of_the_package_is_in_one_small_family() -> None:
    family = [
        member
        for _, member in inspect.getmembers(errors, inspect.isclass)
        if issubclass(member, Exception)
    ]
    assert all(issubclass(member, UltraRefinerError) for member in family)
    assert len(family) <= 8
