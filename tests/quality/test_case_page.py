"""The page of a case: what stands in it, that the mask's small moves are measured, and which cases are near."""

import re

import numpy as np
import pytest
import torch

from builders.calibrated import calibrated_model
from builders.data import mask_bytes
from builders.models import cascade_model, make_model, selection_of, write_fold
from builders.planning import manifest
from segfw.base.records import UserError
from segfw.dataset.cases import MANIFEST_FILE, Case
from segfw.model.load import load_model
from segfw.planning.plan import PLAN_FILE, Plan
from segfw.quality.case_page import agreement_table, changes_for, dice
from segfw.quality.case_quality import CaseQuality, quality_file
from segfw.quality.image_fingerprint import Fingerprint
from segfw.quality.nearest_cases import SeenCase, nearest_cases, training_fingerprints
from segfw.quality.small_changes import CHANGES, SHIFT, shifted, shifted_mask, with_gamma, with_noise
from segfw.quality.volume_intervals import interval_text
from segfw.verbs.predict import predict


def write_manifest(work, names):
    """That of a data set with cases of these names."""
    cases = tuple(Case(id=name, images=(work / f"{name}.nii.gz",)) for name in names)
    manifest().model_copy(update={"cases": cases}).save(work / MANIFEST_FILE)


def fingerprint(*values: float) -> Fingerprint:
    return Fingerprint(names=("p", "q"), values=values, thumbnails=((0.0,),))


def test_the_page_of_a_calibrated_model_tells_all_of_a_case(images, tmp_path, capsys):
    model = calibrated_model(tmp_path / "model")
    for number in range(5):
        seen = SeenCase(fingerprint=fingerprint(float(number), 0.0))
        (model / "calibration" / "3d_fullres").mkdir(parents=True, exist_ok=True)
        seen.save(model / "calibration" / "3d_fullres" / f"seen_{number}.json")
    masks = tmp_path / "masks"
    predict(model, images, masks, device="cpu", report=True)
    assert "for its page each case is predicted 4 times instead of once" in capsys.readouterr().out
    assert sorted(path.name for path in (masks / "report").iterdir()) == ["a.html", "b.html"]
    page = (masks / "report" / "a.html").read_text()
    assert page.count("data:image/png;base64,") == 3  # the mask, where folds differ, where it moves
    for text in (
        "Where folds disagree",
        "Predicted Dice",
        "bright",
        "Made for a test.",
        "Moved by 3 voxels",
        "3d_fullres",
    ):
        assert text in page
    for each in CaseQuality.load(quality_file(masks, "a")).structures:
        assert f">{interval_text(each.volume_interval_ml)}<" in page
    assert "http" not in re.sub(r"http://www\.w3\.org/\S+", "", page)  # needs no network
    predict(model, images, masks, device="cpu", report=True)
    assert "0 cases predicted, 2 were there" in capsys.readouterr().out


def test_a_model_that_is_not_calibrated_has_pages_too_and_its_masks_stay(images, tmp_path):
    model = make_model(tmp_path / "model")
    predict(model, images, tmp_path / "plain", device="cpu")
    predict(model, images, tmp_path / "paged", device="cpu", report=True)
    assert mask_bytes(tmp_path / "plain") == mask_bytes(tmp_path / "paged")
    page = (tmp_path / "paged" / "report" / "a.html").read_text()
    assert "The model is not calibrated" in page
    assert "One network predicted" in page
    assert not (tmp_path / "paged" / "quality").exists()


def test_pages_are_of_one_configuration(tmp_path, images):
    model = make_model(tmp_path / "model")
    plan = Plan.load(model / PLAN_FILE)
    full = plan.configurations["3d_fullres"]
    other = full.model_copy(update={"name": "2d"})
    plan.model_copy(update={"configurations": {"3d_fullres": full, "2d": other}}).save(model / PLAN_FILE)
    write_fold(model, other, "0", (2,))
    selection_of("3d_fullres", "2d").save(model / "selection.json")
    with pytest.raises(UserError, match="^report=True is of one configuration, but 3d_fullres and 2d are averaged"):
        predict(model, images, tmp_path / "masks", device="cpu", report=True)


def test_the_first_stage_of_a_cascade_need_not_follow_a_move(tmp_path):
    model = cascade_model(tmp_path / "model")
    names = [change.name for change in changes_for(load_model(model, "3d_cascade_fullres"))]
    assert names == ["noise of 0.1 SD", "greys to the power of 1.2"]
    assert len(changes_for(load_model(model, "3d_lowres"))) == 3


