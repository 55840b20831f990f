"""From a tree of DICOM to scores; and what DICOM says of a patient, found in nothing that is written or printed."""

from __future__ import annotations

import gzip
import logging
import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from builders.data import blocks_case
from builders.dicom_masks import Grid, contours_of, write_segmentation, write_series, write_structures
from segfw.cli import main
from segfw.dataset.labels import LabelSet
from segfw.images.formats import read_mask, read_volume
from segfw.planning.plan import Plan
from segfw.verbs.evaluate import evaluate
from segfw.verbs.predict import predict
from segfw.verbs.run import run
from segfw.verbs.select import select

SHORT = {"epochs": 1, "steps_per_epoch": 1, "batch_size": 2, "device": "cpu"}
TABLE = "structure,label\nSpinal Cord,cord\nLiver,liver\n"
# What hospitals write into these elements is read by nobody here.
PLANTED = {
    "PatientName": "Zqxname^Jane",
    "PatientID": "ZQXID7",
    "PatientBirthDate": "19310203",
    "PatientAddress": "Zqxstreet 5",
    "OtherPatientNames": "Zqxother",
    "PatientComments": "Zqxcomment",
    "InstitutionName": "Zqxclinic",
    "ReferringPhysicianName": "Zqxdoctor^A",
    "OperatorsName": "Zqxoperator",
    "StudyDescription": "Zqxstudy of Jane",
    "SeriesDescription": "Zqxseries of Jane",
    "ProtocolName": "Zqxprotocol",
    "ImageComments": "Zqximage",
    "AccessionNumber": "ZQXACC1",
    "StudyID": "ZQXSTUDY",
    "StationName": "Zqxstation",
    "DeviceSerialNumber": "Zqxserial",
}
# Long enough not to stand in a picture by chance.
TRACES = re.compile(
    rb"zqx(name|id|street|other|comm|clinic|doc|oper|st|ser|prot|image|acc|set)|19310203", re.IGNORECASE
)


def planted(number: int) -> dict[str, str]:
    return {"patient": f"ZQXID{number}", "name": PLANTED["PatientName"], **PLANTED, "PatientID": f"ZQXID{number}"}


def write_tree(raw: Path, cases: int = 4) -> Path:
    """Patients with a CT and a structure set, or every second time a segmentation."""
    for number in range(cases):
        image, mask = (array.T for array in blocks_case(number))
        grid = Grid(shape=image.shape, series=f"1.2.{number}", frame=f"1.2.{number}.9")
        folder = raw / f"p{number}"
        write_series(folder / "CT", image, grid, **planted(number))
        if number % 2:
            write_segmentation(
                folder / "s.dcm", {"Liver": mask == 7, "Spinal Cord": mask == 3}, grid, **planted(number)
            )
        else:
            rois = {"Spinal Cord": contours_of(mask == 3, grid), "Liver": contours_of(mask == 7, grid)}
            write_structures(folder / "RS" / "1", rois, grid, StructureSetLabel="Zqxset", **planted(number))
    (raw / "structures.csv").write_text(TABLE)
    return raw


def test_a_tree_of_patients_is_trained_on_predicted_selected_and_scored(tmp_path):
    raw = write_tree(tmp_path / "raw")
    work = tmp_path / "work"
    scores = run(raw, work, configurations=("2d",), folds=("0",), **SHORT)
    assert set(scores["2d"]["0"].labels) == {"cord", "liver"}
    plan = Plan.load(work / "plan.json")
    assert plan.labels.names == ("background", "cord", "liver")
    select(work, device="cpu")
    for number in range(4):
        predict(work, raw / f"p{number}" / "CT", tmp_path / f"masks{number}", device="cpu")
        mask = read_mask(tmp_path / f"masks{number}" / "CT.nii.gz")
        assert mask.geometry.shape == read_volume(raw / f"p{number}" / "CT").geometry.shape
    perfect = evaluate(raw, raw, surface=False)
    assert {score.dice for case in perfect.cases.values() for score in case.values()} == {1.0}
    assert len(perfect.cases) == 4


@pytest.mark.real_data
def test_the_planning_ct_with_its_structure_set_is_trained_on(real_data, tmp_path):
    """One patient is there: the same series under new UIDs and with a little noise makes up for others."""
    source = real_data / "dicom" / "mock_data"
    raw = tmp_path / "raw"
    for number in range(3):
        _write_patient(source, raw / f"p{number}", number)
    (raw / "structures.csv").write_text("structure,label\nROI-1,target\n")
    work = tmp_path / "work"
    scores = run(raw, work, configurations=("2d",), folds=("0",), spacing_mm=(5.0, 4.0, 4.0), **SHORT)
    assert set(scores["2d"]["0"].labels) == {"target"}
    formats = ("nifti", "seg.nrrd", "rtstruct")
    predict(work, raw / "p0", tmp_path / "masks", device="cpu", formats=formats)
    mask = read_mask(tmp_path / "masks" / "p0.nii.gz")
    assert mask.array.shape == (1, 2, 512, 512)
    structures = dcmread(tmp_path / "masks" / "rtstruct" / "p0.dcm")
    assert [item.ROIName for item in structures.StructureSetROISequence] == ["target"]
    assert structures.PatientID == "P0"
    again = read_mask(tmp_path / "masks" / "rtstruct" / "p0.dcm", read_volume(raw / "p0" / "ct_1.dcm"))
    np.testing.assert_array_equal(again.array, mask.array)
    expert = read_mask(source / "rt.dcm")
    assert expert.array.sum() == 1443
    assert LabelSet.load(tmp_path / "masks" / "labels.json").names == ("background", "target")


