"""Mirroring exchanges left and right, or leaves an axis alone: by names, by places, in plans, and in tiles."""

from pathlib import Path

import numpy as np
import pytest
import torch

from builders.planning import STATS
from segfw.dataset.cases import Channel, DatasetManifest
from segfw.dataset.labels import LabelSet, Region
from segfw.dataset.layouts import find_dataset
from segfw.dataset.sides import is_of_heart, may_be_paired, pairs_by_name, stem_of
from segfw.grid.slabs import dense
from segfw.images.geometry import Geometry
from segfw.images.volume import Volume
from segfw.inference.sliding_window import sliding_window
from segfw.inference.summands import summands_of
from segfw.planning.case_measure import CaseMeasure, label_centroids_mm
from segfw.planning.fingerprint import Fingerprint, scan_dataset
from segfw.planning.mirroring import (
    FEWEST_CASES,
    Mirroring,
    class_orders,
    find_mirroring,
    input_orders,
    mirror_rules,
    output_orders,
)
from segfw.planning.planner import make_plan
from segfw.planning.request import PlanRequest


def label_set(*names: str, regions: dict[str, tuple[int, ...]] | None = None) -> LabelSet:
    """Background 0 and the names with the values 10, 20, ...; regions by values."""
    drawn = tuple(Region(name=name, values=values, painted=values[0]) for name, values in (regions or {}).items())
    values = tuple(range(0, 10 * len(names) + 1, 10))
    return LabelSet(names=("background", *names), values=values, regions=drawn)


def cases(
    number: int, places_mm: dict[int, tuple[float, float, float]], voxels: dict[int, int] | None = None
) -> list[CaseMeasure]:
    """Cases with labels (by value) at about these places, a few millimetres apart from case to case."""
    rng = np.random.default_rng(0)
    return [
        CaseMeasure(
            id=f"c{index}",
            shape=(60, 80, 100),
            spacing_mm=(5.0, 1.0, 2.0),
            cropped_shape=(60, 80, 100),
            label_voxels={str(value): (voxels or {}).get(value, 2000) for value in places_mm},
            label_centroids_mm={
                str(value): tuple(float(place + step) for place, step in zip(places, rng.normal(0, 2, 3)))
                for value, places in places_mm.items()
            },
        )
        for index in range(number)
    ]


MIRRORED = {10: (100.0, 40.0, 50.0), 20: (102.0, 41.0, 150.0)}  # two labels level with each other, 100 mm apart along x


@pytest.mark.parametrize(
    "left, right",
    [
        ("left kidney", "right kidney"),
        ("kidney_left", "kidney_right"),
        ("Kidney_L", "Kidney_R"),
        ("kidney (l)", "kidney (r)"),
        ("ParotidL", "ParotidR"),
        ("LKidney", "RKidney"),
        ("lkidney", "rkidney"),
        ("kidneyleft", "kidneyright"),
        ("ctx-lh-cuneus", "ctx-rh-cuneus"),
        ("Ren sinister", "Ren dexter"),
        ("rib_left_1", "rib_right_1"),
        ("Lung Lt", "Lung Rt"),
        ("Eye_AL", "Eye_AR"),
    ],
)
def test_names_that_differ_by_their_side_are_pairs(left, right):
    assert pairs_by_name([right, "liver", left]) == ([(left, right)], [])


@pytest.mark.parametrize(
    "names",
    [
        ["bright", "dark"],
        ["liver", "spleen"],
        ["LV", "RV", "MYO"],
        ["vertebrae_L1", "vertebrae_L2"],
        ["vertebra L", "vertebra S"],
        ["left and right lung"],
        ["cleft", "upright", "lung"],
    ],
)
def test_other_names_say_no_side(names):
    assert pairs_by_name(names) == ([], [])


def test_a_side_without_counterpart_is_found():
    assert pairs_by_name(["left lung", "heart"]) == ([], ["left lung"])
    assert pairs_by_name(["rightlung"]) == ([], ["rightlung"])
    assert pairs_by_name(["kidney_left", "lung_right"]) == ([], ["kidney_left", "lung_right"])
    assert pairs_by_name(["Lung_R"]) == ([], [])  # an abbreviation alone may mean anything


