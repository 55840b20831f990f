"""Masks of DICOM series in every format: read by other libraries they have the same voxels in the same place."""

import json
import pickle
import shutil
import warnings
from datetime import datetime
from itertools import permutations, product

import nibabel
import numpy as np
import pydicom
import pytest
from scipy.ndimage import gaussian_filter

from builders.iod import faults
from builders.refiner import TUMOUR
from builders.series import OBLIQUE, PATIENT, write_series
from builders.written import DIGEST, LABELS, finished, masks_in_segmentation, masks_in_structure_set
from segfw.base.records import UserError
from segfw.dataset.finished_mask import MaskMaker, MaskStatement, ReviewedVersion, Signature
from segfw.dataset.labels import Code, LabelSet
from segfw.images import formats
from segfw.images.formats import read_mask, read_volume
from segfw.images.geometry import Geometry, corner_distance_mm
from segfw.interop import write_dicom_seg as dicom_seg
from segfw.interop import write_rtstruct as rtstruct
from segfw.interop import write_seg_nrrd as seg_nrrd
from segfw.interop.dicom_codes import taken_as_they_are
from segfw.interop.mask_formats import FORMATS, FormatWishes, mask_formats, require_distinct_masks
from segfw.interop.reference_series import read_reference
from segfw.interop.write_dicom_seg import written_segmentation
from segfw.interop.write_rtstruct import write_rtstruct
from segfw.interop.write_seg_nrrd import write_seg_nrrd

highdicom = pytest.importorskip("highdicom", reason="highdicom is not installed: pip install 'segfw[dicom]'")

SHAPE = (5, 20, 30)
# Series that differ in where their slices lie and in what order their files are.
SERIES = {
    "axial": {},
    "shuffled": {"shuffled": 3},
    "oblique": {"axes": OBLIQUE, "shuffled": 1},
    "gantry tilt": {"step_mm": [0, 0.8, 3.0]},
    "towards the feet": {"step_mm": [0, 0, -3.0], "shuffled": 2},
    "thick": {"spacing_mm": (10.0, 0.4, 1.7)},
    "far from the origin": {"axes": OBLIQUE, "origin_mm": (-2121.123456, 1888.7, -3333.123)},
}
SHAPES = {"five slices": SHAPE, "two slices": (2, 20, 30), "one slice": (1, 20, 30)}


