"""Folds: the same as nnU-Net's, every case validated once, and imported ones checked."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import KFold

from builders.data import LABEL_VALUES, write_raw
from builders.partial import describe, hide
from segfw.base.records import UserError
from segfw.dataset.cases import Case
from segfw.planning.folds_asked_for import with_sources
from segfw.planning.splits import Fold, Splits, import_splits, make_splits, split_notes
from segfw.planning.work_folder import keep_decision
from segfw.verbs.plan_and_preprocess import plan_and_preprocess

IDS = [f"case_{number:03}" for number in range(23)]


def write(path, entries) -> object:
    path.write_text(entries if isinstance(entries, str) else json.dumps(entries))
    return path


@pytest.mark.parametrize("count", [5, 6, 23, 208])
def test_folds_equal_those_of_nnunet(count):
    ids = [f"hippocampus_{number:03}" for number in range(count)]
    splits = make_splits(ids[::-1])  # the order in which cases are given is no matter
    oracle = KFold(5, shuffle=True, random_state=12345).split(ids)
    assert len(splits.folds) == 5
    for fold, (train, validation) in zip(splits.folds, oracle):
        assert fold.train == tuple(ids[index] for index in train)
        assert fold.validation == tuple(ids[index] for index in validation)


@pytest.mark.parametrize("count, folds", [(2, 2), (3, 3), (4, 4), (5, 5), (11, 5)])
def test_every_case_is_validated_once_and_trains_in_the_other_folds(count, folds):
    ids = IDS[:count]
    splits = make_splits(ids)
    assert len(splits.folds) == folds
    assert sorted(case for fold in splits.folds for case in fold.validation) == ids
    for fold in splits.folds:
        assert sorted((*fold.train, *fold.validation)) == ids
        assert fold.train
        assert fold.validation


def test_another_seed_gives_other_folds_and_the_same_seed_the_same():
    assert make_splits(IDS) == make_splits(IDS)
    assert make_splits(IDS, seed=1).folds != make_splits(IDS).folds


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_cases_are_refused(count):
    with pytest.raises(UserError, match=f"the data set has {count} usable cases?; training needs at least 2"):
        make_splits(IDS[:count])


def test_folds_are_taken_by_name_and_all_trains_on_everything():
    splits = make_splits(IDS)
    assert splits.fold("3") == splits.folds[3]
    assert splits.fold("all").train == tuple(IDS)
    assert splits.fold("all").validation == ()
    for wrong in ("5", "-1", "first", "²"):
        with pytest.raises(UserError, match=f"fold '{wrong}' does not exist; choose 0 to 4 or all"):
            splits.fold(wrong)


def test_folds_of_nnunet_can_be_imported_and_kept(tmp_path):
    entries = [{"train": IDS[2:5], "val": IDS[:2]}, {"train": IDS[:2], "val": IDS[2:5]}]
    splits = import_splits(write(tmp_path / "splits_final.json", entries), IDS)
    assert [fold.train for fold in splits.folds] == [tuple(IDS[2:5]), tuple(IDS[:2])]
    assert [fold.validation for fold in splits.folds] == [tuple(IDS[:2]), tuple(IDS[2:5])]
    assert splits.source == "splits_final.json"
    splits.save(tmp_path / "splits.json")
    assert Splits.load(tmp_path / "splits.json") == splits


@pytest.mark.parametrize(
    "entries, words",
    [
        ([{"train": IDS[1:], "val": ["case_999"]}], "fold 0 names 'case_999', which is no usable case; correct it"),
        ([{"train": IDS[1:], "val": IDS[:2]}], "fold 0 has 'case_001' in both parts; keep it in one"),
        ([{"train": IDS[1:], "val": IDS[:1]}, {"train": [], "val": IDS}], "fold 1 has no training cases"),
        ([{"train": IDS}], "is not a list of"),
        ({"train": IDS, "val": []}, "is not a list of"),
        ([{"train": 3, "val": []}], "is not a list of"),
        ([{"train": [1, 2], "val": [3]}], "is not a list of"),
        ([], "lists no folds; correct it, or remove it to have folds drawn"),
        ("[{", "is not a list of"),
    ],
)
def test_wrong_folds_are_refused_with_the_reason(tmp_path, entries, words):
    with pytest.raises(UserError) as caught:
        import_splits(write(tmp_path / "splits_final.json", entries), IDS)
    assert str(caught.value).startswith(f"{tmp_path / 'splits_final.json'}: {words}")
    assert "\n" not in str(caught.value)


def patients_and_cases(sizes: list[int]) -> dict[str, str]:
    return {f"p{number:02}_{scan}": f"p{number:02}" for number, size in enumerate(sizes) for scan in range(size)}


@pytest.mark.parametrize("sizes", [[2] * 20, [1, 9, 2, 2, 3, 1, 1, 4, 5, 1, 1], [30, 1, 1, 1, 1, 1], [3, 1]])
def test_all_cases_of_a_patient_are_in_one_fold_and_sizes_are_even(sizes):
    groups = patients_and_cases(sizes)
    splits = make_splits(list(groups), groups=groups)
    assert len(splits.folds) == min(5, len(sizes))
    assert sorted(case for fold in splits.folds for case in fold.validation) == sorted(groups)
    for fold in splits.folds:
        assert not {groups[case] for case in fold.train} & {groups[case] for case in fold.validation}
        assert sorted((*fold.train, *fold.validation)) == sorted(groups)
        # As even as whole patients allow: no fold has more than its share and one patient.
        assert 0 < len(fold.validation) <= max(max(sizes), sum(sizes) / len(splits.folds) + max(sizes) / 2)
    assert f"all cases of each of {len(sizes)} patients in one fold" in splits.source
    assert make_splits(list(groups)[::-1], groups=groups) == splits
    assert make_splits(list(groups), groups=groups, seed=1) != splits


def test_folds_of_patients_with_equally_many_cases_are_nnunets_over_the_patients():
    groups = patients_and_cases([2] * 23)
    of_patients = make_splits(sorted(set(groups.values())))
    for ours, plain in zip(make_splits(list(groups), groups=groups).folds, of_patients.folds):
        assert {groups[case] for case in ours.validation} == set(plain.validation)


def test_one_patient_alone_is_refused():
    with pytest.raises(UserError, match=r"all 3 cases are of one patient \('p00'\), so none can validate"):
        make_splits(["p00_0", "p00_1", "p00_2"], groups=patients_and_cases([3]))


def test_groups_and_labels_that_make_no_difference_leave_nnunets_folds():
    plain = make_splits(IDS)
    assert make_splits(IDS, groups={case: case for case in IDS}) == plain
    assert make_splits(IDS, labels_of_case={case: {"liver"} for case in IDS}) == plain
    one_each = {fold.validation[0]: {"rare"} for fold in plain.folds}
    assert make_splits(IDS, labels_of_case=one_each) == plain
    assert make_splits(IDS, labels_of_case={IDS[0]: ["unique"]}) == plain  # no draw can put it into two folds


def folds_with(splits: Splits, label: str, labels_of_case: dict) -> int:
    return sum(any(label in labels_of_case.get(case, ()) for case in fold.validation) for fold in splits.folds)


def test_a_rare_label_that_plain_drawing_piles_up_is_spread_over_all_folds():
    plain = make_splits(IDS)
    piled = [*plain.folds[1].validation, plain.folds[2].validation[0]]
    labels = {case: {"organ", *(["rare"] if case in piled else [])} for case in IDS}
    splits = make_splits(IDS, labels_of_case=labels)
    assert folds_with(splits, "rare", labels) == 5
    assert sorted(len(fold.validation) for fold in splits.folds) == [4, 4, 5, 5, 5]
    assert splits.source == "5 folds drawn with seed 12345, so that rare labels (rare) are in as many folds as possible"
    assert make_splits(IDS[::-1], labels_of_case=labels) == splits
    assert not split_notes(splits, labels)


def test_cases_of_each_source_are_in_every_fold():
    """By the labels alone the folds would be the plain ones, of which three have no case of the second source."""
    plain = make_splits(IDS)
    second = {*plain.folds[1].validation, plain.folds[2].validation[0]}
    cases = [
        Case(id=case, images=(Path(case),), annotated=("spleen", "kidney") if case in second else ("liver",))
        for case in IDS
    ]
    drawn = with_sources({case: {"organ"} for case in IDS}, cases)
    splits = make_splits(IDS, labels_of_case=drawn)
    assert [len(second & set(fold.validation)) > 0 for fold in splits.folds] == [True] * 5
    assert [len(set(fold.validation) - second) > 0 for fold in splits.folds] == [True] * 5
    assert "cases of spleen and kidney) are in as many folds as possible" in splits.source
    # Where all is annotated, folds are as they were
    whole = [case.model_copy(update={"annotated": None}) for case in cases]
    labels = {case: {"organ"} for case in IDS}
    assert with_sources(labels, whole) == labels
    some = with_sources(labels, [*whole[:-1], cases[-1]])
    assert some[IDS[0]] == {"organ", "cases of all structures"}


def test_folds_of_a_data_set_in_parts_have_cases_of_each_part(tmp_path):
    ids = [f"case_{number:02}" for number in range(10)]
    plain = make_splits(ids)
    second = [*plain.folds[0].validation, *plain.folds[1].validation, plain.folds[2].validation[0]]
    first = [case for case in ids if case not in second]
    write_raw(tmp_path / "raw", 10)
    for case in ids:
        hide(tmp_path / "raw" / "labelsTr" / f"{case}.nii.gz", [LABEL_VALUES["bright" if case in second else "dark"]])
    describe(
        tmp_path / "raw", annotated={**{case: ["bright"] for case in first}, **{case: ["dark"] for case in second}}
    )
    plan_and_preprocess(tmp_path / "raw", tmp_path / "work", plan_only=True, device="cpu")
    splits = Splits.load(tmp_path / "work" / "splits.json")
    assert [len(set(fold.validation) & set(second)) for fold in splits.folds] == [1] * 5


def test_a_label_of_two_cases_is_never_out_of_training():
    pair = make_splits(IDS).folds[3].validation[:2]
    labels = {case: {"rare"} if case in pair else set() for case in IDS}
    splits = make_splits(IDS, labels_of_case=labels)
    assert folds_with(splits, "rare", labels) == 2
    assert all(set(fold.train) & set(pair) for fold in splits.folds)


@pytest.mark.parametrize("seed", range(10))
def test_many_rare_labels_of_patients_with_several_cases_are_in_every_fold(seed):
    rng = np.random.default_rng(seed)
    groups = patients_and_cases(rng.integers(1, 5, size=40).tolist())
    labels = {case: {"organ"} for case in groups}
    for number in range(8):  # of 5 to 12 patients each
        holders = rng.choice(sorted(set(groups.values())), 5 + number, replace=False)
        for case, patient in groups.items():
            if patient in holders:
                labels[case].add(f"rare_{number}")
    splits = make_splits(list(groups), groups=groups, labels_of_case=labels, seed=seed)
    sizes = [len(fold.validation) for fold in splits.folds]
    assert max(sizes) - min(sizes) <= 4
    assert [folds_with(splits, f"rare_{number}", labels) for number in range(8)] == [5] * 8
    for fold in splits.folds:
        assert not {groups[case] for case in fold.train} & {groups[case] for case in fold.validation}


def test_folds_of_segfw_can_be_given(tmp_path):
    splits = make_splits(IDS)
    splits.save(tmp_path / "mine.json")
    assert import_splits(tmp_path / "mine.json", IDS) == Splits(source="mine.json", folds=splits.folds)
    (tmp_path / "mine.json").write_text('{"source": "me", "folds": [{"train": ["case_001"]}]}')
    with pytest.raises(UserError, match="field 'folds.0.validation' is missing"):
        import_splits(tmp_path / "mine.json", IDS)


def test_given_folds_that_share_a_patient_are_refused(tmp_path):
    ids = ["a_1", "a_2", "b_1", "b_2"]
    groups = {case: case[0] for case in ids}
    apart = {"train": ids[:2], "val": ids[2:]}
    path = write(tmp_path / "splits_final.json", [apart, {"train": ["a_1", "b_1"], "val": ["b_2"]}])
    with pytest.raises(UserError) as caught:
        import_splits(path, ids, groups)
    assert str(caught.value) == (
        f"{path}: fold 1 trains on 'b_1' and validates on 'b_2', both of patient 'b'; move them into one part, or "
        "correct which cases are of one patient"
    )
    assert import_splits(path, ids).folds[1].validation == ("b_2",)
    assert len(import_splits(write(path, [apart]), ids, groups).folds) == 1


def test_notes_say_what_given_folds_go_without(tmp_path):
    labels = {"a": {"liver"}, "b": {"liver", "lesion"}, "c": ["liver"], "d": {"cyst"}}
    entries = [{"train": ["a", "c"], "val": ["b"]}, {"train": ["b"], "val": ["a"]}]
    assert split_notes(import_splits(write(tmp_path / "s.json", entries), list(labels)), labels) == [
        "label cyst (1 case) is in no training case of fold 0, 1 and cannot be learnt there",
        "label cyst (1 case) is in no validation case of fold 0, 1 and gets no score there",
        "label lesion (1 case) is in no training case of fold 0 and cannot be learnt there",
        "label lesion (1 case) is in no validation case of fold 1 and gets no score there",
        "1 case ('d') is in no fold: neither trained on nor validated",
        "1 case ('c') is validated in no fold",
    ]
    entries = [{"train": ["c", "d"], "val": ["a", "b"]}, {"train": ["c", "d"], "val": ["b", "a"]}]
    notes = split_notes(import_splits(write(tmp_path / "s.json", entries), list(labels)), dict.fromkeys(labels, ()))
    assert notes == [
        "2 cases, such as 'c', are validated in no fold",
        "2 cases, such as 'a', are validated in several folds",
    ]


def test_the_patient_of_every_case_is_kept_with_the_folds(tmp_path):
    splits = make_splits(IDS).with_patients(dict.fromkeys(IDS[:2], "p1") | {case: case for case in IDS[2:]})
    splits.save(tmp_path / "splits.json")
    kept = Splits.load(tmp_path / "splits.json")
    assert kept.patient_of == dict.fromkeys(IDS[:2], "p1")
    assert kept.patients_of(IDS[1:4]) == {IDS[1]: "p1", IDS[2]: IDS[2], IDS[3]: IDS[3]}


def test_folds_of_before_patients_were_kept_say_that_they_do_not_know(tmp_path):
    (tmp_path / "splits.json").write_text('{"source": "x", "folds": [{"train": ["a"], "validation": ["b"]}]}')
    kept = Splits.load(tmp_path / "splits.json")
    assert kept.patients_of(["a", "b"]) is None
    kept.save(tmp_path / "again.json")
    assert "patient_of" not in (tmp_path / "again.json").read_text()


def test_the_same_folds_with_their_patients_are_no_other_decision(tmp_path):
    """A folder of an earlier version, in which something is trained, is planned again."""
    splits = make_splits(IDS)
    splits.save(tmp_path / "splits.json")
    trained = tmp_path / "runs" / "2d" / "fold_0" / "model.safetensors"
    trained.parent.mkdir(parents=True)
    trained.touch()
    keep_decision(tmp_path, "splits.json", splits.with_patients(dict.fromkeys(IDS, "p1")), overwrite=False)
    assert Splits.load(tmp_path / "splits.json").patients_of(IDS[:1]) == {IDS[0]: "p1"}
    other = splits.model_copy(update={"folds": splits.folds[::-1]})
    with pytest.raises(UserError, match="would change, but"):
        keep_decision(tmp_path, "splits.json", other, overwrite=False)


def test_how_often_cases_are_drawn_is_kept_and_files_without_are_as_before(tmp_path):
    plain = Fold(train=("a", "b"), validation=("c",))
    weighted = Fold(train=("a", "c"), validation=("b",), weights=(1.0, 0.5))
    splits = Splits(source="given", folds=(plain, weighted))
    splits.save(tmp_path / "splits.json")
    assert Splits.load(tmp_path / "splits.json") == splits
    written = json.loads((tmp_path / "splits.json").read_text())["folds"]
    assert sorted(written[0]) == ["train", "validation"]
    assert written[1]["weights"] == [1.0, 0.5]
    assert splits.fold("all") == Fold(train=("a", "b", "c"), validation=(), weights=(1.0, 1.0, 0.5))
    assert Splits(source="given", folds=(plain,)).fold("all").weights == ()


@pytest.mark.parametrize("weights, what", [([1.0], "1 weights are given for 2 training cases"), ([1, 0], "above 0")])
def test_weights_that_fit_no_fold_are_refused(tmp_path, weights, what):
    folds = [{"train": ["a", "b"], "validation": ["c"], "weights": weights}]
    path = write(tmp_path / "splits.json", {"source": "given", "folds": folds})
    with pytest.raises(UserError, match=what):
        Splits.load(path)