def test_what_names_tell():
    assert is_of_heart("left ventricle")
    assert is_of_heart("heart_atrium_left")
    assert not is_of_heart("Left-Lateral-Ventricle")
    assert not is_of_heart("left kidney")
    assert stem_of("label_1002") == stem_of("label_3") == ("label",)
    assert stem_of("kidney a") == stem_of("Kidney_2") != stem_of("lung_2")
    assert not may_be_paired(label_set("Anterior", "Posterior"))
    assert may_be_paired(label_set("label_1", "label_2"))
    assert may_be_paired(label_set("left lung", "liver"))


@pytest.mark.parametrize("flips", [(1, 1, 1), (1, -1, 1), (-1, 1, -1)])
def test_centroids_are_in_canonical_millimetres_however_a_file_is_stored(flips):
    canonical = np.zeros((1, 4, 6, 10), np.int16)
    canonical[0, 1:3, 2, 8] = 7  # z 1 and 2, y 2, x 8
    canonical[0, 3, 5, 0:4] = 9
    affine = np.diag([5.0, 1.0, 2.0, 1.0])[[2, 1, 0, 3]]  # index (z, y, x) to (x, y, z)
    affine[:3, :3] *= flips
    stored = Volume(array=canonical[:, :: flips[0], :: flips[1], :: flips[2]], geometry=Geometry.of((4, 6, 10), affine))
    expected = {"7": (7.5, 2.0, 16.0), "9": (15.0, 5.0, 3.0)}
    assert label_centroids_mm(stored, None) == expected
    assert label_centroids_mm(stored, label_set("Kidney_L", "Kidney_R")) == expected
    assert label_centroids_mm(stored, label_set("liver", "spleen")) == {}  # not measured where it cannot matter


def test_a_named_pair_is_exchanged_also_where_no_case_has_both():
    for data in ([], cases(20, MIRRORED)):
        found = find_mirroring(label_set("Kidney_L", "Kidney_R", "liver"), data)
        assert (found.axis, found.pairs, found.fixed_axes) == (2, ((1, 2),), ())
        assert found.reasons == ("Mirroring along x exchanges Kidney_L and Kidney_R.",)


def test_structures_with_names_of_their_own_may_lie_on_one_side():
    data = cases(20, MIRRORED)
    assert find_mirroring(label_set("liver", "spleen"), data) == Mirroring()
    assert find_mirroring(label_set("Anterior", "Posterior"), []) == Mirroring()


@pytest.mark.parametrize(
    "names, data, reason",
    [
        (["left lung", "heart"], cases(20, MIRRORED), "left lung has no counterpart on the other side"),
        (["left ventricle", "right ventricle"], [], "are of the heart, whose sides do not look alike"),
        (["left lobe", "right lobe"], cases(9, MIRRORED, {10: 500, 20: 2000}), "differ in size by 4.0 times"),
        (
            ["left a", "right a"],
            cases(5, MIRRORED) + cases(5, {10: MIRRORED[20], 20: MIRRORED[10]}),
            "lie now on one side of each other and now on the other",
        ),
    ],
)
def test_sides_that_are_no_mirror_images_are_not_mirrored(names, data, reason):
    found = find_mirroring(label_set(*names), data)
    assert (found.pairs, found.fixed_axes) == ((), (2,))
    assert found.reasons[0].startswith("Images are not mirrored along x: ")
    assert reason in found.reasons[0]


def test_too_few_cases_say_nothing_against_names():
    found = find_mirroring(label_set("left lobe", "right lobe"), cases(4, MIRRORED, {10: 500, 20: 2000}))
    assert found.pairs == ((1, 2),)


def test_files_that_are_oriented_wrongly_are_exchanged_along_the_axis_on_which_the_sides_lie():
    data = cases(10, {10: (100.0, 150.0, 40.0), 20: (100.0, 50.0, 41.0)})  # apart along y
    found = find_mirroring(label_set("left parotid", "right parotid"), data)
    assert (found.axis, found.pairs) == (1, ((1, 2),))
    assert "Mirroring along y exchanges left parotid and right parotid. They lie apart along y" in found.reasons[0]
    oblique = cases(10, {10: (100.0, 150.0, 40.0), 20: (100.0, 50.0, 110.0)})
    found = find_mirroring(label_set("left parotid", "right parotid"), oblique)
    assert (found.pairs, found.fixed_axes) == ((), (1, 2))
    assert "lie apart along y rather than x" in found.reasons[0]


