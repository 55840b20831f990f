"""``segfw outcome`` on tables: what is found, written, read back and refused."""

import csv
import json
import math

import numpy as np
import pytest

import segfw
from builders.outcomes import FEATURES, change_cell, read_rows, write_cohort, write_rows
from segfw.base.records import UserError
from segfw.cli import main
from segfw.outcomes.model_figures import auc
from segfw.outcomes.outcome_model import OutcomeModel
from segfw.outcomes.outcome_report import OutcomeReport

QUICK = ("--permutations", "19")
SIGNAL = f"liver: {FEATURES[0]}"
FILES = {
    *("outcome.json", "outcome.html", "outcome_model.json", "outcome_patients.csv", "outcome_features.csv"),
    "outcome_net_benefit.csv",
}
TEST_FILES = {"outcome_test_patients.csv", "outcome_test_net_benefit.csv"}


def outcome(folder, output, *more):
    """Exit code of the command."""
    tables = (str(folder / "measures.csv"), str(folder / "patients.csv"))
    return main(["outcome", *tables, "--target", "died", "--output", str(output), *QUICK, *map(str, more)])


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Two cohorts, and what was found of the first and of the second by its frozen models."""
    home = tmp_path_factory.mktemp("outcome")
    write_cohort(home / "first", 0)
    write_cohort(home / "second", 1, patients=60)
    second = (home / "second" / "measures.csv", home / "second" / "patients.csv")
    assert outcome(home / "first", home / "out", "--covariates", "age,sex", "--test", *second) == 0
    return home


def test_a_signal_is_found_and_told(home):
    report = OutcomeReport.load(home / "out" / "outcome.json")
    assert (report.patients, report.features, report.covariates) == (80, 24, ("age", "sex = M"))
    assert set(report.models) == {"covariates", "features", "both"}
    features = report.models["features"]
    assert features.auc_low < features.auc < features.auc_high
    assert features.auc > 0.7
    assert features.p == 1 / 20
    assert report.shares[0].feature == SIGNAL
    assert report.shares[0].used == 1
    assert report.gain.auc == pytest.approx(report.models["both"].auc - report.models["covariates"].auc)
    assert SIGNAL in report.formulas["features"]
    assert {path.name for path in (home / "out").iterdir()} == FILES | TEST_FILES


def test_tables_say_the_same_as_the_report(home):
    report = OutcomeReport.load(home / "out" / "outcome.json")
    patients = read_rows(home / "out" / "outcome_patients.csv")
    assert patients[0] == ["patient", "event", "covariates", "features", "both"]
    assert len(patients) == 81
    events = np.array([row[1] == "1" for row in patients[1:]])
    told = {row[0]: row[1] for row in read_rows(home / "first" / "patients.csv")[1:]}
    assert [told[row[0]] for row in patients[1:]] == [row[1] for row in patients[1:]]
    assert report.events == min(events.sum(), (~events).sum())
    means = np.array([float(row[4]) for row in patients[1:]])
    assert auc(means[None], events) == pytest.approx(report.models["both"].auc, abs=0.05)
    benefit = read_rows(home / "out" / "outcome_net_benefit.csv")
    assert benefit[0] == ["threshold", "all", "covariates", "features", "both"]
    share = events.mean()
    at_a_fifth = [float(cell) for cell in next(row for row in benefit if row[0] == "0.2")]
    assert at_a_fifth[1] == pytest.approx(share - (1 - share) * 0.25, abs=1e-5)


def test_the_frozen_model_is_its_formula(home):
    """The second cohort's probabilities, computed from the file by hand."""
    model = json.loads((home / "out" / "outcome_model.json").read_text("utf-8"))
    with open(home / "second" / "measures.csv", newline="", encoding="utf-8") as file:
        measured = {(row["case"], row["structure"]): row for row in csv.DictReader(file)}
    with open(home / "second" / "patients.csv", newline="", encoding="utf-8") as file:
        known = {row["case"]: row for row in csv.DictReader(file)}
    told = read_rows(home / "out" / "outcome_test_patients.csv")
    assert len(told) == 61
    for row in told[1:]:
        for name, cell in zip(told[0][2:], row[2:]):
            log_odds = model["equations"][name]["intercept"]
            for term in model["equations"][name]["terms"]:
                if term["name"] == "sex = M":
                    value = float(known[row[0]]["sex"] == "M")
                elif term["name"] == "age":
                    value = float(known[row[0]]["age"])
                else:
                    structure, feature = term["name"].split(": ")
                    value = float(measured[row[0], structure][feature])
                log_odds += term["coefficient"] * value
            assert float(cell) == pytest.approx(1 / (1 + math.exp(-log_odds)), rel=1e-4)


