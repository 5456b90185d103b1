"""No patient and no scene on two sides, whatever the manifest; classes even; order irrelevant."""

from __future__ import annotations

import dataclasses
import math
import random
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ultrarefiner.data.folds import (
    assign_folds,
    groups_of,
    inner_split,
    lesion_shares,
    outer_split,
    split_fingerprint,
    subset_patients,
)
from ultrarefiner.data.manifest import Record, read_manifest, write_manifest
from ultrarefiner.data.sources import read_busbra
from ultrarefiner.data.strata import strata_of
from ultrarefiner.errors import ConfigError, InputError, LeakError

Records = tuple[Record, ...]


def _records(
    patients: Sequence[str], labels: Sequence[str] = (), scenes: Sequence[str] = ()
) -> Records:
    return tuple(
        Record(
            image=Path("data", "images", f"{i:03d}.png"),
            patient=patient,
            label=labels[i] if labels else "",
            duplicate_group=scenes[i] if scenes else "",
        )
        for i, patient in enumerate(patients)
    )


def _clinic(num_patients: int, seed: int) -> tuple[Records, tuple[float, ...]]:
    """A data set as they are: one to four images a patient, a third malignant, sizes skewed."""
    rng = np.random.default_rng(seed)
    patients, labels, sizes = [], [], []
    for patient in range(num_patients):
        label = "malignant" if rng.random() < 0.33 else "benign"
        scale = rng.lognormal(-3, 0.8)
        for _ in range(rng.choice([1, 2, 2, 2, 3, 4])):
            patients.append(f"p{patient}")
            labels.append(label)
            sizes.append(float(scale * rng.uniform(0.7, 1.3)))
    return _records(patients, labels), tuple(sizes)


_CODES = st.integers(0, 9).map(lambda code: f"p{code}" if code else "")


@st.composite
def _manifests(draw: st.DrawFn) -> tuple[Records, tuple[float, ...]]:
    """Rows with patients and scenes that cross, without some of either, and their sizes."""
    num = draw(st.integers(1, 24))
    column = st.lists(_CODES, min_size=num, max_size=num)
    labels = st.lists(st.sampled_from(["", "benign", "malignant"]), min_size=num, max_size=num)
    sizes = st.lists(st.sampled_from([math.nan, 0, 0.01, 0.1, 0.5]), min_size=num, max_size=num)
    scenes = draw(st.one_of(st.just([""] * num), column))
    return _records(draw(column), draw(labels), scenes), tuple(draw(sizes))


def _shared(one: Sequence[Record], other: Sequence[Record]) -> set[tuple[str, Hashable]]:
    """Return what two sets of images have in common, empty cells aside."""

    def marks(records: Sequence[Record]) -> set[tuple[str, Hashable]]:
        names = ("image", "patient", "duplicate_group")
        return {(name, getattr(r, name)) for r in records for name in names if getattr(r, name)}

    return marks(one) & marks(other)


def _worst_deviation(
    records: Sequence[Record], key: Callable[[int], Hashable], folds: Sequence[str]
) -> float:
    """Return how far the share of a class in a fold is from an even one, at most."""
    totals = Counter(map(key, range(len(records))))
    cells = Counter((key(i), fold) for i, fold in enumerate(folds))
    names = set(folds)
    return max(
        abs(cells[name, fold] / total - 1 / len(names))
        for name, total in totals.items()
        for fold in names
    )