def mask_on(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """Noise with holes, a voxel alone, and a ring; 'never there' has no voxel."""
    values = np.random.default_rng(seed).choice([0, 0, 1, 2], shape)
    values[:, 3:12, 4:17] = 7
    values[:, 5:9, 6:9] = 0
    values[0, 6, 7] = 1
    return values


def expected(values: np.ndarray, labels: LabelSet = LABELS) -> dict[str, np.ndarray]:
    return {name: values == value for name, value in zip(labels.names[1:], labels.values[1:])}


def same(found: dict, wanted: dict) -> bool:
    return found.keys() == wanted.keys() and all((found[name] == wanted[name]).all() for name in wanted)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", SERIES)
def test_segmentations_and_structure_sets_hold_the_mask(kind, shape, tmp_path):
    values = mask_on(SHAPES[shape])
    folder = write_series(tmp_path / "series", values * 100, **SERIES[kind])
    volume = read_volume(folder)
    # The reader puts slices along their normal, whatever order they were written in.
    in_order = volume.array[0] // 100
    mask = finished(in_order, volume.geometry, folder)
    for name, wishes in (("keyhole", {}), ("xor", {"holes": "xor"})):
        write_rtstruct(tmp_path / f"{name}.dcm", mask, **wishes)
        assert same(masks_in_structure_set(tmp_path / f"{name}.dcm", folder), expected(in_order))
    positions = read_reference(folder).positions_mm
    for is_labelmap in (False, True):
        with written_segmentation(tmp_path / "seg.dcm", mask, is_labelmap=is_labelmap):
            pass
        assert same(masks_in_segmentation(tmp_path / "seg.dcm", positions), expected(in_order))
        assert faults(pydicom.dcmread(tmp_path / "seg.dcm")) == []
    assert faults(pydicom.dcmread(tmp_path / "xor.dcm")) == []
    assert faults(pydicom.dcmread(tmp_path / "keyhole.dcm")) == []


def test_area_and_centre_of_outlines_are_those_of_the_voxels(tmp_path):
    values = mask_on(SHAPE)
    folder = write_series(tmp_path / "series", values, axes=OBLIQUE)
    volume = read_volume(folder)
    write_rtstruct(tmp_path / "rt.dcm", finished(values, volume.geometry, folder))
    names = {item.ROINumber: item.ROIName for item in pydicom.dcmread(tmp_path / "rt.dcm").StructureSetROISequence}
    normal = np.cross(*OBLIQUE)
    for item in pydicom.dcmread(tmp_path / "rt.dcm").ROIContourSequence:
        inside = expected(values)[names[item.ReferencedROINumber]]
        area = 0.0
        moment = np.zeros(3)
        for contour in item.get("ContourSequence", ()):
            points = np.array(contour.ContourData, float).reshape(-1, 3)
            for first, second in zip(points, np.roll(points, -1, axis=0)):
                triangle = normal @ np.cross(first - points[0], second - points[0]) / 2
                area += triangle
                moment += triangle * (points[0] + first + second) / 3
        assert abs(area) == pytest.approx(inside.sum() * 0.75 * 0.5, rel=1e-5)
        if inside.any():
            voxels = np.argwhere(inside).mean(0)
            centre_ras = volume.geometry.matrix[:3] @ [*voxels, 1]
            np.testing.assert_allclose(moment / area * [-1, -1, 1], centre_ras, atol=1e-3)


def stored_otherwise(values: np.ndarray, geometry: Geometry, axes: tuple[int, ...], flips: tuple[bool, ...]):
    """The same mask with its axes in another order, some of them the other way round."""
    array = np.transpose(values, axes)
    matrix = geometry.matrix[:, [*axes, 3]]
    for axis, is_flipped in enumerate(flips):
        if is_flipped:
            array = np.flip(array, axis)
            matrix = matrix.copy()
            matrix[:, 3] += matrix[:, axis] * (array.shape[axis] - 1)
            matrix[:, axis] *= -1
    return array, Geometry.of(array.shape, matrix)


def test_a_mask_may_be_stored_in_any_of_48_orders(tmp_path):
    values = mask_on((3, 20, 30))
    folder = write_series(tmp_path / "series", values, axes=OBLIQUE)
    geometry = read_volume(folder).geometry
    positions = read_reference(folder).positions_mm
    orders = list(product(permutations(range(3)), product((False, True), repeat=3)))
    assert len(orders) == 48
    for axes, flips in orders:
        array, stored = stored_otherwise(values, geometry, axes, flips)
        mask = finished(array, stored, folder)
        write_rtstruct(tmp_path / "rt.dcm", mask)
        assert same(masks_in_structure_set(tmp_path / "rt.dcm", folder), expected(values))
        with written_segmentation(tmp_path / "seg.dcm", mask):
            pass
        assert same(masks_in_segmentation(tmp_path / "seg.dcm", positions), expected(values))


def test_regions_may_overlap_but_in_a_label_map(tmp_path):
    values = np.random.default_rng(0).integers(0, 4, SHAPE)
    folder = write_series(tmp_path / "series", values)
    mask = finished(values, read_volume(folder).geometry, folder, labels=TUMOUR)
    wanted = {"whole": values > 0, "inner": values > 1, "bright": values == 3}
    write_rtstruct(tmp_path / "rt.dcm", mask)
    assert same(masks_in_structure_set(tmp_path / "rt.dcm", folder), wanted)
    with written_segmentation(tmp_path / "seg.dcm", mask):
        pass
    assert same(masks_in_segmentation(tmp_path / "seg.dcm", read_reference(folder).positions_mm), wanted)
    write_seg_nrrd(tmp_path / "case.seg.nrrd", mask)
    SimpleITK = pytest.importorskip("SimpleITK")
    image = SimpleITK.ReadImage(str(tmp_path / "case.seg.nrrd"))
    layers = np.moveaxis(SimpleITK.GetArrayFromImage(image), -1, 0)
    for index, (name, value) in enumerate((("whole", 1), ("inner", 2), ("bright", 3))):
        assert image.GetMetaData(f"Segment{index}_Name") == name
        layer = int(image.GetMetaData(f"Segment{index}_Layer"))
        np.testing.assert_array_equal(layers[layer] == value, wanted[name])
    with (
        pytest.raises(
            UserError, match=r"map.dcm: a label map holds no structures that overlap \(inner\); write BINARY"
        ),
        written_segmentation(tmp_path / "map.dcm", mask, is_labelmap=True),
    ):
        pass
    assert not (tmp_path / "map.dcm").exists()


def test_117_structures_and_none_of_them(tmp_path):
    labels = LabelSet(
        names=("background", *(f"structure {number}" for number in range(1, 118))), values=tuple(range(118))
    )
    values = np.random.default_rng(0).integers(0, 118, SHAPE)
    folder = write_series(tmp_path / "series", values)
    geometry = read_volume(folder).geometry
    positions = read_reference(folder).positions_mm
    for array in (values, np.zeros(SHAPE, int)):
        mask = finished(array, geometry, folder, labels=labels)
        write_rtstruct(tmp_path / "rt.dcm", mask)
        assert same(masks_in_structure_set(tmp_path / "rt.dcm", folder), expected(array, labels))
        for is_labelmap in (False, True):
            with written_segmentation(tmp_path / "seg.dcm", mask, is_labelmap=is_labelmap):
                pass
            assert same(masks_in_segmentation(tmp_path / "seg.dcm", positions), expected(array, labels))


def test_seg_nrrd_has_names_colours_codes_and_state(tmp_path):
    values = mask_on(SHAPE)
    folder = write_series(tmp_path / "series", values, axes=OBLIQUE)
    volume = read_volume(folder)
    write_seg_nrrd(tmp_path / "case.seg.nrrd", finished(values, volume.geometry, folder))
    SimpleITK = pytest.importorskip("SimpleITK")
    image = SimpleITK.ReadImage(str(tmp_path / "case.seg.nrrd"))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image), values)
    read = read_mask(tmp_path / "case.seg.nrrd")
    assert corner_distance_mm(SHAPE, read.geometry.matrix, volume.geometry.matrix) < 1e-6
    assert [image.GetMetaData(f"Segment{index}_Name") for index in range(4)] == list(LABELS.names[1:])
    assert [image.GetMetaData(f"Segment{index}_LabelValue") for index in range(4)] == ["1", "2", "7", "9"]
    tags = image.GetMetaData("Segment0_Tags")
    assert "SCT^123037004^Anatomical Structure~SCT^64033007^Kidney~SCT^7771000^Left" in tags
    assert "Segmentation.Status:notstarted|" in tags
    assert "DICOM.SegmentAlgorithmType:AUTOMATIC|" in tags
    assert "DRAFT, not reviewed" in tags
    assert image.GetMetaData("Status") == "DRAFT, not reviewed"
    assert "SCT^85756007^Tissue~SCT^85756007^Tissue~^^" in image.GetMetaData("Segment1_Tags")


