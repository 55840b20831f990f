"""The quality model: what it learns of made-up items, what it promises, and what it says."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from builders.quality import IDENTITY, STRUCTURES, features_of, fitted, items_of
from segfw.base.records import UserError
from segfw.quality.quality_features import Spread, StructurePriors
from segfw.quality.quality_model import CLEAN, QualityModel
from segfw.quality.quality_worth import quality_worth
from segfw.quality.risk_coverage import spearman
from segfw.quality.selective_rule import least_released

PRIORS = {
    name: StructurePriors(
        log_mm3=Spread(mean=7, sd=0.2, number=20),
        offset_mm=(Spread(mean=0, sd=1, number=20),) * 3,
        cases=20,
        present=20 if name == "a" else 12,
    )
    for name in STRUCTURES
}


@dataclass(frozen=True)
class Said:
    verdict: str
    reasons: tuple[str, ...] = ()


@pytest.fixture(scope="module")
def learned():
    return fitted(items_of(200, shifts=("noise", "blur")), PRIORS)


def test_predictions_follow_the_dice_of_patients_that_took_no_part(learned):
    dice = np.array([item.dice for item in learned.scored.items])
    is_clean = np.array([item.shift == CLEAN for item in learned.scored.items])
    assert spearman(learned.foretold.predicted, dice) > 0.85
    assert np.abs(learned.foretold.predicted - dice).mean() < 0.05
    assert abs((learned.foretold.predicted - dice)[is_clean].mean()) < 0.02


def test_bounds_of_other_patients_hold_as_often_as_promised():
    covered = []
    for seed in range(8):
        found = fitted(items_of(120, seed))
        dice = np.array([item.dice for item in found.scored.items])
        covered.append((found.foretold.lower <= dice).mean())
    # 8 x 240 items, of which a patient's are drawn independently here: a standard error of 0.007, and of the bounds
    # themselves 0.01.
    assert np.mean(covered) == pytest.approx(0.9, abs=0.03)


def test_margins_are_narrow_where_much_is_predicted(learned):
    model = learned.model
    assert model.margin("a", 0.95) < model.margin("a", 0.5)
    assert [bound.structure for bound in model.bounds] == ["a", "b", None]
    assert all(bound.patients == 200 for bound in model.bounds)


def test_a_structure_of_few_patients_has_the_bound_of_all():
    items = [item for item in items_of(40) if item.structure == "a" or item.patient < "patient_020"]
    model = fitted(items).model
    assert [bound.structure for bound in model.bounds] == ["a", None]
    assert model.bound_of("b").structure is None
    assert model.bound_of("b").patients == 40


def test_cases_of_one_patient_count_once():
    model = fitted(items_of(35, cases_of_each=3)).model
    assert model.counts.cases == 105
    assert model.counts.patients == 35
    assert all(bound.patients == 35 for bound in model.bounds)
    assert model.use_rule.of_patients == 35


def test_few_patients_have_no_bound_and_no_use():
    model = fitted(items_of(8)).model
    assert [bound.factor for bound in model.bounds] == [None]
    judged = model.judge([{name: features_of(0.95, np.random.default_rng(0)) for name in STRUCTURES}])
    assert judged[0].lower_bound is None
    assert judged[0].verdict != "use"
    assert f"{least_released(0.05)} without any wrong mask" in " ".join(judged[0].reasons)


@pytest.mark.parametrize(("items", "message"), [(items_of(4), "4 calibration cases"), ([], "0 calibration cases")])
def test_too_few_cases_are_refused_in_a_sentence(items, message):
    with pytest.raises(UserError, match=message):
        fitted(items)


def without_masks(items, shift):
    nothing = items[0].features.model_copy(update={"voxels": 0, "volume_mm3": 0.0, "offset_mm": None})
    return [
        item.model_copy(update={"features": nothing, "dice": 0.0}) if item.shift == shift else item for item in items
    ]


def test_a_shift_under_which_nothing_is_found_has_no_row():
    found = fitted(without_masks(items_of(30, shifts=("noise", "inversion")), "inversion"))
    counts = found.model.counts.model_copy(update={"shifts": ("noise", "inversion")})
    worth = quality_worth(replace(found, model=found.model.model_copy(update={"counts": counts})))
    assert [each.shift for each in worth.shifts] == [CLEAN, "noise"]
    assert [each.shift for each in worth.unseen] == ["noise"]


def test_masks_of_spoilt_images_alone_are_refused_in_a_sentence():
    with pytest.raises(UserError, match="^nothing was found in any calibration image as it is"):
        fitted(without_masks(items_of(30, shifts=("noise",)), CLEAN))


def test_one_patient_is_refused_in_a_sentence():
    with pytest.raises(UserError, match="of one patient"):
        fitted(items_of(1, cases_of_each=6))


def test_what_is_used_is_wrong_no_more_often_than_said():
    shares = []
    released = []
    for seed in range(6):
        model = fitted(items_of(200, seed, shifts=("noise",))).model
        threshold = model.use_rule.threshold
        if threshold is None:
            continue
        new = [item for item in items_of(600, seed + 1000) if item.structure == "a"]
        predicted = np.array([model.score.of(item.features, "a") for item in new])
        is_wrong = np.array([item.dice < 0.7 for item in new])
        is_used = predicted >= threshold
        shares.append(is_wrong[is_used].mean())
        released.append(is_used[~is_wrong].mean())
    assert len(shares) >= 5
    assert sum(share > 0.05 for share in shares) <= 1  # one in ten may
    assert np.mean(released) > 0.6


def test_verdicts_go_down_with_the_mask(learned):
    model = learned.model
    rng = np.random.default_rng(1)
    verdicts = []
    for dice in np.linspace(0.96, 0.2, 60).tolist():
        judged = model.judge([{name: features_of(dice, rng, 0.0) for name in STRUCTURES}])
        assert [each.label for each in judged] == list(STRUCTURES)
        assert [each.value for each in judged] == [3, 7]
        verdicts.append(judged[0].verdict)
        assert judged[0].lower_bound < judged[0].predicted_dice
        assert (judged[0].verdict == "do-not-use") == (judged[0].p_fail > 0.5)
        assert judged[0].verdict != "use" or judged[0].predicted_dice >= model.use_rule.threshold
        low, high = judged[0].volume_interval_ml
        assert low < judged[0].volume_ml < high
    places = [("use", "look", "do-not-use").index(verdict) for verdict in verdicts]
    assert places == sorted(places)
    assert (places[0], places[-1]) == (0, 2)


@pytest.mark.parametrize("gate", ["odd", "far"])
def test_an_odd_image_is_never_used_and_says_why(learned, gate):
    good = [{name: features_of(0.96, np.random.default_rng(1), 0.0) for name in STRUCTURES}]
    judged = learned.model.judge(good, None, Said(gate, ("noisier than any training image",)))
    assert judged[0].verdict == "look"
    assert judged[0].reasons[0] == f"the image is {gate}: noisier than any training image"
    assert learned.model.judge(good, None, Said("usual"))[0].verdict == "use"


def test_folds_that_disagree_limit_what_is_predicted(learned):
    good = {name: features_of(0.96, np.random.default_rng(1), 0.0) for name in STRUCTURES}
    judged = learned.model.judge([good, good], {"a": 0.41, "b": 0.99})
    assert judged[0].predicted_dice == judged[0].ranking == 0.41
    assert "the folds agree on only 0.41 of it" in judged[0].reasons
    assert judged[1].predicted_dice < 0.99
    assert judged[1].ranking == judged[1].predicted_dice


def test_a_volume_far_from_the_training_masks_is_a_reason(learned):
    features = features_of(0.9, np.random.default_rng(1)).model_copy(update={"volume_mm3": float(np.exp(6))})
    judged = learned.model.judge([dict.fromkeys(STRUCTURES, features)])
    assert "its volume is 5.0 SD below the training masks'" in judged[0].reasons
    assert judged[0].volume_ml == pytest.approx(np.exp(6) / 1000)


def test_nothing_where_all_training_masks_have_something_is_not_to_be_used(learned):
    features = features_of(0.9, np.random.default_rng(1))
    none = features.model_copy(update={"voxels": 0, "volume_mm3": 0.0, "offset_mm": None})
    judged = learned.model.judge([dict.fromkeys(STRUCTURES, none)])
    assert judged[0].verdict == "do-not-use"
    assert judged[0].predicted_dice is None
    assert "nearly all training masks" in judged[0].reasons[0]
    # Of b, which eight of twenty lack, nothing may be right.
    assert judged[1].verdict == "look"
    assert "0 calibration cases" in judged[1].reasons[0]


def test_a_mask_is_empty_if_what_was_written_is(learned):
    """Networks look at masks of their own grid; what was written is their mean, decoded, without what was removed."""
    features = features_of(0.9, np.random.default_rng(1))
    none = features.model_copy(update={"voxels": 0, "volume_mm3": 0.0, "offset_mm": None})
    both = dict.fromkeys(STRUCTURES, features)
    # The networks found it, and nothing of it is left
    removed, kept = learned.model.judge([both, both], volumes_ml={"a": 0.0, "b": 1.5})
    assert (removed.predicted_dice, removed.verdict, removed.volume_ml) == (None, "do-not-use", 0.0)
    assert f"2 of 2 networks found up to {features.volume_mm3 / 1000:.3g} ml" in removed.reasons[1]
    assert kept.predicted_dice == pytest.approx(learned.model.predicted_dice("b", [features, features]))
    # No network found it, and something was written
    made, _ = learned.model.judge([dict.fromkeys(STRUCTURES, none)], volumes_ml={"a": 0.2, "b": 0.0})
    assert (made.predicted_dice, made.p_fail, made.verdict, made.volume_ml) == (None, 1.0, "do-not-use", 0.2)
    assert "no network finds it by itself" in made.reasons[0]


def test_empty_masks_are_counted():
    items = items_of(30)
    features = items[0].features.model_copy(update={"voxels": 0, "volume_mm3": 0.0, "offset_mm": None})
    items[1] = items[1].model_copy(update={"features": features, "dice": None})
    items[3] = items[3].model_copy(update={"features": features, "dice": 0.0})
    model = fitted(items).model
    assert (model.empty["b"].found_nothing, model.empty["b"].rightly) == (2, 1)
    assert model.counts.items == 58


def test_an_empty_mask_of_each_of_several_folds_is_one_case():
    items = items_of(30)
    features = items[0].features.model_copy(update={"voxels": 0, "volume_mm3": 0.0, "offset_mm": None})
    for index, fold in enumerate(("0", "1", "2")):
        update = {"features": features, "dice": None, "fold": fold}
        items.append(items[1].model_copy(update=update | ({"case": "other"} if index == 0 else {})))
    seen = fitted(items).model.empty[items[1].structure]
    assert (seen.found_nothing, seen.rightly) == (2, 2)


def test_it_is_the_same_after_a_file(learned, tmp_path):
    learned.model.save(tmp_path / "quality.json")
    again = QualityModel.load(tmp_path / "quality.json")
    assert again == learned.model
    features = [{name: features_of(0.8, np.random.default_rng(1)) for name in STRUCTURES}]
    assert again.judge(features) == learned.model.judge(features)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"configuration": "2d"}, "it is of 3d_fullres, not of 2d"),
        ({"folds": {"0": "a digest", "1": "trained anew"}}, "these weights of fold 1"),
        ({"folds": {"2": "x", "3": "y"}}, "these weights of folds 2 and 3"),
        ({"plan_digest": "other"}, "prepares images otherwise"),
        ({"structures": ("a", "c")}, "other names"),
    ],
)
def test_of_another_model_is_said_in_a_sentence(tmp_path, change, message):
    with pytest.raises(UserError, match=message) as caught:
        IDENTITY.require(IDENTITY.model_copy(update=change), tmp_path / "quality.json")
    assert str(caught.value).startswith(f"{tmp_path / 'quality.json'}: is of another model (")


def test_some_of_the_folds_are_the_same_model(tmp_path):
    IDENTITY.require(IDENTITY.model_copy(update={"folds": {"1": "another"}}), tmp_path)
