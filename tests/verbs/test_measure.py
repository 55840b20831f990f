"""``segfw measure`` on folders: tables, what is kept and done again, parts, wrong input, and the page."""

import json
import os
import re
import shutil

import nibabel
import numpy as np
import pytest

import segfw
from builders.masks import box, geometry, rows_of
from segfw.base import figures
from segfw.base.parallel import CasesFailed
from segfw.base.records import UserError
from segfw.cli import main
from segfw.dataset.drawn_names import drawn_name
from segfw.dataset.labels import LABELS_FILE, LabelSet
from segfw.evaluation.mask_facts import FACTS_FILE, MaskFacts
from segfw.images.formats import write_labels
from segfw.images.geometry import Geometry

SHAPE = (6, 9, 12)
SPACING_MM = (5.0, 1.0, 2.0)  # a voxel has 0.01 ml
LABELS = LabelSet(names=("background", "kidney_left", "kidney_right"), values=(0, 2, 5))


def kidneys(left, right, shape=SHAPE):
    """Boxes one voxel inside of the image, so many voxels long along x."""
    return box((1, 3), (1, 5), (1, 1 + left), value=2, shape=shape) + box(
        (1, 3), (5, 8), (1, 1 + right), value=5, shape=shape
    )


@pytest.fixture
def cohort(tmp_path):
    """Masks of three cases with their names, and images of two channels; patient 1 was scanned twice."""
    rng = np.random.default_rng(0)
    (tmp_path / "masks").mkdir()
    (tmp_path / "images").mkdir()
    for case, mask in (
        ("patient1_t9", kidneys(4, 5)),
        ("patient1_t10", kidneys(8, 5)),
        ("patient2_t1", kidneys(3, 0)),
    ):
        write_labels(tmp_path / "masks" / f"{case}.nii.gz", mask, geometry(SHAPE, SPACING_MM))
        for channel in (0, 1):
            image = rng.integers(0, 200, SHAPE).astype(np.uint8)
            write_labels(tmp_path / "images" / f"{case}_000{channel}.nii.gz", image, geometry(SHAPE, SPACING_MM))
    LABELS.save(tmp_path / "masks" / LABELS_FILE)
    (tmp_path / "dataset.json").write_text(
        json.dumps({"channel_names": {"0": "T1", "1": "T2 fat"}, "labels": {"background": 0, "liver": 2}})
    )
    return tmp_path


def measure(cohort, *more):
    """Exit code of the command."""
    arguments = ["measure", str(cohort / "masks"), "--output", str(cohort / "out" / "m.csv"), *map(str, more)]
    return main(arguments)


def test_a_row_for_every_structure_of_every_case(cohort, capsys):
    assert measure(cohort) == 0
    rows = rows_of(cohort / "out" / "m.csv")
    assert list(rows[0])[:6] == ["case", "structure", "value", "status", "reason", "volume_ml"]
    assert [(row["case"], row["structure"], row["status"], row["volume_ml"]) for row in rows] == [
        ("patient1_t10", "kidney_left", "whole", "0.64"),
        ("patient1_t10", "kidney_right", "whole", "0.3"),
        ("patient1_t9", "kidney_left", "whole", "0.32"),
        ("patient1_t9", "kidney_right", "whole", "0.3"),
        ("patient2_t1", "kidney_left", "whole", "0.24"),
        ("patient2_t1", "kidney_right", "absent", ""),
    ]
    assert rows[0]["left_right_ratio"] == f"{0.64 / 0.3:.10g}"
    assert rows[5]["reason"] == "no voxel of it is in the mask"
    told = ("case", "structure", "value", "status", "reason", "english", "chinese", "scheme", "code")
    assert {rows[5][name] for name in rows[5] if name not in told} == {"", "0"}  # the voxels alone are known to be 0
    assert (rows[0]["english"], rows[0]["chinese"], rows[0]["code"]) == ("left kidney", "左肾", "64033007")
    assert "area_mm2" not in rows[0]
    kept = json.loads((cohort / "out" / "m.json").read_text())
    assert kept["statuses"] == {"whole": 5, "cut": 0, "absent": 1, "small": 0, "failed": 0}
    assert kept["cases"]["patient1_t9"]["digests"][0] == digest(cohort / "masks" / "patient1_t9.nii.gz")
    printed = capsys.readouterr().out
    assert "3 cases measured, 0 were there" in printed
    assert re.search(r"kidney_left +median 0.32, quartiles 0.28 to 0.48  \(3 whole\)", printed)
    assert re.search(r"kidney_right +median 0.3, quartiles 0.3 to 0.3  \(2 whole, 1 absent\)", printed)


