"""What cases say together: figures that can be counted by hand."""

import numpy as np
import pytest

from segfw.evaluation.confusion import ratio
from segfw.perturbations.perturbation import Perturbation
from segfw.robustness.stress_case import Compared
from segfw.robustness.stress_records import (
    CaseStress,
    ChangeSummary,
    Effect,
    StressReport,
    StructureEffect,
    StructureSummary,
)
from segfw.robustness.stress_report import _change, _levels, report_text
from segfw.robustness.stress_table import stress_csv


def effect_of(agreement, *, ceiling=None, before=None, after=None, found=True, voxels=(100, 90), expected=True):
    return StructureEffect(
        structure="liver",
        voxels_before=voxels[0],
        voxels_after=voxels[1],
        agreement=agreement,
        ceiling=ceiling,
        dice_before=before,
        dice_after=after,
        expected=expected,
        found_before=expected,
        found_after=found,
    )


def noise(level):
    return Perturbation(name="noise", kind="degrades", level=level, unit="sd of the foreground")


def cases_of(perturbation, *effects, changed=1, detail=""):
    return [
        CaseStress(
            id=f"case_{number}",
            sources=(),
            voxels=1000,
            tried="all",
            effects=(Effect(perturbation=perturbation, detail=detail, changed_voxels=changed, structures=(effect,)),),
        )
        for number, effect in enumerate(effects)
    ]


def summary_of(*effects, perturbation=None):
    perturbation = perturbation or noise(0.1)
    return _change(perturbation, cases_of(perturbation, *effects), ("liver",)).structures[0]


def test_means_worst_and_detection():
    found = summary_of(
        effect_of(0.9, before=0.8, after=0.7, voxels=(100, 90)),
        effect_of(0.5, before=0.9, after=0.6, voxels=(200, 300), found=False),
        effect_of(None, voxels=(0, 0), expected=False, found=False),  # empty before and after: no agreement
        effect_of(0.0, voxels=(0, 4), expected=False, found=False),  # invented
    )
    assert (found.cases, found.worst_case, found.worst_agreement) == (3, "case_3", 0.0)
    assert found.agreement == pytest.approx(1.4 / 3)
    assert found.change_of_dice == pytest.approx((-0.1 - 0.3) / 2)
    assert found.change_of_volume_percent == pytest.approx((-10 + 50) / 2)
    assert (found.expected, found.found_before, found.found_after, found.invented) == (2, 2, 1, 1)


def levels_of(*losses, of="dice"):
    changes = []
    for level, loss in losses:
        kind = {"before": 0.9, "after": 0.9 - loss} if of == "dice" else {"ceiling": 0.98}
        effect = effect_of(0.98 - loss if of == "agreement" else 1 - loss, **kind)
        changes.append(_change(noise(level), cases_of(noise(level), effect), ("liver",)))
    return _levels(changes, ("liver",))


def test_the_level_of_a_loss_is_between_the_levels_that_were_tried():
    (found,) = levels_of((0.1, 0.01), (0.3, 0.03), (0.6, 0.09))
    assert (found.reached, found.of, found.change) == (True, "Dice", "noise")
    assert found.level == pytest.approx(0.3 + 0.3 * (0.02 / 0.06))
    (found,) = levels_of((0.1, 0.10))  # between nothing and the first level
    assert found.level == pytest.approx(0.05)
    (found,) = levels_of((0.1, -0.02), (0.3, 0.05))  # a gain counts as no loss
    assert found.level == pytest.approx(0.3)
    (found,) = levels_of((0.1, 0.01), (0.6, 0.04))
    assert (found.reached, found.level, found.strongest_level) == (False, None, 0.6)
    assert found.largest_loss == pytest.approx(0.04)


def test_without_experts_agreement_is_held_against_what_the_grid_allows():
    (found,) = levels_of((0.1, 0.0), (0.3, 0.10), of="agreement")
    assert found.of == "agreement"
    assert found.level == pytest.approx(0.2)


