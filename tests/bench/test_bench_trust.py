"""The figures of trust, counted by hand; kept-out patients stay out; what is said of them is what the model says."""

import numpy as np
import pytest

from bench.result_lines import append_line, read_lines
from bench.trust.figures_of_trust import (
    bound_rows,
    difference_rows,
    gate_rows,
    kinds_of,
    score_rows,
    use_rows,
)
from bench.trust.judged import (
    PAIR,
    PREDICTED,
    SHIPPED,
    KeptMasks,
    fitted_splits,
    gate_scores,
    kept_masks,
    masks_of_one_fold,
)
from bench.trust.kept_cases import KeptCase, TrustedModel
from bench.trust.raw_folders import split_raw
from bench.trust.simulation import simulate, simulation_table
from bench.trust.trust_results import TrustResult, Worth, as_markdown
from builders.data import write_raw
from builders.quality import IDENTITY, LABELS, STRUCTURES, features_of
from segfw.base.records import UserError
from segfw.quality.calibration_pass import CalibratedCase, CalibrationPass, MeasuredStructure
from segfw.quality.image_fingerprint import Fingerprint
from segfw.quality.quality_features import Shape
from segfw.quality.quality_model import CLEAN
from segfw.quality.risk_coverage import naurc


def test_kept_out_patients_are_in_one_part_alone(tmp_path):
    write_raw(tmp_path / "data" / "hippocampus", 9)
    assert split_raw(tmp_path / "data", "hippocampus", tmp_path / "raw", number=3) == {"train": 6, "kept": 3}
    names = {part: {path.name for path in (tmp_path / "raw" / part / "images").iterdir()} for part in ("train", "kept")}
    assert not names["train"] & names["kept"]
    assert len(names["train"] | names["kept"]) == 9
    assert {path.name for path in (tmp_path / "raw" / "kept" / "labels").iterdir()} == names["kept"]
    with pytest.raises(UserError, match="is there already"):
        split_raw(tmp_path / "data", "hippocampus", tmp_path / "raw", number=3)


# Six patients with a clean and a noisy mask each, said by two models.
DICE = np.array([0.9, 0.9, 0.8, 0.8, 0.5, 0.9, 0.6, 0.5, 0.4, 0.8, 0.7, 0.2])
PREDICTION = np.array([[0.8] * 12, [0.9] * 6 + [0.6] * 6])


def masks_by_hand() -> KeptMasks:
    pair = np.linspace(0.9, 0.1, 12)[None]
    lower = PREDICTION - 0.2
    lower[0, 0] = np.nan
    used = np.zeros((2, 12), bool)
    used[1, :6] = True
    return KeptMasks(
        shift=np.array([CLEAN] * 6 + ["noise"] * 6),
        structure=np.array(["a"] * 12),
        patient=np.array(list("pqrstu") * 2),
        dice=DICE,
        is_wrong=DICE < 0.7,
        scores={SHIPPED: np.repeat(pair, 2, axis=0), PREDICTED: PREDICTION, PAIR: pair},
        lower=lower,
        unseen_lower=np.full((2, 12), np.nan),
        unseen_predicted=np.where(np.arange(12) < 6, np.nan, PREDICTION - 0.1),
        used=used,
    )


def test_coverage_bias_and_margin_by_hand():
    clean = bound_rows(masks_by_hand(), [CLEAN])[0]
    # Of the first model 4 of 5 masks reach 0.6, of the second 5 of 6 reach 0.7.
    assert clean.covered.mean == pytest.approx((4 / 5 + 5 / 6) / 2)
    assert clean.margin.mean == pytest.approx(0.2)
    assert clean.covered_unseen.mean is None
    noisy = bound_rows(masks_by_hand(), ["noise"])[0]
    assert noisy.bias_unseen.mean == pytest.approx((0.7 + 0.5) / 2 - DICE[6:].mean())
    assert noisy.covered.low is not None
    assert noisy.covered.low <= noisy.covered.mean <= noisy.covered.high


def test_use_by_hand():
    class Model:
        class model:
            class use_rule:
                threshold = None

    clean = use_rows(masks_by_hand(), [CLEAN], [Model, Model])[0]
    assert (clean.good, clean.models_with_use) == (5, 0)
    assert clean.good_released.mean == pytest.approx((0 + 1) / 2)
    assert clean.wrong_share.mean == pytest.approx(1 / 6)  # of the model that releases any


def test_a_ranking_that_is_that_of_pairs_differs_by_nothing():
    masks = masks_by_hand()
    shipped, predicted = difference_rows(masks, ["all"])
    assert (shipped.difference.mean, shipped.difference.low, shipped.difference.high) == (0.0, 0.0, 0.0)
    expected = np.mean([naurc(row, DICE) for row in PREDICTION]) - naurc(masks.scores[PAIR][0], DICE)
    assert predicted.difference.mean == pytest.approx(expected)
    rows = {(row.score, row.kind): row for row in score_rows(masks, kinds_of(masks), draws=10)}
    assert rows[PREDICTED, CLEAN].bias.mean == pytest.approx(((0.8 + 0.9) / 2) - DICE[:6].mean())
    assert rows[PAIR, "all"].failed == 5
    assert rows[PREDICTED, "noise"].masks == 6


# ---- items as a model leaves them ----


def measured(dice: float, rng: np.random.Generator) -> MeasuredStructure:
    return MeasuredStructure(features=features_of(dice, rng), dice=dice, true_ml=1.0, predicted_ml=1.0)