def digest(path):
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_images_give_intensities_by_the_names_of_their_channels(cohort):
    assert measure(cohort, "--images", cohort / "images", "--wide") == 0
    rows = rows_of(cohort / "out" / "m.csv")
    assert {"T1_mean", "T1_p90", "T2_fat_median", "T2_fat_robust_mean_absolute_deviation"} <= rows[0].keys()
    from segfw.images.formats import read_mask

    image = read_mask(cohort / "images" / "patient1_t9_0001.nii.gz").array[0]
    mask = read_mask(cohort / "masks" / "patient1_t9.nii.gz").array[0]
    assert float(rows[2]["T2_fat_mean"]) == pytest.approx(image[mask == 2].mean())
    wide = rows_of(cohort / "out" / "m_wide.csv")
    assert [row["case"] for row in wide] == ["patient1_t10", "patient1_t9", "patient2_t1"]
    assert wide[2]["kidney_right_status"] == "absent"
    assert wide[2]["kidney_right_volume_ml"] == ""
    assert wide[1]["kidney_left_T2_fat_mean"] == rows[2]["T2_fat_mean"]


def test_time_points_of_a_patient_in_the_order_of_their_numbers(cohort):
    assert measure(cohort, "--by-patient") == 0
    rows = rows_of(cohort / "out" / "m_patients.csv")
    assert [(row["patient"], row["structure"], row["first"], row["second"]) for row in rows] == [
        ("patient1", name, "patient1_t9", "patient1_t10") for name in ("kidney_left", "kidney_right")
    ]
    left = rows[0]
    assert (left["first_size_ml"], left["second_size_ml"], left["change_ml"]) == ("0.32", "0.64", "0.32")
    assert (left["ratio"], left["fall"], left["status"]) == ("2", "0.5", "whole")
    assert measure(cohort, "--by-patient", "([a-z]+)") == 0
    assert {row["patient"] for row in rows_of(cohort / "out" / "m_patients.csv")} == {"patient"}


def test_time_points_of_a_folder_of_one_patient_and_a_note_where_there_are_none(tmp_path, cohort, capsys):
    (cohort / "masks" / "patient2_t1.nii.gz").unlink()
    for case in ("patient1_t9", "patient1_t10"):
        (cohort / "masks" / f"{case}.nii.gz").rename(cohort / "masks" / f"{case.removeprefix('patient')}.nii.gz")
    assert measure(cohort, "--by-patient") == 0
    assert [row["second"] for row in rows_of(cohort / "out" / "m_patients.csv")] == ["1_t10", "1_t10"]
    (cohort / "masks" / "1_t9.nii.gz").unlink()
    capsys.readouterr()
    assert measure(cohort, "--by-patient") == 0
    assert "note: no patient has two time points; give --by-patient a table" in capsys.readouterr().out


def test_what_names_do_not_put_in_order_is_not_compared(cohort, capsys):
    for case, name in (("patient1_t9", "patient1_left"), ("patient1_t10", "patient1_right")):
        (cohort / "masks" / f"{case}.nii.gz").rename(cohort / "masks" / f"{name}.nii.gz")
    assert measure(cohort, "--by-patient") == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "of 1 patient the names do not tell which case was first" in told
    assert "(such as patient1: patient1_left, patient1_right)" in told
    assert not (cohort / "out" / "m_patients.csv").exists()