def test_everything_says_draft_automatic_and_which_model(tmp_path):
    values = mask_on(SHAPE)
    folder = write_series(tmp_path / "series", values)
    mask = finished(values, read_volume(folder).geometry, folder)
    names = ["nifti", "seg.nrrd", "dicom-seg", "rtstruct", "bids"]
    for each in mask_formats(names, FormatWishes(report=True)):
        each.require("case", folder)
        each.write(tmp_path / "out", mask)
        each.write_about(tmp_path / "out", LABELS, mask.maker)
    out = tmp_path / "out"
    segmentation = pydicom.dcmread(out / "dicom-seg" / "case.dcm")
    assert segmentation.SeriesDescription.startswith("DRAFT")
    assert segmentation.ContentDescription == "DRAFT, not reviewed"
    assert segmentation.ContentLabel == "DRAFT"
    left, unknown, right, empty = segmentation.SegmentSequence
    assert left.SegmentAlgorithmType == "AUTOMATIC"
    algorithm = left.SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("segfw 3d_fullres", DIGEST)
    assert "no code is known" in unknown.SegmentDescription
    assert empty.SegmentLabel == "never there"
    for item, code, meaning in ((left, "7771000", "Left"), (right, "24028007", "Right")):
        kind = item.SegmentedPropertyTypeCodeSequence[0]
        assert (kind.CodeValue, kind.CodeMeaning) == ("64033007", "Kidney")
        side = kind.SegmentedPropertyTypeModifierCodeSequence[0]
        assert (side.CodeValue, side.CodeMeaning, side.CodingSchemeDesignator) == (code, meaning, "SCT")
    generic = unknown.SegmentedPropertyTypeCodeSequence[0]
    assert (generic.CodeValue, generic.CodeMeaning) == ("85756007", "Tissue")
    assert "SegmentedPropertyTypeModifierCodeSequence" not in generic

    structures = pydicom.dcmread(out / "rtstruct" / "case.dcm")
    assert structures.ApprovalStatus == "UNAPPROVED"
    assert structures.StructureSetLabel == "DRAFT"
    assert structures.SeriesDescription.startswith("DRAFT")
    assert {item.ROIGenerationAlgorithm for item in structures.StructureSetROISequence} == {"AUTOMATIC"}
    of_roi = structures.StructureSetROISequence[0].ROIDerivationAlgorithmIdentificationSequence[0]
    assert of_roi.AlgorithmVersion == DIGEST
    code = structures.RTROIObservationsSequence[2].RTROIIdentificationCodeSequence[0]
    assert (code.CodeValue, code.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning) == ("64033007", "Right")
    for dataset in (segmentation, structures):
        assert str(dataset.PatientName) == PATIENT
        assert dataset.PatientID == "P-0815"
        assert dataset.FrameOfReferenceUID == read_reference(folder).first.FrameOfReferenceUID

    about = json.loads((out / "bids" / "sub-case" / "anat" / "sub-case_desc-draft_dseg.json").read_text())
    assert about["Description"] == f"DRAFT, not reviewed; segfw 3d_fullres, model {DIGEST[:8]}"
    assert about["Manual"] is False
    described = json.loads((out / "bids" / "dataset_description.json").read_text())
    assert (described["DatasetType"], described["GeneratedBy"][0]["Name"]) == ("derivative", "segfw")
    table = (out / "bids" / "sub-case" / "anat" / "sub-case_desc-draft_dseg.tsv").read_text().splitlines()
    assert table[0] == "index\tname\tcolor\tcode"
    assert table[3].startswith("7\tkidney_right\t#")
    assert table[3].endswith("\tSCT:64033007")
    assert b"DRAFT, not reviewed" in pydicom.dcmread(out / "sr" / "case.dcm").CompletionFlagDescription.encode()

    assert (
        nibabel.load(out / "case.nii.gz").header["descrip"].item().startswith(b"DRAFT, not reviewed; segfw 3d_fullres")
    )


