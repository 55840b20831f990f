"""Clicks on masks, with planted networks: what is done, what is left alone, and that it can be taken back."""

import threading

import nibabel
import numpy as np
import pytest

from builders.refiner import (
    TUMOUR,
    Planted,
    as_given,
    bright,
    canonical_grid,
    ras_of,
    refiner,
    volume,
)
from builders.waiting import run_together
from segfw.base.records import UserError
from segfw.clicks.click import AsksFirst
from segfw.images.volume import Volume

SHAPE = (12, 40, 44)
GRID = canonical_grid(SHAPE)
LIVER, LEFT, RIGHT = 1, 2, 7


def two_blobs():
    """A dark image with two bright boxes, the first around voxel (5, 12, 13)."""
    image = np.zeros(SHAPE, np.float32)
    image[3:8, 9:16, 10:18] = 1
    image[3:8, 26:33, 28:36] = 1
    return image


def opened(image, mask, *networks, **how):
    return refiner(*(networks or (Planted(bright),)), **how).open(volume(image), volume(mask))


def test_without_a_click_nothing_changes_bit_for_bit():
    rng = np.random.default_rng(0)
    mask = rng.choice([0, 1, 2, 7], SHAPE).astype(np.int16)
    found = opened(two_blobs(), mask).mask
    assert found.array.dtype == np.int16
    assert (found.array[0] == mask).all()
    assert found.geometry == GRID


def test_a_click_changes_what_is_connected_with_it_and_nothing_else():
    mask = np.zeros(SHAPE, np.uint8)
    mask[9, 2:5, 2:5] = RIGHT
    case = opened(two_blobs(), mask)
    change = case.click("left kidney", ras_of(GRID, (5, 12, 13)))
    wanted = mask.copy()
    wanted[3:8, 9:16, 10:18] = LEFT
    assert (case.mask.array[0] == wanted).all()
    assert change.box == ((3, 8), (9, 16), (10, 18))
    assert (change.values == LEFT).all()
    assert change.gained == {"left kidney": 5 * 7 * 8}
    assert change.lost == {}
    assert change.changed == {"left kidney": 5 * 7 * 8}
    assert change.windows == 1
    assert change.seconds > 0


def test_the_masks_given_are_not_changed():
    image = two_blobs()
    mask = np.zeros(SHAPE, np.uint8)
    case = opened(image, mask)
    case.click("liver", ras_of(GRID, (5, 12, 13)))
    assert not mask.any()
    assert (image == two_blobs()).all()
    before = case.mask.array
    case.click("liver", ras_of(GRID, (5, 29, 30)))
    assert before[0, 5, 29, 30] == 0


def test_a_click_outside_takes_its_part_away():
    mask = np.zeros(SHAPE, np.uint8)
    mask[3:8, 9:16, 10:18] = LIVER
    mask[3:8, 26:33, 28:36] = LIVER
    case = opened(np.zeros(SHAPE, np.float32), mask)
    change = case.click("liver", ras_of(GRID, (5, 29, 30)), inside=False)
    wanted = mask.copy()
    wanted[3:8, 26:33, 28:36] = 0
    assert (case.mask.array[0] == wanted).all()
    assert change.lost == {"liver": 5 * 7 * 8}


def test_the_clicked_voxel_obeys_whatever_the_network_says():
    case = opened(two_blobs(), np.zeros(SHAPE, np.uint8), Planted(as_given))
    change = case.click("liver", ras_of(GRID, (5, 20, 20)))
    assert change.box == ((5, 6), (20, 21), (20, 21))
    assert change.gained == {"liver": 1}
    assert case.mask.array.sum() == LIVER


def test_other_labels_are_protected_unless_they_may_be_overwritten():
    mask = np.zeros(SHAPE, np.uint8)
    mask[3:8, 9:16, 15:30] = RIGHT  # of which three columns are bright
    here = ras_of(GRID, (5, 12, 12))
    case = opened(two_blobs(), mask)
    case.click("left kidney", here)
    wanted = mask.copy()
    wanted[3:8, 9:16, 10:15] = LEFT
    assert (case.mask.array[0] == wanted).all()
    case = opened(two_blobs(), mask)
    change = case.click("left kidney", here, may_overwrite=True)
    wanted[3:8, 9:16, 10:18] = LEFT
    assert (case.mask.array[0] == wanted).all()
    assert change.lost == {"right kidney": 5 * 7 * 3}