def test_sizes_in_several_units_are_not_mixed(cohort, capsys):
    flat = (1, *SHAPE[1:])
    one = box((0, 1), (1, 5), (1, 5), value=2, shape=flat) + box((0, 1), (5, 8), (1, 6), value=5, shape=flat)
    write_labels(cohort / "masks" / "patient1_t10.nii.gz", one, geometry(flat, SPACING_MM))
    assert measure(cohort, "--by-patient", "--report", cohort / "out" / "m.html") == 0
    found = json.loads((cohort / "out" / "m.json").read_text())
    assert found["unit"] == "ml"
    left = next(each for each in found["summary"] if each["structure"] == "kidney_left")
    assert left["statuses"]["whole"] == 3
    assert (left["smallest"], left["largest"]) == pytest.approx((0.24, 0.32))
    pair = rows_of(cohort / "out" / "m_patients.csv")[0]
    assert (pair["status"], pair["first_size_ml"], pair["second_size_ml"]) == ("units differ", "0.32", "")
    assert (pair["change_ml"], pair["ratio"], pair["fall"]) == ("", "", "")
    told = " ".join(capsys.readouterr().out.split())
    assert "1 case with sizes in mm2 are in no median, outlier or plot, which are of ml" in told
    assert "2 pairs of time points cannot be compared: their units differ" in told


def test_tables_that_are_not_asked_for_do_not_stay_with_old_numbers(cohort, capsys):
    assert measure(cohort, "--wide", "--by-patient", "--per-component") == 0
    out = cohort / "out"
    names = ("m.csv", "m_wide.csv", "m_components.csv", "m_patients.csv", "m.json")
    assert f"written: {', '.join(str(out / name) for name in names)}" in capsys.readouterr().out
    write_labels(cohort / "masks" / "patient1_t9.nii.gz", kidneys(6, 5), geometry(SHAPE, SPACING_MM))
    assert measure(cohort, "--overwrite") == 0
    assert rows_of(out / "m_wide.csv")[1]["kidney_left_volume_ml"] == "0.48"
    assert sorted(path.name for path in out.glob("m*")) == ["m.csv", "m.json", "m_wide.csv"]
    printed = capsys.readouterr().out
    assert f"removed: {out / 'm_components.csv'}, of an earlier call" in printed
    assert f"written: {', '.join(str(out / name) for name in ('m.csv', 'm_wide.csv', 'm.json'))}" in printed
    (out / "m_wide.csv").write_text("case,age\npatient1,70\n")  # somebody's own
    assert measure(cohort) == 0
    assert (out / "m_wide.csv").read_text() == "case,age\npatient1,70\n"


def test_one_mask_and_one_image_belong_together_whatever_they_are_called(cohort):
    found = segfw.measure(
        cohort / "masks" / "patient1_t9.nii.gz",
        cohort / "out" / "one.csv",
        images=cohort / "images" / "patient2_t1_0001.nii.gz",
    )
    assert found.channels == ("image",)
    assert {row.status for row in found.rows} == {"whole"}
    assert all(row.channels["image"].mean > 0 for row in found.rows)


def test_images_are_paired_as_those_of_a_data_set(cohort, capsys):
    for number, case in enumerate(("patient1_t9", "patient1_t10", "patient2_t1")):
        (cohort / "masks" / f"{case}.nii.gz").rename(cohort / "masks" / f"segmentation-{number}.nii.gz")
        (cohort / "images" / f"{case}_0000.nii.gz").rename(cohort / "images" / f"volume-{number}.nii.gz")
        (cohort / "images" / f"{case}_0001.nii.gz").unlink()
    assert measure(cohort, "--images", cohort / "images") == 0
    kept = json.loads((cohort / "out" / "m.json").read_text())
    names = [[source[0] for source in each["sources"]] for each in kept["cases"].values()]
    assert names == [[f"segmentation-{number}.nii.gz", f"volume-{number}.nii.gz"] for number in range(3)]


