"""``segfw compare-starts`` on a toy: all arms, kept lines, going on, and wrong input."""

import json

import pytest

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


def test_wrong_numbers_are_one_sentence(make_raw, tmp_path):
    work = tmp_path / "work"
    plan_and_preprocess(make_raw(), work, configurations=("2d",), device="cpu", plan_only=True)
    with pytest.raises(UserError, match="'x' is no number of patients; give such as 10,25,all"):
        compare_starts(work, **SHORT | {"labelled": "2,x"})
    with pytest.raises(UserError, match="the fold trains on . patients only; give fewer, or all"):
        compare_starts(work, **SHORT | {"labelled": "50"})
    with pytest.raises(UserError, match="fold all validates on no case"):
        compare_starts(work, **SHORT | {"fold": "all"})
