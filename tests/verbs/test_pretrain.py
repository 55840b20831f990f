"""``segfw pretrain``: what is learnt of, what stays unseen, what is refused; and training that begins with it."""

import json
import shutil

import nibabel
import numpy as np
import pytest
import torch

from builders.data import blocks_case, write_nifti
from segfw.base.records import UserError
from segfw.cli import main
from segfw.dataset.cases import DatasetManifest
from segfw.model.pretraining_record import PretrainingRecord
from segfw.model.weights import load_tensors
from segfw.verbs.plan_and_preprocess import plan_and_preprocess
from segfw.verbs.pretrain import pretrain
from segfw.verbs.train import train

SHORT = {"epochs": 2, "steps_per_epoch": 2, "batch_size": 2, "device": "cpu"}


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """(raw, work) of six cases, planned and preprocessed; tests change copies."""
    from builders.data import write_raw

    home = tmp_path_factory.mktemp("planned")
    raw = write_raw(home / "raw", 6, "MR")
    plan_and_preprocess(raw, home / "work", configurations=("2d",), device="cpu")
    return raw, home / "work"


@pytest.fixture
def work(planned, tmp_path):
    shutil.copytree(planned[1], tmp_path / "work")
    return tmp_path / "work"


def validation_of(work, fold=0):
    return json.loads((work / "splits.json").read_text())["folds"][fold]["validation"]


def write_image(path, seed):
    write_nifti(path, blocks_case(seed)[0])


def test_no_label_is_read_and_what_validates_stays_unseen(work, planned, tmp_path):
    """With all that is known by the masks deleted, and the masks too, it goes as before."""
    record = pretrain(work, "2d", **SHORT)
    folder = work / "pretrained" / "2d"
    assert {image.id for image in record.seen} == {f"case_{n:02}" for n in range(6)} - set(validation_of(work))
    assert record.end.steps == 4
    assert (folder / "reconstructions.png").read_bytes().startswith(b"\x89PNG")
    assert not list((folder / "images").glob("*.classes.b2nd"))
    whole = load_tensors(folder / "weights.safetensors")[0]

    shutil.rmtree(folder)
    for part in ("classes", "foreground"):
        for path in (work / "preprocessed" / "2d").glob(f"*.{part}.b2nd"):
            path.unlink()
    shutil.copytree(planned[0], tmp_path / "raw")
    shutil.rmtree(tmp_path / "raw" / "labelsTr")
    text = (work / "manifest.json").read_text()
    (work / "manifest.json").write_text(text.replace(str(planned[0]), str(tmp_path / "raw")))
    pretrain(work, "2d", **SHORT)
    again = load_tensors(folder / "weights.safetensors")[0]
    assert all(torch.equal(tensor, again[name]) for name, tensor in whole.items())


def test_training_takes_all_but_the_heads(work, capsys):
    pretrain(work, "2d", **SHORT)
    folder = work / "pretrained" / "2d"
    train(work, "2d", "0", init_from=folder, learning_rate=1e-12, **SHORT)
    said = capsys.readouterr().out
    assert "weights taken over, heads.0.weight, heads.0.bias" in said
    assert "too good" not in said
    there = load_tensors(folder / "weights.safetensors")[0]
    fold = work / "runs" / "2d" / "fold_0"
    here = load_tensors(fold / "weights.safetensors")[0]
    for name, tensor in here.items():
        if not name.startswith("heads."):
            torch.testing.assert_close(tensor, there[name], atol=1e-6, rtol=1e-5)
    settings = json.loads((fold / "settings.json").read_text())
    assert (settings["warm_up_share"], settings["encoder_rate"]) == (0.05, 0.3)


