"""RTSTRUCT, DICOM SEG and .seg.nrrd as masks: exact at voxel centres, or refused in a sentence."""

from __future__ import annotations

import re
from itertools import permutations, product
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, inv_ornt_aff

from builders.dicom_masks import (
    OBLIQUE,
    TILTED,
    Grid,
    contour,
    contours_of,
    item,
    write_enhanced,
    write_seg_nrrd,
    write_segmentation,
    write_series,
    write_structures,
)
from segfw.images.formats import UnreadableFile, open_named_mask, read_mask, read_volume
from segfw.images.named_mask import DrawnAs
from segfw.images.polygons import fill

GRID = Grid()
RNG = np.random.default_rng(3)
IMAGE = RNG.normal(0, 200, GRID.shape).round()
FIRST = RNG.random(GRID.shape) > 0.6
SECOND = (RNG.random(GRID.shape) > 0.6) & ~FIRST
LABELS = FIRST * 1 + SECOND * 2


def refusal(path: Path, *more: object) -> str:
    with pytest.raises(UnreadableFile) as caught:
        read_mask(path, *more)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.count("; ") == 1  # what; what to do
    return message


def slow_inside(polygons: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """By angles: a centre is inside a polygon around which its edges turn once; even and odd over all polygons."""
    found = np.zeros(shape, bool)
    for row, column in np.ndindex(shape):
        inside = False
        for polygon in polygons:
            turned = 0
            for (y0, x0), (y1, x1) in zip(polygon, np.roll(polygon, -1, axis=0)):
                if (y0 <= row) != (y1 <= row) and column > x0 + (row - y0) / (y1 - y0) * (x1 - x0):
                    turned += 1
            inside ^= bool(turned % 2)
        found[row, column] = inside
    return found


# ---- polygons ----


def test_polygons_are_filled_as_a_slow_rule_fills_them():
    rng = np.random.default_rng(1)
    for _ in range(60):
        polygons = [rng.uniform(-3, 15, (int(rng.integers(3, 9)), 2)) for _ in range(int(rng.integers(1, 4)))]
        np.testing.assert_array_equal(fill(polygons, (11, 13)), slow_inside(polygons, (11, 13)))


def test_polygons_are_filled_as_matplotlib_fills_them():
    from matplotlib.path import Path as Outline

    rng = np.random.default_rng(2)
    centres = np.stack(np.meshgrid(np.arange(20), np.arange(22), indexing="ij"), -1).reshape(-1, 2)
    for _ in range(40):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 12))
        corners = np.stack([10 + 8 * np.cos(angles), 11 + 9 * np.sin(angles)], -1) * rng.uniform(0.9, 1.1)
        expected = Outline(corners).contains_points(centres).reshape(20, 22)
        np.testing.assert_array_equal(fill([corners], (20, 22)), expected)


def test_a_centre_on_an_edge_has_one_side():
    left = np.array([[0, 0], [0, 2], [4, 2], [4, 0]], float)
    right = left + [0, 2]
    both = fill([left], (6, 6)).astype(int) + fill([right], (6, 6))
    assert both.max() == 1
    assert both.sum() == 16
    assert fill([left], (6, 6)).sum() == 8


def test_holes_by_nesting_and_by_keyhole():
    outer = np.array([[0.5, 0.5], [0.5, 6.5], [6.5, 6.5], [6.5, 0.5]])
    inner = np.array([[2.5, 2.5], [2.5, 4.5], [4.5, 4.5], [4.5, 2.5]])
    keyhole = np.concatenate([outer, outer[:1], inner, inner[:1]])
    expected = np.zeros((8, 8), bool)
    expected[1:7, 1:7] = True
    expected[3:5, 3:5] = False
    np.testing.assert_array_equal(fill([outer, inner], (8, 8)), expected)
    np.testing.assert_array_equal(fill([keyhole], (8, 8)), expected)
    np.testing.assert_array_equal(fill([keyhole[::-1]], (8, 8)), expected)


# ---- structure sets ----