class TestGroups:
    def test_patient_and_scene_link_by_way_of_others(self) -> None:
        records = _records(["a", "b", "c", "a", "", ""], scenes=["", "s", "s", "t", "t", ""])
        assert groups_of(records) == ((0, 3, 4), (1, 2), (5,))

    def test_empty_cells_link_nothing(self) -> None:
        assert groups_of(_records(["", "", ""])) == ((0,), (1,), (2,))
        assert groups_of(()) == ()

    def test_a_scene_and_a_patient_of_one_name_are_different_things(self) -> None:
        assert groups_of(_records(["x", ""], scenes=["", "x"])) == ((0,), (1,))

    def test_rows_of_one_file_stay_together(self) -> None:
        rows = [Record(image=Path("a", "1.png")), Record(image=Path("a", "b", "..", "1.png"))]
        assert groups_of(rows) == ((0, 1),)

    @given(_manifests())
    @settings(max_examples=60, deadline=None)
    def test_they_are_the_components(self, manifest: tuple[Records, tuple[float, ...]]) -> None:
        """Oracle: sets of what is shared, merged until nothing changes."""
        records, _ = manifest
        pending = [
            ({i}, {("p", r.patient), ("s", r.duplicate_group)} - {("p", ""), ("s", "")})
            for i, r in enumerate(records)
        ]
        merged: list[tuple[set[int], set[tuple[str, str]]]] = []
        while pending:
            indices, marks = pending.pop()
            touching = [other for other in pending if other[1] & marks]
            if touching:
                pending = [other for other in pending if not other[1] & marks]
                found = [(indices, marks), *touching]
                pending.append(
                    (set().union(*(a for a, _ in found)), set().union(*(b for _, b in found)))
                )
            else:
                merged.append((indices, marks))
        assert groups_of(records) == tuple(sorted(tuple(sorted(i)) for i, _ in merged))


class TestAnyManifest:
    """Properties that hold for patients, scenes, labels and sizes in any mixture."""

    @given(_manifests(), st.integers(2, 5), st.integers(-3, 10**9))
    @settings(max_examples=150, deadline=None)
    def test_folds(
        self, manifest: tuple[Records, tuple[float, ...]], num_folds: int, seed: int
    ) -> None:
        records, sizes = manifest
        assume(len(groups_of(records)) >= num_folds)
        dealt = assign_folds(records, num_folds=num_folds, seed=seed, sizes=sizes).records
        assert [dataclasses.replace(record, fold="") for record in dealt] == list(records)
        names = {str(fold + 1) for fold in range(num_folds)}
        assert {record.fold for record in dealt} == names  # so none is empty
        for name in names:
            train, held_out = outer_split(dealt, name)
            assert _shared(train, held_out) == set()
            assert len(train) + len(held_out) == len(records)

    @given(_manifests(), st.integers(0, 99), st.sampled_from([0.02, 0.1, 0.5, 0.98]))
    @settings(max_examples=100, deadline=None)
    def test_inner_split(
        self, manifest: tuple[Records, tuple[float, ...]], seed: int, share: float
    ) -> None:
        records, sizes = manifest
        assume(len(groups_of(records)) >= 2)
        train, val = inner_split(records, share=share, seed=seed, sizes=sizes)
        assert train
        assert val
        assert _shared(train, val) == set()
        assert sorted([*train, *val], key=lambda record: record.image) == list(records)
        smallest = min(map(len, groups_of(records)))
        assert len(val) <= max(share * len(records), smallest)

    @given(_manifests(), st.integers(0, 99), st.floats(0.001, 1), st.floats(0.001, 1))
    @settings(max_examples=100, deadline=None)
    def test_subsets_are_nested(
        self, manifest: tuple[Records, tuple[float, ...]], seed: int, one: float, other: float
    ) -> None:
        records, _ = manifest
        num = len(groups_of(records))
        assume(num >= 2)
        small, large = (
            subset_patients(records, share=share, seed=seed) for share in sorted((one, other))
        )
        assert set(small) <= set(large)
        assert len(groups_of(small)) >= 2
        chosen = len(groups_of(large))
        assert chosen == 2 or abs(chosen - max(one, other) * num) <= 0.5
        rest = [record for record in records if record not in set(large)]
        assert _shared(large, rest) == set()
        assert subset_patients(records, share=1, seed=seed) == records

    @given(_manifests(), st.integers(0, 99), st.randoms(use_true_random=False))
    @settings(max_examples=80, deadline=None)
    def test_neither_order_nor_place_nor_names_of_patients_matter(
        self, manifest: tuple[Records, tuple[float, ...]], seed: int, rng: random.Random
    ) -> None:
        records, sizes = manifest
        assume(len(groups_of(records)) >= 3)
        order = rng.sample(range(len(records)), len(records))
        moved = [
            dataclasses.replace(
                records[i],
                image=Path("/elsewhere", records[i].image),
                patient=records[i].patient and f"renamed-{records[i].patient}",
            )
            for i in order
        ]
        moved_sizes = [sizes[i] for i in order]

        def names(rows: Sequence[Record]) -> list[str]:
            return sorted(row.image.name for row in rows)

        dealt = assign_folds(records, num_folds=3, seed=seed, sizes=sizes).records
        dealt_moved = assign_folds(moved, num_folds=3, seed=seed, sizes=moved_sizes).records
        assert {r.image.name: r.fold for r in dealt} == {r.image.name: r.fold for r in dealt_moved}
        _, val = inner_split(records, seed=seed, sizes=sizes)
        _, val_moved = inner_split(moved, seed=seed, sizes=moved_sizes)
        assert names(val) == names(val_moved)
        assert names(subset_patients(records, share=0.3, seed=seed)) == names(
            subset_patients(moved, share=0.3, seed=seed)
        )


