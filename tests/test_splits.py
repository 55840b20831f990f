"""Folds: the same as nnU-Net's, every case validated once, and imported ones checked."""

import json

import pytest
from sklearn.model_selection import KFold

from segfw.planning.splits import Splits, import_splits, make_splits
from segfw.records import UserError

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
    with pytest.raises(UserError, match=f"the data set has {count} usable cases; training needs at least 2"):
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