@pytest.mark.parametrize("grid", [GRID, OBLIQUE, TILTED, Grid(step=(0, 0, -3.0))])
@pytest.mark.filterwarnings("error")
def test_contours_along_voxels_give_these_voxels(tmp_path, grid):
    folder = write_series(tmp_path / "ct", IMAGE, grid)
    path = write_structures(tmp_path / "rs.dcm", {"a": contours_of(FIRST, grid), "b": contours_of(SECOND, grid)}, grid)
    image = read_volume(folder)
    mask = read_mask(path, image)
    assert mask.geometry == image.geometry
    turned = -1 if np.dot(np.cross(grid.x, grid.y), grid.step) < 0 else 1
    np.testing.assert_array_equal(mask.array[0], LABELS[::turned])
    np.testing.assert_array_equal(image.array[0], IMAGE[::turned])


def test_without_an_image_the_series_beside_is_taken(tmp_path):
    write_series(tmp_path / "study" / "ct", IMAGE)
    path = write_structures(tmp_path / "study" / "rs" / "1", {"a": contours_of(FIRST)})
    np.testing.assert_array_equal(read_mask(path).array[0], FIRST)
    np.testing.assert_array_equal(read_mask(path.parent).array[0], FIRST)  # the folder that holds it alone
    away = write_structures(tmp_path / "elsewhere" / "deep" / "rs.dcm", {"a": contours_of(FIRST)})
    assert "the series that it was drawn on is not beside it" in refusal(away)


def test_a_mask_fits_an_image_in_every_order_of_its_axes(tmp_path):
    """A structure set and a segmentation on the same image as NIfTI, stored in all 48 ways."""
    first = np.zeros(GRID.shape, bool)
    first[1:3, 2:5, 3:9] = True
    second = np.zeros(GRID.shape, bool)
    second[2:5, 6:7, 1:5] = True
    labels = first * 1 + second * 2
    structures = write_structures(tmp_path / "rs.dcm", {"a": contours_of(first), "b": contours_of(second)})
    segments = write_segmentation(tmp_path / "seg.dcm", {"a": first, "b": second})
    affine = read_volume(write_series(tmp_path / "ct", IMAGE)).geometry.matrix
    for order in permutations(range(3)):
        for flips in product((1, -1), repeat=3):
            turn = np.array([order, flips]).T
            image = nibabel.Nifti1Image(apply_orientation(IMAGE, turn), affine @ inv_ornt_aff(turn, IMAGE.shape))
            nibabel.save(image, tmp_path / "image.nii")
            volume = read_volume(tmp_path / "image.nii")
            expected = apply_orientation(labels, turn).T
            np.testing.assert_array_equal(read_mask(structures, volume).array[0], expected)
            np.testing.assert_array_equal(read_mask(segments, volume).array[0], expected)


def test_holes_of_both_kinds_and_loops_in_them(tmp_path):
    image = read_volume(write_series(tmp_path / "ct", IMAGE))
    outer = [(0.5, 0.5), (0.5, 8.5), (9.5, 8.5), (9.5, 0.5)]
    inner = [(2.5, 2.5), (2.5, 6.5), (7.5, 6.5), (7.5, 2.5)]
    island = [(4.5, 3.5), (4.5, 5.5), (6.5, 5.5), (6.5, 3.5)]
    expected = np.zeros(GRID.shape[1:], bool)
    expected[1:10, 1:9] = True
    expected[3:8, 3:7] = False
    expected[5:7, 4:6] = True
    for kind in ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR"):
        contours = [contour(GRID.points(2, corners), kind) for corners in (inner, outer, island)]
        mask = read_mask(write_structures(tmp_path / "rs.dcm", {"a": contours}), image)
        np.testing.assert_array_equal(mask.array[0, 2], expected)
        assert mask.array.sum() == expected.sum()


def test_a_contour_that_is_there_twice_makes_no_hole(tmp_path):
    image = read_volume(write_series(tmp_path / "ct", IMAGE))
    square = contour(GRID.points(1, [(0.5, 0.5), (0.5, 3.5), (3.5, 3.5), (3.5, 0.5)]))
    mask = read_mask(write_structures(tmp_path / "rs.dcm", {"a": [square, square]}), image)
    assert mask.array.sum() == 9