def test_the_report_has_the_volume_of_each_structure(tmp_path):
    values = mask_on(SHAPE)
    folder = write_series(tmp_path / "series", values, step_mm=[0, 0.8, 3.0])
    mask = finished(values, read_volume(folder).geometry, folder)
    (each,) = mask_formats(["dicom-seg"], FormatWishes(report=True))
    each.write(tmp_path / "out", mask)
    segmentation = pydicom.dcmread(tmp_path / "out" / "dicom-seg" / "case.dcm")
    report = highdicom.sr.srread(tmp_path / "out" / "sr" / "case.dcm")
    assert (report.CompletionFlag, report.VerificationFlag) == ("PARTIAL", "UNVERIFIED")
    groups = report.content.get_volumetric_roi_measurement_groups()
    assert [group.tracking_identifier for group in groups] == ["kidney_left", "my thing", "kidney_right"]
    for group, value in zip(groups, (1, 2, 7)):
        volume = group.get_measurements()[0]
        # 3 mm along the normal, whatever the tilt
        assert volume.value == pytest.approx((values == value).sum() * 3.0 * 0.75 * 0.5 / 1000, rel=1e-6)
        assert (volume.name.meaning, volume.unit.value) == ("Volume", "ml")
        number = group.reference_segment.ReferencedSegmentNumber if hasattr(group, "reference_segment") else None
        uids = {str(item.TrackingUID): int(item.SegmentNumber) for item in segmentation.SegmentSequence}
        assert uids[group.tracking_uid] == {1: 1, 2: 2, 7: 3}[value]
        assert number in (None, uids[group.tracking_uid])


def test_a_tumour_is_found_and_no_place_in_the_body(tmp_path):
    values = (mask_on(SHAPE) > 0) * 1 + (mask_on(SHAPE) == 7) * 1
    folder = write_series(tmp_path / "series", values)
    labels = LabelSet(names=("background", "kidney_left", "tumor"), values=(0, 1, 2))
    mask = finished(values, read_volume(folder).geometry, folder, labels=labels)
    (each,) = mask_formats(["dicom-seg"], FormatWishes(report=True))
    each.write(tmp_path / "out", mask)
    report = highdicom.sr.srread(tmp_path / "out" / "sr" / "case.dcm")
    groups = report.content.get_volumetric_roi_measurement_groups()
    sites = {group.tracking_identifier: [site.value.meaning for site in group.finding_sites] for group in groups}
    assert sites == {"kidney_left": ["Kidney"], "tumor": []}
    assert groups[1].finding_category.value == "49755003"


def test_letters_of_a_name_stay_whatever_they_were_written_in(tmp_path):
    values = mask_on((2, 20, 30))
    changes = {"SpecificCharacterSet": "GB18030", "PatientName": "王^小东", "ReferringPhysicianName": "李^大夫"}
    folder = write_series(tmp_path / "series", values, changes=changes)
    labels = LabelSet(names=("background", "左肾"), values=(0, 7))
    array = np.where(values == 7, 7, 0)
    mask = finished(array, read_volume(folder).geometry, folder, labels=labels)
    write_rtstruct(tmp_path / "rt.dcm", mask)
    with written_segmentation(tmp_path / "seg.dcm", mask):
        pass
    for file in ("rt.dcm", "seg.dcm"):
        dataset = pydicom.dcmread(tmp_path / file)
        assert dataset.SpecificCharacterSet == "ISO_IR 192"
        assert str(dataset.PatientName) == "王^小东"
    structures = pydicom.dcmread(tmp_path / "rt.dcm")
    assert structures.StructureSetROISequence[0].ROIName == "左肾"
    code = structures.RTROIObservationsSequence[0].RTROIIdentificationCodeSequence[0]
    assert code.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"


def test_values_that_break_rules_of_the_standard_are_copied_as_they_are(tmp_path):
    values = mask_on((2, 20, 30))
    folder = write_series(tmp_path / "series", values)
    with pydicom.config.disable_value_validation():
        for file in folder.iterdir():
            header = pydicom.dcmread(file)
            header.AccessionNumber = "longer than the sixteen letters it may have"
            header.PatientID = "P 0815 " * 12
            header.save_as(file)
    mask = finished(values, read_volume(folder).geometry, folder)
    write_rtstruct(tmp_path / "rt.dcm", mask)
    with written_segmentation(tmp_path / "seg.dcm", mask):
        pass
    for file in ("rt.dcm", "seg.dcm"):
        assert pydicom.dcmread(tmp_path / file).PatientID == ("P 0815 " * 12).strip()


