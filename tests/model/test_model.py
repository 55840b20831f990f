"""A model in a folder and the same model in one file are one model."""

import pytest
import torch

from builders.data import blocks_case, write_nifti
from builders.models import cascade_model, selection_of, small_model
from segfw.base.records import UserError
from segfw.images.formats import read_volume
from segfw.inference.predictor import Predictor
from segfw.model.load import load_model
from segfw.model.source import predicting_folds, read_model_file, trained_folds
from segfw.model.weights import load_tensors
from segfw.training.initial_weights import find_start
from segfw.verbs.export import export_model
from segfw.verbs.info import info
from segfw.verbs.predict import predict


def same(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_file_holds_the_weights_of_all_folds_and_what_they_mirrored(tmp_path):
    folder = small_model(tmp_path / "work", folds=("0", "1"))
    file = tmp_path / "model.zip"
    export_model(folder, file)
    whole = load_model(folder)
    packed = load_model(file)
    assert list(packed.weights) == trained_folds(file, "3d_fullres") == ["0", "1"]
    assert all(same(whole.weights[fold], packed.weights[fold]) for fold in "01")
    assert not same(packed.weights["0"], packed.weights["1"])
    assert packed.mirror_axes == whole.mirror_axes == (2,)
    assert packed.configuration == whole.configuration
    assert packed.plan.labels == whole.plan.labels


def test_a_cascade_brings_all_folds_of_its_first_stage_and_needs_no_choice(tmp_path):
    file = tmp_path / "model.zip"
    card = export_model(cascade_model(tmp_path / "work"), file, configurations=["3d_cascade_fullres"])
    assert card.configurations == ("3d_cascade_fullres",)
    model = load_model(file)
    assert model.configuration.name == "3d_cascade_fullres"
    assert model.previous.configuration.name == "3d_lowres"
    assert list(model.previous.weights) == ["0", "1"]
    assert "3d_fullres" not in model.plan.configurations
    write_nifti(tmp_path / "a.nii.gz", blocks_case(1)[0])
    volume = read_volume(tmp_path / "a.nii.gz")
    whole = load_model(tmp_path / "work", "3d_cascade_fullres")
    masks = [Predictor.of(one, device="cpu", precision="fp32")(volume).array for one in (model, whole)]
    assert (masks[0] == masks[1]).all()
    assert len(set(masks[0].flat)) > 1


def test_predict_takes_the_file_and_writes_the_masks_of_the_folder(tmp_path):
    folder = small_model(tmp_path / "work")
    file = tmp_path / "model.zip"
    export_model(folder, file)
    write_nifti(tmp_path / "images" / "a.nii.gz", blocks_case(4)[0])
    predict(file, tmp_path / "images", tmp_path / "masks", device="cpu", precision="fp32")
    predict(folder, tmp_path / "images", tmp_path / "masks", device="cpu", precision="fp32")  # the same model: kept
    predict(folder, tmp_path / "images", tmp_path / "others", device="cpu", precision="fp32")
    one, other = (read_volume(tmp_path / where / "a.nii.gz").array for where in ("masks", "others"))
    assert (one == other).all()
    assert len(set(one.flat)) > 1


def test_folds_may_be_numbers(tmp_path):
    folder = small_model(tmp_path / "work", folds=("0", "1"))
    assert list(load_model(folder, folds=(1,)).weights) == list(load_model(folder, folds="1").weights) == ["1"]


def test_a_network_that_the_weights_are_not_of_is_told_with_the_fold(tmp_path):
    folder = small_model(tmp_path / "work", folds=("0", "1"))
    with pytest.raises(UserError, match=r"3d_fullres fold 0 do not fit the plan .*build=.*other folds"):
        Predictor.of(load_model(folder), device="cpu", build=lambda spec: torch.nn.Conv3d(1, 3, 1))


def test_a_new_run_can_begin_with_a_file(tmp_path):
    folder = small_model(tmp_path / "work", folds=("0", "1"))
    file = tmp_path / "model.zip"
    export_model(folder, file)
    start = find_start(file, "3d_fullres", "1")
    assert same(load_tensors(start)[0], load_model(folder).weights["1"])
    assert load_tensors(start)[1] == {"epoch": "7", "mirror_axes": "2"}


def test_other_files_of_a_model_are_read_from_both(tmp_path):
    folder = small_model(tmp_path / "work")
    file = tmp_path / "model.zip"
    assert read_model_file(folder / "selection.json") is None
    export_model(folder, tmp_path / "without.zip")
    assert read_model_file(tmp_path / "without.zip" / "selection.json") is None
    selection_of("3d_fullres").save(folder / "selection.json")
    export_model(folder, file)
    assert read_model_file(file / "selection.json") == read_model_file(folder / "selection.json") != b""


def test_info_shows_the_card(tmp_path):
    export_model(small_model(tmp_path / "work"), tmp_path / "model.zip", licence="CC-BY-4.0")
    printed = info(tmp_path / "model.zip", device="cpu").text()
    assert "Licence: CC-BY-4.0." in printed
    assert "3d_fullres fold 0: trained 20" in printed
    assert "blocks: 4 cases, channels MR" in printed
    assert "Fold 0 is trained." in printed


@pytest.mark.parametrize(
    ("trained", "wanted"), [(("0", "1", "all"), ("0", "1")), (("all",), ("all",)), (("2",), ("2",)), ((), ())]
)
def test_a_fold_of_all_cases_predicts_alone(trained, wanted):
    assert predicting_folds(trained) == wanted
