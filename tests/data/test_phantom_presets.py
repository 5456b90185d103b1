"""What every preset promises; enrolling in the registry is enrolling here."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ultrarefiner.data.manifest import read_manifest
from ultrarefiner.data.phantom import (
    PRESETS,
    Phantom,
    SeriesConfig,
    draw_phantom,
    render_scene,
    write_phantoms,
)
from ultrarefiner.data.phantom.scene import Overlay
from ultrarefiner.errors import ConfigError

pytestmark = pytest.mark.parametrize("name", list(PRESETS))

_NUM = 8


def _config(name: str, **settings: Any) -> SeriesConfig:
    frame = {"height_px": (200, 250), "width_px": (270, 330)}
    return PRESETS[name].config(**(frame | settings))


@cache
def _series(name: str) -> tuple[Phantom, ...]:
    return tuple(draw_phantom(21, index, _config(name)) for index in range(_NUM))


def test_the_preset_and_its_parts_name_each_other(name: str) -> None:
    preset = PRESETS[name]
    assert preset.config.preset == name
    assert {phantom.scene.preset for phantom in _series(name)} == {name}
    assert preset.class_names[0] == "background"
    assert len(set(preset.class_names)) == len(preset.class_names)
    assert preset.target in preset.class_names[1:]
    others = [PRESETS[each].series for each in PRESETS if each != name]
    assert preset.series not in others


def test_patients_of_two_presets_never_meet(name: str) -> None:
    others = [each for each in PRESETS if each != name]
    mine = {phantom.patient for phantom in _series(name)}
    assert len(mine) == _NUM
    for other in others:
        assert mine.isdisjoint(phantom.patient for phantom in _series(other))


def test_the_same_arguments_give_the_same_bytes(name: str) -> None:
    first, again = (draw_phantom(3, 1, _config(name)) for _ in range(2))
    assert first.image.tobytes() == again.image.tobytes()
    assert first.classes.tobytes() == again.classes.tobytes()
    assert first.scene == again.scene
    assert draw_phantom(3, 2, _config(name)).scene != first.scene
    assert draw_phantom(4, 1, _config(name)).scene != first.scene


def test_a_phantom_is_replayed_from_its_scene(name: str) -> None:
    phantom = _series(name)[2]
    image, mask = render_scene(phantom.scene)
    assert np.array_equal(image, phantom.image)
    assert np.array_equal(mask, phantom.mask)


def test_the_truth_is_whole(name: str) -> None:
    preset = PRESETS[name]
    for phantom in _series(name):
        assert phantom.image.dtype == phantom.classes.dtype == np.uint8
        assert phantom.mask.dtype == np.bool_
        assert phantom.image.shape == phantom.classes.shape == phantom.mask.shape
        assert phantom.image.shape == phantom.scene.shape_hw
        assert phantom.class_names == preset.class_names
        assert set(np.unique(phantom.classes)) == set(range(len(preset.class_names)))
        target = preset.class_names.index(preset.target)
        assert np.array_equal(phantom.mask, phantom.classes == target)
        assert phantom.mask.mean() > 1e-3
        assert not phantom.mask[[0, -1]].any()
        assert not phantom.mask[:, [0, -1]].any()


def test_spacing_and_size_vary_and_are_physical(name: str) -> None:
    assert len({phantom.spacing_mm for phantom in _series(name)}) == _NUM
    assert len({phantom.image.shape for phantom in _series(name)}) > _NUM // 2
    for phantom in _series(name):
        dy_mm, dx_mm = phantom.spacing_mm
        assert 0.02 < dy_mm < 0.8
        assert 0.8 < dx_mm / dy_mm < 1.25
        assert phantom.scene.extent_mm[0] == pytest.approx(phantom.image.shape[0] * dy_mm)


def test_every_label_occurs_and_is_a_known_one(name: str) -> None:
    assert {phantom.label for phantom in _series(name)} == set(PRESETS[name].labels)


def test_the_picture_has_speckle_and_uses_its_grey_levels(name: str) -> None:
    for phantom in _series(name):
        image = render_scene(replace(phantom.scene, overlay=Overlay()))[0].astype(np.float32)
        lit = image > 8
        assert lit.mean() > 0.25
        fine = image - cv2.GaussianBlur(image, (0, 0), 2.0)
        assert fine[lit].std() > 3.0
        assert (image >= 254).mean() < 0.05


def test_burnt_in_marks_never_alter_the_truth(name: str) -> None:
    marks = Overlay(calipers=True, dotted=True, text="LEFT", scale=True)
    phantom = _series(name)[0]
    bare_image, bare_mask = render_scene(replace(phantom.scene, overlay=Overlay()))
    image, mask = render_scene(replace(phantom.scene, overlay=marks))
    assert np.array_equal(mask, bare_mask)
    assert (image != bare_image).any()


def test_images_of_one_patient_share_its_label_and_differ(name: str) -> None:
    config = _config(name, images_per_patient=2)
    phantoms = [draw_phantom(1, index, config) for index in range(4)]
    assert [len({p.patient for p in two}) for two in pairwise(phantoms)] == [1, 2, 1]
    assert phantoms[0].label == phantoms[1].label
    assert phantoms[0].scene != phantoms[1].scene


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("height_px", (10, 300)),
        ("dynamic_range_db", (1.0, 60.0)),
        ("num_looks", (0, 2)),
        ("text_probability", 1.5),
        ("images_per_patient", 0),
    ],
)
def test_a_shared_setting_out_of_range_is_named(name: str, setting: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=setting):
        _config(name, **{setting: value})


def test_the_files_say_what_was_drawn(name: str, tmp_path: Path) -> None:
    preset, config = PRESETS[name], _config(name)
    manifest = write_phantoms(2, 6, tmp_path, config=config)
    records = read_manifest(manifest)
    for index, record in enumerate(records):
        phantom = draw_phantom(6, index, config)
        assert record.mask is not None
        assert np.array_equal(cv2.imread(str(record.image), cv2.IMREAD_UNCHANGED), phantom.image)
        mask = cv2.imread(str(record.mask), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(mask, phantom.mask * np.uint8(255))
        assert (record.patient, record.label) == (phantom.patient, phantom.label)
        assert record.dataset == preset.series
        assert record.spacing_mm == pytest.approx(phantom.spacing_mm, abs=1e-6)
        classes = tmp_path / "classes" / record.image.name
        if len(preset.class_names) > 2:
            found = cv2.imread(str(classes), cv2.IMREAD_UNCHANGED)
            assert np.array_equal(found, phantom.classes)
    names = tmp_path / "classes.json"
    assert names.exists() is (len(preset.class_names) > 2)
    if names.exists():
        told = json.loads(names.read_text(encoding="utf-8"))
        assert told == {"names": list(preset.class_names), "target": preset.target}
