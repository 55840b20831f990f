"""Two tables as one cohort: who is in it, what is left out, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from builders.outcomes import write_rows
from segfw.base.records import UserError
from segfw.outcomes.cohorts import joined_cohort, require_same_settings, with_note_of_names
from segfw.outcomes.feature_table import listed_features, read_features, row_digests
from segfw.outcomes.outcome_model import require_other_patients
from segfw.outcomes.outcome_table import Covariate, event_of, read_outcomes

MEASURED = [
    ["case", "structure", "status", "volume_ml", "centroid_right_mm", "axes_plane"],
    ["a", "liver", "whole", "10", "3", "axial"],
    ["a", "tumour", "cut", "1", "4", ""],
    ["b", "liver", "whole", "20", "5", "axial"],
    ["b", "tumour", "absent", "", "", ""],
    ["c", "liver", "whole", "30", "5", "axial"],
    ["c", "tumour", "whole", "3", "4", "axial"],
]
OUTCOMES = [["patient", "died", "age", "sex"], ["a", "1", "50", "F"], ["b", "0", "", "M"], ["d", "1", "70", "F"]]


def features_of(tmp_path, rows=MEASURED):
    return read_features(write_rows(tmp_path / "measures.csv", rows))


def outcomes_of(tmp_path, rows=OUTCOMES, target="died", covariates=()):
    return read_outcomes(write_rows(tmp_path / "patients.csv", rows), target, covariates)


def cohort_of(tmp_path, measured=MEASURED, outcomes=OUTCOMES, covariates=(), **options):
    table = outcomes_of(tmp_path, outcomes, covariates=covariates)
    return joined_cohort(features_of(tmp_path, measured), table, **options)


def test_a_feature_for_each_structure_and_column_and_none_of_the_scan(tmp_path):
    found = features_of(tmp_path)
    assert found.names == ("liver: volume_ml", "tumour: volume_ml")
    np.testing.assert_array_equal(found.values, [[10, 1], [20, np.nan], [30, 3]])
    assert found.notes == ("tumour is cut by the border of the scan in 1 case: its features are of a part",)


def test_a_table_of_cases_and_numbers_will_do(tmp_path):
    found = features_of(
        tmp_path, [["Patient ID", "x", "note", "y"], ["7", "1e3", "good", ""], ["8", "NA", "bad", "-2"]]
    )
    assert found.cases == ("7", "8")
    assert found.names == ("x", "y")
    assert found.notes == ("columns of text are no features: note",)


def test_who_is_in_one_table_alone_is_counted(tmp_path):
    found = cohort_of(tmp_path, covariates=("age", "sex"))
    assert found.patients == ("a", "b")
    assert found.has_event_n.tolist() == [True, False]
    assert found.left_out.cases_without_outcome == 1
    assert found.left_out.lines_without_features == 1
    assert found.names == ("age", "sex = M", "liver: volume_ml", "tumour: volume_ml")
    np.testing.assert_array_equal(found.values_nd, [[50, 0, 10, 1], [np.nan, 1, 20, np.nan]])


def test_a_patient_without_outcome_and_one_without_any_feature_are_left_out(tmp_path):
    outcomes = [["case", "died"], ["a", "1"], ["b", "0"], ["c", ""], ["e", "0"]]
    measured = [*MEASURED, ["e", "liver", "failed", "", "", ""]]
    found = cohort_of(tmp_path, measured, outcomes)
    assert found.patients == ("a", "b")
    assert found.left_out.outcome_missing == 1
    assert found.left_out.features_missing == 1


TIMES = [["case", "x"], ["patient1_frame01", "1"], ["patient1_frame09", "3"], ["patient2_frame01", "7"]]


def test_several_cases_of_a_patient_are_one_row_with_their_mean(tmp_path):
    outcomes = [["patient", "died"], ["patient1", "0"], ["patient2", "1"]]
    found = cohort_of(tmp_path, TIMES, outcomes)
    assert found.patients == ("patient1", "patient2")
    assert found.values_nd.tolist() == [[2], [7]]
    assert "1 patient with several cases" in found.notes[0]


def test_cases_that_the_table_names_are_the_ones_that_are_taken(tmp_path):
    outcomes = [["case", "died"], ["patient1_frame09", "0"], ["patient2_frame01", "1"]]
    found = cohort_of(tmp_path, TIMES, outcomes)
    assert found.values_nd.tolist() == [[3], [7]]
    assert found.notes == ()
    assert found.left_out.cases_without_outcome == 1


def test_patients_as_somebody_says(tmp_path):
    outcomes = [["patient", "died"], ["1", "0"], ["2", "1"]]
    found = cohort_of(tmp_path, TIMES, outcomes, by_patient="patient([0-9]+)_")
    assert found.patients == ("1", "2")


def test_patients_as_a_column_of_the_table_says(tmp_path):
    outcomes = [["case", "patient", "died"], ["a", "P", "1"], ["b", "Q", "0"], ["c", "P", "1"]]
    found = cohort_of(tmp_path, MEASURED, outcomes)
    assert found.patients == ("P", "Q")
    np.testing.assert_array_equal(found.values_nd, [[20, 2], [20, np.nan]])


@pytest.mark.parametrize(
    "values, event, wanted",
    [
        (("1", "0"), None, [True, False]),
        (("1.0", "0"), None, [True, False]),
        (("No", "Yes"), None, [False, True]),
        (("否", "是"), None, [False, True]),
        (("HCM", "NOR"), "NOR", [False, True]),
        (("2", "5"), "5.0", [False, True]),
    ],
)
def test_what_is_an_event(tmp_path, values, event, wanted):
    outcomes = [["patient", "died"], ["a", values[0]], ["b", values[1]]]
    assert cohort_of(tmp_path, MEASURED, outcomes, event=event).has_event_n.tolist() == wanted


def test_a_column_called_group_may_be_the_target(tmp_path):
    table = outcomes_of(tmp_path, [["patient", "group"], ["a", "HCM"], ["b", "NOR"]], target="group")
    assert joined_cohort(features_of(tmp_path), table, event="HCM").has_event_n.tolist() == [True, False]


def with_rows(*rows):
    return [["patient", "died", "age"], *map(list, rows)]


REFUSED = {
    "one class": (
        with_rows(["a", "1", "5"], ["b", "1", "6"]),
        "patients.csv: all 2 patients that are measured have '1' in column 'died'; a model needs both outcomes",
    ),
    "one class that is no event": (
        with_rows(["a", "0", "5"], ["b", "0", "6"]),
        "patients.csv: all patients have '0' in column 'died'; a model needs both outcomes",
    ),
    "no event is told": (
        with_rows(["a", "2", "5"], ["b", "7", "6"]),
        "patients.csv: column 'died' has the values 2 and 7; say with --event which one is the event, and all others "
        "are the rest",
    ),
    "two outcomes": (
        with_rows(["a", "1", "5"], ["b", "0", "6"], ["a", "0", "7"]),
        "patients.csv: patient 'a' has two outcomes, '1' in line 2 and '0' in line 4; give each patient one, or tell "
        "patients apart with --by-patient",
    ),
    "text among numbers": (
        with_rows(["a", "1", "5"], ["b", "0", "old"]),
        "patients.csv: line 3, column 'age' has 'old'; a covariate is a number or one of two texts, and this column "
        "has 2 values; give it numbers, or a column of 0 and 1 for each kind",
    ),
    "a comma among numbers": (
        with_rows(["a", "1", "5"], ["b", "0", "6,5"]),
        "patients.csv: line 3, column 'age' has '6,5'; write numbers with a point, not a comma",
    ),
    "a comma in the outcome": (
        with_rows(["a", "1,0", "5"], ["b", "0,0", "6"]),
        "patients.csv: column 'died' has 0,0 and 1,0; write 1 and 0",
    ),
    "no outcome": (
        with_rows(["a", "", "5"], ["b", "NA", "6"]),
        "patients.csv: column 'died' is empty; fill in the outcome of each patient",
    ),
    "one text alone": (
        with_rows(["a", "1", "old"], ["b", "0", "old"]),
        "patients.csv: all patients have 'old' in column 'age'; leave it out of --covariates",
    ),
    "nobody in both": (
        with_rows(["x", "1", "5"], ["y", "0", "6"]),
        "patients.csv: no line is of a case in measures.csv, such as 'a' (the table has 'x'); write the names alike, "
        "or give --by-patient",
    ),
    "no patient": (with_rows(["a", "1", "5"], ["", "0", "6"]), "patients.csv: line 3 has no patient; fill it in"),
    "no line": (with_rows(), "patients.csv: has no line but its head; add the patients"),
}


@pytest.mark.parametrize("wrong", REFUSED)
def test_a_wrong_table_of_outcomes_is_one_sentence(wrong, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows, sentence = REFUSED[wrong]
    with pytest.raises(UserError) as refused:
        cohort_of(Path(), MEASURED, rows, covariates=("age",))
    assert str(refused.value) == sentence


def test_a_column_that_is_missing(tmp_path):
    with pytest.raises(UserError, match=r"has no column 'dies' \(patient, died, age, sex\); did you mean died\?"):
        outcomes_of(tmp_path, target="dies")
    with pytest.raises(UserError, match="has no column 'weight'"):
        outcomes_of(tmp_path, covariates=("weight",))
    with pytest.raises(UserError, match="no column for the case or the patient"):
        outcomes_of(tmp_path, [["died"], ["1"]])
    with pytest.raises(UserError, match="target and covariate at once"):
        outcomes_of(tmp_path, covariates=("died",))


def test_two_texts_of_one_patient_are_refused(tmp_path):
    outcomes = [["patient", "died", "sex"], ["a", "1", "F"], ["b", "0", "M"], ["a", "1", "M"]]
    with pytest.raises(UserError, match=r"patient 'a' has 'F' and 'M' in column 'sex' \(lines 2 and 4\)"):
        cohort_of(tmp_path, outcomes=outcomes, covariates=("sex",))


WRONG_FEATURES = {
    "text": ([["case", "x"], ["a", "1"], ["b", "large"]], "line 3, column 'x' has 'large' among numbers"),
    "infinite": ([["case", "x"], ["a", "1"], ["b", "inf"]], "line 3, column 'x' has 'inf' among numbers"),
    "comma": ([["case", "x"], ["a", "1,5"], ["b", "2,5"]], "line 2, column 'x' has '1,5'; write numbers with a point"),
    "twice": ([["case", "x"], ["a", "1"], ["a", "2"]], "lines 2 and 3 are both of case 'a'; keep one of them"),
    "columns": ([["case", "x", "x"], ["a", "1", "2"]], "has two columns 'x'; rename one of them"),
    "no numbers": ([["case", "x"], ["a", "t"]], "has no column of numbers"),
    "no case": ([["x"], ["1"]], "has no column for the case"),
    "settings": (
        [["case", "settings", "x"], ["a", "11", "1"], ["b", "22", "2"]],
        "holds features of several settings (11 and 22), which cannot be compared",
    ),
}


@pytest.mark.parametrize("wrong", WRONG_FEATURES)
def test_a_wrong_table_of_features_is_one_sentence(wrong, tmp_path):
    rows, sentence = WRONG_FEATURES[wrong]
    with pytest.raises(UserError) as refused:
        features_of(tmp_path, rows)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


def test_verdicts_say_which_features_may_be_taken(tmp_path):
    rows = [
        ["structure", "feature", "verdict"],
        ["liver", "x", "stable"],
        ["liver", "y", "unstable"],
        ["tumour", "x", "moderate"],
        ["tumour", "y", ""],
    ]
    assert listed_features(write_rows(tmp_path / "s.csv", rows)) == ({"liver: x", "tumour: x"}, 2)
    assert listed_features(write_rows(tmp_path / "l.csv", [["feature"], ["x"], ["y"]])) == ({"x", "y"}, 0)
    with pytest.raises(UserError, match="line 2 has no feature; fill it in"):
        listed_features(write_rows(tmp_path / "short.csv", [["structure", "feature"], ["liver"]]))
    with pytest.raises(UserError, match="has no column 'feature'"):
        listed_features(write_rows(tmp_path / "wrong.csv", [["a"], ["x"]]))


def test_other_settings_are_refused(tmp_path):
    measured = [["case", "settings", "x"], ["a", "11", "1"], ["b", "11", "2"]]
    found = cohort_of(tmp_path, measured)
    require_same_settings(found, "11", tmp_path)
    with pytest.raises(UserError, match="was measured with settings 11, and the model of .* was fitted to settings 22"):
        require_same_settings(found, "22", tmp_path)
    with pytest.raises(UserError, match="features without radiomics settings"):
        require_same_settings(found, "", tmp_path)


def test_numbers_of_patients_are_no_features_and_hold_their_cases_together(tmp_path):
    measured = [["case", "Patient ID", "scan", "x"], ["u", "7", "1", "2"], ["v", "7", "2", "4"], ["w", "8", "3", "5"]]
    outcomes = [["case", "died"], ["u", "1"], ["v", "1"], ["w", "0"]]
    found = cohort_of(tmp_path, measured, outcomes)
    assert (found.patients, found.names) == (("7", "8"), ("x",))
    np.testing.assert_array_equal(found.values_nd, [[3], [5]])
    by_patient = cohort_of(tmp_path, measured, [["patient", "died"], ["7", "1"], ["8", "0"]])
    np.testing.assert_array_equal(by_patient.values_nd, found.values_nd)
    with pytest.raises(UserError, match="line 3 says that case 'u' is of patient '9', and a line before of '7'"):
        features_of(
            tmp_path,
            [["case", "structure", "patient", "x"], ["u", "liver", "7", "1"], ["u", "tumour", "9", "2"]],
        )


def test_one_scan_under_two_names_is_said(tmp_path):
    measured = [
        ["case", "x", "y", "z", "zz"],
        ["a", "1.5", "2.5", "3.5", ""],
        ["b", "1.5", "2.5", "3.5", ""],
        ["c", "1.5", "2.5", "4.5", "1"],
    ]
    outcomes = [["case", "died"], ["a", "1"], ["b", "0"], ["c", "0"]]
    (note,) = cohort_of(tmp_path, measured, outcomes).notes
    assert "1 patient with exactly the features of another one (b those of a)" in note
    assert cohort_of(tmp_path, [row[:3] for row in measured], outcomes).notes == ()


def test_patients_of_one_stage_and_as_many_lesions_are_no_twins(tmp_path):
    measured = [["case", "stage", "lesions", "side", "grade"], *([case, "2", "1", "0", "3"] for case in "abc")]
    outcomes = [["case", "died"], ["a", "1"], ["b", "0"], ["c", "0"]]
    found = cohort_of(tmp_path, measured, outcomes)
    assert found.notes == ()
    require_other_patients(found, found.digests_of(found.features), found.digests_of(found.features), "the models are")


def test_patients_of_the_same_name_are_said(tmp_path):
    found = cohort_of(tmp_path, MEASURED, with_rows(["a", "1", "5"], ["b", "0", "6"]))
    assert with_note_of_names(found, ("c", "d")).notes == found.notes
    (note,) = with_note_of_names(found, ("b", "c")).notes[len(found.notes) :]
    assert "1 patient called like patients that the models are fitted to (b)" in note


def test_none_is_missing_among_numbers_and_a_value_among_texts(tmp_path):
    rows = [["patient", "grade", "age", "smokes"], ["a", "none", "None", "none"], ["b", "leak", "60", "daily"]]
    table = outcomes_of(tmp_path, rows, target="grade", covariates=("age", "smokes"))
    found = joined_cohort(features_of(tmp_path), table, event="leak")
    assert found.has_event_n.tolist() == [False, True]
    np.testing.assert_array_equal(found.values_nd[:, :2], [[np.nan, 1], [60, 0]])
    numbers = outcomes_of(tmp_path, [["patient", "died"], ["a", "1"], ["b", "none"], ["c", "0.0"], ["c", "0"]])
    assert [row.has_outcome for row in numbers.rows] == [True, False, True, True]
    assert event_of(numbers, None) == "1"


def test_a_text_that_a_model_does_not_know_is_refused(tmp_path):
    sex = Covariate(column="sex", texts=("F", "M"))
    outcomes = [["patient", "died", "sex"], ["a", "1", "female"], ["b", "0", "M"]]
    with pytest.raises(UserError, match=r"line 2, column 'sex' has 'female'; the model knows 'F' or 'M' there"):
        joined_cohort(features_of(tmp_path), outcomes_of(tmp_path, outcomes, covariates=("sex",)), covariates=[sex])


def test_digests_tell_patients_by_their_features():
    rows = np.array([[0.5, 1.5, 2.5, 3.5], [0.5, 1.5, 2.5, 3.5], [0.5, 1.5, 2.5, 4.5], [np.nan, 1.5, 2.5, 3.5]])
    digests = row_digests(rows, ("b", "a", "d", "c"))
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_fewer_than_three_values_that_are_no_whole_numbers_tell_nobody():
    rows = np.array([[0.5, 1.5, 2, 3], [0.5, 1.5, np.nan, 3], [0.5, 1.5, 2.5, 3]])
    assert [bool(digest) for digest in row_digests(rows, "abcd")] == [False, False, True]


def test_patients_are_known_again_among_more_columns_in_another_order(tmp_path):
    first = [["case", "x", "y", "z"], ["a", "1.5", "2.5", "3.5"], ["b", "4.5", "5.5", "6.5"]]
    wider = [["case", "z", "new", "y", "x"], ["u", "6.5", "7.5", "5.5", "4.5"], ["v", "8.5", "7.5", "5.5", "4.5"]]
    of_first = cohort_of(tmp_path, first, [["case", "died"], ["a", "1"], ["b", "0"]])
    of_second = cohort_of(tmp_path, wider, [["case", "died"], ["u", "1"], ["v", "0"]])
    assert of_first.digests_of(of_second.features)[1] == of_second.digests_of(of_first.features)[0]
    with pytest.raises(UserError, match=r"1 patient \(u\) have exactly the features"):
        require_other_patients(
            of_second,
            of_second.digests_of(of_first.features),
            of_first.digests_of(of_second.features),
            "the models are",
        )


@pytest.mark.parametrize("name", ["died", "Died"])
def test_the_outcome_and_covariates_are_no_features(tmp_path, name):
    measured = [["case", name, "age", "x"], ["a", "1", "50", "3"], ["b", "0", "60", "4"]]
    found = cohort_of(tmp_path, measured, covariates=("age",))
    assert found.names == ("age", "x")
    assert found.notes == (f"no features, because they are the outcome or a covariate: {name} and age",)
    of_structures = [["case", "structure", "died", "age"], ["a", "liver", "1", "3"], ["b", "liver", "0", "4"]]
    assert cohort_of(tmp_path, of_structures, covariates=("age",)).features == ("liver: age",)
    with pytest.raises(UserError, match="has no features but died, the outcome or a covariate"):
        cohort_of(tmp_path, [["case", "died"], ["a", "1"], ["b", "0"]])


def test_a_feature_that_tells_every_outcome_is_named(tmp_path):
    outcomes = [["case", "died"], *([f"c{each}", each % 2] for each in range(20))]
    measured = [["case", "months", "x"], *([f"c{each}", each % 2 + each / 100, each] for each in range(20))]
    notes = cohort_of(tmp_path, measured, outcomes).notes
    assert notes == (
        "a single feature tells every patient's outcome (months): make sure that it was known before the outcome",
    )
    assert cohort_of(tmp_path, [[row[0], row[2]] for row in measured], outcomes).notes == ()
    assert cohort_of(tmp_path, measured[:11], outcomes[:11]).notes == ()
