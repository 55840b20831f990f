"""Folds that leave out a site: counted by hand, patients whole, and what is wrong in the table is told."""

import json
from pathlib import Path

import pytest

from builders.data import write_raw
from segfw.base.records import UserError
from segfw.cli import main
from segfw.dataset.case_values import TableColumn, table_column, values_of_cases
from segfw.planning.left_out import folds_by_value, joined_values, left_out_notes
from segfw.planning.splits import Splits

# 4 patients of A with two scans each, 3 of B, 2 of C and 1 of D.
SITES = {"A": 4, "B": 3, "C": 2, "D": 1}
PATIENTS = {f"{site}{number}": site for site, size in SITES.items() for number in range(size)}
PATIENT_OF = {f"{patient}_{scan}": patient for patient, site in PATIENTS.items() for scan in range(1 + (site == "A"))}


def table(path: Path, lines: list[str]) -> TableColumn:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return TableColumn(path=path, column="site")


def by_case(path: Path) -> TableColumn:
    return table(path, ["case,age,site", *(f"{case},60,{PATIENTS[patient]}" for case, patient in PATIENT_OF.items())])


def test_each_fold_leaves_out_one_value_and_small_ones_are_together(tmp_path):
    splits = folds_by_value(by_case(tmp_path / "sites.csv"), PATIENT_OF)
    assert [fold.left_out for fold in splits.folds] == [("A",), ("B",), ("C", "D")]
    assert [len(fold.validation) for fold in splits.folds] == [8, 3, 3]
    for fold in splits.folds:
        assert sorted((*fold.train, *fold.validation)) == sorted(PATIENT_OF)
        assert {PATIENTS[PATIENT_OF[case]] for case in fold.validation} == set(fold.left_out)
        assert not {PATIENTS[PATIENT_OF[case]] for case in fold.train} & set(fold.left_out)
    assert splits.source == (
        "3 folds, each leaves out a value of site in sites.csv, C and D together, because of fewer than 3 patients"
    )
    assert left_out_notes(splits, PATIENT_OF)[::2] == [
        "fold 0 leaves out A: 8 cases of 4 patients",
        "fold 2 leaves out C and D: 3 cases",
    ]


@pytest.mark.parametrize(
    "sizes, expected",
    [
        ({"a": 3, "b": 9}, [("a",), ("b",)]),
        ({"a": 3, "b": 9, "c": 2}, [("b",), ("a", "c")]),  # 2 patients are too few: with the smallest of the others
        ({"a": 9, "b": 2, "c": 1}, [("a",), ("b", "c")]),
        ({"a": 2, "b": 2}, [("a", "b")]),
        ({"a": 2, "b": 5}, [("a", "b")]),
    ],
)
def test_values_of_fewer_than_three_patients_join(sizes, expected):
    patients = {f"{value}{number}": value for value, size in sizes.items() for number in range(size)}
    assert joined_values(patients) == expected


def test_a_table_may_be_of_patients_and_of_more_than_these(tmp_path):
    lines = [
        "participant_id\tsite",
        *(f"{patient}\t{site}" for patient, site in PATIENTS.items()),
        "Z9\tnowhere",
        "Y\t",
    ]
    of_patients = table(tmp_path / "participants.tsv", lines)
    assert (
        folds_by_value(of_patients, PATIENT_OF).folds == folds_by_value(by_case(tmp_path / "a.csv"), PATIENT_OF).folds
    )


def test_of_several_columns_the_one_that_holds_the_cases_is_taken(tmp_path):
    lines = [f"{number},{patient},x,{site}" for number, (patient, site) in enumerate(PATIENTS.items())]
    asked = table(tmp_path / "sites.csv", ["id,subject,group,site", *lines])
    assert values_of_cases(asked, PATIENT_OF) == {case: PATIENTS[patient] for case, patient in PATIENT_OF.items()}


def test_files_say_what_folds_leave_out_and_other_folds_are_written_as_before(tmp_path):
    splits = folds_by_value(by_case(tmp_path / "sites.csv"), PATIENT_OF)
    splits.save(tmp_path / "splits.json")
    assert Splits.load(tmp_path / "splits.json") == splits
    assert json.loads((tmp_path / "splits.json").read_text())["folds"][2]["left_out"] == ["C", "D"]
    plain = splits.folds[0].model_copy(update={"left_out": ()})
    assert list(json.loads(plain.model_dump_json())) == ["train", "validation"]


