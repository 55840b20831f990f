"""Models given to nnU-Net v2: the folder says what the model is, and taking it back gives the same model."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from builders.models import cascade_model
from builders.nnunet import REGIONS, dataset, plans, state, trained_folder
from builders.planning import manifest
from segfw.base.records import UserError
from segfw.cli import main
from segfw.dataset.cases import MANIFEST_FILE
from segfw.dataset.labels import LabelSet, Region
from segfw.grid.normalize import Normalization
from segfw.images.geometry import Geometry
from segfw.images.volume import Volume
from segfw.inference.predictor import Predictor
from segfw.model.load import load_model
from segfw.model.source import fold_folder
from segfw.model.weights import load_tensors, save_weights
from segfw.networks import build_network
from segfw.planning.plan import Plan
from segfw.verbs.export import export_model
from segfw.verbs.export_nnunet import export_nnunet
from segfw.verbs.import_nnunet import import_nnunet


def imported(folder, **changes):
    import_nnunet(trained_folder(folder / "theirs", **changes), folder / "model")
    return folder / "model"


def changed_plan(model, **changes):
    """The model with another plan."""
    plan = Plan.load(model / "plan.json")
    plan.model_copy(update=changes).save(model / "plan.json")


def preprocessed(model, **changes):
    """The model with another way to preprocess."""
    one = Plan.load(model / "plan.json").configuration("3d_fullres")
    how = one.preprocessing.model_copy(update=changes)
    changed_plan(model, configurations={"3d_fullres": one.model_copy(update={"preprocessing": how})})


READERS = [
    ("SimpleITKIO", ".nii.gz", [".nrrd", ".gipl"], ".png"),
    ("SimpleITKIOWithReorient", ".nii.gz", [".mha"], ".tif"),
    ("NibabelIOWithReorient", ".nii.gz", [".nii"], ".nrrd"),
    ("NaturalImage2DIO", ".png", [".bmp", ".tif"], ".nii.gz"),
    ("Tiff3DIO", ".tif", [".tiff"], ".png"),
]


@pytest.mark.parametrize(("reader", "default", "others", "wrong"), READERS)
def test_a_model_keeps_its_reader_and_gets_an_ending_that_this_reads(tmp_path, reader, default, others, wrong):
    model = imported(tmp_path, written=plans() | {"image_reader_writer": reader})
    for number, ending in enumerate([None, *others]):
        (folder,) = export_nnunet(model, tmp_path / str(number), ending=ending)
        assert json.loads((folder / "dataset.json").read_text())["file_ending"] == (ending or default)
        assert json.loads((folder / "plans.json").read_text())["image_reader_writer"] == reader
    with pytest.raises(UserError, match=rf"--ending is {wrong}: nnU-Net reads .* only from {default}, "):
        export_nnunet(model, tmp_path / "wrong", ending=wrong)
    import_nnunet(tmp_path / "0", tmp_path / "back")
    assert Plan.load(tmp_path / "back" / "plan.json") == Plan.load(model / "plan.json")


@pytest.mark.parametrize(("largest", "count", "fits"), [(255, 2, True), (256, 2, False), (300, 255, True)])
def test_regions_are_painted_as_what_nnunet_can_write(tmp_path, largest, count, fits):
    model = imported(tmp_path, weights=state(classes=2), described=dataset(REGIONS))
    values = (0, *range(1, count), largest)
    regions = (
        Region(name="whole", values=values[1:], painted=1),
        Region(name="core", values=(largest,), painted=largest),
    )
    labels = LabelSet(names=tuple(f"n{value}" for value in values), values=values, regions=regions)
    changed_plan(model, labels=labels)
    if fits:
        export_nnunet(model, tmp_path / "export")
        return
    with pytest.raises(UserError, match="have the values 0 to 256 .* nnU-Net writes 2 of them as 1 to 255"):
        export_nnunet(model, tmp_path / "export")


def test_what_is_exported_and_taken_back_is_the_same_model(tmp_path):
    model = imported(tmp_path, folds=("0", "1", "all"))
    export_nnunet(model, tmp_path / "export")
    import_nnunet(tmp_path / "export", tmp_path / "back")
    one, other = (load_model(folder, folds=("0", "1", "all")) for folder in (model, tmp_path / "back"))
    assert one.plan == other.plan
    assert one.mirror_axes == other.mirror_axes == (0, 2)
    for fold, weights in one.weights.items():
        assert weights.keys() == other.weights[fold].keys()
        assert all(torch.equal(tensor, other.weights[fold][name]) for name, tensor in weights.items())


def test_the_checkpoint_holds_every_name_that_nnunet_has(tmp_path):
    (folder,) = export_nnunet(imported(tmp_path), tmp_path / "export")
    assert folder.name == "nnUNetTrainer__nnUNetPlans__3d_fullres"
    checkpoint = torch.load(folder / "fold_0" / "checkpoint_final.pth", weights_only=True)
    wanted = state()
    assert checkpoint["network_weights"].keys() == wanted.keys()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in checkpoint["network_weights"].items())
    assert checkpoint["trainer_name"] == "nnUNetTrainer"
    assert checkpoint["init_args"]["configuration"] == "3d_fullres"
    assert checkpoint["inference_allowed_mirroring_axes"] == (0, 2)


def test_regions_keep_their_order_and_what_they_are_painted_as(tmp_path):
    model = imported(tmp_path, weights=state(classes=2), described=dataset(REGIONS))
    (folder,) = export_nnunet(model, tmp_path / "export")
    described = json.loads((folder / "dataset.json").read_text())
    assert described["labels"] == REGIONS
    assert described["regions_class_order"] == [1, 2]


def test_a_canonical_model_is_read_by_the_reader_that_turns_images(tmp_path):
    model = imported(tmp_path)
    preprocessed(model, orientation="canonical", voxel_size="axes")
    (folder,) = export_nnunet(model, tmp_path / "nifti")
    assert json.loads((folder / "plans.json").read_text())["image_reader_writer"] == "NibabelIOWithReorient"
    (folder,) = export_nnunet(model, tmp_path / "nrrd", ending=".nrrd")
    assert json.loads((folder / "plans.json").read_text())["image_reader_writer"] == "SimpleITKIOWithReorient"
    import_nnunet(tmp_path / "nifti", tmp_path / "back")
    assert Plan.load(tmp_path / "back" / "plan.json").orientation == "canonical"


def test_a_model_file_is_exported_as_well_and_the_options_come_in_any_order(tmp_path, capsys):
    model = imported(tmp_path)
    file = str(tmp_path / "model.zip")
    export_model(model, Path(file))
    folders = [str(tmp_path / name) for name in ("a", "b")]
    assert main(["export", file, "--nnunet", folders[0]]) == main(["export", file, folders[1], "--nnunet"]) == 0
    wanted = state()
    for folder in folders:
        path = Path(folder) / "nnUNetTrainer__nnUNetPlans__3d_fullres" / "fold_0" / "checkpoint_final.pth"
        found = torch.load(path, weights_only=True)["network_weights"]
        assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())
    assert main(["export", file, "--nnunet", str(tmp_path / "c"), "--overwrite"]) == 2
    assert "give no other option" in capsys.readouterr().err


def test_what_nnunet_cannot_do_is_said(tmp_path, capsys):
    model = imported(tmp_path)
    plan = Plan.load(model / "plan.json")
    swapped = plan.configuration("3d_fullres").model_copy(update={"swapped_labels": ((2, 1, 2),)})
    labels = LabelSet(names=("background", "left", "right"), values=(0, 10, 20))
    changed_plan(model, labels=labels, configurations={"3d_fullres": swapped})
    (folder,) = export_nnunet(model, tmp_path / "export")
    printed = capsys.readouterr().out
    assert "writes the number of a class, not its value: 1 for 10, 2 for 20\n" in printed
    assert "exchanges labels mirrored along x" in printed
    assert json.loads((folder / "dataset.json").read_text())["labels"] == {"background": 0, "left": 1, "right": 2}
    checkpoint = torch.load(folder / "fold_0" / "checkpoint_final.pth", weights_only=True)
    assert checkpoint["inference_allowed_mirroring_axes"] == (0,)


def test_that_nnunet_knows_no_cases_annotated_in_part_is_said(tmp_path, capsys):
    model = imported(tmp_path)
    whole = manifest().cases[0]
    some = [whole.model_copy(update={"id": case, "annotated": ("l1",)}) for case in ("b", "c")]
    manifest().model_copy(update={"cases": (whole,)}).save(model / MANIFEST_FILE)
    export_nnunet(model, tmp_path / "whole")
    assert "annotated" not in capsys.readouterr().out
    manifest().model_copy(update={"cases": (whole, *some)}).save(model / MANIFEST_FILE)
    export_nnunet(model, tmp_path / "in_part")
    assert "note: 2 of 3 training cases are annotated in part, which nnU-Net's training" in capsys.readouterr().out


def test_a_residual_network_in_two_dimensions_comes_back_the_same(tmp_path):
    model = imported(tmp_path)
    plan = Plan.load(model / "plan.json")
    one = plan.configuration("3d_fullres")
    network = one.network.model_copy(
        update={
            "architecture": "residual-encoder-unet",
            "strides": ((1, 1, 1), (1, 2, 2), (1, 1, 2)),
            "kernels": ((1, 3, 3), (1, 3, 3), (1, 3, 1)),
            "encoder_blocks": (1, 3, 2),
            "features": (4, 8, 8),  # the last stage strides without a projection
        }
    )
    flat = one.preprocessing.model_copy(update={"spacing_mm": (None, 1.0, 0.5), "axis_order": (0, 1, 2)})
    update = {"name": "2d", "network": network, "preprocessing": flat, "patch_size": (1, 8, 16), "mirror_axes": (1, 2)}
    changed_plan(model, configurations={"2d": one.model_copy(update=update)})
    weights = build_network(network).state_dict()
    save_weights(fold_folder(model, "2d", "0") / "weights.safetensors", weights, epoch=3, mirror_axes=(1,))
    export_nnunet(model, tmp_path / "export")
    import_nnunet(tmp_path / "export", tmp_path / "back")
    both = [load_model(folder, "2d") for folder in (model, tmp_path / "back")]
    assert both[1].configuration.network == network
    assert both[1].mirror_axes == (1,)
    volume = Volume(
        array=np.random.default_rng(0).normal(100, 50, (2, 3, 9, 12)).astype(np.float32),
        geometry=Geometry.of((3, 9, 12), np.diag([4.0, 1.5, 1.0, 1])),
    )
    masks = [Predictor.of(one, device="cpu", precision="fp32")(volume).array for one in both]
    np.testing.assert_array_equal(*masks)


def test_what_cannot_be_exported_is_refused(tmp_path):
    model = imported(tmp_path)
    with pytest.raises(UserError, match="is there already"):
        export_nnunet(model, model)
    with pytest.raises(UserError, match=r"holds no plan\.json"):
        export_nnunet(tmp_path, tmp_path / "export")
    one = Plan.load(model / "plan.json").configuration("3d_fullres")
    foreign = one.model_copy(update={"network": one.network.model_copy(update={"architecture": "segresnet"})})
    changed_plan(model, configurations={"3d_fullres": foreign})
    with pytest.raises(UserError, match="is a segresnet, which nnU-Net has not"):
        export_nnunet(model, tmp_path / "export")
    assert not (tmp_path / "export").exists()
    (model / "runs" / "3d_fullres" / "fold_0" / "weights.safetensors").unlink()
    with pytest.raises(UserError, match="no fold is trained"):
        export_nnunet(model, tmp_path / "export")


def test_best_weights_go_along_and_all_folds_are_mirrored_alike(tmp_path):
    """One fold saw images mirrored along 0 and 2, the other along 2 alone: nnU-Net must not mirror along 0."""
    model = imported(tmp_path, folds=("0", "1"))
    path = fold_folder(model, "3d_fullres", "1") / "weights.safetensors"
    weights, _ = load_tensors(path)
    save_weights(path, weights, epoch=3, mirror_axes=(2,))
    best = {name: tensor + 1 for name, tensor in weights.items()}
    save_weights(path.with_name("best.safetensors"), best, epoch=2, mirror_axes=(2,))
    (folder,) = export_nnunet(model, tmp_path / "export")
    first, last, other = (
        torch.load(folder / name, weights_only=True)
        for name in ("fold_0/checkpoint_final.pth", "fold_1/checkpoint_final.pth", "fold_1/checkpoint_best.pth")
    )
    assert first["inference_allowed_mirroring_axes"] == last["inference_allowed_mirroring_axes"] == (2,)
    name = "encoder.stages.0.0.convs.0.conv.weight"
    assert torch.equal(other["network_weights"][name], last["network_weights"][name] + 1)
    assert not (folder / "fold_0" / "checkpoint_best.pth").exists()


def test_every_channel_has_an_entry_of_intensities_as_nnunet_looks_them_up(tmp_path):
    model = imported(tmp_path)
    one = Plan.load(model / "plan.json").configuration("3d_fullres")
    rules = (one.preprocessing.normalization[0], Normalization(kind="zscore"))
    how = one.preprocessing.model_copy(update={"normalization": rules})
    changed_plan(model, configurations={"3d_fullres": one.model_copy(update={"preprocessing": how})})
    (folder,) = export_nnunet(model, tmp_path / "export")
    found = json.loads((folder / "plans.json").read_text())["foreground_intensity_properties_per_channel"]
    assert (found["0"]["max"], found["1"]) == (300.0, {})


def test_the_commands_of_a_cascade_hand_its_first_stage_on(tmp_path, capsys):
    model = cascade_model(tmp_path / "model")
    export_nnunet(model, tmp_path / "my export")
    printed = capsys.readouterr().out.splitlines()
    commands = [line.strip() for line in printed if "nnUNetv2_predict" in line]
    assert "-o MASKS_3d_lowres " in commands[0]
    assert commands[0].endswith("__3d_lowres' -f 0 1")
    assert commands[-1].endswith("__3d_cascade_fullres' -f 0 -prev_stage_predictions MASKS_3d_lowres")
    assert shlex.split(commands[0])[6].startswith(str(tmp_path / "my export"))
    assert "CASE_0000.nii.gz (MR)" in "".join(printed)
    for fold in ("0", "1"):
        (fold_folder(model, "3d_lowres", fold) / "weights.safetensors").unlink()
    with pytest.raises(UserError, match="3d_lowres, the first, is not trained"):
        export_nnunet(model, tmp_path / "second")
    assert not (tmp_path / "second").exists()


def test_images_that_nnunet_would_read_otherwise_are_refused(tmp_path):
    model = cascade_model(tmp_path / "model")
    with pytest.raises(UserError, match=r"only from \.nii\.gz, \.nii, \.nrrd, \.mha, \.gipl; give one of these"):
        export_nnunet(model, tmp_path / "export", ending=".jpg")
    many = LabelSet(names=tuple(f"n{value}" for value in range(300)), values=tuple(range(300)))
    changed_plan(model, labels=many)
    with pytest.raises(UserError, match="no more than 255 labels, and there are 299"):
        export_nnunet(model, tmp_path / "export", ending=".nrrd")
