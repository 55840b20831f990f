"""``segfw compare-starts`` on a toy: all arms, kept lines, going on, and wrong input."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from builders.models import write_fold
from builders.partial import write_partial
from builders.published import publish
from builders.work import write_splits
from segfw.base.records import UserError
from segfw.model.source import fold_folder
from segfw.model.weights import load_tensors, save_tensors
from segfw.networks import build_network
from segfw.planning.plan import Plan
from segfw.pretraining.compare_options import CompareOptions
from segfw.pretraining.start_results import read_results
from segfw.verbs.compare_starts import compare_starts
from segfw.verbs.export import export_model
from segfw.verbs.plan_and_preprocess import plan_and_preprocess
from segfw.verbs.pretrain import pretrain

SHORT = {"labelled": "2", "seeds": 1, "time_budget_s": 1.0, "configuration": "2d", "device": "cpu"}


def test_arms_are_trained_scored_and_kept(make_raw, tmp_path, capsys):
    work = tmp_path / "work"
    plan_and_preprocess(make_raw(), work, configurations=("2d",), device="cpu")
    summary = compare_starts(work, **SHORT)
    output = work / "compare_starts"
    results = read_results(output / "compare_starts.jsonl")
    assert [each.arm for each in results] == ["scratch", "scratch, longer by the pretraining", "pretrained"]
    validation = set(json.loads((work / "splits.json").read_text())["folds"][0]["validation"])
    for each in results:
        assert len(each.cases) == 2
        assert not set(each.cases) & validation
        assert set(each.end) == set(each.quarter) == validation
    seen = json.loads((output / "pretrained" / "pretraining.json").read_text())["seen"]
    assert not {image["id"] for image in seen} & validation
    assert {(gain.at, gain.verdict) for gain in summary.gains} == {
        ("quarter", "no gain shown"),
        ("end", "no gain shown"),
    }
    page = (output / "compare_starts.html").read_text(encoding="utf-8")
    assert "<b>no gain shown</b>" in page
    assert f"Pretrained on {len(seen)} images, none of which fold 0 validates on." in page
    assert len((output / "compare_starts.csv").read_text().splitlines()) == 1 + len(summary.gains)
    capsys.readouterr()

    # An interrupted one goes on: what is in the file is not trained again.
    lines = (output / "compare_starts.jsonl").read_text().splitlines()
    (output / "compare_starts.jsonl").write_text("\n".join(lines[:2]) + "\n" + lines[2][:40])
    again = compare_starts(work, **SHORT)
    said = capsys.readouterr().out
    assert "seed 0: pretrained" in said
    assert "seed 0: scratch" not in said
    assert len(again.gains) == len(summary.gains)
    with pytest.raises(UserError, match="was begun with seeds 1, not 2; give another"):
        compare_starts(work, **SHORT | {"seeds": 2})

    # A third arm is of one model, which must not have seen what is scored; and folds stay as they were.
    (trained,) = (output / "trainings").glob("2_0_scratch")
    compare_starts(work, **SHORT, init_from=trained)
    assert read_results(output / "compare_starts.jsonl")[-1].arm == "from the given model"
    told = "the given model 2_0_scratch was trained on"
    assert told in compare_starts(work, **SHORT).guards["from the given model"]  # also where it is not given again
    assert told in (output / "compare_starts.html").read_text(encoding="utf-8")
    with pytest.raises(UserError, match="was begun with init_from .*2_0_scratch, not .*other; give another"):
        compare_starts(work, **SHORT, init_from=shutil.copytree(trained, tmp_path / "other"))
    swap_folds(work)
    with pytest.raises(UserError, match="was begun with other folds than the work folder has now"):
        compare_starts(work, **SHORT)
    (output / "compare_starts.jsonl").unlink()
    with pytest.raises(UserError, match=r"has seen case_\d\d, which fold 0 validates on; give"):
        compare_starts(work, **SHORT)
    with pytest.raises(
        UserError, match=r"was pretrained on case_\d\d \(by its bytes\), which fold 0 validates on; give a start that"
    ):
        compare_starts(work, **SHORT, init_from=output / "pretrained", output=tmp_path / "fresh")


def test_a_start_that_has_seen_what_is_scored_is_taken_where_that_is_allowed_and_said(
    make_raw, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("segfw.pretraining.start_results.ARMS", ("scratch", "from the given model"))
    work = tmp_path / "work"
    plan_and_preprocess(make_raw(), work, configurations=("2d",), device="cpu")
    pretrain(work, "2d", folds=("1",), epochs=1, steps_per_epoch=2, device="cpu")
    start = work / "pretrained" / "2d"
    with pytest.raises(UserError, match="or give may_have_seen=True and distrust its scores"):
        compare_starts(work, **SHORT, init_from=start)
    capsys.readouterr()
    summary = compare_starts(work, **SHORT, init_from=start, may_have_seen=True)
    validation = set(json.loads((work / "splits.json").read_text())["folds"][0]["validation"])
    assert set(summary.seen_by_model) == validation
    said = "its scores are too good and its gains count for nothing"
    assert said in summary.guards["from the given model"]
    assert "unless that is wrong, its scores will be too good" in capsys.readouterr().out
    page = (work / "compare_starts" / "compare_starts.html").read_text(encoding="utf-8")
    assert page.count(said) == 2  # at the top, and among the guards
    assert "and no arm saw" not in page
    assert compare_starts(work, **SHORT).seen_by_model == summary.seen_by_model  # also where it is not given again


def swap_folds(work):
    splits = json.loads((work / "splits.json").read_text())
    splits["folds"] = splits["folds"][::-1]
    (work / "splits.json").write_text(json.dumps(splits))


def test_structures_that_nobody_drew_are_no_background_of_an_arm(tmp_path, monkeypatch):
    raw = write_partial(tmp_path / "raw")
    work = tmp_path / "work"
    splits = write_splits(tmp_path / "splits.json")
    plan_and_preprocess(raw, work, configurations=("2d",), splits=splits, device="cpu")
    asked = []

    def train(request):
        asked.append(request)
        raise UserError("far enough")

    monkeypatch.setattr("segfw.pretraining.start_trainings.train", train)
    with pytest.raises(UserError, match="far enough"):
        compare_starts(work, **SHORT)
    assert asked[0].annotated["case_00"] != asked[0].annotated["case_01"]


@pytest.fixture
def asked(monkeypatch):
    """The trainings that were asked for: each ends before its first step, as if it could not go on."""
    requests = []

    def train(request):
        requests.append(request)
        raise UserError("far enough")

    monkeypatch.setattr("segfw.pretraining.start_trainings.train", train)
    monkeypatch.setattr("segfw.verbs.compare_starts._pretrain", lambda *_: None)
    monkeypatch.setattr("segfw.pretraining.start_results.ARMS", ("from the given model",))
    return requests


def test_a_published_checkpoint_is_a_start_as_in_a_training(make_raw, tmp_path, asked, capsys):
    work = tmp_path / "work"
    plan_and_preprocess(make_raw(), work, configurations=("2d",), device="cpu", plan_only=True, preset="resenc-m")
    spec = Plan.load(work / "plan.json").configurations["2d"].network
    theirs = publish(tmp_path / "published.pth", spec)
    with pytest.raises(UserError, match="far enough"):
        compare_starts(work, **SHORT, init_from=tmp_path / "published.pth")
    (request,) = asked
    network = build_network(spec)
    request.start(network)
    here = network.state_dict()
    assert all(torch.equal(here[name], theirs[name]) for name in theirs if not name.startswith("heads."))
    assert (request.settings.warm_up_share, request.settings.encoder_rate) == (0.05, 0.3)
    assert "its licence is not stated" in capsys.readouterr().out
    with pytest.raises(UserError, match="other.pth: no such file"):
        compare_starts(work, **SHORT, init_from=tmp_path / "other.pth", output=tmp_path / "fresh")


def test_a_model_file_is_a_start_at_the_usual_rate(make_raw, tmp_path, asked):
    work = tmp_path / "work"
    plan_and_preprocess(make_raw(), work, configurations=("2d",), device="cpu", plan_only=True)
    plan = Plan.load(work / "plan.json")
    (tmp_path / "other").mkdir()
    plan.save(tmp_path / "other" / "plan.json")
    write_fold(tmp_path / "other", plan.configurations["2d"], "0")
    export_model(tmp_path / "other", tmp_path / "other.zip")
    with pytest.raises(UserError, match="far enough"):
        compare_starts(work, **SHORT, init_from=tmp_path / "other.zip")
    (request,) = asked
    network = build_network(request.configuration.network)
    request.start(network)
    theirs = load_tensors(fold_folder(tmp_path / "other", "2d", "0") / "weights.safetensors")[0]
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in network.state_dict().items())
    assert (request.settings.warm_up_share, request.settings.encoder_rate) == (0, 1)


def test_an_arm_that_was_begun_by_another_rule_does_not_go_on(make_raw, tmp_path, asked):
    """Before, a pretrained start that is given was trained like any other: half of an arm of either kind is none."""
    work = tmp_path / "work"
    plan_and_preprocess(make_raw(), work, configurations=("2d",), device="cpu")
    pretrain(work, "2d", folds=("0",), epochs=1, steps_per_epoch=2, device="cpu")
    started = SHORT | {"init_from": work / "pretrained" / "2d"}
    with pytest.raises(UserError, match="far enough"):
        compare_starts(work, **started)
    (request,) = asked
    assert (request.settings.warm_up_share, request.settings.encoder_rate) == (0.05, 0.3)
    settings = request.folder / "settings.json"
    request.settings.save(settings)
    with pytest.raises(UserError, match="far enough"):  # by the same rule it goes on
        compare_starts(work, **started)
    replace(request.settings, warm_up_share=0.0, encoder_rate=1.0).save(settings)
    message = "settings.json: the arm 'from the given model' was begun with a warm-up of 0% .* go on with .* of 5% "
    with pytest.raises(UserError, match=message + ".*give another output than "):
        compare_starts(work, **started)
    assert len(asked) == 2


def test_by_default_only_numbers_of_which_there_are_so_many_patients_are_compared():
    assert CompareOptions().numbers(16) == ("10", "all")
    assert CompareOptions().numbers(10) == ("all",)
    assert CompareOptions().numbers(200) == ("10", "25", "all")
    assert CompareOptions(labelled="25,25,all").numbers(16) == ("25", "all")  # which is refused: it was asked for


def test_of_several_configurations_the_full_resolution_is_compared_by_default(make_raw, tmp_path, monkeypatch):
    work = tmp_path / "work"
    plan_and_preprocess(make_raw(), work, device="cpu", plan_only=True)
    begun = []
    monkeypatch.setattr("segfw.verbs.compare_starts._compare", lambda *given: begun.append(given[4].name))
    compare_starts(work)
    assert begun == ["3d_fullres"]


def test_a_start_that_does_not_fit_is_told_before_anything_is_trained(make_raw, tmp_path):
    work = tmp_path / "work"
    plan_and_preprocess(make_raw(), work, configurations=("2d",), device="cpu", plan_only=True)
    for name, tensor in (("narrow", torch.ones(3, 1, 1, 3, 3)), ("offsets", torch.ones(2))):
        start = tmp_path / name / "weights.safetensors"
        save_tensors(start, {"encoder.0.0.0.weight": tensor}, {})
        with pytest.raises(UserError, match="none of its 1 weights fits this network"):
            compare_starts(work, **SHORT, init_from=start)
    text = tmp_path / "README.md"
    text.write_text("# A model card that is long enough")
    with pytest.raises(UserError, match="README.md: is not a whole safetensors file"):
        compare_starts(work, **SHORT, init_from=text)
    assert not (work / "compare_starts" / "pretrained").exists()


def test_wrong_numbers_are_one_sentence(make_raw, tmp_path):
    work = tmp_path / "work"
    plan_and_preprocess(make_raw(), work, configurations=("2d",), device="cpu", plan_only=True)
    with pytest.raises(UserError, match="'x' is no number of patients; give such as 10,25,all"):
        compare_starts(work, **SHORT | {"labelled": "2,x"})
    with pytest.raises(UserError, match="the fold trains on . patients only; give fewer, or all"):
        compare_starts(work, **SHORT | {"labelled": "50"})
    with pytest.raises(UserError, match="fold all validates on no case"):
        compare_starts(work, **SHORT | {"fold": "all"})
