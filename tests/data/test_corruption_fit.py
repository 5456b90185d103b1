"""Fitting corruptions: statistics are right, known mixtures are found again, files round-trip."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import ks_2samp

from ultrarefiner.data.corruption import (
    PRESETS,
    CorruptionConfig,
    PredictedMasks,
    corrupt,
    fit_corruption,
    read_config,
    write_config,
)
from ultrarefiner.data.corruption.description import STATISTICS, Truth, find_temperature, to_grid
from ultrarefiner.data.corruption.fitting import _gap
from ultrarefiner.data.manifest import Record
from ultrarefiner.data.writers import write_mask, write_probability
from ultrarefiner.errors import ConfigError, InputError
from ultrarefiner.ops.distance import signed_distance

HW = (160, 224)


def lesions(num: int) -> list[np.ndarray]:
    """Ellipses of many sizes and places."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[: HW[0], : HW[1]] + 0.5
    masks = []
    for _ in range(num):
        cy, cx = rng.uniform(0.3, 0.7, size=2) * HW
        a, b = rng.uniform(10, 34, size=2)
        masks.append(((x - cx) / a) ** 2 + ((y - cy) / b) ** 2 <= 1)
    return masks


class TestDescription:
    """Each statistic on a case that can be counted."""

    def test_a_shifted_square(self) -> None:
        truth, pred = np.zeros((2, 40, 60), dtype=bool)
        truth[10:30, 10:30] = True
        pred[10:30, 14:34] = True
        found = Truth(truth).describe(pred)
        radius_px = 20 / np.sqrt(np.pi)
        assert list(found) == list(STATISTICS)
        assert found["dsc"] == pytest.approx(0.8)
        assert found["log_area"] == 0
        assert found["lost"] == found["extra"] == pytest.approx(0.2)
        assert found["lost_deep"] == found["extra_far"] == 0
        assert found["parts"] == 1
        assert found["hollow"] == 0
        assert found["shift"] == pytest.approx(4 / radius_px)

    def test_a_ring_and_an_island(self) -> None:
        truth, pred = np.zeros((2, 60, 90), dtype=bool)
        truth[20:40, 20:40] = pred[20:40, 20:40] = True
        pred[26:34, 26:34] = False
        pred[20:25, 80:85] = True
        found = Truth(truth).describe(pred)
        assert found["parts"] == 2
        assert found["hollow"] == pytest.approx(64 / 400)
        assert found["lost"] == pytest.approx(64 / 400)
        # Deeper than 0.4 r = 4.5 px, in distance to the edge, are the inner 10 x 10 px.
        assert found["lost_deep"] == pytest.approx(64 / 400)
        assert found["extra"] == found["extra_far"] == pytest.approx(25 / 400)

    def test_growth_by_two_px(self) -> None:
        truth = np.zeros((60, 60), dtype=bool)
        truth[20:40, 20:40] = True
        found = Truth(truth).describe(signed_distance(truth) > -2)
        assert found["edge_mean"] == pytest.approx(2 / (20 / np.sqrt(np.pi)), rel=0.1)
        assert found["edge_spread"] < 0.03

    def test_a_missed_lesion(self) -> None:
        truth = np.ones((10, 10), dtype=bool)
        assert np.isnan(list(Truth(truth).describe(~truth).values())).all()
        assert Truth(truth).describe(truth)["dsc"] == 1

    @pytest.mark.parametrize("temperature_px", [1.5, 4.0, 7.0])
    def test_temperature_is_found_again(self, temperature_px: float) -> None:
        probs = expit(signed_distance(lesions(1)[0]) / temperature_px).astype(np.float32)
        assert find_temperature(probs) == pytest.approx(temperature_px, rel=0.02)

    def test_a_hard_mask_has_no_temperature(self) -> None:
        mask = lesions(1)[0].astype(np.float32)
        assert find_temperature(mask) is None
        assert find_temperature(np.zeros(HW, dtype=np.float32)) is None

    def test_the_grid_has_224_px(self) -> None:
        assert to_grid(np.ones((300, 448))).shape == (150, 224)
        assert to_grid(np.ones((50, 20))).shape == (224, 90)


def test_gaps_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, 80), rng.normal(0.5, 2, 120)
    assert _gap(a, b) == pytest.approx(ks_2samp(a, b).statistic)
    assert _gap(np.array([np.nan, 1.0]), np.array([1.0, 1.0])) == 0.5


def test_a_known_mixture_is_found_again() -> None:
    """The stated error: each share within 0.08, over_ratio within 0.3, under_ratio within 0.1."""
    known = CorruptionConfig(
        probabilities={"over": 0.3, "under": 0.3, "missing": 0.15, "islands": 0.15, "empty": 0.1},
        over_ratio=(1.2, 1.8),
        under_ratio=(0.6, 0.85),
        secondary_probability=0.0,
        temperature_px=(2.0, 4.0),
    )
    masks = lesions(200)
    pairs = [(m, corrupt(m, seed=9, index=i, config=known).probs) for i, m in enumerate(masks)]
    fit = fit_corruption(pairs, seed=1, masks_per_band=60)
    assert fit.num_pairs == 200
    for kind, share in fit.config.probabilities.items():
        assert share == pytest.approx(known.probabilities.get(kind, 0.0), abs=0.08), kind
    assert fit.config.over_ratio == pytest.approx(known.over_ratio, abs=0.3)
    assert fit.config.under_ratio == pytest.approx(known.under_ratio, abs=0.1)
    assert fit.config.temperature_px == pytest.approx(known.temperature_px, abs=0.6)
    are_soft = [bool(((p > 0) & (p < 1)).any()) for _, p in pairs if p.any()]
    assert fit.config.soft_probability == pytest.approx(np.mean(are_soft), abs=1e-4)
    gaps = np.array(list(fit.gaps.values()))
    assert gaps[:, 0].max() < 0.15
    assert gaps[:, 0].mean() < 0.5 * gaps[:, 1].mean()
    assert fit.dsc["fitted"][1:4] == pytest.approx(fit.dsc["real"][1:4], abs=0.03)


