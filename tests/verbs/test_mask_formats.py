"""predict and ensemble with several formats: what is done, kept, forgotten, refused, and what no file may say."""

import os
import shutil
import sys

import numpy as np
import pytest
from pydicom import dcmread

from builders.data import blocks_case
from builders.models import plan_of, write_fold
from builders.networks import spec
from builders.series import PATIENT, write_series
from builders.training import ZSCORE, configuration
from builders.written import masks_in_segmentation, masks_in_structure_set
from segfw.base.parallel import CasesFailed
from segfw.base.records import UserError
from segfw.cli import main
from segfw.dataset.cases import Channel
from segfw.dataset.image_files import every_series
from segfw.images.formats import read_mask, read_volume
from segfw.inference.output_folder import images_of_masks
from segfw.interop.reference_series import read_reference
from segfw.planning.work_folder import PLAN_FILE
from segfw.standing.of_masks import masks_standing
from segfw.verbs.ensemble import ensemble
from segfw.verbs.predict import predict

pytest.importorskip("highdicom", reason="highdicom is not installed: pip install 'segfw[dicom]'")

EVERY = ("nifti", "seg.nrrd", "dicom-seg", "rtstruct", "bids")


def files_of(case: str) -> set[str]:
    """The files of a case in all formats."""
    start = f"bids/sub-{case}/anat/sub-{case}_desc-draft_dseg"
    of_bids = {f"{start}.nii.gz", f"{start}.json", f"{start}.tsv"}
    return {f"{case}.nii.gz", f"seg-nrrd/{case}.seg.nrrd", f"dicom-seg/{case}.dcm", f"rtstruct/{case}.dcm"} | of_bids


def series(folder, name: str, seed: int = 0):
    """A series of which the drawn network finds something."""
    image, _ = blocks_case(np.random.default_rng(seed))
    return write_series(folder / name, image * 100, shuffled=seed, spacing_mm=(2.0, 1.0, 1.0), number=seed + 1)


@pytest.fixture
def scans(tmp_path):
    series(tmp_path / "scans", "a", 1)
    series(tmp_path / "scans", "b", 2)
    return tmp_path / "scans"


def of_case(output, case: str) -> set[str]:
    """Files of a case's mask, in all formats."""
    found = (path for path in output.rglob("*") if path.is_file() and ".segfw" not in path.parts)
    names = {path.relative_to(output).as_posix() for path in found}
    return {name for name in names if name.rsplit("/", 1)[-1].removeprefix("sub-").startswith((f"{case}.", f"{case}_"))}


def test_all_formats_hold_one_mask_and_are_done_once(model, scans, tmp_path, capsys):
    out = tmp_path / "masks"
    predict(model, scans, out, device="cpu", formats=EVERY, sr=True)
    assert of_case(out, "a") == files_of("a") | {"sr/a.dcm"}
    mask = read_mask(out / "a.nii.gz").array[0]
    assert set(np.unique(mask).tolist()) == {0, 3, 7}
    wanted = {"small": mask == 3, "large": mask == 7}
    labels = (out / "labels.json").read_text()
    assert labels == (out / "dicom-seg" / "labels.json").read_text() == (out / "rtstruct" / "labels.json").read_text()
    for found in (
        masks_in_structure_set(out / "rtstruct" / "a.dcm", scans / "a"),
        masks_in_segmentation(out / "dicom-seg" / "a.dcm", read_reference(scans / "a").positions_mm),
    ):
        assert len(found) == len(wanted)
        for one, other in zip(found.values(), wanted.values()):
            np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(read_mask(out / "seg-nrrd" / "a.seg.nrrd").array[0], mask)
    np.testing.assert_array_equal(
        read_mask(out / "bids" / "sub-a" / "anat" / "sub-a_desc-draft_dseg.nii.gz").array[0], mask
    )
    assert f"    7   {0:3}" in (out / "labels_itksnap.txt").read_text()
    assert (out / "labels_slicer.ctbl").read_text().splitlines()[1] == "0 background 0 0 0 0"

    # Resumed, with more formats, and after one of them was lost
    capsys.readouterr()
    predict(model, scans, out, device="cpu", formats=EVERY, sr=True)
    assert "0 cases predicted, 2 were there" in capsys.readouterr().out
    (out / "rtstruct" / "b.dcm").unlink()
    predict(model, scans, out, device="cpu", formats=EVERY, sr=True)
    assert "1 case predicted, 1 were there" in capsys.readouterr().out
    assert (out / "rtstruct" / "b.dcm").is_file()


