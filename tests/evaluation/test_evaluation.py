"""Scoring folders of masks: pairing, grids, labels, and what is written."""

import json
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from builders.masks import LABELS, SHAPE, box, folders, geometry, rows_of
from segfw.base.parallel import CasesFailed, Failures
from segfw.base.records import UserError
from segfw.dataset.labels import LabelSet
from segfw.evaluation import result_files
from segfw.evaluation.confusion import confusion
from segfw.evaluation.metrics import METRICS, Scores, label_score
from segfw.evaluation.score import score_case
from segfw.evaluation.text import scores_table
from segfw.images.formats import write_labels
from segfw.verbs.evaluate import evaluate


def test_a_prediction_in_another_orientation_and_format_scores_the_same(tmp_path):
    reference, prediction = np.random.default_rng(0).integers(0, 3, (2, *SHAPE)).astype(np.uint8)
    predicted, wanted = folders(tmp_path, {"a": reference}, {"a": prediction})
    expected = score_case(wanted / "a.nii.gz", predicted / "a.nii.gz", LABELS)
    turned = nibabel.load(predicted / "a.nii.gz").as_reoriented([[1, -1], [2, 1], [0, -1]])
    assert turned.shape != nibabel.load(wanted / "a.nii.gz").shape
    nibabel.save(turned, tmp_path / "turned.nii")
    write_labels(tmp_path / "other.nrrd", prediction, geometry())
    assert score_case(wanted / "a.nii.gz", tmp_path / "turned.nii", LABELS) == expected
    assert score_case(wanted / "a.nii.gz", tmp_path / "other.nrrd", LABELS) == expected
    for name, index in (("liver", 1), ("tumour", 2)):
        counted = label_score(confusion(reference, prediction, 3), index)
        voxels = {metric for metric, value in counted if value is not None} - {"lesions"}
        assert voxels >= {"dice", "tp", "volume_difference"}
        assert {metric: getattr(expected[name], metric) for metric in voxels} == {
            metric: getattr(counted, metric) for metric in voxels
        }


def test_a_reference_picture_is_compared_where_the_prediction_lies(tmp_path):
    mask = np.zeros((1, 4, 5), np.uint8)
    mask[0, 0, 1:4] = 255
    Image.fromarray(mask[0]).save(tmp_path / "reference.gif")
    write_labels(tmp_path / "half.nii.gz", mask * (np.arange(5) < 3), geometry((1, 4, 5)))
    labels = LabelSet(names=("background", "vessel"), values=(0, 255))
    score = score_case(tmp_path / "reference.gif", tmp_path / "half.nii.gz", labels)["vessel"]
    assert (score.tp, score.fp, score.fn) == (2, 0, 1)
    write_labels(tmp_path / "other.nii.gz", mask[:, 1:], geometry((1, 3, 5)))
    assert "has 1 x 3 x 5 voxels and its reference 1 x 4 x 5" in error_of(
        tmp_path / "reference.gif", tmp_path / "other.nii.gz"
    )


def test_file_values_are_mapped_to_labels(tmp_path):
    predicted, wanted = folders(tmp_path, {"a": box((0, 2), value=200)}, {"a": box((0, 1), value=200)})
    labels = LabelSet(names=("background", "bone", "air"), values=(0, 200, 7))
    result = score_case(wanted / "a.nii.gz", predicted / "a.nii.gz", labels)
    assert (result["bone"].tp, result["bone"].fn, result["air"].outcome) == (54, 54, "both empty")


def error_of(reference: Path, prediction: Path) -> str:
    with pytest.raises(UserError) as raised:
        score_case(reference, prediction, LABELS)
    return str(raised.value)


