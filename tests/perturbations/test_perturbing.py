"""Every change at every level: on every kind of image, the same each time, and stronger with its level."""

import numpy as np
import pytest
from scipy import ndimage

from segfw.images.geometry import Geometry
from segfw.images.volume import Volume
from segfw.perturbations.metal import METAL_HU, with_streaks
from segfw.perturbations.perturbation import Perturbation
from segfw.perturbations.perturbing import (
    SERIES,
    is_possible,
    other_scale_inside,
    perturbations_of,
    perturbed,
)
from segfw.perturbations.regridding import on_grid


def image_of(kind):
    rng = np.random.default_rng(1)
    shape, spacing_mm, dtype, channels = {
        "ct": ((12, 26, 24), (3.0, 0.8, 0.8), np.int16, 1),
        "mr of two channels": ((20, 18, 16), (1.0, 1.0, 1.0), np.uint16, 2),
        "cine": ((7, 30, 28), (10.0, 1.5, 1.5), np.float32, 1),
        "picture": ((1, 32, 24), (1.0, 1.0, 1.0), np.uint8, 3),
    }[kind]
    smooth = ndimage.gaussian_filter(rng.standard_normal((channels, *shape)), (0, 1, 1.5, 1.5))
    array = (120 + 300 * smooth).clip(0, 250).astype(dtype)
    affine = np.diag([*spacing_mm, 1.0])[[2, 1, 0, 3]]
    is_placed = kind != "picture"
    return Volume(array=array, geometry=Geometry.of(shape, affine), is_placed=is_placed, is_picture=not is_placed)


KINDS = ("ct", "mr of two channels", "cine", "picture")


@pytest.mark.parametrize("name", SERIES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_change_gives_an_image_of_its_header(kind, name):
    volume = image_of(kind)
    if not is_possible(volume, name):
        assert kind == "picture"
        assert name == "slice distance"
        return
    before = volume.array.copy()
    for change in perturbations_of(name, is_quick=False):
        found = perturbed(volume, change, np.random.default_rng(2))
        again = perturbed(volume, change, np.random.default_rng(2))
        assert (volume.array == before).all()
        assert found.array.shape == (len(before), *found.geometry.shape)
        assert np.isfinite(found.array).all()
        assert found.array.shape != before.shape or (found.array != before).any()
        assert (found.geometry != volume.geometry) == SERIES[name].moves
        np.testing.assert_array_equal(found.array, again.array)


@pytest.mark.parametrize("name", [name for name, series in SERIES.items() if len(series.levels) > 1])
@pytest.mark.parametrize("kind", ["ct", "mr of two channels"])
def test_a_higher_level_changes_more(kind, name):
    volume = image_of(kind)
    differences = []
    for change in perturbations_of(name, is_quick=False):
        found = perturbed(volume, change, np.random.default_rng(4))
        back = on_grid(found, volume.geometry).array if SERIES[name].moves else found.array
        differences.append(np.square(back - volume.array, dtype=np.float64).mean())
    assert sorted(differences) == differences
    assert len(set(differences)) == len(differences)


def test_quick_levels_are_among_all():
    for name in SERIES:
        every = perturbations_of(name, is_quick=False)
        quick = perturbations_of(name, is_quick=True)
        assert set(quick) <= set(every)
        assert len(quick) == 1


def test_levels_of_one_noise_are_one_noise():
    volume = image_of("cine")
    mild, strong = (
        perturbed(volume, Perturbation(name="noise", kind="degrades", level=level), np.random.default_rng(5)).array
        for level in (0.1, 0.3)
    )
    np.testing.assert_allclose((strong - volume.array), 3 * (mild - volume.array), atol=1e-3)


def test_an_unknown_change_is_refused():
    with pytest.raises(ValueError, match="unknown change 'rain'"):
        perturbed(image_of("ct"), Perturbation(name="rain", kind="near"), np.random.default_rng(0))


def test_what_is_outside_of_an_image_stays_outside_on_another_scale():
    volume = image_of("ct")
    volume.array[:, :3] = 0
    outside = volume.array == 0
    found = other_scale_inside(volume)
    assert (found.array[outside] == 0).all()
    np.testing.assert_allclose(found.array[~outside], volume.array[~outside] * 37.0 + 500)


def test_streaks_begin_at_metal_and_end_a_few_slices_away():
    volume = image_of("ct")
    found = with_streaks(volume, 300.0, (0,), np.random.default_rng(0)).array[0]
    metal = np.argwhere(found == METAL_HU)
    assert len(metal) > 3
    away_mm = 3.0 * np.abs(np.arange(12) - metal[:, 0].mean())
    is_changed = (found != volume.array[0]).any((1, 2))
    assert is_changed[away_mm < 10].all()
    assert not is_changed[away_mm > 20].any()
    changes = found - volume.array[0]
    assert changes[found != METAL_HU].min() < -30
    assert np.abs(changes[found != METAL_HU]).max() <= 300


def test_a_perturbation_says_what_it_is():
    assert Perturbation(name="blur", kind="degrades", level=1.5, unit="mm").text == "blur 1.5 mm"
    assert Perturbation(name="origin", kind="exact").text == "origin"
    assert Perturbation(name="slice distance", kind="degrades", level=3, unit="x", unchanged=1).strength == 2