def test_what_contours_cannot_say_is_refused(tmp_path):
    image = read_volume(write_series(tmp_path / "ct", IMAGE))
    square = [(0.5, 0.5), (0.5, 3.5), (3.5, 3.5), (3.5, 0.5)]

    def said(*contours: object, slices: int | None = None) -> str:
        return refusal(write_structures(tmp_path / "rs.dcm", {"a": contours}, slices=slices), image)

    assert "ROI a has a contour between two slices of the image (0.40 of their" in said(
        contour(GRID.points(1.4, square))
    )
    assert "1 slice outside of the image" in said(contour(GRID.points(5, square)))
    assert "2 slices outside of the image" in said(contour(GRID.points(-2, square)))
    leaving = GRID.points(1, square)
    leaving[0, 2] += 1
    assert "leaves its slice, by 0.33" in said(contour(leaving))
    for kind in ("OPEN_PLANAR", "OPEN_NONPLANAR", "POINT"):
        assert f"contours of the type {kind}, which enclose no area" in said(contour(GRID.points(1, square), kind))
    shifted = [(y + 1, x + 1) for y, x in square]
    crossing = [contour(GRID.points(1, square)), contour(GRID.points(1, shifted))]
    assert "two contours that cross on slice 2 and share 4 voxels" in said(*crossing)
    every_second = [contour(GRID.points(z, square)) for z in (0, 2, 4)]
    assert "on every second slice alone" in said(*every_second)
    wrong = contour(GRID.points(1, square))
    wrong.NumberOfContourPoints = 5
    assert "a contour announces 5 points and has 4" in said(wrong)
    broken = contour(GRID.points(1, square))
    broken.ContourData = broken.ContourData[:-1]
    assert "11 numbers, of which three make a point" in said(broken)
    assert "in which no ROI has a contour" in said()
    assert "without any ROI" in refusal(write_structures(tmp_path / "rs.dcm", {}), image)


def test_single_slices_without_a_contour_and_points_are_told(tmp_path):
    image = read_volume(write_series(tmp_path / "ct", IMAGE))
    square = [(0.5, 0.5), (0.5, 3.5), (3.5, 3.5), (3.5, 0.5)]
    contours = [contour(GRID.points(z, square)) for z in (0, 1, 4)] + [contour(GRID.points(0, [(8, 8)]))]
    mask = read_mask(write_structures(tmp_path / "rs.dcm", {"a": contours, "b": []}), image)
    assert mask.array.sum() == 27
    assert any("ROI a has no contour on 2 slices between" in note for note in mask.notes)
    assert any("ROI b has no contour" in note for note in mask.notes)


def test_contours_of_a_roi_may_lie_in_several_items_and_its_name_may_be_empty(tmp_path):
    image = read_volume(write_series(tmp_path / "ct", IMAGE))
    items = [item(ReferencedROINumber=1, ContourSequence=[each]) for each in contours_of(FIRST)]
    path = write_structures(tmp_path / "rs.dcm", {"": contours_of(FIRST)}, ROIContourSequence=items)
    assert [structure.name for structure in open_named_mask(path).structures] == ["roi_1"]
    np.testing.assert_array_equal(read_mask(path, image).array[0], FIRST)


def test_rois_of_several_frames_of_reference_are_refused(tmp_path):
    """Places of the one are none of the other, and nothing says which is that of the image."""
    image = read_volume(write_series(tmp_path / "ct", IMAGE))
    rois = {"a": contours_of(FIRST), "b": contours_of(SECOND)}
    frames = (GRID.frame, f"{GRID.frame}.2")
    items = [
        item(ROINumber=number, ReferencedFrameOfReferenceUID=frame, ROIName=name)
        for number, (name, frame) in enumerate(zip(rois, frames), 1)
    ]
    path = write_structures(tmp_path / "rs.dcm", rois, StructureSetROISequence=items)
    assert "has ROIs in 2 frames of reference" in refusal(path, image)