def test_another_shape_is_an_error_that_says_which(tmp_path):
    write_labels(tmp_path / "reference.nii.gz", box(), geometry())
    write_labels(tmp_path / "prediction.nii.gz", box(shape=(4, 9, 6)), geometry((4, 9, 6)))
    message = error_of(tmp_path / "reference.nii.gz", tmp_path / "prediction.nii.gz")
    assert message.startswith(f"{tmp_path / 'prediction.nii.gz'}: has 4 x 9 x 6 voxels and its reference 4 x 6 x 9")
    assert "resample it to the grid of" in message


def test_half_a_voxel_of_displacement_is_an_error_and_less_is_not(tmp_path):
    write_labels(tmp_path / "reference.nii.gz", box((0, 1)), geometry())
    for name, shift in (("far", 0.3), ("near", 0.2)):  # half of the smallest voxel size is 0.25 mm
        write_labels(tmp_path / f"{name}.nii.gz", box((0, 1)), geometry(shift_mm=(0, shift, 0)))
    message = error_of(tmp_path / "reference.nii.gz", tmp_path / "far.nii.gz")
    assert "far.nii.gz: lies up to 0.3 mm away from its reference" in message
    assert "0.25 mm, is allowed" in message
    assert score_case(tmp_path / "reference.nii.gz", tmp_path / "near.nii.gz", LABELS)["liver"].dice == 1


def test_a_value_that_is_no_label_is_an_error_that_names_it(tmp_path):
    write_labels(tmp_path / "reference.nii.gz", box(), geometry())
    write_labels(tmp_path / "prediction.nii.gz", box((3, 4), value=17), geometry())
    message = error_of(tmp_path / "reference.nii.gz", tmp_path / "prediction.nii.gz")
    assert "prediction.nii.gz: holds 17, which is no label (0 background, 1 liver, 2 tumour)" in message


def test_a_mask_of_several_channels_is_an_error(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((9, 6, 4, 2), np.uint8), np.eye(4)), tmp_path / "a.nii.gz")
    write_labels(tmp_path / "reference.nii.gz", box(), geometry())
    assert "a.nii.gz: has 2 channels" in error_of(tmp_path / "reference.nii.gz", tmp_path / "a.nii.gz")


def test_predictions_are_paired_by_name_whatever_the_ending(tmp_path):
    masks = {"a": box((0, 1)), "b": box((1, 2))}
    predicted, wanted = folders(tmp_path, masks, {**masks, "more": box()}, ending=".mha")
    scores = evaluate(predicted, wanted, labels=LABELS)
    assert list(scores.cases) == ["a", "b"]
    assert scores.foreground_mean.dice == 1
    assert scores.notes == ("predictions without a reference were ignored: more",)


def test_missing_predictions_are_listed(tmp_path):
    masks = {f"case_{number}": box() for number in range(4)}
    predicted, wanted = folders(tmp_path, masks, {"case_1": box(), "case_2": box()})
    with pytest.raises(UserError, match=r"no prediction for 2 of 4 references \(case_0, case_3\); predict these too"):
        evaluate(predicted, wanted, labels=LABELS)


def test_folders_without_any_match_are_told_apart_from_missing_predictions(tmp_path):
    predicted, wanted = folders(tmp_path, {"a": box()}, {"b": box()})
    with pytest.raises(UserError, match="no file is named like a reference mask"):
        evaluate(predicted, wanted, labels=LABELS)


def test_two_masks_of_one_case_are_an_error(tmp_path):
    predicted, wanted = folders(tmp_path, {"a": box()}, {"a": box()})
    write_labels(predicted / "a.nrrd", box(), geometry())
    with pytest.raises(UserError, match=r"a\.nii\.gz and a\.nrrd are masks of one case"):
        evaluate(predicted, wanted, labels=LABELS)


def test_missing_and_empty_folders_are_errors(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="nowhere: no such folder"):
        evaluate(tmp_path / "nowhere", tmp_path / "empty")
    with pytest.raises(UserError, match="empty: holds no mask"):
        evaluate(tmp_path / "empty", tmp_path / "empty")


