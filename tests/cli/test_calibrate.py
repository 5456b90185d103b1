"""`calibrate`: from patients that nothing was trained on to a rule that `predict` keeps to."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from commands import Command, Outcome, Run, call, read_rows
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from ultrarefiner.coarse import encode_checkpoint
from ultrarefiner.coarse.pretrained import PRETRAINED
from ultrarefiner.data.folds import assign_folds
from ultrarefiner.data.manifest import Record, read_manifest, write_manifest
from ultrarefiner.data.phantom import PhantomConfig, write_phantoms
from ultrarefiner.errors import ConfigError
from ultrarefiner.refine.acceptance import CONFORMAL, CROSS_CONFORMAL, SIGNS
from ultrarefiner.refine.checkpoint import add_rule, load_refiner
from ultrarefiner.training.lineage import card_digests
from ultrarefiner.weights import file_sha256

EASY = ("--alpha", "0.5", "--eta", "0.3")  # two patients without harm are enough
EXPECTED = ("--method", CONFORMAL, "--alpha", "0.3")  # three are
NANO = PRETRAINED["nano"].verify()


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five patients in two folds, whom no network has seen; not to be changed."""
    folder = tmp_path_factory.mktemp("spare")
    config = PhantomConfig(height_px=(120, 140), width_px=(150, 170), relative_radius=(0.2, 0.25))
    path = write_phantoms(5, 77, folder, config=config)
    write_manifest(path, assign_folds(read_manifest(path), num_folds=2, seed=0).records)
    return folder


def calibrate(run: object, phantoms: Path, *more: object) -> list[object]:
    manifest = phantoms / "manifest.csv"
    return ["calibrate", run, "--manifest", manifest, "--device", "cpu", *more]


def knowing(records: Sequence[Record], path: Path) -> Path:
    """Write the network nano as if it had been trained on these images."""
    with safe_open(NANO, framework="pt") as stream:
        header = json.loads(stream.metadata()["ultrarefiner"])
        state = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    header["card"] |= card_digests(records)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path, metadata={"ultrarefiner": json.dumps(header)})
    return path


