"""The data check: every kind of wrong file is found, and the message names case, value and remedy."""

from pathlib import Path

import numpy as np
import pytest

from segfw.dataset.cases import Case, Finding
from segfw.dataset.labels import LabelSet
from segfw.dataset.verify import check_case, file_notes, grid_mismatch
from segfw.images.geometry import Geometry
from segfw.images.volume import Volume

SHAPE = (4, 6, 8)
AFFINE = np.array([[0, 0, 0.5, -20], [0, 2.0, 0, 30], [5, 0, 0, 7], [0, 0, 0, 1]])  # spacing (z, y, x) 5, 2, 0.5
CASE = Case(id="pat", images=(Path("in/ct.nii.gz"), Path("in/pet.nii.gz")), label=Path("in/seg.nii.gz"))
LABELS = LabelSet(names=("background", "low", "high"), values=(0, -3, 40))


def volume(array: np.ndarray, affine: np.ndarray = AFFINE) -> Volume:
    array = array if array.ndim == 4 else array[None]
    return Volume(array=array, geometry=Geometry.of(array.shape[1:], affine))


def image(seed: int = 0, shape: tuple[int, ...] = SHAPE, affine: np.ndarray = AFFINE) -> Volume:
    return volume(np.random.default_rng(seed).normal(size=shape).astype(np.float32), affine)


def mask(kind: type = np.int16) -> np.ndarray:
    array = np.zeros(SHAPE, kind)
    array[1:3, 2:4, 3:6] = 40
    array[1:3, 4:5, 3:6] = -3
    return array


def changed(**moves: float) -> np.ndarray:
    """AFFINE with single entries added to: changed(x=0.1) moves the origin, changed(xx=0.1) the x spacing."""
    places = {"x": (0, 3), "y": (1, 3), "z": (2, 3), "xx": (0, 2), "yy": (1, 1), "zz": (2, 0)}
    affine = AFFINE.copy()
    for name, value in moves.items():
        affine[places[name]] += value
    return affine


def check(*images: Volume | None, label: Volume | None = None, **known) -> list[Finding]:
    images = images or (image(0), image(1))
    case = CASE.model_copy(update={"images": CASE.images[: len(images)]})
    return check_case(case, images, label, **{"channel_count": None, "labels": LABELS} | known)


def only(problems: list[Finding]) -> str:
    assert len(problems) == 1, problems
    return problems[0].full_sentence


def test_a_good_case_has_no_problems():
    assert check(label=volume(mask()), channel_count=2) == []
    assert check(label=None, channel_count=2) == []
    four = volume(np.concatenate([image(0).array, image(1).array]))
    assert check(four, label=volume(mask()), channel_count=2) == []


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_no_numbers(bad):
    broken = image(0)
    broken.array[0, 0, 0, :2] = bad
    assert only(check(broken, image(1))) == (
        "pat: in/ct.nii.gz: 2 voxels are NaN or infinite; replace them by the background value or export the image "
        "again"
    )
    broken_mask = mask(np.float32)
    broken_mask[0, 0, :3] = bad
    assert (
        only(check(label=volume(broken_mask))) == "pat: in/seg.nii.gz: 3 mask voxels are NaN or infinite; set them to 0"
    )


def test_a_constant_image():
    constant = volume(np.full(SHAPE, 7, np.int16))
    assert only(check(image(), constant)) == (
        "pat: in/pet.nii.gz: every voxel has the value 7; export the image again or leave it out"
    )


def test_channel_count():
    assert only(check(image(), channel_count=2)) == (
        "pat: has 1 channel, expected 2; correct channel_names in dataset.json, or the files"
    )
    four = volume(np.stack([image(seed).array[0] for seed in range(3)]))
    assert "pat: has 3 channels (fourth axis), expected 2" in only(check(four, channel_count=2))


def test_channels_on_different_grids():
    text = only(check(image(0), image(1, affine=changed(x=30))))
    assert text == (
        "pat: in/pet.nii.gz: its grid differs from in/ct.nii.gz: 30.00 mm apart at a corner (origin or direction "
        "differ); resample all channels of a case onto one grid"
    )


