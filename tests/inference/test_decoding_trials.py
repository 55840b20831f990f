"""What is decoded for its expected Dice: tallies against masks, calibration, no leak between folds, what is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from builders.probabilities import GRIDS, LABELS, NESTED, smooth_logits, stored
from segfw.dataset.cases import Case
from segfw.dataset.labels import LabelSet
from segfw.evaluation.confusion import Counts, dice, label_counts
from segfw.grid.expected_dice import HALF, LEVELS, log_odds_of_levels
from segfw.images.formats import write_labels
from segfw.inference import decoding_trials
from segfw.inference.averaging import merged, probability_of
from segfw.inference.decoding_trials import (
    FoundDecoding,
    FoundRule,
    HeldOutCase,
    StructureTally,
    calibrated_temperature,
    find_rule,
    tally_case,
    try_structures,
    without_the_weakest,
)
from segfw.inference.held_out import HeldOut
from segfw.inference.held_out_counts import count_case, joint_counts, masks_of
from segfw.inference.postprocessing_trials import find_postprocessing
from segfw.model.selection import Trial

IGNORING = LABELS.model_copy(update={"ignore": 99})


@pytest.mark.parametrize("labels", [LABELS, NESTED, IGNORING], ids=["plain", "regions", "ignore"])
@pytest.mark.parametrize("names", [("3d_fullres",), ("3d_lowres", "2d")], ids=["one", "pair"])
def test_tallies_count_as_the_masks_do(labels, names, tmp_path):
    """Of each structure decoded alone, at several temperatures, on the file's own grid with its odd order of axes."""
    models = [
        stored(tmp_path / f"{name}.b2nd", smooth_logits(GRIDS[name], labels.outputs, 5, 5), GRIDS[name], labels)
        for name in names
    ]
    drawn = stored(tmp_path / "drawn.b2nd", smooth_logits(GRIDS["2d"], labels.outputs, 5), GRIDS["2d"], labels)
    reference = merged([drawn])
    if labels.ignore is not None:
        reference[:, 3:6] = labels.ignored_class
    plain = joint_counts(reference, merged(models), labels)
    before = {name: label_counts(plain, classes) for name, classes in labels.structures.items()}
    tallies = tally_case(models, reference, before)
    changed = 0
    for name, classes in labels.structures.items():
        for temperature in (0.6, 1.0, 1.7):
            masks = merged(models, temperatures={labels.output_names.index(name): temperature})
            expected = label_counts(joint_counts(reference, masks, labels), classes)
            assert tallies[name].counts(temperature) == expected
            assert tallies[name].gain(temperature) == dice(expected) - dice(before[name])
            changed += expected != before[name]
        assert tallies[name].gain(None) == 0
    assert changed >= 4  # else this shows nothing


def test_where_no_voxel_has_a_half_nothing_changes(tmp_path):
    """Nor is there a Dice to change where the reference is empty, too."""
    logits = torch.zeros(3, *GRIDS["3d_fullres"].shape)
    model = stored(tmp_path / "x.b2nd", logits, GRIDS["3d_fullres"])
    tallies = tally_case([model], np.zeros((13, 8, 15), np.uint8), {"a": Counts(0, 0, 7), "b": Counts(0, 0, 0)})
    assert tallies["a"].counts(1.0) == (0, 0, 7)
    assert tallies["a"].gain(2.0) == 0
    absent = StructureTally(before=Counts(0, 0, 0))
    assert absent.gain(1.0) is None


def levels(mapping: Mapping[int, int]) -> np.ndarray:
    result = np.zeros(LEVELS, np.int64)
    for level, voxels in mapping.items():
        result[level] = voxels
    return result


