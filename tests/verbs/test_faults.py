"""What people and machines do wrong around segfw ends in the right result or in one sentence, never without a word."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import threading
from unicodedata import normalize

import pytest
import torch

from builders.data import blocks_case, put_nan, write_nifti
from builders.models import small_model
from builders.nnunet import trained_folder
from builders.waiting import run_together
from segfw.base.errors import UserError
from segfw.base.locks import Busy
from segfw.cli import main
from segfw.model.card import fold_facts
from segfw.model.load import load_model
from segfw.model.packing import _licence
from segfw.model.training_record import read_metrics
from segfw.model.weights import save_tensors
from segfw.verbs.export import export_model
from segfw.verbs.import_nnunet import import_nnunet
from segfw.verbs.plan_and_preprocess import plan_and_preprocess
from segfw.verbs.train import train

SHORT = {"epochs": 1, "steps_per_epoch": 2, "batch_size": 2, "device": "cpu"}
needs_bytes_in_names = pytest.mark.skipif(sys.platform != "linux", reason="names are bytes on Linux alone")


@pytest.fixture
def work(make_raw, tmp_path):
    plan_and_preprocess(make_raw(), tmp_path / "work", configurations=("2d",), device="cpu")
    return tmp_path / "work"


def said(capsys, arguments, code=2) -> str:
    """The one line of errors of a command that ends with ``code``."""
    assert main([str(argument) for argument in arguments]) == code
    errors = capsys.readouterr().err
    assert errors.startswith("segfw: ")
    assert errors.count("\n") == 1
    return errors.removeprefix("segfw: ").rstrip("\n")


# ---- two at once ----


def test_one_fold_is_trained_by_one_process_at_a_time(work, capsys):
    is_training = threading.Event()
    may_go_on = threading.Event()
    scores = []

    def augment(image, classes, rng):
        is_training.set()
        assert may_go_on.wait(120)
        return image, classes

    def first() -> None:
        scores.append(train(work, "2d", 0, augment=augment, **SHORT))

    thread = threading.Thread(target=first)
    thread.start()
    try:
        assert is_training.wait(120)
        for options in ({}, {"resume": True}, {"overwrite": True}, {"extend_epochs": 2}):
            with pytest.raises(Busy) as busy:
                train(work, "2d", "0", **SHORT | options)
            assert busy.match(
                rf"runs/2d/fold_0: is being trained by process {os.getpid()} on \S+ since 20\d\d-.*; wait"
            )
        capsys.readouterr()
        again = ["run", work.parent / "raw", work, "--configurations", "2d", "--folds", "0", "--device", "cpu"]
        assert "fold_0: is being trained by process" in said(capsys, again)
    finally:
        may_go_on.set()
        thread.join(300)
    assert [row["epoch"] for row in read_metrics(work / "runs" / "2d" / "fold_0")] == [0]
    assert scores
    assert train(work, "2d", "0", **SHORT) == scores[0]


def test_two_plans_for_one_folder_are_made_one_after_the_other(make_raw, tmp_path, capsys):
    raw = make_raw()
    plans = []
    threads = [
        threading.Thread(
            target=lambda: plans.append(plan_and_preprocess(raw, tmp_path / "w", configurations=("2d",), device="cpu"))
        )
        for _ in range(2)
    ]
    run_together(threads)
    assert plans[0] == plans[1]
    assert capsys.readouterr().out.count("checked 6 cases") == 1  # the second one has kept it
    assert len(list((tmp_path / "w" / "preprocessed" / "2d").glob("*.json"))) == 6


# ---- what goes on, and from where ----


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_with_resume(work, capsys):
    (work / "runs" / "2d" / "fold_0").mkdir(parents=True)
    assert train(work, "2d", "0", resume=True, **SHORT) is not None
    shown = capsys.readouterr().out
    assert "fold_0: has no checkpoint yet to go on from, so the training begins" in shown
    assert "training 2d fold 0 for 1 epoch" in shown
    with pytest.raises(UserError, match="holds no finished run to extend"):
        train(work, "2d", "1", extend_epochs=1)


def test_settings_that_a_run_does_not_follow_are_named(work, capsys):
    train(work, "2d", "0", **SHORT)
    assert "is not followed" not in capsys.readouterr().out
    train(work, "2d", "0", **SHORT)
    assert "is not followed" not in capsys.readouterr().out
    train(work, "2d", "0", **SHORT | {"epochs": 7, "resume": True})
    shown = capsys.readouterr().out
    assert f"note: --epochs 7 is not followed, because {work}/runs/2d/fold_0 was begun with 1" in shown
    assert "--steps-per-epoch" not in shown
    train(work, "2d", "0", **SHORT | {"time_budget_s": 150.0, "resume": True})
    assert f"note: --time-budget 2m30s is not followed, because {work}/runs/2d/fold_0 was begun without" in (
        capsys.readouterr().out
    )


# ---- what people wrote ----


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_files_that_windows_wrote_are_read_as_those_of_others(make_raw, tmp_path, capsys, encoding):
    raw = make_raw()
    description = raw / "dataset.json"
    description.write_text(description.read_text(), encoding=encoding)
    ids = [f"case_{number:02}" for number in range(6)]
    splits = tmp_path / "splits.json"
    splits.write_text(json.dumps([{"train": ids[:4], "val": ids[4:]}]), encoding=encoding)
    groups = tmp_path / "groups.csv"
    groups.write_text("case;patient\n" + "".join(f"{case};{case}\n" for case in ids), encoding=encoding)
    assert main(["check", str(raw), "--groups", str(groups)]) == 0
    plan_and_preprocess(raw, tmp_path / "work", plan_only=True, splits=splits, groups=groups, device="cpu")
    assert json.loads((tmp_path / "work" / "splits.json").read_text())["folds"][0]["validation"] == ids[4:]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1", "cp1252"])
def test_the_text_of_a_licence_is_read_in_any_encoding(tmp_path, encoding):
    path = tmp_path / "licence.txt"
    path.write_bytes("Lizenz © 2026\nfrei für alle".encode(encoding))
    assert _licence(str(path), None) == ("Lizenz © 2026", "Lizenz © 2026\nfrei für alle")


def test_json_that_cannot_be_is_one_sentence_from_every_verb(make_raw, tmp_path, capsys):
    raw = make_raw()
    for text in ("[" * 200_000, r'{"labels": {"background": 0, "a\ud800": 1}, "channel_names": {"0": "MR"}}'):
        (raw / "dataset.json").write_text(text)
        for command in (["check", raw], ["plan-and-preprocess", raw, tmp_path / "work"]):
            assert "raw/dataset.json: is not readable JSON (" in said(capsys, command)
    assert not (tmp_path / "work").exists()


# ---- names ----


def test_names_pair_however_their_accents_are_written(tmp_path, capsys):
    for number, name in enumerate(("Knöchel", "Hüfte", "Région")):
        image, mask = blocks_case(number)
        decomposed, composed = normalize("NFD", name), normalize("NFC", name)
        assert decomposed != composed
        write_nifti(tmp_path / "raw" / "images" / f"{decomposed}.nii.gz", image)
        write_nifti(tmp_path / "raw" / "labels" / f"{composed}.nii.gz", mask)
        write_nifti(tmp_path / "predicted" / f"{decomposed}.nii.gz", mask)
    assert main(["check", str(tmp_path / "raw")]) == 0
    assert "layout: folders; Hüfte: images/Hu\u0308fte.nii.gz -> labels/Hüfte.nii.gz" in capsys.readouterr().out
    output = tmp_path / "scores.json"
    masks = [str(tmp_path / "predicted"), str(tmp_path / "raw" / "labels")]
    assert main(["evaluate", *masks, "--no-surface", "--output", str(output)]) == 0
    assert set(json.loads(output.read_text(encoding="utf-8"))["cases"]) == {"Knöchel", "Hüfte", "Région"}


def test_two_files_whose_names_look_the_same_are_not_one_case(tmp_path, capsys):
    image, mask = blocks_case(0)
    for form in ("NFC", "NFD"):
        write_nifti(tmp_path / "images" / f"{normalize(form, 'Noël')}.nii.gz", image)
        write_nifti(tmp_path / "masks" / f"{normalize(form, 'Noël')}.nii.gz", mask)
    assert "are masks of one case; keep one" in said(capsys, ["evaluate", tmp_path / "masks", tmp_path / "masks"])
    model = small_model(tmp_path / "model")
    assert "would both be the case Noël" in said(capsys, ["predict", model, tmp_path / "images", tmp_path / "out"])


@needs_bytes_in_names
def test_names_that_are_not_utf_8_are_checked_scored_and_predicted(tmp_path, capsysbinary):
    for number in range(3):
        image, mask = blocks_case(number)
        for kind, array in (("images", image), ("labels", mask)):
            write_nifti(tmp_path / "raw" / kind / "x.nii.gz", array)
            folder = os.fsencode(tmp_path / "raw" / kind)
            os.rename(folder + b"/x.nii.gz", folder + b"/Kn\xf6chel_%d.nii.gz" % number)
    raw, labels = str(tmp_path / "raw"), str(tmp_path / "raw" / "labels")
    assert main(["check", raw, "--output", str(tmp_path / "report")]) == 0
    assert rb"Kn\udcf6chel_0.nii.gz" in capsysbinary.readouterr().out
    assert main(["evaluate", labels, labels, "--no-surface", "--output", str(tmp_path / "scores.json")]) == 0
    assert r"Kn\udcf6chel_0" in (tmp_path / "scores.csv").read_text(encoding="utf-8")
    assert main(["plan-and-preprocess", raw, str(tmp_path / "work")]) == 2
    assert rb"Kn\udcf6chel_0.nii.gz: the name holds bytes that are not UTF-8" in capsysbinary.readouterr().err
    model = small_model(tmp_path / "model")
    for _ in range(2):
        assert main(["predict", str(model), f"{raw}/images", str(tmp_path / "out"), "--device", "cpu"]) == 0
    assert len([name for name in os.listdir(os.fsencode(tmp_path / "out")) if name.endswith(b".nii.gz")]) == 3


def test_names_that_the_console_lacks_are_shown_escaped(tmp_path, monkeypatch):
    for number in range(3):
        image, mask = blocks_case(number)
        write_nifti(tmp_path / "raw" / "images" / f"病人_{number}.nii.gz", image)
        write_nifti(tmp_path / "raw" / "labels" / f"病人_{number}.nii.gz", mask)
    shown = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", shown)
    assert main(["check", str(tmp_path / "raw")]) == 0
    assert main(["plan-and-preprocess", str(tmp_path / "raw"), str(tmp_path / "work"), "--plan-only"]) == 0
    shown.flush()
    assert rb"\u75c5\u4eba_0.nii.gz" in shown.buffer.getvalue()


# ---- damage, permission, a full disk ----


def test_a_full_disk_in_training_is_one_sentence(work, capsys, monkeypatch):
    def full(*_, **__):
        raise Exception("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    line = said(capsys, ["train", work, "2d", "0", "--epochs", "1", "--steps-per-epoch", "1", "--device", "cpu"])
    assert "last.safetensors: the disk is full (" in line
    assert "free some space and call the same command again" in line
    monkeypatch.undo()
    assert train(work, "2d", "0", resume=True, **SHORT) is not None


def test_a_full_disk_in_import_and_export_leaves_nothing(tmp_path, capsys, monkeypatch):
    theirs = trained_folder(tmp_path / "theirs")

    def full(*_, **__):
        raise RuntimeError("[enforce fail at inline_container.cc:858] . PytorchStreamWriter failed writing file data/0")

    with monkeypatch.context() as patched:
        patched.setattr("safetensors.torch.save_file", full)
        line = said(capsys, ["import-nnunet", theirs, tmp_path / "model"])
        weights = tmp_path / "model" / "runs" / "3d_fullres" / "fold_0" / "weights.safetensors"
        assert line.startswith(f"{weights}: the disk is full (")
    import_nnunet(theirs, tmp_path / "model")
    capsys.readouterr()
    monkeypatch.setattr(torch, "save", full)
    line = said(capsys, ["export", tmp_path / "model", tmp_path / "folder", "--nnunet"])
    assert f"{tmp_path}/folder: the disk is full (" in line
    assert {path.name for path in tmp_path.iterdir()} == {"theirs", "model"}


def test_a_full_disk_while_a_data_set_is_repaired_leaves_nothing(make_raw, tmp_path, capsys, monkeypatch):
    raw = make_raw()
    put_nan(raw)

    def full(*_, **__):
        raise shutil.Error([("a", "b", "[Errno 28] No space left on device: 'b'")])

    monkeypatch.setattr(shutil, "copytree", full)
    assert "fixed: the disk is full (" in said(capsys, ["check", raw, "--fix", tmp_path / "fixed"])
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]
    monkeypatch.undo()
    assert main(["check", str(raw), "--fix", str(tmp_path / "fixed")]) == 0
    assert (tmp_path / "fixed" / "fixes.json").is_file()


def test_weights_of_a_model_say_what_they_can_of_mirroring(tmp_path):
    model = small_model(tmp_path / "model")
    path = model / "runs" / "3d_fullres" / "fold_0" / "weights.safetensors"
    weights = load_model(model).weights["0"]
    for field, value in (("mirror_axes", "abc"), ("mirror_axes", "7"), ("epoch", "x"), ("epoch", "9" * 5000)):
        save_tensors(path, weights, {"epoch": "1", "mirror_axes": "2"} | {field: value})
        with pytest.raises(UserError, match=rf"weights\.safetensors: field '{field}' is '{value[:9]}"):
            load_model(model)


@pytest.mark.parametrize(
    "content", ["", '{"foreground_mean": {"di', "[]", '{"labels": 3}', '{"labels": {"a": {"dice": "x"}}}']
)
def test_a_record_or_scores_that_were_cut_do_not_keep_a_model_from_being_handed_on(tmp_path, capsys, content):
    model = small_model(tmp_path / "model")
    fold = model / "runs" / "3d_fullres" / "fold_0"
    (fold / "validation").mkdir()
    (fold / "validation" / "scores.json").write_text(content)
    (fold / "run.json").write_text('{"label_names": [')
    (fold / "metrics.jsonl").write_text('{"epoch": 0, "steps": 3}\n[1]\n')
    card = export_model(model, tmp_path / "model.zip")
    assert card.folds[0].validation_dice is None
    assert (card.folds[0].epochs, card.folds[0].steps) == (1, 3)
    assert f"note: {fold}/validation/scores.json: " in capsys.readouterr().out
    assert fold_facts(fold, "3d_fullres", "0", fold / "weights.safetensors").validation_dice_per_label == {}


def test_a_mask_that_is_a_link_to_itself_is_one_sentence(make_raw, tmp_path, capsys):
    raw = make_raw()
    mask = raw / "labelsTr" / "case_01.nii.gz"
    mask.unlink()
    mask.symlink_to(mask.name)
    for command in (["check", raw], ["plan-and-preprocess", raw, tmp_path / "work"]):
        assert main([str(part) for part in command]) in (1, 2)
        shown = capsys.readouterr()
        assert "case_01" in shown.out + shown.err


def test_threads_that_the_system_does_not_give_are_one_sentence(make_raw, tmp_path, capsys, monkeypatch):
    def none(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none)
    line = said(capsys, ["check", make_raw()])
    assert line.endswith("give fewer --workers, or raise the limit with ulimit -u")


def test_the_fold_may_be_a_number(work):
    assert train(work, "2d", 0, **SHORT) is not None