def test_labels_come_from_labels_json_then_dataset_json_then_the_values(tmp_path):
    masks = {"a": box((0, 1), value=2), "b": box((0, 1), value=5)}
    predicted, wanted = folders(tmp_path, masks, masks)
    inferred = evaluate(predicted, wanted)
    assert list(inferred.labels) == ["label_2", "label_5"]
    assert inferred.notes == ("labels were inferred from the values in the reference masks: 2, 5",)
    (tmp_path / "dataset.json").write_text('{"labels": {"background": 0, "two": 2, "five": 5}}')
    described = evaluate(predicted, wanted)
    assert list(described.labels) == ["two", "five"]
    assert described.notes == ()
    LabelSet(names=("background", "saved", "other"), values=(0, 2, 5)).save(predicted / "labels.json")
    assert list(evaluate(predicted, wanted).labels) == ["saved", "other"]


def test_labels_that_two_files_call_otherwise(tmp_path):
    masks = {"a": box((0, 1), value=1), "b": box((0, 1), value=2)}
    predicted, wanted = folders(tmp_path, masks, masks)
    (tmp_path / "dataset.json").write_text('{"labels": {"background": 0, "liver": 1, "spleen": 2}}')
    LabelSet(names=("background", "spleen", "liver"), values=(0, 1, 2)).save(predicted / "labels.json")
    with pytest.raises(UserError, match=r"labels.json: calls 2 'liver', but .*dataset.json calls 1 so"):
        evaluate(predicted, wanted)
    assert evaluate(predicted, wanted, labels=LABELS).cases.keys() == {"a", "b"}  # the caller knows better
    LabelSet(names=("background", "liver", "Milz"), values=(0, 1, 2)).save(predicted / "labels.json")
    (note,) = evaluate(predicted, wanted).notes
    assert note.startswith("2 is 'Milz' in ")
    assert "and 'spleen' in" in note


def test_masks_of_nearly_whole_numbers_are_scored_without_a_description(tmp_path):
    """What check and training take for 1 is 1 here, too."""
    predicted, wanted = folders(tmp_path, {"a": box((0, 1))}, {"a": box((0, 1))})
    nearly = np.where(box((0, 1)) > 0, np.float32(1.0000001), np.float32(0))
    nibabel.save(nibabel.Nifti1Image(nearly.T, nibabel.load(wanted / "a.nii.gz").affine), wanted / "a.nii.gz")
    scores = evaluate(predicted, wanted)
    assert {name: label.dice for name, label in scores.labels.items()} == {"label_1": 1.0}


def test_labels_of_empty_masks_cannot_be_inferred(tmp_path):
    predicted, wanted = folders(tmp_path, {"a": box()}, {"a": box()})
    with pytest.raises(UserError, match=r"every mask is empty.*dataset\.json"):
        evaluate(predicted, wanted)


def test_an_image_instead_of_a_mask_is_an_error(tmp_path):
    predicted, wanted = folders(tmp_path, {"a": box()}, {"a": box()})
    nibabel.save(nibabel.Nifti1Image(np.full((9, 6, 4), 0.5, np.float32), np.eye(4)), wanted / "a.nii.gz")
    with pytest.raises(UserError, match="holds 0.5, which is no whole number"):
        evaluate(predicted, wanted)


@pytest.fixture
def evaluated(tmp_path):
    """Three cases: a found exactly, b half, c not at all (and without tumour in either mask)."""
    tumour = box((2, 3), value=2)
    references = {"a": box((0, 2)) + tumour, "b": box((0, 2)) + tumour, "c": box((0, 2))}
    predictions = {"a": box((0, 2)) + tumour, "b": box((0, 1)), "c": box()}
    predicted, wanted = folders(tmp_path, references, predictions)
    images = tmp_path / "images"
    write_labels(images / "a_0000.nii.gz", np.arange(216).reshape(SHAPE), geometry())
    write_labels(images / "c.nii.gz", np.arange(216).reshape(9, 6, 4), geometry((9, 6, 4)))
    output = tmp_path / "out" / "scores.json"
    report = tmp_path / "out" / "report.html"
    scores = evaluate(predicted, wanted, labels=LABELS, output=output, report=report, images=images)
    return scores, output, report


