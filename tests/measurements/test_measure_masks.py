"""What is measured of a mask and what its status is, counted by hand on unequal voxels."""

import numpy as np
import pytest

from builders.masks import geometry
from segfw.dataset.labels import LabelSet, Region
from segfw.images.units import PICTURE, SCAN, SLICE, units_of
from segfw.measurements.field_of_view import outside_field_of_view
from segfw.measurements.first_order import first_order
from segfw.measurements.measure_masks import MaskToMeasure, measure_mask

SHAPE = (6, 10, 12)
SPACING_MM = (5.0, 2.0, 0.5)  # a voxel has 5 mm3
LABELS = LabelSet(names=("background", "kidney_left", "kidney_right", "liver"), values=(0, 4, 5, 9))


def mask_of(*boxes, shape=SHAPE, labels=LABELS, units=SCAN, spacing_mm=SPACING_MM, **keywords):
    """A mask with (class, ranges along z, y, x) painted one over the other."""
    classes = np.zeros(shape, np.uint8)
    for index, *ranges in boxes:
        classes[tuple(slice(*limits) for limits in ranges)] = index
    grid = geometry(shape, spacing_mm)
    return MaskToMeasure(classes_zyx=classes, geometry=grid, units=units, labels=labels, **keywords)


def by_name(mask, **keywords):
    return {each.structure: each for each in measure_mask("case", mask, **keywords)}


def test_a_whole_structure_a_cut_one_and_one_that_is_absent():
    found = by_name(mask_of((1, (1, 3), (2, 6), (3, 7)), (2, (0, 2), (7, 9), (3, 7))))
    whole, cut, absent = found["kidney_left"], found["kidney_right"], found["liver"]
    assert (whole.status, whole.reason, whole.value, whole.voxels) == ("whole", "", "4", 32)
    assert whole.volume_ml == pytest.approx(0.16)
    assert whole.cut_share == 0
    assert (cut.status, cut.reason) == ("cut", "it reaches the border of the image")
    assert cut.volume_ml == pytest.approx(0.08)  # kept: it is what is seen of it
    # 8 faces of 1 mm2 lie in the first slice; the box has 2 x 8 of them, 2 x 8 of 2.5 mm2 and 2 x 4 of 10 mm2.
    assert cut.cut_share == pytest.approx(8 / (16 + 40 + 80))
    assert (absent.status, absent.reason, absent.voxels) == ("absent", "no voxel of it is in the mask", 0)
    assert {name for name, value in absent if value is None} >= {"volume_ml", "diameter_mm", "cut_share", "components"}


def test_of_few_voxels_the_volume_is_told_and_no_shape():
    found = by_name(mask_of((1, (2, 3), (2, 3), (3, 10)), (2, (0, 1), (5, 6), (3, 5))))
    small = found["kidney_left"]
    assert (small.status, small.voxels) == ("small", 7)
    assert small.volume_ml == pytest.approx(0.035)
    assert small.reason == "it has fewer than 8 voxels, too few for a shape"
    assert (small.diameter_mm, small.surface_mm2, small.long_axis_mm, small.elongation) == (None,) * 4
    assert small.centroid_ras_mm == pytest.approx((3.0, 4.0, 10.0))
    assert "and reaches the border of the image" in found["kidney_right"].reason
    assert by_name(mask_of((1, (2, 3), (2, 3), (3, 11))))["kidney_left"].diameter_mm == pytest.approx(np.hypot(5, 3.5))


def test_left_and_right_are_compared_where_both_are_whole():
    both = by_name(mask_of((1, (1, 3), (2, 6), (3, 7)), (2, (1, 3), (6, 9), (3, 5))))
    assert both["kidney_left"].left_right_ratio == pytest.approx(32 / 12)
    assert both["kidney_right"].left_right_ratio == pytest.approx(32 / 12)
    one_cut = by_name(mask_of((1, (0, 3), (2, 6), (3, 7)), (2, (1, 3), (6, 9), (3, 5))))
    assert one_cut["kidney_left"].left_right_ratio is None


def test_only_some_structures_and_every_part_of_them():
    mask = mask_of((3, (1, 5), (1, 5), (1, 5)), (3, (1, 2), (7, 9), (9, 12)), (1, (2, 3), (7, 8), (2, 3)))
    found = by_name(mask, only=["liver"], per_component=True)
    assert list(found) == ["liver"]
    liver = found["liver"]
    assert (liver.components, liver.voxels, liver.status) == (2, 70, "cut")
    assert liver.largest_share == pytest.approx(64 / 70)
    large, small = liver.parts
    assert (large.number, large.voxels, large.is_cut) == (1, 64, False)
    assert (small.number, small.voxels, small.is_cut) == (2, 6, True)
    assert large.volume_ml == pytest.approx(0.32)
    assert large.centroid_ras_mm == pytest.approx((1.25, 5.0, 12.5))
    assert (small.diameter_mm, small.long_axis_mm) == (None, None)
    assert large.long_axis_mm == pytest.approx(liver.long_axis_mm)


