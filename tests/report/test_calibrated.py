"""The section on calibrations: told by its file, in the file's own words, or refused by name."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from report_runs import calibration_json, rule_json
from test_report import text_of

from fakes.results import write_training
from ultrarefiner.calibration.outcomes import Outcome
from ultrarefiner.calibration.promise import CHOICES, Promise
from ultrarefiner.calibration.record import record_of
from ultrarefiner.calibration.rule import calibrate_rule
from ultrarefiner.calibration.statement import state
from ultrarefiner.errors import InputError
from ultrarefiner.refine.acceptance import SIGNS, Signs
from ultrarefiner.report.calibrated import read_calibration
from ultrarefiner.report.run import write_report
from ultrarefiner.report.sources import read_sources


def write_calibration(folder: Path, **changes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "calibration.json"
    path.write_text(json.dumps(calibration_json(**changes)), encoding="utf-8")
    return path


def page_of(tmp_path: Path, *sources: Path) -> str:
    write_report(list(sources), tmp_path / "page.html")
    return (tmp_path / "page.html").read_text(encoding="utf-8")


class TestSources:
    def test_a_file_or_its_folder(self, tmp_path):
        path = write_calibration(tmp_path / "net")
        for source in (path, path.parent, tmp_path):
            (found,) = read_sources([source]).calibrations
            assert found.name == "net"

    def test_told_by_its_contents_whatever_it_is_called(self, tmp_path):
        path = write_calibration(tmp_path).rename(tmp_path / "mine.json")
        (found,) = read_sources([path]).calibrations
        assert found.name == "mine"

    def test_beside_a_training_both_are_shown_by_one_name(self, tmp_path):
        for fold in (1, 2):
            write_training(tmp_path / "net" / f"fold-{fold}")
            write_calibration(tmp_path / "net" / f"fold-{fold}")
        sources = read_sources([tmp_path / "net"])
        names = ["net/fold-1", "net/fold-2"]
        assert [training.name for training in sources.trainings] == names
        assert [calibration.name for calibration in sources.calibrations] == names

    def test_of_a_whole_training_its_folds_are_shown_too(self, tmp_path):
        write_training(tmp_path / "net" / "fold-1")
        write_calibration(tmp_path / "net")
        sources = read_sources([tmp_path / "net"])
        assert (len(sources.trainings), len(sources.calibrations)) == (1, 1)


def outcome(index: int, gain: float, moved: float) -> Outcome:
    signs = Signs(**dict.fromkeys(SIGNS, 0.1) | {"moved": moved})
    return Outcome(
        image=f"i{index}",
        patient=f"p{index // 2}",
        dsc_coarse=0.7,
        dsc_refined=0.7 + gain,
        signs=(signs,),
        changed=True,
    )


def calibrated(method: str) -> dict:
    """Return what ``calibrate`` writes of 160 made-up images, harmed where they moved far."""
    rng = np.random.default_rng(0)
    moved = rng.uniform(0, 1, 160)
    gains = np.where(moved > 0.85, -0.1, 0.05)
    outcomes = [outcome(i, float(gains[i]), float(moved[i])) for i in range(160)]
    promise = Promise(alpha=0.1, method=method)
    calibration = calibrate_rule(
        outcomes[:60], outcomes[60:], promise, source="network", binding="ab" * 32
    )
    about = {"statement": state(calibration.rule), "command": "", "seed": 0}
    return json.loads(json.dumps(record_of(calibration) | about))


class TestReading:
    @pytest.mark.parametrize("method", CHOICES)
    def test_what_calibrate_writes(self, method):
        content = calibrated(method)
        found = read_calibration(content, name="net", path=Path("c.json"))
        assert found.statement == content["statement"]
        assert (found.after.num_images, found.after.num_patients) == (100, 50)
        assert found.chosen.coverage == pytest.approx(found.after.accepted_share)
        assert found.chosen.harmed_share == pytest.approx(found.after.harmed["mean"])
        assert found.chosen.gain == pytest.approx(found.after.gain)
        assert found.steps[-1].gain == pytest.approx(found.before.gain)
        assert found.kept_gain == pytest.approx(found.after.gain / found.before.gain)

    def test_chosen_step_and_ends_of_the_thresholds(self):
        found = read_calibration(calibration_json(), name="net", path=Path("c.json"))
        assert [step.threshold for step in found.steps] == [math.inf, -0.5, -1.0, -2.0, -math.inf]
        assert found.chosen == found.steps[2]
        assert found.weights == [("doubted", 3.25), ("moved", 1.5)]

    @pytest.mark.parametrize(("threshold", "coverage"), [(None, 1.0), ("none", 0.0)])
    def test_a_rule_that_accepts_all_or_nothing(self, threshold, coverage):
        content = calibration_json(rule=rule_json(threshold=threshold))
        found = read_calibration(content, name="net", path=Path("c.json"))
        assert found.chosen.coverage == coverage
        assert len(found.figures) == 2

    def test_without_a_gain_none_is_kept(self):
        before = calibration_json()["before"] | {"gain": -0.01}
        content = calibration_json(before=before, kept_gain=None)
        assert read_calibration(content, name="net", path=Path("c.json")).kept_gain is None

    @pytest.mark.parametrize(
        ("changes", "found"),
        [
            ({"rule": rule_json(alpha=2)}, "alpha"),
            ({"rule": {}}, "weights"),
            ({"rule": None}, "NoneType"),
            ({"curve": []}, "without a step"),
            ({"curve": [{"threshold": 0}]}, "no coverage in it"),
            ({"before": {}}, "no accepted_share in it"),
            ({"after": None}, "NoneType"),
        ],
    )
    def test_a_damaged_file_is_named(self, tmp_path, changes, found):
        path = write_calibration(tmp_path, **changes)
        with pytest.raises(InputError, match=rf"cannot use .*calibration\.json.*{found}"):
            read_sources([path])

    def test_a_file_without_the_rule_is_named(self, tmp_path):
        path = tmp_path / "calibration.json"
        path.write_text('{"curve": []}', encoding="utf-8")
        with pytest.raises(InputError, match="no rule, before, after, statement in it"):
            read_sources([tmp_path])


class TestPage:
    def test_says_what_the_file_says(self, tmp_path):
        html = page_of(tmp_path, write_calibration(tmp_path / "net"))
        text = text_of(html)
        assert "Calibration of net" in text
        assert "With 95 % confidence at most 10 % &lt;are&gt; made worse." in text
        assert "120 images of 80 patients that the threshold was chosen on" in text
        assert "Every refinement 100 % 12.0 % 6.0 to 19.0 % +0.030" in text
        assert "Those that the rule accepts 75 % 4.0 % 1.0 to 9.0 % +0.026" in text
        assert "Gain kept 87 % +0.026 of +0.030 DSC" in text
        assert "any of its lesions over doubted × 3.25, moved × 1.50." in text
        assert "tested from the strictest on, each at 5.0 %" in text

    def test_thresholds_with_their_p_values(self, tmp_path):
        html = page_of(tmp_path, write_calibration(tmp_path / "net"))
        table = text_of(html.split('aria-label="Thresholds, net"')[1].split("</table>")[0])
        assert "−1.00 the rule's threshold 75 % 4.0 % +0.026 0.010" in table
        assert "−2.00 90 % 9.0 % +0.029 0.200" in table
        assert "accept all 100 % 12.0 % +0.030 0.900" in table

    def test_conformal_risk_control_promises_less(self, tmp_path):
        rule = rule_json(method="conformal-risk-control")
        text = text_of(page_of(tmp_path, write_calibration(tmp_path / "net", rule=rule)))
        assert "only in the mean over calibrations" in text
        assert "tested from the strictest on" not in text
        assert "Mean change of DSC p" not in text

    def test_across_folds_nothing_is_promised(self, tmp_path):
        rule = rule_json(method="cross-conformal")
        text = text_of(page_of(tmp_path, write_calibration(tmp_path / "net", rule=rule)))
        assert "all folds together" in text
        assert "an estimate, without a guarantee" in text
        assert "only in the mean over calibrations" not in text
        assert "tested from the strictest on" not in text

    def test_where_it_comes_from(self, tmp_path):
        text = text_of(page_of(tmp_path, write_calibration(tmp_path / "net")))
        provenance = text.split("Calibration net ")[1]
        assert "command ultrarefiner calibrate runs/net" in provenance
        assert "alpha: 0.1 delta: 0.02 eta: 0.05" in provenance
        assert "split.patients_b: 80" in provenance

    def test_several_stand_under_their_names(self, tmp_path):
        for fold in (1, 2):
            write_calibration(tmp_path / f"fold-{fold}")
        html = page_of(tmp_path, tmp_path)
        assert html.count('class="rule"') == 2
        assert len(read_sources([tmp_path]).calibrations) == 2
        assert html.count("<h4>What accepting more costs</h4>") == 2

    def test_same_file_gives_the_same_bytes(self, tmp_path):
        path = write_calibration(tmp_path / "net")
        assert page_of(tmp_path, path) == page_of(tmp_path, path)
