"""What is wrong with a model of nnU-Net v2 is said in one sentence, none of it is run, and nothing stays behind."""

import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from builders.nnunet import Runs, dataset, plans, refusal, save_checkpoint, state, trained_folder
from segfw.base.records import UserError
from segfw.nnunet.import_folders import channels_and_labels
from segfw.nnunet.read_plans import plan_of_nnunet, read_json
from segfw.nnunet.torch_checkpoint import read_checkpoint
from segfw.verbs.import_nnunet import import_nnunet

WEIGHT = "encoder.stages.0.0.convs.0.conv.weight"
CONTENT = {
    "network_weights": {WEIGHT: torch.ones(1)},
    "init_args": {"configuration": "3d_fullres"},
    "trainer_name": "nnUNetTrainer",
}


@pytest.mark.parametrize("kind", ["pickle", "old format", "web page", "pointer", "empty"])
def test_a_file_that_is_no_zip_is_not_even_opened(tmp_path, capsys, kind):
    folder = trained_folder(tmp_path)
    path = folder / "fold_0" / "checkpoint_final.pth"
    if kind == "old format":  # of PyTorch before 1.6, a bare pickle; nnU-Net v2 never wrote it
        torch.save(Runs(tmp_path / "ran"), path, _use_new_zipfile_serialization=False)
    else:
        other = {"web page": b"<!DOCTYPE html>", "pointer": b"version https://git-lfs.github.com/spec/v1", "empty": b""}
        path.write_bytes(other.get(kind, pickle.dumps(Runs(tmp_path / "ran"))))
    printed = refusal(folder, tmp_path / "out", capsys)
    assert "checkpoint_final.pth: is no whole checkpoint of nnU-Net v2 (File is not a zip file); copy or dow" in printed
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_that_unpacks_to_more_than_it_has_is_refused(tmp_path):
    save_checkpoint(tmp_path / "small.pth", {WEIGHT: torch.zeros(100_000)})
    with (
        zipfile.ZipFile(tmp_path / "small.pth") as small,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in small.namelist():
            bomb.writestr(name, small.read(name))
    assert read_checkpoint(tmp_path / "small.pth").weights[WEIGHT].shape == (100_000,)
    with pytest.raises(UserError, match=r"bomb.pth: unpacks to 4\d\d,\d{3} bytes, more than it has"):
        read_checkpoint(tmp_path / "bomb.pth")


@pytest.mark.filterwarnings("ignore")  # of torch, about tensors of these kinds
@pytest.mark.parametrize(
    "make",
    [
        lambda ones: ones.to_sparse(),
        lambda ones: torch.quantize_per_tensor(ones, 0.1, 0, torch.qint8),
        lambda ones: ones.to(torch.complex64),
        lambda ones: ones.to("meta"),
        lambda ones: torch.nested.nested_tensor([ones, ones]),
        lambda ones: ones.numpy(),
        lambda ones: ones[:1].expand(1000, 3),
    ],
)
def test_weights_that_are_no_plain_real_numbers_are_refused(tmp_path, make):
    path = tmp_path / "checkpoint.pth"
    torch.save(CONTENT | {"network_weights": {WEIGHT: make(torch.ones(2, 3))}}, path)
    with pytest.raises(UserError, match="holds other things than a checkpoint"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "change",
    [
        {"trainer_name": "nnUNetTrainer\n\x1b[31m"},
        {"trainer_name": 3},
        {"inference_allowed_mirroring_axes": torch.tensor([0, 1])},
        {"inference_allowed_mirroring_axes": (0, 3)},
        {"inference_allowed_mirroring_axes": 1},
        {"init_args": "3d_fullres"},
        {"network_weights": {1: torch.ones(1)}},
    ],
)
def test_fields_of_other_types_are_refused(tmp_path, change):
    path = tmp_path / "checkpoint.pth"
    torch.save(CONTENT, path)
    read_checkpoint(path)
    torch.save(CONTENT | change, path)
    with pytest.raises(UserError, match="holds other things than a checkpoint"):
        read_checkpoint(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_weights_that_are_not_finite_in_float32_are_refused(tmp_path, capsys, value):
    weights = state()
    weights[WEIGHT] = torch.full((4, 2, 1, 3, 3), value, dtype=torch.float64)
    printed = refusal(trained_folder(tmp_path, weights=weights), tmp_path / "out", capsys)
    assert f"weights {WEIGHT} hold NaN or infinity" in printed


def test_mirror_axes_of_a_volume_are_refused_for_slices(tmp_path, capsys):
    written = plans()
    entry = written["configurations"]["3d_fullres"]
    entry |= {"patch_size": [16, 8], "spacing": [1.0, 0.5], "median_image_size_in_voxels": [9.0, 12.0]}
    entry["architecture"]["arch_kwargs"] |= {"kernel_sizes": [[3, 3]] * 3, "strides": [[1, 1], [2, 2], [2, 2]]}
    weights = {
        name: tensor.mean(2)[:, :, :2, :2] if "transpconvs" in name and tensor.ndim == 5 else tensor
        for name, tensor in state().items()
    }
    weights = {name: tensor[:, :, 0] if tensor.ndim == 5 else tensor for name, tensor in weights.items()}
    printed = refusal(trained_folder(tmp_path, written=written, weights=weights), tmp_path / "out", capsys)
    assert "mirrors axes (0, 2) of slices, which have 0 and 1" in printed


PLANS = [
    ("configurations", None, "'3d_fullres' is missing"),
    ("configurations", [1], "'3d_fullres' is missing"),
    ("configurations", {"3d_fullres": "x"}, "configuration '3d_fullres' is 'x', no JSON object"),
    ("transpose_forward", [0, 0, 1], "axis_order (0, 0, 1) must hold 0, 1 and 2 once each"),
    ("image_reader_writer", ["x"], "take it from the original"),
    ("spacing", [5.0, -1.0, 0.5], "spacing_mm (5.0, -1.0, 0.5) must be more than 0"),
    ("spacing", [5.0, float("nan"), 0.5], "spacing_mm 1 is nan, which is no finite number"),
    ("patch_size", [0, 16, 8], "patch_size (0, 16, 8) and batch_size 2 must be 1 or more"),
    ("batch_size", "2", "batch_size is '2', which is no whole number"),
    ("previous_stage", "../../../etc", "configuration '../../../etc' is missing"),
    ("previous_stage", "3d_fullres", "its first stage, '3d_fullres', is a second one itself"),
    ("strides", [[1, 1, 1], [-1, 2, 2], [2, 2, 2]], "strides ((1, 1, 1), (-1, 2, 2), (2, 2, 2)) must be 1 or more"),
    ("strides", [[1, 1, 1], [0, 2, 2], [2, 2, 2]], "must be 1 or more"),
    ("kernel_sizes", [[2, 2, 2]] * 3, "must be odd"),
    ("features_per_stage", [4, 8], "2 stages of features, but strides, kernels, convs have (3, 3, 3, 3)"),
    ("features_per_stage", [4, 8, -8], "features (4, 8, -8), convs and channels must be 1 or more"),
    ("features_per_stage", [10**9] * 3, "features_per_stage of 1000000000, and no network more than 10000"),
    ("n_conv_per_stage", 10**8, "n_conv_per_stage of 100000000, and no network more than 1000"),
    ("n_stages", 10**9, "its network has n_stages of 1000000000"),
]


@pytest.mark.parametrize(("field", "value", "reason"), PLANS)
def test_plans_that_say_impossible_things_are_refused(tmp_path, capsys, field, value, reason):
    written = plans()
    entry = written["configurations"]["3d_fullres"]
    known = (written, entry["architecture"]["arch_kwargs"], entry)
    next((part for part in known if field in part), entry)[field] = value
    printed = refusal(trained_folder(tmp_path, written=written), tmp_path / "out", capsys)
    assert reason in printed


@pytest.mark.parametrize("name", ["..", "", "a/b", "a\\b", "a\nb", "a + b", "Größe"])
def test_a_configuration_whose_name_leads_elsewhere_is_refused(tmp_path, name):
    written = plans()
    written["configurations"][name] = written["configurations"]["3d_fullres"]
    channels, labels = channels_and_labels(dataset(), tmp_path / "dataset.json")
    with pytest.raises(UserError, match="has a name that cannot be a folder's"):
        plan_of_nnunet(written, channels, labels, tmp_path / "plans.json")
    with pytest.raises(UserError, match="plans.json: has no configurations"):
        plan_of_nnunet(written | {"configurations": {}}, channels, labels, tmp_path / "plans.json")


@pytest.mark.parametrize("text", ["", "null", "[" * 200_000, '{"a": ' + "9" * 10_000 + "}", "{'a': 1}"])
def test_text_that_is_no_json_object_is_refused(tmp_path, text):
    (tmp_path / "plans.json").write_text(text)
    (tmp_path / "marked.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')  # a mark of byte order is no mistake
    assert read_json(tmp_path / "marked.json") == {"a": 1}
    with pytest.raises(UserError, match=r"plans.json: (cannot be read|holds no JSON object)"):
        read_json(tmp_path / "plans.json")


def test_what_is_given_in_place_of_the_folder_is_said(tmp_path, capsys):
    folder = trained_folder(tmp_path / "a")
    out = tmp_path / "out"
    assert f"is one fold of a model; give {folder}" in refusal(folder / "fold_0", out, capsys)
    for name in ("fold_0/checkpoint_final.pth", "plans.json"):
        assert "give the whole folder of a model" in refusal(folder / name, out, capsys)
    (folder / "fold_0" / "checkpoint_final.pth").rename(folder / "fold_0" / "checkpoint_latest.pth")
    assert "no fold holds checkpoint_final.pth or checkpoint_best.pth; finish" in refusal(folder, out, capsys)


@pytest.mark.parametrize("number", [None, "5", [5], float("nan")])
def test_a_number_of_cases_that_is_none_is_unknown(tmp_path, number):
    folder = trained_folder(tmp_path, described=dataset() | {"numTraining": number})
    assert import_nnunet(folder, tmp_path / "out").training_cases == 0


@pytest.mark.parametrize("name", ["my model", "nnUNetTrainer__nnUNetPlans__3d_fullres (copy)", "a__b__c__3d_fullres"])
def test_a_folder_that_was_renamed_is_taken_by_what_its_checkpoint_says(tmp_path, name):
    plan = import_nnunet(trained_folder(tmp_path).rename(tmp_path / name), tmp_path / "out")
    assert list(plan.configurations) == ["3d_fullres"]


LABELS = [
    ({"a": -1, "b": 1}, "a label has the value -1"),
    ({"a": 1, "b": 1}, "are not distinct"),
    ({"a": 1.5, "b": 2}, "label 'a' has value 1.5; it must be an integer"),
    ({"a": 1}, "do plans and checkpoint belong together"),
    ({}, "at least the background and one label"),
]


@pytest.mark.parametrize(("labels", "reason"), LABELS)
def test_labels_that_no_network_has_are_refused(tmp_path, capsys, labels, reason):
    folder = trained_folder(tmp_path, described=dataset({"background": 0} | labels))
    assert reason in refusal(folder, tmp_path / "out", capsys)


def test_links_that_lead_back_and_folders_that_are_no_folds_are_passed_over(tmp_path, monkeypatch):
    folder = trained_folder(tmp_path, folds=("0", "0_old", "1"))
    (folder / "again").symlink_to(folder)
    (folder / "fold_1" / "checkpoint_final.pth").rename(folder / "fold_1" / "checkpoint_latest.pth")
    monkeypatch.chdir(folder)
    import_nnunet(Path("."), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out" / "runs" / "3d_fullres").iterdir()] == ["fold_0"]


def test_a_folder_that_cannot_be_made_is_said_and_none_stays_behind_after_a_refusal(tmp_path, capsys):
    folder = trained_folder(tmp_path / "source")
    (tmp_path / "file").write_text("")
    printed = refusal(folder, tmp_path / "file" / "new" / "out", capsys)
    assert f"out: cannot be made, because {tmp_path / 'file'} is a file; give another folder" in printed
    refusal(tmp_path / "source" / "nothing", tmp_path / "new" / "newer" / "out", capsys)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "source"]
    import_nnunet(folder, tmp_path / "new" / "newer" / "out")
    assert (tmp_path / "new" / "newer" / "out" / "plan.json").is_file()


def test_weights_that_are_there_twice_or_have_a_name_without_end(tmp_path, capsys):
    twice = state() | {f"module.{WEIGHT}": torch.zeros(4, 2, 1, 3, 3)}
    printed = refusal(trained_folder(tmp_path / "a", weights=twice), tmp_path / "out", capsys)
    assert f"holds weights {WEIGHT!r} twice" in printed
    long = state() | {"x" * 100_000: torch.zeros(1)}
    printed = refusal(trained_folder(tmp_path / "b", weights=long), tmp_path / "out", capsys)
    assert f"holds weights '{'x' * 200}' that the plans' network has not" in printed


@pytest.mark.parametrize("name", ["decoder.transpconvs.0.bias", "encoder.stages.2.0.convs.0.norm.weight"])
def test_weights_that_are_not_there_though_the_plans_have_them_are_refused(tmp_path, capsys, name):
    """As nnU-Net does, which loads strictly."""
    weights = {key: tensor for key, tensor in state().items() if key != name}
    printed = refusal(trained_folder(tmp_path, weights=weights), tmp_path / "out", capsys)
    assert f"holds no weights {name!r}" in printed