class TestFolds:
    def test_pinned(self) -> None:
        """The same on every machine and in every version: a change here changes results."""
        records, sizes = _clinic(12, seed=0)
        dealt = assign_folds(records, num_folds=3, seed=7, sizes=sizes).records
        assert "".join(record.fold for record in dealt) == "22311222331223331111113"

    def test_the_seed_matters(self) -> None:
        records, sizes = _clinic(40, seed=0)
        results = {
            assign_folds(records, num_folds=5, seed=seed, sizes=sizes).records for seed in range(5)
        }
        assert len(results) == 5

    def test_classes_and_sizes_are_even(self) -> None:
        """One image of a class and size more or less, where patients have one image each."""
        labels = ["benign"] * 70 + ["malignant"] * 30
        sizes = [0.01 * (i % 10 + 1) for i in range(100)]
        records = _records([f"p{i}" for i in range(100)], labels)
        dealt = assign_folds(records, num_folds=5, seed=0, sizes=sizes).records
        assert set(Counter(record.fold for record in dealt).values()) <= {19, 20, 21}
        strata = strata_of(records, sizes)
        for stratum, total in Counter(strata).items():
            per_fold = Counter(
                record.fold for record, mine in zip(dealt, strata, strict=True) if mine == stratum
            )
            assert len(per_fold) == 5
            assert max(per_fold.values()) - min(per_fold.values()) == (total % 5 > 0)

    def test_no_worse_than_shuffled_groups(self) -> None:
        """Against dealing shuffled patients in turn: nearly always, and clearly on average."""
        wins = {"image": 0, "label": 0, "stratum": 0}
        ours_sum, naive_sum = Counter[str](), Counter[str]()
        for trial in range(200):
            records, sizes = _clinic(30 + trial % 50, seed=trial)
            strata = strata_of(records, sizes)
            keys: dict[str, Callable[[int], Hashable]] = {
                "image": lambda _: "",
                "label": lambda i, records=records: records[i].label,
                "stratum": lambda i, strata=strata: strata[i],
            }
            ours = [
                record.fold
                for record in assign_folds(records, num_folds=5, seed=trial, sizes=sizes).records
            ]
            naive = [""] * len(records)
            groups = list(groups_of(records))
            random.Random(trial).shuffle(groups)
            for turn, group in enumerate(groups):
                for index in group:
                    naive[index] = str(turn % 5)
            for name, key in keys.items():
                mine = _worst_deviation(records, key, ours)
                theirs = _worst_deviation(records, key, naive)
                wins[name] += mine <= theirs
                ours_sum[name] += mine
                naive_sum[name] += theirs
        assert min(wins.values()) >= 197
        ratios = {name: ours_sum[name] / naive_sum[name] for name in wins}
        assert ratios["image"] < 0.35
        assert ratios["label"] < 0.3
        assert ratios["stratum"] < 0.6  # with few patients in a class no deal is even

    def test_one_group_of_most_images_is_said(self) -> None:
        records = _records(["a"] * 20 + ["b", "c", "d"])
        folds = assign_folds(records, num_folds=3, seed=0)
        assert "20 of 23 images share a patient or scene: folds differ in size" in folds.notes

    def test_a_class_that_a_fold_lacks_is_said(self) -> None:
        records = _records(list("abcdefgh"), ["benign"] * 6 + ["malignant"] * 2)
        folds = assign_folds(records, num_folds=4, seed=0)
        lacking = {"1", "2", "3", "4"} - {r.fold for r in folds.records if r.label == "malignant"}
        assert folds.notes == tuple(
            f"class 'malignant' is absent in fold {fold}: it has 2 patients"
            for fold in sorted(lacking)
        )
        assert len(folds.notes) == 2

    def test_unknown_patients_are_said(self) -> None:
        folds = assign_folds(_records(["a", "", "", "b"]), num_folds=2, seed=0)
        assert folds.notes == ("2 of 4 images name no patient: each counts as its own",)

    @pytest.mark.parametrize("num_folds", [1, 0, -2])
    def test_one_fold_is_none(self, num_folds: int) -> None:
        with pytest.raises(ConfigError, match=f"2 or more, found {num_folds}"):
            assign_folds(_records("abc"), num_folds=num_folds, seed=0)

    def test_more_folds_than_patients(self) -> None:
        records = _records(["a", "a", "b", "c", ""], scenes=["", "", "s", "s", ""])
        with pytest.raises(InputError, match=r"5 sets .* at least 5 patients .*, found 3"):
            assign_folds(records, num_folds=5, seed=0)
        assert len({r.fold for r in assign_folds(records, num_folds=3, seed=0).records}) == 3

    def test_a_single_patient(self) -> None:
        records = _records(["a"] * 9)
        for split in (
            lambda: assign_folds(records, num_folds=2, seed=0),
            lambda: inner_split(records, seed=0),
            lambda: subset_patients(records, share=0.5, seed=0),
        ):
            with pytest.raises(InputError, match=r"9 images .* found a single one"):
                split()

    def test_no_images(self) -> None:
        for rows in ((), (Record(image=Path("a.png"), split="test"),)):
            with pytest.raises(InputError, match="no images to make folds of"):
                assign_folds(rows, num_folds=2, seed=0)

    def test_sizes_that_do_not_fit(self) -> None:
        records = _records("abc")
        with pytest.raises(InputError, match=r"one for each of 3 images.*found 2"):
            assign_folds(records, num_folds=2, seed=0, sizes=[0.1, 0.2])
        with pytest.raises(InputError, match=r"size of .*002\.png.*found -0\.1"):
            assign_folds(records, num_folds=2, seed=0, sizes=[0.1, 0.2, -0.1])


