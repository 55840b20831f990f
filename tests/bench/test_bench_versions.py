"""The table that puts two checkouts beside each other."""

from bench.versions import table


def test_the_ratio_is_of_each_round_and_not_of_the_medians():
    rounds = [(10.0, 5.0), (2.0, 4.0), (4.0, 3.0)]  # ratios 0.5, 2 and 0.75; medians 4 and 4
    assert table({"training": rounds}).splitlines()[-1] == "| training | 4.00 | 4.00 | 0.750 (0.500 to 2.000) |"
