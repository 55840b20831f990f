"""segfw train through its function: longer runs, other weights to begin with, the user's own augmentation."""

import json
import re
import shutil

import pytest
import torch

from segfw.base.records import UserError
from segfw.model.load import load_model
from segfw.model.training_record import read_run_record
from segfw.model.weights import load_tensors, save_tensors
from segfw.training.settings import TrainOptions, TrainSettings
from segfw.verbs.plan_and_preprocess import plan_and_preprocess
from segfw.verbs.train import train


def test_a_finished_fold_is_extended_and_keeps_what_it_was(make_raw, tmp_path, capsys):
    work, short = tmp_path / "work", {"epochs": 1, "steps_per_epoch": 2, "batch_size": 2, "device": "cpu"}
    plan_and_preprocess(make_raw(), work, configurations=("2d",), device="cpu")
    with pytest.raises(UserError, match="holds no finished run to extend"):
        train(work, "2d", "0", extend_epochs=1)
    train(work, "2d", "0", **short)
    fold = work / "runs" / "2d" / "fold_0"
    before = load_tensors(fold / "weights.safetensors")[0]
    with pytest.raises(UserError, match="^overwrite=True deletes the run that resume=True or extend_epochs would"):
        train(work, "2d", "0", extend_epochs=2, overwrite=True)
    with pytest.raises(UserError, match="extend_epochs must give epochs"):
        train(work, "2d", "0", extend_s=5.0, device="cpu")
    assert train(work, "2d", "0", extend_epochs=2, device="cpu") is not None
    kept, after = (load_tensors(path / "weights.safetensors")[0] for path in (fold / "before_extension", fold))
    assert all(torch.equal(kept[name], before[name]) for name in before)
    assert not all(torch.equal(after[name], before[name]) for name in before)
    assert len((fold / "metrics.jsonl").read_text().splitlines()) == 3
    assert (fold / "before_extension" / "validation" / "scores.json").is_file()
    assert (fold / "report.html").is_file()
    assert [session["how"] for session in json.loads((fold / "run.json").read_text())["sessions"]] == [
        "started",
        "extended",
    ]


def test_a_record_trains_as_its_keywords_do(make_raw, tmp_path):
    plan_and_preprocess(make_raw(), tmp_path / "first", configurations=("2d",), device="cpu")
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    settings = TrainSettings(epochs=1, steps_per_epoch=2, batch_size=2)
    train(tmp_path / "first", "2d", 0, settings, TrainOptions(device="cpu"))
    train(str(tmp_path / "second"), "2d", "0", epochs=1, steps_per_epoch=2, batch_size=2, device="cpu")
    first, second = (tmp_path / name / "runs" / "2d" / "fold_0" for name in ("first", "second"))
    assert (first / "settings.json").read_text() == (second / "settings.json").read_text()
    weights, same = (load_tensors(path / "weights.safetensors")[0] for path in (first, second))
    assert all(torch.equal(weights[name], same[name]) for name in weights)


def test_a_wrong_keyword_is_told_before_anything_is_read(tmp_path):
    with pytest.raises(TypeError, match=r"^train\(\) takes no 'epoch'; did you mean epochs\?$"):
        train(tmp_path / "nowhere", "2d", 0, epoch=3)
    with pytest.raises(UserError, match="^epochs is 0; give 1 or more$"):
        train(tmp_path / "nowhere", "2d", 0, epochs=0)


def test_a_run_begins_with_another_models_weights(make_raw, tmp_path, capsys):
    first, second = tmp_path / "first", tmp_path / "second"
    raw, short = make_raw(), {"steps_per_epoch": 1, "batch_size": 2, "device": "cpu"}
    for work in (first, second):
        plan_and_preprocess(raw, work, configurations=("2d",), device="cpu")
    train(first, "2d", "0", epochs=2, **short)
    train(second, "2d", "0", epochs=1, init_from=first, learning_rate=1e-12, **short)
    said = capsys.readouterr().out
    assert "weights taken over" in said
    assert "scores will be too good" not in said
    ours, theirs = (
        load_tensors(work / "runs" / "2d" / "fold_0" / "weights.safetensors")[0] for work in (second, first)
    )
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, atol=1e-6, rtol=1e-5)