def test_a_start_that_saw_what_validates_is_refused_unless_that_is_allowed(work, tmp_path, capsys):
    pretrain(work, "2d", **SHORT)  # without those of fold 0
    folder = work / "pretrained" / "2d"
    with pytest.raises(
        UserError, match=r"was pretrained on \d images? of the \d that validate \(case_\d\d, by its bytes\); pretrain"
    ):
        train(work, "2d", "1", init_from=folder, **SHORT)
    assert (folder / "signatures.safetensors").is_file()

    # The same images in other files: neither their names nor their bytes are those that were seen
    manifest = DatasetManifest.load(work / "manifest.json")
    (tmp_path / "again").mkdir()
    cases = []
    for case in manifest.cases:
        again = tmp_path / "again" / f"{case.id}.nii"
        nibabel.save(nibabel.load(case.images[0]), again)
        cases.append(case.model_copy(update={"images": (again,)}))
    manifest.model_copy(update={"cases": tuple(cases)}).save(work / "manifest.json")
    with pytest.raises(UserError, match=r"\(case_\d\d, as case_\d\d, by its voxels\); pretrain"):
        train(work, "2d", "1", init_from=folder, **SHORT)
    train(work, "2d", "1", init_from=folder, may_have_seen=True, **SHORT)
    assert "the scores will be too good" in capsys.readouterr().out


def test_copies_of_unseen_images_are_kept_out_by_bytes_and_by_what_they_show(work, planned, tmp_path, capsys):
    case = validation_of(work)[0]
    source = planned[0] / "imagesTr" / f"{case}_0000.nii.gz"
    more = tmp_path / "more"
    more.mkdir()
    shutil.copy(source, more / "copied.nii.gz")
    loaded = nibabel.load(source)
    write_nifti(more / "rescaled.nii.gz", np.asarray(loaded.dataobj, np.float32) * 3 + 7)
    write_image(more / "new.nii.gz", 77)
    record = pretrain(work, "2d", images=(str(more),), **SHORT)
    reasons = {image.id: image.reason for image in record.kept_out}
    assert reasons["copied"] == f"is {case}, which fold 0 validates on"
    assert reasons["rescaled"] == f"shows the scan of {case}, which fold 0 validates on"
    assert "new" in {image.id for image in record.seen}
    assert "copied stays unseen: it is" in capsys.readouterr().out


def test_what_is_kept_out_stays_unseen_whatever_it_is_called(work, tmp_path):
    for name in ("more", "test"):
        (tmp_path / name).mkdir()
    write_image(tmp_path / "more" / "a.nii.gz", 50)
    write_image(tmp_path / "more" / "b.nii.gz", 51)
    write_image(tmp_path / "test" / "patient.nii.gz", 51)
    record = pretrain(work, "2d", images=(str(tmp_path / "more"),), keep_out=(str(tmp_path / "test"),), **SHORT)
    assert [(image.id, image.reason) for image in record.kept_out] == [
        ("b", f"is {tmp_path / 'test' / 'patient.nii.gz'}, which is kept out")
    ]


def test_the_same_call_goes_on_and_another_is_refused(work, capsys):
    pretrain(work, "2d", **SHORT)
    folder = work / "pretrained" / "2d"
    written = (folder / "weights.safetensors").read_bytes()
    pretrain(work, "2d", **SHORT)
    assert "is already pretrained" in capsys.readouterr().out
    assert (folder / "weights.safetensors").read_bytes() == written
    with pytest.raises(UserError, match="was begun with seed 0, not 1; give the same again, or overwrite=True"):
        pretrain(work, "2d", seed=1, **SHORT)
    record = pretrain(work, "2d", seed=1, overwrite=True, **SHORT)
    assert record.asked["seed"] == 1
    assert (folder / "weights.safetensors").read_bytes() != written


def test_a_pretraining_does_not_go_on_with_folds_that_it_has_seen(work):
    pretrain(work, "2d", **SHORT)
    splits = json.loads((work / "splits.json").read_text())
    splits["folds"] = splits["folds"][::-1]
    (work / "splits.json").write_text(json.dumps(splits))
    with pytest.raises(
        UserError, match=r"was begun with other folds and has seen case_\d\d, which fold 0 validates on"
    ):
        pretrain(work, "2d", **SHORT)


