"""Work folders and model files that segfw wrote before its rooms were rebuilt are read, go on, and predict the same.

The files in written_before/ are those of commit af6f1b4 and are never written anew; their README says what each is.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from cpu_kind import NEARLY, NEARLY_ALL_VOXELS, NEARLY_WEIGHTS, cpu_kind

from builders.training import TIMINGS
from builders.written_before import WRITTEN, written_copy
from segfw.dataset.cases import DatasetManifest
from segfw.evaluation.metrics import Scores
from segfw.grid.store import open_case
from segfw.images.formats import read_volume
from segfw.inference.predictor import Predictor
from segfw.inference.probabilities import read_probabilities
from segfw.model.load import load_model
from segfw.model.selection import load_selection
from segfw.model.source import ModelSource
from segfw.model.training_record import RunRecord, read_metrics
from segfw.model.weights import load_tensors
from segfw.planning.fingerprint import Fingerprint
from segfw.planning.plan import Plan
from segfw.planning.splits import Splits
from segfw.training.settings import TrainSettings
from segfw.verbs.evaluate import evaluate
from segfw.verbs.export import export_model
from segfw.verbs.plan_and_preprocess import plan_and_preprocess
from segfw.verbs.predict import predict
from segfw.verbs.select import select
from segfw.verbs.train import train

EXPECTED = WRITTEN / "expected"
IS_SAME_CPU = json.loads((EXPECTED / "cpu_kind.json").read_text()) == cpu_kind()
FP32 = {"device": "cpu", "precision": "fp32"}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """As when the files were written: sums of several threads may round differently."""
    torch.set_num_threads(1)


@pytest.fixture
def written(tmp_path) -> Path:
    """A copy to work in, whose manifest and preprocessed cases name the images beside it."""
    folder = written_copy(tmp_path / "written")
    for path in (folder / "work" / "preprocessed" / "3d_fullres").glob("*.json"):
        for file, _, changed_ns in json.loads(path.read_text())["sources"]:
            os.utime(file, ns=(changed_ns, changed_ns))  # a checkout sets new times, by which images count as changed
    return folder


def assert_same_weights(path: Path, expected: Path) -> None:
    found = load_tensors(path)[0]
    wanted = load_tensors(expected)[0]
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        if IS_SAME_CPU:
            assert torch.equal(found[name], tensor), name
        else:
            torch.testing.assert_close(found[name], tensor, rtol=0, atol=NEARLY_WEIGHTS)


def assert_same_metrics(folder: Path, expected: Path) -> None:
    """All that both have written, but times; a later version may write more."""
    rows = read_metrics(folder)
    wanted = read_metrics(expected)
    assert len(rows) == len(wanted)
    for row, old in zip(rows, wanted):
        for name in old.keys() - set(TIMINGS):
            if IS_SAME_CPU or old[name] is None or isinstance(old[name], str):
                assert row[name] == old[name], name
            else:
                np.testing.assert_allclose(row[name], old[name], rtol=NEARLY, atol=NEARLY, err_msg=name)


def assert_same_masks(folder: Path, expected: Path) -> None:
    wanted = sorted(path.name for path in expected.glob("*.nii.gz"))
    assert wanted
    for name in wanted:
        found = read_volume(folder / name)
        old = read_volume(expected / name)
        np.testing.assert_array_equal(found.geometry.affine, old.geometry.affine)
        assert found.array.dtype == old.array.dtype
        assert found.array.shape == old.array.shape
        assert np.mean(found.array != old.array) <= (0 if IS_SAME_CPU else NEARLY_ALL_VOXELS), name


def assert_same_scores(path: Path, expected: Path) -> None:
    """Every value of the old scores; a later version may write more."""
    found = Scores.load(path)
    old = json.loads(expected.read_text())
    told_before = tuple(note for note in found.notes if note in old["notes"])
    assert_holds(found.model_copy(update={"notes": told_before}).model_dump(mode="json"), old)


def assert_holds(found: object, wanted: object, where: str = "") -> None:
    if isinstance(wanted, dict):
        assert isinstance(found, dict), where
        for key, value in wanted.items():
            assert key in found, f"{where}: {key} is missing"
            assert_holds(found[key], value, f"{where}.{key}")
    elif isinstance(wanted, list):
        assert isinstance(found, list), where
        assert len(found) == len(wanted), where
        for index, value in enumerate(wanted):
            assert_holds(found[index], value, f"{where}[{index}]")
    elif isinstance(wanted, float) and not IS_SAME_CPU:
        assert found == pytest.approx(wanted, rel=0.05, abs=0.05), where
    else:
        assert found == wanted, where


def test_every_record_of_the_work_folder_is_read(written):
    work = written / "work"
    assert list(Plan.load(work / "plan.json").configurations) == ["2d", "3d_fullres"]
    assert Splits.load(work / "splits.json").fold("1").validation == ("case_02", "case_03")
    assert [case.id for case in DatasetManifest.load(work / "manifest.json").cases] == [f"case_0{n}" for n in range(6)]
    assert len(Fingerprint.load(work / "fingerprint.json").cases) == 6
    folder = work / "runs" / "3d_fullres" / "fold_1"
    assert TrainSettings.load(folder / "settings.json").seed == 5
    assert [session.how for session in RunRecord.load(folder / "run.json").sessions] == ["started"]
    assert [row["epoch"] for row in read_metrics(folder)] == [0, 1]


def test_the_plan_is_made_again_as_it_was(written, tmp_path):
    """From the same images; the digest of the request holds the folder of the images, and estimates are measured."""
    plan = plan_and_preprocess(
        written / "raw",
        tmp_path / "new",
        splits=written / "raw" / "folds.json",
        gpu_memory_gb=2,
        configurations=("2d", "3d_fullres"),
        device="cpu",
        workers=1,
    )
    before = Plan.load(EXPECTED / "plan_as_made.json")
    assert plan.without_estimates() == before.without_estimates()
    for name in ("2d", "3d_fullres"):
        for case in ("case_00", "case_05"):
            new = open_case(tmp_path / "new" / "preprocessed" / name, case)
            old = open_case(WRITTEN / "work" / "preprocessed" / name, case)
            np.testing.assert_array_equal(new.classes[:], old.classes[:])
            np.testing.assert_allclose(new.image[:], old.image[:], rtol=0, atol=0 if IS_SAME_CPU else NEARLY)


def test_an_interrupted_fold_goes_on_to_the_same_end(written):
    train(written / "work", "3d_fullres", "1", device="cpu", resume=True)
    folder = written / "work" / "runs" / "3d_fullres" / "fold_1"
    assert_same_weights(folder / "weights.safetensors", EXPECTED / "resumed" / "weights.safetensors")
    assert_same_metrics(folder, EXPECTED / "resumed")
    assert_same_masks(folder / "validation", EXPECTED / "resumed" / "masks")
    assert_same_scores(folder / "validation" / "scores.json", EXPECTED / "resumed" / "scores.json")
    assert [session.how for session in RunRecord.load(folder / "run.json").sessions] == ["started", "resumed"]


def test_a_finished_fold_is_extended_to_the_same_end(written):
    train(written / "work", "3d_fullres", "0", device="cpu", extend_epochs=2)
    folder = written / "work" / "runs" / "3d_fullres" / "fold_0"
    assert_same_weights(folder / "weights.safetensors", EXPECTED / "extended" / "weights.safetensors")
    assert_same_metrics(folder, EXPECTED / "extended")
    assert_same_masks(folder / "validation", EXPECTED / "extended" / "masks")
    assert_same_scores(folder / "validation" / "scores.json", EXPECTED / "extended" / "scores.json")


def test_a_finished_fold_is_not_trained_again(written, capsys):
    folder = written / "work" / "runs" / "3d_fullres" / "fold_0"
    scores = train(written / "work", "3d_fullres", "0", device="cpu")
    assert "is already trained" in capsys.readouterr().out
    old = Scores.load(WRITTEN / "work" / "runs" / "3d_fullres" / "fold_0" / "validation" / "scores.json")
    assert scores.model_copy(update={"notes": old.notes}) == old  # later versions note how short a training was
    assert_same_weights(folder / "weights.safetensors", WRITTEN / folder.relative_to(written) / "weights.safetensors")


def test_the_selection_is_followed_and_predicts_the_same_masks(written, tmp_path, capsys):
    selection = load_selection(written / "work")
    assert selection.configurations == ("3d_fullres",)
    assert selection.folds == {"3d_fullres": ("0",)}
    predict(written / "work", written / "raw" / "imagesTs", tmp_path / "masks", **FP32)
    assert "as segfw select chose: 3d_fullres" in capsys.readouterr().out
    assert_same_masks(tmp_path / "masks", EXPECTED / "masks_selected")


def test_selecting_again_keeps_what_was_predicted_and_comes_to_the_same(written, capsys):
    kept = sorted((written / "work" / "selection").rglob("*.b2nd"))
    before = {path: path.stat().st_mtime_ns for path in kept}
    old = load_selection(written / "work")
    assert select(written / "work", **FP32) == old
    assert len(kept) == 4
    assert {path: path.stat().st_mtime_ns for path in kept} == before
    assert "predicting" not in capsys.readouterr().out


def test_the_model_file_is_read_and_predicts_the_same_masks(written, tmp_path):
    weights = "runs/3d_fullres/fold_0/weights.safetensors"
    with ModelSource.open(WRITTEN / "model.zip") as old:
        assert old.card.licence == "CC0-1.0"
        old_weights = old.read(weights)
    predict(WRITTEN / "model.zip", WRITTEN / "raw" / "imagesTs", tmp_path / "masks", **FP32)
    assert_same_masks(tmp_path / "masks", EXPECTED / "masks_selected")
    # And it is packed again, from the file as from the folder, with the same weights.
    for name, model in (("again.zip", WRITTEN / "model.zip"), ("anew.zip", written / "work")):
        export_model(model, tmp_path / name, licence="CC0-1.0")
        with ModelSource.open(tmp_path / name) as new:
            assert new.read(weights) == old_weights


def test_the_predictor_of_python_gives_the_same_masks():
    predictor = Predictor.of(load_model(WRITTEN / "work", "3d_fullres", ("0",)), **FP32)
    for name in ("new_20", "new_21"):
        mask = predictor(read_volume(WRITTEN / "raw" / "imagesTs" / f"{name}_0000.nii.gz"))
        old = read_volume(WRITTEN / "predicted" / f"{name}.nii.gz")
        assert np.mean(mask.array != old.array) <= (0 if IS_SAME_CPU else NEARLY_ALL_VOXELS)


def test_a_folder_of_masks_goes_on(written, tmp_path, capsys):
    """One case was deleted and is predicted again, with its probabilities and uncertainty; the other one is kept."""
    masks = written / "predicted"
    for name in ("new_20", "new_21"):
        # A checkout sets new times, by which an image counts as changed.
        ((file, _, changed_ns),) = json.loads((masks / ".segfw" / f"{name}.json").read_text())["sources"]
        os.utime(written / "raw" / "imagesTs" / file, ns=(changed_ns, changed_ns))
    (masks / "new_21.nii.gz").unlink()
    kept_ns = (masks / "new_20.nii.gz").stat().st_mtime_ns
    how = {"configuration": "3d_fullres", "folds": ("0",), "save_probabilities": 16, "uncertainty": True}
    predict(written / "work", written / "raw" / "imagesTs", masks, **how, **FP32)
    assert "1 case predicted, 1 were there" in capsys.readouterr().out
    assert (masks / "new_20.nii.gz").stat().st_mtime_ns == kept_ns
    assert_same_masks(masks, WRITTEN / "predicted")
    assert_same_masks(masks / "uncertainty", WRITTEN / "predicted" / "uncertainty")


def test_stored_probabilities_are_read_and_agree_with_their_masks():
    for name in ("new_20", "new_21"):
        info = read_probabilities(WRITTEN / "predicted" / "probabilities" / f"{name}.b2nd").info
        assert (info.configuration, info.folds, info.encoding) == ("3d_fullres", ("0",), "float16")
        assert info.labels.values == (0, 3, 7)


def test_masks_are_scored_as_before(written, tmp_path):
    scores = evaluate(written / "predicted", written / "raw" / "labelsTs", output=tmp_path / "scores.json")
    assert scores.foreground_mean.dice > 0.9
    assert_same_scores(tmp_path / "scores.json", EXPECTED / "scores.json")
    for name in ("scores.csv", "scores_summary.csv"):
        assert (tmp_path / name).read_text() == (EXPECTED / name).read_text()


def test_an_imported_model_predicts_the_same_masks(tmp_path):
    predict(WRITTEN / "imported", WRITTEN / "images_two_channels", tmp_path / "masks", **FP32)
    assert_same_masks(tmp_path / "masks", EXPECTED / "masks_imported")
    assert len(np.unique(read_volume(tmp_path / "masks" / "both.nii.gz").array)) > 1