@pytest.fixture(scope="module")
def calibrated(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The network nano with a rule, and what was said; not to be changed."""
    folder = tmp_path_factory.mktemp("calibrated")
    shutil.copy(NANO, folder / "joint.safetensors")
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = call(calibrate(folder, phantoms, *EASY))
    return Run(folder, Outcome(code, out.getvalue(), err.getvalue()))


def test_what_is_said(calibrated: Run) -> None:
    assert (calibrated.outcome.code, calibrated.outcome.err) == (0, "")
    numbers, statement, see = calibrated.outcome.out.splitlines()
    assert numbers.startswith("4 images of 4 patients: made worse ")
    assert statement.startswith("With confidence 0.7 over the draw of 4 patients")
    assert see == f"see {calibrated.folder / 'calibrated.safetensors'}"


def test_the_checkpoint_is_the_same_network_with_a_rule(calibrated: Run, phantoms: Path) -> None:
    assert file_sha256(calibrated.folder / "joint.safetensors") == file_sha256(NANO)
    before = load_refiner(NANO)
    after = load_refiner(calibrated.folder / "calibrated.safetensors")
    assert after.rule is not None
    assert after.binding == before.binding == after.rule.binding
    assert (after.rule.alpha, after.rule.eta, after.rule.source) == (0.5, 0.3, "network")
    told = dict(after.card)
    story = told.pop("calibration")
    assert told == before.card
    records = read_manifest(phantoms / "manifest.csv")
    assert story.items() >= card_digests(records).items()
    assert "phantom-77" not in json.dumps(story).replace(story["command"], "")


def test_the_record(calibrated: Run) -> None:
    content = json.loads((calibrated.folder / "calibration.json").read_text())
    checkpoint = calibrated.folder / content["checkpoint"]
    assert content["schema"] == 1
    assert content["checkpoint_sha256"] == file_sha256(checkpoint)
    rule = load_refiner(checkpoint).rule
    assert rule is not None
    assert content["rule"] == json.loads(json.dumps(rule.to_json()))
    assert set(content["rule"]["weights"]) == set(SIGNS)
    assert content["split"] == {"patients_a": 1, "images_a": 1, "patients_b": 4, "images_b": 4}
    cases = {split: [c for c in content["cases"] if c["split"] == split] for split in "AB"}
    assert [len(found) for found in cases.values()] == [1, 4]
    assert sorted(case["score"] for case in cases["B"]) == list(rule.scores)
    gains = [case["dsc_refined"] - case["dsc_coarse"] for case in cases["B"]]
    accepted = [rule.accepts(case["score"]) for case in cases["B"]]
    assert content["before"]["gain"] == pytest.approx(np.mean(gains))
    assert content["after"]["gain"] == pytest.approx(np.dot(gains, accepted) / 4)
    assert content["after"]["accepted_share"] == pytest.approx(np.mean(accepted))
    curve = content["curve"]
    assert (curve[0]["threshold"], curve[-1]["threshold"]) == ("none", None)
    assert curve[0]["p_value"] == pytest.approx(0.5**4)
    assert {case["score"] for case in cases["B"]} == {p["threshold"] for p in curve[1:-1]}


def test_predict_keeps_to_the_rule(
    calibrated: Run, phantoms: Path, command: Command, tmp_path: Path
) -> None:
    """Accepted or refused, as the record of the calibration says of the same images."""
    path = calibrated.folder / "calibrated.safetensors"
    content = json.loads((calibrated.folder / "calibration.json").read_text())
    scores = {case["image"]: case["score"] for case in content["cases"]}
    strict = replace(load_refiner(path).rule, threshold=sorted(scores.values())[2])  # type: ignore[type-var]
    (tmp_path / "strict.safetensors").write_bytes(add_rule(path, strict))
    outcome = command(
        *("predict", "--checkpoint", tmp_path / "strict.safetensors", "--device", "cpu"),
        *("--images", phantoms / "images", "--out", tmp_path / "out"),
    )
    assert outcome.code == 0
    rows = read_rows(tmp_path / "out")
    assert {name: row["accepted"] == "yes" for name, row in rows.items()} == {
        name: score >= strict.threshold for name, score in scores.items()
    }
    for name, row in rows.items():
        assert float(row["score"]) == pytest.approx(scores[name], abs=1e-6)
        masks = [np.asarray(Image.open(tmp_path / "out" / kind / f"{name}.png"))
                 for kind in ("masks", "coarse")]  # fmt: skip
        assert np.array_equal(*masks) or row["accepted"] == "yes"


def test_with_flips_both_networks_look_twice_ever_after(
    phantoms: Path, command: Command, tmp_path: Path
) -> None:
    out, one = tmp_path / "twice.safetensors", tmp_path / "one"
    outcome = command(*calibrate("nano", phantoms, *EASY, "--flips", "--out", out))
    assert (outcome.code, outcome.err) == (0, "")
    found = load_refiner(out)
    assert found.config == replace(load_refiner(NANO).config, flips=True)
    assert found.rule is not None
    assert found.rule.binding == found.binding != load_refiner(NANO).binding
    one.mkdir()
    shutil.copy(next((phantoms / "images").iterdir()), one)
    for name, *more in (("ruled", out), ("free", NANO, "--flips"), ("once", NANO)):
        checkpoint = ("predict", "--checkpoint", *more, "--images", one, "--device", "cpu")
        assert command(*checkpoint, "--out", tmp_path / name).code == 0
    stem = next(one.iterdir()).name
    twice, again, once = (
        np.asarray(Image.open(tmp_path / name / "coarse" / stem))
        for name in ("ruled", "free", "once")
    )
    assert np.array_equal(twice, again)
    assert not np.array_equal(twice, once)


def test_the_rule_is_void_for_other_weights(calibrated: Run, tmp_path: Path) -> None:
    rule = load_refiner(calibrated.folder / "calibrated.safetensors").rule
    assert rule is not None
    with safe_open(NANO, framework="pt") as stream:
        metadata = stream.metadata()
        state = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    name = next(name for name in state if name.startswith("network."))
    state[name].view(-1)[0] += 1
    save_file(state, tmp_path / "retrained.safetensors", metadata=metadata)
    with pytest.raises(ConfigError, match="calibrated for the weights"):
        add_rule(tmp_path / "retrained.safetensors", rule)


def test_who_was_seen_is_refused_or_left_out(
    phantoms: Path, command: Command, tmp_path: Path
) -> None:
    records = read_manifest(phantoms / "manifest.csv")
    run = knowing(records[:1], tmp_path / "run" / "joint.safetensors").parent
    refused = command(*calibrate(run, phantoms, *EASY))
    assert refused.code == 3
    assert records[0].image.name in refused.err
    assert "--leave-out-seen" in refused.err
    assert "--cross" in refused.err
    done = command(*calibrate(run, phantoms, *EASY, "--leave-out-seen", "--learn-share", "0.3"))
    assert done.code == 0
    assert "1 image of patients that the network knows left out; 4 images of others" in done.err
    content = json.loads((run / "calibration.json").read_text())
    assert records[0].image.stem not in [case["image"] for case in content["cases"]]


def test_given_masks_that_are_perfect_leave_nothing_to_trust(
    phantoms: Path, command: Command, tmp_path: Path
) -> None:
    """Every change is for the worse: no rule, nothing written, exit code 3."""
    out = tmp_path / "calibrated.safetensors"
    given = ("--coarse", phantoms / "masks", "--delta", "0", "--out", out, "--learn-share", "0.2")
    outcome = command(*calibrate("nano", phantoms, *EXPECTED, *given))
    assert outcome.code == 3
    assert "no refinement can be trusted: of 4 patients' images 100.0% are made" in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_given_masks_by_conformal_risk_control(
    phantoms: Path, command: Command, tmp_path: Path
) -> None:
    """One has no mask: it is named, the others are calibrated on, and the exit code is 1."""
    shutil.copytree(phantoms / "coarse", tmp_path / "masks")
    gone = sorted((tmp_path / "masks").iterdir())[0]
    gone.unlink()
    out = tmp_path / "own.safetensors"
    given = ("--coarse", tmp_path / "masks", "--out", out, "--delta", "0.5", "--learn-share", "0.2")
    outcome = command(*calibrate("nano", phantoms, *EXPECTED, *given, "--alpha", "0.4"))
    assert outcome.code == 1
    assert f"no coarse mask of {gone.name}" in outcome.err
    assert "1 file skipped" in outcome.err
    assert "nobody can check" in outcome.out
    rule = load_refiner(out).rule
    assert rule is not None
    assert (rule.source, rule.method) == ("masks", CONFORMAL)
    content = json.loads((tmp_path / "calibration.json").read_text())
    assert len(content["cases"]) == 4
    ((name, reason),) = content["failures"]
    assert Path(name).name == gone.name
    assert "no coarse mask of" in reason


def test_masks_of_other_names_are_refused_before_the_work(
    phantoms: Path, command: Command, tmp_path: Path
) -> None:
    for index, path in enumerate(sorted((phantoms / "coarse").iterdir())):
        shutil.copy(path, tmp_path / f"other-{index}.png")
    given = ("--coarse", tmp_path, "--out", tmp_path / "o.safetensors")
    outcome = command(*calibrate("nano", phantoms, *EASY, *given))
    assert outcome.code == 2
    assert f"no coarse mask in {tmp_path} belongs to an image" in outcome.err
    assert "found other-0.png, other-1.png" in outcome.err


def test_what_cannot_be_known_is_said_and_recorded(
    phantoms: Path, command: Command, tmp_path: Path
) -> None:
    """A card and a manifest without patients, one truth that is gone, and an earlier record."""
    path = knowing([], tmp_path / "run" / "joint.safetensors")
    with safe_open(path, framework="pt") as stream:
        header = json.loads(stream.metadata()["ultrarefiner"])
        state = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    header["card"] |= {"image_digests": ["0"], "patient_digests": []}
    save_file(state, path, metadata={"ultrarefiner": json.dumps(header)})
    records = [
        replace(record, patient="", mask=record.mask if index else tmp_path / "gone.png")
        for index, record in enumerate(read_manifest(phantoms / "manifest.csv"))
    ]
    write_manifest(tmp_path / "manifest.csv", records)
    refused = command(*calibrate(path.parent, tmp_path, *EASY))
    assert refused.code == 3
    assert "--trust-patients" in refused.err
    (path.parent / "calibration.json").write_text("{}")
    more = ("--trust-patients", "--delta", "0.9")
    outcome = command(*calibrate(path.parent, tmp_path, *EASY, *more))
    assert outcome.code == 1
    content = json.loads((path.parent / "calibration.json").read_text())
    notes = {Path(name).name: note for name, note in content["notes"]}
    assert "patients not" in notes["run"]
    assert notes["column 'patient'"].startswith("empty for 4 of 4 images")
    assert "that of an earlier calibration is replaced" in notes["calibration.json"]
    for words in (*notes.values(), "gone.png"):
        assert words in outcome.err
    assert "only images could be compared" in content["statement"]
    assert "Images without a patient (4) counted" in outcome.out
    ((name, reason),) = content["failures"]
    assert Path(name) == records[0].image
    assert "gone.png" in reason
    story = load_refiner(path.parent / "calibrated.safetensors").card["calibration"]
    assert story.items() >= card_digests(records[1:]).items()


def test_across_the_folds(phantoms: Path, command: Command, tmp_path: Path) -> None:
    """Each network knows the other fold; without spare patients that is what is left."""
    records = read_manifest(phantoms / "manifest.csv")
    run = tmp_path / "run"
    for fold in "12":
        known = [record for record in records if record.fold != fold]
        knowing(known, run / f"fold-{fold}" / "joint.safetensors")
    outcome = command(*calibrate(run, phantoms, "--cross", "--alpha", "0.4", "--delta", "0.5"))
    assert (outcome.code, outcome.err) == (0, "")
    assert "To be expected, not guaranteed" in outcome.out
    rules = []
    for fold in "12":
        folder = run / f"fold-{fold}"
        assert f"see {folder / 'calibrated.safetensors'}" in outcome.out
        rule = load_refiner(folder / "calibrated.safetensors").rule
        assert rule is not None
        assert (rule.method, rule.num_patients) == (CROSS_CONFORMAL, 5)
        cases = json.loads((folder / "calibration.json").read_text())["cases"]
        assert {case["image"]: case["fold"] for case in cases} == {
            record.image.stem: record.fold for record in records
        }
        own = sorted(case["score"] for case in cases if case["fold"] == fold)
        assert list(rule.scores) == own
        rules.append(rule)
    assert rules[0].threshold == rules[1].threshold == -math.inf  # nobody loses half a DSC
    assert rules[0].weights != rules[1].weights
    # A network that has seen its own fold:
    knowing(records, run / "fold-2" / "joint.safetensors")
    assert command(*calibrate(run, phantoms, "--cross", "--alpha", "0.4")).code == 3


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--alpha", "0.05", "--out", "{o}"), "at least 59 to choose the threshold on"),
        (("--alpha", "2", "--out", "{o}"), "alpha"),
        (("--alpha", "0.5"), "--out FILE.safetensors"),
        (("--out", "{o}.pt"), "ends in .safetensors"),
        (("--out", "joint.safetensors"), "would overwrite"),
        (("--fold", "7", "--out", "{o}"), "7"),
        (("--cross", "--out", "{o}"), "left out with --cross"),
        (("--cross", "--method", "learn-then-test"), "conformal-risk-control with --cross"),
        (("--cross",), "fold-1, fold-2"),
        (("--refiner.roi.crop", "true", "--out", "{o}"), "trained with: RoiConfig(crop=False"),
        ((*EASY, "--coarse", "no", "--out", "{o}"), "cannot list no"),
        (("--coarse", "no", "--refiner.second_opinion", "0.5", "--out", "{o}"), "second_opinion"),
        (("--foundation", "medsam", "--out", "{o}"), "trained with: lite-medsam"),
    ],
)
def test_bad_requests_of_a_calibration(
    more: tuple[str, ...], words: str, phantoms: Path, command: Command, tmp_path: Path
) -> None:
    out = tmp_path / "out.safetensors"
    outcome = command(*calibrate("nano", phantoms, *(part.format(o=out) for part in more)))
    assert outcome.code == 2
    assert words in outcome.err
    assert "Traceback" not in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_every_image_needs_a_truth(phantoms: Path, command: Command, tmp_path: Path) -> None:
    records = [replace(record, mask=None) for record in read_manifest(phantoms / "manifest.csv")]
    write_manifest(tmp_path / "manifest.csv", records)
    outcome = command(*calibrate("nano", tmp_path, "--out", tmp_path / "o.safetensors"))
    assert outcome.code == 2
    assert "5 of 5 images have no true mask" in outcome.err


def test_a_coarse_network_alone_gets_the_untrained_refiner(
    phantoms: Path, command: Command, tmp_path: Path
) -> None:
    """Behind given masks the coarse network takes no part: whom it knows does not matter."""
    out, coarse = tmp_path / "own.safetensors", tmp_path / "coarse.safetensors"
    trained = load_refiner("busbra-lite")
    records = read_manifest(phantoms / "manifest.csv")
    own = {key: value for key, value in trained.card.items() if key != "phase"}
    card = own | {"image_digests": card_digests(records)["image_digests"]}
    coarse.write_bytes(encode_checkpoint(trained.network, card))
    given = ("--coarse", phantoms / "coarse", "--refiner.prompts.jitter", "0", "--fold", "1")
    outcome = command(
        *calibrate(coarse, phantoms, *EXPECTED, *given, "--alpha", "0.5", "--out", out),
        *("--delta", "0.9"),
    )
    assert (outcome.code, outcome.err) == (0, "")
    checkpoint = load_refiner(out)
    assert checkpoint.rule is not None
    assert checkpoint.config.prompts.jitter == 0
    assert checkpoint.card["held_out_fold"] == "3"
    name = next(record.image.name for record in records if record.fold == "1")
    for kind in ("images", "coarse"):
        (tmp_path / kind).mkdir()
        shutil.copy(phantoms / kind / name, tmp_path / kind)
    one = ("--images", tmp_path / "images", "--coarse", tmp_path / "coarse")
    refined = command("refine", "--checkpoint", out, *one, "--out", tmp_path / "out")
    assert refined.code == 0
    assert "1 of the 1 images were calibrated on (the image itself: 1)" in refined.err
    assert "seen in training" not in refined.err
