"""Overlap scores from the joint histogram, their means, and the policy for empty masks."""

import numpy as np
import pytest
import torch
from monai.metrics import compute_dice, compute_iou

from builders.masks import box, score
from segfw.evaluation.confusion import confusion
from segfw.evaluation.metrics import MeanScores, label_score
from segfw.evaluation.summary import summarize


def random_masks(seed=0, shape=(5, 6, 7), classes=4):
    return np.random.default_rng(seed).integers(0, classes, (2, *shape)).astype(np.uint8)


def test_scores_of_two_boxes_counted_by_hand():
    reference = box((1, 3), (1, 4), (2, 6))  # 2 * 3 * 4 = 24 voxels
    prediction = box((1, 3), (2, 6), (4, 9))  # 2 * 4 * 5 = 40 voxels; 2 * 2 * 2 = 8 in both
    result = score(reference, prediction)
    assert (result.tp, result.fp, result.fn) == (8, 32, 16)
    assert result.dice == 2 * 8 / (24 + 40)
    assert result.jaccard == 8 / (24 + 40 - 8)
    assert result.tpr == 8 / 24
    assert result.precision == 8 / 40
    assert result.outcome == ""


def test_confusion_has_the_reference_in_rows():
    counts = confusion(np.array([[[1, 1, 0]]]), np.array([[[2, 2, 1]]]), 3)
    assert counts.tolist() == [[0, 1, 0], [0, 0, 2], [0, 0, 0]]


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64])
def test_confusion_matches_counting_voxels(dtype):
    reference, prediction = random_masks().astype(dtype)
    expected = np.zeros((4, 4), int)
    for z, y, x in np.ndindex(reference.shape):
        expected[reference[z, y, x], prediction[z, y, x]] += 1
    # Several steps, the last one shorter.
    assert np.array_equal(confusion(reference, prediction, 4, chunk_voxels=17), expected)


def test_confusion_does_not_depend_on_the_memory_order():
    reference, prediction = random_masks()
    expected = confusion(reference, prediction, 4)
    assert np.array_equal(confusion(np.asfortranarray(reference), prediction[::-1][::-1], 4), expected)


def test_confusion_with_many_classes_does_not_overflow():
    reference = np.full((1, 1, 3), 199, np.uint8)
    prediction = np.full((1, 1, 3), 198, np.uint8)
    assert confusion(reference, prediction, 200)[199, 198] == 3


def test_confusion_rejects_other_shapes_and_classes():
    with pytest.raises(ValueError, match=r"\(4, 6, 9\).*\(6, 4, 9\)"):
        confusion(box(), box(shape=(6, 4, 9)), 2)
    with pytest.raises(ValueError, match=r"prediction has classes 0..3; must be within 0..2"):
        confusion(box(), box((0, 1), value=3), 3)
    with pytest.raises(ValueError, match=r"reference has classes -1..0"):
        confusion(np.array([[[-1, 0]]]), np.array([[[1, 0]]]), 3)


def test_scores_match_counting_voxels_and_monai():
    reference, prediction = random_masks(seed=3)
    counts = confusion(reference, prediction, 4)
    one_hot = [
        torch.nn.functional.one_hot(torch.from_numpy(mask).long(), 4).movedim(-1, 0)[None]
        for mask in (prediction, reference)
    ]
    dices = compute_dice(*one_hot)[0]
    jaccards = compute_iou(*one_hot)[0]
    for index in range(1, 4):
        pairs = [(bool(r == index), bool(p == index)) for r, p in zip(reference.flat, prediction.flat)]
        tp = pairs.count((True, True))
        fp = pairs.count((False, True))
        fn = pairs.count((True, False))
        result = label_score(counts, index)
        assert (result.tp, result.fp, result.fn) == (tp, fp, fn)
        assert result.dice == pytest.approx(float(dices[index]), abs=1e-6)
        assert result.jaccard == pytest.approx(float(jaccards[index]), abs=1e-6)
        assert result.tpr == pytest.approx(tp / (tp + fn), abs=1e-12)
        assert result.precision == pytest.approx(tp / (tp + fp), abs=1e-12)


def test_a_perfect_prediction_scores_one():
    reference, _ = random_masks()
    result = label_score(confusion(reference, reference, 4), 2)
    assert (result.dice, result.jaccard, result.tpr, result.precision) == (1, 1, 1, 1)