def test_mask_of_another_shape():
    text = only(check(label=volume(mask()[:, :, :-1])))
    assert text == (
        "pat: in/seg.nii.gz: the mask's grid differs from the image's: shape (z, y, x) (4, 6, 7) against (4, 6, 8); "
        "resample the mask onto the image (nearest neighbour) or export both from one series"
    )


def test_mask_of_another_spacing():
    text = only(check(label=volume(mask(), changed(yy=0.3))))
    assert (
        "the mask's grid differs from the image's: spacing (z, y, x) (5.0, 2.3, 0.5) against (5.0, 2.0, 0.5) mm" in text
    )


def test_mask_in_another_place_or_direction():
    assert "0.40 mm apart at a corner" in only(check(label=volume(mask(), changed(z=0.4))))
    flipped = AFFINE @ np.diag([1, 1, -1, 1])
    # Eight voxels of 0.5 mm run from -20 to -16.5 mm in one and from -23.5 to -20 mm in the other.
    assert "3.50 mm apart at a corner (origin or direction differ)" in only(check(label=volume(mask(), flipped)))
    turned = AFFINE.copy()
    turned[:3, 2] = (0.4, 0.3, 0)  # the x axis, still 0.5 mm a voxel
    assert "origin or direction differ" in only(check(label=volume(mask(), turned)))


@pytest.mark.parametrize(
    "affine",
    [
        AFFINE * (1 + 1e-6),
        changed(x=1e-6, y=-1e-6, zz=1e-6),
        changed(x=0.2),  # below half of the shortest side, 0.5 mm
        changed(xx=0.03),  # seven voxels further that makes 0.21 mm
    ],
)
def test_rounding_in_headers_is_accepted(affine):
    assert check(image(0), image(1, affine=affine), label=volume(mask(), affine)) == []


def test_a_mask_stored_in_another_order_in_the_same_place_is_accepted():
    flipped = AFFINE @ np.array(
        [[-1, 0, 0, 3], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]]
    )  # z flipped, y and x swapped
    stored = volume(mask()[::-1].transpose(0, 2, 1), flipped)
    assert stored.geometry.shape == (4, 8, 6)
    assert check(label=stored) == []
    assert check(image(0), volume(image(1).array[0, ::-1].transpose(0, 2, 1), flipped), label=stored) == []


def test_a_picture_fits_by_its_shape():
    nominal = Geometry.of(SHAPE, np.eye(4))
    picture = Volume(array=mask()[None], geometry=nominal, is_placed=False)
    assert check(label=picture) == []
    smaller = Volume(array=mask()[None, :, 1:], geometry=Geometry.of((4, 5, 8), np.eye(4)), is_placed=False)
    assert "shape (z, y, x) (4, 5, 8) against (4, 6, 8)" in only(check(label=smaller))


def test_a_time_series_where_one_channel_is_expected():
    series = volume(np.random.default_rng(0).normal(size=(20, *SHAPE)))
    assert only(check(series, channel_count=1)) == (
        "pat: has 20 channels (fourth axis), expected 1; if it is a time series, choose one volume; else correct "
        "channel_names in dataset.json, or the files"
    )


def test_doubts_of_the_reader_are_warnings():
    doubtful = Volume(array=mask()[None], geometry=image().geometry, notes=("says no spacing; write it",))
    (problem,) = file_notes(CASE, Path("in/ct.nii.gz"), doubtful)
    assert problem.full_sentence == "warning: pat: in/ct.nii.gz: says no spacing; write it"


def test_the_tolerance_is_half_of_the_shortest_side():
    first = Geometry.of(SHAPE, AFFINE)
    assert grid_mismatch(first, Geometry.of(SHAPE, changed(y=0.249))) is None
    assert grid_mismatch(first, Geometry.of(SHAPE, changed(y=0.251))) is not None