def test_scores_json(evaluated):
    scores, output, _ = evaluated
    content = json.loads(output.read_text())
    liver = content["labels"]["liver"]
    contract = {
        "dice": (1 + 2 / 3 + 0) / 3, "jaccard": 0.5, "tpr": 0.5, "precision": 2 / 3,
        "cases": 3, "both_empty": 0, "missed": 1, "invented": 0,
    }  # fmt: skip
    assert liver == liver | contract
    assert liver["volume_difference"] == (0 - 0.5 - 1) / 3
    assert liver["spread"]["dice"]["median"] == 2 / 3
    assert content["labels"]["tumour"]["dice"] == 0.5
    assert content["labels"]["tumour"]["both_empty"] == 1
    assert content["foreground_mean"]["tpr"] == 0.5
    found = content["cases"]["b"]["liver"]
    assert found == found | {
        "dice": 2 / 3, "jaccard": 0.5, "tpr": 0.5, "precision": 1.0, "tp": 54, "fp": 0, "fn": 54,
        "reference_ml": 0.27, "predicted_ml": 0.135, "volume_similarity": 1 - 1 / 3, "volume_difference": -0.5,
    }  # fmt: skip
    # Both slices are surface; that of the reference which was not found is one slice, 5 mm, away.
    assert (found["hd95_mm"], found["assd_mm"], found["nsd"]) == (5.0, 5 / 3, 2 / 3)
    diagonal_mm = ((4 * 5) ** 2 + 6**2 + (9 * 0.5) ** 2) ** 0.5
    assert content["cases"]["c"]["liver"]["hd95_mm"] == pytest.approx(diagonal_mm)
    assert content["measures"]["tolerance_mm"] == 1.0
    assert content["cases"]["c"]["tumour"]["dice"] is None
    assert "left out of the means" in content["empty_mask_policy"]
    assert Scores.load(output) == scores


def test_scores_are_kept_if_the_report_cannot_be_drawn(tmp_path, monkeypatch):
    masks = {"a": box((0, 2))}
    predicted, wanted = folders(tmp_path, masks, masks)

    def fail(*_, **__):
        raise RuntimeError("no fonts")

    monkeypatch.setattr(result_files, "draw_overlay", fail)
    output = tmp_path / "scores.json"
    report = tmp_path / "report.html"
    with pytest.raises(RuntimeError, match="no fonts"):
        evaluate(predicted, wanted, labels=LABELS, output=output, report=report)
    assert Scores.load(output).labels["liver"].dice == 1
    assert output.with_suffix(".csv").is_file()
    assert not report.exists()


def test_scores_csv(evaluated):
    _, output, _ = evaluated
    rows = rows_of(output.with_suffix(".csv"))
    metrics = [metric for metric in METRICS if not metric.endswith("_px")]
    assert list(rows[0]) == ["case", "label", *metrics, "tp", "fp", "fn", "reference_ml", "predicted_ml", "mask"]
    assert [(row["case"], row["label"]) for row in rows] == [(c, n) for c in "abc" for n in ("liver", "tumour")]
    assert [rows[2][name] for name in ("case", "dice", "tp", "fp", "fn", "mask")] == [
        *("b", str(2 / 3), "54", "0", "54", "")
    ]
    assert [rows[5][name] for name in ("case", "dice", "hd95_mm", "tp", "mask")] == ["c", "", "", "0", "both empty"]
    assert (rows[3]["mask"], rows[3]["nsd"]) == ("missed", "0.0")


