"""Labelled cases from elsewhere: their labels are the model's by name, also where a table numbers them otherwise."""

from pathlib import Path

import pytest

from segfw.base.records import UserError
from segfw.dataset.cases import Case, FoundDataset
from segfw.dataset.labels import LabelSet
from segfw.quality.unseen_cases import with_labels_of

OURS = LabelSet(names=("background", "bright", "dark"), values=(0, 3, 7))


def found(names, values, *, is_table):
    return FoundDataset(
        name="elsewhere",
        root=Path("elsewhere"),
        layout="folders",
        channels=None,
        labels=LabelSet(names=("background", *names), values=(0, *values)),
        cases=(Case(id="a", images=(Path("a.nii.gz"),), label=Path("a_mask.nii.gz")),),
        labels_may_be_absent=is_table,
    )


@pytest.mark.parametrize("is_table", [True, False])
def test_numbers_are_read_by_their_names(is_table):
    (case,) = with_labels_of(OURS, found(("dark", "bright"), (1, 2), is_table=is_table))
    assert dict(case.label_map) == {0: 0, 1: 7, 2: 3}
    (swapped,) = with_labels_of(OURS, found(("dark", "bright"), (3, 7), is_table=is_table))
    assert dict(swapped.label_map) == {0: 0, 3: 7, 7: 3}
    (same,) = with_labels_of(OURS, found(("bright", "dark"), (3, 7), is_table=is_table))
    assert same.label_map == ()


def test_a_table_may_name_what_no_mask_holds_but_not_for_a_value_of_ours():
    (case,) = with_labels_of(OURS, found(("bright", "dark", "bone"), (3, 7, 9), is_table=True))
    assert case.label_map == ()
    with pytest.raises(UserError, match="labels are not those of the model, by dataset.json: bone"):
        with_labels_of(OURS, found(("bright", "bone"), (3, 7), is_table=True))
    with pytest.raises(UserError, match="bone; the model has bright, dark"):
        with_labels_of(OURS, found(("bright", "dark", "bone"), (3, 7, 9), is_table=False))
    with pytest.raises(UserError, match="bone; the model has bright, dark"):
        with_labels_of(OURS, found(("bone",), (3,), is_table=True))