def test_neighbours_of_a_click_in_another_label_are_protected_too():
    mask = np.zeros(SHAPE, np.uint8)
    mask[:, :, 21:] = RIGHT
    case = opened(two_blobs() + np.float32(0.125), mask, Planted(lambda seen: bright(seen) * 0 + 9.0))
    case.click("left kidney", ras_of(GRID, (5, 20, 20)))
    assert (case.mask.array[0][:, :, 21:] == RIGHT).all()
    assert (case.mask.array[0][4:7, 19:22, 19:21] == LEFT).all()


def test_a_click_inside_another_label_asks_first():
    mask = np.zeros(SHAPE, np.uint8)
    mask[3:8, 9:16, 10:18] = RIGHT
    case = opened(two_blobs(), mask)
    here = ras_of(GRID, (5, 12, 13))
    with pytest.raises(
        AsksFirst, match="lies in right kidney, which left kidney would take the voxel from; give"
    ) as told:
        case.click("left kidney", here)
    assert told.value.others == ("right kidney",)
    assert (case.mask.array[0] == mask).all()
    assert case.clicks == ()
    assert case.undo() is None
    case.click("left kidney", here, may_overwrite=True)
    assert (case.mask.array[0][3:8, 9:16, 10:18] == LEFT).all()


def test_a_click_outside_a_label_within_another_is_no_question():
    mask = np.zeros(SHAPE, np.uint8)
    mask[3:8, 9:16, 10:18] = RIGHT
    case = opened(two_blobs(), mask, Planted(as_given))
    case.click("left kidney", ras_of(GRID, (5, 12, 13)), inside=False)
    assert (case.mask.array[0] == mask).all()


def test_earlier_clicks_are_still_obeyed():
    mask = np.zeros(SHAPE, np.uint8)
    case = opened(two_blobs(), mask)
    case.click("liver", ras_of(GRID, (5, 10, 11)), inside=False)
    case.click("liver", ras_of(GRID, (5, 14, 16)))
    found = case.mask.array[0]
    assert found[5, 10, 11] == 0
    assert found[5, 14, 16] == LIVER
    assert found[3:8, 9:16, 10:18].sum() == 5 * 7 * 8 - 1
    case.click("liver", ras_of(GRID, (5, 10, 11)))  # the same voxel: the last word counts
    assert case.mask.array[0][5, 10, 11] == LIVER


def test_an_earlier_clicked_voxel_does_not_give_way_to_a_neighbour():
    case = opened(np.zeros(SHAPE, np.float32), np.zeros(SHAPE, np.uint8), Planted(as_given))
    case.click("liver", ras_of(GRID, (5, 20, 20)))
    case.click("liver", ras_of(GRID, (5, 20, 21)), inside=False)
    found = case.mask.array[0]
    assert found[5, 20, 20] == LIVER
    assert found[5, 20, 21] == 0


def test_undo_restores_every_voxel_step_by_step():
    rng = np.random.default_rng(1)
    mask = np.zeros(SHAPE, np.uint8)
    mask[3:8, 9:16, 15:30] = RIGHT
    case = opened(two_blobs(), mask)
    states = [case.mask.array.copy()]
    for _ in range(12):
        voxel = tuple(int(rng.integers(size)) for size in SHAPE)
        case.click(
            str(rng.choice(["liver", "left kidney", "right kidney"])),
            ras_of(GRID, voxel),
            bool(rng.random() < 0.8),
            may_overwrite=True,
        )
        states.append(case.mask.array.copy())
    assert len({state.tobytes() for state in states}) > 6
    for number in range(11, -1, -1):
        assert len(case.clicks) == number + 1
        change = case.undo()
        assert (case.mask.array == states[number]).all()
        z, y, x = (slice(start, stop) for start, stop in change.box)
        assert (change.values == states[number][0][z, y, x]).all()
    assert case.undo() is None
    assert (case.mask.array[0] == mask).all()


