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
from segfw.evaluation.confusion import Counts, dice, label_counts
from segfw.grid.expected_dice import HALF, LEVELS, log_odds_of_levels
from segfw.images.formats import write_labels
from segfw.inference import decoding_trials
from segfw.inference.averaging import merged, probability_of
from segfw.inference.decoding_trials import (
    FoundDecoding,
    HeldOutCase,
    StructureTally,
    calibrated_temperature,
    find_decoding,
    tally_case,
    try_structures,
    without_the_weakest,
)
from segfw.inference.held_out import HeldOut
from segfw.inference.held_out_counts import CaseCounts, count_case, joint_counts
from segfw.inference.postprocessing_trials import mean_dice

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
    assert trial.temperature < 0.5
    assert not trial.is_kept
    assert trial.gain == 0


def test_a_gain_of_some_patients_is_not_enough():
    wrong = replace(RIGHT, inside=SHY.inside, outside=SHY.outside)
    found = try_structures(cases_of(*[SHY] * 3, *[wrong] * 3, folds=2), LABELS.output_names)
    (trial,) = found.trials
    assert not trial.is_kept
    assert trial.low <= 0


def test_what_all_cases_together_would_lose_by_is_not_kept():
    """Fold 1 gains by the temperature of fold 0, 1; that of both takes the voxels of 0.37, too, of which none is right.

    Fold 0 is left alone, because fold 1 loses by its own temperature.
    """
    less = HALF - 13
    shy = tally({200: 100, DOUBT: 40}, {DOUBT: 20, less: 40})
    right = tally({200: 100, DOUBT: 453, less: 373}, {DOUBT: 547, less: 627})
    doubtful = tally({200: 100, DOUBT: 4770, less: 4350}, {DOUBT: 5230, less: 5650})
    calm = replace(shy, inside=right.inside, outside=right.outside)
    sure = replace(shy, inside=doubtful.inside, outside=doubtful.outside)
    found = try_structures(cases_of(*[calm, sure] * 6, folds=2), LABELS.output_names)
    (trial,) = found.trials
    assert shy.gain(1.0) > 0 > shy.gain(trial.temperature)
    assert found.held_out == {"0": {}, "1": {}}
    assert trial.low > 0
    assert not trial.is_kept


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
    """The references of fold 0 change, and with them the temperatures of all other folds, but not its own."""
    cases = cases_of(*[SHY] * 10)
    other = [replace(case, tallies={"b": tally({200: 50, DOUBT: 59}, {DOUBT: 1, 200: 50})}) for case in cases]
    mixed = [changed if case.fold == "0" else case for case, changed in zip(cases, other)]
    before = try_structures(cases, LABELS.output_names).held_out
    after = try_structures(mixed, LABELS.output_names).held_out
    assert after["0"] == before["0"]
    assert all(after[fold] != before[fold] for fold in "1234")


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


def find(work: Path, items: list[HeldOut], before: Mapping[str, float | None] | None = None) -> FoundDecoding:
    counted = counts_of(work, items)
    patient_of = {item.case.id: item.case.id for item in items}
    return find_decoding(work, items, ("3d_fullres",), counted, before or mean_dice_of(counted), patient_of)


def counts_of(work: Path, items: list[HeldOut]) -> dict[str, CaseCounts]:
    return {item.case.id: count_case(work, item.case, [item], [("3d_fullres",)]) for item in items}


def mean_dice_of(counted: Mapping[str, CaseCounts]) -> dict[str, float]:
    of_cases = [case.counts["3d_fullres"] for case in counted.values()]
    return {name: float(np.mean([dice(counts[name]) for counts in of_cases])) for name in LABELS.structures}


def test_structures_of_stored_probabilities_are_decoded(work):
    folder, items = work
    found = find(folder, items)
    assert [decoded.name for decoded in found.decoding] == ["a", "b"]
    assert all(trial.low > 0.002 for trial in found.trials)
    # The masks that are judged are better by what was found of each structure, but for voxels that both claim.
    before = mean_dice_of(counts_of(folder, items))
    pairs = decoding_trials.masks_of(folder, items, ("3d_fullres",), LABELS, found.held_out)
    after = mean_dice([joint_counts(reference, classes, LABELS) for reference, classes in pairs], LABELS)
    for trial in found.trials:
        assert after[trial.name] == pytest.approx(before[trial.name] + trial.gain, abs=0.01)
        assert after[trial.name] > before[trial.name] + 0.01


def test_nothing_is_decoded_that_costs_a_structure_its_mean(work):
    """As if b were better before: a and b are tried together, then the better one alone, then none."""
    folder, items = work
    found = find(folder, items, {"a": 0.0, "b": 1.0})
    assert found.decoding == ()
    assert [trial.is_kept for trial in found.trials] == [False, False]
    assert [decoded.name for decoded in find(folder, items, {"a": None, "b": 0.0}).decoding] == ["a", "b"]