def test_every_part_of_a_structure(cohort):
    two = kidneys(4, 5) + box((4, 5), (1, 3), (7, 11), value=2, shape=SHAPE)
    write_labels(cohort / "masks" / "patient2_t1.nii.gz", two, geometry(SHAPE, SPACING_MM))
    assert measure(cohort, "--per-component", "--only", "left kidney") == 0
    rows = rows_of(cohort / "out" / "m_components.csv")
    parts = [(row["component"], row["volume_ml"], row["is_cut"]) for row in rows if row["case"] == "patient2_t1"]
    assert parts == [("1", "0.32", "0"), ("2", "0.08", "0")]
    assert {row["structure"] for row in rows_of(cohort / "out" / "m.csv")} == {"kidney_left"}


def test_what_is_measured_is_kept_and_what_has_changed_is_measured_again(cohort, capsys):
    assert measure(cohort) == 0
    before = {path.name: path.read_bytes() for path in (cohort / "out").glob("m*")}
    assert measure(cohort) == 0
    assert "0 cases measured, 3 were there" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in (cohort / "out").glob("m*")} == before
    write_labels(cohort / "masks" / "patient2_t1.nii.gz", kidneys(6, 0), geometry(SHAPE, SPACING_MM))
    assert measure(cohort) == 0
    printed = capsys.readouterr().out
    assert "1 case changed since they were measured, and are measured again: patient2_t1" in printed
    assert rows_of(cohort / "out" / "m.csv")[4]["volume_ml"] == "0.48"
    (cohort / "masks" / "patient1_t9.nii.gz").unlink()
    assert measure(cohort) == 0
    assert len(rows_of(cohort / "out" / "m.csv")) == 4


def test_other_options_are_not_mixed_in(cohort, capsys):
    assert measure(cohort) == 0
    assert measure(cohort, "--only", "kidney_left") == 2
    told = capsys.readouterr().err
    assert "m.csv: was measured with other options (only); give another name, or --overwrite" in told
    assert measure(cohort, "--only", "kidney_left", "--overwrite") == 0
    assert len(rows_of(cohort / "out" / "m.csv")) == 3
    assert measure(cohort, "--only", "kidney_left") == 0
    assert "0 cases measured, 3 were there" in capsys.readouterr().out


def test_parts_make_the_whole(cohort, capsys):
    assert measure(cohort, "--part", "1/2") == 0
    printed = capsys.readouterr().out
    assert "measuring 2 cases (part 1/2 of 3)" in printed
    assert "1 case not measured yet: other parts add theirs" in printed
    assert len(rows_of(cohort / "out" / "m.csv")) == 4
    assert measure(cohort, "--part", "2/2") == 0
    both = (cohort / "out" / "m.csv").read_bytes()
    shutil.rmtree(cohort / "out")
    assert measure(cohort) == 0
    assert (cohort / "out" / "m.csv").read_bytes() == both


def test_a_part_that_measures_anew_leaves_what_the_others_have_measured(cohort, capsys):
    assert measure(cohort, "--part", "1/2") == 0
    assert measure(cohort, "--part", "2/2") == 0
    whole = (cohort / "out" / "m.csv").read_bytes()
    capsys.readouterr()
    assert measure(cohort, "--part", "2/2", "--overwrite") == 0
    printed = capsys.readouterr().out
    assert "1 case measured, 0 were there" in printed
    assert "not measured yet" not in printed
    assert (cohort / "out" / "m.csv").read_bytes() == whole
    # With other options nothing of the others can stay.
    assert measure(cohort, "--part", "2/2", "--overwrite", "--only", "kidney_left") == 0
    assert "2 cases not measured yet" in capsys.readouterr().out


def test_a_mask_that_changed_is_not_measured_where_another_part_writes_the_table(cohort, capsys):
    assert measure(cohort) == 0
    write_labels(cohort / "masks" / "patient1_t10.nii.gz", kidneys(6, 0), geometry(SHAPE, SPACING_MM))
    capsys.readouterr()
    assert measure(cohort, "--part", "2/2") == 0  # which has patient1_t9 alone
    assert "1 case not measured yet" in capsys.readouterr().out
    assert json.loads((cohort / "out" / "m.json").read_text())["missing"] == ["patient1_t10"]
    assert {row["case"] for row in rows_of(cohort / "out" / "m.csv")} == {"patient1_t9", "patient2_t1"}


