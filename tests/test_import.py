"""Importing: quick, silent, and every public name is there."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module

import pytest

import ultrarefiner

_HEAVY = (
    "torch",
    "numpy",
    "cv2",
    "timm",
    "scipy",
    "lightning",
    "jinja2",
    "matplotlib",
    "jsonargparse",
    "PIL",
)


def _python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_the_package_alone_loads_nothing_heavy() -> None:
    loaded = json.loads(
        _python(
            "import json, sys, ultrarefiner; "
            "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
        )
    )
    assert "ultrarefiner" in loaded
    assert set(loaded).isdisjoint(_HEAVY)


def test_every_module_imports_without_a_warning_and_without_plotting_or_web() -> None:
    code = """
import json, pkgutil, sys
from importlib import import_module
import ultrarefiner
names = [
    module.name
    for module in pkgutil.walk_packages(ultrarefiner.__path__, "ultrarefiner.")
    if not module.name.endswith("__main__")  # runs the command line
]
# Lightning brings a plotting library along where there is one: its room and command come last.
late = [name for name in names if ".training" in name or name.startswith("ultrarefiner.cli.")]
for name in sorted(names, key=late.__contains__):
    if name in late and "heavy" not in globals():
        heavy = {"pytorch_lightning", "matplotlib", "fastapi", "monai"} & set(sys.modules)
    import_module(name)
heavy |= {"fastapi", "monai"} & set(sys.modules)
print(json.dumps([names, sorted(heavy)]))
"""
    names, heavy = json.loads(_python(code))
    assert {"ultrarefiner.cli", "ultrarefiner.refine.pipeline", "ultrarefiner.ops.frames"} < set(
        names
    )
    assert heavy == []


@pytest.mark.parametrize("name", ultrarefiner.__all__)
def test_every_public_name_resolves_to_where_it_is_defined(name: str) -> None:
    value = getattr(ultrarefiner, name)
    if name == "__version__":
        assert value.count(".") >= 2
    else:
        assert value is getattr(import_module(value.__module__), name)


def test_lazy_names_are_all_public() -> None:
    assert set(ultrarefiner.__all__) == {*ultrarefiner._HOMES, "__version__"}
    assert sorted(ultrarefiner.__all__) == ultrarefiner.__all__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'ultrarefiner' has no attribute 'refiner_of_ultra'"):
        _ = ultrarefiner.refiner_of_ultra
    assert not hasattr(ultrarefiner, "Stabilizer")
