"""What an evaluation can be asked for: threads, lesions, no surfaces, a comparison of two folders."""

import numpy as np
import pytest

import segfw
from builders.masks import LABELS, SHAPE, box, folders, geometry, rows_of
from segfw.base.parallel import CasesFailed
from segfw.base.records import UserError
from segfw.cli import main
from segfw.dataset.labels import LABELS_FILE
from segfw.dataset.layouts import find_dataset
from segfw.evaluation.metrics import Scores
from segfw.evaluation.score import measures_of
from segfw.evaluation.text import comparison_table, scores_table
from segfw.images.formats import write_labels
from segfw.verbs.evaluate import evaluate


def test_threads_score_the_same_in_the_same_order(tmp_path):
    rng = np.random.default_rng(0)
    masks = [{f"case_{n}": rng.integers(0, 3, SHAPE).astype(np.uint8) for n in range(7)} for _ in range(2)]
    predicted, wanted = folders(tmp_path, *masks)
    one, three = (evaluate(predicted, wanted, labels=LABELS, workers=workers) for workers in (1, 3))
    assert one == three
    assert list(three.cases) == sorted(masks[0])
    assert three.foreground_interval["dice"][0] < three.foreground_mean.dice < three.foreground_interval["dice"][1]


def test_surfaces_can_be_left_out_and_lesions_asked_for(tmp_path):
    lesions = box((0, 1), (0, 2)) + box((2, 3), (4, 6))
    predicted, wanted = folders(tmp_path, {"a": lesions}, {"a": box((0, 1), (0, 2))})
    output = tmp_path / "scores.json"
    wishes = {"surface": False, "lesions": ["liver"], "lesion_strata_ml": [0.1]}
    scores = evaluate(predicted, wanted, labels=LABELS, output=output, **wishes)
    assert (scores.foreground_mean.hd95_mm, scores.labels["liver"].lesion_tpr) == (None, 0.5)
    rows = rows_of(tmp_path / "scores_lesions.csv")
    # 18 voxels of 2.5 mm3 each are 0.045 ml.
    assert [list(row.values())[1:] for row in rows] == [
        ["liver", "0.0", "0.1", "2", "1", "1", "1"],
        ["liver", "0.1", "", "0", "0", "0", "0"],
    ]
    assert "lesions of liver, 0 to 0.1 ml: 1 of 2 found, 1 of 1 predicted are real, F1 0.667" in scores_table(scores)
    assert "0.1 ml and more" not in scores_table(scores)
    with pytest.raises(UserError, match="lesions kidney: is no label; choose from liver, tumour"):
        evaluate(predicted, wanted, labels=LABELS, lesions=["kidney"])


@pytest.fixture
def two_folders(tmp_path):
    """Cases a to c in the first folder and b to d in the second, which finds half of what the first does."""
    masks = {case: box((0, 2)) for case in "abcd"}
    predicted, wanted = folders(tmp_path, masks, {case: box((0, 2)) for case in "abc"})
    second = tmp_path / "second"
    for case in "bcd":
        second.mkdir(exist_ok=True)
        write_labels(second / f"{case}.nii.gz", box((0, 1)), geometry())
    return predicted, second, wanted


def test_two_predictions_are_compared_in_the_cases_that_both_have(two_folders, tmp_path):
    predicted, second, wanted = two_folders
    output = tmp_path / "scores.json"
    report = tmp_path / "report.html"
    scores = evaluate(predicted, wanted, compare=second, labels=LABELS, output=output, report=report)
    found = scores.comparison
    assert (found.cases, found.only_first, found.only_second) == (("b", "c"), ("a",), ("d",))
    assert list(scores.cases) == ["a", "b", "c"]
    dice = found.labels["liver"]["dice"]
    assert (dice.first, dice.second, dice.difference) == (1, 2 / 3, 1 - 2 / 3)
    assert (dice.wins, dice.losses, dice.ties, dice.cases) == (2, 0, 0, 2)
    assert Scores.load(output) == scores
    rows = {(row["label"], row["metric"]): row for row in rows_of(tmp_path / "scores_comparison.csv")}
    assert rows["liver", "hd95_mm"]["difference"] == "-5.0"
    assert rows["mean of each case", "dice"]["wins"] == "2"
    page = report.read_text()
    for text in (
        "Comparison, case by case",
        "Only in the first, not compared: a.",
        "Only in the second, not compared: d.",
    ):
        assert text in page
    table = comparison_table(found)
    assert "only in the first, not compared: a" in table
    assert "only in the second, not compared: d" in table


def test_references_that_one_or_both_folders_lack_are_named(two_folders):
    predicted, second, wanted = two_folders
    write_labels(wanted / "e.nii.gz", box((0, 2)), geometry())
    scores = evaluate(predicted, wanted, compare=second, labels=LABELS)
    assert scores.notes == (
        "without a prediction, and so in no mean: 2 of 5 references (d, e)",
        f"{second}: without a prediction, and so in no mean: 2 of 5 references (a, e)",
    )
    assert scores.notes[0] in scores_table(scores)


def test_without_a_comparison_a_missing_prediction_stays_an_error(two_folders):
    predicted, _, wanted = two_folders
    with pytest.raises(UserError, match=r"has no prediction for 1 of 4 references \(d\)"):
        evaluate(predicted, wanted, labels=LABELS)


