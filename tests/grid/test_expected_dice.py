"""The mask of largest expected Dice: by hand, by all masks of few voxels, by rankseg; who gets what two claim."""

from itertools import product

import numpy as np
import pytest
import torch

from builders.probabilities import GRIDS, LABELS, NESTED, in_slabs, smooth_logits
from segfw.grid.expected_dice import (
    HALF,
    LEVELS,
    LOWEST,
    NEVER,
    ExpectedDice,
    levels_of,
    log_odds_of_levels,
    probabilities_of_levels,
    threshold_level,
)
from segfw.grid.preprocess import place_back
from segfw.grid.resample import axis_matrix, thick_axis
from segfw.grid.restore import Restoring, restore
from segfw.grid.slabs import Heads, Slab

WHERE = (slice(0, 1), slice(0, 1), slice(0, 4))  # a row of four voxels


def log_odds(*probabilities: float) -> torch.Tensor:
    return torch.logit(torch.tensor(probabilities, dtype=torch.float64)).float()


def histogram(*probabilities: float) -> np.ndarray:
    return np.bincount(levels_of(log_odds(*probabilities)), minlength=LEVELS)


def corrected(
    winners: list[int], temperatures: dict[int, float], *rows: tuple[int, tuple[float, ...]], regions: int = 0
) -> list[int]:
    """Winners of a row of four voxels after decoding; ``rows`` are outputs with their probabilities."""
    decoding = ExpectedDice(temperatures, of_regions=bool(regions))
    found = torch.stack([log_odds(*probabilities) for _, probabilities in rows])[:, None, None]
    decoding.add(WHERE, [output for output, _ in rows], found)
    result = np.array(winners, np.uint8)[None, None]
    decoding.correct(result, nothing=regions or 99)
    return result[0, 0].tolist()


def test_levels_begin_at_a_half_and_end_where_nothing_is_in_doubt():
    assert levels_of(torch.tensor([0.0, -1e-6, LOWEST, LOWEST - 1e-4, torch.inf, -torch.inf])).tolist() == [
        HALF,
        HALF - 1,
        1,
        0,
        LEVELS - 1,
        0,
    ]
    assert 1 / (1 + np.exp(-LOWEST)) == pytest.approx(0.049, abs=0.001)
    np.testing.assert_array_equal(levels_of(torch.from_numpy(log_odds_of_levels())), np.arange(LEVELS))


@pytest.mark.parametrize(
    "doubtful, threshold",
    [
        # Four voxels of 0.95: 7.6 / (4 + 3.8 + 1.6) = 0.81 without those of 0.40, and 10.8 / 13.4 = 0.806 with them.
        (0.40, 0.404),
        # 7.6 / (4 + 3.8 + 1.8) = 0.79 without those of 0.45, and 11.2 / (8 + 5.6) = 0.824 with them.
        (0.45, 0.412),
    ],
)
def test_voxels_are_taken_from_half_of_the_dice_on(doubtful, threshold):
    level = threshold_level(histogram(*[0.95] * 4, *[doubtful] * 4), temperature=1.0)
    assert probabilities_of_levels(1.0)[level] == pytest.approx(threshold, abs=0.011)  # a level is 0.01 wide here
    assert (levels_of(log_odds(doubtful))[0] >= level) == (doubtful > threshold)


def test_a_temperature_moves_the_threshold():
    """Log-odds of 0.95 halved are 0.81: 8 voxels of 0.81 and 8 of 0.45 have 2 * 10.1 / (16 + 10.1) = 0.77."""
    counts = histogram(*[0.95] * 8, *[0.4] * 8)
    assert levels_of(log_odds(0.4))[0] < threshold_level(counts, 1.0)
    assert levels_of(log_odds(0.4))[0] >= threshold_level(counts, 2.0)


def test_whether_a_structure_is_there_is_left_to_the_network():
    assert threshold_level(histogram(0.49, 0.49, 0.49), 1.0) == NEVER
    assert threshold_level(histogram(0.51), 1.0) <= HALF
    assert threshold_level(histogram(), 1.0) == NEVER
    assert corrected([0, 0, 0, 0], {1: 1.0}, (1, (0.49, 0.49, 0.49, 0.49))) == [0, 0, 0, 0]


