"""What goes into a model file and what never does, and that a file which is not one is refused."""

import hashlib
import json
import re
import shutil
import zipfile

import pytest
import torch

from builders.models import WEIGHTS, cascade_model, members_of, selection_of, small_model
from segfw.base.records import UserError
from segfw.cli import main
from segfw.model.card import Card
from segfw.model.load import load_model
from segfw.model.source import ModelSource, fold_folder
from segfw.model.training_record import RunRecord, Session
from segfw.model.weights import load_tensors, save_tensors
from segfw.planning.plan import PLAN_FILE, Plan
from segfw.verbs.export import export_model


def test_the_same_model_gives_the_same_bytes_wherever_and_whenever(tmp_path, packed):
    moved = shutil.copytree(tmp_path / "work", tmp_path / "elsewhere" / "model")
    again = tmp_path / "again.zip"
    export_model(moved, again)
    assert again.read_bytes() == packed.read_bytes()
    with zipfile.ZipFile(packed) as archive:
        assert {member.compress_type for member in archive.infolist()} == {zipfile.ZIP_STORED}
        assert archive.namelist() == [PLAN_FILE, WEIGHTS, "model.json"]


def test_the_card_lists_every_member_and_its_digest(packed):
    members = members_of(packed)
    card = Card.parse(members.pop("model.json"), packed)
    assert card.members == {name: hashlib.sha256(content).hexdigest() for name, content in members.items()}
    assert (card.dataset, card.configurations, card.weights, card.precision) == (
        "blocks",
        ("3d_fullres",),
        "last",
        "float32",
    )
    assert card.licence is None