def test_a_move_and_back_is_no_move_but_at_the_border():
    image = torch.arange(2 * 9 * 10).reshape(1, 2, 9, 10).float()
    moved = shifted(image, SHIFT)
    assert moved[0, 1, 5, 7] == image[0, 1, 5 - SHIFT, 7 - SHIFT]
    back = shifted_mask(moved[0].numpy(), -SHIFT)
    np.testing.assert_array_equal(back[:, :-SHIFT, :-SHIFT], image[0].numpy()[:, :-SHIFT, :-SHIFT])


def test_noise_is_a_tenth_of_the_image_and_the_same_each_time():
    image = torch.from_numpy(np.random.default_rng(0).normal(5, 2, (2, 8, 20, 20))).float()
    image[1] *= 10
    first = with_noise(image, "a")
    assert (first - image).flatten(1).std(1).tolist() == pytest.approx([0.2, 2.0], rel=0.05)
    torch.testing.assert_close(first, with_noise(image, "a"), rtol=0, atol=0)
    assert (first != with_noise(image, "b")).any()


def test_gamma_keeps_the_ends_and_the_order():
    image = torch.tensor([-2.0, 0.0, 2.0])[None, None, None]
    found = with_gamma(image).flatten().tolist()
    assert found == pytest.approx([-2.0, 4 * 0.5**1.2 - 2, 2.0])
    assert len({change.name for change in CHANGES}) == 3


def test_dice_of_two_masks_is_counted_and_of_nothing_unknown():
    first = np.array([True, True, False, False])
    assert dice(first, np.array([False, True, True, True])) == pytest.approx(2 / 5)
    assert dice(first & False, first & False) is None


def test_the_nearest_cases_come_first_in_deviations_of_all():
    """Entries of four cases have a deviation of sqrt(1.25); the third one is 1 away in one of two entries."""
    training = {f"case_{number}": fingerprint(float(number), 0.0) for number in range(4)}
    found = nearest_cases(fingerprint(3.0, 0.0), training, most=2)
    assert [case for case, _ in found] == ["case_3", "case_2"]
    assert [apart for _, apart in found] == pytest.approx([0.0, np.sqrt(1 / 1.25 / 2)])
    assert nearest_cases(fingerprint(3.0, 0.0), dict(list(training.items())[:3])) == []
    other = Fingerprint(names=("p", "r"), values=(0.0, 0.0), thumbnails=((0.0,),))
    assert nearest_cases(other, training) == []


def test_training_cases_are_those_of_the_manifest(tmp_path):
    """A model file names none; cases that were given to ``calibrate --cases`` lie beside them and are none."""
    assert training_fingerprints(tmp_path / "model.zip", "3d_fullres") == {}
    work = tmp_path / "work"
    folder = work / "calibration" / "3d_fullres"
    folder.mkdir(parents=True)
    (folder / "damaged.json").write_text("{")
    SeenCase(fingerprint=fingerprint(1.0, 2.0)).save(folder / "whole.json")
    SeenCase(fingerprint=fingerprint(1.0, 3.0)).save(folder / "from_elsewhere.json")
    assert training_fingerprints(work, "3d_fullres") == {}  # of an imported model nobody knows
    write_manifest(work, ["whole", "damaged", "not_calibrated"])
    assert list(training_fingerprints(work, "3d_fullres")) == ["whole"]


def test_agreement_of_folds_and_changes_stands_in_one_table():
    from builders.probabilities import LABELS, record_of
    from segfw.grid.slabs import Slab
    from segfw.quality.member_maps import MemberMaps

    record = record_of()
    first = torch.zeros(3, *record.shape)
    first[1, :2] = 9
    first[0, 2:] = 9
    second = torch.zeros(3, *record.shape)
    second[1, :1] = 9
    second[0, 1:] = 9
    maps = MemberMaps(record, LABELS)
    maps.add(Slab(first=0, start=0, stop=record.shape[0], channels_azyx=torch.cat((first, second)), members=2))
    assert record.shape[0] > 2
    table = agreement_table(maps, {"moved": maps.classes[1]})
    by_title = {column.title: column.values for column in table.columns}
    assert by_title["Folds, by pairs"] == pytest.approx([2 / 3, 1.0])
    mean_slices = int((maps.mean_classes == 1).any((1, 2)).sum())
    assert by_title["Moved"] == [pytest.approx(2 / (1 + mean_slices)), None]