def fingerprint(rng: np.random.Generator, noise: float = 0.0) -> Fingerprint:
    values = tuple((rng.normal(0, 1, 6) + noise).tolist())
    return Fingerprint(
        names=("spacing z", "spacing y", "spacing x", "extent z", "extent y", "extent x"),
        values=values,
        thumbnails=(tuple(rng.normal(0, 1, 8).tolist()),),
    )


def found_case(name: str, folds: tuple[str, ...], rng: np.random.Generator, shifts=("noise",)) -> CalibratedCase:
    passes = []
    for shift in (CLEAN, *shifts):
        dice = {name: float(np.clip(rng.beta(8, 2) - 0.3 * (shift != CLEAN), 0.05, 0.95)) for name in STRUCTURES}
        passes.append(
            CalibrationPass(
                shift=shift,
                folds={fold: {name: measured(value, rng) for name, value in dice.items()} for fold in folds},
                pair=dice if len(folds) > 1 else {},
                mean_dice=dict(dice) if len(folds) > 1 else {},
            )
        )
    shapes = {name: Shape(volume_mm3=1000.0 + rng.normal(), offset_mm=(0.0, 1.0, 2.0)) for name in STRUCTURES}
    return CalibratedCase(case=name, made_from="", fingerprint=fingerprint(rng), shapes=shapes, passes=tuple(passes))


@pytest.fixture(scope="module")
def items():
    rng = np.random.default_rng(0)
    calibration = [found_case(f"c{number:02}", ("0",), rng) for number in range(30)]
    kept = []
    for number in range(8):
        prints = {CLEAN: fingerprint(rng), "noise": fingerprint(rng, noise=9.0)}
        kept.append(KeptCase(found=found_case(f"k{number}", ("0", "1"), rng), fingerprints=prints))
    model = TrustedModel(
        name="made up",
        seed=0,
        minutes_per_fold=1.0,
        processor="any",
        identity=IDENTITY,
        labels=LABELS,
        shifts=("noise",),
        patient_of={case.case: case.case for case in calibration},
        kept_patient_of={case.found.case: case.found.case for case in kept},
    )
    return model, calibration, kept


def test_kept_masks_are_judged_as_predict_judges_them(items, tmp_path):
    model, calibration, kept = items
    splits = fitted_splits(model, calibration, splits=2)
    assert {split.model.counts.patients for split in splits} == {24}
    assert splits[0].without["noise"].counts.shifts == ()
    gates = gate_scores(kept, splits)
    masks = kept_masks(model, kept, splits, gates)
    assert len(masks.dice) == 8 * 2 * 2
    place = 0
    for case in kept:
        for one in case.found.passes:
            gate = splits[1].model.gate.look(case.fingerprints[one.shift])
            features = [{name: found.features for name, found in one.folds[fold].items()} for fold in one.folds]
            for said in splits[1].model.judge(features, one.pair, gate):
                assert masks.scores[PREDICTED][1, place] == pytest.approx(said.predicted_dice)
                assert masks.scores[SHIPPED][1, place] == pytest.approx(said.ranking)
                assert masks.lower[1, place] == pytest.approx(said.lower_bound)
                assert masks.used[1, place] == (said.verdict == "use")
                place += 1
    assert place == len(masks.dice)
    alone = masks_of_one_fold(model, kept, splits, gates)
    assert len(alone.dice) == 2 * len(masks.dice)
    assert PAIR not in alone.scores
    flagged = {row.kind: row for row in gate_rows(model, gates)}
    assert flagged["noise"].flagged == 1.0
    assert flagged["noise"].auroc == 1.0

    # And kept as a line
    worth = [
        Worth(
            sd_clean=0.1,
            scores=tuple(score_rows(each, kinds_of(each), draws=5)),
            differences=tuple(difference_rows(each, kinds_of(each), draws=5)),
            bounds=tuple(bound_rows(each, kinds_of(each), draws=5)),
            uses=tuple(use_rows(each, kinds_of(each), splits, draws=5)),
        )
        for each in (masks, alone)
    ]
    result = TrustResult(
        name="made up",
        seed=0,
        minutes_per_fold=1.0,
        processor="any",
        version="0",
        configuration="2d",
        folds=2,
        splits=2,
        fail_below=0.7,
        patients=30,
        kept_patients=8,
        kept_cases=8,
        why_no_use="24 patients are too few",
        all_folds=worth[0],
        one_fold=worth[1],
        gate=tuple(flagged.values()),
    )
    append_line(tmp_path / "trust.jsonl", result)
    append_line(tmp_path / "trust.jsonl", result)
    assert read_lines(TrustResult, tmp_path / "trust.jsonl") == [result]
    text = as_markdown(result)
    assert "| clean: 16 masks, " in text
    assert text.count("| pairwise fold Dice |") == 2  # one fold has none
    assert "No 'use' in some or all splits: 24 patients are too few." in text


def test_the_simulation_releases_masks_with_many_patients_and_none_with_few():
    many = simulate(120, failing=0.1, noise=0.3, target=0.05, runs=2)
    few = simulate(20, failing=0.1, noise=0.3, target=0.05, runs=1)
    assert many.runs_with_use == 2
    assert many.good_released > 0.5
    assert many.wrong_share < 0.05
    assert (few.runs_with_use, few.good_released) == (0, 0.0)
    assert "| 20 | 10% |" in simulation_table([many, few])