def test_undo_leaves_what_was_drawn_since():
    case = opened(two_blobs(), np.zeros(SHAPE, np.uint8))
    case.click("liver", ras_of(GRID, (5, 12, 13)))
    case.set_mask(np.full((1, 2, 3), RIGHT, np.uint8), ((5, 6), (12, 14), (12, 15)))
    assert case.mask.array[0][5, 12, 13] == RIGHT
    case.undo()
    found = case.mask.array[0]
    assert (found[5, 12:14, 12:15] == RIGHT).all()
    assert np.count_nonzero(found) == 6


def test_the_network_sees_the_image_the_structure_the_others_and_the_clicks():
    planted = Planted(as_given)
    image = two_blobs() + np.float32(0.125)  # nowhere 0, so that nothing is cropped
    mask = np.zeros(SHAPE, np.uint8)
    mask[3:8, 9:16, 10:18] = LIVER
    mask[1, 1, 1] = RIGHT
    case = opened(image, mask, planted, patch_size=(16, 48, 48))
    case.click("liver", ras_of(GRID, (5, 30, 30)))
    case.click("right kidney", ras_of(GRID, (9, 35, 5)), inside=False)
    case.click("liver", ras_of(GRID, (5, 12, 13)), inside=False)
    (seen,) = planted.seen[-1]
    inside = (slice(2, 14), slice(4, 44), slice(2, 46))  # an image of 12, 40, 44 in the middle of 16, 48, 48
    assert (seen[0][inside] == image).all()
    before = mask.copy()
    before[5, 30, 30] = LIVER
    assert (seen[1][inside] == (before == LIVER)).all()
    assert (seen[2][inside] == (mask == RIGHT)).all()
    assert seen[3][inside][5, 30, 30] == pytest.approx(1)
    assert seen[4][inside][5, 12, 13] == pytest.approx(1)
    assert seen[4][inside][9, 35, 5] == 0  # of another structure
    assert seen.shape == (5, 16, 48, 48)
    outside = seen[:3].copy()
    outside[(slice(None), *inside)] = 0
    assert not outside.any()


def test_folds_are_averaged():
    image = two_blobs()
    certain = Planted(lambda seen: bright(seen) * 0 - 9.0)
    doubtful = Planted(lambda seen: bright(seen) * 0 + 9.0)
    case = opened(image, np.zeros(SHAPE, np.uint8), certain, doubtful)
    assert case.click("liver", ras_of(GRID, (5, 12, 13))).gained == {"liver": 1}
    case = opened(image, np.zeros(SHAPE, np.uint8), certain, doubtful, doubtful)
    assert case.click("liver", ras_of(GRID, (5, 12, 13))).gained["liver"] > 1000


def test_the_right_channel_is_seen():
    image = np.stack([np.zeros(SHAPE, np.float32), two_blobs()])
    case = opened(image, np.zeros(SHAPE, np.uint8), Planted(lambda seen: bright(seen, 1)), channels=("T1", "T2"))
    case.click("liver", ras_of(GRID, (5, 12, 13)))
    assert (case.mask.array[0] == LIVER).sum() == 5 * 7 * 8


def test_a_change_that_runs_out_of_the_window_is_followed():
    shape = (20, 20, 120)
    grid = canonical_grid(shape)
    image = np.zeros(shape, np.float32)
    image[4:16, 4:16, 5:70] = 1
    case = refiner(Planted(bright), patch_size=(24, 24, 24)).open(
        volume(image, grid), volume(np.zeros(shape, np.uint8), grid)
    )
    change = case.click("liver", ras_of(grid, (10, 10, 12)))
    found = case.mask.array[0]
    assert 3 <= change.windows <= 5
    assert found[image == 0].sum() == 0
    assert found[..., :60].sum() == 12 * 12 * 55


def test_no_more_than_four_further_windows_are_looked_at():
    shape = (20, 20, 400)
    grid = canonical_grid(shape)
    image = np.zeros(shape, np.float32)
    image[4:16, 4:16] = 1
    planted = Planted(bright)
    case = refiner(planted, patch_size=(24, 24, 24)).open(volume(image, grid), volume(np.zeros(shape, np.uint8), grid))
    assert case.click("liver", ras_of(grid, (10, 10, 200))).windows == 5
    assert len(planted.seen) == 5
    assert 48 * 144 < case.mask.array.sum() < 120 * 144