def _write_patient(source: Path, folder: Path, number: int) -> None:
    folder.mkdir(parents=True)
    for name in ("ct_1.dcm", "ct_2.dcm", "rt.dcm"):
        data = dcmread(source / name)
        data.walk(lambda inside, element: _renew(element, number))
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
        if name.startswith("ct"):
            pixels = data.pixel_array + np.random.default_rng(number).integers(0, 3, data.pixel_array.shape)
            data.PixelData = pixels.astype(data.pixel_array.dtype).tobytes()
            data.PatientID = f"P{number}"
        data.save_as(folder / name)


def _renew(element: object, number: int) -> None:
    """The UIDs of the series, its frame of reference and its slices, and whatever refers to them."""
    if element.keyword in (
        "SOPInstanceUID",
        "SeriesInstanceUID",
        "FrameOfReferenceUID",
        "ReferencedSOPInstanceUID",
        "ReferencedFrameOfReferenceUID",
    ):
        element.value = f"{element.value}.{number + 1}"[-64:].lstrip(".")


# ---- privacy ----


def contents_of(folder: Path) -> dict[str, bytes]:
    """All files below a folder by name, unpacked where they are compressed; without DICOM."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            found[str(path.relative_to(folder))] = gzip.decompress(content) if path.suffix == ".gz" else content
    return found


def test_nothing_of_a_patient_is_printed_or_written(tmp_path, capfd, caplog, monkeypatch):
    raw = write_tree(tmp_path / "raw")
    table = tmp_path / "private" / "names.csv"
    table.parent.mkdir()
    out = tmp_path / "out"
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.DEBUG)

    def call(*typed: object) -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            code = main([str(each) for each in typed])
        print(f"{code} of {typed[0]}")
        return code

    named = ("--pseudonyms", table)
    short = ("--epochs", 1, "--steps-per-epoch", 1, "--batch-size", 2, "--device", "cpu")
    assert call("check", raw, "--output", out / "check", *named) == 0
    assert call("run", raw, out / "work", "--configurations", "2d", "--folds", 0, *short, *named) == 0
    assert call("predict", out / "work", raw, out / "masks", "--device", "cpu", *named) == 0
    assert sorted(path.name for path in (out / "masks").glob("*.nii.gz")) == [
        f"patient_000{number}.nii.gz" for number in range(1, 5)
    ]
    assert call("status", out / "work") == 0
    assert call("info", out / "work") == 0
    assert call("export", out / "work", out / "model.zip") == 0
    assert call("evaluate", raw, raw, "--output", out / "scores.json", "--report", out / "report.html") == 0
    assert call("measure", raw / "p1", "--output", out / "measures.csv") == 0

    # Failures of every kind, each of whose sentences may not hold more
    assert TRACES.search(table.read_bytes()) is not None  # the one file that leads back
    spoilt = spoilt_trees(tmp_path / "spoilt", raw)
    assert call("check", spoilt["cut_slice"], "--output", out / "check_cut_slice", *named) != 0
    for name, folder in spoilt.items():
        assert call("plan-and-preprocess", folder, out / f"work_{name}", "--plan-only", *named) != 0, name
        call("predict", out / "work", folder / "p0", out / f"masks_{name}", "--device", "cpu")
    call("evaluate", spoilt["broken_contours"], raw, "--no-surface")

    said = capfd.readouterr()
    printed = said.out + said.err + caplog.text
    for name in spoilt:
        assert str(spoilt[name]) in printed or name in printed
    assert TRACES.search(printed.encode()) is None, printed[TRACES.search(printed.encode()).start() - 200 :][:400]
    for name, content in contents_of(out).items():
        assert TRACES.search(content) is None, name
        assert TRACES.search(name.encode()) is None
    assert len(contents_of(out)) > 40


def spoilt_trees(folder: Path, raw: Path) -> dict[str, Path]:
    """Copies of a tree, each with one thing wrong."""
    found = {}

    def spoilt(name: str) -> Path:
        shutil.copytree(raw, folder / name)
        found[name] = folder / name
        return folder / name

    (spoilt("no_table") / "structures.csv").unlink()
    (spoilt("missing_slice") / "p0" / "CT" / "s005.dcm").unlink()
    (spoilt("missing_end") / "p0" / "CT" / "s001.dcm").unlink()
    cut = spoilt("cut_slice") / "p0" / "CT" / "s005.dcm"
    cut.write_bytes(cut.read_bytes()[:-100])
    cut = spoilt("cut_structures") / "p0" / "RS" / "1"
    cut.write_bytes(cut.read_bytes()[:-100])
    shutil.rmtree(spoilt("no_series") / "p0" / "CT")
    for place in (spoilt("no_patient") / "p0" / "CT").iterdir():
        data = dcmread(place)
        del data.PatientID
        data.save_as(place)
    both = spoilt("same_place") / "p0" / "CT"
    data = dcmread(both / "s005.dcm")
    data.SOPInstanceUID = "1.2.0.55"
    data.save_as(both / "again.dcm")
    broken = spoilt("broken_numbers") / "p0" / "CT" / "s005.dcm"
    content = broken.read_bytes()
    broken.write_bytes(content.replace(b"Zqxname^Jane", b"Zqxname^J\xff\xfe\\").replace(b"19310203", b"19310203"))
    data = dcmread(spoilt("broken_contours") / "p0" / "RS" / "1")
    data.ROIContourSequence[0].ContourSequence[0].NumberOfContourPoints = 77
    data.save_as(found["broken_contours"] / "p0" / "RS" / "1")
    (found["broken_numbers"] / "p0" / "CT" / "s006.dcm").unlink()
    return found