class TestOfficialFolds:
    def test_they_are_kept(self) -> None:
        records = tuple(
            dataclasses.replace(record, fold=fold)
            for record, fold in zip(_records("abcd"), ["x", "y", "x", "y"], strict=True)
        )
        kept = assign_folds(records, num_folds=2, seed=0)
        assert kept.records == records
        assert kept.notes == ("the 2 folds of the manifest are kept; '--replace' makes new ones",)
        (note,) = assign_folds(records, num_folds=3, seed=0).notes
        assert "the 2 folds of the manifest are kept, not the 3 asked for" in note

    def test_they_are_replaced_on_demand_as_if_they_had_not_been(self) -> None:
        plain = _records("abcdef")
        official = tuple(dataclasses.replace(r, fold=str(i % 2)) for i, r in enumerate(plain))
        assert assign_folds(official, num_folds=3, seed=4, replace=True) == assign_folds(
            plain, num_folds=3, seed=4
        )

    def test_folds_of_some_images_are_refused(self) -> None:
        first, *rest = _records("abc")
        mixed = (dataclasses.replace(first, fold="1"), *rest)
        with pytest.raises(
            InputError, match=r"2 of 3 images have no fold, the first is .*001\.png"
        ):
            assign_folds(mixed, num_folds=2, seed=0)
        assert assign_folds(mixed, num_folds=2, seed=0, replace=True).records

    def test_folds_that_part_a_patient_are_refused(self) -> None:
        records = tuple(
            dataclasses.replace(record, fold=fold)
            for record, fold in zip(_records(["a", "b", "a"]), "122", strict=True)
        )
        with pytest.raises(LeakError, match=r"000\.png \(fold 1\) and .*002\.png \(fold 2\)"):
            assign_folds(records, num_folds=2, seed=0)

    def test_an_official_test_set_is_in_no_fold(self) -> None:
        *rows, last = _records("abcde")
        test = dataclasses.replace(last, split="test")
        folds = assign_folds((*rows, test), num_folds=2, seed=0)
        assert folds.records[-1] == test
        assert all(record.fold for record in folds.records[:-1])
        assert folds.notes == ("1 images of the split 'test' are in no fold",)
        assert assign_folds(folds.records, num_folds=2, seed=0).records == folds.records
        train, held_out = outer_split(folds.records, "1")
        assert test not in (*train, *held_out)