def test_a_small_change_at_the_border_is_not_followed():
    shape = (20, 20, 120)
    grid = canonical_grid(shape)
    image = np.zeros(shape, np.float32)
    image[9:11, 9:11, 5:70] = 1
    case = refiner(Planted(bright), patch_size=(24, 24, 24)).open(
        volume(image, grid), volume(np.zeros(shape, np.uint8), grid)
    )
    assert case.click("liver", ras_of(grid, (10, 10, 12))).windows == 1


@pytest.mark.parametrize("spacing_mm", [(2.0, 2.0, 2.0), (6.0, 1.0, 1.0), (1.5, 0.7, 0.9), (3.0, 1.0, 1.5)])
def test_on_a_grid_of_another_spacing_only_the_change_is_resampled(spacing_mm):
    image = two_blobs()
    mask = np.zeros(SHAPE, np.uint8)
    rng = np.random.default_rng(3)
    mask[:, 30:, :] = rng.choice([0, LIVER, RIGHT], (SHAPE[0], 10, SHAPE[2]))  # which no resampling would keep
    case = opened(image, mask, spacing_mm=spacing_mm)
    case.click("left kidney", ras_of(GRID, (5, 12, 13)))
    found = case.mask.array[0]
    assert (found[:, 20:] == mask[:, 20:]).all()
    blob = image[:, :20] > 0
    overlap = 2 * np.count_nonzero(blob & (found[:, :20] == LEFT)) / (blob.sum() + (found == LEFT).sum())
    assert overlap > 0.75
    assert found[5, 12, 13] == LEFT


def test_a_mask_that_the_network_agrees_with_is_left_as_it_is_whatever_the_spacing():
    image = two_blobs()
    mask = np.zeros(SHAPE, np.uint8)
    mask[image > 0] = LIVER
    mask[3, 9:16, 10:18] = 0  # less than the network's grid can tell
    mask[5, 10, 10] = 0
    for spacing_mm in ((6.0, 2.0, 3.0), (9.0, 3.0, 4.5)):
        case = opened(image, mask, Planted(as_given), spacing_mm=spacing_mm)
        case.click("liver", ras_of(GRID, (5, 12, 13)))
        assert (case.mask.array[0] == mask).all()


def test_a_click_outside_the_part_that_is_not_empty_is_obeyed_too():
    image = two_blobs()  # the crop ends with it
    case = opened(image, np.zeros(SHAPE, np.uint8))
    change = case.click("liver", ras_of(GRID, (10, 38, 2)))
    assert change.windows == 0
    assert change.gained == {"liver": 1}


def test_regions_overlap_and_are_no_enemies():
    mask = np.zeros(SHAPE, np.uint8)
    mask[3:8, 9:16, 10:30] = 1  # the whole alone
    case = opened(two_blobs(), mask, labels=TUMOUR)
    change = case.click("inner", ras_of(GRID, (5, 12, 13)))
    assert change.gained == {"inner": 5 * 7 * 8}
    assert change.lost == {}
    assert (case.mask.array[0][3:8, 9:16, 10:18] == 2).all()
    change = case.click("inner", ras_of(GRID, (5, 12, 13)), inside=False)
    assert set(change.lost) == {"inner"}
    assert case.mask.array[0][5, 12, 13] == 1  # still of the whole
    case.click("bright", ras_of(GRID, (5, 10, 12)))
    with pytest.raises(AsksFirst, match="would take the voxel out of bright and inner, too"):
        case.click("whole", ras_of(GRID, (5, 10, 12)), inside=False)
    case.click("whole", ras_of(GRID, (5, 10, 12)), inside=False, may_overwrite=True)
    assert case.mask.array[0][5, 10, 12] == 0


def test_a_float_mask_keeps_its_type_and_the_voxels_that_nobody_changed():
    mask = np.zeros(SHAPE, np.float32)
    mask[1, 1, 1] = 0.9999
    case = opened(two_blobs(), mask)
    case.click("liver", ras_of(GRID, (5, 12, 13)))
    found = case.mask.array[0]
    assert found.dtype == np.float32
    assert found[1, 1, 1] == np.float32(0.9999)
    assert found[5, 12, 13] == 1


def test_a_value_without_a_name_can_be_corrected_too():
    mask = np.zeros(SHAPE, np.uint8)
    mask[2, 2, 2] = 9
    case = opened(two_blobs(), mask)
    case.click("label_9", ras_of(GRID, (5, 12, 13)))
    assert (case.mask.array[0] == 9).sum() == 5 * 7 * 8 + 1


