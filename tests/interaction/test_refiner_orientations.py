"""The same patient stored with axes in every order and direction, oblique too: the same change of the same tissue."""

import numpy as np
import pytest

from builders.grids import ORIENTATIONS
from builders.refiner import Planted, as_given, bright, canonical_grid, ras_of, refiner
from segfw.images.geometry import Geometry
from segfw.images.volume import AS_STORED, Volume, stored_like, to_canonical

SHAPE = (9, 26, 20)
SPACING_MM = (3.0, 1.0, 1.5)
CLICKED = (4, 8, 11)
SOME = ORIENTATIONS[::5]  # ten of the 48, all orders of axes among them


def tilted(geometry: Geometry, degrees: float = 12.0) -> Geometry:
    """Turned about two axes of the body."""
    cosine = np.cos(np.deg2rad(degrees))
    sine = np.sin(np.deg2rad(degrees))
    about_x = np.array([[1, 0, 0, 0], [0, cosine, -sine, 0], [0, sine, cosine, 0], [0, 0, 0, 1]])
    about_z = np.array([[cosine, -sine, 0, 0], [sine, cosine, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    return Geometry.of(geometry.shape, about_x @ about_z @ geometry.matrix)


def stored_as(volume: Volume, order, signs) -> Volume:
    """With its axes permuted and flipped, by NumPy alone."""
    array = volume.array[0].transpose(order)
    affine = volume.geometry.matrix[:, [*order, 3]].copy()
    for axis, sign in enumerate(signs):
        if sign < 0:
            array = np.flip(array, axis)
            affine[:, 3] += affine[:, axis] * (array.shape[axis] - 1)
            affine[:, axis] *= -1
    return Volume(array=np.ascontiguousarray(array)[None], geometry=Geometry.of(array.shape, affine))


def patient(is_oblique: bool) -> tuple[Volume, Volume]:
    """An image with a bright box of unequal edges, and a mask with two labels, one of them beside it."""
    grid = canonical_grid(SHAPE, SPACING_MM)
    grid = tilted(grid) if is_oblique else grid
    image = np.full(SHAPE, 0.1, np.float32)
    image[3:7, 5:12, 8:17] = 1
    mask = np.zeros(SHAPE, np.uint8)
    mask[5:8, 9:20, 2:6] = 1
    mask[0, 0, 0] = 7
    return Volume(array=image[None], geometry=grid), Volume(array=mask[None], geometry=grid)


@pytest.mark.parametrize("is_oblique", [False, True])
@pytest.mark.parametrize(("order", "signs"), SOME)
def test_whatever_the_order_of_axes_the_same_tissue_changes(order, signs, is_oblique):
    image, mask = patient(is_oblique)
    here = ras_of(image.geometry, CLICKED)
    for planted, spacing_mm in ((bright, SPACING_MM), (bright, (2.0, 1.5, 1.5)), (as_given, (2.0, 1.5, 1.5))):
        made = refiner(Planted(planted), patch_size=(12, 16, 16), spacing_mm=spacing_mm)
        plain = made.open(image, mask)
        plain.click("left kidney", here)
        made = refiner(Planted(planted), patch_size=(12, 16, 16), spacing_mm=spacing_mm)
        turned_mask = stored_as(mask, order, signs)
        case = made.open(stored_as(image, order, signs), turned_mask)
        change = case.click("left kidney", here)
        found = case.mask
        assert found.geometry == turned_mask.geometry
        assert found.array.shape == turned_mask.array.shape
        box = tuple(slice(start, stop) for start, stop in change.box)
        assert (found.array[0][box] == change.values).all()
        outside = found.array[0] != turned_mask.array[0]
        outside[box] = False
        assert not outside.any()
        wanted = stored_as(plain.mask, order, signs)
        np.testing.assert_array_equal(found.array, wanted.array)
        assert np.count_nonzero(found.array == 2) > (200 if planted is bright else 0)
        case.undo()
        np.testing.assert_array_equal(case.mask.array, turned_mask.array)


@pytest.mark.parametrize(("order", "signs"), SOME)
def test_a_mask_may_be_stored_otherwise_than_its_image(order, signs):
    image, mask = patient(is_oblique=True)
    here = ras_of(image.geometry, CLICKED)
    plain = refiner(Planted(bright), patch_size=(12, 16, 16)).open(image, mask)
    plain.click("left kidney", here)
    turned = stored_as(mask, order, signs)
    case = refiner(Planted(bright), patch_size=(12, 16, 16)).open(image, turned)
    change = case.click("left kidney", here)
    assert case.mask.geometry == turned.geometry
    np.testing.assert_array_equal(case.mask.array, stored_as(plain.mask, order, signs).array)
    box = tuple(slice(start, stop) for start, stop in change.box)
    assert (case.mask.array[0][box] == change.values).all()
    assert (change.values == 2).all()
    np.testing.assert_array_equal(stored_like(case.mask, mask).array, plain.mask.array)


def test_a_model_that_takes_axes_as_stored_sees_the_image_so():
    image, mask = patient(is_oblique=False)
    planted = Planted(bright)
    order, signs = (2, 0, 1), (1, -1, 1)
    turned = stored_as(image, order, signs)
    case = refiner(planted, patch_size=(24, 16, 32), spacing_mm=(1.5, 3.0, 1.0), orientation=AS_STORED).open(
        turned, stored_as(mask, order, signs)
    )
    case.click("left kidney", ras_of(image.geometry, CLICKED))
    (seen,) = planted.seen
    window = seen[0][0][2:22, 3:12, 3:29]
    np.testing.assert_allclose(window, turned.array[0], rtol=1e-3)
    expected = mask.array[0].copy()
    expected[3:7, 5:12, 8:17] = 2
    np.testing.assert_array_equal(to_canonical(case.mask).array[0], expected)