def test_a_table_of_patients_is_of_the_first_cohort_alone(home, tmp_path, capsys):
    rows = [["case", "patient"], *([row[0], f"P{row[0]}"] for row in read_rows(home / "first" / "patients.csv")[1:])]
    table = write_rows(tmp_path / "who.csv", rows)
    second = (home / "second" / "measures.csv", home / "second" / "patients.csv")
    assert outcome(home / "first", tmp_path / "out", "--by-patient", table, "--test", *second, "--dry-run") == 0
    assert "80 patients" in capsys.readouterr().out


def test_a_frozen_model_is_read_back_and_tried_alone(home, tmp_path, capsys):
    model = home / "out" / "outcome_model.json"
    assert outcome(home / "second", tmp_path / "external", "--model", model) == 0
    report = OutcomeReport.load(tmp_path / "external" / "outcome.json")
    assert report.models == {}
    both = OutcomeReport.load(home / "out" / "outcome.json").test
    (of_names,) = (note for note in both.notes if "60 patients called like patients that the models" in note)
    # A model's file does not say how patients were called
    assert report.test == both.model_copy(update={"notes": tuple(note for note in both.notes if note != of_names)})
    assert "second cohort: 60 patients" in capsys.readouterr().out
    assert OutcomeModel.load(model).patients == report.patients == 80
    assert {path.name for path in (tmp_path / "external").iterdir()} == {"outcome.json", "outcome.html", *TEST_FILES}


def test_the_same_call_gives_the_same(home, tmp_path):
    assert outcome(home / "first", tmp_path / "a", "--covariates", "age", "sex") == 0
    for name in FILES - {"outcome.json", "outcome.html"}:
        assert (tmp_path / "a" / name).read_bytes() == (home / "out" / name).read_bytes()


def test_files_of_an_earlier_call_that_had_a_second_cohort_do_not_stay(home, tmp_path):
    second = (home / "second" / "measures.csv", home / "second" / "patients.csv")
    assert outcome(home / "first", tmp_path / "a", "--test", *second) == 0
    assert {path.name for path in (tmp_path / "a").iterdir()} >= TEST_FILES
    assert outcome(home / "first", tmp_path / "a") == 0
    assert {path.name for path in (tmp_path / "a").iterdir()} == FILES


def test_other_settings_of_a_second_cohort_are_refused(home, tmp_path, capsys):
    other = write_cohort(tmp_path / "other", 2, patients=50, settings="ffffffff")
    second = (other / "measures.csv", other / "patients.csv")
    assert outcome(home / "first", tmp_path / "out", "--test", *second) == 2
    said = capsys.readouterr().err
    assert "was measured with settings ffffffff" in said
    assert "was fitted to settings a1b2c3d4" in said
    assert not (tmp_path / "out").exists()
    assert outcome(other, tmp_path / "out", "--model", home / "out" / "outcome_model.json") == 2
    assert "settings ffffffff" in capsys.readouterr().err


def test_patients_of_the_fit_are_no_second_cohort(home, tmp_path, capsys):
    model = home / "out" / "outcome_model.json"
    assert outcome(home / "first", tmp_path / "out", "--model", model) == 2
    assert "80 patients (case_000, case_001 and case_002, ...) have exactly the features of patients" in (
        capsys.readouterr().err
    )


def test_patients_of_the_fit_are_known_where_more_was_measured_of_them(home, tmp_path, capsys):
    wider = tmp_path / "wider"
    wider.mkdir()
    rows = read_rows(home / "first" / "measures.csv")
    write_rows(wider / "measures.csv", [[*row, line or "kidney_ml"] for line, row in enumerate(rows)])
    write_rows(wider / "patients.csv", read_rows(home / "first" / "patients.csv"))
    assert outcome(wider, tmp_path / "out", "--model", home / "out" / "outcome_model.json") == 2
    assert "80 patients (case_000, case_001 and case_002, ...) have exactly" in capsys.readouterr().err
    second = (wider / "measures.csv", wider / "patients.csv")
    assert outcome(home / "first", tmp_path / "out", "--dry-run", "--test", *second) == 2
    assert "80 patients (case_000, case_001 and case_002, ...) have exactly" in capsys.readouterr().err