def test_the_series_must_be_that_which_was_drawn_on(tmp_path):
    other = Grid(series="1.2.3.5", frame="1.2.3.5.99")
    image = read_volume(write_series(tmp_path / "ct", IMAGE, other))
    for path in (
        write_structures(tmp_path / "rs.dcm", {"a": contours_of(FIRST)}),
        write_segmentation(tmp_path / "seg.dcm", {"a": FIRST}),
    ):
        assert "was drawn on another series (1.2.3.4) than its image (1.2.3.5)" in refusal(path, image)
    same_frame = Grid(series="1.2.3.6")  # a reconstruction in the same coordinates
    image = read_volume(write_series(tmp_path / "again", IMAGE, same_frame))
    path = write_structures(tmp_path / "rs.dcm", {"a": contours_of(FIRST)})
    np.testing.assert_array_equal(read_mask(path, image).array[0], FIRST)


# ---- segmentations ----


@pytest.mark.parametrize("grid", [GRID, OBLIQUE, TILTED, Grid(step=(0, 0, -3.0))])
@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_segments_give_their_voxels(tmp_path, kind, grid):
    image = read_volume(write_series(tmp_path / "ct", IMAGE, grid))
    path = write_segmentation(tmp_path / "a", {"a": FIRST, "b": SECOND}, grid, kind=kind, frames_turned=True)
    turned = -1 if np.dot(np.cross(grid.x, grid.y), grid.step) < 0 else 1
    mask = read_mask(path, image)
    np.testing.assert_array_equal(mask.array[0], LABELS[::turned])
    alone = read_mask(path)  # on a grid of its own, which is the same
    np.testing.assert_array_equal(alone.array, mask.array)
    np.testing.assert_allclose(alone.geometry.matrix, image.geometry.matrix, atol=1e-6)


def test_frames_without_anything_may_be_left_out(tmp_path):
    image = read_volume(write_series(tmp_path / "ct", IMAGE))
    sparse = np.zeros(GRID.shape, bool)
    sparse[1, 3:6, 2] = True
    sparse[3, 2, 2:9] = True
    path = write_segmentation(tmp_path / "seg.dcm", {"empty": np.zeros_like(sparse), "a": sparse})
    np.testing.assert_array_equal(read_mask(path, image).array[0], sparse * 2)
    alone = read_mask(path)
    assert alone.geometry.shape == (3, 12, 10)  # from the first frame to the last one
    np.testing.assert_array_equal(alone.array[0], sparse[1:4] * 2)
    np.testing.assert_allclose(alone.geometry.matrix[:3, 3], image.geometry.matrix[:3] @ [1, 0, 0, 1])


def test_fractions_are_read_where_they_are_none_or_all(tmp_path):
    image = read_volume(write_series(tmp_path / "ct", IMAGE))
    path = write_segmentation(tmp_path / "seg.dcm", {"a": FIRST * 100}, kind="FRACTIONAL", most=100)
    np.testing.assert_array_equal(read_mask(path, image).array[0], FIRST)
    half = FIRST * 100
    half[0, 0, 0] = 50
    said = refusal(write_segmentation(tmp_path / "seg.dcm", {"a": half}, kind="FRACTIONAL", most=100), image)
    assert "a FRACTIONAL segmentation, with 1 pixel of a frame that lie partly" in said