def test_a_region_is_measured_as_the_union_of_its_labels():
    labels = LabelSet(
        names=("background", "core", "rim"),
        values=(0, 1, 2),
        regions=(Region(name="whole", values=(1, 2), painted=2), Region(name="core", values=(1,), painted=1)),
    )
    found = by_name(mask_of((2, (1, 5), (2, 8), (2, 10)), (1, (2, 4), (4, 6), (4, 8)), labels=labels))
    assert (found["whole"].value, found["whole"].voxels, found["core"].voxels) == ("1+2", 192, 16)


def test_intensities_of_each_channel_and_of_one_that_has_no_number_somewhere():
    first = np.zeros(SHAPE, np.int16)
    first[1:3, 2:6, 3:7] = np.arange(32).reshape(2, 4, 4)
    second = first.astype(np.float32)
    second[1, 2, 3] = np.nan
    found = by_name(mask_of((1, (1, 3), (2, 6), (3, 7)), channels={"T1": first, "T2": second}))["kidney_left"]
    assert list(found.channels) == ["T1"]
    assert (found.channels["T1"].mean, found.channels["T1"].minimum, found.channels["T1"].maximum) == (15.5, 0, 31)
    assert found.status == "whole"
    assert found.reason == "T2 has no number in 1 of its voxels"


def test_equal_intensities_have_no_skewness():
    flat = first_order(np.full(20, 7, np.uint8))
    assert (flat.mean, flat.sd, flat.skewness, flat.kurtosis) == (7, 0, None, None)


@pytest.mark.parametrize(("values", "robust"), [([3], 0.0), ([1, 5], None), ([1, 5, 6], 0.0)])
def test_intensities_of_very_few_voxels(values, robust):
    found = first_order(np.array(values, np.int16))
    assert (found.minimum, found.maximum, found.robust_mean_absolute_deviation) == (min(values), max(values), robust)
    assert found.mean == pytest.approx(sum(values) / len(values))


def test_intensities_do_not_depend_on_how_many_are_widened_at_a_time():
    values = np.random.default_rng(0).normal(1000, 30, (1 << 20) + 999).astype(np.float32)
    found = first_order(values)
    exact = values.astype(np.float64)
    assert found.mean == pytest.approx(exact.mean(), rel=1e-12)
    assert found.sd == pytest.approx(exact.std(), rel=1e-9)
    assert found.mean_absolute_deviation == pytest.approx(np.abs(exact - exact.mean()).mean(), rel=1e-9)


def test_one_slice_has_an_area_and_no_volume():
    mask = mask_of((1, (0, 1), (2, 6), (3, 9)), shape=(1, 10, 12), units=SLICE)
    found = by_name(mask)["kidney_left"]
    assert (found.volume_ml, found.mesh_volume_ml, found.surface_mm2, found.status) == (None, None, None, "whole")
    assert found.area_mm2 == pytest.approx(24 * 2.0 * 0.5)  # the slice of 5 mm has no thickness here
    assert found.diameter_mm == pytest.approx(max(np.hypot(4 * 2, 5 * 0.5), np.hypot(3 * 2, 6 * 0.5)))
    assert found.long_axis_mm == pytest.approx(found.diameter_mm)
    at_side = mask_of((1, (0, 1), (0, 4), (3, 9)), shape=(1, 10, 12), units=SLICE)
    assert by_name(at_side)["kidney_left"].status == "cut"


def test_a_photograph_is_counted_in_pixels_and_has_no_millimetres():
    mask = mask_of((1, (0, 1), (2, 6), (3, 9)), shape=(1, 10, 12), units=PICTURE, spacing_mm=(1.0, 1.0, 1.0))
    found = by_name(mask)["kidney_left"]
    assert (found.area_px, found.area_mm2, found.volume_ml) == (24, None, None)
    assert {found.diameter_mm, found.centroid_ras_mm, found.long_axis_mm} == {None}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("seed", range(40))
def test_every_mask_has_measures_however_few_its_voxels_are(seed):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 6, 3).tolist()) if seed else (1, 1, 1)
    classes = rng.integers(0, 4, shape).astype(np.uint8) * (rng.random(shape) < rng.random())
    for is_placed in (True, False):
        mask = MaskToMeasure(
            classes_zyx=classes,
            geometry=geometry(shape, SPACING_MM if is_placed else (1.0, 1.0, 1.0)),
            units=units_of(shape, is_placed=is_placed),
            labels=LABELS,
            channels={"image": rng.integers(0, 5, shape).astype(np.int16)},
        )
        found = measure_mask("case", mask, per_component=True)
        assert [row.voxels for row in found] == [int((classes == index).sum()) for index in (1, 2, 3)]
        for row in found:
            assert (row.status == "absent") == (row.voxels == 0)
            assert sum(part.voxels for part in row.parts) == row.voxels
            assert row.cut_share is None or 0 <= row.cut_share <= 1


