"""Scores by groups: counted by hand, tested at the level that is promised, and written wherever scores are."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from builders.masks import LABELS, box, folders, geometry, rows_of
from segfw.base.records import UserError
from segfw.cli import main
from segfw.dataset.labels import LabelSet
from segfw.evaluation.case_traits import CaseTraits, case_traits, thirds
from segfw.evaluation.group_scores import CASE_MEAN, group_scores
from segfw.evaluation.group_statistics import PatientSums, holm, largest_gap, permutation_p
from segfw.evaluation.group_text import groups_text
from segfw.evaluation.groupings import Column, Grouping
from segfw.evaluation.metrics import LabelScore, Scores
from segfw.images.units import PICTURE, SCAN, SLICE
from segfw.verbs.evaluate import evaluate

RUNS = 1000
ONE = LabelSet(names=("background", "liver"), values=(0, 1))


# ---- the statistics ----


def test_a_permutation_p_is_that_of_all_permutations():
    """Against every assignment of 6 patients, of whom one has two cases, to groups of 2 and 4; of 720 orders."""
    sums = np.array([0.9, 0.8, 0.5, 1.2, 0.7, 0.6])
    counts = np.array([1.0, 1, 1, 2, 1, 1])
    group = np.array([0, 1, 1, 0, 1, 1])

    def between(order: tuple[int, ...]) -> float:
        s = sums[list(order)]
        c = counts[list(order)]
        overall = sums.sum() / counts.sum()
        parts = ((s[group == g].sum(), c[group == g].sum()) for g in (0, 1))
        return sum(size * (total / size - overall) ** 2 for total, size in parts)

    observed = between(tuple(range(6)))
    exact = np.mean([between(order) >= observed * (1 - 1e-9) for order in itertools.permutations(range(6))])
    assert permutation_p(sums, counts, group, permutations=20_000) == pytest.approx(exact, abs=0.012)  # 3.5 errors


def test_the_permutation_test_has_five_percent_of_false_alarms():
    """Groups of the same 36 patients, shuffled 1000 times: 3 to 7 % of the p are 0.05 or less."""
    rng = np.random.default_rng(4)
    counts = rng.integers(1, 4, 36).astype(float)  # scans of a patient
    sums = rng.beta(8, 1.5, 36) * counts
    sums[:3] = 0.1 * counts[:3]  # three failures, which make the tail heavy
    group = np.repeat([0, 1, 2], (6, 10, 20))
    p = [permutation_p(sums, counts, rng.permutation(group), permutations=499, seed=run) for run in range(RUNS)]
    assert 0.03 <= np.mean(np.array(p) <= 0.05) <= 0.07


def test_a_difference_that_is_there_is_found():
    rng = np.random.default_rng(0)
    group = np.repeat([0, 1], 12)
    sums = rng.normal(0.85, 0.05, 24) - 0.1 * group
    assert permutation_p(sums, np.ones(24), group) < 0.005


def test_holm_by_hand():
    # 3 x 0.01, then 2 x 0.04, then 1 x 0.03, which may not be less than the one before; never above 1
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_patients_are_the_unit_of_intervals():
    """Two cases of a patient that are the same count as one: the interval is that of the patients alone."""
    values = np.random.default_rng(1).uniform(0.5, 1, (12, 1))
    once = PatientSums.of(values, np.arange(12), 12)
    twice = PatientSums.of(np.repeat(values, 2, axis=0), np.repeat(np.arange(12), 2), 12)
    first = once.resampled_means(np.random.default_rng(0))
    np.testing.assert_allclose(first, twice.resampled_means(np.random.default_rng(0)))
    assert first.std() == pytest.approx(values.std() / np.sqrt(12), rel=0.05)
    assert twice.means() == pytest.approx(values.mean(0))


def test_the_interval_of_the_largest_gap_holds_for_the_pair_that_was_picked():
    """Four groups of 8 that are alike: the largest of six gaps is called one in about 5 % of simulations."""
    rng = np.random.default_rng(2)
    false_alarms = 0
    for _ in range(300):
        values_gp = rng.beta(8, 2, (4, 8))
        weights_gbp = rng.multinomial(8, np.full(8, 1 / 8), (4, 400)) / 8
        resampled_bg = np.einsum("gbp,gp->bg", weights_gbp, values_gp)
        gap = largest_gap("abcd", values_gp.mean(1), resampled_bg, np.full(4, 8))
        assert gap is not None
        assert gap.gap == pytest.approx(np.ptp(values_gp.mean(1)))
        false_alarms += gap.low > 0
    assert 0.005 <= false_alarms / 300 <= 0.08
    assert largest_gap("a", np.ones(1), np.ones((9, 1)), np.ones(1)) is None


# ---- the groups ----


def test_thirds_keep_equal_values_together_and_few_values_apart():
    group_of, names = thirds({"a": 1.0, "b": 2.0, "c": 2.0, "d": 2.0, "e": 3.0, "f": 4.0, "g": 9.0}, "mm")
    assert names == ["up to 2 mm", "2 to 3 mm", "above 3 mm"]
    assert [group_of[key] for key in "abcdefg"] == [names[place] for place in (0, 0, 0, 0, 1, 2, 2)]
    assert thirds({"a": 0.625, "b": 3.0, "c": 0.625}, "mm")[1] == ["0.625 mm", "3 mm"]
    assert thirds({}, "mm") == ({}, [])


def test_limits_of_thirds_have_as_many_digits_as_tell_them_apart():
    values = {"a": 10.001, "b": 10.002, "c": 10.003, "d": 10.004, "e": 10.005, "f": 10.006}
    assert thirds(values, "ml")[1] == ["up to 10.002 ml", "10.002 to 10.004 ml", "above 10.004 ml"]


def test_a_reference_tells_its_voxels_and_what_it_cuts():
    mask = box((0, 4), (2, 3), (3, 5))  # through all slices: at the border of axis 0
    mask[1, 4, 4] = 2
    found = case_traits(mask, geometry(), SCAN, LABELS)
    assert found.slice_mm == 5.0
    assert found.in_plane_mm == pytest.approx(0.7071)
    assert found.cut == {"liver"}
    assert case_traits(mask, geometry(), PICTURE, LABELS).in_plane_mm is None
    alone = case_traits(mask[1:2], geometry((1, 6, 9)), SLICE, LABELS)
    assert (alone.in_plane_mm, alone.slice_mm) == (pytest.approx(0.7071), None)
    assert alone.cut == set()


def scored(dice: float | None) -> LabelScore:
    return LabelScore(dice=dice, jaccard=dice, tpr=dice, precision=dice, tp=1, fp=0, fn=0, reference_ml=1.0)


def by_site(group_of: dict[str, str]) -> Grouping:
    column = Column(
        name="site",
        source="sites.csv",
        structure="",
        group_of=group_of,
        groups=tuple(sorted(set(group_of.values()))),
    )
    return Grouping(columns=(column,), by_header=False, patient_of={f"{one}{n}": one for one in group_of for n in "12"})


def test_means_are_over_cases_and_the_worst_case_is_named():
    group_of = {patient: "A" if patient < "f" else "B" for patient in "abcdefghijk"} | {"z": "C"}
    cases = {}
    for number, patient in enumerate(sorted(group_of)):
        for scan in "12":
            level = 0.9 - 0.02 * number - (0.1 if scan == "2" else 0.0)
            cases[f"{patient}{scan}"] = {
                "liver": scored(level),
                "tumour": scored(None if patient == "a" else level / 2),
            }
    (found,) = group_scores(cases, {}, by_site(group_of))
    assert [(one.name, one.patients, one.cases) for one in found.groups] == [("A", 5, 10), ("B", 6, 12), ("C", 1, 2)]
    first, _, last = found.groups
    assert first.labels["liver"]["dice"].mean == pytest.approx(0.86 - 0.05)
    assert first.labels["tumour"]["dice"].cases == 8
    assert first.labels["tumour"]["dice"].low is None  # of 4 patients
    assert (first.labels["liver"]["dice"].worst, first.labels["liver"]["dice"].worst_case) == (
        pytest.approx(0.72),
        "e2",
    )
    # The cases' own means over labels: one label for a, both for the others
    levels = [0.9 - 0.02 * number - less for number in range(5) for less in (0, 0.1)]
    expected = np.mean([level if number < 2 else 0.75 * level for number, level in enumerate(levels)])
    assert first.foreground["dice"].mean == pytest.approx(expected)
    assert last.foreground["dice"].low is None
    assert found.gap is not None
    assert (found.gap.higher, found.gap.lower) == ("A", "B")  # C has one patient, and is in no gap
    assert found.tested == CASE_MEAN
    assert found.p == found.p_holm


def test_patients_with_three_scans_and_with_one_are_in_the_group_of_their_voxel_size():
    """The mean of three 0.7 is 0.6999999999999998."""
    patient_of = {"a1": "a", "a2": "a", "a3": "a", "b1": "b", "c1": "c"}
    cases = {case: {"liver": scored(0.9)} for case in patient_of}
    traits = {
        case: CaseTraits(in_plane_mm=1.2 if case == "c1" else 0.7, slice_mm=3.0, cut=frozenset()) for case in cases
    }
    found = group_scores(cases, traits, Grouping(columns=(), by_header=True, patient_of=patient_of))
    groups = {one.column: [(group.name, group.patients) for group in one.groups] for one in found}
    assert groups["spacing in plane"] == [("0.7 mm", 2), ("1.2 mm", 1)]
    assert thirds({"a": 0.7, "b": 0.70001}, "mm")[1] == ["0.7 mm"]


def test_groups_that_are_too_small_or_alone_have_values_and_no_test():
    cases = {f"{patient}{scan}": {"liver": scored(0.5)} for patient in "abcdefgh" for scan in "12"}
    few = group_scores(cases, {}, by_site({patient: "A" if patient < "d" else "B" for patient in "abcdefgh"}))[0]
    alone = group_scores(cases, {}, by_site(dict.fromkeys("abcdefgh", "A")))[0]
    assert (few.gap, few.p, few.untested) == (None, None, "only one group has 5 patients")
    assert (alone.gap, alone.p, alone.untested) == (None, None, "all are 'A'")
    assert few.groups[0].labels["liver"]["dice"].mean == 0.5
    text = groups_text([few, alone])
    assert "not tested: only one group has 5 patients" in text
    assert "Dice by site: all are 'A'" in text
    assert "largest gap" not in text.split("\n\n")[0]


# ---- the command ----


@pytest.fixture
def scored_folders(tmp_path: Path) -> tuple[Path, Path]:
    """12 patients with two scans; the predictions of the last six have half of the voxels."""
    references = {f"p{number:02}_scan{scan}": box((1, 3), (1, 5), (1, 8)) for number in range(12) for scan in (1, 2)}
    predictions = {case: box((1, 3), (1, 5 if int(case[1:3]) < 6 else 3), (1, 8)) for case in references}
    (tmp_path / "sites.csv").write_text(
        "patient,site,age,sex\n"
        + "\n".join(f"p{n:02},{'north' if n < 6 else 'south'},{50 + n},{'fm'[n % 2]}" for n in range(12))
    )
    return folders(tmp_path, references, predictions)


def test_evaluate_writes_groups_wherever_it_writes_scores(tmp_path, capsys, scored_folders):
    predicted, wanted = scored_folders
    table = tmp_path / "sites.csv"
    by = ["--by", f"{table}:site", f"{table}:age", f"{table}:sex", "header", "--groups", r"(p\d+)_"]
    out = ["--output", str(tmp_path / "s.json"), "--report", str(tmp_path / "r.html")]
    assert main(["evaluate", str(predicted), str(wanted), *out, *by]) == 0
    shown = capsys.readouterr().out
    assert "largest gap 0.333 (north above south)" in shown
    scores = Scores.load(tmp_path / "s.json")
    site, age, sex, *header = scores.by
    assert [(one.name, one.patients, one.cases) for one in site.groups] == [("north", 6, 12), ("south", 6, 12)]
    assert site.groups[1].labels["label_1"]["dice"].mean == pytest.approx(2 / 3)
    assert site.p is not None
    assert site.p < 0.01
    assert site.p_holm == pytest.approx(2 * site.p)  # site and sex were tested, nothing else
    assert [one.name for one in age.groups] == ["up to 53", "53 to 57", "above 57"]  # 4 patients each: no test
    assert age.untested == "no group has 5 patients"
    assert sex.p == sex.p_holm == 1.0
    assert [one.column for one in header] == [
        *("spacing in plane", "slice thickness", "size of label_1", "label_1 whole or cut"),
    ]
    assert header[0].untested == "all are '0.7071 mm'"
    assert {row["group"] for row in rows_of(tmp_path / "s_groups.csv") if row["column"] == "site"} == {"north", "south"}
    tests = {row["column"]: row for row in rows_of(tmp_path / "s_group_tests.csv")}
    assert float(tests["site"]["gap"]) == pytest.approx(1 / 3)
    assert tests["slice thickness"]["untested"] == "all are '5 mm'"
    page = (tmp_path / "r.html").read_text()
    assert 'id="groups"' in page
    assert "permutation test" in page
    assert "24 cases of 12 patients" in page


def test_files_without_groups_are_as_before(tmp_path, scored_folders):
    predicted, wanted = scored_folders
    evaluate(predicted, wanted, output=tmp_path / "s.json", report=tmp_path / "r.html", surface=False)
    assert "by" not in json.loads((tmp_path / "s.json").read_text())
    assert not list(tmp_path.glob("s_group*"))
    assert 'id="groups"' not in (tmp_path / "r.html").read_text()


def test_no_table_of_an_earlier_call_stays_with_its_numbers(tmp_path, scored_folders):
    predicted, wanted = scored_folders
    options = {"output": tmp_path / "s.json", "surface": False}
    evaluate(predicted, wanted, by=(f"{tmp_path / 'sites.csv'}:site",), compare=wanted, **options)
    assert {path.name for path in tmp_path.glob("s_*")} == {
        *("s_summary.csv", "s_comparison.csv", "s_groups.csv", "s_group_tests.csv")
    }
    evaluate(predicted, wanted, **options)
    assert [path.name for path in tmp_path.glob("s_*")] == ["s_summary.csv"]


def test_groups_and_a_comparison_go_together(tmp_path, scored_folders):
    predicted, wanted = scored_folders
    scores = evaluate(predicted, wanted, compare=wanted, by=(f"{tmp_path / 'sites.csv'}:site",), surface=False)
    assert scores.comparison is not None
    assert scores.by[0].gap is not None


@pytest.mark.parametrize(
    "by, groups, words",
    [
        ("{table}:centre", None, r"sites.csv: has no column 'centre'; name one of patient, site, age or sex"),
        ("{table}", None, "by sites.csv: names no column; give the table and its column"),
        ("none.csv:site", None, r"by none.csv:site: there is no file none.csv; give FILE.csv:COLUMN"),
        ("{table}:site", "(.*)", "sites.csv: has no line for case 'p00_scan1' or its patient; add it"),
        ("{short}:site", None, r"short.csv: has no line for case 'p01_scan1' or its patient; add it \(22 missing\)"),
        ("{mixed}:site", None, "mixed.csv: patient 'p00' is in two groups, 'a' .* and 'b' .* of site; correct it"),
        (None, "(p..)", "groups tells which cases are of one patient for by; give by, too, or leave it out"),
    ],
)
def test_what_is_wrong_is_told_before_masks_are_read(tmp_path, monkeypatch, by, groups, words, scored_folders):
    predicted, wanted = scored_folders
    monkeypatch.setattr("segfw.evaluation.evaluate_pairs.score_case", lambda *_, **__: pytest.fail("scored"))
    cases = [path.name.removesuffix(".nii.gz") for path in sorted(wanted.iterdir())]
    (tmp_path / "short.csv").write_text("patient,site\np00,a\n")
    (tmp_path / "mixed.csv").write_text(
        "case,site\n" + "\n".join(f"{case},{'ab'[n % 2]}" for n, case in enumerate(cases))
    )
    monkeypatch.chdir(tmp_path)
    named = by and by.format(table="sites.csv", short="short.csv", mixed="mixed.csv")
    with pytest.raises(UserError, match=words) as caught:
        evaluate(predicted, wanted, labels=ONE, by=None if named is None else (named,), groups=groups)
    assert "\n" not in str(caught.value)