def test_segmentations_that_fit_no_image_are_refused(tmp_path):
    image = read_volume(write_series(tmp_path / "ct", IMAGE))
    coarse = Grid(spacing_yx=(1.5, 1.5))
    assert "lies on another grid" in refusal(write_segmentation(tmp_path / "s.dcm", {"a": FIRST}, coarse), image)
    shifted = Grid(origin=(-31.0, 17.5, 41.5))
    assert "lies on another grid" in refusal(write_segmentation(tmp_path / "s.dcm", {"a": FIRST}, shifted), image)
    lower = Grid(origin=(-31.0, 17.5, 37.0))
    assert "reaches 1 voxel out" in refusal(write_segmentation(tmp_path / "s.dcm", {"a": FIRST}, lower), image)
    lacking = write_segmentation(tmp_path / "s.dcm", {"a": FIRST}, SegmentSequence=[])
    assert "without any segment" in refusal(lacking, image)
    more = write_segmentation(tmp_path / "s.dcm", {"a": FIRST}, NumberOfFrames=9)
    assert "announces 9 frames" in refusal(more, image)
    short = write_segmentation(tmp_path / "s.dcm", {"a": FIRST}, Rows=400)
    assert "bytes of pixels" in refusal(short, image)
    unknown = write_segmentation(
        tmp_path / "s.dcm", {"a": FIRST, "b": SECOND}, SegmentSequence=[item(SegmentNumber=1, SegmentLabel="a")]
    )
    assert "the segment 2, which is not listed" in refusal(unknown, image)


def test_a_segmentation_by_another_program_is_read(tmp_path):
    highdicom = pytest.importorskip("highdicom")
    from pydicom import dcmread
    from pydicom.sr.codedict import codes

    write_series(tmp_path / "ct", IMAGE)
    image = read_volume(tmp_path / "ct")
    sources = [dcmread(path) for path in sorted((tmp_path / "ct").iterdir())]
    for source in sources:
        source.StudyID = source.AccessionNumber = source.PatientSex = source.PatientBirthDate = ""
        source.StudyDate = source.StudyTime = source.ReferringPhysicianName = source.Manufacturer = ""
        source.SeriesNumber = source.InstanceNumber = 1
    sources.sort(key=lambda source: float(source.ImagePositionPatient[2]))
    described = [
        highdicom.seg.SegmentDescription(
            number, name, codes.SCT.Organ, codes.SCT.Liver, highdicom.seg.SegmentAlgorithmTypeValues.MANUAL
        )
        for number, name in enumerate(("liver", "other"), 1)
    ]
    for kind in ("BINARY", "LABELMAP"):
        made = highdicom.seg.Segmentation(
            sources, LABELS.astype(np.uint8), kind, described, "1.2.9", 1, "1.2.9.1", 1, "a", "b", "1", "2"
        )
        made.save_as(tmp_path / "seg.dcm")
        np.testing.assert_array_equal(read_mask(tmp_path / "seg.dcm", image).array[0], LABELS)


# ---- 3D Slicer's ----


def test_segments_of_slicer_have_names_and_layers(tmp_path):
    image = read_volume(write_series(tmp_path / "ct", IMAGE))
    path = write_seg_nrrd(tmp_path / "a.seg.nrrd", LABELS[None], {"liver": (1, 0), "spleen": (2, 0)})
    mask = open_named_mask(path)
    assert [structure.name for structure in mask.structures] == ["liver", "spleen"]
    np.testing.assert_array_equal(read_mask(path, image).array[0], LABELS)
    # Two layers, with the value 1 in both: then they count by their places.
    layered = write_seg_nrrd(tmp_path / "b.seg.nrrd", np.stack([FIRST, SECOND]), {"liver": (1, 0), "spleen": (1, 1)})
    np.testing.assert_array_equal(read_mask(layered, image).array[0], LABELS)
    cut = write_seg_nrrd(tmp_path / "c.seg.nrrd", LABELS[None, 1:4, 2:, 3:], {"a": (1, 0)}, (-28.75, 20.5, 43.0))
    expected = np.zeros(GRID.shape)
    expected[1:4, 2:, 3:] = FIRST[1:4, 2:, 3:]
    np.testing.assert_array_equal(read_mask(cut, image).array[0], expected)
    bad = write_seg_nrrd(tmp_path / "d.seg.nrrd", LABELS[None], {"liver": (1, 3)})
    assert "its value is 1 in layer 3, of 1 from 0 on" in refusal(bad, image)
    # Before 4.11 Slicer said neither value nor layer: each segment has a layer of its own, with the value 1.
    old = tmp_path / "old.seg.nrrd"
    old.write_bytes(re.sub(rb"Segment\d_(LabelValue|Layer):=\d\n", b"", layered.read_bytes()))
    assert b"LabelValue" not in old.read_bytes()
    np.testing.assert_array_equal(read_mask(old, image).array[0], LABELS)
    plain = write_seg_nrrd(tmp_path / "e.seg.nrrd", LABELS[None], {})
    np.testing.assert_array_equal(read_mask(plain).array[0], LABELS)


