"""``segfw retrain`` on a model of six patients: cases, folds, weights, arms, verdict; what is refused; going on."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import segfw
from builders.calibration import drawn_work, save_drawn
from builders.models import selection_of
from builders.retraining import HELD_OUT, NEW, OLD, RETURNING, STEPS, predicted, signed, trained_work, write_case
from builders.training import assert_same_weights, weights
from segfw.base.device import pick_precision
from segfw.base.records import UserError
from segfw.cli import main
from segfw.dataset.cases import MANIFEST_FILE, DatasetManifest
from segfw.evaluation.metrics import Scores
from segfw.grid.store import open_case
from segfw.model.promotion import Promotion, read_promotion
from segfw.model.source import fold_folder
from segfw.planning.plan import PLAN_FILE, Plan
from segfw.planning.splits import SPLITS_FILE, Splits
from segfw.planning.work_folder import load_plan_and_splits
from segfw.retraining import arm_settings
from segfw.retraining.enlarged_work import WorkContent, write_control_arm
from segfw.retraining.retraining_record import read_retraining
from segfw.retraining.reviewed_labels import require_as_taken
from segfw.standing.recognise import standing_of
from segfw.training import prepare
from segfw.training.schedule import FittedSettings

ROOT = Path(__file__).resolve().parents[2]
CPU = {"device": "cpu"}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A model, and the signed labels of new images: one unedited, one drawn on a blank page, the rest corrected."""
    home = tmp_path_factory.mktemp("retrain")
    work = trained_work(home)
    masks = predicted(work, home / "new", (*NEW, OLD[3], "patient09_frame01"))
    signed(masks, (*NEW, OLD[3]), unedited=("patient07_frame01",), blank=("patient08_frame01",))
    return home


@pytest.fixture(scope="module")
def done(home):
    """The retrained folder and the verdict."""
    promotion = segfw.retrain(home / "work", home / "work_2", [home / "new" / "masks"], **CPU)
    return home / "work_2", promotion


def fold(work, number):
    return fold_folder(work, "3d_fullres", str(number))


def test_cases_and_folds_are_those_of_before_and_the_new_ones(home, done):
    new, _ = done
    retraining = read_retraining(new)
    taken = {label.case.id: label for label in retraining.new}
    assert sorted(taken) == sorted(NEW)
    assert retraining.left_out == {OLD[3]: f"{OLD[3]}: its image is in the data already"}
    assert taken[RETURNING].held_out_of == ("0",)  # where his other scans are
    assert taken["patient06_frame01"].held_out_of == taken["patient06_frame02"].held_out_of
    assert {label.began_as for label in retraining.new} == {"edited", "unedited", "blank"}
    assert taken["patient07_frame01"].began_as == "unedited"
    assert taken["patient08_frame01"].began_as == "blank"
    manifest = DatasetManifest.load(new / MANIFEST_FILE)
    assert [case.id for case in manifest.cases] == [*OLD, *sorted(NEW)]
    splits = Splits.load(new / SPLITS_FILE)
    judge = taken["patient08_frame01"].held_out_of[0]
    for number, each in enumerate(splits.folds):
        here = str(number)
        assert each.validation[: len(HELD_OUT[number])] == HELD_OUT[number]
        extra = ("patient08_frame01",) if here == judge else ()
        assert each.validation[len(HELD_OUT[number]) :] == extra
        assert set(each.train) == {case for case in OLD if case not in HELD_OUT[number]} | {
            case for case, label in taken.items() if here not in label.held_out_of
        }
    assert splits.patients_of([RETURNING]) == {RETURNING: "patient00"}


def test_no_fold_begins_with_weights_that_saw_its_judges(home, done):
    """By the records of the trainings themselves: which cases they were told to train on."""
    new, _ = done
    before = Splits.load(home / "work" / SPLITS_FILE)
    folds = Splits.load(new / SPLITS_FILE).folds
    assert len(folds) == len(before.folds) == 3
    for number, after in enumerate(folds):
        patients = {case[:9] for case in after.validation}
        assert not patients & {case[:9] for case in before.folds[number].train}
        assert not patients & {case[:9] for case in after.train}


