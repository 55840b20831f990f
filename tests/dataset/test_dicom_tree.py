"""Trees of DICOM: which series belongs to which structure set, what names mean, and what cases are called."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from builders.dicom_masks import Grid, contours_of, write_segmentation, write_series, write_structures
from segfw.base.errors import UserError
from segfw.dataset.cases import FoundDataset, read_label
from segfw.dataset.labels import LabelSet
from segfw.dataset.layouts import find_dataset
from segfw.dataset.named_structures import drawn_as_of
from segfw.dataset.new_images import find_images
from segfw.dataset.pseudonyms import cases_with_pseudonyms, with_pseudonyms
from segfw.dataset.structure_map import STRUCTURES_FILE, read_structure_map, write_proposal
from segfw.images.formats import read_volume

SHAPE = Grid().shape
RNG = np.random.default_rng(4)
IMAGE = RNG.normal(0, 100, SHAPE)
CORD = np.zeros(SHAPE, bool)
CORD[1:4, 3:6, 2:5] = True
LEFT = np.zeros(SHAPE, bool)
LEFT[2:5, 7:10, 6:9] = True


def grid(number: int, **changes: object) -> Grid:
    return Grid(series=f"1.2.{number}", frame=f"1.2.{number}.9", **changes)


def patient(
    raw: Path, name: str, number: int, cord: str = "Spinal Cord", left: str = "Parotid_L", **more: object
) -> Path:
    """A folder with a planning CT in RAW/name/CT and a structure set in RAW/name/RS."""
    place = grid(number)
    write_series(raw / name / "CT", IMAGE, place, patient=more.get("patient", f"ID-{number}"))
    rois = {cord: contours_of(CORD), left: contours_of(LEFT), "PTV 60": contours_of(CORD | LEFT)}
    write_structures(raw / name / "RS" / "1", rois, place)
    return raw


TABLE = """structure,label,value
Spinal Cord,cord,1
myelon,cord,1
parotid l,parotid_left,2
PTV 60,,
"""


def described(raw: Path, table: str = TABLE) -> Path:
    (raw / STRUCTURES_FILE).write_text(table, "utf-8")
    return raw


def sentences(found: FoundDataset) -> list[str]:
    return [finding.full_sentence for finding in found.findings]


def test_structure_sets_find_their_series_among_others(tmp_path):
    raw = patient(tmp_path / "raw", "b", 1)
    patient(raw, "a", 2, cord="MYELON", left="parotid_L")  # two spellings of each
    write_series(raw / "a" / "MR", IMAGE, grid(3))
    write_series(raw / "b" / "CT", IMAGE, grid(4), start="x")  # another series in the same folder
    found = find_dataset(described(raw))
    assert found.layout == "DICOM series with structure sets"
    assert sentences(found) == []
    assert found.labels.names == ("background", "cord", "parotid_left")
    assert [channel.name for channel in found.channels] == ["CT"]
    assert [case.id for case in found.cases] == ["a", "b"]
    assert "2 series without a structure set left out" in found.notes
    assert "structures left out: PTV 60 (in 2 cases)" in found.notes
    assert found.cases[0].images == (raw / "a" / "CT",)
    assert found.cases[1].images == (raw / "b" / "CT" / "s001.dcm",)  # a file stands for its series
    for case in found.cases:
        image = read_volume(case.images[0])
        assert image.series.series == ("1.2.2" if case.id == "a" else "1.2.1")
        np.testing.assert_array_equal(read_label(case, image).array[0], CORD * 1 + LEFT * 2)


def test_without_a_table_one_is_proposed_and_nothing_is_trained(tmp_path):
    raw = patient(tmp_path / "raw", "a", 1)
    patient(raw, "b", 2, cord="cord spinal", left="PAROTID_LEFT")
    found = find_dataset(raw)
    said = sentences(found)
    assert len(said) == 1
    assert "each of the structures' names means (5 names); PTV 60 (in 2 cases) would mean nothing" in said[0]
    assert "segfw check" in said[0]
    assert found.findings[0].severity == "error"
    write_proposal(raw / STRUCTURES_FILE, found.structure_names, None)
    table = read_structure_map(raw / STRUCTURES_FILE)
    labels = {row.name: (row.label, row.value) for row in table.rows}
    assert labels["Spinal Cord"] == labels["cord spinal"] == ("spinal_cord", labels["Spinal Cord"][1])
    assert labels["Parotid_L"] == labels["PAROTID_LEFT"] == ("parotid_gland_left", labels["Parotid_L"][1])
    assert labels["PTV 60"] == ("", None)
    again = find_dataset(raw)  # the proposal, read and put there
    assert sentences(again) == []
    assert [case.id for case in again.cases] == ["a", "b"]
    # A new name: the proposal keeps what there is.
    patient(raw, "c", 3, cord="Larynx")
    assert "has no line for Larynx (in 1 case)" in sentences(find_dataset(raw))[0]
    write_proposal(tmp_path / "new.csv", find_dataset(raw).structure_names, table)
    new = {row.name: row.label for row in read_structure_map(tmp_path / "new.csv").rows}
    assert new == {row.name: row.label for row in table.rows} | {"Larynx": "larynx"}


def test_a_name_that_means_nothing_is_refused_or_left_out_as_the_table_says(tmp_path):
    raw = patient(tmp_path / "raw", "a", 1)
    described(raw, TABLE.replace("PTV 60,,\n", ""))
    assert "structures.csv: has no line for PTV 60 (in 1 case); add one for each" in sentences(find_dataset(raw))[0]
    described(raw, TABLE.replace("PTV 60,,", "*,,"))
    found = find_dataset(raw)
    assert sentences(found) == []
    assert "structures left out: PTV 60 (in 1 case)" in found.notes
    described(raw, "structure,label\nPTV 60,\nParotid_L,\nSpinal Cord,\n")
    with pytest.raises(UserError, match="gives no structure a label; fill in the column label"):
        find_dataset(raw)
    described(raw, "structure,label\nPTV 60,\nParotid_L,\nSpinal Cord,\nliver,liver\n")
    assert "none of its structures (Spinal Cord, Parotid_L, PTV 60) has a label" in sentences(find_dataset(raw))[0]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("", "its first line is ''; write the header structure,label"),
        ("a,b\n1,2\n", "its first line is 'a,b'; write the header"),
        ("structure,label\n", "has a header but no line below it"),
        ("structure,label\ncord,a\nCord,b\n", "lines 2 and 3 give Cord different labels (a or b); keep one"),
        ("structure,label,value\ncord,a,x\n", "line 2 has the value 'x'; write a whole number from 1 to 65535"),
        ("structure,label,value\ncord,a,0\n", "line 2 has the value '0'; write a whole number"),
        ("structure,label,value\ncord,a,1\nb,b,1\n", "1 is the value of a and of another label; change one"),
        ("structure,label,value\ncord,a,1\nb,ignore,1\n", "1 is the value of a and of another label; change one"),
        ("structure,label,value\ncord,a,1\nb,a,2\n", "line 3 gives a the value 2, a line above 1; keep one"),
        ("structure,label\n,a\n", "line 2 names no structure; fill it in"),
        ("structure,label\n*,a\n", "gives all other structures (*) the label a; leave that label empty"),
    ],
)
def test_tables_that_are_wrong_are_refused(tmp_path, table, said):
    raw = described(patient(tmp_path / "raw", "a", 1), table)
    with pytest.raises(UserError) as caught:
        find_dataset(raw)
    assert str(caught.value).startswith(f"{raw / STRUCTURES_FILE}: ")
    assert said in str(caught.value)


def test_regions_of_dataset_json_take_structures_that_overlap(tmp_path):
    raw = patient(tmp_path / "raw", "a", 1)
    described(raw, "structure,label\nPTV 60,body\nSpinal Cord,cord\nParotid_L,\n")
    labels = '{"labels": {"background": 0, "body": [1, 2], "cord": 2}, "regions_class_order": [1, 2]}'
    (raw / "dataset.json").write_text(labels)
    found = find_dataset(raw)
    assert sentences(found) == []
    case = found.cases[0]
    mask = read_label(case, read_volume(case.images[0]))
    np.testing.assert_array_equal(mask.array[0], (CORD | LEFT) * 1 + CORD * 1)
    described(raw, "structure,label\nPTV 60,bodi\nSpinal Cord,cord\nParotid_L,\n")
    with pytest.raises(UserError, match="line 2 gives PTV 60 the label 'bodi', which dataset.json does not list"):
        find_dataset(raw)


def test_what_does_not_belong_together_is_told(tmp_path):
    raw = patient(tmp_path / "raw", "a", 1)
    for file in sorted((raw / "a" / "CT").iterdir())[:1]:
        file.unlink()
    described(raw)
    assert "was drawn on 5 slices, of which 1 is not in CT; complete the series" in sentences(find_dataset(raw))[0]

    away = patient(tmp_path / "away", "a", 1)
    for file in (away / "a" / "CT").iterdir():
        file.unlink()
    write_series(away / "a" / "CT", IMAGE, grid(8))
    assert "was drawn on the series 1.2.1, which is not here; put that" in sentences(find_dataset(described(away)))[0]

    twice = patient(tmp_path / "twice", "a", 1)
    write_segmentation(twice / "a" / "SEG" / "s.dcm", {"Spinal Cord": CORD}, grid(1))
    assert "RS/1, SEG/s.dcm were drawn on one series, and each could be" in sentences(find_dataset(described(twice)))[0]

    split = patient(tmp_path / "split", "a", 1)
    (split / "a" / "more").mkdir()
    file = min((split / "a" / "CT").iterdir())
    file.rename(split / "a" / "more" / file.name)
    assert "whose slices lie in 2 folders (CT, more)" in sentences(find_dataset(described(split)))[0]

    damaged = patient(tmp_path / "damaged", "a", 1)
    (damaged / "a" / "RS" / "1").write_bytes((damaged / "a" / "RS" / "1").read_bytes()[:900])
    assert "1: cannot be read" in sentences(find_dataset(described(damaged)))[0]


def test_two_flat_folders_of_dicom_are_paired_by_what_the_files_say(tmp_path):
    raw = tmp_path / "raw"
    for number in (1, 2):
        write_series(raw / "images" / f"p{number}", IMAGE, grid(number))
        write_segmentation(raw / "labels" / f"other{3 - number}.dcm", {"cord": CORD}, grid(number))
    found = find_dataset(described(raw, "structure,label\ncord,cord\n"))
    assert [case.images[0].name for case in found.cases] == ["p1", "p2"]
    assert [case.label.name for case in found.cases] == ["other2.dcm", "other1.dcm"]


def test_several_series_of_one_patient_stay_together(tmp_path):
    raw = patient(tmp_path / "raw", "a", 1, patient="same")
    patient(raw, "b", 2, patient="same")
    patient(raw, "c", 3, patient="")
    found = find_dataset(described(raw))
    assert found.patient_of == {"a": "a", "b": "a", "c": "c"}


def test_a_number_makes_no_name_that_another_folder_has(tmp_path):
    raw = tmp_path / "raw"
    for number, folder in enumerate(("p/1", "p/2", "p_1/1", "p/3"), 1):
        patient(raw, folder, number)
    found = find_dataset(described(raw))
    ids = {case.images[0].parent.relative_to(raw).as_posix(): case.id for case in found.cases}
    assert ids == {"p/1": "p_2", "p/2": "p_3", "p/3": "p_4", "p_1/1": "p_1"}


def test_a_name_that_the_table_leaves_out_is_compared_with_nothing(tmp_path):
    """Whatever it sounds like: else it would go together with what was drawn in its place."""
    raw = tmp_path / "raw"
    rois = {"Heart": contours_of(LEFT), "Heart corrected": contours_of(CORD), "Liver": contours_of(CORD)}
    path = write_structures(raw / "a" / "RS" / "1", rois)
    described(raw, "structure,label\nHeart,\nHeart corrected,heart\n*,\n")
    labels = LabelSet(names=("background", "heart", "liver"), values=(0, 1, 2))
    assert [each.name for each in drawn_as_of(path, labels)] == ["Heart corrected", "Liver"]


# ---- pseudonyms ----


def test_cases_are_called_by_the_table_and_new_patients_are_added(tmp_path):
    raw = described(patient(tmp_path / "raw", "a", 1, patient="same"))
    patient(raw, "b", 2, patient="same")
    patient(raw, "c", 3, patient="third")
    table = tmp_path / "names.csv"
    table.write_text("patient,name\nthird,Berlin\n")
    found = with_pseudonyms(find_dataset(raw), table)
    assert [case.id for case in found.cases] == ["Berlin", "patient_0001_1", "patient_0001_2"]
    assert found.patient_of == {
        "Berlin": "Berlin",
        "patient_0001_1": "patient_0001_1",
        "patient_0001_2": "patient_0001_1",
    }
    assert table.read_text().splitlines() == [
        "patient,name,series",
        "third,Berlin,",
        "same,patient_0001,",
        "same,patient_0001_1,1.2.1",
        "same,patient_0001_2,1.2.2",
        "third,Berlin,1.2.3",
    ]
    again = with_pseudonyms(find_dataset(raw), table)
    assert [case.id for case in again.cases] == [case.id for case in found.cases]
    images = cases_with_pseudonyms(find_images(raw / "c" / "CT", found.channels), table)
    assert [case.id for case in images] == ["Berlin"]


def test_two_series_of_a_patient_in_two_calls_are_two_cases(tmp_path):
    """Else the mask of the first would be taken for an old one of the second, and go."""
    table = tmp_path / "names.csv"
    names = []
    for number, folder in ((1, "a"), (2, "b"), (3, "c"), (1, "a")):
        series = patient(tmp_path / folder, "p", number, patient="same") / "p" / "CT"
        names += [case.id for case in cases_with_pseudonyms(find_images(series, ()), table)]
    assert names == ["patient_0001", "patient_0001_2", "patient_0001_3", "patient_0001"]
    patient(tmp_path / "a", "copy", 1, patient="same")
    with pytest.raises(UserError, match="are one series, and would be called the same; take one of them away"):
        cases_with_pseudonyms(find_images(tmp_path / "a", ()), table)


def test_a_call_that_writes_nothing_writes_no_names(tmp_path):
    raw = described(patient(tmp_path / "raw", "a", 1))
    with_pseudonyms(find_dataset(raw), tmp_path / "names.csv", writes=False)
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_no_patient_and_wrong_tables_are_refused_without_naming_anybody(tmp_path):
    raw = described(patient(tmp_path / "raw", "a", 1, patient=""))
    with pytest.raises(UserError, match="has no PatientID, by which --pseudonyms names cases"):
        with_pseudonyms(find_dataset(raw), tmp_path / "names.csv")
    assert not (tmp_path / "names.csv").exists()
    raw = described(patient(tmp_path / "named", "a", 1, patient="Secret^Name"))
    for text, said in (
        ("", "lacks the column patient or name"),
        ("patient\nSecret^Name\n", "lacks the column patient or name"),
        ("patient,name\nSecret^Name,a/b\n", "row 2 has no name of letters"),
        ("patient,name\nSecret^Name,a\nSecret^Name,b\n", "row 3 gives a patient of an earlier row another name"),
        ("patient,name\nSecret^Name,a\nx,a\n", "calls 2 patients a"),
        ("patient,name,series\nSecret^Name,a,1.2\nSecret^Name,b,1.2\n", "row 3 gives a series of an earlier row"),
    ):
        (tmp_path / "names.csv").write_text(text)
        with pytest.raises(UserError) as caught:
            with_pseudonyms(find_dataset(raw), tmp_path / "names.csv")
        assert said in str(caught.value)
        assert "Secret" not in str(caught.value)


def test_each_series_in_a_tree_of_new_images_is_a_case(tmp_path):
    write_series(tmp_path / "in" / "p1", IMAGE, grid(1))
    write_series(tmp_path / "in" / "p1", IMAGE, grid(2), start="x")
    write_series(tmp_path / "in" / "p2" / "ct", IMAGE, grid(3))
    write_structures(tmp_path / "in" / "p2" / "ct" / "rs.dcm", {"cord": contours_of(CORD)}, grid(3))
    write_segmentation(tmp_path / "in" / "p3" / "seg.dcm", {"cord": CORD}, grid(3))  # alone in its folder: no image
    cases = find_images(tmp_path / "in", ())
    assert [case.id for case in cases] == ["ct", "p1_1", "p1_2"]
    assert [read_volume(case.images[0]).series.series for case in cases] == ["1.2.3", "1.2.1", "1.2.2"]
