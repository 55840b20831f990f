"""Structures that nobody drew in a case are not scored there, counted, and never called invented."""

import json

import numpy as np
import pytest

from builders.masks import LABELS, box, folders, geometry, rows_of
from segfw.dataset.labels import LabelSet, Region
from segfw.evaluation.compare import compare_cases
from segfw.evaluation.metrics import LabelScore, Measures, Scores
from segfw.evaluation.score import score_masks
from segfw.evaluation.summary import empty_mask_sentences, summarize
from segfw.evaluation.text import scores_csv, scores_table
from segfw.verbs.evaluate import evaluate

LIVER = box((1, 3), (1, 4), (2, 6))  # 24 voxels of 2.5 mm3
TUMOUR = box((1, 2), (4, 6), (0, 5), value=2)  # 10 voxels


def scored(reference, prediction, annotated) -> dict[str, LabelScore]:
    return score_masks(reference, prediction, LABELS, geometry(), Measures(lesions=("all",)), annotated=annotated)


def test_by_hand():
    found = scored(LIVER, LIVER + TUMOUR, ("liver",))
    assert list(found) == ["liver", "tumour"]
    assert found["liver"].dice == 1
    tumour = found["tumour"]
    assert tumour.outcome == "not annotated"
    assert [tumour.dice, tumour.hd95_mm, tumour.nsd, tumour.reference_ml] == [None] * 4
    assert [tumour.tp, tumour.fp, tumour.fn] == [0, 0, 0]
    assert tumour.predicted_ml == pytest.approx(10 * 2.5 / 1000)
    assert tumour.lesions == ()
    assert scored(LIVER, LIVER + TUMOUR, None)["tumour"].outcome == "invented"


def test_what_is_annotated_is_scored_as_ever():
    usual = scored(LIVER, LIVER + TUMOUR, None)["liver"]
    assert scored(LIVER, LIVER + TUMOUR, ("liver",))["liver"] == usual
    assert scored(LIVER, LIVER + TUMOUR, ("liver", "tumour")) == scored(LIVER, LIVER + TUMOUR, None)


def test_a_region_is_scored_where_it_is_named():
    labels = LabelSet(
        names=("background", "rim", "core"),
        values=(0, 1, 2),
        regions=(Region(name="whole", values=(1, 2), painted=1), Region(name="core", values=(2,), painted=2)),
    )
    found = score_masks(LIVER, TUMOUR + LIVER, labels, geometry(), annotated=("whole",))
    assert found["whole"].dice == pytest.approx(2 * 24 / (24 + 34))
    assert found["core"].outcome == "not annotated"


def test_means_and_counts_by_hand():
    cases = {
        "a": scored(LIVER, LIVER + TUMOUR, ("liver",)),
        "b": scored(LIVER + TUMOUR, TUMOUR, ("liver", "tumour")),
        "c": scored(TUMOUR, TUMOUR, ("tumour",)),
    }
    scores = summarize(cases)
    assert scores.labels["liver"].dice == pytest.approx((1 + 0) / 2)
    assert scores.labels["tumour"].dice == 1
    liver = scores.labels["liver"]
    assert (liver.cases, liver.missed, liver.invented, liver.both_empty, liver.not_annotated) == (2, 1, 0, 0, 1)
    assert scores.labels["tumour"].not_annotated == 1
    assert empty_mask_sentences(scores)[-1].startswith("2 not annotated: nobody drew the label in the case.")
    rows = {(row["case"], row["label"]): row for row in _rows(scores_csv(scores))}
    assert rows["a", "tumour"]["mask"] == "not annotated"
    assert [rows["a", "tumour"][name] for name in ("dice", "tp", "fp", "fn", "reference_ml")] == [""] * 5
    assert rows["a", "tumour"]["predicted_ml"] == "0.025"
    assert scores_table(scores).splitlines()[0].endswith("both empty  not annotated")


def _rows(text: str) -> list[dict[str, str]]:
    head, *lines = text.splitlines()
    return [dict(zip(head.split(","), line.split(","))) for line in lines]