def test_a_replaced_image_leaves_no_file_of_the_old_one_in_any_format(model, scans, tmp_path):
    out = tmp_path / "masks"
    predict(model, scans, out, device="cpu", formats=EVERY)
    shutil.rmtree(scans / "a")
    (scans / "a").mkdir()
    (scans / "a" / "0000.dcm").write_bytes((scans / "b" / "0000.dcm").read_bytes()[:600])
    with pytest.raises(CasesFailed):
        predict(model, scans, out, device="cpu")  # which asks for one format alone
    assert of_case(out, "a") == set()
    assert of_case(out, "b") == files_of("b")


def test_overwrite_forgets_formats_that_are_not_asked_for_any_more(model, scans, tmp_path):
    out = tmp_path / "masks"
    predict(model, scans, out, device="cpu", formats=("seg.nrrd", "rtstruct"))
    assert of_case(out, "a") == {"seg-nrrd/a.seg.nrrd", "rtstruct/a.dcm"}
    standing = masks_standing(out)
    assert (standing.done, standing.left) == (("a", "b"), ())
    predict(model, scans, out, device="cpu", step=0.9, overwrite=True)
    assert of_case(out, "a") == {"a.nii.gz"}


def test_files_that_were_written_in_another_way_do_not_pass_for_those_asked_for(model, scans, tmp_path):
    one = tmp_path / "one"
    predict(model, scans, one, device="cpu", formats=("rtstruct",), save_probabilities=16)
    predict(model, scans, one, device="cpu", formats=("dicom-seg",), seg_type="labelmap")
    for wishes in ({"formats": ("rtstruct",), "holes": "xor"}, {"formats": ("dicom-seg",)}):
        name = "holes" if "holes" in wishes else "seg type"
        with pytest.raises(UserError, match=rf"holds masks of another model or other options \({name}\); use"):
            predict(model, scans, one, device="cpu", **wishes)
    predict(model, scans, one, device="cpu")  # which asks for neither
    predict(model, scans, one, device="cpu", formats=("rtstruct", "dicom-seg"), seg_type="labelmap")
    out = tmp_path / "averaged"
    ensemble([one], out, formats=("rtstruct",), holes="xor")
    ensemble([one], out)
    with pytest.raises(UserError, match="weights or postprocessing, or with other .*holes or .*; use another"):
        ensemble([one], out, formats=("rtstruct",))
    ensemble([one], out, formats=("rtstruct",), overwrite=True)


def test_files_that_are_no_series_are_refused_before_anything_is_written(model, images, scans, tmp_path, monkeypatch):
    for name in ("dicom-seg", "rtstruct"):
        with pytest.raises(
            UserError,
            match=rf"^a: {name} refers to the slices of a DICOM series, and its image .*a.nii.gz is none; give",
        ):
            predict(model, images, tmp_path / "masks", device="cpu", formats=("nifti", name))
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(UserError, match=r"^dicom-seg needs highdicom; install it with: pip install 'segfw\[dicom\]'$"):
        predict(model, scans, tmp_path / "masks", device="cpu", formats=("dicom-seg",))
    assert not (tmp_path / "masks").exists()
    predict(model, scans, tmp_path / "masks", device="cpu", formats=("rtstruct",))  # which does without it