def tally(inside: Mapping[int, int], outside: Mapping[int, int]) -> StructureTally:
    """Of a structure that argmax gives all voxels from a half on, and may get all others."""
    in_l, out_l = levels(inside), levels(outside)
    before = Counts(tp=int(in_l[HALF:].sum()), fp=int(out_l[HALF:].sum()), fn=int(in_l[:HALF].sum()))
    return StructureTally(
        before=before, everywhere=in_l + out_l, inside=in_l, outside=out_l, open_inside=in_l, open_outside=out_l
    )


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_the_temperature_that_made_the_references_is_found(temperature):
    log_odds = log_odds_of_levels()
    p = 1 / (1 + np.exp(-log_odds / temperature))
    voxels = np.round(1e6 * np.exp(-np.abs(log_odds)))
    inside = np.round(voxels * p).astype(np.int64)
    outside = (voxels - inside).astype(np.int64)
    whole = StructureTally(before=Counts(0, 0, 0), inside=inside, outside=outside)
    assert calibrated_temperature([whole]) == pytest.approx(temperature, rel=0.01)
    # What lies beyond the levels says nothing.
    inside[0] += 10**6
    outside[-1] += 10**6
    assert calibrated_temperature([whole]) == pytest.approx(temperature, rel=0.01)
    assert calibrated_temperature([]) == 1.0
    assert calibrated_temperature([StructureTally(before=Counts(3, 0, 0))]) == 1.0


DOUBT = HALF - 5  # a probability of 0.45
# 100 voxels that are certain and right, and 60 of 0.45, of which most are the structure's: decoding takes them.
SHY = tally({200: 100, DOUBT: 40}, {DOUBT: 20})
# The same where few are.
RIGHT = tally({200: 100, DOUBT: 5}, {DOUBT: 55})


def cases_of(*tallies: StructureTally, folds: int = 5, name: str = "b") -> list[HeldOutCase]:
    return [
        HeldOutCase(patient=f"p{number}", fold=str(number % folds), tallies={name: each})
        for number, each in enumerate(tallies)
    ]


def test_a_gain_by_hand():
    """200 / 240 voxels before; 280 / (160 + 140) after."""
    assert SHY.counts(1.0) == (140, 20, 0)
    assert SHY.gain(1.0) == pytest.approx(280 / 300 - 200 / 240)
    assert RIGHT.gain(1.0) == pytest.approx(210 / 265 - 200 / 205)


def test_a_structure_that_gains_in_all_patients_is_decoded():
    found = try_structures(cases_of(*[SHY] * 10), LABELS.output_names)
    (trial,) = found.trials
    assert trial.is_kept
    assert trial.patients == 10
    assert trial.gain == pytest.approx(0.1)
    assert (trial.low, trial.high) == pytest.approx((0.1, 0.1))
    assert trial.gain_uncalibrated == pytest.approx(0.1)
    (decoded,) = found.decoding
    assert (decoded.name, decoded.temperature) == ("b", trial.temperature)
    assert found.held_out == {str(fold): {2: trial.temperature} for fold in range(5)}


def test_one_that_does_not_is_left_alone():
    """Where no other fold gains none is decoded, so that its own do not lose either."""
    wrong = replace(RIGHT, inside=SHY.inside, outside=SHY.outside)
    found = try_structures(cases_of(*[wrong] * 10), LABELS.output_names)
    (trial,) = found.trials
    assert not trial.is_kept
    assert (trial.gain, trial.low, trial.high) == (0, 0, 0)
    assert found.decoding == ()
    assert all(not of_fold for of_fold in found.held_out.values())


def test_calibration_keeps_what_would_lose_as_it_is():
    """Probabilities of 0.45 of which a twelfth is right are made smaller, and none of them is taken."""
    found = try_structures(cases_of(*[RIGHT] * 10), LABELS.output_names)
    (trial,) = found.trials
    assert trial.calibrated < 0.5
    assert trial.temperature is None
    assert not trial.is_kept
    assert trial.gain == 0