def test_both_arms_begin_with_the_folds_own_weights_and_take_the_same_steps(home, done):
    new, _ = done
    retraining = read_retraining(new)
    assert len(retraining.folds) == 3
    for number, start in enumerate(retraining.folds):
        base = FittedSettings.load(fold(home / "work", number) / "settings.json")
        assert start.original_steps == STEPS
        assert start.steps == round(0.2 * STEPS)
        for arm in (new, new / "control"):
            settings = FittedSettings.load(fold(arm, number) / "settings.json")
            assert settings.learning_rate == base.learning_rate / 2
            assert settings.momentum == base.momentum
            assert settings.batch_size == base.batch_size
            assert settings.seed == 1
            run = json.loads((fold(arm, number) / "run.json").read_text())
            assert run["end"]["steps"] == start.steps
        # So little is moved by two steps that the weights tell where they began
        own = distance(fold(new, number), fold(home / "work", number))
        others = [distance(fold(new, number), fold(home / "work", other)) for other in range(3) if other != number]
        assert own < 0.5 * min(others)
        assert distance(fold(new, number), fold(new / "control", number)) > 0


def distance(first, second):
    ours = weights(first)
    theirs = weights(second)
    return float(sum(torch.sum((ours[name] - theirs[name]) ** 2) for name in ours) ** 0.5)


def test_new_masks_are_learned_as_they_were_signed_and_old_ones_are_shared(home, done):
    new, _ = done
    plan = Plan.load(new / PLAN_FILE)
    assert plan.configurations == Plan.load(home / "work" / PLAN_FILE).configurations
    assert plan.training_cases == len(OLD) + len(NEW)
    name = f"{OLD[0]}.image.b2nd"
    stored = new / "preprocessed" / "3d_fullres"
    assert os.path.samefile(stored / name, home / "work" / "preprocessed" / "3d_fullres" / name)
    import nibabel

    for case in NEW:
        classes = np.asarray(open_case(stored, case).classes[:])
        expert = nibabel.load(home / "new" / "expert" / f"{case}.nii.gz").get_fdata()
        if case == "patient07_frame01":
            expert = nibabel.load(home / "new" / "masks" / f"{case}.nii.gz").get_fdata()
        counts = [int((expert == value).sum()) for value in (3, 7)]
        assert [int((classes == index).sum()) for index in (1, 2)] == counts


def test_the_verdict_is_of_the_old_validation_cases_and_told_everywhere(home, done, capsys):
    new, promotion = done
    assert promotion == read_promotion(new)
    assert promotion.judged_on == "validation"
    assert (promotion.mean.cases, promotion.mean.patients) == (len(OLD), 6)
    assert (promotion.new_cases, promotion.unedited_cases, promotion.blank_cases) == (5, 1, 1)
    assert promotion.expert_minutes == pytest.approx(5.0)  # a minute each; that of the case that is left out is not
    by_hand = []
    for number, part in enumerate(HELD_OUT):
        ours = Scores.load(fold(new, number) / "validation" / "scores.json").cases
        theirs = Scores.load(fold(new / "control", number) / "validation" / "scores.json").cases
        by_hand += [(ours[case]["dark"].dice or 0) - (theirs[case]["dark"].dice or 0) for case in part]
    dark = next(gain for gain in promotion.structures if gain.structure == "dark")
    assert dark.over_control == pytest.approx(np.mean(by_hand))
    assert not promotion.is_promoted  # two steps are no gain
    assert promotion.recommended == (home / "work").resolve()
    standing = standing_of(new)
    assert "NOT promoted" in standing.text()
    assert standing.next.startswith(f"segfw predict {promotion.recommended}")
    page = (new / "retrain.html").read_text()
    assert "not promoted" in page
    assert "simulated" not in page
    capsys.readouterr()
    segfw.predict(new, home / "new" / "images", home / "again", device="cpu", precision="fp32")
    assert f"warning: {new} is NOT promoted, use {promotion.recommended}" in capsys.readouterr().out