def test_a_case_that_fails_in_the_second_folder_only_is_named(two_folders, tmp_path):
    predicted, second, wanted = two_folders
    (second / "b.nii.gz").write_bytes(b"no mask")
    output = tmp_path / "out" / "scores.json"
    with pytest.raises(CasesFailed, match=r"\n  b: "):
        evaluate(predicted, wanted, compare=second, labels=LABELS, output=output)
    scores = Scores.load(output)
    assert list(scores.cases) == ["a", "b", "c"]
    assert scores.comparison.cases == ("c",)
    assert scores.notes[-1] == f"{second}: 1 case could not be scored (b)"


def test_label_maps_and_predictions_go_by_the_ids_of_the_cases(tmp_path):
    raw = tmp_path / "raw"
    out = tmp_path / "out"
    for folder in (raw / "images", raw / "labels", out):
        folder.mkdir(parents=True)
    for case in ("21", "22"):
        write_labels(raw / "images" / f"{case}_scan.nii.gz", box((0, 3)), geometry())
        write_labels(raw / "labels" / f"{case}_manual.nii.gz", box((0, 2), value=5), geometry())
        write_labels(out / f"{case}.nii.gz", box((0, 2)), geometry())
    (raw / "dataset.json").write_text('{"labels": {"background": 0, "liver": 1, "tumour": 2}}')
    (raw / "label_maps.json").write_text('{"21": {"5": "liver"}, "22": {"5": "liver"}}')
    assert {case.id for case in find_dataset(raw).cases} == {"21", "22"}
    scores = evaluate(out, raw / "labels")
    assert list(scores.cases) == ["21", "22"]
    assert scores.labels["liver"].dice == 1
    for case in ("21", "22"):  # named like the masks
        (out / f"{case}.nii.gz").rename(out / f"{case}_manual.nii.gz")
    assert evaluate(out, raw / "labels").labels["liver"].dice == 1


def test_the_function_takes_what_the_command_takes(two_folders, tmp_path):
    predicted, second, wanted = map(str, two_folders)
    scores = segfw.evaluate(
        predicted,
        wanted,
        compare=second,
        output=str(tmp_path / "scores.json"),
        report=str(tmp_path / "report.html"),
        images=wanted,  # as good a picture as any
        tolerance_mm=5,
        surface=True,
        lesions=(),
        lesion_strata_ml=(0.2, 1),
        lesion_iou=0.5,
        workers=1,
    )
    assert scores == Scores.load(tmp_path / "scores.json")
    assert scores.measures == measures_of(tolerance_mm=5, lesions=(), strata_ml=(0.2, 1.0), lesion_iou=0.5)
    assert "Image of" not in (tmp_path / "report.html").read_text()  # none was left out
    with pytest.raises(UserError, match="^tolerance_mm is -1; give 0 or more"):
        segfw.evaluate(predicted, wanted, tolerance_mm=-1)


def test_the_verb_passes_its_options_on(two_folders, tmp_path, capsys):
    predicted, second, wanted = two_folders
    options = ["--compare", str(second), "--tolerance-mm", "5", "--lesions", "--lesion-strata-ml", "0.2", "1"]
    output = tmp_path / "scores.json"
    command = ["evaluate", str(predicted), str(wanted), "--output", str(output), "--workers", "2", *options]
    assert main(command) == 0
    scores = Scores.load(output)
    assert scores.measures == measures_of(tolerance_mm=5, lesions=(), strata_ml=(0.2, 1.0))
    assert scores.comparison.labels["label_1"]["nsd"].second == 1  # 5 mm are forgiven
    text = capsys.readouterr().out
    assert not [word for word in ("missed:", "invented:", "both empty:") if word in text]  # there are none
    assert "NSD is at a tolerance of 5 mm" in text
    assert main([*command, "--lesion-iou", "3"]) == 2
    assert "--lesion-iou is 3" in capsys.readouterr().err
    assert main(["evaluate", str(second), str(second), "--no-surface", "--output", str(output)]) == 0
    assert Scores.load(output).foreground_mean.nsd is None


def test_labels_get_their_names_by_a_table(tmp_path, capsys):
    predicted, wanted = folders(tmp_path, {"a": box((0, 2))}, {"a": box((0, 2)) + 2 * box((3, 4))})
    table = tmp_path / "names.csv"
    table.write_text("value,name\n1,Leber\n2,Tumor\n")
    scores = evaluate(predicted, wanted, surface=False, label_names=table)
    assert {name: found.dice for name, found in scores.labels.items()} == {"Leber": 1.0, "Tumor": 0.0}

    # Names beside the masks are told where they are others; a name of two values is no name.
    LABELS.save(predicted / LABELS_FILE)
    scores = evaluate(predicted, wanted, surface=False, label_names=table)
    assert list(scores.labels) == ["Leber", "Tumor"]
    assert f"1 is 'Leber' in {table} and 'liver' in {predicted}/labels.json; the first is taken" in scores.notes
    table.write_text("value,name\n1,tumour\n2,liver\n")
    asked = ["evaluate", str(predicted), str(wanted), "--label-names", str(table)]
    assert main(asked) == 2
    assert f"{table}: calls 2 'liver', but {predicted}/labels.json calls 1 so" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"label_names .*names\.csv: names the labels, and so does labels; give one"):
        evaluate(predicted, wanted, labels=LABELS, label_names=table)
    assert main(["evaluate", str(predicted), str(wanted), "--label-names", "nowhere.csv"]) == 2
    assert capsys.readouterr().err.startswith("segfw: nowhere.csv: no such file; give a table of label names")