def test_patients_of_the_fit_are_known_where_less_was_measured_of_them(home, tmp_path, capsys):
    model = home / "out" / "outcome_model.json"
    narrow = tmp_path / "narrow"
    narrow.mkdir()
    rows = read_rows(home / "first" / "measures.csv")
    unneeded = rows[0].index(FEATURES[5])
    assert FEATURES[5] not in str(OutcomeModel.load(model).equations)
    write_rows(narrow / "measures.csv", [[*row[:unneeded], *row[unneeded + 1 :]] for row in rows])
    write_rows(narrow / "patients.csv", read_rows(home / "first" / "patients.csv"))
    assert outcome(narrow, tmp_path / "out", "--model", model) == 2
    # Three features are in the formulas, and of one patient a value of these is a whole number.
    assert "79 patients (case_000, case_001 and case_002, ...) have exactly" in capsys.readouterr().err
    assert outcome(home / "second", tmp_path / "out", "--model", model, "--dry-run") == 0


def test_a_model_of_before_knows_its_patients_by_all_features(home, tmp_path, capsys):
    written = json.loads((home / "out" / "outcome_model.json").read_text("utf-8"))
    assert len(written.pop("fitted_on_needed")) == 80
    before = tmp_path / "before.json"
    before.write_text(json.dumps(written), "utf-8")
    assert outcome(home / "second", tmp_path / "out", "--model", before, "--dry-run") == 0
    assert outcome(home / "first", tmp_path / "out", "--model", before) == 2
    assert "80 patients (case_000, case_001 and case_002, ...) have exactly" in capsys.readouterr().err


def test_patients_of_both_cohorts_are_refused_before_anything_is_fitted(home, tmp_path, capsys):
    first = (home / "first" / "measures.csv", home / "first" / "patients.csv")
    assert outcome(home / "first", tmp_path / "out", "--dry-run", "--test", *first) == 2
    assert "have exactly the features of patients that the models are fitted to" in capsys.readouterr().err


def test_a_study_stays_where_its_second_cohort_lacks_a_feature(home, tmp_path, capsys):
    other = write_cohort(tmp_path / "other", 3)
    write_rows(other / "measures.csv", [row[:5] + row[6:] for row in read_rows(other / "measures.csv")])
    assert outcome(home / "first", tmp_path / "out", "--test", other / "measures.csv", other / "patients.csv") == 2
    assert "has no feature" in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES


def test_the_study_of_a_model_is_not_replaced_by_trying_it(home, capsys):
    before = (home / "out" / "outcome.json").read_bytes()
    assert outcome(home / "second", home / "out", "--model", home / "out" / "outcome_model.json") == 2
    assert "holds the study that the model is of; give another folder" in capsys.readouterr().err
    assert (home / "out" / "outcome.json").read_bytes() == before


def test_a_feature_that_a_second_cohort_lacks_is_named(home, tmp_path, capsys):
    other = write_cohort(tmp_path / "other", 3)
    rows = [row[:5] + row[6:] for row in read_rows(other / "measures.csv")]
    write_rows(other / "measures.csv", rows)
    assert outcome(other, tmp_path / "out", "--model", home / "out" / "outcome_model.json") == 2
    assert f"has no feature '{SIGNAL}', which the model of" in capsys.readouterr().err