def test_the_same_command_does_nothing_again_and_ends_with_1_where_it_is_not_promoted(home, done, capsys):
    new, promotion = done
    times = {path: path.stat().st_mtime_ns for path in new.rglob("*.safetensors")}
    words = ["retrain", str(home / "work"), str(new), "--labels", str(home / "new" / "masks"), "--device", "cpu"]
    assert main(words) == 1
    assert {path: path.stat().st_mtime_ns for path in new.rglob("*.safetensors")} == times
    assert read_promotion(new) == promotion
    said = capsys.readouterr().out
    assert "already trained" in said
    assert f"{new}: NOT promoted" in said
    assert main([*words, "--seed", "2"]) == 2
    assert "was begun with seed 1, not 2" in capsys.readouterr().err


def test_a_second_round_goes_on_from_the_first(home, done, tmp_path):
    """Old are all cases of the first folder; length and rate are shares of the first training of all."""
    first, _ = done
    masks = predicted(first, tmp_path / "more", ("patient10_frame01", "patient07_frame02"))
    signed(masks, ("patient10_frame01", "patient07_frame02"))
    segfw.retrain(first, tmp_path / "third", [masks], **CPU)
    before = Splits.load(first / SPLITS_FILE)
    after = Splits.load(tmp_path / "third" / SPLITS_FILE)
    retraining = read_retraining(tmp_path / "third")
    taken = {label.case.id: label for label in retraining.new}
    out = [str(number) for number, each in enumerate(before.folds) if "patient07_frame01" not in each.train]
    assert list(taken["patient07_frame02"].held_out_of) == out
    for number, each in enumerate(after.folds):
        assert each.train[: len(before.folds[number].train)] == before.folds[number].train
        start = retraining.folds[number]
        assert start.original_steps == STEPS
        assert start.learning_rate == read_retraining(first).folds[number].learning_rate


@pytest.mark.skipif(os.name != "posix", reason="kills as POSIX systems do")
def test_a_training_that_is_killed_goes_on_bit_for_bit(home, done, tmp_path):
    """Both arms of every fold end with the weights that they have without an interruption."""
    whole, _ = done
    code = (
        "import sys, os, signal\n"
        "import segfw.training.epochs as epochs\n"
        "import segfw.verbs.train as verb\n"
        "trained = verb.train\n"
        "calls = []\n"
        "def train(*arguments, **more):\n"
        "    result = trained(*arguments, **more)\n"
        "    calls.append(1)\n"
        "    if len(calls) == 3: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return result\n"
        "verb.train = train\n"
        "from segfw.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    words = ["retrain", str(home / "work"), str(tmp_path / "new"), "--labels", str(home / "new" / "masks")]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        [sys.executable, "-c", code, *words, "--device", "cpu"], env=environment, check=False, timeout=300
    )
    assert process.returncode == -signal.SIGKILL
    assert read_promotion(tmp_path / "new") is None
    standing = standing_of(tmp_path / "new")
    assert standing.next.startswith("segfw retrain ")
    segfw.retrain(home / "work", tmp_path / "new", [home / "new" / "masks"], **CPU)
    for number in range(3):
        assert_same_weights(fold(whole, number), fold(tmp_path / "new", number))
        assert_same_weights(fold(whole / "control", number), fold(tmp_path / "new" / "control", number))
    mine = read_promotion(tmp_path / "new")
    theirs = read_promotion(whole)
    assert mine.structures == theirs.structures


def test_a_test_set_decides_where_one_is_given(home, tmp_path):
    for number in range(20, 26):
        write_case(tmp_path / "test", f"patient{number}_frame01")
    (tmp_path / "test" / "labels.csv").write_text("value,name\n1,dark\n2,bright\n")
    for path in (tmp_path / "test" / "labels").iterdir():
        renumber(path, {7: 1, 3: 2})
    promotion = segfw.retrain(
        home / "work", tmp_path / "new", [home / "new" / "masks"], test=tmp_path / "test", folds=("1",), **CPU
    )
    assert promotion.judged_on == "test"
    assert promotion.mean.cases == 6
    assert promotion.extra_steps == 2
    scores = Scores.load(tmp_path / "new" / "test" / "new" / "validation" / "scores.json")
    assert sorted(scores.cases) == [f"patient{number}_frame01" for number in range(20, 26)]
    assert scores.cases["patient20_frame01"]["dark"].tp + scores.cases["patient20_frame01"]["dark"].fn == 4 * 6 * 4


