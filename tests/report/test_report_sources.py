"""What paths hold: runs, evaluations, comparisons, trainings, and clear errors for the rest."""

import json
from pathlib import Path

import pytest
from report_runs import evaluate, small_run

from fakes.results import comparison, write_training
from ultrarefiner import Refiner, refine_folder
from ultrarefiner.data.phantom import write_phantoms
from ultrarefiner.errors import InputError
from ultrarefiner.report.learning import draw_learning, read_training
from ultrarefiner.report.provenance import flatten, trace
from ultrarefiner.report.sources import read_sources


def write_evaluation(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(evaluate(small_run())), encoding="utf-8")
    return path


class TestSources:
    def test_every_kind_is_told_by_its_files(self, tmp_path):
        (tmp_path / "compare.json").write_text(json.dumps(comparison()), encoding="utf-8")
        sources = read_sources(
            [
                write_evaluation(tmp_path / "a" / "eval.json"),
                tmp_path / "compare.json",
                write_training(tmp_path / "net" / "fold-1"),
            ]
        )
        assert [name for name, _ in sources.evaluations] == ["a"]
        assert sources.comparison == comparison()
        assert [training.name for training in sources.trainings] == ["net/fold-1"]

    def test_a_folder_of_trainings_is_its_trainings(self, tmp_path):
        for fold in (2, 1):
            write_training(tmp_path / "net" / f"fold-{fold}")
        (tmp_path / "net" / "notes.txt").write_text("", encoding="utf-8")
        sources = read_sources([tmp_path / "net"])
        assert [t.name for t in sources.trainings] == ["net/fold-1", "net/fold-2"]

    def test_a_folder_of_trainings_has_their_phases(self, tmp_path):
        for place in ("fold-1", "fold-1/phase2", "fold-2"):
            write_training(tmp_path / "net" / place)
        names = [t.name for t in read_sources([tmp_path / "net"]).trainings]
        assert len(names) == 3
        assert any(name.endswith("phase2") for name in names)

    def test_names_are_as_short_as_tells_them_apart(self, tmp_path):
        paths = [
            write_evaluation(tmp_path / parent / "run" / "eval.json") for parent in ("one", "two")
        ]
        names = [name for name, _ in read_sources(paths).evaluations]
        assert names == ["one/run", "two/run"]
        names = [name for name, _ in read_sources([paths[0]] * 2).evaluations]
        assert names[0] != names[1]

    def test_a_file_that_is_none_is_named(self, tmp_path):
        path = tmp_path / "other.json"
        path.write_text('{"cases": 1}', encoding="utf-8")
        with pytest.raises(InputError, match=r"cannot use .*other\.json.*ultrarefiner evaluate"):
            read_sources([path])

    @pytest.mark.parametrize(
        ("changes", "found"),
        [
            ({"summary": None}, "other contents in summary"),
            ({"cases": {}}, "other contents in cases"),
            ({"cases": [{"image": "a"}]}, "cases without their metrics"),
            ({"baseline_cases": ["a"]}, "cases without their metrics"),
        ],
    )
    def test_a_damaged_evaluation_is_named(self, tmp_path, changes, found):
        path = tmp_path / "eval.json"
        path.write_text(json.dumps(evaluate(small_run()) | changes), encoding="utf-8")
        with pytest.raises(InputError, match=rf"cannot use .*eval\.json.*{found}"):
            read_sources([path])

    def test_an_evaluation_needs_its_run(self, tmp_path):
        path = write_evaluation(tmp_path / "eval.json")
        with pytest.raises(InputError, match="is of no run"):
            read_sources([write_training(tmp_path / "net")], evaluation=path)

    def test_one_comparison_at_most(self, tmp_path):
        path = tmp_path / "compare.json"
        path.write_text(json.dumps(comparison()), encoding="utf-8")
        with pytest.raises(InputError, match="several comparisons"):
            read_sources([path, path])


