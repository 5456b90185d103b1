"""The presets: which anatomies there are, and how each is drawn, rendered and labelled.

To add one, write its config, scene and renderer, and enrol it here; the contract test follows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ultrarefiner.data.phantom.breast_draw import BreastConfig, draw_breast, draw_breast_label
from ultrarefiner.data.phantom.breast_echo import render_breast
from ultrarefiner.data.phantom.config import SeriesConfig
from ultrarefiner.data.phantom.head_draw import HeadConfig, draw_head, draw_trimester
from ultrarefiner.data.phantom.head_echo import render_head
from ultrarefiner.data.phantom.msk_draw import MskConfig, draw_msk, draw_tear_label
from ultrarefiner.data.phantom.msk_echo import render_msk
from ultrarefiner.data.phantom.scene import Scene
from ultrarefiner.registry import Registry

Render = Callable[[Any], tuple[UInt8[np.ndarray, "H W"], UInt8[np.ndarray, "H W"]]]


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One kind of phantom.

    Attributes:
        about: what it shows, as one sentence.
        series: name of the data set in manifests, and of its patients and files.
        class_names: name of each value of its label maps, the background first.
        target: the class that ``mask`` holds.
        labels: what a patient can be.
        config: class of its configuration; without arguments, the default distribution.
        draw_label: samples a patient's label.
        draw_scene: samples a scene for a label.
        render: gives image and label map of a scene.
    """

    about: str
    series: str
    class_names: tuple[str, ...]
    target: str
    labels: tuple[str, ...]
    config: type[SeriesConfig]
    draw_label: Callable[[np.random.Generator, Any], str]
    draw_scene: Callable[[np.random.Generator, str, Any], Scene]
    render: Render


PRESETS = Registry[Preset]("phantom preset")

PRESETS.register("breast")(
    Preset(
        about="One to three lesions in layered breast tissue.",
        series="phantom",
        class_names=("background", "lesion"),
        target="lesion",
        labels=("benign", "malignant"),
        config=BreastConfig,
        draw_label=draw_breast_label,
        draw_scene=draw_breast,
        render=render_breast,
    )
)
PRESETS.register("msk")(
    Preset(
        about="A torn supraspinatus tendon between the deltoid and the humeral head.",
        series="phantom-msk",
        class_names=("background", "tendon", "tear", "bone", "muscle"),
        target="tear",
        labels=("partial-thickness", "full-thickness"),
        config=MskConfig,
        draw_label=draw_tear_label,
        draw_scene=draw_msk,
        render=render_msk,
    )
)
PRESETS.register("head")(
    Preset(
        about="A fetal head in the plane of its circumference, seen by a convex probe.",
        series="phantom-head",
        class_names=("background", "head"),
        target="head",
        labels=("second-trimester", "third-trimester"),
        config=HeadConfig,
        draw_label=draw_trimester,
        draw_scene=draw_head,
        render=render_head,
    )
)