def renumber(path, meaning):
    import nibabel

    image = nibabel.load(path)
    values = np.asarray(image.dataobj)
    changed = sum(np.uint8(new) * (values == old) for old, new in meaning.items())
    nibabel.save(nibabel.Nifti1Image(changed.astype(np.uint8), image.affine), path)


def test_the_control_computes_in_what_the_new_arm_was_found_to_be_faster_in(home, tmp_path, monkeypatch):
    """Where both are about equally fast, or the arms train on different days, each would find something else."""
    new = tmp_path / "new"

    def pick(name, device, **more):
        is_first = not (fold(new, 0) / "weights.safetensors").is_file()
        return pick_precision(("bf16" if is_first else "fp32") if name == "auto" else name, device, **more)

    monkeypatch.setattr(prepare, "pick_precision", pick)
    monkeypatch.setattr(
        arm_settings,
        "base_settings",
        lambda *place: replace(FittedSettings.load(fold(place[0], 0) / "settings.json"), precision="auto"),
    )
    segfw.retrain(home / "work", new, [home / "new" / "masks"], folds=("0",), **CPU)
    for arm in (new, new / "control"):
        assert FittedSettings.load(fold(arm, 0) / "settings.json").training_precision == "bf16"


def test_new_weights_train_for_the_models_own_length(home, tmp_path):
    promotion = segfw.retrain(
        home / "work", tmp_path / "new", [home / "new" / "masks"], scratch=True, folds=("0",), **CPU
    )
    start = read_retraining(tmp_path / "new").folds[0]
    base = FittedSettings.load(fold(home / "work", 0) / "settings.json")
    assert (start.steps, start.learning_rate) == (STEPS, base.learning_rate)
    assert promotion.extra_steps == STEPS
    assert distance(fold(tmp_path / "new", 0), fold(home / "work", 0)) > 1


def test_reviewed_labels_are_taken_when_asked_for(home, tmp_path, capsys):
    masks = predicted(home / "work", tmp_path, ("patient11_frame01", "patient12_frame01"))
    signed(masks, ("patient11_frame01",), only_reviewed=("patient11_frame01",))
    words = ["retrain", str(home / "work"), str(tmp_path / "new"), "--labels", str(masks), "--device", "cpu"]
    assert main([*words, "--raw-only"]) == 2
    assert "holds no signed label (1 DRAFT and 1 REVIEWED); sign them" in capsys.readouterr().err
    assert main([*words, "--raw-only", "--states", "reviewed"]) == 0
    assert json.loads((tmp_path / "new" / "dataset.json").read_text())["numTraining"] == len(OLD) + 1


def test_the_enlarged_data_set_is_one_that_run_takes(home, tmp_path):
    raw = tmp_path / "raw"
    assert segfw.retrain(home / "work", raw, [home / "new" / "masks"], raw_only=True, **CPU) is None
    assert sorted(path.name for path in (raw / "signed").iterdir()) == [f"{case}.nii.gz" for case in sorted(NEW)]
    plan = segfw.plan_and_preprocess(
        raw, tmp_path / "work", groups=raw / "patients.csv", configurations=("3d_fullres",), device="cpu"
    )
    assert plan.training_cases == len(OLD) + len(NEW)
    assert plan.labels.names == ("background", "bright", "dark")
    folds = Splits.load(tmp_path / "work" / SPLITS_FILE)
    assert [each.validation[: len(part)] for each, part in zip(folds.folds, HELD_OUT)] == list(HELD_OUT)
    assert folds.patients_of([RETURNING]) == {RETURNING: "patient00"}
    stored = tmp_path / "work" / "preprocessed" / "3d_fullres"
    import nibabel

    expert = nibabel.load(home / "new" / "expert" / f"{RETURNING}.nii.gz").get_fdata()
    assert json.loads((stored / f"{RETURNING}.json").read_text())["label_values"] == [0, 3, 7]
    written = nibabel.load(raw / "signed" / f"{RETURNING}.nii.gz").get_fdata()
    assert np.array_equal(written, expert)


