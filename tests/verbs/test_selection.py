"""Cross-validation of trained configurations: no leak, pairs, ties, postprocessing, resuming, what predict reads."""

from __future__ import annotations

import os
import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from builders.data import CASES, write_raw
from builders.networks import spec
from builders.work import plan_a_cascade, write_splits
from segfw.base.parallel import CasesFailed
from segfw.base.records import UserError
from segfw.cli import main
from segfw.images.formats import read_volume
from segfw.inference import held_out
from segfw.inference.held_out import HeldOut
from segfw.inference.held_out_counts import CaseCounts
from segfw.inference.predictor import Predictor
from segfw.inference.probabilities import read_probabilities
from segfw.inference.ranking import compared_folds, rank, simplest_of_the_best
from segfw.model.load import load_model
from segfw.model.selection import Candidate, Selection, load_selection
from segfw.model.source import WEIGHTS_FILE, fold_folder
from segfw.model.weights import save_tensors
from segfw.networks import build_network
from segfw.planning.plan import CASCADE, LOWRES, PLAN_FILE, Plan
from segfw.planning.splits import Fold, Splits
from segfw.verbs.plan_and_preprocess import plan_and_preprocess
from segfw.verbs.select import select

FLAT = spec(strides=((1, 1, 1), (1, 2, 2)), kernels=((1, 3, 3), (1, 3, 3)))
SPEC = spec()


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Networks of 2d and 3d_fullres, folds 0 and 1 of three, with random weights."""
    folder = tmp_path_factory.mktemp("selection")
    raw = write_raw(folder / "raw")
    splits = write_splits(folder / "splits.json")
    work = folder / "work"
    plan = plan_and_preprocess(raw, work, splits=splits, plan_only=True)
    small = {
        name: plan.configurations[name].model_copy(update={"network": spec, "patch_size": patch})
        for name, spec, patch in (("2d", FLAT, (1, 16, 16)), ("3d_fullres", SPEC, (8, 16, 16)))
    }
    plan.model_copy(update={"configurations": small}).save(work / PLAN_FILE)
    for number, (name, fold) in enumerate(product(small, ("0", "1"))):
        save_random(work, name, fold, number)
    return work


def save_random(work: Path, name: str, fold: str, seed: int) -> None:
    """A network that answers to brightness, each in its own way; it was never trained."""
    torch.manual_seed(seed)
    network = build_network(Plan.load(work / PLAN_FILE).configuration(name).network)
    weights = {
        key: value * (30 if value.ndim > 3 and value.shape[0] == 3 else 1)  # the last layer: certain of what it finds
        for key, value in network.state_dict().items()
    }
    save_tensors(fold_folder(work, name, fold) / WEIGHTS_FILE, weights, {"mirror_axes": ""})


@pytest.fixture(scope="module")
def selected(trained) -> Selection:
    return select(trained, device="cpu")


def files(work: Path) -> dict[str, int]:
    return {str(path.relative_to(work)): path.stat().st_mtime_ns for path in (work / "selection").rglob("*.*")}


def test_every_case_is_predicted_by_the_fold_that_did_not_see_it(trained, selected):
    splits = Splits.load(trained / "splits.json")
    for name in ("2d", "3d_fullres"):
        stored = {path.stem: read_probabilities(path).info for path in (trained / "selection" / name).glob("*.b2nd")}
        assert sorted(stored) == CASES[:4]
        for case, info in stored.items():
            assert case not in splits.fold(info.folds[0]).train
            assert info.configuration == name


def test_all_configurations_and_pairs_are_scored(trained, selected):
    names = {candidate.configurations for candidate in selected.candidates}
    assert names == {("2d",), ("3d_fullres",), ("2d", "3d_fullres")}
    values = [candidate.foreground_mean for candidate in selected.candidates]
    assert values == sorted(values, reverse=True)
    assert values[0] > 0
    # A single configuration scores as the masks that its folds predict of the images.
    (single,) = (candidate for candidate in selected.candidates if candidate.configurations == ("3d_fullres",))
    found = []
    for fold, cases in (("0", CASES[:2]), ("1", CASES[2:4])):
        predictor = Predictor.of(load_model(trained, "3d_fullres", (fold,)), device="cpu")
        for case in cases:
            image = read_volume(trained.parent / "raw" / "imagesTr" / f"{case}_0000.nii.gz")
            mask = predictor(image).array[0]
            reference = read_volume(trained.parent / "raw" / "labelsTr" / f"{case}.nii.gz").array[0]
            found.append(2 * ((mask == 3) & (reference == 3)).sum() / ((mask == 3).sum() + (reference == 3).sum()))
    assert single.labels["bright"] == pytest.approx(np.mean(found), abs=1e-3)


def test_what_was_selected_is_written_and_read(trained, selected, capsys):
    assert load_selection(trained) == selected
    assert selected.compared_folds == ("0", "1")
    assert not selected.is_whole_cross_validation
    assert selected.cases == 4
    assert any("no whole cross-validation: folds 2 are not trained" in note for note in selected.notes)
    assert set(selected.folds) == set(selected.configurations)
    table = (trained / "selection.txt").read_text()
    assert f"selected: {selected.name}, by 4 validation cases of folds 0, 1" in table
    for candidate in selected.candidates:
        assert f"{candidate.foreground_mean:.4f}" in table
    assert "warning" not in capsys.readouterr().out


def test_four_patients_decide_nothing_of_what_is_decoded(trained, selected, tmp_path):
    assert [trial.name for trial in selected.decoding_trials] == list(selected.labels)
    assert selected.postprocessing.decoding == ()
    table = (trained / "selection.txt").read_text()
    for trial in selected.decoding_trials:
        assert (trial.low, trial.high, trial.is_kept, trial.patients) == (None, None, False, 4)
        assert f"largest expected Dice of {trial.name}: {trial.gain:+.5f} (too few patients for an interval; " in table
    groups = tmp_path / "groups.csv"
    groups.write_text("case,patient\n" + "".join(f"{case},{int(case[-1]) // 2}\n" for case in CASES))
    work = shutil.copytree(trained, tmp_path / "work")
    of_two = select(work, device="cpu", groups=groups)
    assert {trial.patients for trial in of_two.decoding_trials} == {2}


def test_a_second_call_makes_nothing_again(trained, selected, capsys):
    before = files(trained)
    assert select(trained, device="cpu") == selected
    assert files(trained) == before
    assert "predicting" not in capsys.readouterr().out


def test_only_what_is_missing_damaged_or_of_old_weights_is_made_again(trained, selected, tmp_path, capsys):
    work = shutil.copytree(trained, tmp_path / "work")
    (work / "selection" / "2d" / "case_01.b2nd").unlink()
    broken = work / "selection" / "2d" / "case_02.b2nd"
    broken.write_bytes(broken.read_bytes()[:-9])
    save_random(work, "3d_fullres", "1", 99)
    before = files(work)
    select(work, device="cpu")
    changed = {name.removeprefix("selection/") for name, time in files(work).items() if before.get(name) != time}
    predicted = {"2d/case_01.b2nd", "2d/case_02.b2nd", "3d_fullres/case_02.b2nd", "3d_fullres/case_03.b2nd"}
    assert changed == predicted | {"scores/case_02.json", "scores/case_03.json"}  # those of case_01 are the same again
    told = capsys.readouterr().out
    assert "predicting 4 validation cases with 2d, 3d_fullres" in told
    assert "min for the network" in told


def test_folds_trained_since_are_told(trained, selected, tmp_path, capsys):
    work = shutil.copytree(trained, tmp_path / "work")
    for name in selected.configurations:
        shutil.copytree(fold_folder(work, name, "0"), fold_folder(work, name, "2"))
    assert load_selection(work) == selected
    assert "have changed since" in capsys.readouterr().out
    assert load_selection(tmp_path) is None
    (work / "selection.json").write_text("{}")
    with pytest.raises(UserError, match=r"selection.json: field .* is missing"):
        load_selection(work)


def test_the_verb(trained, selected, capsys):
    assert main(["select", str(trained), "--device", "cpu"]) == 0
    told = capsys.readouterr().out
    assert "note: this is no whole cross-validation" in told
    assert f"next: segfw predict {trained} NEW_IMAGES MASKS" in told
    assert main(["select", str(trained), "--device", "cpu", "--configurations", "4d"]) == 2
    assert "configuration '4d' is not in the plan" in capsys.readouterr().err


def test_a_case_that_cannot_be_predicted_is_named(trained, selected, tmp_path, monkeypatch, capsys):
    work = shutil.copytree(trained, tmp_path / "work")
    (work / "selection" / "2d" / "case_01.b2nd").unlink()
    original = held_out.read_case

    def broken(case):
        if case.id == "case_01":
            raise OSError("no such disk")
        return original(case)

    monkeypatch.setattr(held_out, "read_case", broken)
    assert main(["select", str(work), "--device", "cpu"]) == 1
    told = capsys.readouterr().err
    assert "1 case failed in cross-validation, so that nothing is selected" in told
    assert "case_01: no such disk" in told


def test_no_counts_of_old_probabilities_are_kept_where_new_ones_fail(trained, selected, tmp_path, monkeypatch):
    work = shutil.copytree(trained, tmp_path / "work")
    save_random(work, "3d_fullres", "1", 99)
    original = held_out.read_case

    def broken(case):
        if case.id == "case_02":
            raise OSError("no such disk")
        return original(case)

    monkeypatch.setattr(held_out, "read_case", broken)
    with pytest.raises(CasesFailed, match="case_02: no such disk"):
        select(work, device="cpu")
    scores = work / "selection" / "scores"
    old, new = (CaseCounts.load(scores / f"{case}.json") for case in ("case_02", "case_03"))
    assert old == CaseCounts.load(trained / "selection" / "scores" / "case_02.json")
    assert new != CaseCounts.load(trained / "selection" / "scores" / "case_03.json")
    monkeypatch.undo()
    select(work, device="cpu")
    assert CaseCounts.load(scores / "case_02.json").counts != old.counts


def test_a_repaired_image_and_another_precision_are_predicted_again(trained, selected, tmp_path, capsys):
    work = shutil.copytree(trained, tmp_path / "work")
    image = trained.parent / "raw" / "imagesTr" / "case_03_0000.nii.gz"
    time_ns = image.stat().st_mtime_ns
    before = files(work)
    os.utime(image, ns=(time_ns + 10**9, time_ns + 10**9))
    try:
        select(work, device="cpu")
        changed = {name.removeprefix("selection/") for name, time in files(work).items() if before.get(name) != time}
        assert changed == {"2d/case_03.b2nd", "3d_fullres/case_03.b2nd", "scores/case_03.json"}
        select(work, device="cpu", precision="bf16")
        assert "predicting 8 validation cases" in capsys.readouterr().out
    finally:
        os.utime(image, ns=(time_ns, time_ns))  # which other tests share


SPLITS = Splits(
    source="made up",
    folds=tuple(Fold(train=("x",), validation=(case,)) for case in "abc"),
)


def test_only_common_folds_are_compared():
    folds, notes = compared_folds({"2d": ["0"], "3d_fullres": ["0", "1", "2"], "3d_lowres": []}, SPLITS)
    assert folds == ["0"]
    assert notes[0] == "3d_lowres has no trained fold and is left out"
    assert notes[1].startswith("3d_fullres is compared without its folds 1, 2")
    assert notes[2].startswith("this is no whole cross-validation: folds 1, 2")
    assert compared_folds({"2d": ["0", "1", "2"]}, SPLITS) == (["0", "1", "2"], [])
    with pytest.raises(UserError, match="no trained fold in common .2d has 0; 3d_fullres has 1"):
        compared_folds({"2d": ["0"], "3d_fullres": ["1"]}, SPLITS)
    with pytest.raises(UserError, match="run segfw train first"):
        compared_folds({"2d": []}, SPLITS)


def candidate(names: str, stages: int, value: float) -> Candidate:
    return Candidate(configurations=tuple(names.split()), stages=stages, foreground_mean=value, labels={})


@pytest.mark.parametrize(
    "pair, cascade, single, expected",
    [
        (0.9, 0.88, 0.87, "a b"),
        (0.9, 0.8993, 0.87, "c"),  # as many networks, but of one configuration
        (0.9, 0.8993, 0.8991, "a"),
        (0.9, 0.8993, 0.8989, "c"),
    ],
)
def test_ties_go_to_the_simpler(pair, cascade, single, expected):
    ranked = [candidate("a b", 2, pair), candidate("c", 2, cascade), candidate("a", 1, single)]
    assert " ".join(simplest_of_the_best(ranked).configurations) == expected


def test_ranks_are_means_over_labels_of_means_over_cases(trained):
    """bright: 1 and 0.5; dark: 0 in one case, and in neither mask of the other, where it does not count."""
    plan = Plan.load(trained / PLAN_FILE)
    first = {"2d": {"bright": (4, 0, 0), "dark": (0, 3, 0)}}
    second = {"2d": {"bright": (1, 1, 1), "dark": (0, 0, 0)}}
    counted = {"x": CaseCounts(made_from="", counts=first), "y": CaseCounts(made_from="", counts=second)}
    (only,) = rank([("2d",)], counted, plan)
    assert only.labels == {"bright": 0.75, "dark": 0.0}
    assert only.foreground_mean == 0.375


def test_too_little_disk_is_told_before_anything_is_done(trained, selected, tmp_path, monkeypatch):
    work = shutil.copytree(trained, tmp_path / "work")
    (work / "selection" / "2d" / "case_01.b2nd").unlink()
    usage = shutil.disk_usage(work)._replace(free=10)
    monkeypatch.setattr(held_out.shutil, "disk_usage", lambda path: usage)
    before = files(work)
    with pytest.raises(UserError, match="GB are needed; make room first"):
        select(work, device="cpu")
    assert files(work) == before


def test_the_path_of_a_held_out_case(tmp_path):
    from segfw.dataset.cases import Case

    item = HeldOut(case=Case(id="x", images=()), configuration="2d", fold="0", model="")
    assert item.path(tmp_path) == tmp_path / "selection" / "2d" / "x.b2nd"
    assert not item.is_there(tmp_path)


def test_a_cascade_is_selected_from_as_well(tmp_path):
    work = plan_a_cascade(write_raw(tmp_path / "raw"), tmp_path / "work")
    for number, (name, fold) in enumerate(product((LOWRES, CASCADE), ("0", "1", "2"))):
        save_random(work, name, fold, number)
    found = select(work, device="cpu")
    assert {candidate.name: candidate.stages for candidate in found.candidates} == {
        LOWRES: 1,
        CASCADE: 2,
        f"{LOWRES} + {CASCADE}": 3,
    }
    assert found.is_whole_cross_validation
    assert found.cases == 6
    assert all(trial.low <= trial.gain <= trial.high for trial in found.decoding_trials)
    assert len(found.decoding_trials) == len(found.labels)
    before = {case: read_probabilities(work / "selection" / CASCADE / f"{case}.b2nd").info.model for case in CASES}
    save_random(work, LOWRES, "0", 99)  # what the second stage finds changes with the first one
    select(work, device="cpu")
    after = {case: read_probabilities(work / "selection" / CASCADE / f"{case}.b2nd").info.model for case in CASES}
    assert [case for case in CASES if before[case] != after[case]] == CASES[:2]
