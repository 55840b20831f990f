"""What ``segfw status`` says of a study of an outcome: its figures, whether it is outdated, and what comes next."""

import json
import os
import shlex

import pytest

from segfw.cli import main
from segfw.outcomes.cohorts import LeftOut
from segfw.outcomes.outcome_report import ModelFigures, OutcomeReport
from segfw.standing.recognise import standing_of

FIGURES = ModelFigures(auc=0.71, auc_low=0.6, auc_high=0.8, brier=0.2, calibration_intercept=0.0, calibration_slope=1.0)


@pytest.fixture
def study(tmp_path):
    """A folder as ``outcome`` writes it, with the tables that it was made of beside."""
    for name in ("m.csv", "t.csv"):
        (tmp_path / name).write_text("patient\n")
    report = OutcomeReport(
        version="1",
        measures=str(tmp_path / "m.csv"),
        table=str(tmp_path / "t.csv"),
        target="died",
        event="yes",
        explore=False,
        patients=90,
        events=30,
        covariates=("age", "sex = M"),
        features=5,
        settings="",
        left_out=LeftOut(),
        imputed=0.0,
        models={"covariates": FIGURES, "both": FIGURES},
        gain=None,
        shares=(),
        formulas={},
        test=None,
        notes=(),
    )
    folder = tmp_path / "study"
    folder.mkdir()
    report.save(folder / "outcome.json")
    (folder / "outcome_model.json").write_text("{}")
    return folder


def at(path, seconds):
    os.utime(path, (seconds, seconds))


def test_a_folder_and_its_report_say_the_same_and_the_second_cohort_comes_next(study):
    for name in ("m.csv", "t.csv"):
        at(study.parent / name, 1000)
    at(study / "outcome.json", 2000)
    found = standing_of(study)
    assert (found.kind, found.target, found.patients, found.events, found.changed) == ("outcome", "died", 90, 30, ())
    assert found.models["both"].auc == 0.71
    assert "AUC, held out, both: 0.71 (0.60 to 0.80)" in found.text()
    assert "not tried on a second cohort yet" in found.text()
    model = study / "outcome_model.json"
    words = ["segfw", "outcome", "OTHER_MEASURES", "OTHER_TABLE", "--target", "died", "--model", str(model)]
    assert shlex.split(found.next) == [*words, "--output", "TRIED"]
    assert standing_of(study / "outcome.json").next == found.next


def test_tables_that_were_written_since_make_it_outdated(study):
    at(study.parent / "t.csv", 1000)
    at(study / "outcome.json", 2000)
    at(study.parent / "m.csv", 3000)
    found = standing_of(study)
    assert found.changed == (str(study.parent / "m.csv"),)
    assert f"outdated: {study.parent / 'm.csv'} was written since" in found.text()
    words = ["segfw", "outcome", str(study.parent / "m.csv"), str(study.parent / "t.csv"), "--target", "died"]
    assert shlex.split(found.next) == [*words, "--covariates", "age,sex", "--event", "yes", "--output", str(study)]


def test_an_outdated_study_is_made_again_by_all_that_it_was_asked_with(study):
    """Also where only the list of features, the patients of cases or the second cohort were written since."""
    home = study.parent
    further = [home / name for name in ("stable.csv", "patients.csv", "m2.csv", "t2.csv")]
    for path in further:
        path.write_text("case\n")
    stable, patients, measures, table = map(str, further)
    asked = {"covariates": ["age", "sex"], "features": stable, "by_patient": patients, "test": [measures, table]}
    content = json.loads((study / "outcome.json").read_text())
    (study / "outcome.json").write_text(json.dumps(content | {"asked": asked | {"permutations": 19}}))
    for path in (home / "m.csv", home / "t.csv", *further):
        at(path, 1000)
    at(study / "outcome.json", 2000)
    assert standing_of(study).changed == ()
    for path in further:
        at(path, 3000)
    found = standing_of(study)
    assert found.changed == (stable, patients, measures, table)
    assert shlex.split(found.next) == [
        *("segfw", "outcome", str(home / "m.csv"), str(home / "t.csv"), "--target", "died"),
        *("--covariates", "age", "sex", "--features", stable, "--test", measures, table),
        *("--by-patient", patients, "--permutations", "19", "--output", str(study)),
    ]


def test_patients_may_be_told_by_an_expression_that_is_no_name_of_a_file(study):
    longest = f"({'x' * 300})_"
    content = json.loads((study / "outcome.json").read_text())
    (study / "outcome.json").write_text(json.dumps(content | {"asked": {"by_patient": longest}}))
    at(study / "outcome.json", 1000)  # and the tables were written since
    assert shlex.split(standing_of(study).next)[6:8] == ["--by-patient", longest]


def test_a_trial_of_a_model_is_outdated_by_the_model(study):
    home = study.parent
    content = json.loads((study / "outcome.json").read_text())
    tried = {"models": {"both": json.loads(FIGURES.model_dump_json())}}
    (home / "frozen.json").write_text("{}")
    asked = {"model": str(home / "frozen.json")}
    (study / "outcome.json").write_text(json.dumps(content | {"models": {}, "test": tried, "asked": asked}))
    for path in (home / "m.csv", home / "t.csv"):
        at(path, 1000)
    at(study / "outcome.json", 2000)
    at(home / "frozen.json", 3000)
    found = standing_of(study)
    assert found.changed == (str(home / "frozen.json"),)
    assert shlex.split(found.next)[4:] == ["--target", "died", "--model", *found.changed, "--output", str(study)]


def test_a_study_that_was_tried_has_no_next_step(study):
    content = json.loads((study / "outcome.json").read_text())
    tried = {"measures": "m2.csv", "table": "t2.csv", "models": {"both": json.loads(FIGURES.model_dump_json())}}
    (study / "outcome.json").write_text(json.dumps(content | {"test": tried}))
    found = standing_of(study)
    assert found.next == ""
    assert "AUC, second cohort, both: 0.71" in found.text()
    assert "next:" not in found.text()


def test_a_damaged_report_is_no_study(study, capsys):
    (study / "outcome.json").write_text('{"kind": "outcome", "models": 5}')
    assert main(["status", str(study / "outcome.json")]) == 2
    assert "is nothing that segfw knows" in capsys.readouterr().err
