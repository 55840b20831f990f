"""Items and their order, on figures that can be counted."""

import subprocess
import sys

import numpy as np
import pytest

from builders.quality_files import region, structure, write_quality
from segfw.worklist.judged_items import judged_items
from segfw.worklist.minutes_model import MinutesModel
from segfw.worklist.varied_cases import standardised, varied_order
from segfw.worklist.work_items import WHOLE, WorkItems, weighted
from segfw.worklist.work_order import greedy_order


def made_up(rows):
    """Items of (case, region, gain, slices), all of structure 0 but regions' of the same."""
    number = len(rows)
    return WorkItems(
        cases=("a", "b", "c"),
        structures=("s", "t"),
        verdicts=("look",),
        reasons=("",),
        case=np.array([row[0] for row in rows], np.int32),
        structure=np.array([row[1] for row in rows], np.int32),
        region=np.array([row[2] for row in rows], np.int32),
        quality=np.zeros(number),
        predicted=np.zeros(number),
        lower=np.zeros(number),
        verdict=np.zeros(number, np.int8),
        reason=np.zeros(number, np.int32),
        slices=np.array([row[4] for row in rows], float),
        wrong_slices=np.zeros(number),
        wrong_mm2=np.zeros(number),
        gain=np.array([row[3] for row in rows], float),
    )


def test_items_are_what_the_files_say(tmp_path):
    # 8 ml; two regions of 800 and 400 mm3 are worth 0.05 and 0.025 of Dice, 0.3 is missing altogether
    write_quality(
        tmp_path,
        "a",
        [structure("liver", 0.7), structure("duct", None, volume_ml=0.0)],
        [region(1, "liver", 800.0), region(2, "liver", 400.0, slices=(7,)), region(3, "duct", 9.0, kind="missing")],
    )
    items = judged_items(tmp_path, ["a"]).items
    assert items.cases == ("a",)
    assert [items.structures[i] for i in items.structure] == ["liver", "liver", "liver", "duct"]
    assert items.region.tolist() == [WHOLE, 1, 2, WHOLE]
    assert items.gain.tolist() == pytest.approx([0.3, 0.05, 0.025, 0.9])
    assert items.slices[1:3].tolist() == [2, 1]
    # a ball of 8 ml is 24.8 mm thick: 9 slices of 3 mm, of which 0.9 are expected to be wrong
    assert items.slices[0] == 9
    assert items.wrong_slices[0] == pytest.approx(8.1)
    assert items.reasons[items.reason[1]] == "suspected region 1: doubt"
    assert np.isnan(items.predicted[3])
    assert weighted(items, {"duct": 0.5}).tolist() == pytest.approx([0.3, 0.05, 0.025, 0.45])


def test_regions_are_worth_no_more_than_what_is_missing(tmp_path):
    write_quality(tmp_path, "a", [structure("liver", 0.97)], [region(1, "liver", 1600.0), region(2, "liver", 800.0)])
    gains = judged_items(tmp_path, ["a"]).items.gain
    assert gains.tolist() == pytest.approx([0.03, 0.02, 0.01])


def test_what_cannot_be_read_is_told_and_the_rest_is_there(tmp_path):
    write_quality(tmp_path, "a", [structure("liver", 0.9)])
    write_quality(tmp_path, "b", [structure("liver", 0.8)])
    (tmp_path / "quality" / "b.json").write_text('{"case": "b"}')
    (tmp_path / "quality" / "a_regions.json").write_text("{")
    found = judged_items(tmp_path, ["a", "b", "c"])
    assert found.left_out == ("b", "c")
    assert found.items.cases == ("a",)
    assert len(found.items) == 1


def test_the_best_per_minute_comes_first():
    # 20 slices are a minute, and opening half a minute: 0.2 and 0.4 a minute without it
    items = made_up([(0, 0, WHOLE, 0.2, 20), (1, 0, WHOLE, 0.4, 20), (2, 0, WHOLE, 0.4, 40)])
    order = greedy_order(items, items.gain, MinutesModel())
    assert order.chosen.tolist() == [1, 2, 0]
    assert order.minutes.tolist() == pytest.approx([1.5, 2.5, 1.5])


def test_items_of_a_case_stay_together_if_they_pay_nearly_as_much():
    rows = [(0, 0, WHOLE, 1.0, 20), (1, 0, WHOLE, 0.95, 20), (0, 1, WHOLE, 0.60, 20)]
    # b pays 0.95 / 1.5 = 0.63 with its opening: the second item of a with 0.60 is within 20 % of that
    near = made_up(rows)
    assert greedy_order(near, near.gain, MinutesModel()).chosen.tolist() == [0, 2, 1]
    far = made_up([*rows[:2], (0, 1, WHOLE, 0.50, 20)])
    assert greedy_order(far, far.gain, MinutesModel()).chosen.tolist() == [0, 1, 2]


def test_a_region_goes_first_where_it_pays_more_than_its_structure():
    rows = [(0, 0, WHOLE, 0.3, 80), (0, 0, 1, 0.1, 4), (0, 0, 2, 0.01, 20)]
    items = made_up(rows)
    order = greedy_order(items, items.gain, MinutesModel())
    assert order.chosen.tolist() == [1, 0]  # region 2 is done with its structure
    assert order.gain.tolist() == pytest.approx([0.1, 0.2])


def test_every_item_comes_once_and_gains_are_kept():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        rows = []
        for case in range(3):
            for each in range(2):
                rows.append((case, each, WHOLE, rng.uniform(0.1, 1), rng.integers(1, 100)))
                for number in range(int(rng.integers(0, 3))):
                    rows.append((case, each, number, rng.uniform(0, 0.03), rng.integers(1, 10)))
        items = made_up(rows)
        order = greedy_order(items, items.gain, MinutesModel())
        assert len(set(order.chosen.tolist())) == len(order.chosen)
        assert order.gain.sum() == pytest.approx(items.gain[items.is_whole].sum())
        assert items.is_whole[order.chosen].sum() == 6


def test_no_items_have_an_order_too():
    items = made_up([])
    assert len(greedy_order(items, items.gain, MinutesModel()).chosen) == 0


def test_a_batch_for_the_model_is_no_twenty_copies_of_one_problem():
    features = np.array([[0.0], [0.1], [0.2], [5.0], [9.0], [9.1], [9.0], [9.0], [9.0]])
    worth = np.array([9.0, 8.0, 7.0, 1.0, 0.5, 0.4, 0.3, 0.2, 0.1])
    # a third are 0, 1, 2; of them 2 is farther from 0
    assert varied_order(worth, features).tolist() == [0, 2, 1, 3, 4, 5, 6, 7, 8]
    assert varied_order(worth, features, share=5 / 9).tolist()[:3] == [0, 4, 3]


def test_features_are_counted_in_deviations():
    table = np.array([[[1.0, 5.0]], [[3.0, 5.0]], [[np.nan, 5.0]]])
    assert standardised(table).tolist() == [[-1.0], [1.0], [0.0]]


def test_a_queue_needs_no_torch():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import pkgutil, importlib, segfw.worklist\n"
        "for module in pkgutil.iter_modules(segfw.worklist.__path__):\n"
        "    importlib.import_module(f'segfw.worklist.{module.name}')\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=300).returncode == 0
