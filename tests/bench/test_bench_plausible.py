"""Figures of intervals and plausible masks: on made-up cases, and on masks whose figures can be counted."""

import numpy as np
import pytest
import torch

from bench.plausible import (
    PlausibleFigures,
    Tried,
    coverage,
    fitting_patients,
    kept_figures,
    plausible_table,
    simulated_coverage,
    structure_figures,
)
from builders.calibrated import calibrated_model
from segfw.base.records import UserError
from segfw.images.formats import read_mask, write_labels
from segfw.model.source import QUALITY_FILE
from segfw.quality.plausible_thresholds import LEVELS, PlausibleThresholds, StructureHistogram, levels_of_log_odds
from segfw.quality.quality_model import CLEAN, QualityModel
from segfw.quality.volume_intervals import fit_volume_interval
from segfw.verbs.predict import predict


def tried(patient: int, rng: np.random.Generator) -> Tried:
    """A structure of 100 voxels, sure in its middle, whose volume is told with an error of a tenth."""
    inside, outside = rng.normal(3, 2, 100), rng.normal(-3, 2, 400)
    counts = [np.bincount(levels_of_log_odds(torch.tensor(odds)), minlength=LEVELS) for odds in (inside, outside)]
    true, predicted = 10.0, 10 * float(np.exp(0.1 * rng.normal()))
    return Tried(
        patient=str(patient),
        volumes_ml={"clean": (true, predicted), "noise": (true, 3 * predicted)},
        histogram=StructureHistogram(
            inside=tuple(counts[0].tolist()),
            outside=tuple(counts[1].tolist()),
            mask_voxels=int((inside > 0).sum() + (outside > 0).sum()),
        ),
    )


def test_promises_are_kept_on_cases_like_those_fitted_on_and_not_under_a_shift():
    rng = np.random.default_rng(0)
    found = structure_figures("liver", [tried(patient, rng) for patient in range(120)], splits=5)
    assert 0.8 < found.coverage.mean < 1
    assert found.shifted_coverage["noise"].mean == 0
    assert 0 < found.missed.mean <= 0.05
    assert 0 < found.false.mean <= 0.05
    assert found.inner_ratio.mean < 1 < found.outer_ratio.mean
    text = plausible_table(
        PlausibleFigures(patients=120, splits=5, simulated_coverage=0.9, structures=(found,), kept=())
    )
    assert "120 patients, fitted on half of them and tried on the others, 5 splits" in text
    assert "liver" in text.splitlines()[3]


def test_coverage_counts_patients_and_leaves_out_what_was_missed():
    interval = fit_volume_interval([1.1] * 10, [1.0] * 10, [str(index) for index in range(10)])
    histogram = StructureHistogram(inside=(0,) * LEVELS, outside=(0,) * LEVELS, mask_voxels=0)

    def case(patient: str, true: float, predicted: float) -> Tried:
        return Tried(patient=patient, volumes_ml={"clean": (true, predicted)}, histogram=histogram)

    # Patient a: one of two inside; b: inside; c: missed.
    cases = [case("a", 10, 10.5), case("a", 10, 20), case("b", 5, 5), case("c", 5, 0)]
    assert coverage(interval, cases, "clean") == pytest.approx((0.5 + 1) / 2)
    assert np.isnan(coverage(interval, cases, "noise"))


def test_drawn_volumes_are_covered_as_promised():
    assert 0.85 < simulated_coverage(300, 30) < 0.95


def test_too_few_patients_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(UserError, match="liver: 8 of 9 patients are too few for an interval"):
        structure_figures("liver", [tried(patient, rng) for patient in range(9)], splits=1)


def test_splits_in_which_nothing_keeps_the_promise_are_counted():
    rng = np.random.default_rng(0)
    cases = [tried(patient, rng) for patient in range(24)]
    lost = (100, *(0,) * (LEVELS - 1))  # all of it at the lowest level
    cases = [
        Tried(
            patient=case.patient,
            volumes_ml=case.volumes_ml,
            histogram=case.histogram.model_copy(update={"inside": lost}),
        )
        for case in cases
    ]
    found = structure_figures("liver", cases, splits=3)
    assert (found.without_masks, found.missed) == (3, None)
    figures = PlausibleFigures(patients=24, splits=3, simulated_coverage=0.9, structures=(found,), kept=())
    assert "liver: in 3 splits no threshold keeps the promise" in plausible_table(figures)