# ---- several into one ----


def as_labels(*names: str) -> tuple[DrawnAs, ...]:
    return tuple(DrawnAs(name=name, painted=value, values=(value,)) for value, name in enumerate(names, 1))


def test_structures_that_overlap_are_refused_unless_a_region_holds_the_other(tmp_path):
    image = read_volume(write_series(tmp_path / "ct", IMAGE))
    whole = FIRST | SECOND
    made = (
        write_segmentation(tmp_path / "seg.dcm", {"whole": whole, "core": FIRST}),
        write_structures(tmp_path / "rs.dcm", {"whole": contours_of(whole), "core": contours_of(FIRST)}),
        write_seg_nrrd(tmp_path / "a.seg.nrrd", np.stack([whole, FIRST]), {"whole": (1, 0), "core": (1, 1)}),
    )
    regions = (DrawnAs(name="whole", painted=1, values=(1, 2)), DrawnAs(name="core", painted=2, values=(2,)))
    for path in made:
        said = refusal(path, image, as_labels("whole", "core"))
        assert f"whole and core overlap in {FIRST.sum()} voxels" in said
        np.testing.assert_array_equal(read_mask(path, image, as_labels("whole")).array[0], whole)  # core is left out
        np.testing.assert_array_equal(read_mask(path, image, regions).array[0], whole + FIRST * 1)
    apart = write_segmentation(tmp_path / "seg.dcm", {"whole": SECOND, "core": FIRST})
    assert f"cannot say it in {FIRST.sum()} voxels" in refusal(apart, image, regions)


def test_names_of_one_label_go_together(tmp_path):
    image = read_volume(write_series(tmp_path / "ct", IMAGE))
    path = write_structures(tmp_path / "rs.dcm", {"cord": contours_of(FIRST), "Cord 2": contours_of(FIRST | SECOND)})
    both = tuple(DrawnAs(name=name, painted=4, values=(4,)) for name in ("cord", "Cord 2"))
    np.testing.assert_array_equal(read_mask(path, image, both).array[0], (FIRST | SECOND) * 4)


# ---- enhanced images ----


def test_frames_are_put_in_the_order_of_their_places(tmp_path):
    stored = RNG.integers(0, 1000, GRID.shape)
    for grid in (GRID, OBLIQUE):
        path = write_enhanced(tmp_path / "one" / "a.dcm", stored, grid, order=[3, 0, 4, 1, 2])
        volume = read_volume(path.parent)
        expected = stored * 2 - 100 - np.arange(5)[:, None, None]
        np.testing.assert_array_equal(volume.array[0], expected)
        series = read_volume(write_series(tmp_path / f"ct{grid.step[0]}", IMAGE, grid))
        np.testing.assert_allclose(volume.geometry.matrix, series.geometry.matrix, atol=1e-6)
        np.testing.assert_array_equal(read_volume(path).array, volume.array)


def test_frames_that_are_no_volume_are_refused(tmp_path):
    stored = RNG.integers(0, 1000, GRID.shape)

    def said(**changes: object) -> str:
        path = write_enhanced(tmp_path / "a.dcm", stored, **changes)
        with pytest.raises(UnreadableFile) as caught:
            read_volume(path)
        return str(caught.value)

    assert "several at one (b-values" in said(order=[0, 1, 2, 0, 1, 2])
    assert "slices missing?" in said(order=[0, 1, 3, 4])
    assert "its frames say no place" in said(PerFrameFunctionalGroupsSequence=[])
    assert "announces 7 frames and places 5" in said(NumberOfFrames=7)
    assert "bytes of pixels" in said(Rows=900)