def test_too_few_predictions_are_refused() -> None:
    pairs = [(mask, mask.astype(np.float32)) for mask in lesions(19)]
    nothing = (np.zeros(HW, dtype=bool), np.zeros(HW, dtype=np.float32))
    with pytest.raises(InputError, match="at least 20"):
        fit_corruption([*pairs, nothing])
    with pytest.raises(ConfigError, match="masks_per_band"):
        fit_corruption(pairs, masks_per_band=3)
    with pytest.raises(InputError, match="as the truth"):
        fit_corruption([(pairs[0][0], pairs[0][1][:50])])


def test_predictions_without_an_outline_say_nothing_about_softness() -> None:
    """Half of them miss the lesion, some with probabilities below 0.5; all others are soft."""
    known = CorruptionConfig(
        probabilities={"over": 0.5, "empty": 0.5}, secondary_probability=0.0, soft_probability=1.0
    )
    masks = lesions(40)
    pairs = [(m, corrupt(m, seed=1, index=i, config=known).probs) for i, m in enumerate(masks)]
    missed = [(m, p) for m, p in pairs if not p.any()]
    assert 10 < len(missed) < 30
    assert fit_corruption(pairs, masks_per_band=10).config.soft_probability == 1
    faint = [(m, p + np.float32(0.1)) for m, p in missed]
    hard = [(m, m.astype(np.float32)) for m in masks]
    assert fit_corruption([*hard, *faint], masks_per_band=10).config.soft_probability == 0


class TestFiles:
    """Settings and predictions on the disk."""

    @pytest.mark.parametrize("preset", PRESETS)
    def test_settings_round_trip(self, preset: str, tmp_path: Path) -> None:
        path = tmp_path / "corruption.yaml"
        write_config(path, PRESETS[preset], notes=["one", "two"])
        assert path.read_text().startswith("# one\n# two\nprobabilities:")
        assert asdict(read_config(path)) == asdict(PRESETS[preset])

    def test_a_note_of_several_lines_stays_a_note(self, tmp_path: Path) -> None:
        path = tmp_path / "corruption.yaml"
        write_config(path, CorruptionConfig(), notes=["--preds 'a\nb'"])
        assert read_config(path) == CorruptionConfig()

    def test_what_is_left_out_keeps_its_default(self, tmp_path: Path) -> None:
        path = tmp_path / "corruption.yaml"
        path.write_text("shift: [0.1, 0.2]\n")
        assert read_config(path) == replace(CorruptionConfig(), shift=(0.1, 0.2))

    @pytest.mark.parametrize(
        ("text", "error", "message"),
        [
            ("shift: [0.2, 0.1]", ConfigError, "corruption shift"),
            ("shift: 0.2", ConfigError, "right kind"),
            ("probabilities: over", ConfigError, "right kind"),
            ("blur: [1, 2]", ConfigError, "found blur"),
            ("- 1", InputError, "settings of the corruption"),
            ("a: [", InputError, "cannot read"),
        ],
    )
    def test_a_wrong_file_is_named(
        self, text: str, error: type[Exception], message: str, tmp_path: Path
    ) -> None:
        path = tmp_path / "corruption.yaml"
        path.write_text(text)
        with pytest.raises(error, match=message) as caught:
            read_config(path)
        assert str(path) in str(caught.value)

    def test_predictions_are_read_in_pairs(self, tmp_path: Path) -> None:
        masks = lesions(3)
        records = []
        for k, mask in enumerate(masks):
            truth = tmp_path / "masks" / f"{k}.png"
            write_mask(truth, mask)
            records.append(Record(image=tmp_path / "images" / f"{k}.png", mask=truth))
        write_mask(tmp_path / "preds" / "0.png", masks[0])
        soft = np.where(masks[1], np.float32(0.75), np.float32(0.125))
        write_probability(tmp_path / "preds" / "1.npy", soft)
        write_mask(tmp_path / "preds" / "2.png", masks[2][:50])
        pairs = PredictedMasks(records, tmp_path / "preds")
        (first, hard), (second, probs) = list(pairs)
        assert np.array_equal(first, masks[0])
        assert np.array_equal(hard, masks[0])
        assert np.array_equal(second, masks[1])
        assert np.array_equal(probs, soft)
        assert [name for name, _ in pairs.failures] == ["2"]
        write_mask(tmp_path / "preds" / "1.png", masks[1])
        pairs = PredictedMasks(records, tmp_path / "preds")
        assert len(list(pairs)) == len(list(pairs)) == 1
        assert [name for name, _ in pairs.failures] == ["1", "2"]
        assert "2 predictions of this name" in pairs.failures[0][1]
        labels = np.where(masks[0], 2, np.indices(HW)[0] < 5).astype(np.uint8)
        cv2.imwrite(str(tmp_path / "masks" / "0.png"), labels)
        ((labelled, _),) = PredictedMasks(records[:1], tmp_path / "preds", label=2)
        assert np.array_equal(labelled, masks[0])
        with pytest.raises(InputError, match="no prediction"):
            PredictedMasks([], tmp_path / "preds")