@pytest.mark.parametrize(
    "lines, words",
    [
        (["case,centre", "a_0,X"], "has no column 'site'; name one of case or centre"),
        (["scanner,site", "1,X"], "has no column for the case or the patient (scanner, site); call one 'case'"),
        (["case,group,site", "a_0,1,X"], "has no line for case 'a_1' or its patient; add it (3 missing)"),
        (["case,site,Site ", "a_0,X,Y"], None),  # the one that is written just so
        (["case,SITE,Site", "a_0,X,Y"], "has 2 columns called 'site'; rename all but one"),
        (["case,site", "a_0,X", "a_1,X", "b_0,Y"], "has no line for case 'c_0' or its patient; add it"),
        (["case,site", "a_0,X", "a_1,", "b_0,Y"], "line 3 (a_1) has no site; fill it in"),
        (
            ["case,site", "a_0,X", "a_0,Y"],
            "line 3 says that 'a_0' has site 'Y', an earlier one 'X'; keep the right line",
        ),
        (
            ["case,site", "a_0,X", "a_1,Y", "b_0,Y", "c_0,X"],
            "patient 'a' is in two groups, 'X' (a_0) and 'Y' (a_1) of site; correct it, or say with --groups which",
        ),
        (
            ["case,site", "a_0,X", "a_1,X", "b_0,Y", "c_0,X"],
            "site has 2 values (X and Y) of 3 patients or more together, so that no fold can leave one out",
        ),
        ([""], "is empty; give it the columns case and site"),
    ],
)
def test_what_is_wrong_in_a_table_is_one_sentence(tmp_path, lines, words):
    asked = table(tmp_path / "sites.csv", lines)
    patient_of = {"a_0": "a", "a_1": "a", "b_0": "b", "c_0": "c"}
    if words is None:
        assert values_of_cases(asked, {"a_0": "a"}) == {"a_0": "X"}
        return
    with pytest.raises(UserError) as caught:
        folds_by_value(asked, patient_of)
    assert str(caught.value).startswith(f"{tmp_path / 'sites.csv'}: {words}")
    assert "\n" not in str(caught.value)


def test_the_file_and_the_column_may_hold_colons(tmp_path):
    path = tmp_path / "a:b.csv"
    path.write_text("case,x:y\n")
    assert table_column(f"{path}:x:y", "--by") == TableColumn(path=path, column="x:y")
    for typed, words in (
        (str(path), "names no column; give the table and its column, such as sites.csv:site"),
        (f"{tmp_path}/no.csv:site", "there is no file .*no.csv; give FILE.csv:COLUMN"),
        ("header.csv", "names no column"),
    ):
        with pytest.raises(UserError, match=f"--by .*: {words}"):
            table_column(typed, "--by")


@pytest.mark.parametrize("more", [True, False])
def test_a_work_folder_gets_folds_by_value_and_says_so(tmp_path, capsys, more):
    raw = write_raw(tmp_path / "raw", cases=18)
    ids = sorted(path.name.removesuffix("_0000.nii.gz") for path in (raw / "imagesTr").iterdir())
    sites = 6 if more else 2
    lines = ["case,site", *(f"{case},S{number % sites}" for number, case in enumerate(ids))]
    (tmp_path / "sites.csv").write_text("\n".join(lines))
    options = ["--leave-out-by", f"{tmp_path / 'sites.csv'}:site", "--device", "cpu"]
    assert main(["plan-and-preprocess", str(raw), str(tmp_path / "work"), "--plan-only", *options]) == 0
    assert f"fold {sites - 1} leaves out S{sites - 1}: {18 // sites} cases" in capsys.readouterr().out
    folds = Splits.load(tmp_path / "work" / "splits.json").folds
    assert [fold.left_out for fold in folds] == [(f"S{number}",) for number in range(sites)]
    # A fold that there is not, and two ways at once
    assert main(["run", str(raw), str(tmp_path / "other"), *options, "--dry-run", "--folds", str(sites)]) == 2
    assert f"fold '{sites}' does not exist; choose 0 to {sites - 1} or all" in capsys.readouterr().err
    assert main(["run", str(raw), str(tmp_path / "other"), *options, "--dry-run"]) == 0
    assert f"{sites} folds, each leaves out a value of site in sites.csv" in capsys.readouterr().out
    both = [*options, "--splits", str(tmp_path / "work" / "splits.json")]
    assert main(["plan-and-preprocess", str(raw), str(tmp_path / "third"), *both]) == 2
    assert "--leave-out-by makes the folds, and --splits" in capsys.readouterr().err