def test_training_facts_and_the_data_digest(tmp_path):
    folder = small_model(tmp_path / "work")
    fold = fold_folder(folder, "3d_fullres", "0")
    session = Session(
        how="started",
        started="2024-01-01T10:00:00+00:00",
        first_epoch=1,
        command="segfw train",
        settings={},
        device="CPU",
        precision="bfloat16",
        processes=1,
        threads=1,
        versions={},
        system="Linux",
        git=None,
        data_digest="abc",
    )
    resumed = session.model_copy(update={"how": "resumed", "started": "2024-03-05T10:00:00+00:00"})
    RunRecord(label_names=("bright", "dark"), sessions=(session, resumed)).save(fold / "run.json")
    rows = [{"epoch": 0, "steps": 5, "elapsed_s": 2.0}, {"epoch": 1, "steps": 6, "elapsed_s": 4.5}]
    (fold / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"epoch": 2, "st')
    (fold / "validation").mkdir()
    scores = {"foreground_mean": {"dice": 0.75}, "labels": {"bright": {"dice": 0.8}, "dark": {"dice": 0.7}}}
    (fold / "validation" / "scores.json").write_text(json.dumps(scores))
    (folder / "fingerprint.json").write_text("{}")
    card = export_model(folder, tmp_path / "model.zip")
    facts = card.folds[0]
    assert (facts.epochs, facts.steps, facts.seconds) == (2, 11, 4.5)
    assert (facts.validation_dice, facts.validation_dice_per_label) == (0.75, {"bright": 0.8, "dark": 0.7})
    assert (facts.trained, facts.precision, facts.data_digest) == ("2024-03-05", "bfloat16", "abc")
    assert card.created == "2024-03-05"
    assert card.data_digest == hashlib.sha256(b"{}").hexdigest()
    assert "2 epochs, 11 steps, trained 2024-03-05, validation Dice 0.7500" in card.text()
    again = export_model(tmp_path / "model.zip", tmp_path / "again.zip", licence="MIT")  # a file is a model too
    assert again.folds == card.folds
    assert again.data_digest == card.data_digest
    assert again.licence == "MIT"


def test_nothing_private_goes_in(tmp_path):
    """Neither case ids nor folders nor the machine, though the work folder is full of them."""
    folder = small_model(tmp_path / "home_of_miller")
    plan = Plan.load(folder / PLAN_FILE)
    chosen = plan.configuration("3d_fullres")
    estimate = chosen.estimate.model_copy(update={"device": "Miller's card", "hours_per_fold": 3.0})
    chosen = chosen.model_copy(update={"estimate": estimate})
    plan.model_copy(update={"configurations": {"3d_fullres": chosen}}).save(folder / PLAN_FILE)
    fold = fold_folder(folder, "3d_fullres", "0")
    tensors, metadata = load_tensors(fold / "weights.safetensors")
    save_tensors(fold / "weights.safetensors", tensors, metadata | {"note": "trained on patient_77 by miller"})
    cases = [{"id": "patient_77", "images": [str(tmp_path / "raw" / "patient_77.nii.gz")]}]
    (folder / "manifest.json").write_text(json.dumps({"root": str(tmp_path / "raw"), "cases": cases}))
    command = f"segfw run {tmp_path}/raw --splits patient_77"
    run = {"sessions": [{"command": command, "system": "miller-laptop", "started": "2024-01-01", "device": "Miller"}]}
    (fold / "run.json").write_text(json.dumps(run))
    (fold / "validation").mkdir()
    scores = {"foreground_mean": {"dice": 0.5}, "labels": {}, "cases": {"patient_77": {}}}
    (fold / "validation" / "scores.json").write_text(json.dumps(scores))
    for name in ("splits.json", "fingerprint.json", "scan.json"):
        (folder / name).write_text(json.dumps({"cases": ["patient_77"]}))
    export_model(folder, tmp_path / "model.zip")
    content = (tmp_path / "model.zip").read_bytes().lower()
    assert b"bright" in content  # the labels are there to be read, so the rest would be too
    for private in (b"patient_77", b"miller", str(tmp_path).lower().encode(), b"a digest of the author's wishes"):
        assert private not in content


def test_a_selection_that_names_a_case_is_not_handed_on(tmp_path):
    folder = small_model(tmp_path / "work")
    (folder / "manifest.json").write_text(json.dumps({"root": "/data", "cases": [{"id": "patient_77"}, {"id": "0"}]}))
    selection_of("3d_fullres", notes=("fold 0 is left out",)).save(folder / "selection.json")
    export_model(folder, tmp_path / "model.zip")
    selection_of("3d_fullres", notes=("patient_77 is left out",)).save(folder / "selection.json")
    with pytest.raises(UserError, match="names 'patient_77', which is private; nothing was written"):
        export_model(folder, tmp_path / "other.zip")
    assert not (tmp_path / "other.zip").exists()


@pytest.mark.parametrize("reason", ["Spacing of patient_77, the median.", "patient_77"])
def test_a_plan_that_names_a_case_is_not_handed_on(tmp_path, reason):
    folder = small_model(tmp_path / "work")
    cases = [
        {"id": name} for name in ("patient_7", "test", "patient_77")
    ]  # parts of words and plain words are no names
    (folder / "manifest.json").write_text(json.dumps({"root": "/data", "cases": cases[:2]}))
    plan = Plan.load(folder / PLAN_FILE)
    plan.model_copy(update={"reasons": ("Made for a test.", reason)}).save(folder / PLAN_FILE)
    export_model(folder, tmp_path / "model.zip")
    (folder / "manifest.json").write_text(json.dumps({"root": "/data", "cases": cases}))
    with pytest.raises(UserError, match="names 'patient_77', which is private; nothing was written"):
        export_model(folder, tmp_path / "other.zip")
    assert not (tmp_path / "other.zip").exists()


def test_licence_by_name_and_by_text(tmp_path):
    text = tmp_path / "LICENCE"
    text.write_text("\nFree for all\n\nDo what you like.\n")
    card = export_model(small_model(tmp_path / "work"), tmp_path / "a.zip", licence=str(text))
    assert (card.licence, card.licence_text) == ("Free for all", text.read_text())
    text.write_text("\n")
    with pytest.raises(UserError, match="is empty; give the licence's name or its text"):
        export_model(tmp_path / "work", tmp_path / "b.zip", licence=str(text))


def test_half_the_size_and_what_it_changes(tmp_path, packed):
    card = export_model(tmp_path / "work", tmp_path / "half.zip", half=True)
    whole = members_of(packed)[WEIGHTS]
    half = members_of(tmp_path / "half.zip")[WEIGHTS]
    assert len(half) < 0.6 * len(whole)
    rounding = card.folds[0].half_rounding
    assert rounding.patch == "noise"
    assert 0 < rounding.largest_logit_change < 0.05
    assert 0 <= rounding.changed_classes < 0.05
    weights, rounded = (load_model(file).weights["0"] for file in (packed, tmp_path / "half.zip"))
    for name, tensor in weights.items():
        assert rounded[name].dtype == torch.float32
        assert torch.equal(rounded[name], tensor.half().float())


def test_weights_beyond_float16_are_refused(tmp_path):
    folder = small_model(tmp_path / "work")
    path = fold_folder(folder, "3d_fullres", "0") / "weights.safetensors"
    tensors, metadata = load_tensors(path)
    name = next(iter(tensors))
    tensors[name] = tensors[name] + 1e6
    save_tensors(path, tensors, metadata)
    with pytest.raises(UserError, match=f"{re.escape(name)} exceeds float16; export without half=True"):
        export_model(folder, tmp_path / "half.zip", half=True)
    assert [path.name for path in tmp_path.iterdir()] == ["work"]


def test_chosen_folds_and_the_best_weights(tmp_path):
    folder = small_model(tmp_path / "work", folds=("0", "1"))
    best = fold_folder(folder, "3d_fullres", "1")
    tensors, metadata = load_tensors(best / "weights.safetensors")
    save_tensors(best / "best.safetensors", {name: tensor + 1 for name, tensor in tensors.items()}, metadata)
    card = export_model(folder, tmp_path / "model.zip", folds=("1",), best=True)
    assert (card.weights, [facts.fold for facts in card.folds]) == ("best", ["1"])
    name = next(iter(tensors))
    for asked in (True, False):  # the file has one kind of weights, which is found in both ways
        assert torch.equal(load_model(tmp_path / "model.zip", best=asked).weights["1"][name], tensors[name] + 1)
    with pytest.raises(UserError, match="fold 0 of 3d_fullres is not trained to its end; trained are 1"):
        load_model(tmp_path / "model.zip", folds=("0",))
    export_model(folder, tmp_path / "last.zip")
    with pytest.raises(UserError, match="holds the weights of the training's end; predict with best=False"):
        load_model(tmp_path / "last.zip", best=True)


def test_several_configurations_need_a_choice(tmp_path):
    folder = cascade_model(tmp_path / "work")
    with pytest.raises(UserError, match="3d_lowres, 3d_cascade_fullres are trained; choose one"):
        export_model(folder, tmp_path / "a.zip")
    card = export_model(folder, tmp_path / "both.zip", configurations=["3d_lowres", "3d_cascade_fullres"])
    assert card.configurations == ("3d_lowres", "3d_cascade_fullres")
    with pytest.raises(UserError, match="choose one with configuration"):
        load_model(tmp_path / "both.zip")
    assert load_model(tmp_path / "both.zip", "3d_lowres").previous is None
    selection_of("3d_lowres", folds={"3d_lowres": ("1",)}).save(folder / "selection.json")
    card = export_model(folder, tmp_path / "selected.zip")
    assert (card.configurations, [fact.fold for fact in card.folds]) == (("3d_lowres",), ["1"])
    assert "selection.json" in members_of(tmp_path / "selected.zip")
    for name, options in {"other": {"configurations": ["3d_cascade_fullres"]}, "one": {"folds": ("1",)}}.items():
        export_model(folder, tmp_path / f"{name}.zip", **options)  # of which the selection says nothing
        assert "selection.json" not in members_of(tmp_path / f"{name}.zip")
    (folder / "selection.json").write_text('{"configurations": ["3d_lowres"]}')
    with pytest.raises(UserError, match=r"selection.json: field 'folds' is missing"):
        export_model(folder, tmp_path / "damaged.zip")


def test_output_that_is_in_the_way_or_of_another_kind(tmp_path, packed, capsys):
    work = str(tmp_path / "work")
    assert main(["export", work, str(packed)]) == 2
    assert "model.zip: exists; give another name, or --overwrite" in capsys.readouterr().err
    assert main(["export", work, str(packed), "--overwrite", "--licence", "MIT"]) == 0
    assert "Licence: MIT." in capsys.readouterr().out
    with ModelSource.open(packed) as model:
        assert model.card.licence == "MIT"
    assert main(["export", work, str(tmp_path / "model.pt")]) == 2
    assert "a model file ends in .zip" in capsys.readouterr().err
    assert main(["export", str(tmp_path), str(tmp_path / "b.zip")]) == 2
    assert "holds no plan.json; give the work folder" in capsys.readouterr().err
    assert main(["export", work, str(packed), "--onnx", "--half"]) == 2
    assert "--half is for model files" in capsys.readouterr().err
