"""``segfw compare-starts`` on a toy: all arms, kept lines, going on, and wrong input."""

import json
import shutil

import pytest

from builders.partial import write_partial
from builders.work import write_splits
from segfw.base.records import UserError
from segfw.pretraining.start_results import read_results
from segfw.verbs.compare_starts import compare_starts
from segfw.verbs.plan_and_preprocess import plan_and_preprocess

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
    with pytest.raises(UserError, match="was begun with init_from .*2_0_scratch, not .*other; give another"):
        compare_starts(work, **SHORT, init_from=shutil.copytree(trained, tmp_path / "other"))
    swap_folds(work)
    with pytest.raises(UserError, match="was begun with other folds than the work folder has now"):
        compare_starts(work, **SHORT)
    (output / "compare_starts.jsonl").unlink()
    with pytest.raises(UserError, match=r"has seen case_\d\d, which fold 0 validates on; give"):
        compare_starts(work, **SHORT)
    with pytest.raises(UserError, match=r"was pretrained on case_\d\d, which fold 0 validates on; give a start that"):
        compare_starts(work, **SHORT, init_from=output / "pretrained", output=tmp_path / "fresh")


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


def test_a_published_checkpoint_is_not_compared(make_raw, tmp_path):
    work = tmp_path / "work"
    plan_and_preprocess(make_raw(), work, configurations=("2d",), device="cpu", plan_only=True)
    (tmp_path / "published.pth").write_bytes(b"PK")
    with pytest.raises(UserError, match="is a checkpoint of PyTorch, which starts are not compared with"):
        compare_starts(work, **SHORT, init_from=tmp_path / "published.pth")


def test_wrong_numbers_are_one_sentence(make_raw, tmp_path):
    work = tmp_path / "work"
    plan_and_preprocess(make_raw(), work, configurations=("2d",), device="cpu", plan_only=True)
    with pytest.raises(UserError, match="'x' is no number of patients; give such as 10,25,all"):
        compare_starts(work, **SHORT | {"labelled": "2,x"})
    with pytest.raises(UserError, match="the fold trains on . patients only; give fewer, or all"):
        compare_starts(work, **SHORT | {"labelled": "50"})
    with pytest.raises(UserError, match="fold all validates on no case"):
        compare_starts(work, **SHORT | {"fold": "all"})
