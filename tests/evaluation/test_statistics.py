"""Intervals, spreads and paired comparisons."""

import numpy as np
import pytest
from scipy import stats

from segfw.evaluation.compare import compare_cases
from segfw.evaluation.lesions import LesionCounts
from segfw.evaluation.metrics import METRICS, LabelScore, label_score
from segfw.evaluation.statistics import RESAMPLES, intervals, paired, resample_means
from segfw.evaluation.summary import empty_mask_counts, empty_mask_sentences, summarize, value_table
from segfw.evaluation.surface import SurfaceScore


def of(tp: int, fp: int, fn: int, rest: int = 1000, distance_mm: float = 1.0) -> LabelScore:
    """A score from counts; a missed or invented label is 99 mm away."""
    confusion = np.array([[rest, fp], [fn, tp]])
    if tp + fp + fn == 0:
        surface = SurfaceScore(None, None, None)
    elif tp + fp == 0 or tp + fn == 0:
        surface = SurfaceScore(99.0, 99.0, 0.0)
    else:
        surface = SurfaceScore(distance_mm, distance_mm, 0.8)
    lesions = LesionCounts(
        from_size=0.0,
        to_size=None,
        reference=2 * (tp + fn > 0),
        found=2 * (tp > 5) or int(tp > 0),
        predicted=3 * (tp + fp > 0),
        right=2 * (tp > 0),
    )
    return label_score(confusion, 1, voxel_size=0.01, surface=surface, lesions=[lesions])


@pytest.mark.parametrize("coverage", [0.9, 0.95])
def test_the_interval_is_that_of_scipy(coverage):
    values = np.random.default_rng(1).beta(8, 2, 30)
    low, high = intervals(resample_means(values[:, None]), np.array([30]), coverage=coverage)[0]
    expected = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=20000,
        method="percentile",
        confidence_level=coverage,
        rng=np.random.default_rng(2),
    ).confidence_interval
    width = expected.high - expected.low
    assert low == pytest.approx(expected.low, abs=0.05 * width)
    assert high == pytest.approx(expected.high, abs=0.05 * width)


def test_resampled_means_are_means_of_drawn_cases_and_leave_out_what_does_not_exist():
    values = np.array([[1.0, np.nan], [2.0, 10.0], [4.0, np.nan]])
    resampled = resample_means(values, seed=3)
    drawn = np.random.default_rng(3).multinomial(3, [1 / 3] * 3, size=RESAMPLES)
    assert resampled.shape == (RESAMPLES, 2)
    np.testing.assert_allclose(resampled[:, 0], drawn @ [1.0, 2.0, 4.0] / 3)
    assert np.array_equal(np.isnan(resampled[:, 1]), drawn[:, 1] == 0)
    assert set(resampled[drawn[:, 1] > 0, 1]) == {10.0}


def test_the_same_seed_gives_the_same_interval_and_few_cases_give_none():
    values = np.random.default_rng(0).random((6, 1))
    assert np.array_equal(resample_means(values), resample_means(values))
    assert not np.array_equal(resample_means(values), resample_means(values, seed=1))
    assert intervals(resample_means(values[:4]), np.array([4])) == [None]
    assert intervals(resample_means(np.full((6, 1), np.nan)), np.array([0])) == [None]


def test_spread_of_a_label_counted_by_hand():
    cases = {str(n): {"liver": of(n, 0, 10 - n)} for n in (1, 2, 4, 8, 10)}  # TPR 0.1 0.2 0.4 0.8 1
    summary = summarize(cases).labels["liver"]
    spread = summary.spread["tpr"]
    assert summary.tpr == pytest.approx(0.5)
    assert (spread.cases, spread.median, spread.q1, spread.q3) == (5, 0.4, 0.2, 0.8)
    assert spread.std == pytest.approx(np.std([0.1, 0.2, 0.4, 0.8, 1.0], ddof=1))
    assert 0.1 <= spread.low < 0.5 < spread.high <= 1
    alone = summarize({"a": cases["1"]}).labels["liver"].spread["tpr"]
    assert (alone.cases, alone.median, alone.std, alone.low, alone.high) == (1, 0.1, None, None, None)


def test_the_foreground_interval_draws_all_labels_of_a_case_together():
    # Two labels that err in opposite cases: their mean is 0.5 in every case, and there is nothing to be unsure about.
    right = of(10, 0, 0)
    wrong = of(0, 10, 10)
    cases = {str(n): {"a": (right, wrong)[n % 2], "b": (wrong, right)[n % 2]} for n in range(8)}
    scores = summarize(cases)
    assert scores.foreground_interval["dice"] == (pytest.approx(0.5), pytest.approx(0.5))
    assert scores.labels["a"].spread["dice"].low < 0.4
    assert summarize({"a": cases["0"]}).foreground_interval == {}