def test_a_series_that_lacks_a_slice_or_a_patient_fails_alone_and_is_foretold(model, scans, tmp_path, capsys):
    (scans / "a" / "0003.dcm").unlink()
    nobody = series(scans, "nobody", 3)
    write_series(nobody, read_volume(nobody).array[0], number=4, changes={"PatientID": ""})
    arguments = ["predict", str(model), str(scans), str(tmp_path / "masks"), "--device", "cpu", "--as", "rtstruct"]
    assert main([*arguments, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "3 to do, of which 2 would fail" in said
    assert "has no PatientID" in said
    assert main(arguments) == 1
    printed = capsys.readouterr().err
    assert "slices missing?" in printed
    assert "0000.dcm has no PatientID, so that no system would find what belongs together" in printed
    assert [path.name for path in (tmp_path / "masks" / "rtstruct").glob("*.dcm")] == ["b.dcm"]


def test_of_two_series_in_one_folder_each_is_referred_to_by_its_own(model, tmp_path):
    """As an archive may export them: a file stands for each."""
    scans = tmp_path / "scans"
    for seed, name in ((1, "a"), (2, "b")):
        for file in series(tmp_path / "apart", name, seed).iterdir():
            (scans / "both").mkdir(parents=True, exist_ok=True)
            shutil.copy(file, scans / "both" / f"{name}_{file.name}")
    predict(model, scans, tmp_path / "masks", device="cpu", formats=("nifti", "rtstruct", "dicom-seg"))
    for case, name in (("both_1", "a"), ("both_2", "b")):
        mask = read_mask(tmp_path / "masks" / f"{case}.nii.gz").array[0]
        found = masks_in_structure_set(tmp_path / "masks" / "rtstruct" / f"{case}.dcm", tmp_path / "apart" / name)
        for inside, value in zip(found.values(), (3, 7)):
            np.testing.assert_array_equal(inside, mask == value)


def test_the_option_of_earlier_versions_is_named(capsys):
    assert main(["predict", "model", "images", "masks", "--ending", ".nrrd"]) == 2
    assert "predict has no option --ending; it is --as now" in capsys.readouterr().err


def test_no_file_but_dicom_names_the_patient(model, scans, tmp_path, capsys):
    """Neither masks nor records, logs, tables or what is printed, also of a case that fails."""
    (scans / "b" / "0003.dcm").unlink()
    arguments = ["predict", str(model), str(scans), str(tmp_path / "masks"), "--device", "cpu", "--uncertainty", "--sr"]
    assert main([*arguments, "--save-probabilities", "--as", *EVERY]) == 1
    printed = "".join(capsys.readouterr())
    secrets = (*PATIENT.split("^"), "P-0815", "19700203", "Arzt")
    files = [path for path in (tmp_path / "masks").rglob("*") if path.is_file()]
    named = {
        path.relative_to(tmp_path / "masks").as_posix() for path in files for secret in secrets if says(path, secret)
    }
    assert named == {"dicom-seg/a.dcm", "rtstruct/a.dcm", "sr/a.dcm"}
    assert len(files) > 15  # else this proves nothing
    assert not [secret for secret in secrets if secret in printed]


def test_beside_a_pseudonym_stands_no_name_of_a_folder(model, tmp_path):
    scans = tmp_path / "scans"
    series(scans, "Mustermann_Erika", 1)
    out = tmp_path / "masks"
    for number in (1, 0):
        predict(model, scans, out, device="cpu", formats=EVERY, pseudonyms=tmp_path / "names.csv", uncertainty=True)
        files = [path for path in out.rglob("*") if path.is_file()]
        assert not [path for path in files if says(path, "Mustermann_Erika") or "Mustermann" in path.name]
        assert len(files) > 15
        record = out / ".segfw" / "patient_0001.json"
        assert (record.stat().st_mtime_ns == 0) == (number == 0)  # the second time nothing is done
        os.utime(record, (0, 0))


def says(path, secret: str) -> bool:
    content = path.read_bytes()
    if path.name.endswith(".gz"):
        import gzip

        content += gzip.decompress(content)
    return secret.encode() in content


def test_an_ensemble_writes_formats_too(model, scans, tmp_path):
    predict(model, scans, tmp_path / "one", device="cpu", save_probabilities=16)
    out = tmp_path / "averaged"
    ensemble([tmp_path / "one", tmp_path / "one"], out, formats=EVERY, sr=True)
    assert of_case(out, "a") == files_of("a") | {"sr/a.dcm"}
    mask = read_mask(out / "a.nii.gz").array[0]
    found = masks_in_structure_set(out / "rtstruct" / "a.dcm", scans / "a")
    for inside, value in zip(found.values(), (3, 7)):
        np.testing.assert_array_equal(inside, mask == value)
    before = (out / "rtstruct" / "a.dcm").read_bytes()
    ensemble([tmp_path / "one", tmp_path / "one"], out, formats=EVERY, sr=True)
    assert (out / "rtstruct" / "a.dcm").read_bytes() == before  # kept
    # Where the images are is told by the first folder, or else by the option
    moved = scans.rename(tmp_path / "elsewhere")
    with pytest.raises(CasesFailed):
        ensemble([tmp_path / "one"], tmp_path / "lost", formats=("rtstruct",))
    failures = (tmp_path / "lost" / "failures.json").read_text()
    assert "rtstruct refers to the slices of a DICOM series, and no image of it is at hand" in failures
    ensemble([tmp_path / "one"], tmp_path / "lost", formats=("rtstruct",), images=moved)
    assert (tmp_path / "lost" / "rtstruct" / "b.dcm").is_file()


def test_an_ensemble_of_others_leaves_no_mask_of_the_old_one_in_any_format(model, scans, tmp_path):
    """It would pass for one of the new models when its format is asked for again."""
    one = tmp_path / "one"
    out = tmp_path / "averaged"
    predict(model, scans, one, device="cpu", save_probabilities=16)
    ensemble([one], out, formats=EVERY, sr=True)
    ensemble([one, one], out, weights=(1, 2), overwrite=True)
    assert of_case(out, "a") == {"a.nii.gz"}
    # Nor of probabilities that were made anew
    ensemble([one, one], out, weights=(1, 2), formats=("rtstruct", "seg.nrrd"))
    ensemble([one, one], out, weights=(1, 2))
    assert of_case(out, "a") == {"a.nii.gz", "rtstruct/a.dcm", "seg-nrrd/a.seg.nrrd"}
    later = (out / "rtstruct" / "a.dcm").stat().st_mtime + 10
    (anew,) = (one / "probabilities").glob("a.*")
    os.utime(anew, (later, later))
    ensemble([one, one], out, weights=(1, 2))
    assert of_case(out, "a") == {"a.nii.gz"}
    assert of_case(out, "b") == {"b.nii.gz", "rtstruct/b.dcm", "seg-nrrd/b.seg.nrrd"}


def test_an_ensemble_finds_series_whose_cases_have_pseudonyms(model, tmp_path):
    """By names alone the series of patient_0001, which is another patient's, would be taken for that of the case."""
    scans = tmp_path / "scans"
    for seed, (name, patient) in enumerate((("anna", "P1"), ("berta", "P2"), ("patient_0001", "P3")), 1):
        image, _ = blocks_case(np.random.default_rng(seed))
        write_series(scans / name, image * 100, spacing_mm=(2.0, 1.0, 1.0), number=seed, changes={"PatientID": patient})
    table = tmp_path / "names.csv"
    table.write_text("patient,name\nP1,patient_0001\nP2,patient_0002\nP3,patient_0003\n")
    predict(model, scans, tmp_path / "one", device="cpu", save_probabilities=16, pseudonyms=table)
    for options in ({}, {"images": scans}):
        out = tmp_path / f"averaged{len(options)}"
        ensemble([tmp_path / "one"], out, formats=("nifti", "dicom-seg", "rtstruct"), **options)
        for case, name in (("patient_0001", "anna"), ("patient_0002", "berta"), ("patient_0003", "patient_0001")):
            mask = read_mask(out / f"{case}.nii.gz").array[0]
            of_series = read_reference(scans / name)
            found = masks_in_structure_set(out / "rtstruct" / f"{case}.dcm", scans / name)
            frames = masks_in_segmentation(out / "dicom-seg" / f"{case}.dcm", of_series.positions_mm)
            for each in (found, frames):
                for inside, value in zip(each.values(), (3, 7)):
                    np.testing.assert_array_equal(inside, mask == value)
            assert dcmread(out / "rtstruct" / f"{case}.dcm").PatientID == of_series.first.PatientID


def test_an_ensemble_refers_to_the_first_of_several_channels(tmp_path):
    two = ZSCORE.model_copy(update={"normalization": ZSCORE.normalization * 2})
    chosen = configuration(two, spec(in_channels=2, features=(4, 8)))
    work = tmp_path / "work"
    work.mkdir()
    plan_of(chosen, channels=(Channel(name="T1"), Channel(name="T2"))).save(work / PLAN_FILE)
    write_fold(work, chosen, "0")
    scans = tmp_path / "scans"
    for number, name in enumerate(("a_0000", "a_0001", "b_0000", "b_0001")):
        image, _ = blocks_case(np.random.default_rng(number))
        write_series(scans / name, image * 100, spacing_mm=(2.0, 1.0, 1.0), number=number + 1)
    predict(work, scans, tmp_path / "one", device="cpu", save_probabilities=16)
    for options in ({}, {"images": scans}):
        out = tmp_path / f"averaged{len(options)}"
        ensemble([tmp_path / "one"], out, formats=("nifti", "rtstruct"), **options)
        for case in "ab":
            mask = read_mask(out / f"{case}.nii.gz").array[0]
            assert mask.any()
            found = masks_in_structure_set(out / "rtstruct" / f"{case}.dcm", scans / f"{case}_0000")
            for inside, value in zip(found.values(), (3, 7)):
                np.testing.assert_array_equal(inside, mask == value)


def test_of_two_series_that_cannot_be_told_apart_none_is_referred_to(model, scans, tmp_path):
    """A copy of a series under the same name with the same times."""
    predict(model, scans, tmp_path / "one", device="cpu", save_probabilities=16)
    shutil.copytree(scans / "a", scans / "deeper" / "a", copy_function=shutil.copy2)
    assert images_of_masks(tmp_path / "one", every_series(scans)) == {"b": scans / "b"}