def test_masks_made_for_some_structures_are_measured_for_these_alone(cohort, capsys):
    MaskFacts(only=("kidney_left",)).save(cohort / "masks" / FACTS_FILE)
    assert measure(cohort) == 0
    printed = capsys.readouterr().out
    assert "note: the masks were predicted for kidney_left alone, and nothing else is measured" in printed
    assert {row["structure"] for row in rows_of(cohort / "out" / "m.csv")} == {"kidney_left"}
    assert measure(cohort, "--only", "kidneys", "--overwrite") == 2
    told = capsys.readouterr().err
    assert (
        "masks: the masks were predicted for kidney_left alone, and say nothing of kidney_right; leave that out" in told
    )
    one = segfw.measure(cohort / "masks" / "patient1_t9.nii.gz", cohort / "out" / "one.csv")  # a mask of the folder
    assert [row.structure for row in one.rows] == ["kidney_left"]


def test_values_that_are_no_number_fail_their_case_alone(cohort):
    odd = kidneys(4, 5).astype(np.float32)
    odd[0, 0, :2] = (np.nan, np.inf)
    path = cohort / "masks" / "patient1_t9.nii.gz"
    nibabel.save(nibabel.Nifti1Image(odd.T, nibabel.load(path).affine), path)
    assert measure(cohort) == 1
    rows = rows_of(cohort / "out" / "m.csv")
    assert [row["status"] for row in rows] == ["whole", "whole", "failed", "failed", "whole", "absent"]
    assert "patient1_t9.nii.gz: holds inf, nan, which is no label (0 background" in rows[2]["reason"]


def test_a_damaged_mask_does_not_keep_labels_from_being_told(cohort, capsys):
    for path in (cohort / "masks" / LABELS_FILE, cohort / "dataset.json"):
        path.unlink()
    (cohort / "masks" / "patient1_t9.nii.gz").write_bytes(b"no NIfTI")
    assert measure(cohort) == 1
    rows = rows_of(cohort / "out" / "m.csv")
    assert [row["status"] for row in rows] == ["whole", "whole", "failed", "failed", "whole", "absent"]
    assert {row["structure"] for row in rows} == {"label_2", "label_5"}
    for path in (cohort / "masks").glob("*.nii.gz"):
        path.write_bytes(b"no NIfTI")
    capsys.readouterr()
    assert measure(cohort) == 2  # of masks of which none can be read nobody knows the labels
    assert "patient1_t10.nii.gz" in capsys.readouterr().err


def test_a_case_that_fails_is_a_row_that_says_why_and_the_others_are_measured(cohort, capsys):
    moved = geometry(SHAPE, SPACING_MM).matrix
    moved[0, 3] += 40
    write_labels(cohort / "images" / "patient1_t9_0000.nii.gz", np.ones(SHAPE, np.uint8), Geometry.of(SHAPE, moved))
    (cohort / "masks" / "patient2_t1.nii.gz").write_bytes(b"no NIfTI")
    assert measure(cohort, "--images", cohort / "images") == 1
    told = capsys.readouterr().err
    assert "2 cases failed in measuring, all others are done" in told
    assert re.search(r"patient1_t9: .*masks.patient1_t9.nii.gz: lies up to 40 mm away from its image", told)
    rows = rows_of(cohort / "out" / "m.csv")
    assert [row["status"] for row in rows] == ["whole", "whole", "failed", "failed", "failed", "failed"]
    assert "away from its image" in rows[2]["reason"]
    assert {row["volume_ml"] for row in rows[2:]} == {""}
    write_labels(cohort / "masks" / "patient2_t1.nii.gz", kidneys(3, 0), geometry(SHAPE, SPACING_MM))
    assert measure(cohort, "--images", cohort / "images") == 1  # what failed is tried again
    assert [row["status"] for row in rows_of(cohort / "out" / "m.csv")][4:] == ["whole", "absent"]