class TestOuterSplit:
    def test_names_are_listed_as_numbers(self) -> None:
        records = [
            dataclasses.replace(record, fold=str(i + 1))
            for i, record in enumerate(_records([f"p{i}" for i in range(11)]))
        ]
        with pytest.raises(InputError, match=r"'12': expected one of 1, 2, 3, .*, 9, 10, 11$"):
            outer_split(records, "12")

    def test_without_folds(self) -> None:
        for rows in (_records("ab"), ()):
            with pytest.raises(
                InputError, match=r"no image of the manifest has a fold.*data split"
            ):
                outer_split(rows, "1")

    def test_a_single_fold_leaves_nothing_to_learn_from(self) -> None:
        rows = [dataclasses.replace(record, fold="1") for record in _records("ab")]
        with pytest.raises(InputError, match="expected several folds, found only fold '1'"):
            outer_split(rows, "1")

    def test_some_without_fold(self) -> None:
        first, second = _records("ab")
        with pytest.raises(InputError, match="1 of 2 images have no fold"):
            outer_split([dataclasses.replace(first, fold="1"), second], "1")

    def test_a_leak_is_refused_where_it_matters(self) -> None:
        records = [
            dataclasses.replace(record, fold=fold)
            for record, fold in zip(_records(["a", "b", "a", "c"]), "1223", strict=True)
        ]
        train, held_out = outer_split(records, "3")  # folds 1 and 2 are both learned from
        assert (len(train), len(held_out)) == (3, 1)
        with pytest.raises(LeakError, match=r"000\.png \(fold 1\) and .*002\.png \(fold 2\)"):
            outer_split(records, "1")


class TestInnerSplit:
    def test_a_large_patient_stays_in_training(self) -> None:
        records = _records(["large"] * 60 + [f"p{i}" for i in range(40)])
        for seed in range(10):
            train, val = inner_split(records, share=0.1, seed=seed)
            assert len(val) == 10
            assert "large" in {record.patient for record in train}

    def test_the_smallest_patient_where_none_fits(self) -> None:
        _, val = inner_split(_records(["a"] * 5 + ["b"] * 2 + ["c"] * 5), share=0.1, seed=0)
        assert {record.patient for record in val} == {"b"}

    def test_labels_are_mirrored(self) -> None:
        labels = ["malignant" if i % 5 == 0 else "benign" for i in range(100)]
        records = _records([f"p{i}" for i in range(100)], labels)
        for seed in range(10):
            _, val = inner_split(records, share=0.1, seed=seed)
            assert Counter(record.label for record in val) == {"benign": 8, "malignant": 2}

    @pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, math.nan])
    def test_a_share_out_of_range(self, share: float) -> None:
        with pytest.raises(ConfigError, match="between 0 and 1"):
            inner_split(_records("ab"), share=share, seed=0)


class TestSubset:
    def test_shares_of_the_low_data_study(self) -> None:
        labels = ["malignant" if i % 3 == 0 else "benign" for i in range(300)]
        records = _records([f"p{i}" for i in range(300)], labels)
        for percent in (5, 8, 12, 15, 20, 35, 60, 100):
            chosen = subset_patients(records, share=percent / 100, seed=1)
            assert len(chosen) == 3 * percent
            assert sum(record.label == "malignant" for record in chosen) == percent

    def test_two_patients_of_both_classes_at_least(self) -> None:
        records = _records([f"p{i}" for i in range(20)], ["benign"] * 12 + ["malignant"] * 8)
        for seed in range(10):
            chosen = subset_patients(records, share=0.01, seed=seed)
            assert {record.label for record in chosen} == {"benign", "malignant"}
            assert len(inner_split(chosen, seed=seed)[1]) == 1

    @pytest.mark.parametrize("share", [0, -0.1, 1.01, math.nan])
    def test_a_share_out_of_range(self, share: float) -> None:
        with pytest.raises(ConfigError, match="above 0 and at most 1"):
            subset_patients(_records("ab"), share=share, seed=0)