def test_files_of_whole_annotations_are_as_before(tmp_path):
    whole = summarize({"a": scored(LIVER, LIVER, None)})
    whole.save(tmp_path / "scores.json")
    text = (tmp_path / "scores.json").read_text()
    assert "annotated" not in text
    assert Scores.load(tmp_path / "scores.json") == whole
    assert "not annotated" not in scores_table(whole)
    part = summarize({"a": scored(LIVER, LIVER, ("liver",))})
    part.save(tmp_path / "part.json")
    assert Scores.load(tmp_path / "part.json") == part


def test_two_predictions_are_compared_where_the_structure_is_annotated():
    first = {"a": scored(LIVER, LIVER + TUMOUR, ("liver",)), "b": scored(TUMOUR, TUMOUR, None)}
    second = {"a": scored(LIVER, LIVER, ("liver",)), "b": scored(TUMOUR, TUMOUR + LIVER, None)}
    found = compare_cases(first, second, ("one", "two"))
    assert found.labels["tumour"]["dice"].difference == 0
    assert found.labels["liver"]["dice"].difference == pytest.approx(0.5)  # 0 in a; in b invented by the second alone


def test_evaluate_goes_by_the_description_beside_the_reference(tmp_path):
    predicted, reference = folders(
        tmp_path,
        {"site_1": LIVER, "other": LIVER + TUMOUR},
        {"site_1": LIVER + TUMOUR, "other": LIVER},
    )
    description = {"labels": {"background": 0, "liver": 1, "tumour": 2}, "annotated": {"site_*": ["liver"]}}
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    scores = evaluate(predicted, reference, output=tmp_path / "s.json", report=tmp_path / "r.html", surface=False)
    assert scores.cases["site_1"]["tumour"].outcome == "not annotated"
    assert scores.cases["other"]["tumour"].outcome == "missed"
    assert scores.labels["tumour"].dice == 0
    rows = {(row["case"], row["label"]): row["mask"] for row in rows_of(tmp_path / "s.csv")}
    assert rows["site_1", "tumour"] == "not annotated"
    assert "Not annotated" in (tmp_path / "r.html").read_text()


def test_lists_beside_the_reference_are_by_what_labels_json_calls_the_values(tmp_path):
    predicted, reference = folders(tmp_path, {"site_1": LIVER}, {"site_1": LIVER + TUMOUR})
    description = {"labels": {"background": 0, "liver": 1, "tumour": 2}, "annotated": {"site_*": ["liver"]}}
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    LabelSet(names=("background", "hepar", "mass"), values=(0, 1, 2)).save(predicted / "labels.json")
    scores = evaluate(predicted, reference, surface=False)
    assert scores.cases["site_1"]["hepar"].dice == 1
    assert scores.cases["site_1"]["mass"].outcome == "not annotated"


def test_pictures_show_nothing_of_what_is_not_annotated(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(
        "segfw.evaluation.result_files.draw_overlay", lambda image, truth, found, *_, **__: shown.append(found) or b""
    )
    predicted, reference = folders(tmp_path, {"site_1": LIVER}, {"site_1": LIVER + TUMOUR})
    description = {"labels": {"background": 0, "liver": 1, "tumour": 2}, "annotated": {"site_*": ["liver"]}}
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    evaluate(predicted, reference, report=tmp_path / "r.html", surface=False)
    assert np.unique(shown[0]).tolist() == [0, 1]


def test_groups_by_size_and_by_what_is_cut_are_of_what_is_annotated(tmp_path):
    """A region that nobody drew as a whole is cut nowhere, though a drawn part of it reaches the border."""
    cut = box((0, 2), (1, 4), (2, 6), value=2)
    references = {f"site_{number}": cut for number in range(3)} | {f"other_{number}": LIVER for number in range(3)}
    predicted, reference = folders(tmp_path, references, references)
    description = {
        "labels": {"background": 0, "whole": [1, 2], "core": 2},
        "regions_class_order": [1, 2],
        "annotated": {"site_*": ["core"]},
    }
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    scores = evaluate(predicted, reference, by=["header"], surface=False)
    found = {one.column: {group.name: group.patients for group in one.groups} for one in scores.by}
    assert found["whole whole or cut"] == {"whole": 3}
    assert found["size of whole"] == {"0.06 ml": 3}
    assert found["core whole or cut"] == {"cut": 3}