@pytest.mark.parametrize(
    "reference, prediction, expected, outcome",
    [  # Dice, Jaccard, TPR, precision, specificity, volume similarity and difference
        (box(), box(), (None, None, None, None, None, None, None), "both empty"),
        (box(), box((0, 1)), (0, 0, None, 0, None, 0, None), "invented"),
        (box((0, 1)), box(), (0, 0, 0, 0, 0, 0, -1), "missed"),
        (box((0, 1)), box((1, 2)), (0, 0, 0, 0, 2 / 3, 1, 0), ""),
        (box((0, 1)), box((0, 3)), (1 / 2, 1 / 3, 1, 1 / 3, 1 / 3, 1 / 2, 2), ""),
    ],
)
def test_policy_for_empty_masks(reference, prediction, expected, outcome):
    result = score(reference, prediction)
    names = ("dice", "jaccard", "tpr", "precision", "specificity", "volume_similarity", "volume_difference")
    assert tuple(getattr(result, name) for name in names) == pytest.approx(expected)
    assert result.outcome == outcome


def test_specificity_is_left_out_where_nearly_all_is_background():
    shape = (2, 10, 10)  # 200 voxels, of which 5 % are 10
    prediction = box((0, 1), (0, 2), shape=shape)
    assert score(box((0, 1), (0, 1), shape=shape), prediction).specificity == 1 - 10 / 190
    assert score(box((0, 1), (0, 1), (0, 9), shape=shape), prediction).specificity is None
    assert score(box((0, 2), shape=shape), prediction).specificity is None  # there is nothing else


def test_volumes_are_in_millilitres():
    counts = confusion(box((0, 1)), box((0, 3)), 3)  # 54 and 162 voxels
    result = label_score(counts, 1, voxel_size=5.0 * 1.0 * 0.5 / 1000)
    assert (result.reference_ml, result.predicted_ml) == (pytest.approx(0.135), pytest.approx(0.405))
    assert label_score(counts, 1).reference_ml is None


def test_a_missed_structure_lowers_the_mean_and_an_absent_one_does_not():
    found = score(box((0, 1)), box((0, 1)))
    missed = score(box((0, 1)), box())
    absent = score(box(), box())
    with_absent = summarize({"a": {"liver": found}, "b": {"liver": absent}}).labels["liver"]
    assert (with_absent.dice, with_absent.jaccard, with_absent.tpr) == (1, 1, 1)
    assert (with_absent.cases, with_absent.both_empty, with_absent.missed, with_absent.invented) == (1, 1, 0, 0)
    with_missed = summarize({"a": {"liver": found}, "b": {"liver": missed}}).labels["liver"]
    assert (with_missed.dice, with_missed.jaccard, with_missed.tpr, with_missed.precision) == (0.5, 0.5, 0.5, 0.5)
    assert (with_missed.cases, with_missed.both_empty, with_missed.missed, with_missed.invented) == (2, 0, 1, 0)


def test_a_mean_volume_difference_of_nothing_hides_errors_as_the_policy_says():
    missed = score(box((0, 1)), box())
    doubled = score(box((0, 1)), box((0, 2)))
    invented = score(box(), box((0, 1)))
    scores = summarize({"a": {"liver": missed}, "b": {"liver": doubled}, "c": {"liver": invented}})
    means = scores.labels["liver"]
    assert (means.volume_difference, means.volume_similarity) == (0, pytest.approx((0 + 2 / 3 + 0) / 3))
    assert "errors of both signs cancel in its mean, and invented labels are not in it" in scores.empty_mask_policy


def test_an_invented_structure_lowers_the_mean():
    found = score(box((0, 1)), box((0, 1)))
    invented = score(box(), box((0, 1)))
    summary = summarize({"a": {"liver": found}, "b": {"liver": invented}}).labels["liver"]
    assert (summary.dice, summary.precision, summary.tpr) == (0.5, 0.5, 1)
    assert (summary.cases, summary.invented) == (2, 1)


def test_foreground_mean_is_the_mean_of_label_means():
    perfect = score(box((0, 2)), box((0, 2)))
    half = score(box((0, 2)), box((0, 1)))
    absent = score(box(), box())
    cases = {
        "a": {"liver": perfect, "tumour": absent, "spleen": absent},
        "b": {"liver": perfect, "tumour": half, "spleen": absent},
    }
    scores = summarize(cases)
    assert scores.labels["spleen"].dice is None
    assert scores.labels["spleen"].both_empty == 2
    # The mean over all cases and labels would be (1 + 1 + 0.5) / 3 for TPR.
    means = scores.foreground_mean
    assert (means.dice, means.jaccard, means.tpr) == ((1 + 2 / 3) / 2, (1 + 1 / 2) / 2, (1 + 1 / 2) / 2)
    assert (means.precision, means.volume_difference, means.hd95_mm) == (1, -0.25, None)


def test_means_of_nothing_are_none():
    scores = summarize({"a": {"liver": score(box(), box())}})
    assert scores.foreground_mean == MeanScores(dice=None, jaccard=None, tpr=None, precision=None)
    assert scores.foreground_interval == {}