@pytest.mark.parametrize(
    "agreement, ceiling, holds", [(0.995, None, True), (0.985, None, False), (0.94, 0.945, True), (0.92, 0.945, False)]
)
def test_what_should_change_little_is_held_against_the_grid(agreement, ceiling, holds):
    padding = Perturbation(name="padding", kind="near")
    assert _change(padding, cases_of(padding, effect_of(agreement, ceiling=ceiling)), ("liver",)).holds == holds


def report_of(*changes):
    return StressReport(
        version="1",
        model="model",
        images="images",
        reference="",
        quick=False,
        configuration="2d",
        folds=("0",),
        orientation="canonical",
        precision="auto",
        weights_digest="",
        cases=("case_0",),
        missing=(),
        failed={},
        structures=("liver",),
        changes=changes,
        levels=(),
        notes=(),
    )


@pytest.mark.parametrize("changed", [0, 1])
def test_one_voxel_breaks_what_must_change_nothing(changed):
    axes = Perturbation(name="axis order 1", kind="exact")
    change: ChangeSummary = _change(
        axes, cases_of(axes, effect_of(0.999), changed=changed, detail="stored as PIL"), ("liver",)
    )
    report = report_of(change)
    assert bool(report.broken) == bool(changed)
    said = report_text(report)
    assert ("BROKEN: axis order 1 changed 1 voxel in 1 of 1 image: case_0 (stored as PIL)" in said) == bool(changed)
    assert ("1 change that must change nothing changed no voxel" in said) == (not changed)


def test_a_table_has_a_row_for_every_trial_and_empty_cells_for_what_is_unknown():
    cases = cases_of(noise(0.1), effect_of(0.5), effect_of(None, voxels=(0, 0), expected=False))
    failed = Effect(perturbation=noise(0.3), problem="too small")
    cases[0] = cases[0].model_copy(update={"effects": (*cases[0].effects, failed)})
    lines = stress_csv(cases, ("liver",)).splitlines()
    assert lines[0].startswith("case,change,kind,level,unit,structure,agreement,ceiling,dice_before")
    assert lines[1].startswith("case_0,noise,degrades,0.1,sd of the foreground,liver,0.5,,,,100,90,1,1,1,1,")
    assert lines[2] == "case_0,noise,degrades,0.3,sd of the foreground,,,,,,,,,,,0,,too small"
    assert lines[3].startswith("case_1,noise,degrades,0.1,sd of the foreground,liver,,,,,0,0,0,0,")
    assert stress_csv(cases, ("spleen",)).count("\n") == 2  # its head, and the trial that failed


def test_voxels_are_counted_once_for_all_structures():
    """Against a slow count of every mask by itself; a structure may have several classes."""
    rng = np.random.default_rng(0)
    before, after, ceiling, expert = rng.integers(0, 4, (4, 5, 6, 7)).astype(np.uint8)
    inside = rng.random((5, 6, 7)) > 0.3
    compared = Compared.of(4, inside, before=before, after=after, ceiling=ceiling, expert=expert)

    def dice(first, second, classes):
        one = np.isin(first, classes) & inside
        two = np.isin(second, classes) & inside
        return ratio(2 * int((one & two).sum()), int(one.sum()) + int(two.sum()))

    for classes in ((1,), (2, 3), (0, 1)):
        found = compared.effect("x", classes)
        assert found.agreement == pytest.approx(dice(before, after, classes))
        assert found.ceiling == pytest.approx(dice(before, ceiling, classes))
        assert found.dice_before == pytest.approx(dice(expert, before, classes))
        assert found.dice_after == pytest.approx(dice(expert, after, classes))
        assert found.voxels_after == (np.isin(after, classes) & inside).sum()
        assert found.found_after


def test_two_empty_masks_agree_in_nothing():
    nothing = np.zeros((2, 2, 2), np.uint8)
    compared = Compared.of(2, nothing == 0, before=nothing, after=nothing, ceiling=None, expert=None)
    found: StructureEffect = compared.effect("x", (1,))
    assert (found.agreement, found.ceiling, found.expected, found.found_after) == (None, None, False, False)


def test_summaries_are_strict_records():
    text = report_of().model_dump_json()
    assert StressReport.parse(text, "x") == report_of()
    assert "agreement" in StructureSummary.model_fields