@pytest.mark.parametrize("with_both", [0, FEWEST_CASES - 1])
def test_sides_that_hardly_a_case_has_both_of_tell_their_axis_by_the_middle_of_their_images(with_both):
    left = {10: (100.0, 60.0, 100.0)}  # of images of 300 x 80 x 200 mm: 20 mm beside the middle along y
    right = {20: (100.0, 20.0, 99.0)}
    data = cases(FEWEST_CASES, left) + cases(FEWEST_CASES, right) + cases(with_both, left | right)
    found = find_mirroring(label_set("left parotid", "right parotid"), data)
    assert (found.axis, found.pairs, found.fixed_axes) == (1, ((1, 2),), ())
    assert "They lie apart along y" in found.reasons[0]

    few = cases(FEWEST_CASES - 1, left) + cases(FEWEST_CASES, right)  # tell nothing
    assert find_mirroring(label_set("left parotid", "right parotid"), few).axis == 2
    # Where the middle of every other image lies 100 mm farther on, 40 mm between the sides are nothing steady.
    unsteady = [
        case.model_copy(update={"shape": (60, 280 if index % 2 else 80, 100)}) for index, case in enumerate(data)
    ]
    assert find_mirroring(label_set("left parotid", "right parotid"), unsteady[: 2 * FEWEST_CASES]).axis == 2


def test_labels_without_telling_names_that_lie_like_left_and_right_are_not_mirrored():
    labels = label_set("label_1", "label_2", "label_3")
    data = cases(8, MIRRORED | {30: (200.0, 10.0, 100.0)})
    found = find_mirroring(labels, data)
    assert (found.pairs, found.fixed_axes) == ((), (2,))
    assert (
        "label_1 and label_2 lie and measure like left and right of one thing, but are not named so" in found.reasons[0]
    )
    assert find_mirroring(labels, data[:7]) == Mirroring()  # too few to tell
    assert find_mirroring(labels, cases(8, MIRRORED, {10: 1000, 20: 2000})) == Mirroring()  # not equally large
    assert find_mirroring(labels, cases(8, MIRRORED | {10: (140.0, 40.0, 50.0)})) == Mirroring()  # not level


def test_labels_in_a_row_are_no_left_and_right_but_far_ones_along_another_axis_are():
    row = {10 * index: (40.0 * index, 50.0, 50.0) for index in range(1, 7)}  # vertebrae, each 27 mm large
    assert find_mirroring(label_set(*(f"v{index}" for index in row)), cases(20, row)) == Mirroring()
    far = {10: (100.0, 150.0, 40.0), 20: (100.0, 50.0, 41.0)}
    assert find_mirroring(label_set("label_1", "label_2"), cases(20, far)).fixed_axes == (1,)


def test_regions_are_exchanged_if_each_has_a_mirror_image():
    names = ("left kidney", "right kidney", "tumour")
    whole = {"kidneys": (10, 20, 30), "left kidney": (10,), "right kidney": (20,), "tumour": (30,)}
    labels = label_set(*names, regions=whole)
    found = find_mirroring(labels, [])
    assert found.pairs == ((1, 2),)
    assert output_orders({2: ((1, 2),)}, labels) == {2: (0, 2, 1, 3)}
    lopsided = label_set(*names, regions={"left side": (10, 30), "right kidney": (20,), "tumour": (30,)})
    found = find_mirroring(lopsided, [])
    assert (found.pairs, found.fixed_axes) == ((), (2,))
    only_union = find_mirroring(label_set(*names, regions={"kidneys": (10, 20), "tumour": (30,)}), [])
    assert only_union.pairs == ((1, 2),)
    by_region_names = {"lungs": (10, 20), "lung_l": (10,), "lung_r": (20,)}
    assert find_mirroring(label_set("label_10", "label_20", regions=by_region_names), []).pairs == ((1, 2),)