@pytest.mark.parametrize("seed", range(12))
def test_it_is_the_best_of_all_masks_of_nine_voxels(seed):
    """By the ratio that it maximises exactly, and nearly by the expectation over all references of these voxels."""
    rng = np.random.default_rng(seed)
    levels = rng.integers(20, LEVELS - 60, 9)
    levels[0] = 200
    p = probabilities_of_levels(1.0)[levels]
    level = threshold_level(np.bincount(levels, minlength=LEVELS), 1.0)
    ours = levels >= level

    def ratio(mask: np.ndarray) -> float:
        return 2 * p[mask].sum() / (mask.sum() + p.sum())

    outcomes = np.array(list(product((False, True), repeat=9)))
    weights = np.where(outcomes, p, 1 - p).prod(1)

    def expected(mask: np.ndarray) -> float:
        sizes = outcomes.sum(1) + mask.sum()
        return float((weights * 2 * (outcomes & mask).sum(1) / np.maximum(sizes, 1)).sum())

    masks = outcomes[1:]  # without the empty one
    assert ratio(ours) == pytest.approx(max(ratio(mask) for mask in masks), abs=1e-12)
    assert p[ours].min() >= ratio(ours) / 2 > p[~ours].max(initial=0)  # the threshold is half of the Dice
    assert expected(ours) >= max(expected(mask) for mask in masks) - 0.005


@pytest.mark.parametrize("seed", range(4))
def test_rankseg_finds_the_same_mask(seed):
    """Their solver by reciprocal moments, of 560 voxels; ours has levels of 8 bits."""
    rankseg = pytest.importorskip(
        "rankseg", reason="the oracle of decoding is not installed: pip install rankseg==0.0.8"
    )
    noise = smooth_logits(GRIDS["3d_fullres"], 1, seed, scale=12)[0] - 1
    noise[noise < LOWEST] = -100  # what ours calls certain
    p = noise.sigmoid()
    segmenter = rankseg.RankSEG(metric="dice", solver="RMA", output_mode="multilabel")
    theirs = segmenter.predict(p[None, None])[0, 0].numpy()
    decoding = ExpectedDice({0: 1.0}, of_regions=True)
    ours = np.where(noise.numpy() > 0, 0, 1).astype(np.uint8)
    argmax = ours == 0
    everywhere = tuple(slice(0, size) for size in noise.shape)
    decoding.add(everywhere, [0], noise[None])
    decoding.correct(ours, nothing=1)
    assert ((ours == 0) != theirs).sum() <= 0.01 * theirs.sum()
    assert (argmax != theirs).sum() > 0.05 * theirs.sum()  # else this shows nothing


def test_background_that_is_likely_enough_becomes_the_structure():
    """0.95, 0.95, 0.45: 2 * 2.35 / (3 + 2.35) = 0.88, half of which is 0.44; 0.2 stays background."""
    assert corrected([1, 1, 0, 0], {1: 1.0}, (1, (0.95, 0.95, 0.45, 0.10))) == [1, 1, 1, 0]


def test_two_that_claim_a_voxel_leave_it_to_the_likelier_one():
    first = (1, (0.9, 0.03, 0.42, 0.02))
    second = (2, (0.03, 0.6, 0.40, 0.02))
    assert corrected([1, 2, 0, 0], {1: 1.0}, first) == [1, 2, 1, 0]
    assert corrected([1, 2, 0, 0], {2: 1.0}, second) == [1, 2, 2, 0]
    assert corrected([1, 2, 0, 0], {1: 1.0, 2: 1.0}, first, second) == [1, 2, 1, 0]


def test_what_is_below_its_threshold_is_background_and_others_stay():
    """The last voxel is class 1 by 0.36, more than any other has but less than half of the Dice, 0.47."""
    rows = (1, (0.95, 0.95, 0.95, 0.36))
    assert corrected([1, 1, 1, 1], {1: 1.0}, rows) == [1, 1, 1, 0]
    # A class that is not decoded keeps its voxels, though the decoded one claims them.
    assert corrected([1, 1, 1, 2], {1: 1.0}, (1, (0.95, 0.95, 0.95, 0.49))) == [1, 1, 1, 2]