def test_a_gain_of_some_patients_is_not_enough():
    wrong = replace(RIGHT, inside=SHY.inside, outside=SHY.outside)
    found = try_structures(cases_of(*[SHY] * 3, *[wrong] * 3, folds=2), LABELS.output_names)
    (trial,) = found.trials
    assert not trial.is_kept
    assert trial.low <= 0


def test_what_all_cases_together_would_lose_by_is_not_kept():
    """Fold 1 gains by the temperature of fold 0, a half; 1 and that of both take voxels of 0.37, too, which are wrong.

    Fold 0 is left alone, because fold 1 loses by its own temperature, 1.
    """
    less = HALF - 13
    shy = tally({200: 50, DOUBT: 40}, {DOUBT: 20, less: 80})
    sure = tally({200: 100, DOUBT: 407, less: 261}, {DOUBT: 593, less: 739})
    calm = tally({200: 100, DOUBT: 4530, less: 3730}, {DOUBT: 5470, less: 6270})
    of_folds = [replace(shy, inside=known.inside, outside=known.outside) for known in (sure, calm)]
    found = try_structures(cases_of(*of_folds * 6, folds=2), LABELS.output_names)
    (trial,) = found.trials
    assert trial.calibrated == pytest.approx(0.9, abs=0.1)
    assert shy.gain(0.5) > 0 > max(shy.gain(1.0), shy.gain(trial.calibrated))
    assert trial.gain == pytest.approx(shy.gain(0.5) / 2)
    assert trial.low > 0
    assert trial.temperature is None
    assert not trial.is_kept
    assert found.held_out == {"0": {}, "1": {}}


def test_few_patients_and_a_single_fold_decide_nothing():
    (trial,) = try_structures(cases_of(*[SHY] * 4, folds=2), LABELS.output_names).trials
    assert (trial.low, trial.high, trial.is_kept) == (None, None, False)
    assert trial.gain > 0
    assert try_structures(cases_of(*[SHY] * 10, folds=1), LABELS.output_names) == FoundDecoding()
    # Ten scans of four patients are four patients.
    scans = [replace(case, patient=case.patient[:1] + str(int(case.patient[1:]) % 4)) for case in cases_of(*[SHY] * 10)]
    (trial,) = try_structures(scans, LABELS.output_names).trials
    assert (trial.patients, trial.is_kept) == (4, False)


def test_what_judges_a_fold_is_not_found_in_it():
    """The references of fold 0 change, so that all other folds are left alone, but not fold 0 itself."""
    cases = cases_of(*[SHY] * 10)
    lost = tally({200: 100}, {DOUBT: 400})
    mixed = [replace(case, tallies={"b": lost}) if case.fold == "0" else case for case in cases]
    assert lost.gain(1.0) < -0.6
    assert try_structures(cases, LABELS.output_names).held_out == {fold: {2: 1.0} for fold in "01234"}
    (trial,) = try_structures(mixed, LABELS.output_names).trials
    # What fold 0 loses by counts against it: it was decoded, because the other folds gain.
    assert trial.gain == pytest.approx(lost.gain(1.0) / 5)
    assert trial.gain_uncalibrated == pytest.approx((lost.gain(1.0) + 4 * SHY.gain(1.0)) / 5)
    assert not trial.is_kept


def test_of_two_temperatures_the_better_one_is_taken():
    """SHY gains by 1 and loses by a temperature that calibration would find, at which its doubtful voxels are left."""
    sure = tally({200: 100, DOUBT: 5}, {DOUBT: 55})
    cases = cases_of(*[replace(SHY, inside=sure.inside, outside=sure.outside)] * 10)
    (trial,) = try_structures(cases, LABELS.output_names).trials
    assert trial.calibrated < 0.5
    assert (trial.temperature, trial.is_kept) == (1.0, True)
    assert trial.gain == trial.gain_uncalibrated == pytest.approx(0.1)
    assert trial.gain_calibrated == 0