def test_without_a_mask_one_begins_with_nothing():
    case = refiner(Planted(bright)).open(volume(two_blobs()))
    case.click("\u53f3\u80be", ras_of(GRID, (5, 12, 13)))
    assert (case.mask.array[0] == RIGHT).sum() == 5 * 7 * 8


@pytest.mark.parametrize("library", ["SimpleITK", "nibabel"])
def test_image_and_mask_may_be_of_another_library(library):
    mask = np.zeros(SHAPE, np.uint8)
    mask[9, 2:5, 2:5] = LEFT
    if library == "nibabel":
        given = [nibabel.Nifti1Image(array.transpose(2, 1, 0), np.eye(4)) for array in (two_blobs(), mask)]
    else:
        SimpleITK = pytest.importorskip("SimpleITK")
        given = [SimpleITK.GetImageFromArray(array) for array in (two_blobs(), mask)]
    case = refiner(Planted(bright)).open(*given)
    assert case.click("liver", (13, 12, 5) if library == "nibabel" else (-13, -12, 5)).gained == {"liver": 5 * 7 * 8}
    assert (case.mask.array[0] == LEFT).sum() == 9


@pytest.mark.parametrize(
    "mask, kind",
    [(np.zeros(SHAPE, np.uint8), "an array"), (["mask.nii.gz"], "a list"), ({}, "a dict")],
)
def test_a_mask_that_does_not_say_where_it_lies_is_refused(mask, kind):
    said = f"^the mask is {kind}; give one file, a Volume, or an image of SimpleITK or nibabel$"
    with pytest.raises(UserError, match=said):
        refiner(Planted(bright)).open(volume(two_blobs()), mask)


def test_threads_may_share_a_case():
    case = opened(two_blobs(), np.zeros(SHAPE, np.uint8), patch_size=(16, 16, 16))
    rng = np.random.default_rng(5)
    voxels = {tuple(int(rng.integers(size)) for size in SHAPE) for _ in range(24)}
    threads = [threading.Thread(target=case.click, args=("liver", ras_of(GRID, voxel))) for voxel in voxels]
    run_together(threads)
    assert len(case.clicks) == len(voxels)
    assert all(case.mask.array[0][voxel] == LIVER for voxel in voxels)
    for _ in voxels:
        assert case.undo() is not None
    assert case.undo() is None
    assert not case.mask.array.any()


def test_clicks_are_told_as_they_were_understood():
    case = opened(two_blobs(), np.zeros(SHAPE, np.uint8))
    x, y, z = ras_of(GRID, (5, 12, 13))
    case.click("kidney_left", (x + 0.4, y - 0.3, z + 1))
    (click,) = case.clicks
    assert click.label == "left kidney"
    assert click.ras_mm == pytest.approx((x, y, z))
    assert case.value_at((x, y, z)) == LEFT


def test_a_closed_case_says_so():
    case = opened(two_blobs(), np.zeros(SHAPE, np.uint8))
    assert case.held_bytes > two_blobs()[3:8].nbytes / 4
    with case:
        pass
    with pytest.raises(UserError, match="this case was closed; open it again"):
        case.click("liver", ras_of(GRID, (5, 12, 13)))


@pytest.mark.parametrize(
    ("voxel", "label", "said"),
    [
        ((12, 5, 5), "liver", r"lies outside the image \(voxel 12, 5, 5 of 12 x 40 x 44, z first\)"),
        ((-1, 5, 5), "liver", "lies outside the image"),
        ((5, 5, 1e300), "liver", r"lies outside the image \(voxel 5, 5, 1e\+300 of"),
        ((5, 5, 5), "spleen", "'spleen' .* has no label here; did you mean"),
        ((5, 5, 5), "kidney", "'kidney' is left kidney and right kidney; a click is of one of them"),
    ],
)
def test_a_click_that_cannot_be_is_refused_and_changes_nothing(voxel, label, said):
    case = opened(two_blobs(), np.zeros(SHAPE, np.uint8))
    with pytest.raises(UserError, match=said):
        case.click(label, ras_of(GRID, voxel))
    assert not case.mask.array.any()
    assert case.clicks == ()


