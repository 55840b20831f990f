"""The simulated expert of ``python -m bench queue``: what items do and take, orders, and areas, on figures by hand."""

import numpy as np
import pytest

from bench.queue.draws import area_under, dice_at
from bench.queue.made_up_pools import simulated_audits
from bench.queue.scale import measured
from bench.queue.simulated_expert import ARMS, DrawnPool, Worked, in_order
from bench.queue.true_items import RULES, TrueStructure
from segfw.worklist.work_items import WHOLE, WorkItems


def true_structure():
    """An expert's mask of 4 slices with 4 voxels each; the draft lacks 2 in the first slice and the whole last one."""
    expert = np.zeros((6, 4, 4), bool)
    expert[1:5, 1:3, 1:3] = True
    draft = expert.copy()
    draft[1, 1] = False
    draft[4] = False
    box = (slice(1, 2), slice(0, 4), slice(0, 4))
    return TrueStructure(draft=draft, expert=expert, slice_cm2=0.5, boxes={7: box}, wide={7: 1})


def drawn_pool():
    """Two cases of one structure, the second one right but for a voxel; the first with a region."""
    first = true_structure()
    second = TrueStructure(draft=first.expert.copy(), expert=first.expert, slice_cm2=0.5, boxes={}, wide={})
    second.draft[1, 1, 1] = False
    items = WorkItems(
        cases=("a", "b"),
        structures=("s",),
        verdicts=("look",),
        reasons=("",),
        case=np.array([0, 0, 1], np.int32),
        structure=np.zeros(3, np.int32),
        region=np.array([WHOLE, 7, WHOLE], np.int32),
        quality=np.array([0.6, 0.6, 0.9]),
        predicted=np.array([0.6, 0.6, 0.9]),
        lower=np.zeros(3),
        verdict=np.zeros(3, np.int8),
        reason=np.zeros(3, np.int32),
        slices=np.array([4.0, 1.0, 4.0]),
        wrong_slices=np.array([4.0, 1.0, 1.0]),
        wrong_mm2=np.zeros(3),
        gain=np.array([0.4, 0.1, 0.1]),
    )
    told = np.array([0.6, np.nan, 0.9])
    return DrawnPool(items=items, true=[first, first, second], pair=told, doubtful=100 * told, entropy=1 - told)


def test_what_correcting_does_and_takes():
    true = true_structure()
    # 10 of 16 voxels are there: 20 / 26; with the region 12: 24 / 28
    assert true.after(frozenset())[0] == pytest.approx(20 / 26)
    assert true.after(frozenset({7}))[0] == pytest.approx(24 / 28)
    assert true.after(frozenset({7, WHOLE}))[0] == 1
    # 4 slices looked at, 2 of them wrong; the region is one slice with 2 wrong voxels
    assert true.minutes(WHOLE, frozenset(), "by slices") == pytest.approx(4 * 0.05 + 2 * 0.25)
    assert true.minutes(7, frozenset(), "by slices") == pytest.approx(0.05 + 0.25)
    assert true.minutes(WHOLE, frozenset({7}), "by slices") == pytest.approx(4 * 0.05 + 0.25)
    assert true.minutes(WHOLE, frozenset(), "by area") == pytest.approx(4 * 0.05 + 2 * 0.05 + 6 * 0.5 * 0.1)


def test_an_expert_opens_cases_and_the_curve_counts_items_when_they_are_done():
    work = in_order(drawn_pool(), "by slices", [1, 2, 0])
    before = (20 / 26 + 30 / 31) / 2
    assert work.dice == pytest.approx([before, (24 / 28 + 30 / 31) / 2, (24 / 28 + 1) / 2, 1])
    # each opens a case
    assert np.diff(work.minutes).tolist() == pytest.approx([0.5 + 0.3, 0.5 + 0.2 + 0.25, 0.5 + 0.2 + 0.25])
    assert dice_at(work, 0.79) == work.dice[0]
    assert dice_at(work, 0.8) == work.dice[1]
    assert area_under(work, 0.8) == pytest.approx(before)
    assert area_under(work, 5.0) == pytest.approx(
        (0.8 * work.dice[0] + 0.95 * work.dice[1] + 0.95 * work.dice[2] + 2.3) / 5
    )


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("arm", list(ARMS))
def test_every_arm_ends_with_everything_right(arm, rule):
    work = ARMS[arm](drawn_pool(), rule, np.random.default_rng(0))
    assert work.dice[-1] == pytest.approx(1)
    assert all(first < second for first, second in zip(work.minutes, work.minutes[1:]))
    assert work.dice[0] == Worked.begin(drawn_pool(), rule).dice[0]


def test_the_worst_case_is_first_where_the_arm_knows_it():
    for arm in ("oracle", "pairwise fold Dice", "predicted Dice, no minutes", "MONAI Label (mean entropy, cases)"):
        work = ARMS[arm](drawn_pool(), "by slices", np.random.default_rng(1))
        assert work.dice[1] == pytest.approx((1 + 30 / 31) / 2), arm


def test_made_up_audits_hold():
    results = simulated_audits(2000, sizes=(120, 2000))
    assert [result.pool for result in results] == [120, 2000]
    assert all(result.held >= 0.95 for result in results)
    assert all(result.mean_bound > result.mean_share for result in results)


def test_a_made_up_folder_is_put_in_order(tmp_path, monkeypatch):
    result = measured(tmp_path / "work", 3, 5, regions=1, runs=4)
    assert (result.cases, result.structures) == (3, 5)
    assert 15 <= result.items <= 15 + 9
    assert not (tmp_path / "work").exists()