def test_too_few_events_are_refused_and_may_be_explored(tmp_path, capsys):
    small = write_cohort(tmp_path / "small", 0, patients=30)
    assert outcome(small, tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "of 30 have the rarer outcome, and a model of fewer than 20 says next to nothing" in said
    assert not (tmp_path / "out").exists()
    assert outcome(small, tmp_path / "out", "--explore") == 0
    report = OutcomeReport.load(tmp_path / "out" / "outcome.json")
    assert report.explore
    assert "this explores" in report.notes[0]
    assert "Exploring." in (tmp_path / "out" / "outcome.html").read_text("utf-8")
    assert OutcomeModel.load(tmp_path / "out" / "outcome_model.json").explore


def test_three_events_cannot_even_be_explored(tmp_path, capsys):
    small = write_cohort(tmp_path / "small", 0, patients=30)
    rows = read_rows(small / "patients.csv")
    write_rows(
        small / "patients.csv", [rows[0], *([row[0], int(place < 3), *row[2:]] for place, row in enumerate(rows[1:]))]
    )
    assert outcome(small, tmp_path / "out", "--explore") == 2
    assert "fewer than 4 cannot be split" in capsys.readouterr().err


def test_unstable_features_are_left_out(home, tmp_path):
    rows = [["structure", "feature", "verdict"]]
    for name in FEATURES:
        rows += [["liver", name, "unstable" if name == FEATURES[0] else "stable"], ["tumour", name, "stable"]]
    table = write_rows(tmp_path / "stability.csv", rows)
    assert outcome(home / "first", tmp_path / "out", "--features", table) == 0
    report = OutcomeReport.load(tmp_path / "out" / "outcome.json")
    assert report.features == 23
    assert (report.asked["features"], report.asked["permutations"]) == (str(table), 19)
    assert SIGNAL not in {each.feature for each in report.shares}
    assert "stability.csv leaves 23 of 24 features" in report.notes


def test_missing_values_are_said_and_filled_inside_of_training_parts(home, tmp_path):
    other = write_cohort(tmp_path / "other", 0)
    for line in (2, 4, 6):
        change_cell(other / "measures.csv", line, FEATURES[0], "")
    change_cell(other / "patients.csv", 3, "age", "")
    assert outcome(other, tmp_path / "out", "--covariates", "age") == 0
    report = OutcomeReport.load(tmp_path / "out" / "outcome.json")
    assert report.imputed == pytest.approx(3 / (80 * 24))
    assert any("are missing" in note for note in report.notes)
    assert report.models["features"].auc > 0.65


def test_without_covariates_it_is_said_what_nobody_knows(home, tmp_path, capsys):
    assert outcome(home / "first", tmp_path / "out") == 0
    report = OutcomeReport.load(tmp_path / "out" / "outcome.json")
    assert set(report.models) == {"features"}
    assert report.gain is None
    said = capsys.readouterr().out
    assert "nobody knows whether features add" in said
    assert "cross-validation on one cohort is no validation" in said


def test_json_is_the_report(home, tmp_path, capsys):
    assert outcome(home / "first", tmp_path / "out", "--json") == 0
    said = capsys.readouterr().out
    assert OutcomeReport.parse(said, "stdout") == OutcomeReport.load(tmp_path / "out" / "outcome.json")
    assert json.loads(said)["kind"] == "outcome"


def test_a_dry_run_writes_nothing(home, tmp_path, capsys):
    assert outcome(home / "first", tmp_path / "out", "--dry-run", "--covariates", "age") == 0
    said = capsys.readouterr().out
    assert "80 patients" in said
    assert "24 features" in said
    assert "nothing was written" in said
    assert not (tmp_path / "out").exists()
    assert outcome(home / "first", tmp_path / "out", "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["models"] == {}


def test_from_python(home, tmp_path):
    first = home / "first"
    second = (str(home / "second" / "measures.csv"), str(home / "second" / "patients.csv"))
    report = segfw.outcome(
        first / "measures.csv",
        first / "patients.csv",
        "died",
        tmp_path / "out",
        covariates=["age", "sex"],
        test=second,
        permutations=19,
    )
    typed = OutcomeReport.load(home / "out" / "outcome.json")
    assert report.asked["covariates"] == ["age", "sex"]
    assert typed.asked["covariates"] == ["age,sex"]
    assert report.model_copy(update={"asked": typed.asked}) == typed
    with pytest.raises(UserError, match="permutations is 5; give 19 or more and 10000 or less"):
        segfw.outcome(first / "measures.csv", first / "patients.csv", "died", tmp_path / "out", permutations=5)


def test_what_is_there_and_something_else_stays(home, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "outcome_patients.csv").write_text("mine\n1\n")
    assert outcome(home / "first", tmp_path / "out") == 2
    assert "is there already and not written by this command" in capsys.readouterr().err
    assert (tmp_path / "out" / "outcome_patients.csv").read_text() == "mine\n1\n"
    (tmp_path / "file").write_text("x")
    assert outcome(home / "first", tmp_path / "file") == 2
    assert "is a file; give a folder" in capsys.readouterr().err


@pytest.mark.parametrize("name, value", [("--covariates", "age"), ("--features", "list.csv")])
def test_nothing_is_fitted_of_a_frozen_model(home, tmp_path, capsys, name, value):
    assert outcome(home / "second", tmp_path / "out", "--model", home / "out" / "outcome_model.json", name, value) == 2
    assert f"{name} is of fitting" in capsys.readouterr().err


def test_the_page_shows_names_of_features_as_text(tmp_path):
    named = write_cohort(tmp_path / "named", 0)
    text = (named / "measures.csv").read_text("utf-8").replace("liver", "<b>liver</b>$_x")
    (named / "measures.csv").write_text(text, "utf-8")
    assert outcome(named, tmp_path / "out") == 0
    page = (tmp_path / "out" / "outcome.html").read_text("utf-8")
    assert "<b>liver" not in page
    assert "&lt;b&gt;liver" in page
