"""Both stages of a cascade on a small data set: labels handed on without a leak, training, prediction."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from scipy import ndimage

from builders.data import CASES, blocks_case, write_nifti, write_raw
from builders.work import HELD_OUT, SLICES_FIRST, plan_a_cascade
from segfw.base.array_files import open_array, save_array
from segfw.base.records import UserError
from segfw.grid.restore import restore
from segfw.grid.slabs import dense
from segfw.grid.store import load_stored, open_case
from segfw.images.formats import read_volume
from segfw.inference import first_stage as cascade
from segfw.inference.first_stage import (
    FIRST_STAGE_FILE,
    FirstStage,
    HandedOn,
    check_first_stage,
    first_stage_of,
    hand_on_labels,
)
from segfw.inference.predictor import Predictor
from segfw.inference.whole_cases import whole_case_counter
from segfw.model.load import load_model
from segfw.model.source import WEIGHTS_FILE, fold_folder
from segfw.model.weights import save_tensors
from segfw.networks import build_network
from segfw.networks.spec import NetworkSpec
from segfw.planning.plan import CASCADE, FULLRES, LOWRES, PLAN_FILE, Plan, target_of
from segfw.planning.splits import SPLITS_FILE, Splits
from segfw.verbs.predict import predict
from segfw.verbs.run import run
from segfw.verbs.train import train

SHORT = {"epochs": 1, "steps_per_epoch": 2, "batch_size": 2, "device": "cpu"}


@pytest.fixture(scope="module")
def planned(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cascade")
    return plan_a_cascade(write_raw(folder / "raw"), folder / "work")


@pytest.fixture
def work(planned, tmp_path) -> Path:
    return shutil.copytree(planned, tmp_path / "work")


def first_stage_that_finds(work: Path, *classes: int) -> None:
    """A first stage with a fold for each of ``classes``, which it finds everywhere."""
    for fold, wanted in enumerate(classes):
        weights = build_network(SLICES_FIRST).state_dict()
        for tensor in weights.values():
            tensor.zero_()
        last = [name for name, tensor in weights.items() if tensor.shape == (SLICES_FIRST.classes,)]
        for name in last:
            weights[name][wanted] = 1.0
        assert last
        save_tensors(fold_folder(work, LOWRES, str(fold)) / WEIGHTS_FILE, weights, {"mirror_axes": ""})


def handed_on(work: Path) -> tuple[Path, Plan, Splits]:
    plan = Plan.load(work / PLAN_FILE)
    splits = Splits.load(work / SPLITS_FILE)
    second = plan.configurations[CASCADE]
    return hand_on_labels(work, second, splits, first_stage_of(work, second, splits), device="cpu"), plan, splits


def test_every_case_is_predicted_by_the_fold_that_never_saw_it(work):
    first_stage_that_finds(work, 2, 0, 1)
    folder, _, _ = handed_on(work)
    full = work / "preprocessed" / FULLRES
    for part, found in zip(HELD_OUT, (2, 0, 1)):
        for case in part:
            labels = open_array(folder / f"{case}.b2nd")
            assert labels.shape == load_stored(full, case).record.shape
            assert np.unique(labels[:]).tolist() == [found]
            assert open_case(full, case, previous=folder).previous.shape == labels.shape


def test_only_what_is_missing_or_outdated_is_predicted_again(work, monkeypatch):
    first_stage_that_finds(work, 2, 0, 1)
    folder, _, _ = handed_on(work)

    def times() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}

    before = times()
    assert len(before) == 12
    assert handed_on(work)[0] == folder
    assert times() == before
    (folder / f"{CASES[3]}.json").unlink()  # as if it had been killed between the two files
    handed_on(work)
    changed = {name for name, time_ns in times().items() if before[name] != time_ns}
    assert changed == {f"{CASES[3]}.json", f"{CASES[3]}.b2nd"}
    before = times()
    first_stage_that_finds(work, 2, 0, 2)  # one fold is trained again
    handed_on(work)
    changed = {name for name, time_ns in times().items() if before[name] != time_ns}
    assert changed == {f"{case}.{ending}" for case in HELD_OUT[2] for ending in ("json", "b2nd")}
    assert np.unique(open_array(folder / f"{CASES[5]}.b2nd")[:]).tolist() == [2]


def test_labels_handed_on_lie_where_the_structures_are(work):
    """The coarse masks, handed on as if a first stage had found them, have the centres of the fine ones."""
    low, full = (work / "preprocessed" / name for name in (LOWRES, FULLRES))
    for case in CASES:
        truth = open_case(full, case).classes[:]
        coarse = open_case(low, case).classes[:]
        logits = torch.nn.functional.one_hot(torch.from_numpy(coarse).long(), 3).permute(3, 0, 1, 2).float()
        found = restore(logits, load_stored(low, case).record, onto=load_stored(full, case).record)
        for label in (1, 2):
            centres = [np.argwhere(classes == label).mean(0) for classes in (found, truth)]
            assert np.abs(centres[0] - centres[1]).max() <= 1  # half of a coarse voxel, by which edges are rounded


def test_logits_are_handed_on_linearly_as_scipy_does_it(work):
    low, full = (load_stored(work / "preprocessed" / name, CASES[0]).record for name in (LOWRES, FULLRES))
    assert (low.shape, full.shape) == ((10, 9, 10), (10, 18, 20))
    logits = np.random.default_rng(0).normal(size=(3, *low.shape)).astype(np.float32)
    expected = [ndimage.zoom(part, (1, 2, 2), order=1, mode="nearest", grid_mode=True) for part in logits]
    np.testing.assert_array_equal(restore(torch.from_numpy(logits), low, onto=full), np.argmax(expected, 0))
    painted = restore(torch.from_numpy(logits[:2]), low, (2, 1), onto=full)
    np.testing.assert_array_equal(painted, np.where(expected[1] > 0, 1, np.where(expected[0] > 0, 2, 0)))
    with pytest.raises(ValueError, match="the grids differ in their crop or axes"):
        restore(torch.from_numpy(logits), low, onto=full.model_copy(update={"axis_order": (1, 0, 2)}))


def test_folds_that_are_missing_are_named_with_what_to_do(work):
    second = Plan.load(work / PLAN_FILE).configurations[CASCADE]
    splits = Splits.load(work / SPLITS_FILE)
    first_stage_that_finds(work, 1)
    with pytest.raises(UserError, match=r"folds 1, 2 of 3d_lowres are not trained .* use segfw train .* 3d_lowres 1,"):
        train(work, CASCADE, "0", **SHORT)
    assert not fold_folder(work, CASCADE, "0").exists()
    check_first_stage(work, second, splits, coming=("1", "2"))
    first_stage_that_finds(work, 1, 1)
    with pytest.raises(UserError, match="but fold 2 of 3d_lowres is not trained to the end"):
        check_first_stage(work, second, splits)


def test_folds_that_never_hold_a_case_out_are_refused(tmp_path):
    work = plan_a_cascade(write_raw(tmp_path / "raw"), tmp_path / "work", [CASES[:2]])
    first_stage_that_finds(work, 1)
    with pytest.raises(UserError, match=r"hold 'case_02' out of no training, .*; give --splits in which every case"):
        train(work, CASCADE, "0", **SHORT)


def test_the_second_stage_sees_the_labels_of_the_first(work):
    """A second stage whose output is its further channels finds what the first one found."""
    torch.manual_seed(1)
    plan = Plan.load(work / PLAN_FILE)
    save_tensors(
        fold_folder(work, LOWRES, "0") / WEIGHTS_FILE, build_network(SLICES_FIRST).state_dict(), {"mirror_axes": ""}
    )
    spec = plan.configurations[CASCADE].network
    save_tensors(fold_folder(work, CASCADE, "0") / WEIGHTS_FILE, build_network(spec).state_dict(), {"mirror_axes": ""})

    predictor = Predictor.of(load_model(work, CASCADE), device="cpu", precision="fp32")
    assert predictor.previous.configuration.name == LOWRES
    copying = type(predictor)(**vars(predictor) | {"networks": (Copying().eval(),)})
    image, _ = blocks_case(7, (25, 17, 11))
    write_nifti(work / "image.nii.gz", image)
    volume = read_volume(work / "image.nii.gz")
    prepared = predictor.prepare(volume)
    first = predictor.previous.slabs(prepared.previous)
    found = predictor.previous.hand_on(first, prepared.previous.record, prepared.record)
    assert len(np.unique(found)) == 3
    np.testing.assert_array_equal(dense(copying.slabs(prepared)).argmax(0), found)
    mask = copying(volume)
    assert mask.geometry == volume.geometry
    assert set(np.unique(mask.array)) == {0, 3, 7}


def test_labels_of_the_first_stage_change_sides_in_the_mirror_with_those_of_the_second(planned):
    plan = Plan.load(planned / PLAN_FILE)
    swapping = plan.configurations[CASCADE].model_copy(update={"swapped_labels": ((2, 1, 2),)})
    found = torch.from_numpy(np.random.default_rng(0).integers(0, 3, (8, 16, 24)).astype(np.uint8))
    settings = {"plan": plan, "configuration": swapping, "device": torch.device("cpu"), "precision": torch.float32}
    for axes in ((), (2,), (0, 2)):
        predictor = Predictor(networks=(Copying().eval(),), mirror_axes=axes, **settings)
        logits = dense(predictor.network_slabs(torch.zeros(1, *found.shape), found))
        assert torch.equal(logits.argmax(0), found.long())


def test_a_second_stage_alone_is_no_model(work):
    spec = Plan.load(work / PLAN_FILE).configurations[CASCADE].network
    save_tensors(fold_folder(work, CASCADE, "0") / WEIGHTS_FILE, build_network(spec).state_dict(), {"mirror_axes": ""})
    with pytest.raises(UserError, match="no fold of 3d_lowres is trained to its end; run segfw train first"):
        load_model(work, CASCADE)


def test_labels_made_before_an_interruption_are_kept(work, monkeypatch):
    first_stage_that_finds(work, 2, 0, 1)
    saved: list[str] = []

    def interrupted(path: Path, array: np.ndarray) -> None:
        if len(saved) == 3:
            raise KeyboardInterrupt
        saved.append(path.name)
        save_array(path, array)

    monkeypatch.setattr(cascade, "save_array", interrupted)
    with pytest.raises(KeyboardInterrupt):
        handed_on(work)
    folder = work / "runs" / LOWRES / "next_stage"
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert len(before) == 6
    monkeypatch.undo()
    handed_on(work)
    assert len(list(folder.glob("*.json"))) == 6
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in before.items())


class Copying(torch.nn.Module):
    """A second stage that finds what the first one found."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, image: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        found = self.scale * torch.cat((0.5 * torch.ones_like(image[:, :1]), image[:, 1:]), 1)
        return [found] if self.training else found