def test_unknown_label_values():
    wrong = mask()
    wrong[0, 0, 0] = 4
    assert only(check(label=volume(wrong))) == (
        "pat: in/seg.nii.gz: holds the label value 4, which dataset.json does not list; "
        "add it to 'labels' or correct the mask"
    )
    wrong[0, 0, :] = range(100, 108)
    assert "the label value 100, 101, 102, 103, 104, ..., which" in only(check(label=volume(wrong)))
    assert check(label=volume(wrong), labels=None) == []  # any value may be a label where none are listed


def test_an_interpolated_mask():
    soft = mask(np.float32)
    soft[0, 0, :4] = (0.25, 0.5, 39.5, 40)
    assert only(check(label=volume(soft))) == (
        "pat: in/seg.nii.gz: holds 3 values that are not integers, such as 0.25; "
        "the mask was interpolated; export it again with nearest neighbour"
    )


def test_a_mask_with_channels():
    assert only(check(label=volume(np.stack([mask(), mask()])))) == (
        "pat: in/seg.nii.gz: the mask has 2 channels; store one label value per voxel"
    )


@pytest.mark.parametrize("labels, empty", [(LABELS, 0), (None, 0), (LabelSet(names=("b", "x"), values=(255, 0)), 255)])
def test_an_empty_mask_is_only_a_warning(labels, empty):
    problems = check(label=volume(np.full(SHAPE, empty, np.int16)), labels=labels)
    assert only(problems) == (
        "warning: pat: in/seg.nii.gz: the mask is empty; check that nothing is to be seen there, or leave the case out"
    )
    assert problems[0].severity == "warning"


def test_everything_wrong_with_a_case_is_said_at_once():
    bad_mask = mask(np.float32)
    bad_mask[0, 0, 0] = 0.5
    problems = check(
        volume(np.ones(SHAPE, np.int16)),
        image(1, affine=changed(x=9)),
        label=volume(bad_mask, changed(x=5)),
        channel_count=3,
    )
    assert [(problem.file, problem.what.split(":")[0]) for problem in problems] == [
        ("", "has 2 channels, expected 3"),
        ("in/ct.nii.gz", "every voxel has the value 1"),
        ("in/pet.nii.gz", "its grid differs from in/ct.nii.gz"),
        ("in/seg.nii.gz", "the mask's grid differs from the image's"),
        ("in/seg.nii.gz", "holds 1 values that are not integers, such as 0.5"),
    ]


def test_files_that_could_be_read_are_checked_beside_one_that_could_not():
    broken = image(1)
    broken.array[0, 0, 0, 0] = np.nan
    wrong = mask()
    wrong[0, 0, 0] = 4
    problems = check(None, broken, label=volume(wrong), channel_count=2)
    assert [problem.file for problem in problems] == ["in/pet.nii.gz", "in/seg.nii.gz"]
    problems = check(None, None, label=volume(wrong), channel_count=2)
    assert "holds the label value 4" in only(problems)


def test_label_values_map_to_classes_and_back():
    labels = LabelSet(names=("background", "a", "b", "c"), values=(0, -3, 2035, 7))
    mask = np.array([[0, -3, 2035], [7, 7, 0]], np.int32)
    classes = labels.to_classes(mask)
    assert classes.tolist() == [[0, 1, 2], [3, 3, 0]]
    assert classes.dtype == np.uint8
    assert labels.to_values(classes).tolist() == mask.tolist()
    assert labels.foreground == {"a": 1, "b": 2, "c": 3}
    for wrong in (-4, 1, 2036):
        with pytest.raises(ValueError, match=r"outside \[-3, 0, 7, 2035\]"):
            labels.to_classes(np.array([0, wrong]))


def test_more_than_256_labels_take_two_bytes():
    labels = LabelSet(names=tuple(f"l{index}" for index in range(300)), values=tuple(range(0, 3000, 10)))
    mask = np.array([0, 2550, 2560, 2990])
    classes = labels.to_classes(mask)
    assert classes.dtype == np.uint16
    assert classes.tolist() == [0, 255, 256, 299]
    assert labels.to_values(classes).tolist() == mask.tolist()
