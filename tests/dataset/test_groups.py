"""Patients of cases: read from a table or an expression, and guessed only where the names clearly tell."""

import pytest

from segfw.base.records import UserError
from segfw.dataset.patients import guess_groups, read_groups

ACDC = ["patient001_frame01", "patient001_frame12", "patient002_frame01", "patient002_frame14"]


def patients(*ids: str) -> list[str]:
    guessed = guess_groups(ids)
    assert sorted(guessed) == sorted(ids)
    return [guessed[case] for case in ids]


@pytest.mark.parametrize(
    "ids",
    [
        ["hippocampus_001", "hippocampus_003", "hippocampus_010"],  # Medical Segmentation Decathlon
        ["BRATS_001", "BRATS_002", "BRATS_003"],
        ["la_003", "la_004", "la_005"],
        ["lung_001", "spleen_2", "spleen_12"],
        ["case_00000", "case_00001", "case_00002"],  # KiTS
        ["Case00", "Case01", "Case02"],  # PROMISE12
        ["volume-0", "volume-1", "volume-7"],  # LiTS
        ["subject01", "subject02", "subject03"],
        ["patient_001", "patient_002", "patient_003"],
        ["sub-01", "sub-02", "sub-03"],
        ["LIDC-IDRI-0001", "LIDC-IDRI-0002", "LIDC-IDRI-0003"],  # TCIA
        ["LUNG1-001", "LUNG1-002", "QIN-LUNG-01-0001"],
        ["CHUM-001", "CHUM-002", "CHUS-001", "MDA-001"],  # HECKTOR: site and patient
        ["A_001", "A_002", "B_001", "B_002"],
        ["1_001", "1_002", "2_001", "2_002"],
        ["siteA1_017", "siteA1_018", "siteB2_001"],
        ["patient_A_001", "patient_A_002", "patient_B_001"],
        ["utrecht_scan01", "utrecht_scan02", "singapore_scan01", "singapore_scan02"],
        ["amos_0001", "s0001", "s0002", "FLARE22_Tr_0001", "img0001", "img0002"],
        ["BraTS20_Training_001", "BraTS20_Training_002", "BraTS2021_00000", "BraTS2021_00002"],
        ["1", "2", "10"],
        ["21_training", "22_training", "23_training"],  # DRIVE
        ["video_frame_0001", "video_frame_0002", "video_frame_0003"],  # one video: nothing to split by
        ["clinic_left", "clinic_right"],
        ["patient01_a", "patient01_b"],
        ["ED_001", "ES_001", "post_1"],
        ["P01", "P02_day1", "P03_day1"],  # each has one scan
    ],
)
def test_ids_that_tell_no_patients_stay_by_themselves(ids):
    assert len(set(patients(*ids))) == len(ids)


@pytest.mark.parametrize(
    "first, second, other",
    [
        ("patient001_frame01", "patient001_frame12", "patient002_frame01"),  # ACDC
        ("patient001_4d", "patient001_ES", "patient010_4d"),
        ("sub-01_ses-01", "sub-01_ses-02_run-1", "sub-010_ses-01"),  # BIDS
        ("sub-CC110033_T1w", "sub-CC110033_ses-2_T1w", "sub-CC110034_T1w"),
        ("subj-01_ses-02", "subj-01_ses-03", "subj-02_ses-02"),
        ("siteA_sub-01_ses-1", "siteA_sub-01_ses-2", "siteB_sub-01_ses-1"),
        ("Patient_07_pre", "Patient_07_post", "Patient_08_pre"),
        ("subject12_a", "subject12_b", "subject1_a"),
        ("TCGA-CS-4941_19960909", "TCGA-CS-4941_19970101", "TCGA-CS-4942_19970222"),
        ("TCGA_CS_4941_1", "TCGA_CS_4941_2", "TCGA_DU_4941_1"),
        ("BraTS-GLI-00005-000", "BraTS-GLI-00005-001", "BraTS-GLI-00006-000"),
        ("002_S_0295_I118671", "002_S_0295_I40966", "002_S_0413_I118671"),  # ADNI
        ("OAS1_0061_MR1", "OAS1_0061_MR2", "OAS1_0080_MR1"),
        ("OAS30001_MR_d0129", "OAS30001_MR_d0757", "OAS30002_MR_d0371"),
        ("10417_1000424", "10417_1000425", "10000_1000000"),  # PI-CAI
        ("A0S9V9_ED", "A0S9V9_ES", "A1D0Q7_ED"),  # M&Ms
        ("P01_day1", "P01_day30", "P02_day1"),
        ("smith_frame01", "smith_frame02", "jones_frame01"),
        ("9001104_left", "9001104_right", "9001400_left"),
        ("vol_001_slice_12", "vol_001_slice_13", "vol_002_slice_12"),
        ("X17_20190102", "X17_2020-11-30", "X18_20190102"),
        ("K3_visit2_scan1", "K3_visit2_scan2", "K4_visit2_scan1"),
    ],
)
def test_ids_that_clearly_share_a_patient_are_grouped(first, second, other):
    third = other.replace("1", "3") + "_unrelated"
    one, same, another, _ = patients(first, second, other, third)
    assert one == same != another