def test_missing_or_inventing_a_structure_never_improves_a_mean():
    rng = np.random.default_rng(0)
    for _ in range(20):
        counts = rng.integers(0, 50, (6, 3)) + [[10, 0, 0]]
        cases = {str(n): {"a": of(*row, distance_mm=rng.uniform(0, 90))} for n, row in enumerate(counts.tolist())}
        tp, _, fn = counts[0].tolist()
        missed = of(0, 0, tp + fn)
        nothing = of(0, 0, 0)
        invented = of(0, 7, 0)
        pairs = [(cases, {**cases, "0": {"a": missed}})]
        pairs += [({**cases, "more": {"a": nothing}}, {**cases, "more": {"a": invented}})]
        for right, wrong in pairs:
            means = [summarize(table).labels["a"] for table in (right, wrong)]
            for name, metric in METRICS.items():
                before, after = (getattr(summary, name) for summary in means)
                if metric.larger_is_better is not None and before is not None:
                    assert (after <= before + 1e-12) if metric.larger_is_better else (after >= before - 1e-12)
        assert means[0].specificity is not None


def test_empty_masks_are_counted():
    scores = summarize({"a": {"x": of(0, 0, 5), "y": of(0, 0, 0)}, "b": {"x": of(0, 5, 0), "y": of(0, 0, 3)}})
    assert empty_mask_counts(scores) == {"missed": 2, "invented": 1, "both empty": 1}
    assert [sentence.split(":")[0] for sentence in empty_mask_sentences(scores)] == [
        "2 missed",
        "1 invented",
        "1 both empty",
    ]


def test_nothing_is_said_of_empty_masks_where_there_are_none():
    assert empty_mask_sentences(summarize({"a": {"x": of(3, 1, 2)}})) == []


def test_values_that_do_not_exist_are_nan_in_the_table():
    table = value_table({"a": {"x": of(0, 0, 0), "y": of(1, 0, 0)}}, ("x", "y"))
    assert table.shape == (1, 2, len(METRICS))
    assert np.isnan(table[0, 0]).all()
    assert table[0, 1, 0] == 1


def test_paired_differences_counted_by_hand():
    first = np.array([0.9, 0.8, 0.7, 0.6, np.nan, 0.5])
    second = np.array([0.8, 0.8, 0.75, 0.4, 0.3, 0.4])
    found = paired(first, second, True)
    assert (found.cases, found.wins, found.losses, found.ties) == (5, 3, 1, 1)
    assert found.first == pytest.approx(0.7)
    assert found.difference == pytest.approx((0.1 + 0 - 0.05 + 0.2 + 0.1) / 5)
    assert found.low < found.difference < found.high
    assert found.p == pytest.approx(stats.wilcoxon([0.1, 0.0, -0.05, 0.2, 0.1]).pvalue)
    distances = paired(first, second, False)
    assert (distances.wins, distances.losses) == (1, 3)
    bias = paired(np.array([-0.1, 0.3]), np.array([0.2, -0.1]), None)
    assert (bias.wins, bias.losses, bias.low) == (1, 1, None)


def test_equal_predictions_differ_in_nothing():
    values = np.linspace(0.5, 1, 7)
    found = paired(values, values, True)
    assert (found.difference, found.low, found.high, found.p, found.ties) == (0, 0, 0, 1, 7)
    assert paired(np.array([np.nan]), np.array([1.0]), True) is None


def test_cases_are_compared_by_name_and_inventions_count():
    good = of(9, 1, 1)
    bad = of(5, 5, 5)
    empty = of(0, 0, 0)
    invented = of(0, 4, 0)
    first = {"a": {"x": good}, "b": {"x": empty}, "c": {"x": good}}
    second = {"d": {"x": good}, "b": {"x": invented}, "a": {"x": bad}}
    found = compare_cases(first, second, ("new", "old"))
    assert (found.cases, found.only_first, found.only_second) == (("a", "b"), ("c",), ("d",))
    dice = found.labels["x"]["dice"]
    assert (dice.first, dice.second) == (pytest.approx((0.9 + 1) / 2), pytest.approx((0.5 + 0) / 2))
    assert (dice.wins, dice.losses, dice.ties) == (2, 0, 0)
    assert found.labels["x"]["hd95_mm"].second == pytest.approx((1 + 99) / 2)
    assert found.labels["x"]["hd95_mm"].first == pytest.approx((1 + 0) / 2)
    assert found.labels["x"]["tpr"].cases == 1  # there was nothing to find in b
    assert found.foreground["dice"].difference == pytest.approx(dice.difference)
    assert "specificity" not in found.labels["x"]  # ten voxels of a thousand


def test_the_mean_of_a_case_is_over_labels_that_both_have():
    first = {"a": {"x": of(8, 2, 2), "y": of(0, 0, 0)}}
    second = {"a": {"x": of(6, 4, 4), "y": of(0, 0, 0)}}
    found = compare_cases(first, second, ("new", "old")).foreground["dice"]
    assert (found.first, found.second, found.cases) == (pytest.approx(0.8), pytest.approx(0.6), 1)