def build_copying(spec: NetworkSpec) -> torch.nn.Module:
    return Copying() if spec.in_channels == 3 else build_network(spec)


def test_a_fold_is_validated_with_what_its_own_first_stage_finds(work):
    """The other folds of the first stage have seen these cases: each would show in the masks."""
    first_stage_that_finds(work, 2, 0, 1)
    train(work, CASCADE, "2", build=build_copying, **SHORT)
    folder = fold_folder(work, CASCADE, "2") / "validation"
    for case in HELD_OUT[2]:
        assert np.unique(read_volume(folder / f"{case}.nii.gz").array).tolist() == [3]  # the value of class 1


def test_a_first_stage_that_was_trained_again_is_noticed(work, capsys):
    first_stage_that_finds(work, 2, 0, 1)
    train(work, CASCADE, "all", build=build_copying, **SHORT)
    train(work, CASCADE, "all", build=build_copying, **SHORT)
    assert "was trained again" not in capsys.readouterr().out
    first_stage_that_finds(work, 2, 0, 2)
    train(work, CASCADE, "all", build=build_copying, **SHORT)
    assert "warning: 3d_lowres was trained again since" in capsys.readouterr().out
    train(work, CASCADE, "all", build=build_copying, overwrite=True, **SHORT)
    assert "was trained again" not in capsys.readouterr().out