NO_POINTS = [
    (np.nan, 0, 0),
    (0, np.inf, 0),
    (0, 0, -np.inf),
    (1, 2),
    (1, 2, 3, 4),
    (),
    None,
    5,
    "1,2",
    ("1", "2", "3"),
    (True, 0, 0),
    (1, 2, None),
    (1, 2, 10**400),
    np.full(3, np.nan, np.float32),
    np.zeros((3, 1, 2)),
]


@pytest.mark.parametrize("ras_mm", NO_POINTS)
def test_what_is_no_point_is_refused_in_a_sentence(ras_mm):
    case = opened(two_blobs(), np.zeros(SHAPE, np.uint8))
    with pytest.raises(UserError, match=r"^the click lies at .*; give three finite numbers, RAS millimetres$"):
        case.click("liver", ras_mm)
    with pytest.raises(UserError, match=r"^the point lies at .*; give three finite numbers, RAS millimetres$"):
        case.value_at(ras_mm)
    assert case.clicks == ()
    assert not case.mask.array.any()


def test_a_click_on_no_name_or_of_no_kind_is_refused_in_a_sentence():
    case = opened(two_blobs(), np.zeros(SHAPE, np.uint8))
    here = ras_of(GRID, (5, 12, 13))
    for label in ("", None, 3):
        with pytest.raises(UserError, match="which is no name of a structure; name a label or region"):
            case.click(label, here)
    for inside in (1, "no", None):
        with pytest.raises(UserError, match="the click has inside .*; it is True or False"):
            case.click("liver", here, inside)
    assert case.clicks == ()


def test_a_point_may_be_an_array_of_any_kind_of_numbers():
    case = opened(two_blobs(), np.zeros(SHAPE, np.uint8))
    here = np.array(ras_of(GRID, (5, 12, 13)), dtype=np.float32)
    case.click("liver", here, np.bool_(True))
    assert case.value_at(here) == LIVER
    assert case.clicks[0].inside is True


def test_a_forgotten_click_binds_no_later_one_and_leaves_the_mask():
    case = opened(two_blobs(), np.zeros(SHAPE, np.uint8))
    case.click("liver", ras_of(GRID, (5, 12, 13)))
    case.click("liver", ras_of(GRID, (5, 28, 30)))
    drawn = case.mask.array.copy()
    case.forget()
    assert len(case.clicks) == 1
    assert (case.mask.array == drawn).all()
    case.undo()  # the first one: the step of the forgotten one is gone with it
    assert case.mask.array[0][5, 28, 30] == LIVER
    assert not case.mask.array[0][5, 12, 13]
    case.forget()
    assert case.clicks == ()


def test_the_border_voxels_are_inside():
    case = opened(two_blobs(), np.zeros(SHAPE, np.uint8))
    case.click("liver", ras_of(GRID, (-0.49, -0.49, 43.49)))
    assert case.mask.array[0][0, 0, 43] == LIVER


def test_an_image_with_other_channels_is_refused():
    with pytest.raises(UserError, match=r"the image has 1 channel, but the refiner was trained on 2 \(T1, T2\)"):
        refiner(Planted(bright), channels=("T1", "T2")).open(volume(two_blobs()))


def test_a_mask_on_another_grid_is_refused():
    with pytest.raises(UserError, match=r"the mask: lies on another grid than the image \(shape .*; resample it"):
        opened(two_blobs(), np.zeros((12, 40, 43), np.uint8))


def test_a_mask_of_several_channels_is_refused():
    two = Volume(array=np.zeros((2, *SHAPE), np.uint8), geometry=GRID)
    with pytest.raises(UserError, match="the mask: has 2 channels; give one"):
        refiner(Planted(bright)).open(volume(two_blobs()), two)


def test_what_is_no_mask_is_refused():
    with pytest.raises(UserError, match="the mask: holds .* not integers"):
        opened(two_blobs(), two_blobs() * 0.5)


def test_values_that_are_no_label_are_not_taken_over():
    case = opened(two_blobs(), np.zeros(SHAPE, np.uint8))
    with pytest.raises(ValueError, match="5 is no label"):
        case.set_mask(np.full(SHAPE, 5, np.uint8))
    with pytest.raises(ValueError, match="do not fit"):
        case.set_mask(np.zeros((1, 2, 3), np.uint8))
