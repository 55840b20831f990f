"""Labels of several sources: which are one, which are two, and which are asked about."""

import pytest

from segfw.base.records import UserError
from segfw.dataset.labels import LabelSet
from segfw.joining.matched_labels import match_labels, read_given


def labels(*names: str) -> LabelSet:
    return LabelSet(names=("background", *names), values=tuple(range(len(names) + 1)))


def matched(first: LabelSet, second: LabelSet, given=None) -> dict[str, str]:
    """What the labels of the second source become."""
    found = match_labels({"a": first, "b": second}, given or {})
    return {label: name for (source, label), name in found.items() if source == "b"}


def test_equal_names_and_names_of_one_structure_are_one():
    first = labels("left kidney", "Liver", "GTVp")
    second = labels("kidney_left", "liver", "gtvP", "spleen")
    assert matched(first, second) == {
        "kidney_left": "left kidney",
        "liver": "Liver",
        "gtvP": "GTVp",
        "spleen": "spleen",
    }
    assert matched(labels("left kidney"), labels("左肾")) == {"左肾": "left kidney"}


def test_left_and_right_are_two_and_so_are_structures_that_the_table_tells_apart():
    assert matched(labels("left kidney"), labels("right kidney")) == {"right kidney": "right kidney"}
    assert matched(labels("liver", "stomach"), labels("spleen")) == {"spleen": "spleen"}


@pytest.mark.parametrize(
    ("first", "second"),
    [("kidney", "left kidney"), ("lesion_core", "lesion_cores"), ("tumor bed", "tumor bed 2"), ("GTVp", "gtv-p")],
)
def test_what_is_in_doubt_is_asked_and_named(first, second):
    with pytest.raises(UserError) as error:
        matched(labels(first), labels(second))
    assert str(error.value) == (
        f"{second!r} of b may be {first!r}; give --labels a file with the line source,label,joined and for each of "
        f"them one such as 'b,{second},{first}' (its own name where it is another structure)"
    )


def test_a_table_decides(tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("source,label,joined\nb,left kidney,left kidney\n")
    assert matched(labels("kidney"), labels("left kidney"), read_given(table)) == {"left kidney": "left kidney"}
    table.write_text("source,label,joined\nb,left kidney,kidney\n")
    assert matched(labels("kidney"), labels("left kidney"), read_given(table)) == {"left kidney": "kidney"}
    table.write_text("source,label,joined\nb,liver,liver of b\n")
    assert matched(labels("liver"), labels("liver"), read_given(table)) == {"liver": "liver of b"}


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ("c,liver,liver", "--labels: names the source 'c', and there is a and b"),
        ("b,spleen,spleen", "--labels: names 'spleen' of b, which has liver"),
        ("b,liver,", "line 2 has an empty cell; fill in source, label and joined"),
        ("b,liver,liver\nb,liver,hepar", "line 3 names 'liver' of b again; keep one line for each label"),
    ],
)
def test_a_wrong_table_is_one_sentence(tmp_path, rows, sentence):
    table = tmp_path / "labels.csv"
    table.write_text(f"source,label,joined\n{rows}\n")
    with pytest.raises(UserError) as error:
        matched(labels("liver"), labels("liver"), read_given(table))
    assert sentence in str(error.value)


def test_two_labels_of_a_source_that_would_be_one_are_refused():
    with pytest.raises(
        UserError, match=r"^b: its labels 'left kidney' and 'kidney_left' would both be 'left kidney'; say"
    ):
        matched(labels("left kidney"), labels("left kidney", "kidney_left"))