def refused(home, new, *labels, **options):
    with pytest.raises(UserError) as caught:
        segfw.retrain(home / "work", new, list(labels) or [home / "new" / "masks"], **CPU | options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_refused_before_anything_is_written(home, done, tmp_path):
    new = tmp_path / "new"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    assert "is not empty and was not begun by segfw retrain" in refused(home, tmp_path / "other")
    assert "lies inside" in refused(home, home / "work" / "new")
    assert "no such folder" in refused(home, new, tmp_path / "nothing")
    assert "is no folder of segfw's masks" in refused(home, new, tmp_path / "other")
    assert "fold 7 of 3d_fullres is not trained to its end" in refused(home, new, folds=("7",))
    assert "'(nobody)': matches no case id" in refused(home, new, groups="(nobody)")
    assert "has a label here and in" in refused(home, new, home / "new" / "masks", home / "new" / "masks")
    test = tmp_path / "test"
    write_case(test, "patient06_frame03")
    write_case(test, "patient30_frame01")
    (test / "labels.csv").write_text("value,name\n3,bright\n7,dark\n")
    assert "is of patient 'patient06', as is 'patient06_frame0" in refused(home, new, test=test)
    (test / "images" / "patient06_frame03.nii.gz").unlink()
    (test / "labels" / "patient06_frame03.nii.gz").unlink()
    shutil.copy(home / "raw" / "images" / f"{OLD[2]}.nii.gz", test / "images" / "patient30_frame01.nii.gz")
    assert f"is the same image as that of '{OLD[2]}'" in refused(home, new, test=test)
    assert not new.exists()


def test_of_two_that_select_averages_one_is_to_be_named(tmp_path):
    work = drawn_work(tmp_path)
    plan = Plan.load(work / PLAN_FILE)
    full = plan.configurations["3d_fullres"]
    both = {"3d_fullres": full, "3d_lowres": full.model_copy(update={"name": "3d_lowres"})}
    plan.model_copy(update={"configurations": both}).save(work / PLAN_FILE)
    save_drawn(work, "3d_lowres", "0", 5)
    selection_of(*both).save(work / "selection.json")
    said = refused(tmp_path, tmp_path / "new")
    assert said == f"{work / 'selection.json'}: averages 3d_fullres and 3d_lowres; choose one with configuration"


def test_a_label_that_changed_after_it_was_signed_is_refused(home, tmp_path):
    shutil.copytree(home / "new", tmp_path / "new")
    masks = tmp_path / "new" / "masks"
    version = next((masks / "review" / "labels" / RETURNING).glob("*.nii.gz"))
    shutil.copy(tmp_path / "new" / "expert" / "patient06_frame01.nii.gz", version)
    assert f"{RETURNING} (mask): changed after it was signed" in refused(home, tmp_path / "out", masks)


def test_a_label_that_changed_before_the_retraining_goes_on_is_refused(done):
    new, _ = done
    taken = read_retraining(new).new
    require_as_taken(taken)
    changed = taken[1].model_copy(update={"sha256": "0" * 64})
    with pytest.raises(UserError, match=f"is not the version 1 of {changed.case.id} that was taken"):
        require_as_taken([taken[0], changed])


def test_another_image_under_an_old_name_is_refused_and_an_old_image_under_a_new_name_is_left_out(home, tmp_path):
    write_case(tmp_path / "first", "somebody", labels="expert")
    (tmp_path / "first" / "images" / "somebody.nii.gz").rename(tmp_path / "first" / "images" / f"{OLD[4]}.nii.gz")
    (tmp_path / "first" / "expert" / "somebody.nii.gz").rename(tmp_path / "first" / "expert" / f"{OLD[4]}.nii.gz")
    segfw.predict(home / "work", tmp_path / "first" / "images", tmp_path / "first" / "masks", **CPU)
    signed(tmp_path / "first" / "masks", (OLD[4],))
    assert f"case '{OLD[4]}' has the name of a case" in refused(home, tmp_path / "out", tmp_path / "first" / "masks")
    for folder, source in (("images", "images"), ("expert", "labels")):
        (tmp_path / "second" / folder).mkdir(parents=True)
        shutil.copy(
            home / "raw" / source / f"{OLD[4]}.nii.gz", tmp_path / "second" / folder / "patient40_frame01.nii.gz"
        )
    segfw.predict(home / "work", tmp_path / "second" / "images", tmp_path / "second" / "masks", **CPU)
    signed(tmp_path / "second" / "masks", ("patient40_frame01",))
    said = refused(home, tmp_path / "out", tmp_path / "second" / "masks")
    assert f"none of them new: patient40_frame01: its image is in the data already, as {OLD[4]}" in said


def test_a_model_that_was_trained_anew_meanwhile_is_refused(home, tmp_path):
    work = tmp_path / "work"
    shutil.copytree(home / "work", work)
    segfw.retrain(work, tmp_path / "new", [home / "new" / "masks"], folds=("0",), **CPU)
    shutil.copy(fold(work, 1) / "weights.safetensors", fold(work, 0) / "weights.safetensors")
    with pytest.raises(UserError, match="is not what .* was begun with"):
        segfw.retrain(work, tmp_path / "new", [home / "new" / "masks"], folds=("0",), **CPU)


def test_a_model_without_scores_of_all_its_validation_cases_is_refused(home, tmp_path):
    work = tmp_path / "work"
    shutil.copytree(home / "work", work)
    scores = fold(work, 2) / "validation" / "scores.json"
    kept = Scores.load(scores)
    kept.model_copy(update={"cases": {OLD[5]: kept.cases[OLD[5]]}}).save(scores)
    with pytest.raises(UserError, match=f"has no scores of {OLD[6]}.*segfw train .* 3d_fullres 2 makes them"):
        segfw.retrain(work, tmp_path / "new", [home / "new" / "masks"], **CPU)


def test_old_cases_are_copied_where_the_disk_has_no_links(home, tmp_path, monkeypatch, capsys):
    plan, splits = load_plan_and_splits(home / "work")
    base = WorkContent.load(home / "work", plan, splits)

    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    write_control_arm(tmp_path, base, plan.configuration("3d_fullres"), workers=1)
    assert "7 old cases copied (" in capsys.readouterr().out
    stored = tmp_path / "control" / "preprocessed" / "3d_fullres"
    theirs = home / "work" / "preprocessed" / "3d_fullres"
    names = sorted(path.name for path in theirs.iterdir())
    assert sorted(path.name for path in stored.iterdir()) == names
    assert all((stored / name).read_bytes() == (theirs / name).read_bytes() for name in names)
    assert not os.path.samefile(stored / names[0], theirs / names[0])
    (stored / f"{OLD[0]}.json").unlink()  # as a killed call leaves it
    write_control_arm(tmp_path, base, plan.configuration("3d_fullres"), workers=1)
    assert (stored / f"{OLD[0]}.json").read_bytes() == (theirs / f"{OLD[0]}.json").read_bytes()


def test_old_cases_that_are_gone_from_the_first_folder_are_made_again(home, tmp_path, capsys):
    work = tmp_path / "work"
    shutil.copytree(home / "work", work)
    (work / "preprocessed" / "3d_fullres" / f"{OLD[3]}.json").unlink()
    plan, splits = load_plan_and_splits(work)
    base = WorkContent.load(work, plan, splits)
    write_control_arm(tmp_path, base, plan.configuration("3d_fullres"), workers=1)
    said = capsys.readouterr().out
    assert "6 old cases linked" in said
    assert "preprocessed 1 case into" in said
    ours = open_case(tmp_path / "control" / "preprocessed" / "3d_fullres", OLD[3])
    theirs = open_case(home / "work" / "preprocessed" / "3d_fullres", OLD[3])
    assert np.array_equal(ours.image[:], theirs.image[:])
    assert np.array_equal(ours.classes[:], theirs.classes[:])


def test_a_promotion_names_the_new_folder(done):
    _, promotion = done
    gained = promotion.model_copy(update={"is_promoted": True, "recommended": Path("work_2"), "why": "it gained"})
    assert Promotion.parse(gained.model_dump_json(), "text").text == "promoted: it gained"
