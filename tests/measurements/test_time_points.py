"""Which of a patient's cases was first, by their names."""

import pytest

from segfw.measurements.time_points import series_in_time


@pytest.mark.parametrize(
    "names",
    [
        ("P1_pre", "P1_post"),
        ("P1_baseline", "P1_followup"),
        ("P1_baseline", "P1_Follow-Up"),
        ("P1_baseline", "P1_week4", "P1_week12"),
        ("P1_ed", "P1_es"),
        ("P1_diastole", "P1_systole"),
        ("P1", "P1_followup"),
        ("P1_t9", "P1_t10"),
        ("P1_pre", "P1_post1", "P1_post2"),
        ("patient012_frame01", "patient012_frame10"),
        ("sub-01_ses-2", "sub-01_ses-10"),
        ("BraTS-GLI-00001-000", "BraTS-GLI-00001-001"),
        ("OAS30001_MR2", "OAS30001_MR11"),
        ("P1_2019-12-30", "P1_2021-03-04"),
        ("P1_20191230", "P1_20210304"),
        ("张三_术前", "张三_术后"),
    ],
)
def test_words_and_numbers_tell_the_order(names):
    assert series_in_time(reversed(names)) == [list(names)]


@pytest.mark.parametrize(
    "names",
    [
        ("P1_left", "P1_right"),
        ("P1_od", "P1_os"),
        ("P1_slice1", "P1_slice2"),
        ("P1_slice_1", "P1_slice_2"),
        ("P1_arterial", "P1_venous"),
        ("P1_L1", "P1_L2"),
        ("P1_T1w", "P1_T2w"),
        ("P1_scanA", "P1_scanB"),
        ("P1_month3", "P1_week4"),  # whichever is first, the numbers do not say it
        ("P1_pre", "P1_ed"),
        ("P1_1", "P1-01"),
    ],
)
def test_what_is_no_time_is_in_no_order(names):
    assert sorted(series_in_time(names)) == sorted([name] for name in names)


def test_sides_are_followed_each_by_itself():
    names = ("P1_left_t1", "P1_left_t2", "P1_right_t1", "P1_right_t2")
    assert series_in_time(names) == [["P1_left_t1", "P1_left_t2"], ["P1_right_t1", "P1_right_t2"]]