class TestLearning:
    def test_curves_and_the_best_epoch(self, tmp_path):
        training = read_training(write_training(tmp_path / "a"), name="a")
        assert training.val_dsc == ((0, 0.3), (1, 0.8), (2, 0.7))
        assert training.loss == ((0, 1.0), (1, 0.5), (2, pytest.approx(1 / 3)))
        assert training.best == (1, 0.8)
        assert training.num_epochs == 3

    def test_of_equal_epochs_the_first_was_kept(self, tmp_path):
        training = read_training(write_training(tmp_path / "a", dsc=(0.5, 0.8, 0.8)), name="a")
        assert training.best == (1, 0.8)

    def test_steps_of_one_epoch_are_averaged_and_gaps_left_out(self, tmp_path):
        folder = write_training(tmp_path / "a")
        log = "epoch,step,train_loss,val_dsc\n0,0,1.0,\n0,1,2.0,\n0,1,nan,0.5\n1,2,inf,\n"
        (folder / "log" / "metrics.csv").write_text(log, encoding="utf-8")
        training = read_training(folder, name="a")
        assert training.loss == ((0, 1.5),)
        assert training.val_dsc == ((0, 0.5),)

    def test_a_run_that_is_not_finished_has_curves_too(self, tmp_path):
        folder = write_training(tmp_path / "a")
        (folder / "run.json").unlink()
        assert read_training(folder, name="a").card == {}

    @pytest.mark.parametrize("log", ["", "a,b\n1,2\n", "epoch,val_dsc\nx,0.5\n", "epoch,val_dsc\n"])
    def test_a_log_that_is_none_is_named(self, tmp_path, log):
        folder = write_training(tmp_path / "a")
        (folder / "log" / "metrics.csv").write_text(log, encoding="utf-8")
        with pytest.raises(InputError, match=str(folder)):
            read_training(folder, name="a")

    def test_every_run_has_a_line_and_a_best_mark_in_both_figures(self, tmp_path):
        names = ("a", "b", "c")
        runs = [read_training(write_training(tmp_path / name), name=name) for name in names]
        loss, score = draw_learning(runs)
        for figure in (loss, score):
            assert figure.svg.count('class="curve') == 3
            assert figure.svg.count('class="mark best"') == 3
            assert len({mark for _, mark, _ in figure.key}) == 3  # colour and dashes differ
        assert [note for _, _, note in score.key] == ["0.700"] * 3

    def test_later_phases_follow_with_what_they_refine(self, tmp_path):
        """Phases 2 and 3 log into folders of their own; phase 1 has no masks before refinement."""
        write_training(tmp_path / "fold-1")
        for name in ("phase2", "phase3"):
            write_training(tmp_path / "fold-1" / name)
            log = "epoch,train_loss,val_coarse_dsc,val_dsc\n0,0.5,0.80,0.85\n1,0.4,0.79,0.86\n"
            (tmp_path / "fold-1" / name / "log" / "metrics.csv").write_text(log, encoding="utf-8")
        trainings = read_sources([tmp_path / "fold-1"]).trainings
        assert len({training.name for training in trainings}) == 3
        assert [training.coarse_dsc for training in trainings[1:]] == [((0, 0.8), (1, 0.79))] * 2
        assert trainings[0].coarse_dsc == ()
        figures = draw_learning(trainings)
        assert [figure.svg.count('class="curve') for figure in figures] == [3, 3, 2]
        assert len(draw_learning(trainings[:1])) == 2


class TestProvenance:
    def test_settings_are_flags(self):
        settings = {"a": {"b": True, "c": [1, 2]}, "d": None, "e": {}, "f": ()}
        assert flatten(settings).splitlines() == [
            "a.b: true",
            "a.c: 1, 2",
            "d: none",
            "e: {}",
            "f: none",
        ]

    def test_old_files_tell_little_and_do_not_fail(self, tmp_path):
        sources = read_sources([write_evaluation(tmp_path / "old.json")])
        assert "command" not in trace(sources).get("Evaluation old", {})

    def test_a_run_says_what_it_was_told(self, tmp_path):
        """From Python a run may have been told neither command nor checkpoint."""
        write_phantoms(1, 3, tmp_path / "data")
        images, coarse = tmp_path / "data" / "images", tmp_path / "data" / "coarse"
        refiner = Refiner("lite-medsam", device="cpu")
        always = {"device", "data sha256", "versions", "settings"}
        about = {"command": "ultrarefiner refine", "checkpoints": ["one", "two"]}
        for name, told in (("bare", None), ("told", about)):
            refine_folder(images, coarse, tmp_path / name, refiner, about=told)
            found = trace(read_sources([tmp_path / name]))[f"Run {name}"]
            assert found.keys() == always | (told or {}).keys()
        assert found["command"] == "ultrarefiner refine"
        assert found["checkpoints"] == "one, two"

    def test_a_training_says_how_it_was_made(self, tmp_path):
        found = trace(read_sources([write_training(tmp_path / "net")]))["Training net"]
        assert found["command"] == "ultrarefiner train"
        assert found["settings"] == "phase1.epochs: 3"
        assert found["versions"] == "ultrarefiner 0.1.0"