# ---- the round field of view ----


def scan(shape=(12, 64, 64), radius=26.0, padding=-2000, centre=(31.5, 31.5), seed=0):
    """Noise in a circle, and one value around it."""
    y, x = np.mgrid[: shape[1], : shape[2]]
    inside = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2
    image = np.random.default_rng(seed).integers(-1000, 100, shape).astype(np.int16)
    image[:, ~inside] = padding
    return image, inside


@pytest.mark.parametrize(("radius", "centre"), [(26.0, (31.5, 31.5)), (36.0, (31.5, 31.5)), (30.0, (38.0, 31.5))])
def test_a_round_field_of_view_is_seen_whole_or_cut_by_the_image(radius, centre):
    image, inside = scan(radius=radius, centre=centre)
    outside = outside_field_of_view(image, (3.0, 0.8, 0.8))
    assert outside is not None
    assert (outside == ~inside).all()


def test_what_is_set_to_one_value_around_a_body_is_no_field_of_view():
    image, _ = scan()
    body = np.full_like(image, -2000)
    body[:, 10:50, 12:56] = image[:, 10:50, 12:56].clip(-900, None)  # a rectangle
    assert outside_field_of_view(body, (3.0, 0.8, 0.8)) is None
    noise = np.random.default_rng(1).integers(-1000, 100, image.shape).astype(np.int16)
    assert outside_field_of_view(noise, (3.0, 0.8, 0.8)) is None
    lower_inside, _ = scan(padding=-500)  # what is inside goes lower than the padding, so it is none
    assert outside_field_of_view(lower_inside, (3.0, 0.8, 0.8)) is None


def test_round_bodies_are_no_field_of_view():
    phantom, inside = scan(padding=-1024)  # a cylinder in air: nothing of it is at the border of the image
    assert outside_field_of_view(phantom, (3.0, 0.8, 0.8)) is None
    masked, _ = scan(padding=0)
    masked[:, inside] = np.abs(masked[:, inside]) + 1
    assert outside_field_of_view(masked, (3.0, 0.8, 0.8)) is None
    limb, _ = scan(radius=34.0, padding=-1024)  # as wide as the image at last, with a circle in each slice
    for number, slice_yx in enumerate(limb):
        slice_yx[~scan(radius=34.0 - 2 * (len(limb) - 1 - number))[1]] = -1024
    assert outside_field_of_view(limb, (3.0, 0.8, 0.8)) is None
    wide, inside = scan(radius=34.0, padding=-1024)  # the same circle in each slice, which is as wide as the image
    assert (outside_field_of_view(wide, (3.0, 0.8, 0.8)) == ~inside).all()


def test_a_structure_at_the_edge_of_the_round_field_of_view_is_cut():
    image, inside = scan()
    outside = outside_field_of_view(image, (3.0, 0.8, 0.8))
    classes = np.zeros(image.shape, np.uint8)
    classes[3:6, 20:30, 0:20] = 3
    classes[:, ~inside] = 0  # ends where the field of view does, far from the border of the image
    classes[3:6, 40:44, 30:40] = 1
    labels = LABELS
    grid = geometry(image.shape, (3.0, 0.8, 0.8))
    given = {"classes_zyx": classes, "geometry": grid, "units": SCAN, "labels": labels}
    found = by_name(MaskToMeasure(**given, outside=outside))
    assert (found["liver"].status, found["kidney_left"].status) == ("cut", "whole")
    assert found["liver"].reason == "it reaches the border of the image or of its round field of view"
    touching = (outside[:, :-1] & (classes[4] == 3)[:, 1:]).sum()  # the arc is on its left side alone
    up_down = (outside[:-1] & (classes[4] == 3)[1:]).sum() + (outside[1:] & (classes[4] == 3)[:-1]).sum()
    assert found["liver"].cut_share > 0
    faces = 3 * (touching + up_down) * 3.0 * 0.8
    voxels_yx = classes[4] == 3
    total = 2 * voxels_yx.sum() * 0.64
    total += 3 * 2.4 * (np.diff(np.pad(voxels_yx, 1), axis=0) != 0).sum()
    total += 3 * 2.4 * (np.diff(np.pad(voxels_yx, 1), axis=1) != 0).sum()
    assert found["liver"].cut_share == pytest.approx(faces / total)
    assert by_name(MaskToMeasure(**given))["liver"].status == "whole"
