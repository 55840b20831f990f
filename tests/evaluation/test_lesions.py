"""Components: which are found, which are real, by size; counted by hand."""

import numpy as np
import pytest
from scipy import ndimage

from builders.masks import geometry
from segfw.base.records import UserError
from segfw.dataset.labels import LabelSet, Region
from segfw.evaluation.lesions import LesionCounts, lesion_counts, lesion_total, pooled
from segfw.evaluation.metrics import Measures
from segfw.evaluation.score import measures_of, score_masks

GRID = geometry((1, 3, 40), (5.0, 2.0, 1.0))  # a voxel has 0.01 ml
VOXEL_ML = 0.01


def line(*parts: tuple[int, int], length=40) -> np.ndarray:
    """Bars along x of a 1 x 3 x length mask, half-open."""
    mask = np.zeros((1, 3, length), bool)
    for start, stop in parts:
        mask[0, 1, start:stop] = True
    return mask


def counts(reference, prediction, strata=(0.03,), iou=0.0):
    found = lesion_counts(reference, prediction, VOXEL_ML, strata, iou)
    return [(part.reference, part.found, part.predicted, part.right) for part in found]


def test_lesions_of_two_sizes_counted_by_hand():
    reference = line((0, 2), (5, 10), (15, 17), (20, 26))  # two of 2 voxels (0.02 ml), one of 5, one of 6
    prediction = line((1, 2), (9, 14), (30, 31), (35, 39))  # hits the first and the second; two are invented
    assert counts(reference, prediction) == [(2, 1, 2, 1), (2, 1, 2, 1)]
    assert counts(reference, prediction, strata=()) == [(4, 2, 4, 2)]


def test_a_component_of_exactly_a_bound_belongs_to_the_larger_class():
    assert counts(line((0, 3)), line(), strata=(0.03, 1.0)) == [(0, 0, 0, 0), (1, 0, 0, 0), (0, 0, 0, 0)]


def test_a_lesion_and_what_found_it_count_in_one_class_though_their_sizes_differ():
    small = line((0, 2))  # 0.02 and 0.05 ml, on two sides of the bound
    large = line((0, 5))
    assert counts(small, large) == [(1, 1, 1, 1), (0, 0, 0, 0)]
    assert counts(large, small) == [(0, 0, 0, 0), (1, 1, 1, 1)]
    assert [part.f1 for part in lesion_counts(small, large, VOXEL_ML, (0.03,), 0.0)] == [1.0, None]
    # Hit as well, but not enough to be its counterpart: then the prediction is nobody's, and counts by its own size.
    assert counts(small, large, iou=0.5) == [(1, 0, 0, 0), (0, 0, 1, 0)]


def test_a_component_over_lesions_of_two_classes_counts_with_the_one_it_shares_most_with():
    found = lesion_counts(line((0, 2), (5, 11)), line((1, 9)), VOXEL_ML, (0.03,), 0.0)
    assert [(p.reference, p.found, p.predicted, p.right) for p in found] == [(1, 1, 0, 0), (1, 1, 1, 1)]
    assert (found[0].tpr, found[0].precision, found[0].f1) == (1, None, None)  # found, so it is no failure
    assert counts(line((5, 11), (12, 14)), line((10, 14))) == [(1, 1, 1, 1), (1, 1, 0, 0)]