def test_a_thread_that_ends_leaves_others_what_they_need(tmp_path):
    """Two devices of one call write at the same time; the first to begin ends while the second is at it."""
    before = pydicom.config.settings.writing_validation_mode
    header = pydicom.Dataset()
    first = taken_as_they_are(tmp_path)
    first.__enter__()
    with taken_as_they_are(tmp_path):
        first.__exit__(None, None, None)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            header.StudyDate = "no date at all"
    assert pydicom.config.settings.writing_validation_mode == before


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"PatientID": ""}, "has no PatientID, so that no system would find what belongs together"),
        ({"PatientID": None}, "has no PatientID, so that no system would find what belongs together"),
        ({"FrameOfReferenceUID": None}, "has no FrameOfReferenceUID, so that no system"),
        ({"PixelSpacing": None}, "says no PixelSpacing, so that nothing can be placed in it"),
    ],
)
def test_a_series_that_cannot_be_referred_to_is_refused(changes, said, tmp_path):
    folder = write_series(tmp_path / "series", mask_on((2, 20, 30)), changes=changes)
    for name in ("rtstruct", "dicom-seg"):
        (each,) = mask_formats([name], FormatWishes())
        with pytest.raises(UserError, match=rf"^{folder}: 0000.dcm {said}"):
            each.require("case", folder)


def test_a_mask_of_another_grid_or_series_is_refused(tmp_path):
    values = mask_on(SHAPE)
    folder = write_series(tmp_path / "series", values)
    geometry = read_volume(folder).geometry
    moved = geometry.matrix + 0.5 * np.eye(4, k=3)
    fewer = Geometry.of(values[1:].shape, geometry.matrix)
    for mask in (finished(values, Geometry.of(SHAPE, moved), folder), finished(values[1:], fewer, folder)):
        with pytest.raises(UserError, match="holds no series on the grid of the mask"):
            write_rtstruct(tmp_path / "rt.dcm", mask)
    sparse = shutil.copytree(folder, tmp_path / "sparse")
    (sparse / "0002.dcm").unlink()
    with pytest.raises(UserError, match=r"two slices are 6.00 mm apart, others 3.00 mm \(slices missing\?\); complete"):
        write_rtstruct(tmp_path / "rt.dcm", finished(values, geometry, sparse))
    assert not (tmp_path / "rt.dcm").exists()


def test_of_two_series_in_a_folder_the_one_on_the_grid_is_referred_to(tmp_path):
    values = mask_on(SHAPE)
    folder = write_series(tmp_path / "series", values)
    geometry = read_volume(folder).geometry
    other = write_series(tmp_path / "other", values, spacing_mm=(3.0, 1.5, 1.5), number=2)
    for file in other.iterdir():
        shutil.copy(file, folder / f"other_{file.name}")
    write_rtstruct(tmp_path / "rt.dcm", finished(values, geometry, folder))
    found = pydicom.dcmread(tmp_path / "rt.dcm").ReferencedFrameOfReferenceSequence[0]
    of_series = found.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    assert of_series.SeriesInstanceUID.endswith(".1.2")


def test_a_dose_and_a_segmentation_beside_the_slices_are_no_images_of_the_series(tmp_path):
    """As planning systems export them: all into one folder."""
    values = mask_on(SHAPE)
    folder = write_series(tmp_path / "series", values)
    geometry = read_volume(folder).geometry
    with written_segmentation(folder / "seg.dcm", finished(values, geometry, folder)):
        pass
    for number, frames in enumerate((1, 4), start=2):
        dose = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.481.2", "NumberOfFrames": frames}
        made = write_series(tmp_path / f"dose{frames}", values[:1], number=number, changes=dose)
        shutil.copy(made / "0000.dcm", folder / f"dose{frames}.dcm")
    for each in mask_formats(["rtstruct", "dicom-seg"], FormatWishes()):
        each.require("case", folder)
    write_rtstruct(tmp_path / "rt.dcm", finished(values, geometry, folder))
    found = pydicom.dcmread(tmp_path / "rt.dcm").ReferencedFrameOfReferenceSequence[0]
    of_series = found.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    assert len(of_series.ContourImageSequence) == len(values)


def test_specks_in_every_second_slice_are_read_back(tmp_path):
    """Drawn by a person they would be refused, as not interpolated yet."""
    values = np.zeros(SHAPE, int)
    values[::2, 4:7, 5:9] = 1
    folder = write_series(tmp_path / "series", values)
    image = read_volume(folder)
    write_rtstruct(tmp_path / "rt.dcm", finished(values, image.geometry, folder))
    np.testing.assert_array_equal(read_mask(tmp_path / "rt.dcm", image).array[0], values)