def test_regions_grow_and_are_painted_in_their_order():
    """Regions 0 and 1 of two; 2 is nothing. A later one hides an earlier one, and an earlier one no later one."""
    whole = (0, (0.9, 0.9, 0.46, 0.03))
    core = (1, (0.9, 0.46, 0.03, 0.03))
    assert corrected([1, 0, 2, 2], {0: 1.0}, whole, regions=2) == [1, 0, 0, 2]
    assert corrected([1, 0, 2, 2], {1: 1.0}, core, regions=2) == [1, 1, 2, 2]
    assert corrected([1, 0, 2, 2], {0: 1.0, 1: 1.0}, whole, core, regions=2) == [1, 1, 0, 2]


@pytest.mark.parametrize("held_bytes", [1, 2**20], ids=["in a file", "in memory"])
def test_levels_beyond_what_is_held_lie_in_a_file(held_bytes, tmp_path):
    rng = np.random.default_rng(3)
    found = torch.from_numpy(rng.normal(-1, 1.5, (2, 4, 6, 5))).float()
    decoding = ExpectedDice({1: 1.0, 3: 1.5}, of_regions=False, scratch=tmp_path, held_bytes=held_bytes)
    winners = np.where(found[0] > 0, 1, np.where(found[1] > 0, 3, 0)).astype(np.uint8)
    before = winners.copy()
    for z in range(4):
        decoding.add((slice(z, z + 1), slice(0, 6), slice(0, 5)), [1, 3], found[:, z : z + 1])
    decoding.correct(winners, nothing=4)
    assert list(tmp_path.iterdir()) == []  # it has no name, or is gone
    expected = before.copy()
    claims = []
    for row, temperature in ((0, 1.0), (1, 1.5)):
        levels = levels_of(found[row])
        claims.append(levels >= threshold_level(np.bincount(levels.ravel(), minlength=LEVELS), temperature))
    free = before == 0
    expected[free & claims[0]] = 1
    expected[free & claims[1] & (~claims[0] | (levels_of(found[1]) > levels_of(found[0])))] = 3
    np.testing.assert_array_equal(winners, expected)
    assert (winners != before).sum() > 3


def test_what_ends_in_an_error_is_forgotten():
    decoding = ExpectedDice({1: 1.0}, of_regions=False)
    row = log_odds(0.95, 0.95, 0.95, 0.36)[None, None, None]

    def add_and_fail() -> None:
        with decoding.all_or_nothing():
            decoding.add(WHERE, [1], row + 5)
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        add_and_fail()
    with decoding.all_or_nothing():
        decoding.add(WHERE, [1], row)
    winners = np.array([[[1, 1, 1, 1]]], np.uint8)
    decoding.correct(winners, nothing=2)
    assert winners.tolist() == [[[1, 1, 1, 0]]]


def full_size_log_odds(logits: torch.Tensor, record, *, of_regions: bool) -> np.ndarray:
    """Log-odds (K, Z, Y, X) of the crop, made of full-size logits."""
    resized = logits.numpy().astype(np.float64)
    thick = thick_axis(record.spacing_mm, record.cropped_spacing_mm)
    for axis, (old, new) in enumerate(zip(record.shape, record.cropped_shape)):
        matrix = axis_matrix(old, new, 0 if axis == thick else 1).numpy()
        resized = np.moveaxis(np.tensordot(matrix, resized, (1, axis + 1)), 0, axis + 1)
    if of_regions:
        return resized
    p = np.exp(resized) / np.exp(resized).sum(0)
    return np.log(p / (1 - p))