def test_as_published_nothing_changes_but_it_is_said():
    found = find_mirroring(label_set("Kidney_L", "Kidney_R"), cases(20, MIRRORED), as_published=True)
    assert (found.pairs, found.fixed_axes) == ((), ())
    assert found.reasons == (
        "As published, mirroring along x leaves labels as they are, those of Kidney_L and Kidney_R too.",
    )
    assert "left lung too" in find_mirroring(label_set("left lung", "a"), [], as_published=True).reasons[0]
    assert find_mirroring(label_set("liver", "spleen"), [], as_published=True) == Mirroring()


def test_a_configuration_mirrors_in_the_order_of_its_axes():
    pair = Mirroring(pairs=((1, 2),))
    cube = (64, 64, 64)
    assert mirror_rules(pair, (0, 1, 2), cube, is_2d=False) == ((0, 1, 2), ((2, 1, 2),), ())
    assert mirror_rules(pair, (2, 0, 1), cube, is_2d=False) == ((0, 1, 2), ((0, 1, 2),), ())  # sagittal slices
    assert mirror_rules(pair, (1, 0, 2), cube, is_2d=False) == ((0, 1, 2), ((2, 1, 2),), ())
    assert mirror_rules(pair, (2, 0, 1), (1, 64, 64), is_2d=True) == ((1, 2), (), ())  # x is across the slices
    assert mirror_rules(Mirroring(fixed_axes=(2,)), (2, 0, 1), cube, is_2d=False) == ((1, 2), (), ())
    assert mirror_rules(Mirroring(), (0, 1, 2), (1, 64, 64), is_2d=True) == ((1, 2), (), ())


def test_where_patches_are_turned_round_the_other_axis_of_the_plane_is_not_mirrored():
    pair = Mirroring(pairs=((1, 2),))
    axes, swapped, reasons = mirror_rules(pair, (0, 1, 2), (16, 64, 64), is_2d=False)
    assert (axes, swapped) == ((0, 2), ((2, 1, 2),))
    assert reasons[0].startswith("Not mirrored along y: with the half turns")
    axes, swapped, _ = mirror_rules(pair, (1, 2, 0), (1, 64, 64), is_2d=True)  # coronal slices: x first in plane
    assert (axes, swapped) == ((1,), ((1, 1, 2),))
    assert mirror_rules(pair, (0, 1, 2), (1, 96, 48), is_2d=True)[0] == (1, 2)  # long slices are not turned so far
    assert mirror_rules(Mirroring(fixed_axes=(2,)), (0, 1, 2), (16, 64, 64), is_2d=False)[0] == (0,)


def test_a_plan_holds_what_is_exchanged_and_why():
    labels = label_set("Kidney_L", "Kidney_R", "spleen")
    manifest = DatasetManifest(
        name="made up", root=Path("/data"), layout="nnunet", channels=(Channel(name="CT"),), labels=labels, cases=()
    )
    stats = [case.model_copy(update={"spacing_mm": (1.0, 1.0, 4.0)}) for case in cases(20, MIRRORED)]
    data = Fingerprint(cases=tuple(stats), intensities=(STATS,))
    plan = make_plan(manifest, data)
    full = plan.configurations["3d_fullres"]
    assert full.preprocessing.axis_order == (2, 0, 1)  # x is the coarsest
    assert (full.mirror_axes, full.swapped_labels) == ((0, 1, 2), ((0, 1, 2),))
    assert full.swapped_pairs == {0: ((1, 2),)}
    assert plan.configurations["2d"].preprocessing.axis_order == (0, 1, 2)  # a slice across x would not show sides
    assert plan.configurations["2d"].swapped_labels == ((2, 1, 2),)
    assert "Mirroring along x exchanges Kidney_L and Kidney_R." in plan.reasons
    published = make_plan(manifest, data, PlanRequest(as_published=True))
    full = published.configurations["3d_fullres"]
    assert (full.mirror_axes, full.swapped_labels) == ((0, 1, 2), ())
    assert "As published, mirroring along x leaves labels as they are" in " ".join(published.reasons)


