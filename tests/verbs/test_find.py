"""``segfw find``, and what names of structures do in ``predict`` and ``evaluate``."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest

import segfw
from builders.data import masks, write_nifti
from builders.models import make_model
from segfw.base.records import UserError
from segfw.cli import main
from segfw.dataset.labels import LabelSet, Region
from segfw.dataset.layouts import find_dataset
from segfw.dataset.look_up import NotFound
from segfw.dataset.totalsegmentator import classes_of, in_their_numbers, values_of_other
from segfw.evaluation.mask_facts import read_mask_facts
from segfw.planning.plan import PLAN_FILE, Plan
from segfw.standing.recognise import standing_of
from segfw.verbs.evaluate import evaluate
from segfw.verbs.find import find
from segfw.verbs.measure import measure
from segfw.verbs.plan_and_preprocess import plan_and_preprocess
from segfw.verbs.predict import predict

KIDNEYS = LabelSet(names=("background", "kidney_right", "kidney_left"), values=(0, 3, 7))


@pytest.fixture
def kidneys(tmp_path) -> Path:
    """A model that finds two kidneys, as far as their names go."""
    folder = make_model(tmp_path / "work")
    plan = Plan.load(folder / PLAN_FILE)
    plan.model_copy(update={"labels": KIDNEYS}).save(folder / PLAN_FILE)
    return folder


def described(folder: Path, labels: dict) -> Path:
    """A data set of no cases but one, with these labels."""
    (folder / "dataset.json").write_text(json.dumps({"channel_names": {"0": "CT"}, "labels": labels}))
    return folder


def test_a_name_in_chinese_gives_the_label(kidneys, capsys):
    assert main(["find", str(kidneys), "左肾"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["value", "name", "English", "Chinese", "code"]
    assert lines[1].split() == ["7", "kidney_left", "left", "kidney", "左肾", "SCT", "64033007", "Kidney,", "left"]
    assert len(lines) == 2
    assert main(["find", str(kidneys), "left", "kidney"]) == 0  # without quotes
    assert capsys.readouterr().out.splitlines() == lines
    found = segfw.find(kidneys, "肾")
    assert (found.names, found.values) == (("kidney_right", "kidney_left"), (3, 7))
    assert found.note == "kidney (肾) is 2 labels here: kidney_right, kidney_left"


def test_a_refusal_has_exit_code_2_and_the_nearest_names(kidneys, capsys):
    assert main(["find", str(kidneys), "肾动脉"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert f"segfw: {kidneys}: '肾动脉' is renal artery (肾动脉), which has no label here; did you mean" in said.err
    assert "kidney_right (右肾)" in said.err
    with pytest.raises(NotFound):
        find(kidneys, "not liver")


def test_all_labels_as_json_and_as_totalsegmentator_calls_them(kidneys, capsys):
    assert main(["find", str(kidneys), "--json", "--names", "totalsegmentator"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["kind"], told["names"], told["values"]) == ("structures", ["kidney_right", "kidney_left"], [3, 7])
    assert told["structures"][1]["chinese"] == "左肾"
    assert told["other_values"] == {"kidney_right": 2, "kidney_left": 3}
    assert main(["find", str(kidneys), "--names", "totalsegmentator-v1"]) == 0
    assert "2 kidney_right" in capsys.readouterr().out


def test_names_and_codes_of_a_data_set_come_from_its_files(make_raw, tmp_path, capsys):
    raw = make_raw(cases=2)
    labels = list(find_dataset(raw).labels.structures)
    (raw / "names.json").write_text(json.dumps({labels[0]: ["原发灶", "primary tumour"]}, ensure_ascii=False), "utf-8")
    assert find(raw, "Primary Tumour").names == (labels[0],)
    codes = tmp_path / "codes.csv"
    find(raw, codes=codes)
    assert codes.read_text("utf-8").splitlines()[0] == "name,scheme,code,meaning,side"
    (raw / "codes.csv").write_text(f"name,code,meaning\n{labels[1]},4711,Something\n", "utf-8")
    assert [(each.scheme, each.code) for each in find(raw).structures] == [("", ""), ("SCT", "4711")]
    find(raw, codes=codes)  # its own file is written anew, and can be read back
    (raw / "codes.csv").write_bytes(codes.read_bytes())
    assert [each.code for each in find(raw).structures] == ["", "4711"]
    stranger = tmp_path / "table.csv"
    stranger.write_text("a,b\n")
    with pytest.raises(UserError, match="is there already and not written by this command"):
        find(raw, codes=stranger)
    with pytest.raises(UserError, match="lies inside .* which is only read"):
        find(raw, codes=raw / "new.csv")


@pytest.mark.parametrize(
    "file, content, said",
    [
        ("names.json", '{"LABEL": ["x"], "liver": ["y"]}', "'liver' is no label; the labels are"),
        ("names.json", '{"LABEL": ["x"]', "is not readable JSON"),
        ("names.json", '{"LABEL": [1]}', "give a list of names"),
        ("names.json", '{"LABEL": [" "]}', "give a list of names"),
        ("names.json", '{"LABEL": "OTHER"}', "are both called"),
        ("codes.csv", "name,value\nLABEL,2\n", "has no column 'code'"),
        ("codes.csv", "name,scheme,code,meaning,side\nliver,SCT,1,,\n", "'liver' is no label"),
        ("codes.csv", "name,code\nLABEL,1\nliver,1\n", "'liver' is no label"),
        ("codes.csv", "name,code,side\nLABEL,1,up\n", "line 2: the side is 'up'"),
        ("codes.csv", "name,code\nLABEL,1\nx,\x00\n", "is not a table"),
        ("codes.csv", "name,code\nLABEL,1\nLABEL,2\n", "line 3: 'LABEL' has a code already"),
    ],
)
def test_wrong_names_and_codes_are_told_with_their_file(file, content, said, make_raw):
    raw = make_raw(cases=1)
    first, second = list(find_dataset(raw).labels.structures)[:2]
    (raw / file).write_text(content.replace("LABEL", first).replace("OTHER", second), "utf-8")
    with pytest.raises(UserError) as refused:
        find_dataset(raw)
    assert str(refused.value).startswith(str(raw / file))
    assert said in str(refused.value).replace(first, "LABEL")


@pytest.mark.parametrize(
    "file, content, said",
    [
        ("names.json", '{"1": "liver", "2": "spleen"}', "names none of the labels"),
        ("names.json", '{"names": ["background", "liver"]}', "names none of the labels"),
        ("names.json", '["case_1", "case_2"]', "is no JSON object of names by label"),
        ("names.json", '{"a": 1}\n{"a": 2}\n', "is not readable JSON"),
        ("codes.csv", "patient,code\n1,2\n", "names none of the labels"),
        ("codes.csv", "code,name\nC22,Liver cell carcinoma\n", "names none of the labels"),
        ("codes.csv", "", "names none of the labels"),
        ("codes.csv", "patient\x00,code\n", "is not a table"),
    ],
)
def test_files_of_these_names_that_tell_of_no_label_are_left_alone_with_a_note(file, content, said, make_raw):
    raw = make_raw(cases=1)
    plain = find_dataset(raw)
    (raw / file).write_text(content, "utf-8")
    found = find_dataset(raw)
    assert found.labels == plain.labels
    new = [note for note in found.notes if note not in plain.notes]
    assert len(new) == 1
    assert new[0].startswith(f"{file} {said}")
    assert "left alone" in new[0]
    assert find(raw).names == tuple(plain.labels.structures)


def test_a_table_of_codes_without_a_line_says_nothing_and_is_no_error(make_raw):
    raw = make_raw(cases=1)
    plain = find_dataset(raw)
    (raw / "codes.csv").write_text("name,scheme,code,meaning,side\n", "utf-8")
    found = find_dataset(raw)
    assert (found.labels, found.notes) == (plain.labels, plain.notes)


def test_what_is_not_about_labels_is_told_where_labels_come_from_the_masks(make_raw, tmp_path, capsys):
    raw = make_raw(cases=5)
    (raw / "dataset.json").unlink()
    (raw / "imagesTr").rename(raw / "images")
    (raw / "labelsTr").rename(raw / "labels")
    (raw / "names.json").write_text('{"case_1": ["Meier"]}', "utf-8")
    (raw / "codes.csv").write_text("patient,code\n1,2\n", "utf-8")
    plan_and_preprocess(raw, tmp_path / "work", plan_only=True, device="cpu")
    said = capsys.readouterr().out
    assert "names.json names none of the labels, so that it was left alone" in said
    assert "codes.csv names none of the labels" in said


def test_what_has_no_labels_is_refused(tmp_path):
    for path, said in ((tmp_path / "none", "no such file"), (tmp_path, "is no model, no folder of masks")):
        with pytest.raises(UserError, match=said):
            find(path)


def test_only_some_structures_are_the_mask_without_the_others(kidneys, images, tmp_path, capsys):
    whole = tmp_path / "whole"
    some = tmp_path / "some"
    predict(kidneys, images, whole, device="cpu")
    predict(kidneys, images, some, device="cpu", only=["左肾"])
    for name, mask in masks(whole).items():
        assert {0, 3, 7} == set(np.unique(mask))  # else this proves nothing
        np.testing.assert_array_equal(masks(some)[name], np.where(mask == 7, mask, 0))
    predict(kidneys, images, some, device="cpu", only=["kidney_left"])  # the same by another name
    assert "0 cases predicted, 2 were there" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"other options \(only\)"):
        predict(kidneys, images, some, device="cpu")
    with pytest.raises(UserError, match="did you mean kidney_"):
        predict(kidneys, images, tmp_path / "none", device="cpu", only=["liver"])
    assert not (tmp_path / "none").exists()
    assert find(some, "right kidney").values == (3,)


def test_masks_of_some_structures_are_scored_by_these(kidneys, images, tmp_path):
    whole = tmp_path / "whole"
    some = tmp_path / "some"
    predict(kidneys, images, whole, device="cpu")
    predict(kidneys, images, some, device="cpu", only=["左肾"])
    scores = evaluate(some, whole)
    assert list(scores.labels) == ["kidney_left"]
    assert scores.foreground_mean.dice == 1
    assert any("kidney_left alone" in note for note in scores.notes)
    both = evaluate(whole, whole)
    assert list(both.labels) == ["kidney_right", "kidney_left"]
    right = evaluate(whole, whole, only=["right kidney"], output=tmp_path / "s.json", report=tmp_path / "r.html")
    assert list(right.labels) == ["kidney_right"]
    assert right.labels["kidney_right"] == both.labels["kidney_right"]
    with pytest.raises(UserError, match="did you mean"):
        evaluate(whole, whole, only=["spleen"])
    with pytest.raises(UserError, match="lesions kidney_left: is none of the structures that are scored"):
        evaluate(whole, whole, only=["right kidney"], lesions=["kidney_left"])


def test_a_structure_that_masks_were_not_predicted_for_is_not_scored_as_missed(kidneys, images, tmp_path):
    whole = tmp_path / "whole"
    left = tmp_path / "left"
    right = tmp_path / "right"
    predict(kidneys, images, whole, device="cpu")
    predict(kidneys, images, left, device="cpu", only=["左肾"])
    predict(kidneys, images, right, device="cpu", only=["右肾"])
    said = "left: the masks were predicted for kidney_left alone, and say nothing of kidney_right; leave that out"
    for only in (["right kidney"], ["kidney"]):
        with pytest.raises(UserError, match=said):
            evaluate(left, whole, only=only)
        with pytest.raises(UserError, match=said):
            evaluate(whole, whole, only=only, compare=left)
    assert evaluate(left, whole, only=["left kidney"]).labels["kidney_left"].dice == 1
    compared = evaluate(whole, whole, compare=left)
    assert list(compared.labels) == ["kidney_left"]
    with pytest.raises(UserError, match="different structures: .*right for kidney_right and .*left for kidney_left"):
        evaluate(right, whole, compare=left)


def test_what_masks_were_predicted_for_is_known_by_value_where_it_is_called_otherwise(kidneys, images, tmp_path):
    whole = tmp_path / "whole"
    left = tmp_path / "left"
    predict(kidneys, images, whole, device="cpu")
    predict(kidneys, images, left, device="cpu", only=["左肾"])
    labels = LabelSet(names=("background", "organ A", "organ B"), values=(0, 3, 7))
    assert list(evaluate(left, whole, labels=labels).labels) == ["organ B"]
    assert evaluate(left, whole, labels=labels, only=["organ B"]).labels["organ B"].dice == 1
    with pytest.raises(UserError, match="predicted for organ B alone, and say nothing of organ A"):
        evaluate(left, whole, labels=labels, only=["organ A"])


def test_masks_of_some_structures_are_measured_by_these(kidneys, images, tmp_path):
    predict(kidneys, images, tmp_path / "some", device="cpu", only=["左肾"])
    found = measure(tmp_path / "some", tmp_path / "measures.csv")
    assert {each.structure for each in found.summary} == {"kidney_left"}  # of the right one nothing is known
    (tmp_path / "some" / "a.nii.gz").unlink()
    standing = standing_of(tmp_path / "some")
    assert standing.only == ("kidney_left",)
    assert "made for kidney_left alone; of other structures the masks do not tell" in standing.text()
    words = shlex.split(standing.next)
    assert words[:2] == ["segfw", "predict"]
    assert main([*words[1:], "--device", "cpu"]) == 0  # the line can be pasted
    assert standing_of(tmp_path / "some").left == ()


def test_numbers_of_totalsegmentator_there_and_back(kidneys, images, tmp_path):
    own = tmp_path / "own"
    theirs = tmp_path / "theirs"
    predict(kidneys, images, own, device="cpu")
    predict(kidneys, images, theirs, device="cpu", names="totalsegmentator")
    for name, mask in masks(own).items():
        np.testing.assert_array_equal(masks(theirs)[name], np.select([mask == 3, mask == 7], [2, 3], 0))
    assert LabelSet.load(theirs / "labels.json").names == ("background", "kidney_right", "kidney_left")
    scores = evaluate(theirs, own, names="totalsegmentator", labels=KIDNEYS)
    assert scores.foreground_mean.dice == 1
    with pytest.raises(UserError, match=r"other options \(names\)"):
        predict(kidneys, images, own, device="cpu", names="totalsegmentator")
    predict(kidneys, images, tmp_path / "one", device="cpu", names="totalsegmentator", only=["左肾"])
    assert {0, 3} == set(np.unique(masks(tmp_path / "one")["a.nii.gz"]))
    assert read_mask_facts(tmp_path / "one").only == ("kidney_left",)


def test_what_totalsegmentator_has_no_number_for_is_refused(model, images, tmp_path):
    with pytest.raises(UserError, match="bright and dark are no classes of totalsegmentator"):
        predict(model, images, tmp_path / "masks", device="cpu", names="totalsegmentator")
    regions = (Region(name="liver", values=(1, 2), painted=1),)
    overlapping = LabelSet(names=("background", "a", "b"), values=(0, 1, 2), regions=regions)
    with pytest.raises(UserError, match="finds regions that overlap"):
        in_their_numbers(overlapping, ("liver",), "totalsegmentator", "m")


def test_masks_of_totalsegmentator_are_read_by_what_they_mean(tmp_path):
    labels = LabelSet(names=("background", "左肺", "Leber"), values=(0, 5, 9))
    meaning = dict(values_of_other(labels, "totalsegmentator", "m"))
    classes = classes_of("totalsegmentator")
    lobes = {classes["lung_upper_lobe_left"], classes["lung_lower_lobe_left"]}
    assert {value for value, own in meaning.items() if own == 5} == lobes
    assert meaning[classes["liver"]] == 0  # no name that is known
    assert set(meaning) == {0, *classes.values()}


@pytest.mark.parametrize("names", [("left kidney", "kidneys", "lung"), ("kidneys", "lung", "left kidney")])
def test_a_number_of_totalsegmentator_is_of_the_label_that_holds_the_least(names):
    labels = LabelSet(names=("background", *names), values=(0, 1, 2, 3))
    meaning = dict(values_of_other(labels, "totalsegmentator", "m"))
    classes = classes_of("totalsegmentator")
    value_of = dict(zip(labels.names, labels.values))
    assert meaning[classes["kidney_left"]] == value_of["left kidney"]
    assert meaning[classes["kidney_right"]] == value_of["kidneys"]


@pytest.mark.parametrize("names", [("liver", "hepar", "spleen"), ("spleen", "hepar", "liver")])
def test_two_labels_of_one_class_of_totalsegmentator_are_refused(names):
    labels = LabelSet(names=("background", *names), values=(0, 1, 2, 3))
    for wanted in (names, ("hepar", "spleen"), ("liver",)):
        with pytest.raises(UserError, match="m: '.*' and '.*' both are liver of totalsegmentator, which one number"):
            in_their_numbers(labels, wanted, "totalsegmentator", "m")
    classes = classes_of("totalsegmentator")
    written = in_their_numbers(labels, ("spleen",), "totalsegmentator", "m")  # they are in none of these masks
    value_of = dict(zip(written.names, written.values))
    assert value_of["spleen"] == classes["spleen"]
    assert not {value_of["liver"], value_of["hepar"]} & set(classes.values())
    with pytest.raises(UserError, match="'hepar'.* both are liver of totalsegmentator"):
        values_of_other(labels, "totalsegmentator", "m")


def test_labels_that_share_some_classes_of_totalsegmentator_are_refused():
    regions = (
        Region(name="left lung", values=(1, 2), painted=1),
        Region(name="lower lobes of lung", values=(2, 3), painted=2),
    )
    labels = LabelSet(names=("background", "a", "b", "c"), values=(0, 1, 2, 3), regions=regions)
    with pytest.raises(UserError, match="both are lung_lower_lobe_left of totalsegmentator"):
        values_of_other(labels, "totalsegmentator", "m")


def test_a_table_of_masks_by_totalsegmentator(tmp_path):
    wanted = np.zeros((4, 5, 6), np.uint8)
    wanted[1:3, 1:4, 1:4] = 1
    wanted[3, 4, 5] = 2
    described(tmp_path, {"background": 0, "Liver": 1, "spleen": 2})
    write_nifti(tmp_path / "labelsTr" / "a.nii.gz", wanted)
    classes = classes_of("totalsegmentator")
    theirs = np.select([wanted == 1, wanted == 2], [classes["liver"], classes["spleen"]], 0).astype(np.uint8)
    theirs[0, 0, 0] = classes["heart"]
    write_nifti(tmp_path / "theirs" / "a.nii.gz", theirs)
    scores = evaluate(tmp_path / "theirs", tmp_path / "labelsTr", names="totalsegmentator")
    assert {name: label.dice for name, label in scores.labels.items()} == {"Liver": 1, "spleen": 1}


def test_names_of_a_data_set_go_into_the_plan(make_raw, tmp_path):
    raw = make_raw(cases=5)
    label = next(iter(find_dataset(raw).labels.structures))
    (raw / "names.json").write_text(json.dumps({label: ["原发灶"]}), "utf-8")
    (raw / "codes.csv").write_text(f"name,scheme,code\n{label},99LOCAL,17\n", "utf-8")
    plan_and_preprocess(raw, tmp_path / "work", plan_only=True, device="cpu")
    assert find(tmp_path / "work", "原发灶").names == (label,)
    assert find(tmp_path / "work", label).structures[0].scheme == "99LOCAL"
    (raw / "dataset.json").write_text(
        json.dumps({"channel_names": {"0": "MR"}, "labels": {"background": 0, "x": 3, "y": 7}})
    )
    with pytest.raises(UserError, match=r"codes.csv: '.*' is no label; the labels are x and y"):
        find_dataset(raw)