class TestFingerprint:
    def test_order_and_place_do_not_matter_but_sides_and_patients_do(self) -> None:
        train, held_out = _records("abc")[:2], _records("abc")[2:]
        known = split_fingerprint(train, held_out)
        moved = [
            dataclasses.replace(r, image=Path("/mnt", r.image), label="x", fold="9") for r in train
        ]
        there = [dataclasses.replace(r, image=Path("/mnt", r.image)) for r in held_out]
        assert len(known) == 64
        assert split_fingerprint(moved[::-1], there) == known
        assert split_fingerprint(held_out, train) != known
        assert split_fingerprint((*train, *held_out), ()) != known
        renamed = [dataclasses.replace(train[0], patient="z"), train[1]]
        assert split_fingerprint(renamed, held_out) != known


class TestLesionShares:
    @staticmethod
    def _record(path: Path, values: np.ndarray) -> Record:
        assert cv2.imwrite(str(path), values)
        return Record(image=path.with_name("image.png"), mask=path)

    def test_masks_of_any_coding(self, tmp_path: Path) -> None:
        lesion = np.zeros((20, 10), np.uint8)
        lesion[5:10, 2:6] = 1
        labels = lesion.copy()
        labels[12:14, :5] = 3
        soft = np.full((20, 10), 60, np.uint8)
        soft[:4] = 200
        records = [
            self._record(tmp_path / "ones.png", lesion),
            self._record(tmp_path / "white.png", lesion * 255),
            self._record(tmp_path / "none.png", lesion * 0),
            self._record(tmp_path / "labels.png", labels),
            self._record(tmp_path / "soft.png", soft),
        ]
        assert lesion_shares(records) == (0.1, 0.1, 0, 0.15, 0.2)

    def test_no_mask_is_unknown(self) -> None:
        (share,) = lesion_shares(_records("a"))
        assert math.isnan(share)

    def test_a_mask_that_cannot_be_read_is_named(self, tmp_path: Path) -> None:
        record = Record(image=tmp_path / "a.png", mask=tmp_path / "lost.png")
        with pytest.raises(InputError, match=r"lost\.png"):
            lesion_shares([record])

    def test_progress_is_told(self) -> None:
        seen: list[int] = []

        def track(items: object, total: int) -> object:
            seen.append(total)
            return items

        lesion_shares(_records("abc"), track=track)  # type: ignore[arg-type]
        assert seen == [3]

    def test_thirds_are_those_of_the_data_set(self) -> None:
        records = [
            dataclasses.replace(record, dataset="ab"[i // 4])
            for i, record in enumerate(_records("abcdefgh"))
        ]
        sizes = [0, 0.1, 0.2, 0.3, 0.5, 0.5, 0.9, math.nan]
        assert [stratum[2] for stratum in strata_of(records, sizes)] == [
            "none", "small", "medium", "large", "small", "small", "large", "",
        ]  # fmt: skip


def test_folds_survive_a_manifest(tmp_path: Path) -> None:
    records, sizes = _clinic(15, seed=2)
    records = tuple(dataclasses.replace(r, image=tmp_path / r.image) for r in records)
    dealt = assign_folds(records, num_folds=3, seed=0, sizes=sizes).records
    write_manifest(tmp_path / "m.csv", dealt)
    assert read_manifest(tmp_path / "m.csv") == dealt


@pytest.mark.realdata
class TestBusbra:
    def test_folds_are_closer_to_even_than_the_official_ones(self, busbra: Path) -> None:
        records = read_busbra(busbra)
        sizes = lesion_shares(records)
        strata = strata_of(records, sizes)
        official = [record.fold for record in records]
        num = len(set(official))
        dealt = assign_folds(records, num_folds=num, seed=0, sizes=sizes, replace=True)
        ours = [record.fold for record in dealt.records]
        assert dealt.notes == ()
        for key in (lambda _: "", lambda i: records[i].label, lambda i: strata[i]):
            assert _worst_deviation(records, key, ours) <= _worst_deviation(records, key, official)
        assert _worst_deviation(records, lambda i: strata[i], ours) < 0.02

    def test_official_folds_are_kept(self, busbra: Path) -> None:
        records = read_busbra(busbra)
        assert assign_folds(records, num_folds=5, seed=0).records == records
        train, held_out = outer_split(records, "3")
        assert _shared(train, held_out) == set()
        assert len(held_out) == 366