def test_outlines_that_are_not_the_mask_are_not_left_there(tmp_path, monkeypatch):
    """Written through the centres of the outermost voxels, as some libraries do."""
    values = mask_on(SHAPE)
    folder = write_series(tmp_path / "series", values)
    mask = finished(values, read_volume(folder).geometry, folder)
    exact = rtstruct.outlines

    def moved(*arguments, **keywords):
        found = exact(*arguments, **keywords)
        found.corners_yx[:] += 0.6
        return found

    monkeypatch.setattr(rtstruct, "outlines", moved)
    with pytest.raises(UserError, match=r"rt.dcm: kidney_left would not be what the mask holds \(\d+ wrong voxels\)"):
        write_rtstruct(tmp_path / "rt.dcm", mask)
    assert list(tmp_path.glob("*rt.dcm")) == []

    # So little that no voxel changes, but the centre does
    def nudged(*arguments, **keywords):
        found = exact(*arguments, **keywords)
        found.corners_yx[:] += 0.1
        return found

    monkeypatch.setattr(rtstruct, "outlines", nudged)
    with pytest.raises(UserError, match=r"\(its centre is 0.0901 mm off\)"):
        write_rtstruct(tmp_path / "rt.dcm", mask)


def test_a_segmentation_that_is_not_the_mask_is_not_left_there(tmp_path, monkeypatch):
    """Bits of a byte the other way round; two frames in each other's places, which no number of voxels tells."""
    values = mask_on(SHAPE)
    values[3:] = values[1:3, ::-1, ::-1]
    folder = write_series(tmp_path / "series", values)
    (each,) = mask_formats(["dicom-seg"], FormatWishes(report=True))
    mask = finished(values, read_volume(folder).geometry, folder)
    exact = dicom_seg._segmentation

    def with_bits_turned(*arguments, **keywords):
        dataset = exact(*arguments, **keywords)
        bits = np.unpackbits(np.frombuffer(dataset.PixelData, np.uint8), bitorder="little")
        dataset.PixelData = np.packbits(bits, bitorder="big").tobytes()
        return dataset

    def with_frames_swapped(*arguments, **keywords):
        dataset = exact(*arguments, **keywords)
        of_first = [
            group
            for group in dataset.PerFrameFunctionalGroupsSequence
            if group.SegmentIdentificationSequence[0].ReferencedSegmentNumber == 1
        ]
        first, last = of_first[1].PlanePositionSequence, of_first[3].PlanePositionSequence
        of_first[1].PlanePositionSequence, of_first[3].PlanePositionSequence = last, first
        return dataset

    for damage in (with_bits_turned, with_frames_swapped):
        monkeypatch.setattr(dicom_seg, "_segmentation", damage)
        said = r"case.dcm: kidney_left would not be what the mask holds \(\d+ wrong voxels\), so that the file was not"
        with pytest.raises(UserError, match=said):
            each.write(tmp_path / "out", mask)
        assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []
    monkeypatch.setattr(dicom_seg, "_segmentation", exact)
    each.write(tmp_path / "out", mask)
    assert len([path for path in (tmp_path / "out").rglob("*") if path.is_file()]) == 2


def test_a_seg_nrrd_that_is_not_the_mask_is_not_left_there(tmp_path, monkeypatch):
    """Places to the right and front in a file that counts to the left and back; voxels with y and x exchanged."""
    values = mask_on((5, 20, 20))
    folder = write_series(tmp_path / "series", values)
    (each,) = mask_formats(["seg.nrrd"], FormatWishes())
    mask = finished(values, read_volume(folder).geometry, folder)
    exact = seg_nrrd._compressed
    with monkeypatch.context() as patch:
        patch.setattr(seg_nrrd, "LPS_TO_RAS", np.eye(4))
        with pytest.raises(UserError, match=r"case.seg.nrrd: would hold another place than the mask, and was not writ"):
            each.write(tmp_path / "out", mask)
    with monkeypatch.context() as patch:
        patch.setattr(seg_nrrd, "_compressed", lambda voxels_lzyx: exact(np.swapaxes(voxels_lzyx, 2, 3)))
        with pytest.raises(UserError, match=r"case.seg.nrrd: would hold other voxels than the mask, and was not"):
            each.write(tmp_path / "out", mask)
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []
    each.write(tmp_path / "out", mask)
    assert (tmp_path / "out" / each.files("case")[-1]).is_file()


def test_a_bids_mask_that_is_not_the_mask_is_not_left_there(tmp_path, monkeypatch):
    """Values cut to a byte, and a place that is a tenth of a voxel off; its table and description go with it."""
    labels = LabelSet(names=("background", "blob"), values=(0, 300))
    values = np.where(mask_on(SHAPE) == 7, 300, 0)
    folder = write_series(tmp_path / "series", values)
    (each,) = mask_formats(["bids"], FormatWishes())
    mask = finished(values, read_volume(folder).geometry, folder, labels=labels)
    nifti = formats.FORMATS[".nii.gz"]

    def moved(path, array, matrix, **said):
        nifti.write(path, array, matrix + 0.05 * np.eye(4, k=3), **said)

    with monkeypatch.context() as patch:
        patch.setattr(formats, "_smallest_type", lambda array: np.uint8)
        with pytest.raises(UserError, match=r"_dseg.nii.gz: would hold other voxels than the mask, and was not"):
            each.write(tmp_path / "out", mask)
    with monkeypatch.context() as patch:
        patch.setitem(formats.FORMATS, ".nii.gz", nifti._replace(write=moved))
        with pytest.raises(UserError, match=r"_dseg.nii.gz: would hold a corner 0.05 mm off than the mask"):
            each.write(tmp_path / "out", mask)
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []
    each.write(tmp_path / "out", mask)
    assert len([path for path in (tmp_path / "out").rglob("*") if path.is_file()]) == 3