def slow_oracle(logits: torch.Tensor, record, temperatures: dict[int, float], painted: tuple[int, ...]) -> np.ndarray:
    """Whole volumes of exact probabilities, voxels sorted, the best of all masks that hold the likeliest ones."""
    odds = full_size_log_odds(logits, record, of_regions=bool(painted))
    claims = np.zeros(odds.shape, bool)
    for output, temperature in temperatures.items():
        p = np.where(odds[output] < LOWEST, 0, 1 / (1 + np.exp(-odds[output] / temperature)))
        ordered = np.sort(p.ravel())[::-1]
        best = (2 * np.cumsum(ordered) / (np.arange(1, p.size + 1) + p.sum())).max()
        claims[output] = p >= best / 2
    if painted:
        found = np.where(np.isin(range(len(odds)), list(temperatures))[:, None, None, None], claims, odds > 0)
        result = np.zeros(found.shape[1:], np.uint8)
        for region, value in zip(found, painted):
            result[region] = value
        return place_back(result, record)
    winner = odds.argmax(0)
    for output in temperatures:
        winner[(winner == output) & ~claims[output]] = 0
    likeliest = np.where(claims, odds, -np.inf).argmax(0)
    winner = np.where((winner == 0) & claims.any(0), likeliest, winner)
    return place_back(winner.astype(np.uint8), record)


@pytest.mark.parametrize("grid", list(GRIDS))
@pytest.mark.parametrize("labels", [LABELS, NESTED], ids=["labels", "regions"])
@pytest.mark.parametrize("decoded", [{1: 1.0}, {1: 1.6, 2: 0.7}], ids=["one", "two"])
def test_masks_are_those_of_full_size_probabilities(grid, labels, decoded):
    """However the stream is cut; up to voxels whose probability is within a level, 0.01, of the threshold."""
    record = GRIDS[grid]
    painted = labels.painted_classes
    temperatures = {output - 1: value for output, value in decoded.items()} if painted else decoded
    logits = smooth_logits(record, labels.outputs, 2, scale=5)
    expected = slow_oracle(logits, record, temperatures, painted)
    found = restore(logits, record, painted, temperatures=temperatures)
    for part, rows, slabs in (((2, 3, 4), 7, 1), ((3, 5, 50), 64, 3)):
        restoring = Restoring(record, painted, temperatures=temperatures, part=part, cpu_rows=rows, cpu_block_bytes=999)
        for slab in in_slabs(logits, slabs):
            restoring.add(slab)
        np.testing.assert_array_equal(restoring.result(), found)
    assert (found != expected).mean() < 0.01
    assert (expected != restore(logits, record, painted)).mean() > 0.04  # else this shows nothing


def test_logits_that_are_made_of_features_are_decoded_alike():
    record = GRIDS["3d_fullres"]
    features = smooth_logits(record, 2, 4, scale=12)
    weights = torch.tensor([[0.3, -1.0], [1.0, 0.2], [-0.5, 0.9]])
    bias = torch.tensor([0.5, 0.0, -0.2])
    logits = torch.einsum("ka,azyx->kzyx", weights, features) + bias[:, None, None, None]
    heads = Heads(weights_ka=(weights,), biases_k=(bias,))
    restoring = Restoring(record, temperatures={1: 1.2, 2: 1.0})
    restoring.add(Slab(first=0, start=0, stop=record.shape[0], channels_azyx=features, heads=heads))
    found = restoring.result()
    assert (found != restore(logits, record, temperatures={1: 1.2, 2: 1.0})).sum() <= 2  # ties of float32
    assert (found != restore(logits, record)).sum() > 20


def test_a_slab_that_ran_out_of_memory_counts_once(monkeypatch):
    """As the predictor does it again on the host."""
    record = GRIDS["3d_fullres"]
    logits = smooth_logits(record, 3, 2, scale=12)
    restoring = Restoring(record, temperatures={1: 1.0}, part=(2, 3, 4), cpu_block_bytes=999)
    add = ExpectedDice.add
    calls = []

    def failing(self, *arguments):
        calls.append(1)
        add(self, *arguments)
        if len(calls) == 5:
            raise RuntimeError("out of memory")

    monkeypatch.setattr(ExpectedDice, "add", failing)
    (slab,) = in_slabs(logits, 99)
    with pytest.raises(RuntimeError, match="out of memory"):
        restoring.add(slab)
    restoring.add(slab)
    np.testing.assert_array_equal(restoring.result(), restore(logits, record, temperatures={1: 1.0}))