def test_summary_csv(evaluated):
    scores, output, _ = evaluated
    rows = {(row["label"], row["metric"]): row for row in rows_of(output.with_name("scores_summary.csv"))}
    liver = rows["liver", "dice"]
    assert (liver["mean"], liver["cases"], liver["median"]) == (str(scores.labels["liver"].dice), "3", str(2 / 3))
    assert (liver["low"], liver["high"]) == ("", "")  # three cases are too few for an interval
    assert rows["foreground mean", "nsd"]["mean"] == str(scores.foreground_mean.nsd)
    assert not output.with_name("scores_lesions.csv").exists()


def test_scores_written_before_surfaces_were_measured_can_be_read(tmp_path):
    means = {"dice": 0.5, "jaccard": 0.4, "tpr": 0.5, "precision": 0.5}
    counted = {"cases": 1, "both_empty": 0, "missed": 0, "invented": 0}
    case = {"dice": 0.5, "jaccard": 0.4, "tpr": 0.5, "precision": 0.5, "tp": 1, "fp": 1, "fn": 1}
    old = {"labels": {"liver": means | counted}, "foreground_mean": means, "cases": {"a": {"liver": case}}}
    old |= {"empty_mask_policy": "of then", "notes": ["a note"]}
    (tmp_path / "scores.json").write_text(json.dumps(old))
    scores = Scores.load(tmp_path / "scores.json")
    assert (scores.foreground_mean.dice, scores.labels["liver"].hd95_mm, scores.measures) == (0.5, None, None)
    assert scores.shown == ("dice", "jaccard", "tpr", "precision")
    assert "liver" in scores_table(scores)


def test_output_must_be_json(tmp_path):
    with pytest.raises(UserError, match=r"scores\.csv: scores are written as JSON"):
        evaluate(tmp_path, tmp_path, output=tmp_path / "scores.csv")


def test_report_names_cases_and_policy_and_is_self_contained(evaluated):
    scores, _, report = evaluated
    page = report.read_text(encoding="utf-8")
    text = re.sub(r'"data:image/png;base64,[A-Za-z0-9+/=]+"', '"DATA"', page)
    assert text.count('src="DATA"') == 4  # three cases and the Dice plot; there was no training curve
    assert not re.search(r"""https?:|src="(?!DATA)|href="(?!#)|@import|url\(""", text)
    assert f"<b>{scores.foreground_mean.dice:.3f}</b><span>Dice: mean over 2 labels of their means over 3 cases" in text
    assert "no confidence interval: it takes 5 cases" in text
    ranks = [re.findall(rf"<figcaption>{rank}: (\w)", text) for rank in ("Best", "Median", "Worst")]
    assert ranks == [["a"], ["b"], ["c"]]
    for number, case in ((1, "c"), (2, "b"), (3, "a")):
        # A row for each of the two labels, which leads to the picture of the case
        assert text.count(f'<td class="text"><a href="#picture-{number}">{case}</a></td>') == 2
        assert text.count(f'id="picture-{number}"') == 1
    assert 'Worst case: <a href="#picture-1">c</a>' in re.sub(r"\s+", " ", text)
    assert "Image of c left out" in text  # it does not lie on the masks' grid
    assert "Image of a left out" not in text


def test_a_case_that_cannot_be_scored_does_not_stop_the_others(tmp_path):
    masks = {"a": box((0, 2)), "b": box((0, 2)), "c": box((0, 2))}
    predicted, wanted = folders(tmp_path, masks, masks)
    write_labels(predicted / "b.nii.gz", np.zeros((4, 6, 8), np.uint8), geometry((4, 6, 8)))
    output = tmp_path / "out" / "scores.json"
    with pytest.raises(CasesFailed, match=r"(?s)1 case failed in evaluation.*\n  b: .*has 4 x 6 x 8 voxels"):
        evaluate(predicted, wanted, labels=LABELS, output=output)
    scores = Scores.load(output)
    assert list(scores.cases) == ["a", "c"]
    assert scores.notes == ("1 case could not be scored and not counted in the means (b)",)
    assert list(Failures.load(output.parent / "failures.json").failed) == ["b"]