@pytest.fixture(scope="module")
def trained(planned, tmp_path_factory) -> tuple[Path, dict]:
    """Both stages trained by one call, all folds."""
    work = shutil.copytree(planned, tmp_path_factory.mktemp("trained") / "work")
    options = {"configurations": (CASCADE,), "splits": planned.with_name("splits.json")}
    return work, run(planned.with_name("raw"), work, **options, **SHORT)


def test_one_call_trains_the_first_stage_and_then_the_second(trained):
    work, scores = trained
    assert list(scores) == [LOWRES, CASCADE]
    for part, by_fold in zip(HELD_OUT, zip(*(by_fold.values() for by_fold in scores.values()))):
        assert all(set(found.cases) == set(part) for found in by_fold)
    weights = load_model(work, CASCADE).weights
    assert list(weights) == ["0", "1", "2"]
    assert {tensor.shape[1] for tensor in weights["0"].values() if tensor.ndim == 5} >= {3}
    stage = FirstStage.load(fold_folder(work, CASCADE, "1") / FIRST_STAGE_FILE)
    assert (stage.configuration, list(stage.weights)) == (LOWRES, ["0", "1", "2"])
    marks = [HandedOn.load(path) for path in (work / "runs" / LOWRES / "next_stage").glob("*.json")]
    assert sorted(mark.fold for mark in marks) == ["0", "0", "1", "1", "2", "2"]
    assert len({mark.made_from for mark in marks}) == 6


