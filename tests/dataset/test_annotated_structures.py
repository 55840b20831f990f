"""What was drawn in which case: read from dataset.json, held against the masks, and kept in the manifest."""

import json

import pytest

from builders.data import write_raw
from builders.found import problems
from builders.partial import describe, write_partial
from segfw.base.records import UserError
from segfw.dataset.annotated_structures import annotated_outputs, values_not_annotated
from segfw.dataset.cases import Case, DatasetManifest
from segfw.dataset.labels import LabelSet, Region
from segfw.dataset.layouts import find_dataset
from segfw.planning.fingerprint import DataProblems, scan_dataset
from segfw.planning.kept_scan import kept_scan
from segfw.verbs.plan_and_preprocess import plan_and_preprocess

PLAIN = LabelSet(names=("background", "a", "b"), values=(0, 3, 7))
NESTED = LabelSet(
    names=("background", "rim", "core"),
    values=(0, 1, 2),
    regions=(Region(name="whole", values=(1, 2), painted=1), Region(name="core", values=(2,), painted=2)),
)


def test_cases_get_the_list_of_their_pattern_and_others_are_annotated_as_a_whole(tmp_path):
    found = find_dataset(write_partial(tmp_path / "raw", lists={"case_00": ["bright"], "case_0[13]": ["dark"]}))
    assert [case.annotated for case in found.cases] == [("bright",), ("dark",), None, ("dark",), None, None]
    assert not found.findings
    assert found.notes == ("annotated in part: 3 cases of 6, 2 lists of structures",)


def test_a_list_of_all_structures_is_none(tmp_path):
    found = find_dataset(describe(write_raw(tmp_path / "raw"), annotated={"*": ["dark", "bright"]}))
    assert {case.annotated for case in found.cases} == {None}
    assert found.notes == ()


@pytest.mark.parametrize(
    ("annotated", "sentence"),
    [
        (
            ["bright"],
            "must be lists of structures by case or pattern; write for example {'siteA_*': ['liver', 'spleen']}",
        ),
        ({"case_*": "bright"}, "must be lists of structures by case or pattern"),
        ({"case_*": []}, "the list of 'case_*' is empty; name what was drawn there, or leave these cases out"),
        ({"case_*": ["grey"]}, "'case_*' lists 'grey', which is none of 'labels'; choose from bright, dark"),
    ],
)
def test_a_wrong_field_is_one_sentence(tmp_path, annotated, sentence):
    raw = describe(write_raw(tmp_path / "raw"), annotated=annotated)
    with pytest.raises(UserError) as error:
        find_dataset(raw)
    assert str(error.value).startswith(f"{raw / 'dataset.json'}: field 'annotated'")
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_lists_without_labels_are_refused(tmp_path):
    raw = write_raw(tmp_path / "raw")
    (raw / "imagesTr").rename(raw / "images")
    (raw / "labelsTr").rename(raw / "labels")
    (raw / "dataset.json").write_text(json.dumps({"annotated": {"*": ["liver"]}}))
    with pytest.raises(UserError, match="names structures, but nothing names the labels; add 'labels'$"):
        find_dataset(raw)


def test_lists_that_fit_nothing_or_disagree_and_structures_drawn_nowhere_are_found(tmp_path):
    lists = {"case_0[0-5]": ["bright"], "siteB_*": ["dark"], "case_05": ["dark"]}
    found = find_dataset(write_partial(tmp_path / "raw", lists=lists))
    assert [finding.kind for finding in found.findings] == ["annotated-list"] * 2
    assert problems(found) == [
        "siteB_*: dataset.json: field 'annotated': fits no case; correct or remove the list",
        "case_05: dataset.json: field 'annotated': 'case_0[0-5]' lists bright for it, and 'case_05' lists dark; "
        "correct or remove the list",
    ]
    nowhere = find_dataset(describe(tmp_path / "raw", annotated={"*": ["bright"]}))
    assert problems(nowhere) == [
        "dataset.json: dark is annotated in no case; add it to a list of 'annotated', or take it out of 'labels'"
    ]


def test_a_value_that_nobody_drew_there_keeps_training_from_starting(tmp_path):
    raw = describe(write_raw(tmp_path / "raw"), annotated={"case_03": ["bright"]})
    with pytest.raises(DataProblems) as error:
        scan_dataset(find_dataset(raw))
    (finding,) = error.value.findings
    assert str(finding) == (
        "case_03: labelsTr/case_03.nii.gz: holds the label value 7 (dark), which by 'annotated' nobody drew in this "
        "case; add dark to the case's list in dataset.json, or correct the mask"
    )


def test_manifests_keep_the_lists_and_those_of_before_are_as_they_were(tmp_path):
    plan_and_preprocess(write_partial(tmp_path / "raw"), tmp_path / "work", device="cpu", plan_only=True)
    kept = DatasetManifest.load(tmp_path / "work" / "manifest.json")
    assert [case.annotated for case in kept.cases] == [("bright",), ("dark",)] * 3
    plan_and_preprocess(write_raw(tmp_path / "whole"), tmp_path / "other", device="cpu", plan_only=True)
    assert "annotated" not in (tmp_path / "other" / "manifest.json").read_text()


def test_other_lists_are_scanned_anew(tmp_path):
    raw = write_partial(tmp_path / "raw")
    plan_and_preprocess(raw, tmp_path / "work", device="cpu", plan_only=True)
    assert kept_scan(find_dataset(raw), tmp_path / "work") is not None
    describe(raw, annotated={"case_0[02]": ["bright"], "case_0[135]": ["dark"]})
    assert kept_scan(find_dataset(raw), tmp_path / "work") is None


def test_outputs_and_values_by_hand():
    assert annotated_outputs(PLAIN, None) is None
    assert annotated_outputs(PLAIN, ("b",)) == (True, False, True)
    assert annotated_outputs(NESTED, ("core",)) == (False, True)
    core = Case(id="c", images=(), annotated=("core",))
    assert values_not_annotated(core, {0, 1, 2}, NESTED) == [1]  # the rim is of the whole alone
    whole = Case(id="c", images=(), annotated=("whole",))
    assert values_not_annotated(whole, {0, 1, 2}, NESTED) == []
    assert values_not_annotated(Case(id="c", images=()), {0, 3, 7}, PLAIN) == []
