"""The whole job on a small data set: what it leaves, that it goes on where it stopped, and that nothing is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from builders.data import blocks_case, write_nifti, write_raw
from builders.training import TIMINGS
from builders.waiting import kill, wait_until
from segfw.base.parallel import CasesFailed
from segfw.base.records import UserError
from segfw.evaluation.metrics import Scores
from segfw.evaluation.text import folds_table
from segfw.grid.store import StoredCase
from segfw.images.formats import read_volume
from segfw.model.load import load_model
from segfw.model.weights import load_tensors
from segfw.planning.plan import Plan
from segfw.planning.splits import Splits
from segfw.verbs.demo import demo
from segfw.verbs.plan_and_preprocess import plan_and_preprocess
from segfw.verbs.predict import predict
from segfw.verbs.run import run
from segfw.verbs.train import train

# Checkpoints after every epoch, so that a kill in training leaves one to resume from.
RUN = """
import sys, torch
torch.set_num_threads(1)
from segfw.training.checkpoint import Checkpoints
Checkpoints.is_due = Checkpoints.is_good_due = lambda self: True
from segfw.cli import main
sys.exit(main(sys.argv[1:]))
"""
SHORT = ["--configurations", "3d_fullres", "--folds", "0", "--epochs", "4", "--steps-per-epoch", "2"]
# Runs that are compared compute alike, whatever each would measure as the faster precision.
SHORT += ["--precision", "fp32"]


def start(raw: Path, work: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", RUN, "run", str(raw), str(work), *SHORT, "--device", "cpu"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(raw: Path, work: Path) -> Path:
    process = start(raw, work)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    return work


def contents(work: Path) -> dict[str, object]:
    """Every file by its relative path, with what must be equal after an interruption: all but clock times."""
    found: dict[str, object] = {}
    for path in sorted(file for file in work.rglob("*") if file.is_file()):
        name = str(path.relative_to(work))
        if ".segfw" in path.parts:  # how long each mask took
            continue
        if path.suffix == ".safetensors":
            tensors, _ = load_tensors(path)
            found[name] = {key: tensor.numpy().tobytes() for key, tensor in tensors.items()}
        elif path.name == "metrics.jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            found[name] = [{key: row[key] for key in row if key not in TIMINGS} for row in rows]
        elif path.suffix in (".html", ".png") or path.name in ("run.json", "log.txt"):
            found[name] = "a report, which tells the time"
        else:
            found[name] = path.read_bytes()
    return found


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    return write_raw(tmp_path_factory.mktemp("data") / "raw")


@pytest.fixture(scope="module")
def work(raw, tmp_path_factory) -> Path:
    """An undisturbed run."""
    return finish(raw, tmp_path_factory.mktemp("undisturbed") / "work")


STAGES = {
    "reading": "manifest.json",
    "planning": "splits.json",
    "preprocessing": "preprocessed/3d_fullres/case_02.json",
    "training": "runs/3d_fullres/fold_0/last.safetensors",
    "saving the weights": "runs/3d_fullres/fold_0/weights.safetensors",
    "validating": "runs/3d_fullres/fold_0/validation/*.nii.gz",
    "scoring": "runs/3d_fullres/fold_0/validation/scores.json",
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_run_ends_with_the_same_files(stage, raw, work, tmp_path):
    """Killed as soon as the stage's first file is there, and started again."""
    disturbed = tmp_path / "work"
    process = start(raw, disturbed)
    wait_until(lambda: list(disturbed.glob(STAGES[stage])), process)
    kill(process)
    assert not (disturbed / "summary.txt").exists(), "the run was too fast to be killed"
    finish(raw, disturbed)
    expected, found = contents(work), contents(disturbed)
    assert found.keys() == expected.keys()
    # The plan also says how long training is expected to take, which is measured anew by every run.
    assert [name for name in expected if found[name] != expected[name]] in ([], ["plan.json"])
    plans = [Plan.load(folder / "plan.json").without_estimates() for folder in (work, disturbed)]
    assert plans[0] == plans[1]


def test_a_finished_run_is_not_done_again(raw, work):
    before = {path: path.stat().st_mtime_ns for path in work.rglob("*") if path.is_file()}
    scores = run(raw, work, configurations=("3d_fullres",), folds=("0",), epochs=4, steps_per_epoch=2, device="cpu")
    changed = {path.name for path, time_ns in before.items() if path.stat().st_mtime_ns != time_ns}
    assert changed <= {"plan.json", "splits.json", "summary.txt", "run.toml", "log.txt"}
    dice = scores["3d_fullres"]["0"].foreground_mean.dice
    assert folds_table(scores) == f"3d_fullres: mean Dice {dice:.4f} (fold 0)\n"