def test_the_users_own_augmentation_takes_the_place_of_ours(make_raw, tmp_path):
    work, seen = tmp_path / "work", []
    plan_and_preprocess(make_raw(), work, configurations=("2d",), device="cpu")

    def augment(image, classes, rng):
        seen.append((tuple(image.shape), tuple(classes.shape), float(rng.random())))
        return image, classes

    train(work, "2d", "0", epochs=1, steps_per_epoch=2, batch_size=2, device="cpu", augment=augment)
    assert len(seen) == 4  # two samples in two steps; validation patches stay as they are
    assert {(len(image), len(classes)) for image, classes, _ in seen} == {(5, 4)}
    assert len({number for *_, number in seen}) == 4


def test_best_weights_are_used_where_they_are_asked_for(make_raw, tmp_path):
    work = tmp_path / "work"
    plan_and_preprocess(make_raw(), work, configurations=("2d",), device="cpu")
    train(work, "2d", "0", epochs=1, steps_per_epoch=1, batch_size=2, device="cpu")
    fold = work / "runs" / "2d" / "fold_0"
    (fold / "best.safetensors").unlink(missing_ok=True)
    with pytest.raises(UserError, match=r"best.safetensors: no weights of a best epoch were kept.*best=False"):
        load_model(work, "2d", best=True)
    tensors, metadata = load_tensors(fold / "weights.safetensors")
    save_tensors(fold / "best.safetensors", {name: tensor * 2 for name, tensor in tensors.items()}, metadata)
    best, last = (load_model(work, "2d", best=chosen).weights["0"] for chosen in (True, False))
    assert all(torch.equal(best[name], tensor * 2) for name, tensor in tensors.items())
    assert all(torch.equal(last[name], tensor) for name, tensor in tensors.items())


def test_weights_that_may_have_seen_the_validation_cases_are_pointed_out(make_raw, tmp_path, capsys):
    work, short = tmp_path / "work", {"epochs": 1, "steps_per_epoch": 1, "batch_size": 2, "device": "cpu"}
    plan_and_preprocess(make_raw(), work, configurations=("2d",), device="cpu")
    train(work, "2d", "0", **short)
    train(work, "2d", "1", init_from=work, **short)
    assert "the cases that fold 1 validates on, the scores will be too good" in capsys.readouterr().out


def test_pages_that_a_finished_run_could_not_write_are_written_when_it_is_asked_for_again(make_raw, tmp_path):
    work = tmp_path / "work"
    plan_and_preprocess(make_raw(), work, configurations=("2d",), device="cpu")
    train(work, "2d", "0", epochs=1, steps_per_epoch=2, batch_size=2, device="cpu")
    fold = work / "runs" / "2d" / "fold_0"
    page = fold / "progress.html"
    finished = page.read_text()
    assert "<b>Finished</b>" in finished

    page.write_text("running")  # it was killed before it could say that it is over
    record = read_run_record(fold)
    assert record.has_last_page
    record.model_copy(update={"has_last_page": False}).save(fold / "run.json")
    (work / "progress.html").unlink()
    train(work, "2d", "0", device="cpu")
    assert "<b>Finished</b>" in page.read_text()
    assert len(facts_on(finished)) >= 7
    assert facts_on(page.read_text()) == facts_on(finished)
    assert "finished" in (work / "progress.html").read_text()

    before = page.stat().st_mtime_ns
    train(work, "2d", "0", device="cpu")
    assert page.stat().st_mtime_ns == before  # what is whole is left as it is

    (fold / "run.json").write_text("{")
    page.unlink()
    train(work, "2d", "0", device="cpu")  # a record that cannot be read does not keep the scores from being told
    assert not page.exists()


def facts_on(page: str) -> list[str]:
    """What the run is said to be trained with."""
    return re.findall(r"<t[dh][^>]*>[^<]*</t[dh]>|<d[dt][^>]*>[^<]*</d[dt]>", page)