def test_a_cell_that_is_no_cell_is_one_sentence(tmp_path):
    (tmp_path / "groups.csv").write_text(f"case;patient\na;{'x' * 200_000}\n")
    with pytest.raises(UserError, match="groups.csv: is no table with the columns case and patient .*; correct it"):
        read_groups(tmp_path / "groups.csv", ["a"])


def test_the_guess_for_many_acdc_cases_is_the_patients():
    ids = [f"patient{number:03}_frame{frame:02}" for number in range(20) for frame in (1, 12)]
    assert guess_groups(ids) == {case: case.split("_")[0] for case in ids}


def test_without_groups_they_are_guessed_and_an_expression_says_them():
    assert read_groups(None, ACDC) == guess_groups(ACDC)
    assert read_groups(r"(patient\d+)_", ACDC) == guess_groups(ACDC)
    assert read_groups(r"^[^_]+_(\w+)", ["A_001", "B_001", "B_002"]) == {"A_001": "001", "B_001": "001", "B_002": "002"}


@pytest.mark.parametrize(
    "expression, words",
    [
        (r"patient\d+", "has 0 capturing groups instead of one"),
        (r"(patient)(\d+)", "has 2 capturing groups instead of one"),
        (r"(case\d+)", "matches no case id, not even 'patient001_frame01'"),
        (r"(patient001)", "does not match case 'patient002_frame01'; widen it"),
        (r"(patient003)?", "matches no case id"),
        (r"(patient", "neither a file nor a regular expression"),
        ("patients.csv", "no such file"),
    ],
)
def test_wrong_expressions_are_refused(expression, words):
    with pytest.raises(UserError) as caught:
        read_groups(expression, ACDC)
    assert expression in str(caught.value)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "case,patient\na,P1\nb,P1\nc,P2\n",
        "\ufeffCase ID;Subject\na;P1\nb;P1\n\nc;P2\n",
        "patient_id\tage\tcase_id\r\nP1\t60\ta\r\nP1\t60\tb\r\nP2\t\tc\r\n",
        'case , group \n"a", P1\n b ,P1\nc,P2',
    ],
)
def test_tables_of_several_kinds_are_read(tmp_path, text):
    table = tmp_path / "patients.csv"
    table.write_text(text, encoding="utf-8", newline="")
    for given in (table, str(table)):
        assert read_groups(given, ["a", "b", "c"]) == {"a": "P1", "b": "P1", "c": "P2"}


@pytest.mark.parametrize(
    "text, words",
    [
        ("case,patient\na,P1\nb,P1\n", "has no line for case 'c'; add it (1 missing)"),
        ("case,patient\na,P1\nb,P1\nc,P2\nd,P3\n", "line 5 names case 'd', which the data set has not"),
        ("case,patient\na,P1\nb,P1\nc,P2\na,P3\n", "line 5 names case 'a' again"),
        ("case,patient\na,P1\nb,\nc,P2\n", "line 3 has no patient"),
        ("case,patient\na,P1\n,P2\n", "line 3 has no case"),
        ("case,age\na,1\n", "has no column for the patient (case, age)"),
        ("file,patient\na,1\n", "has no column for the case"),
        ("case,patient,group\na,P1,DCM\n", "has 2 columns for the patient"),
        ("a,P1\nb,P1\nc,P2\n", "has no column for the case (a, P1)"),
        ("\n", "is empty"),
        (b"case,patient\na,J\xf6rg\n", "cannot be read as text"),
    ],
)
def test_wrong_tables_are_refused(tmp_path, text, words):
    table = tmp_path / "patients.csv"
    table.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as caught:
        read_groups(table, ["a", "b", "c"])
    assert str(caught.value).startswith(f"{table}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