def test_kept_masks_against_themselves_and_against_a_larger_reference(images, tmp_path):
    model = calibrated_model(tmp_path / "model")
    quality = QualityModel.load(model / QUALITY_FILE)
    thresholds = PlausibleThresholds(
        outer=50.0, inner=-50.0, level=0.05, patients=60, empty_share=0, outer_ratio=1, inner_ratio=1
    )  # both are the mask itself
    quality.model_copy(update={"plausible": {"bright": thresholds, "dark": thresholds}}).save(model / QUALITY_FILE)
    masks = tmp_path / "masks"
    predict(model, images, masks, device="cpu", plausible=True)
    bright, dark = kept_figures(model, masks, masks, None)
    for figures in (bright, dark):
        assert (figures.patients, figures.coverage, figures.missed, figures.false) == (2, 1, 0, 0)
        assert (figures.outer_ratio, figures.inner_ratio) == (1, 1)
    # Everything that is not bright is dark in the reference: dark is missed by what was background.
    references = tmp_path / "references"
    references.mkdir()
    missed = []
    for case in "ab":
        mask = read_mask(masks / f"{case}.nii.gz")
        array = np.where(mask.array[0] == 3, 3, 7)
        missed.append(float((mask.array[0] == 0).sum() / (array == 7).sum()))
        write_labels(references / f"{case}.nii.gz", array, mask.geometry)
    _, dark = kept_figures(model, masks, references, None)
    assert dark.has_masks
    assert dark.missed == pytest.approx(np.mean(missed))
    assert dark.missed_se == pytest.approx(np.std(missed, ddof=1) / 2**0.5)


def test_each_of_few_patients_is_left_out_in_turn():
    """Ten patients whose true volume is 1.1 of what was found, and one with 3 times, who alone is outside."""
    patients = [f"p{number:02}" for number in range(11)]
    assert fitting_patients(patients, 20) == [{*patients} - {own} for own in patients]
    assert [len(chosen) for chosen in fitting_patients([*patients, *"abcdefg"], 5)] == [9] * 5
    none = StructureHistogram(inside=(0,) * LEVELS, outside=(0,) * LEVELS, mask_voxels=0)
    cases = [
        Tried(patient=name, volumes_ml={CLEAN: (3.0 if name == "p03" else 1.1, 1.0)}, histogram=none)
        for name in patients
    ]
    figures = structure_figures("organ", cases, 20)
    assert figures.coverage.mean == pytest.approx(10 / 11)
    assert figures.without_masks == 11


def test_a_structure_without_thresholds_has_its_interval_alone(images, tmp_path):
    model = calibrated_model(tmp_path / "model")
    quality = QualityModel.load(model / QUALITY_FILE)
    thresholds = PlausibleThresholds(
        outer=50.0, inner=-50.0, level=0.05, patients=60, empty_share=0, outer_ratio=1, inner_ratio=1
    )
    none = thresholds.model_copy(update={"outer": None, "inner": None, "note": "too few patients"})
    quality.model_copy(update={"plausible": {"bright": thresholds, "dark": none}}).save(model / QUALITY_FILE)
    masks = tmp_path / "masks"
    predict(model, images, masks, device="cpu", plausible=True)
    for file in (masks / "plausible").glob("*_outer.nii.gz"):  # as where the outer masks of structures overlap
        file.rename(file.with_name(file.name.replace("_outer", "_outer_bright")))
    for file in (masks / "plausible").glob("*.json"):
        file.write_text(file.read_text().replace("_outer.nii.gz", "_outer_bright.nii.gz"))
    bright, dark = kept_figures(model, masks, masks, None)
    assert (bright.has_masks, bright.missed, bright.coverage) == (True, 0, 1)
    assert (dark.has_masks, dark.coverage) == (False, 1)
