"""Which steps of postprocessing are kept: by mean Dice of whole masks, in one pass over what is held of them."""

import weakref

import numpy as np
import pytest

from builders.probabilities import LABELS, NESTED
from segfw.dataset.labels import LabelSet
from segfw.evaluation.confusion import dice
from segfw.inference import postprocessing_trials
from segfw.inference.postprocessing_trials import find_postprocessing
from segfw.model.postprocess import FOREGROUND, Postprocessing, apply, outside_largest, possible_steps


def pair_of(reference: list[tuple], predicted: list[tuple]) -> tuple[np.ndarray, np.ndarray]:
    masks = []
    for painted in (reference, predicted):
        mask = np.zeros((3, 6, 20), np.uint8)
        for place, value in painted:
            mask[place] = value
        masks.append(mask)
    return tuple(masks)


ROW = (1, 2, slice(0, 6))
FAR = (1, 2, slice(10, 12))
OTHER = (1, 3, slice(0, 5))


def test_a_speck_of_one_label_is_dropped_and_a_second_part_of_another_kept():
    """'a' has a false speck in one case; 'b' truly has two parts."""
    clean = pair_of([(ROW, 1), (OTHER, 2), (FAR, 2)], [(ROW, 1), (OTHER, 2), (FAR, 2)])
    specked = pair_of([(ROW, 1), (OTHER, 2), (FAR, 2)], [(ROW, 1), (OTHER, 2), (FAR, 2), ((2, 5, slice(15, 17)), 1)])
    found, trials, dice_of = find_postprocessing(iter([clean, specked]), LABELS)
    assert [step.name for step in found.steps] == ["a"]
    assert [(trial.name, trial.is_kept) for trial in trials] == [(FOREGROUND, False), ("a", True), ("b", False)]
    before = (1 + 2 * 6 / (2 * 6 + 2)) / 2
    assert trials[1].before == pytest.approx((before + 1) / 2)
    assert dice_of == {"a": 1.0, "b": 1.0}


def test_all_foreground_comes_first_and_makes_single_steps_needless():
    specked = pair_of([(ROW, 1), (OTHER, 2)], [(ROW, 1), (OTHER, 2), (FAR, 1), ((0, 0, slice(17, 20)), 2)])
    found, trials, dice_of = find_postprocessing(iter([specked]), LABELS)
    assert [step.name for step in found.steps] == [FOREGROUND]
    assert [trial.is_kept for trial in trials] == [True, False, False]
    assert dice_of == {"a": 1.0, "b": 1.0}


def test_no_step_is_kept_that_changes_nothing():
    found, trials, _ = find_postprocessing(iter([pair_of([(ROW, 1)], [(ROW, 1)])]), LABELS)
    assert found.steps == ()
    assert not any(trial.is_kept for trial in trials)


@pytest.mark.parametrize(
    "labels", [LABELS, NESTED, LABELS.model_copy(update={"ignore": 99})], ids=["plain", "regions", "ignore"]
)
def test_the_one_pass_equals_applying_the_steps_and_counting_anew(labels: LabelSet):
    """Step after step by whole masks, as the published recipe does it."""
    rng = np.random.default_rng(5)
    pairs = []
    for _ in range(4):
        reference, predicted = pair_of([(ROW, 1), (OTHER, 2)], [(ROW, 1), (OTHER, 2)])
        noise = rng.random(predicted.shape)
        predicted[noise > 0.97] = 1
        predicted[noise < 0.02] = 2
        if labels.ignored_class is not None:
            reference[:, :, 18:] = labels.ignored_class
        pairs.append((reference, predicted))
    copies = [(reference.copy(), predicted.copy()) for reference, predicted in pairs]
    found, trials, dice_of = find_postprocessing(iter(pairs), labels)

    def mean_dice(masks: list[np.ndarray]) -> dict[str, float]:
        result = {}
        for name, members in labels.structures.items():
            values = []
            for (reference, _), mask in zip(copies, masks):
                counts = reference != labels.ignored_class if labels.ignored_class is not None else True
                wanted = np.isin(reference, members) & counts
                got = np.isin(mask, members) & counts
                values.append(dice(((wanted & got).sum(), (got & ~wanted).sum(), (wanted & ~got).sum())))
            result[name] = sum(values) / len(values)
        return result

    masks = [mask for _, mask in copies]
    kept = []
    for step in possible_steps(labels):
        tried = [apply(mask, Postprocessing(steps=(step,))) for mask in masks]
        before = mean_dice(masks)
        after = mean_dice(tried)
        if all(after[name] >= before[name] for name in after) and after != before:
            masks = tried
            kept = [*kept, step]
    assert kept
    assert list(found.steps) == kept
    assert dice_of == pytest.approx(mean_dice(masks))
    for (reference, predicted), (own, mask) in zip(pairs, copies):
        np.testing.assert_array_equal(reference, own)
        np.testing.assert_array_equal(predicted, mask)


def test_what_a_step_removes_is_held_of_one_case_at_a_time(monkeypatch):
    removed = []
    held = []

    def watched(classes_zyx, classes):
        held.append(sum(mask() is not None for mask in removed))
        found = outside_largest(classes_zyx, classes)
        if found is not None:
            removed.append(weakref.ref(found))
        return found

    monkeypatch.setattr(postprocessing_trials, "outside_largest", watched)
    found, _, _ = find_postprocessing(iter([pair_of([(ROW, 1)], [(ROW, 1), (FAR, 1)])] * 4), LABELS)
    assert found.steps
    assert len(removed) == 8  # of each case when the step is tried, and when it is kept
    assert max(held) == 0