def test_whatever_a_case_fails_of_it_has_rows_that_say_so(cohort, monkeypatch, capsys):
    from segfw.measurements import measure_case

    real = measure_case.measure_mask

    def failing(case, *args, **keywords):
        if case == "patient1_t9":
            raise RuntimeError("something that nobody thought of")
        return real(case, *args, **keywords)

    monkeypatch.setattr(measure_case, "measure_mask", failing)
    assert measure(cohort) == 1
    rows = rows_of(cohort / "out" / "m.csv")
    assert [row["status"] for row in rows] == ["whole", "whole", "failed", "failed", "whole", "absent"]
    assert rows[2]["reason"] == "something that nobody thought of"
    assert json.loads((cohort / "out" / "m.json").read_text())["missing"] == []
    monkeypatch.undo()
    capsys.readouterr()
    assert measure(cohort) == 0
    assert "1 case measured, 2 were there" in capsys.readouterr().out


def test_an_image_of_another_size_is_told_with_both(cohort, capsys):
    small = np.ones((6, 9, 11), np.uint8)
    write_labels(cohort / "images" / "patient1_t9_0000.nii.gz", small, geometry(small.shape, SPACING_MM))
    assert measure(cohort, "--images", cohort / "images") == 1
    assert "has 6 x 9 x 12 voxels and its image 6 x 9 x 11" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "more", "sentence"),
    [
        ("empty", (), "masks: holds no mask segfw can read; give the folder that holds the masks themselves"),
        ("", ("--only", "spleen"), "spleen"),
        ("", ("--images", "masks/none"), "none: no such folder; give a folder of images or masks"),
        ("others", ("--images", "images"), "images: no image is named like a mask (here x_0000"),
        ("", ("--part", "4/3"), "--part is '4/3'; give which part of how many, such as 3/8"),
        ("", ("--by-patient", "("), "--by-patient '(': neither a file nor a regular expression"),
        ("table", (), "m.csv: is there already and not written by this command"),
    ],
)
def test_wrong_input_is_one_sentence(cohort, change, more, sentence, capsys, monkeypatch):
    monkeypatch.chdir(cohort)
    if change == "empty":
        for path in (cohort / "masks").glob("*.nii.gz"):
            path.unlink()
    if change == "others":
        shutil.rmtree(cohort / "images")
        (cohort / "images").mkdir()
        write_labels(cohort / "images" / "x_0000.nii.gz", np.ones(SHAPE, np.uint8), geometry(SHAPE, SPACING_MM))
    if change == "table":
        (cohort / "out").mkdir()
        (cohort / "out" / "m.csv").write_text("mine,yours\n1,2\n")
    assert measure(cohort, *more) == 2
    told = capsys.readouterr().err
    assert sentence in told
    assert told.count("\n") == 1
    assert not (cohort / "out" / "m.json").exists()


def test_outputs_do_not_go_where_masks_are(cohort, capsys):
    assert main(["measure", str(cohort / "masks"), "--output", str(cohort / "masks" / "m.csv")]) == 2
    assert "is only read; give a place outside of it" in capsys.readouterr().err
    assert main(["measure", str(cohort / "masks"), "--output", str(cohort / "m.txt")]) == 2
    assert "does not end in .csv" in capsys.readouterr().err


def test_a_mask_by_itself_without_names(cohort):
    for path in (cohort / "masks" / LABELS_FILE, cohort / "dataset.json"):
        path.unlink()
    found = segfw.measure(cohort / "masks" / "patient1_t9.nii.gz", cohort / "out" / "one.csv")
    assert [(row.structure, row.value, row.voxels) for row in found.rows] == [
        ("label_2", "2", 32),
        ("label_5", "5", 30),
    ]
    assert found.notes == ("labels were inferred from the values in the masks: 2, 5",)


def test_python_raises_for_cases_that_fail_and_names_keywords(cohort):
    (cohort / "masks" / "patient2_t1.nii.gz").write_bytes(b"no NIfTI")
    with pytest.raises(CasesFailed, match="1 case failed in measuring"):
        segfw.measure(cohort / "masks", cohort / "out" / "m.csv")
    with pytest.raises(UserError, match="other options \\(per component\\); give another name, or overwrite=True"):
        segfw.measure(cohort / "masks", cohort / "out" / "m.csv", per_component=True)