def test_formats_that_do_not_go_together_are_refused():
    for names, wishes, said in (
        (
            ["dicomseg"],
            {},
            r"^--as 'dicomseg' is unknown; choose from nifti, seg.nrrd, dicom-seg, rtstruct, bids, .nii.gz",
        ),
        ([".jpg"], {}, "^--as '.jpg' is lossy and would blur labels"),
        (["nifti", ".nrrd"], {}, "^--as nifti .nrrd: masks of one folder have one file format of images; choose one"),
        (["rtstruct"], {"report": True}, "^--sr is of dicom-seg, which --as does not name"),
        (["nifti"], {"holes": "xor"}, "^--holes xor is of rtstruct, which --as does not name"),
        (["nifti"], {"is_labelmap": True}, "^--seg-type labelmap is of dicom-seg, which --as does not name"),
        ([], {}, "^--as names no format"),
    ):
        with pytest.raises(UserError, match=said):
            mask_formats(names, FormatWishes(**wishes))


def test_multi_frame_dicom_is_not_referred_to(tmp_path):
    folder = write_series(tmp_path / "series", mask_on((1, 20, 30)), changes={"NumberOfFrames": 3})
    (each,) = mask_formats(["rtstruct"], FormatWishes())
    with pytest.raises(
        UserError, match="0000.dcm: is multi-frame DICOM, which is read, but to which no SEG or RTSTRUCT"
    ):
        each.require("case", folder)


def test_formats_can_be_sent_to_another_machine():
    formats = mask_formats(list(FORMATS), FormatWishes(report=True, holes="xor", is_labelmap=True))
    assert pickle.loads(pickle.dumps(formats)) == formats


def test_two_cases_of_one_subject_are_refused():
    formats = mask_formats(["bids"], FormatWishes())
    require_distinct_masks(formats, ["sub-01_ses-1_T1w", "sub-01_ses-2_T1w"])
    with pytest.raises(UserError, match=r"^a_1 and a1 would both be bids/sub-a1/anat/"):
        require_distinct_masks(formats, ["a_1", "a1"])


def test_a_code_of_the_data_sets_own_goes_before_the_table(tmp_path):
    labels = LabelSet(
        names=("background", "blob"),
        values=(0, 7),
        codes={"blob": Code(scheme="99LAB", code="B1", meaning="Blob", side="right")},
    )
    values = np.where(mask_on(SHAPE) == 7, 7, 0)
    folder = write_series(tmp_path / "series", values)
    mask = finished(values, read_volume(folder).geometry, folder, labels=labels, maker=MaskMaker())
    with written_segmentation(tmp_path / "seg.dcm", mask):
        pass
    (item,) = pydicom.dcmread(tmp_path / "seg.dcm").SegmentSequence
    kind = item.SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodingSchemeDesignator, kind.CodeValue) == ("99LAB", "B1")
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Right"
    assert item.SegmentedPropertyCategoryCodeSequence[0].CodeMeaning == "Tissue"  # of what kind it is nobody said


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["4.0*", "7.0*", "9.0*", "mock_data"])
def test_real_series_hold_masks(name, real_data, tmp_path):
    """Oblique MRI of a prostate: T2, ADC, PD; and slices of a planning CT."""
    (folder,) = (real_data / "dicom").rglob(name)
    volume = read_volume(folder)
    blurred = gaussian_filter(volume.array[0].astype(np.float32), (0, 3, 3))
    values = np.zeros(blurred.shape, int)
    for value, share in ((1, 80), (2, 95), (7, 99)):
        values[blurred > np.percentile(blurred, share)] = value
    mask = finished(values, volume.geometry, folder)
    write_rtstruct(tmp_path / "rt.dcm", mask)
    assert same(masks_in_structure_set(tmp_path / "rt.dcm", only_slices(folder, tmp_path / "slices")), expected(values))
    with written_segmentation(tmp_path / "seg.dcm", mask):
        pass
    found = masks_in_segmentation(tmp_path / "seg.dcm", read_reference(folder, volume.geometry).positions_mm)
    assert same(found, expected(values))


def only_slices(folder, target):
    """Links to the files of a folder that are slices."""
    target.mkdir()
    for file in folder.iterdir():
        if "Rows" in pydicom.dcmread(file, stop_before_pixels=True, force=True):
            (target / file.name).symlink_to(file)
    return target


SIGNED = MaskStatement(
    title="SIGNED by Ada King",
    word="SIGNED",
    progress="completed",
    signature=Signature(
        name="Ada King", user="aking", identity="declared", meaning="review", utc="2026-03-01T10:00:00+00:00"
    ),
    version=ReviewedVersion(number=3, sha256="ab" * 32, log_events=57, log_sha256="cd" * 32),
    drawn_by={"kidney_left": "SEMIAUTOMATIC", "my thing": "MANUAL"},
)
EVIDENCE = (
    "signed by Ada King (user aking, declared) for review at 2026-03-01T10:00:00+00:00; version 3, sha256 "
    f"{'ab' * 32}; review log of 57 events, its last sha256 {'cd' * 32}"
)