def test_a_pretraining_does_not_go_on_with_another_network(work):
    pretrain(work, "2d", **SHORT)
    plan = json.loads((work / "plan.json").read_text())
    plan["configurations"]["2d"]["network"]["features"][0] += 2
    (work / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(UserError, match="was begun with another plan's network"):
        pretrain(work, "2d", **SHORT)


def test_what_was_pretrained_stays_where_a_folder_of_images_is_wrong(work, tmp_path):
    pretrain(work, "2d", **SHORT)
    with pytest.raises(UserError, match="nowhere"):
        pretrain(work, "2d", images=(str(tmp_path / "nowhere"),), overwrite=True, **SHORT)
    assert (work / "pretrained" / "2d" / "weights.safetensors").is_file()


def test_pictures_and_record_are_mended_where_a_killed_process_did_not_write_them(work):
    whole = pretrain(work, "2d", **SHORT)
    folder = work / "pretrained" / "2d"
    (folder / "reconstructions.png").unlink()
    whole.model_copy(update={"end": None}).save(folder / "pretraining.json")
    assert pretrain(work, "2d", **SHORT) == whole
    assert (folder / "reconstructions.png").is_file()
    assert PretrainingRecord.load(folder / "pretraining.json") == whole


@pytest.mark.parametrize(
    ("prepare", "options", "sentence"),
    [
        (lambda home: None, ["--images", "nowhere"], "nowhere: no such file or folder; give one image, or a folder"),
        (
            lambda home: None,
            ["--folds", "0", "1", "2", "3", "4"],
            "no image is left to learn of, because all must stay",
        ),
        (lambda home: None, ["--folds", "9"], "fold '9' does not exist; choose 0 to 4 or all"),
    ],
)
def test_wrong_input_is_one_sentence(work, tmp_path, monkeypatch, capsys, prepare, options, sentence):
    monkeypatch.chdir(tmp_path)
    assert main(["pretrain", str(work), "2d", "--epochs", "1", *options]) == 2
    assert sentence in capsys.readouterr().err


def test_a_folder_of_nothing_but_unseen_images_is_refused(work, planned, tmp_path):
    """Images that are those of the validation, or of a test set, in a folder of their own."""
    more = tmp_path / "more"
    more.mkdir()
    for case in validation_of(work):
        shutil.copy(planned[0] / "imagesTr" / f"{case}_0000.nii.gz", more / f"{case}_0000.nii.gz")
    with pytest.raises(UserError, match="more: none of its images may be learnt of: .* is case_.*, which fold 0 valid"):
        pretrain(work, "2d", images=(str(more),), **SHORT)


def test_images_of_other_channels_are_refused(work, tmp_path):
    more = tmp_path / "more"
    for number in range(2):
        write_image(more / f"a_000{number}.nii.gz", number)
    with pytest.raises(UserError, match="more: a_0000 to a_0001 look like 2 channels, but the model has 1 channel"):
        pretrain(work, "2d", images=(str(more),), **SHORT)
    stacked = tmp_path / "stacked"
    write_nifti(stacked / "b.nii.gz", np.stack([blocks_case(1)[0]] * 2, 3))
    with pytest.raises(UserError, match=r"stacked: b has 2 channels, but the plan has 1 \(MR\); give such images"):
        pretrain(work, "2d", images=(str(stacked),), **SHORT)


def test_a_start_of_another_architecture_is_refused(work, planned, tmp_path):
    pretrain(work, "2d", **SHORT)
    other = tmp_path / "other"
    plan_and_preprocess(planned[0], other, configurations=("2d",), device="cpu", preset="resenc-m")
    with pytest.raises(
        UserError, match="2d: is of the architecture plain-unet, but 2d here is a residual-encoder-unet"
    ):
        train(other, "2d", "0", init_from=work / "pretrained" / "2d", **SHORT)