def test_the_page_shows_every_structure_and_survives_odd_names(cohort):
    odd = LabelSet(names=("background", "<b>left</b> $x_1$", "kidney_right"), values=(0, 2, 5))
    odd.save(cohort / "masks" / LABELS_FILE)
    report = cohort / "out" / "m.html"
    assert measure(cohort, "--images", cohort / "images", "--report", report, "--by-patient") == 0
    page = report.read_text(encoding="utf-8")
    assert "&lt;b&gt;left&lt;/b&gt; $x_1$" in page
    assert "<b>left</b>" not in page
    assert page.count("data:image/png;base64,") == 4  # sizes, and three cases
    assert "http" not in re.sub(r"http://www\.w3\.org[^\"]*", "", page)
    assert "Time points of one patient" in page
    assert "1</b><span>absent" in page
    assert measure(cohort, "--images", cohort / "images", "--report", report) == 0  # a page may be written anew


@pytest.mark.filterwarnings("error")
def test_chinese_names_are_drawn_or_stand_there_in_english(cohort, monkeypatch):
    LabelSet(names=("background", "左肾", "某某"), values=(0, 2, 5)).save(cohort / "masks" / LABELS_FILE)
    report = cohort / "out" / "m.html"
    assert measure(cohort, "--images", cohort / "images", "--report", report) == 0
    monkeypatch.setattr(figures, "_families", lambda: (figures.OWN_FAMILY,))  # where no other font is installed
    assert (drawn_name("左肾", 1), drawn_name("某某", 2), drawn_name("niere", 3)) == ("left kidney", "label 2", "niere")
    assert measure(cohort, "--images", cohort / "images", "--report", report) == 0
    assert "左肾" in report.read_text(encoding="utf-8")  # a browser has its own letters


@pytest.mark.filterwarnings("error")
def test_the_plot_of_cases_that_are_all_the_same(tmp_path):
    (tmp_path / "masks").mkdir()
    for number in range(9):
        mask = box((1, 3), (1, 5), (1, 5), shape=SHAPE)
        write_labels(tmp_path / "masks" / f"case_{number}.nii.gz", mask, geometry(SHAPE, SPACING_MM))
    segfw.measure(tmp_path / "masks", tmp_path / "m.csv", report=tmp_path / "m.html")
    assert "data:image/png;base64," in (tmp_path / "m.html").read_text(encoding="utf-8")


def test_outliers_need_eight_cases_and_are_told(tmp_path, capsys):
    (tmp_path / "masks").mkdir()
    for number in range(9):
        long = 9 if number == 4 else 3
        mask = box((1, 3), (1, 5), (1, 1 + long), shape=SHAPE)
        write_labels(tmp_path / "masks" / f"case_{number}.nii.gz", mask, geometry(SHAPE, SPACING_MM))
    found = segfw.measure(tmp_path / "masks", tmp_path / "m.csv", report=tmp_path / "m.html")
    assert [(outlier.case, outlier.structure) for outlier in found.outliers] == [("case_4", "label_1")]
    assert found.outliers[0].usual == pytest.approx((0.24, 0.24))
    assert "label_1 is an outlier" in (tmp_path / "m.html").read_text(encoding="utf-8")


def test_a_kept_case_that_is_damaged_is_measured_again(cohort):
    assert measure(cohort) == 0
    table = (cohort / "out" / "m.csv").read_bytes()
    kept = cohort / "out" / ".segfw" / "m" / "case_patient1_t9.json"
    kept.write_text("{")
    os.utime(kept)
    assert measure(cohort) == 0
    assert (cohort / "out" / "m.csv").read_bytes() == table


def test_a_cluster_measures_the_same_from_another_folder(cohort, monkeypatch):
    distributed = pytest.importorskip("distributed", reason="Dask is not installed: pip install 'segfw[cluster]'")
    assert measure(cohort, "--images", cohort / "images") == 0
    here = (cohort / "out" / "m.csv").read_bytes()
    monkeypatch.chdir(cohort)  # a worker is in another folder
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    ) as started:
        segfw.measure("masks", "there/m.csv", images="images", cluster=started.scheduler_address)
    assert (cohort / "there" / "m.csv").read_bytes() == here