@pytest.fixture
def signed_files(tmp_path):
    """A folder with a signed mask in all formats, of a series made in St. Elsewhere."""
    values = mask_on(SHAPE)
    folder = write_series(tmp_path / "series", values, changes={"InstitutionName": "St. Elsewhere"})
    mask = finished(values, read_volume(folder).geometry, folder, statement=SIGNED)
    names = ["nifti", "seg.nrrd", "dicom-seg", "rtstruct", "bids"]
    wishes = FormatWishes(report=True, is_reviewed=True, stage="signed", about="signed")
    for each in mask_formats(names, wishes):
        each.write(tmp_path / "out", mask)
        each.write_about(tmp_path / "out", LABELS, mask.maker)
    return tmp_path / "out"


def test_a_signed_mask_says_so_in_the_places_that_dicom_has_for_it(signed_files):
    local = datetime.fromisoformat("2026-03-01T10:00:00+00:00").astimezone()
    segmentation = pydicom.dcmread(signed_files / "dicom-seg" / "case.dcm")
    structures = pydicom.dcmread(signed_files / "rtstruct" / "case.dcm")
    report = pydicom.dcmread(signed_files / "sr" / "case.dcm")
    for dataset in (segmentation, structures, report):
        assert dataset is report or faults(dataset) == []  # the copy of the tables holds no trees of content
        assert dataset.SeriesDescription == "SIGNED by Ada King: segfw 3d_fullres"
        assert dataset.ContributingEquipmentSequence[-1].ContributionDescription == EVIDENCE

    assert (segmentation.ContentLabel, segmentation.ContentDescription) == ("SIGNED", "SIGNED by Ada King")
    assert segmentation.ContentCreatorName == "Ada King"
    (person,) = segmentation.ContentCreatorIdentificationCodeSequence
    assert person.PersonIdentificationCodeSequence[0].CodeValue == "aking"
    assert person.InstitutionName == "St. Elsewhere"
    kinds = [item.SegmentAlgorithmType for item in segmentation.SegmentSequence]
    assert kinds == ["SEMIAUTOMATIC", "MANUAL", "AUTOMATIC", "AUTOMATIC"]
    assert ["SegmentAlgorithmName" in item for item in segmentation.SegmentSequence] == [True, False, True, True]

    assert structures.ApprovalStatus == "APPROVED"
    assert structures.ReviewerName == "Ada King"
    assert structures.ReviewDate + structures.ReviewTime == local.strftime("%Y%m%d%H%M%S")
    kinds = [item.ROIGenerationAlgorithm for item in structures.StructureSetROISequence]
    assert kinds == ["SEMIAUTOMATIC", "MANUAL", "AUTOMATIC", "AUTOMATIC"]

    assert (report.CompletionFlag, report.VerificationFlag) == ("COMPLETE", "VERIFIED")
    (observer,) = report.VerifyingObserverSequence
    assert (observer.VerifyingObserverName, observer.VerifyingOrganization) == ("Ada King", "St. Elsewhere")
    assert observer.VerificationDateTime == local.strftime("%Y%m%d%H%M%S")


def test_a_signed_mask_says_so_in_other_formats(signed_files):
    SimpleITK = pytest.importorskip("SimpleITK")
    image = SimpleITK.ReadImage(str(signed_files / "seg-nrrd" / "case.seg.nrrd"))
    assert image.GetMetaData("Status") == "SIGNED by Ada King"
    assert image.GetMetaData("Review") == EVIDENCE
    tags = [image.GetMetaData(f"Segment{index}_Tags") for index in range(4)]
    assert all("Segmentation.Status:completed|" in each for each in tags)
    assert "DICOM.SegmentAlgorithmType:SEMIAUTOMATIC|" in tags[0]
    assert "DICOM.SegmentAlgorithmType:MANUAL|" in tags[1]

    descrip = nibabel.load(signed_files / "case.nii.gz").header["descrip"].item()
    assert descrip == b"SIGNED by Ada King; v3 abababababab; segfw 3d_fullres, model 01234567"
    beside = json.loads((signed_files / "case.json").read_text(encoding="utf-8"))
    start = signed_files / "bids" / "sub-case" / "anat" / "sub-case_desc-signed_dseg"
    described = json.loads(start.with_suffix(".json").read_text(encoding="utf-8"))
    for each in (beside, described):
        assert each["Signature"]["name"] == "Ada King"
        assert each["Version"] == {"number": 3, "sha256": "ab" * 32, "log_events": 57, "log_sha256": "cd" * 32}
        assert each["AlgorithmTypes"]["kidney_right"] == "AUTOMATIC"
    assert beside["Structures"] == {"kidney_left": [1], "my thing": [2], "kidney_right": [7], "never there": [9]}
    assert described["Manual"] is False