def test_new_images_go_through_both_stages(trained, tmp_path):
    work, _ = trained
    image, _ = blocks_case(40, (25, 17, 11))
    affine = np.array([[0, 0, -4.0, 3], [1.0, 0, 0, -2], [0, 1.5, 0, 9], [0, 0, 0, 1]])
    (tmp_path / "images").mkdir()
    nibabel.save(nibabel.Nifti1Image(image, affine), tmp_path / "images" / "turned_0000.nii.gz")
    with pytest.raises(UserError, match="3d_lowres, 3d_cascade_fullres are trained; choose one with configuration"):
        predict(work, tmp_path / "images", tmp_path / "masks", device="cpu")
    predict(work, tmp_path / "images", tmp_path / "masks", configuration=CASCADE, device="cpu")
    mask = nibabel.load(tmp_path / "masks" / "turned.nii.gz")
    assert mask.shape == image.shape
    np.testing.assert_allclose(mask.affine, affine, atol=1e-5)
    assert set(np.unique(mask.dataobj)) <= {0, 3, 7}
    again = tmp_path / "again"
    shutil.copytree(work / "runs", again / "runs", ignore=shutil.ignore_patterns("next_stage", "validation"))
    shutil.copy(work / PLAN_FILE, again)
    predict(again, tmp_path / "images", tmp_path / "masks", configuration=CASCADE, device="cpu")  # the same model
    fold_folder(again, LOWRES, "2").joinpath(WEIGHTS_FILE).unlink()
    with pytest.raises(UserError, match="holds masks of another model"):
        predict(again, tmp_path / "images", tmp_path / "masks", configuration=CASCADE, device="cpu")


def test_a_cascade_that_would_lack_folds_is_left_out_or_refused_before_training(planned, tmp_path, capsys):
    work = shutil.copytree(planned, tmp_path / "work")
    raw = planned.with_name("raw")
    options = SHORT | {"splits": planned.with_name("splits.json"), "folds": ("1",)}
    with pytest.raises(UserError, match="but folds 0, 2 of 3d_lowres are not trained"):
        run(raw, work, configurations=(CASCADE,), **options)
    assert not (work / "runs").exists()
    assert list(run(raw, work, **options)) == [LOWRES, FULLRES]
    assert "left out: 3d_cascade_fullres learns from what each fold of 3d_lowres finds" in capsys.readouterr().out


def test_whole_cases_are_counted_with_what_the_first_stage_found_in_them(work):
    first_stage_that_finds(work, 2, 0, 1)
    folder, plan, _ = handed_on(work)
    stored = work / "preprocessed" / FULLRES
    cpu = torch.device("cpu")
    second = plan.configurations[CASCADE]
    target = target_of(plan.labels)
    count = whole_case_counter(stored, folder, second, target, cpu, torch.float32)
    for part, found in zip(HELD_OUT, (2, 0, 1)):
        classes = open_case(stored, part[0]).classes[:]
        voxels = [int((classes == label).sum()) for label in (1, 2)]
        hits = [voxels[label - 1] if label == found else 0 for label in (1, 2)]
        wrong = [classes.size - voxels[label - 1] if label == found else 0 for label in (1, 2)]
        missed = [voxels[label - 1] - hits[label - 1] for label in (1, 2)]
        assert count(Copying().eval(), part[0], second.patch_size).tolist() == [hits, wrong, missed]
