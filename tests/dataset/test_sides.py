"""Left and right by name: one parser for planning, which exchanges pairs, and the check, which looks where they lie."""

import pytest

from segfw.dataset.sides import pairs_by_name

# Names of a left and a right structure, in every way of writing that data sets have been seen with.
PAIRS = [
    ("left kidney", "right kidney"),
    ("left lung", "right lung"),
    ("kidney_left", "kidney_right"),
    ("Kidney_L", "Kidney_R"),
    ("Parotid_L", "Parotid_R"),
    ("kidney (l)", "kidney (r)"),
    ("LKidney", "RKidney"),
    ("lkidney", "rkidney"),
    ("kidneyleft", "kidneyright"),
    ("ctx-lh-cuneus", "ctx-rh-cuneus"),
    ("rib_left_1", "rib_right_1"),
    ("Lung Lt", "Lung Rt"),
    ("ParotidL", "ParotidR"),
    ("kidneyL", "kidneyR"),
    ("LeftKidney", "RightKidney"),
    ("sin_lung", "dex_lung"),
    ("Ren sinister", "Ren dexter"),
]
LEVELS = [("L1", "R1"), ("vertebra_L1", "vertebra_R1")]  # a number behind the letter: a place in a row, and no side


@pytest.mark.parametrize("left, right", PAIRS)
def test_names_that_differ_by_their_side_are_a_pair(left, right):
    assert pairs_by_name([right, "liver", "bright", "cleft", left]) == ([(left, right)], [])


@pytest.mark.parametrize("left, right", LEVELS)
def test_levels_are_no_sides(left, right):
    assert pairs_by_name([right, "liver", left]) == ([], [])
