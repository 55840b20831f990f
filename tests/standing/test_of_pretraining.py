"""What ``segfw status`` says of pretrainings in a work folder: how far, whether still of its plan, what comes next."""

import json
import shlex
import shutil
from pathlib import Path

import pytest

from segfw.base.locks import held
from segfw.cli import main
from segfw.standing.recognise import standing_of

BEFORE = Path(__file__).parents[1] / "written_before"
FULLRES = "3d_fullres"


@pytest.fixture
def work(tmp_path):
    """Planned, and nothing is trained yet."""
    shutil.copytree(BEFORE / "work", tmp_path / "work")
    shutil.rmtree(tmp_path / "work" / "runs")
    return tmp_path / "work"


def pretrained(work, *, seen=None, folds=("0",), is_finished=True, asked=None, network=None):
    """Writes a record as ``pretrain`` does: of all that fold 0 trains on, where nothing else is said."""
    plan = json.loads((work / "plan.json").read_text())
    splits = json.loads((work / "splits.json").read_text())
    usual = {
        "images": [],
        "keep_out": [],
        "folds": list(folds),
        "epochs": 1000,
        "steps_per_epoch": None,
        "time_budget_s": None,
        "batch_size": None,
        "seed": 0,
        "precision": "auto",
    }
    record = {
        "configuration": FULLRES,
        "network": {**plan["configurations"][FULLRES]["network"], "classes": 1, **(network or {})},
        "heads": [],
        "asked": usual | (asked or {}),
        "folds": list(folds),
        "seen": [{"id": case, "sha256": "", "source": "x"} for case in seen or splits["folds"][0]["train"]],
        "judged": [],
        "kept_out": [{"id": "other", "sha256": "", "reason": "is it"}],
        "end": {"steps": 9, "seconds": 1.0, "explained": 0.25} if is_finished else None,
    }
    folder = work / "pretrained" / FULLRES
    folder.mkdir(parents=True)
    (folder / "pretraining.json").write_text(json.dumps(record))
    return folder


def test_after_a_pretraining_comes_the_training_that_begins_with_it(work):
    folder = pretrained(work)
    answer = standing_of(work)
    (found,) = answer.pretrained
    assert (found.state, found.kept_out, found.outdated, found.again) == ("finished", 1, "", "")
    assert answer.next == f"segfw train {work} {FULLRES} 0 --init-from {folder}"
    assert (
        f"pretraining of {FULLRES}: finished, {found.images} images, 1 kept out, none that fold 0 scores, 25.0% of"
        in (answer.text())
    )


def test_one_that_kept_nothing_unseen_is_for_the_training_on_all_cases(work):
    """As from Python with ``folds=()``."""
    folder = pretrained(work, folds=())
    answer = standing_of(work)
    assert answer.next == f"segfw train {work} {FULLRES} all --init-from {folder}"
    assert "scores" not in answer.pretrained[0].text()


def test_an_interrupted_one_goes_on_by_the_command_that_it_was_begun_with(work):
    asked = {"images": ["a folder", "b"], "time_budget_s": 14400.0, "folds": ["0", "1"], "seed": 3}
    pretrained(work, is_finished=False, asked=asked, folds=("0", "1"), seen=["new"])
    answer = standing_of(work)
    assert answer.pretrained[0].state == "interrupted"
    assert shlex.split(answer.next) == [
        *("segfw", "pretrain", str(work), FULLRES, "--images", "a folder", "b", "--folds", "0", "1"),
        *("--time-budget", "4h", "--seed", "3"),
    ]


def test_one_that_runs_is_waited_for(work):
    folder = pretrained(work, is_finished=False)
    with held(folder.with_name(f".{FULLRES}.lock"), "busy", "wait"):
        answer = standing_of(work)
        assert answer.pretrained[0].state == "running"
        assert answer.next == f"segfw status {work}"
    assert standing_of(work).pretrained[0].state == "interrupted"


def test_one_of_another_network_or_of_other_folds_is_outdated_and_not_begun_with(work):
    folder = pretrained(work, network={"features": [1, 2]})
    answer = standing_of(work)
    assert answer.pretrained[0].outdated == "the plan has another network now"
    assert answer.next == f"segfw train {work} {FULLRES} 0"
    assert f"outdated: the plan has another network now; anew by: segfw pretrain {work} {FULLRES} --overwrite" in (
        answer.text()
    )
    shutil.rmtree(folder)
    [case] = json.loads((work / "splits.json").read_text())["folds"][0]["validation"][:1]
    pretrained(work, seen=[case])
    assert standing_of(work).pretrained[0].outdated == f"it has seen {case}, which fold 0 validates on now"


def test_what_is_trained_comes_before_a_pretraining(tmp_path):
    work = Path(shutil.copytree(BEFORE / "work", tmp_path / "work"))
    before = standing_of(work)
    assert before.pretrained == ()
    assert "pretraining" not in before.text()
    pretrained(work)
    assert standing_of(work).next == before.next


def test_a_damaged_record_is_one_sentence(work, capsys):
    (pretrained(work) / "pretraining.json").write_text('{"configuration": 5}')
    assert main(["status", str(work)]) == 2
    assert "pretraining.json: field" in capsys.readouterr().err


def test_damaged_options_are_one_sentence(work, capsys):
    pretrained(work, is_finished=False, asked={"seed": "three"})
    assert main(["status", str(work)]) == 2
    assert "pretraining.json: asked.seed is 'three'; give" in capsys.readouterr().err
