"""The study of prompt kinds: every combination, on the same rough masks, from real prompts."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ultrarefiner.data.phantom import PhantomConfig, draw_phantom
from ultrarefiner.experiments.prompt_kinds import KINDS, _prompts, run_prompt_kinds
from ultrarefiner.experiments.rough_masks import RoughMaskExperiment
from ultrarefiner.foundation import LiteMedSAM

_PHANTOMS = PhantomConfig(
    height_px=(96, 120), width_px=(96, 140), lesion_count_probs=(1.0, 0.0, 0.0)
)


@pytest.fixture
def one_phantom(tmp_path: Path) -> Path:
    """One phantom in the layout of BUS-BRA."""
    phantom = draw_phantom(seed=4, index=0, config=_PHANTOMS)
    for folder, name, pixels in (
        ("Images", "bus_0001-l", phantom.image),
        ("Masks", "mask_0001-l", phantom.mask.astype(np.uint8) * 255),
    ):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / f"{name}.png"), pixels)
    (tmp_path / "bus_data.csv").write_text("ID,Case,Pathology\nbus_0001-l,1,benign")
    (tmp_path / "5-fold-cv.csv").write_text("ID,kFold\nbus_0001-l,1")
    return tmp_path


def test_every_kind_is_scored_and_a_box_finds_the_lesion(one_phantom: Path) -> None:
    result = run_prompt_kinds(RoughMaskExperiment(folds=("1",)), one_phantom, device="cpu")
    assert json.loads(json.dumps(result, allow_nan=False))["num_images"] == 1
    assert tuple(result["variants"]) == KINDS
    scores = {kind: found["dsc"]["mean"] for kind, found in result["variants"].items()}
    assert scores["box"] > 0.7
    assert len(set(scores.values())) > 2, "the prompts make a difference"


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_gives_the_prompts_that_it_names(kind: str) -> None:
    soft = torch.zeros(1, 1, 256, 256)
    soft[..., 40:81, 100:161] = 1
    prompts = _prompts(kind, soft, LiteMedSAM())
    given = {
        "box": prompts.boxes is not None,
        "point": prompts.point_coords is not None,
        "mask": prompts.masks is not None,
    }
    assert {name for name, there in given.items() if there} == set(kind.split("+"))
    if prompts.point_coords is not None and prompts.point_labels is not None:
        torch.testing.assert_close(prompts.point_coords, torch.tensor([[[130.5, 60.5]]]))
        assert prompts.point_labels.tolist() == [[1]]
    if prompts.masks is not None:
        assert prompts.masks.unique().tolist() == [-10, 10]
