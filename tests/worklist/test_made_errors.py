"""Errors that are made on purpose: each is what it says, and nothing else in the mask changes."""

import re

import numpy as np
import pytest
from scipy.ndimage import label

from segfw.worklist.made_errors import KINDS, MaskedStructure, made_error
from segfw.worklist.planted_cases import new_name, placed_among

SPACING_MM = (2.5, 1.0, 1.25)


def masked(other_side=(3,)):
    """A box of 6 x 10 x 8 voxels of value 2, one of 4 x 4 x 4 of value 3, and background 0."""
    values = np.zeros((20, 40, 40), np.uint8)
    values[7:13, 5:15, 6:14] = 2
    values[8:12, 30:34, 30:34] = 3
    return MaskedStructure(values_zyx=values, own=(2,), other_side=other_side, background=0, spacing_mm=SPACING_MM)


def test_a_fifth_is_erased_in_one_part():
    mask = masked()
    for seed in range(10):
        changed = made_error(mask, "erased", np.random.default_rng(seed))
        gone = mask.values_zyx != changed
        assert gone.sum() == 96  # of 480
        assert (changed[gone] == 0).all()
        assert (mask.values_zyx[gone] == 2).all()
        assert label(gone)[1] == 1


def test_sides_are_exchanged():
    mask = masked()
    changed = made_error(mask, "exchanged", np.random.default_rng(0))
    assert ((changed == 2) == (mask.values_zyx == 3)).all()
    assert ((changed == 3) == (mask.values_zyx == 2)).all()
    assert made_error(masked(other_side=()), "exchanged", np.random.default_rng(0)) is None


def test_it_is_moved_by_five_millimetres():
    mask = masked()
    before = np.argwhere(mask.values_zyx == 2).mean(0)
    seen = set()
    for seed in range(30):
        changed = made_error(mask, "shifted", np.random.default_rng(seed))
        moved_mm = (np.argwhere(changed == 2).mean(0) - before) * SPACING_MM
        assert sorted(np.abs(moved_mm).round(6).tolist()) == [0, 0, 5]
        assert (changed == 2).sum() == 480
        seen.add(tuple(np.sign(moved_mm).round().tolist()))
    assert len(seen) == 6


def test_it_is_not_moved_out_of_the_image():
    values = np.full((3, 12, 12), 2, np.uint8)
    mask = MaskedStructure(values_zyx=values, own=(2,), other_side=(), background=0, spacing_mm=(1.0, 1.0, 1.0))
    assert made_error(mask, "shifted", np.random.default_rng(0)) is None


def test_an_island_lies_apart_and_has_a_tenth():
    mask = masked()
    for seed in range(10):
        changed = made_error(mask, "island", np.random.default_rng(seed))
        more = mask.values_zyx != changed
        assert more.sum() == 48
        assert (mask.values_zyx[more] == 0).all()
        assert (changed[more] == 2).all()
        assert label(changed == 2)[1] == 2
    full = MaskedStructure(
        values_zyx=np.full((9, 9, 9), 2, np.uint8), own=(2,), other_side=(), background=0, spacing_mm=SPACING_MM
    )
    assert made_error(full, "island", np.random.default_rng(0)) is None


def test_nothing_is_made_of_what_is_hardly_there():
    values = np.zeros((9, 9, 9), np.uint8)
    values[4, 4, :5] = 2
    mask = MaskedStructure(values_zyx=values, own=(2,), other_side=(), background=0, spacing_mm=SPACING_MM)
    assert all(made_error(mask, kind, np.random.default_rng(0)) is None for kind in KINDS)


@pytest.mark.parametrize(
    "source, pattern",
    [("scan_017", r"scan_\d{3}"), ("sub-04_ses-02", r"sub-04_ses-\d{3}"), ("Müller", r"Müller_\d{3}")],
)
def test_a_planted_case_is_called_like_the_others(source, pattern):
    rng = np.random.default_rng(4)
    names = {new_name(source, {source}, rng) for _ in range(50)}
    assert all(re.fullmatch(pattern, name) for name in names)
    assert source not in names
    taken = {f"a{number:03d}" for number in range(1000)}
    assert new_name("a000", taken, rng) not in taken


def test_planted_cases_stand_at_different_places():
    rng = np.random.default_rng(0)
    places = placed_among(5, 20, rng)
    assert len(set(places)) == 5
    assert places == sorted(places)
    assert max(places) <= 20