def test_a_run_leaves_everything_a_reader_needs(work):
    plan = Plan.load(work / "plan.json")
    assert list(plan.configurations) == ["2d", "3d_fullres"]
    assert plan.labels.values == (0, 3, 7)
    fold = Splits.load(work / "splits.json").fold("0")
    folder = work / "runs" / "3d_fullres" / "fold_0"
    scores = Scores.load(folder / "validation" / "scores.json")
    assert set(scores.cases) == set(fold.validation)
    assert (folder / "validation" / "scores.csv").read_text().startswith("case,label,dice")
    assert "<html" in (folder / "report.html").read_text()
    assert not list(work.rglob(".partial-*"))


def test_masks_lie_on_the_grid_of_their_images_and_hold_file_values(raw, work, tmp_path):
    images = tmp_path / "images"
    image, _ = blocks_case(40, (25, 17, 11))
    write_nifti(images / "plain.nii.gz", image[::-1].copy(), (1.1, 1.4, 4.2))
    affine = np.array([[0, 0, -4.0, 3], [1.0, 0, 0, -2], [0, 1.5, 0, 9], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(image, affine), images / "turned_0000.nii.gz")
    with pytest.raises(UserError, match="no such file"):
        predict(work, tmp_path / "nowhere", tmp_path / "out")
    predict(work, images, tmp_path / "masks", device="cpu")
    for name, source in (("plain", "plain"), ("turned", "turned")):
        pattern = list(images.glob(f"{source}*"))[0]
        wanted, mask = nibabel.load(pattern), nibabel.load(tmp_path / "masks" / f"{name}.nii.gz")
        assert mask.shape == wanted.shape
        np.testing.assert_allclose(mask.affine, wanted.affine, atol=1e-5)
        assert set(np.unique(mask.dataobj)) <= {0, 3, 7}


def test_one_bad_image_does_not_stop_the_others(work, tmp_path):
    images = tmp_path / "images"
    for name in ("a", "c"):
        write_nifti(images / f"{name}.nii.gz", blocks_case(50)[0])
    (images / "b.nii.gz").write_bytes((images / "a.nii.gz").read_bytes()[:900])
    with pytest.raises(CasesFailed, match=r"(?s)1 case failed in prediction.*\n  b: .*b.nii.gz: cannot be read"):
        predict(work, images, tmp_path / "masks", device="cpu")
    assert sorted(path.name for path in (tmp_path / "masks").glob("*.nii.gz")) == ["a.nii.gz", "c.nii.gz"]
    assert "b" in json.loads((tmp_path / "masks" / "failures.json").read_text())["failed"]
    write_nifti(images / "b.nii.gz", blocks_case(51)[0])
    predict(work, images, tmp_path / "masks", device="cpu")
    assert (tmp_path / "masks" / "b.nii.gz").is_file()
    assert not (tmp_path / "masks" / "failures.json").exists()


def test_masks_of_another_model_are_not_mixed(work, tmp_path):
    write_nifti(tmp_path / "images" / "a.nii.gz", blocks_case(50)[0])
    predict(work, tmp_path / "images", tmp_path / "masks", device="cpu")
    with pytest.raises(UserError, match="holds masks of another model or other options"):
        predict(work, tmp_path / "images", tmp_path / "masks", device="cpu", step=0.7)


def test_folds_are_averaged(raw, work, tmp_path):
    """Two folds with the same weights predict what one of them does; with opposite weights they do not."""
    model = load_model(work)
    assert list(model.weights) == ["0"]
    copy = tmp_path / "model"
    for fold in ("0", "1"):
        folder = copy / "runs" / "3d_fullres" / f"fold_{fold}"
        folder.mkdir(parents=True)
        source = work / "runs" / "3d_fullres" / "fold_0" / "weights.safetensors"
        (folder / "weights.safetensors").write_bytes(source.read_bytes())
    (copy / "plan.json").write_bytes((work / "plan.json").read_bytes())
    predict(copy, raw / "imagesTr", tmp_path / "both", device="cpu")
    predict(work, raw / "imagesTr", tmp_path / "one", device="cpu")
    assert json.loads((tmp_path / "both" / "prediction.json").read_text())["folds"] == ["0", "1"]
    for path in (tmp_path / "one").glob("*.nii.gz"):
        both = read_volume(tmp_path / "both" / path.name)  # whose header says another model
        np.testing.assert_array_equal(both.array, read_volume(path).array)


def test_another_plan_does_not_replace_one_that_is_trained(raw, work):
    with pytest.raises(UserError, match=r"plan.json: would change, but runs/3d_fullres/fold_0 is trained by it"):
        plan_and_preprocess(raw, work, spacing_mm=(4.0, 2.0, 2.0))
    assert Plan.load(work / "plan.json").configurations["3d_fullres"].preprocessing.spacing_mm == (4.0, 1.5, 1.0)


def test_a_folder_with_other_things_is_not_written_into(raw, tmp_path):
    (tmp_path / "thesis.tex").write_text("important")
    with pytest.raises(UserError, match=r"holds other things \(thesis.tex\); give a new or empty folder"):
        plan_and_preprocess(raw, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_interrupted_fold_is_neither_lost_nor_silently_resumed(make_raw, tmp_path):
    raw = make_raw()
    plan_and_preprocess(raw, tmp_path / "work", configurations=("3d_fullres",))
    folder = tmp_path / "work" / "runs" / "3d_fullres" / "fold_0"
    folder.mkdir(parents=True)
    (folder / "last.safetensors").write_bytes(b"a checkpoint")
    with pytest.raises(UserError, match=r"holds an interrupted run; go on with resume=True, or start anew"):
        train(tmp_path / "work", "3d_fullres", "0")
    assert (folder / "last.safetensors").read_bytes() == b"a checkpoint"


def test_settings_out_of_range_name_the_option(make_raw, tmp_path):
    plan_and_preprocess(make_raw(), tmp_path / "work", plan_only=True)
    for values, option in (
        ({"epochs": 0}, "^epochs is 0; give 1 or more$"),
        ({"batch_size": -1}, "^batch_size is -1; give 1 or more$"),
    ):
        with pytest.raises(UserError, match=option):
            train(tmp_path / "work", "3d_fullres", "0", **values)
    with pytest.raises(UserError, match="fold '7' does not exist; choose 0 to 4 or all"):
        train(tmp_path / "work", "3d_fullres", "7")
    with pytest.raises(UserError, match=r"configuration '4d' is not in the plan; it has 2d, 3d_fullres"):
        train(tmp_path / "work", "4d", "0")


def test_fold_all_trains_on_every_case_and_has_no_validation(make_raw, tmp_path):
    work = tmp_path / "work"
    plan_and_preprocess(make_raw(), work, configurations=("2d",))
    assert train(work, "2d", "all", epochs=1, steps_per_epoch=2, batch_size=2, device="cpu") is None
    assert list(load_model(work).weights) == ["all"]
    assert not (work / "runs" / "2d" / "fold_all" / "validation").exists()


def test_a_changed_file_is_preprocessed_again_and_the_others_are_kept(make_raw, tmp_path):
    raw, work = make_raw(), tmp_path / "work"
    plan_and_preprocess(raw, work, configurations=("3d_fullres",))
    folder = work / "preprocessed" / "3d_fullres"
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.json")}
    image, mask = blocks_case(33)
    write_nifti(raw / "imagesTr" / "case_03_0000.nii.gz", image)
    write_nifti(raw / "labelsTr" / "case_03.nii.gz", mask)
    plan_and_preprocess(raw, work, configurations=("3d_fullres",))
    changed = {name for name, time_ns in before.items() if (folder / name).stat().st_mtime_ns != time_ns}
    assert "case_03.json" in changed
    assert (
        StoredCase.load(folder / "case_03.json").sources[0][1]
        == (raw / "imagesTr" / "case_03_0000.nii.gz").stat().st_size
    )


def test_a_case_that_fails_in_preprocessing_is_named_and_the_rest_completes(make_raw, tmp_path, monkeypatch):
    from segfw.grid import store

    original = store.preprocess_image

    def failing_once(volume, how, **options):
        if np.array_equal(volume.array, broken):
            raise ValueError("no room")
        return original(volume, how, **options)

    raw, work = make_raw(), tmp_path / "work"
    broken = read_volume(raw / "imagesTr" / "case_02_0000.nii.gz").array
    monkeypatch.setattr(store, "preprocess_image", failing_once)
    with pytest.raises(CasesFailed, match=r"(?s)1 case failed in preprocessing.*case_02: no room"):
        plan_and_preprocess(raw, work, configurations=("3d_fullres",))
    folder = work / "preprocessed" / "3d_fullres"
    assert sorted(path.stem for path in folder.glob("*.json")) == [f"case_{n:02}" for n in (0, 1, 3, 4, 5)]
    monkeypatch.setattr(store, "preprocess_image", original)
    plan_and_preprocess(raw, work, configurations=("3d_fullres",))
    assert (folder / "case_02.json").is_file()
    assert not (work / "failures.json").exists()


def test_model_directory_can_be_moved_and_holds_only_what_is_needed(work, raw, tmp_path):
    moved = tmp_path / "elsewhere"
    (moved / "runs" / "3d_fullres" / "fold_0").mkdir(parents=True)
    for name in ("plan.json", "runs/3d_fullres/fold_0/weights.safetensors"):
        (moved / name).write_bytes((work / name).read_bytes())
    weights = load_model(moved).weights["0"]
    assert all(torch.equal(weights[name], tensor) for name, tensor in load_model(work).weights["0"].items())
    (moved / "runs" / "3d_fullres" / "fold_0" / "weights.safetensors").write_bytes(b"\x80\x04cos\nsystem\n")
    with pytest.raises(UserError, match="is not a whole safetensors file"):
        load_model(moved)


def test_masks_are_never_written_over_images_or_foreign_masks(work, tmp_path):
    images = tmp_path / "images"
    write_nifti(images / "a.nii.gz", blocks_case(50)[0])
    before = (images / "a.nii.gz").read_bytes()
    for overwrite in (False, True):
        with pytest.raises(UserError, match="is a file or the folder of the images; give a folder of its own"):
            predict(work, images, images, device="cpu", overwrite=overwrite)
    assert (images / "a.nii.gz").read_bytes() == before
    write_nifti(tmp_path / "expert" / "a.nii.gz", blocks_case(50)[1])
    with pytest.raises(UserError, match="holds masks that segfw did not write; use another folder"):
        predict(work, images, tmp_path / "expert", device="cpu")
    assert not (tmp_path / "expert" / "prediction.json").exists()


def test_wrong_options_of_predict_leave_nothing_behind(work, tmp_path):
    write_nifti(tmp_path / "images" / "a.nii.gz", blocks_case(50)[0])
    for options, said in (({"step": 50.0}, "step"), ({"formats": (".jpg",)}, "formats"), ({"device": "xpu"}, "device")):
        with pytest.raises(UserError, match=said):
            predict(work, tmp_path / "images", tmp_path / "masks", **{"device": "cpu"} | options)
    predict(work, tmp_path / "images", tmp_path / "masks", device="cpu")


def test_cases_preprocessed_for_another_plan_are_not_trained_on(make_raw, tmp_path):
    raw, work = make_raw(), tmp_path / "work"
    plan_and_preprocess(raw, work, configurations=("3d_fullres",))
    plan_and_preprocess(raw, work, spacing_mm=(4.0, 2.0, 2.0), plan_only=True)
    with pytest.raises(UserError, match="case_0. was preprocessed for another plan; run segfw plan-and-preprocess"):
        train(work, "3d_fullres", "0", epochs=1, steps_per_epoch=1, device="cpu")


def test_overwrite_with_wrong_arguments_deletes_nothing(make_raw, tmp_path):
    work = tmp_path / "work"
    plan_and_preprocess(make_raw(), work, configurations=("2d",))
    train(work, "2d", "0", epochs=1, steps_per_epoch=1, batch_size=2, device="cpu")
    with pytest.raises(UserError, match="^epochs is 0; give 1 or more$"):
        train(work, "2d", "0", epochs=0, overwrite=True)
    assert list(load_model(work, "2d").weights) == ["0"]


def test_partial_validation_scores_are_completed(make_raw, tmp_path):
    work = tmp_path / "work"
    plan_and_preprocess(make_raw(), work, configurations=("2d",))
    options = {"epochs": 1, "steps_per_epoch": 1, "batch_size": 2, "device": "cpu"}
    whole = train(work, "2d", "0", **options)
    kept = work / "runs" / "2d" / "fold_0" / "validation" / "scores.json"
    first = next(iter(whole.cases))
    whole.model_copy(update={"cases": {first: whole.cases[first]}}).save(kept)  # as if the others had failed
    assert len(whole.cases) > 1
    assert train(work, "2d", "0", **options).cases.keys() == whole.cases.keys()
    report = kept.parents[1] / "report.html"
    report.unlink()  # as if it had been killed, or could not draw it, after the scores were written
    train(work, "2d", "0", **options)
    assert report.is_file()


def test_the_demo_does_not_touch_a_folder_of_somebody_else(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "scan.nii.gz").write_bytes(b"precious")
    with pytest.raises(UserError, match="holds other things; give a new folder for the demo"):
        demo(tmp_path, time_budget_s=1, device="cpu")
    assert (tmp_path / "data" / "scan.nii.gz").read_bytes() == b"precious"


def test_an_impossible_number_of_workers_is_refused(make_raw, tmp_path):
    with pytest.raises(UserError, match="^workers is -1; give 1 or more"):
        plan_and_preprocess(make_raw(), tmp_path / "work", workers=-1)