def test_orders_of_channels_by_axis():
    swapped = {2: ((1, 3), (2, 4))}
    assert class_orders(swapped, 6) == {2: (0, 3, 4, 1, 2, 5)}
    assert class_orders({}, 6) == {}
    assert output_orders(swapped, label_set("l a", "l b", "r a", "r b")) == {2: (0, 3, 4, 1, 2)}
    assert input_orders(swapped, 2, 2) == {}  # no cascade
    assert input_orders(swapped, 2, 6) == {2: (0, 1, 4, 5, 2, 3)}  # two images, then a channel for each of four classes


def sides(tiles: torch.Tensor) -> torch.Tensor:
    """A network that calls the lower half along x class 1, the upper class 2, and the lower half along y class 3."""
    logits = torch.zeros(len(tiles), 4, *tiles.shape[2:])
    logits[:, 1, ..., :4] = 1
    logits[:, 2, ..., 4:] = 1
    logits[:, 3, :, :4] = 1
    return logits


def test_mirrored_predictions_of_left_and_right_change_places():
    image, size = torch.rand(1, 8, 8, 8), (8, 8, 8)

    def logits(axes=(), orders=None):
        return dense(sliding_window(image, summands_of([sides], axes, output_orders=orders or {}), size))

    plain = logits()
    torch.testing.assert_close(logits((2,))[1:3], torch.full((2, *size), 0.5))
    exchanged = logits((0, 2), {2: (0, 2, 1, 3)})
    torch.testing.assert_close(exchanged, plain)
    # Along y nothing is exchanged: each of classes 1 and 2 stays where it is, and 3 is blurred.
    both = logits((1, 2), {2: (0, 2, 1, 3)})
    torch.testing.assert_close(both[1:3], plain[1:3])
    torch.testing.assert_close(both[3], torch.full(size, 0.5))


def test_a_cascade_sees_the_first_stage_in_the_mirror_with_left_and_right_exchanged():
    image = torch.rand(3, 8, 8, 8)  # one image, classes 1 and 2 of the first stage
    seen = []

    def second_stage(tiles):
        seen.append(tiles.clone())
        return tiles

    orders = {2: (0, 2, 1)}
    members = summands_of([second_stage], (2,), output_orders=orders, input_orders=orders)
    torch.testing.assert_close(dense(sliding_window(image, members, (8, 8, 8))), image)
    copies = torch.cat(seen)
    torch.testing.assert_close(copies[0], image)
    torch.testing.assert_close(copies[1], torch.stack([image[0], image[2], image[1]]).flip(3))


@pytest.mark.real_data
@pytest.mark.parametrize("are_named", [True, False])
def test_the_parotid_glands_of_real_scans_whose_files_are_oriented_wrongly(are_named, real_data):
    """By their header left and right of these scans lie along y; the labels have no names of their own."""
    manifest, data = scan_dataset(find_dataset(real_data / "head_neck_ct"), workers=2)
    names = ("brainstem", "cord", "parotid_right", "parotid_left", "oesophagus", "larynx", "mandible")
    labels = manifest.labels.model_copy(update={"names": ("background", *names)}) if are_named else manifest.labels
    found = find_mirroring(labels, data.cases)
    assert found.axis == 1
    assert (found.pairs, found.fixed_axes) == ((((4, 3),), ()) if are_named else ((), (1,)))


def test_the_same_glands_where_each_case_has_one_of_them(real_data):
    manifest, data = scan_dataset(find_dataset(real_data / "head_neck_ct"), workers=2)
    names = ("brainstem", "cord", "parotid_right", "parotid_left", "oesophagus", "larynx", "mandible")
    labels = manifest.labels.model_copy(update={"names": ("background", *names)})
    halves = []
    for number, case in enumerate(data.cases):
        hidden = str(3 + number % 2)
        seen = {value: place for value, place in case.label_centroids_mm.items() if value != hidden}
        halves.append(case.model_copy(update={"label_centroids_mm": seen}))
    assert find_mirroring(labels, halves) == find_mirroring(labels, data.cases)
