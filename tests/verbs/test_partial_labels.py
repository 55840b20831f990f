"""From images of which halves are annotated differently to a trained network, its scores, a selection and quality."""

import json
import math

import pytest

from builders.calibration import save_drawn, small_spec
from builders.partial import describe, write_partial
from builders.work import write_splits
from segfw.base.records import UserError
from segfw.inference.held_out_counts import CaseCounts
from segfw.networks.losses import deep_supervision_loss
from segfw.planning.plan import PLAN_FILE, Plan
from segfw.quality.calibration_pass import CalibratedCase
from segfw.verbs.calibrate import calibrate
from segfw.verbs.plan_and_preprocess import plan_and_preprocess
from segfw.verbs.select import select
from segfw.verbs.train import train

SHORT = {"epochs": 1, "steps_per_epoch": 3, "batch_size": 2, "device": "cpu"}


def planned(folder, **labels):
    """A work folder with a small network."""
    raw = write_partial(folder / "raw")
    work = folder / "work"
    if labels:
        describe(raw, **labels)
    splits = write_splits(folder / "splits.json")
    plan = plan_and_preprocess(raw, work, splits=splits, plan_only=True, device="cpu")
    small = plan.configurations["3d_fullres"].model_copy(
        update={"network": small_spec(plan), "patch_size": (8, 16, 16)}
    )
    plan.model_copy(update={"configurations": {"3d_fullres": small}}).save(work / PLAN_FILE)
    plan_and_preprocess(raw, work, splits=splits, device="cpu")
    return work


@pytest.mark.parametrize(
    "labels",
    [
        {},
        {
            "labels": {"background": 0, "both": [3, 7], "dark": 7},
            "regions_class_order": [3, 7],
            "annotated": {"case_0[024]": ["both"], "case_0[135]": ["dark"]},
        },
    ],
    ids=["labels", "regions"],
)
def test_a_fold_is_trained_and_scored_by_what_is_annotated(tmp_path, labels):
    work = planned(tmp_path, **labels)
    seen = []

    def build(configuration, target):
        def loss(outputs, classes, annotated):
            seen.append(annotated.tolist())
            return deep_supervision_loss(outputs, classes, configuration.batch_dice, target, annotated=annotated)

        return loss

    scores = train(work, "3d_fullres", 0, build_loss=build, **SHORT)
    first, second = Plan.load(work / PLAN_FILE).labels.structures
    rows = {tuple(row) for rows in seen for row in rows}
    background = () if labels else (True,)
    assert rows == {(*background, True, False), (*background, False, True)}
    outcomes = {(case, name): score.outcome for case, by in scores.cases.items() for name, score in by.items()}
    assert {key for key, outcome in outcomes.items() if outcome == "not annotated"} == {
        ("case_00", second),
        ("case_01", first),
    }
    assert scores.labels[second].invented == 0
    lines = (work / "runs" / "3d_fullres" / "fold_0" / "metrics.jsonl").read_text().splitlines()
    assert math.isfinite(json.loads(lines[0])["val_loss"])


def test_a_loss_that_knows_nothing_of_it_is_refused_in_a_sentence(tmp_path):
    work = planned(tmp_path)

    def build(configuration, target):
        return lambda outputs, classes: outputs[0].mean()

    with pytest.raises(
        UserError, match=r"annotated in part, and the loss that was passed takes no argument 'annotated'"
    ):
        train(work, "3d_fullres", 0, build_loss=build, **SHORT)


def test_select_counts_what_is_annotated(tmp_path):
    work = planned(tmp_path)
    for seed in range(3):
        save_drawn(work, "3d_fullres", str(seed), seed)
    selection = select(work, device="cpu")
    counts = {
        path.stem: CaseCounts.load(path).counts["3d_fullres"] for path in (work / "selection" / "scores").glob("*.json")
    }
    assert len(counts) == 6
    dices = []
    for case, by_structure in sorted(counts.items()):
        assert by_structure["dark" if case in ("case_00", "case_02", "case_04") else "bright"] == (0, 0, 0)
        tp, fp, fn = by_structure["dark" if case in ("case_01", "case_03", "case_05") else "bright"]
        assert tp + fn > 0
        dices.append((case, 2 * tp / (2 * tp + fp + fn)))
    for structure, which in (("bright", "024"), ("dark", "135")):
        mean = sum(dice for case, dice in dices if case[-1] in which) / 3
        assert selection.candidates[0].labels[structure] == pytest.approx(mean)


def test_a_structure_that_is_not_annotated_is_no_item_of_calibration(tmp_path):
    work = planned(tmp_path)
    for seed in range(3):
        save_drawn(work, "3d_fullres", str(seed), seed)
    quality = calibrate(work, shifts=False, device="cpu")
    for number in range(6):
        case = CalibratedCase.load(work / "calibration" / "3d_fullres" / f"case_{number:02}.json")
        drawn = {"dark" if number % 2 else "bright"}
        assert set(case.shapes) == set(case.histograms) == drawn
        assert [set(measured) for measured in case.passes[0].folds.values()] == [drawn]
    assert quality.priors["bright"].cases == quality.priors["dark"].cases == 3