def test_components_hang_together_over_corners():
    mask = np.zeros((2, 2, 2), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = True
    assert counts(mask, mask, strata=()) == [(1, 1, 1, 1)]


def test_one_component_over_two_finds_both_and_is_right_once():
    assert counts(line((0, 4), (6, 10)), line((3, 7)), strata=()) == [(2, 2, 1, 1)]


def test_intersection_over_union_decides_where_it_is_asked_for():
    reference = line((0, 4), (10, 20))  # 2 / 6 and 8 / 10
    prediction = line((2, 6), (10, 18))
    assert counts(reference, prediction, strata=(), iou=0.3) == [(2, 2, 2, 2)]
    assert counts(reference, prediction, strata=(), iou=0.5) == [(2, 1, 2, 1)]
    assert counts(reference, prediction, strata=(), iou=0.8) == [(2, 1, 2, 1)]
    assert counts(reference, prediction, strata=(), iou=0.81) == [(2, 0, 2, 0)]


@pytest.mark.parametrize("seed", range(3))
def test_counts_match_looking_at_every_component(seed):
    rng = np.random.default_rng(seed)
    masks = rng.random((2, 6, 9, 11)) > 0.88
    ones = np.ones((3, 3, 3))
    expected = []
    for own, other in (masks, masks[::-1]):
        components, number = ndimage.label(own, ones)
        hits = sum((other & (components == index)).any() for index in range(1, number + 1))
        expected += [number, hits]
    assert counts(*masks, strata=()) == [tuple(expected)]


def test_rates_and_their_absence():
    def of(reference, found, predicted, right):
        return LesionCounts(
            from_size=0.0, to_size=None, reference=reference, found=found, predicted=predicted, right=right
        )

    some = of(4, 3, 6, 2)
    assert (some.tpr, some.precision, some.f1) == (0.75, 1 / 3, pytest.approx(2 * 0.75 / 3 / (0.75 + 1 / 3)))
    missed = of(4, 0, 0, 0)
    invented = of(0, 0, 2, 0)
    nothing = of(0, 0, 0, 0)
    assert (missed.tpr, missed.precision, missed.f1) == (0, 0, 0)
    assert (invented.tpr, invented.precision, invented.f1) == (None, 0, 0)
    assert (nothing.tpr, nothing.precision, nothing.f1) == (None, None, None)


def test_counts_are_added_up_over_classes_and_cases():
    first = lesion_counts(line((0, 2), (5, 10)), line((1, 2)), VOXEL_ML, (0.03,), 0.0)
    second = lesion_counts(line((5, 10)), line((5, 6), (20, 21)), VOXEL_ML, (0.03,), 0.0)
    both = pooled([first, (), second])
    assert [(part.reference, part.found, part.predicted, part.right) for part in both] == [(1, 1, 2, 1), (2, 1, 1, 1)]
    total = lesion_total(both)
    assert (total.reference, total.found, total.predicted, total.right) == (3, 2, 3, 2)
    assert pooled([(), ()]) == ()
    assert lesion_total(()) is None


LABELS = LabelSet(names=("background", "organ", "core", "rim"), values=(0, 1, 2, 3))


def masks():
    reference, prediction = (line().astype(np.uint8) for _ in range(2))
    reference[0, 1, 2:5], reference[0, 1, 5:7], reference[0, 1, 20:23] = 2, 3, 2
    prediction[0, 1, 3:4], prediction[0, 1, 30:34] = 2, 3
    return reference, prediction


def test_only_the_labels_that_were_named_have_lesions():
    scores = score_masks(*masks(), LABELS, GRID, Measures(lesions=("core",), strata_ml=()))
    assert scores["core"].lesion_tpr == 0.5
    assert scores["core"].lesion_precision == 1
    assert scores["core"].lesion_f1 == pytest.approx(2 / 3)
    assert scores["rim"].lesion_tpr is None
    assert scores["rim"].lesions == ()
    every = score_masks(*masks(), LABELS, GRID, measures_of(lesions=()))
    assert (every["rim"].lesion_tpr, every["rim"].lesion_precision, every["organ"].lesion_f1) == (0, 0, None)


def test_a_region_is_one_lesion_of_several_labels_and_ignored_voxels_belong_to_none():
    labels = LabelSet(
        names=LABELS.names,
        values=LABELS.values,
        ignore=9,
        regions=(Region(name="whole", values=(2, 3), painted=2), Region(name="core", values=(2,), painted=2)),
    )
    reference, prediction = masks()
    scores = score_masks(reference, prediction, labels, GRID, measures_of(lesions=["whole"], strata_ml=()))
    assert [(p.reference, p.found, p.predicted, p.right) for p in scores["whole"].lesions] == [(2, 1, 2, 1)]
    reference[0, :, 25:] = 4  # the class of the ignored voxels: the invented lesion lies there
    scores = score_masks(reference, prediction, labels, GRID, measures_of(lesions=["whole"], strata_ml=()))
    assert [(p.reference, p.found, p.predicted, p.right) for p in scores["whole"].lesions] == [(2, 1, 1, 1)]


def test_wrong_wishes_are_errors_that_say_what_to_do():
    with pytest.raises(UserError, match="--lesions tumor: is no label; choose from organ, core, rim, or all"):
        score_masks(*masks(), LABELS, GRID, measures_of(lesions=["tumor"]))
    with pytest.raises(UserError, match="--lesion-iou is 2; give 0"):
        measures_of(lesion_iou=2)
    with pytest.raises(UserError, match="--tolerance-mm is -1; give 0 or more"):
        measures_of(tolerance_mm=-1)
    with pytest.raises(UserError, match=r"--lesion-strata-ml is \(1.0, 0.5\); give rising volumes"):
        measures_of(strata_ml=(1.0, 0.5))


def test_counts_of_before_there_were_areas_are_read(tmp_path):
    old = '{"from_ml": 0.1, "to_ml": null, "reference": 4, "found": 3, "predicted": 6, "right": 2}'
    (tmp_path / "counts.json").write_text(old, encoding="utf-8")
    read = LesionCounts.load(tmp_path / "counts.json")
    assert (read.from_size, read.to_size, read.unit, read.found) == (0.1, None, "ml", 3)