def test_the_weakest_goes_first():
    strong = tally({200: 100, DOUBT: 50}, {DOUBT: 10})
    cases = [replace(case, tallies={"a": SHY, "b": strong}) for case in cases_of(*[SHY] * 10)]
    found = try_structures(cases, LABELS.output_names)
    assert [decoded.name for decoded in found.decoding] == ["a", "b"]
    without = without_the_weakest(found, LABELS.output_names)
    assert [decoded.name for decoded in without.decoding] == ["b"]
    assert [trial.is_kept for trial in without.trials] == [False, True]
    assert without.held_out["3"].keys() == {2}


@pytest.fixture
def work(tmp_path) -> tuple[Path, list[HeldOut]]:
    """Six held-out cases in three folds, whose references are drawn voxel by voxel of the probabilities stored."""
    record = GRIDS["3d_fullres"]
    items = []
    for number in range(6):
        label = tmp_path / "labels" / f"case_{number}.nii.gz"
        case = Case(id=f"case_{number}", images=(label,), label=label)
        item = HeldOut(case=case, configuration="3d_fullres", fold=str(number % 3), model="a digest")
        model = stored(item.path(tmp_path), smooth_logits(record, 3, number, scale=4), record)
        a = probability_of("a", [model])
        b = probability_of("b", [model])
        drawn = np.random.default_rng(number).random(a.shape)
        classes = np.where(drawn < a, 1, np.where(drawn < a + b, 2, 0))
        label.parent.mkdir(exist_ok=True)
        write_labels(label, LABELS.to_values(classes), record.original)
        items.append(item)
    return tmp_path, items


def rule_of(work: Path, items: list[HeldOut], labels: LabelSet = LABELS) -> FoundRule:
    counted = {item.case.id: count_case(work, item.case, [item], [("3d_fullres",)]) for item in items}
    patient_of = {item.case.id: item.case.id for item in items}
    return find_rule(work, items, ("3d_fullres",), labels, counted, patient_of)


def plain_rule(work: Path, items: list[HeldOut]) -> tuple[list[Trial], dict[str, float | None]]:
    """Without decoding."""
    _, trials, dice_of = find_postprocessing(masks_of(work, items, ("3d_fullres",), LABELS, {}), LABELS)
    return trials, dice_of


def test_structures_of_stored_probabilities_are_decoded(work):
    folder, items = work
    found = rule_of(folder, items)
    assert [decoded.name for decoded in found.postprocessing.decoding] == ["a", "b"]
    assert all(trial.is_kept and trial.low > 0.002 for trial in found.decoding_trials)
    # The finished masks are better by what was found of each structure, but for voxels that both claim.
    _, before = plain_rule(folder, items)
    for trial in found.decoding_trials:
        assert found.dice_of[trial.name] == pytest.approx(before[trial.name] + trial.gain, abs=0.01)
        assert found.dice_of[trial.name] > before[trial.name] + 0.01


def test_nothing_is_decoded_that_costs_the_finished_masks(work, monkeypatch):
    """As if masks that are decoded lost in the end: both are tried together, then the better one alone, then none."""
    folder, items = work
    tried = []

    def losing(pairs, labels, annotated):
        steps, trials, dice_of = find_postprocessing(pairs, labels, annotated)
        tried.append(dice_of)
        return steps, trials, dice_of if len(tried) == 1 else dice_of | {"b": 0.0}

    monkeypatch.setattr(decoding_trials, "find_postprocessing", losing)
    found = rule_of(folder, items)
    trials, plain = plain_rule(folder, items)
    assert found.postprocessing.decoding == ()
    assert [trial.is_kept for trial in found.decoding_trials] == [False, False]
    assert (list(found.trials), found.dice_of) == (trials, plain)
    assert len(tried) == 3
    assert tried[0] == plain
    weaker, stronger = sorted(found.decoding_trials, key=lambda trial: trial.gain)
    assert tried[2][weaker.name] < tried[1][weaker.name]
    assert tried[2][stronger.name] == pytest.approx(tried[1][stronger.name], abs=0.01)
