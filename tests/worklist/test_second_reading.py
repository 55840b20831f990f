"""Two readers: what is prepared, what each finds, and figures that can be counted."""

import numpy as np
import pytest

import segfw
from builders.quality_files import structure, write_quality
from builders.review import ANNA, BEN, masks_folder
from segfw.reviewing.review_store import ReviewStore
from segfw.worklist.second_reading import (
    ReadTwice,
    compared,
    krippendorff_alpha,
    second_folder,
    second_reading_of,
)

CASES = tuple(f"case_{number:02d}" for number in range(8))


@pytest.fixture
def folder(tmp_path):
    masks = masks_folder(tmp_path, CASES)
    for case in CASES:
        write_quality(masks, case, [structure("liver", 0.8), structure("spleen", 0.9, value=2)])
    return masks


def read_by(store, case, person, decisions, gone=0):
    store.open_case(case, person)
    if gone:
        values = store.read(case, 0).array[0].copy()
        values[tuple(np.argwhere(values == 1)[:gone].T)] = 0
        store.save(case, person, values, base=0, origin="edited", tool="test")
    for name, decision in decisions.items():
        store.decide(case, person, name, decision, asked_again=True)
    store.finish(case, person)


def test_a_second_reader_gets_drafts_alone_and_both_are_compared(folder, capsys):
    made = segfw.queue(folder, readers=2, seed=1)
    first = ReviewStore.open(folder)
    second = ReviewStore.open(second_folder(folder))
    assert len(second.case_ids) == 5
    assert made.second_reading == second.case_ids
    assert not (second_folder(folder) / "quality").exists()
    case, other = second.case_ids[:2]
    assert second.image_files(case) == first.image_files(case) != ()

    read_by(first, case, ANNA, {"liver": "edit", "spleen": "accept"}, gone=2)
    read_by(second, case, BEN, {"liver": "accept", "spleen": "accept"})
    assert second.read(case, 0).array.sum() == first.read(case, 0).array.sum()
    read_by(first, other, ANNA, {"liver": "accept", "spleen": "accept"})
    result = compared(first, second)
    assert result.unread == second.case_ids[1:]
    rows = {row.structure: row for row in result.rows}
    # 6 of the 8 voxels of liver are left: 12 of 14; a voxel is 2.5 x 0.9 x 0.8 mm
    assert rows["liver"].dice == pytest.approx(12 / 14)
    assert rows["liver"].second_ml - rows["liver"].first_ml == pytest.approx(2 * 1.8 / 1000)
    assert (rows["liver"].first_decision, rows["liver"].second_decision) == ("edit", "accept")
    assert rows["spleen"].dice == 1

    again = segfw.queue(folder, readers=2, seed=2)
    assert again.second_reading == made.second_reading
    assert "1 of 5 cases are read by both" in capsys.readouterr().out
    page = (folder / "queue.html").read_text()
    assert "Read twice" in page
    assert "0.857" in page


def row(case, structure, dice, one="accept", other="accept"):
    return ReadTwice(
        case=case,
        structure=structure,
        dice=dice,
        first_ml=10.0,
        second_ml=11.0,
        first_decision=one,
        second_decision=other,
        is_for_a_third=False,
    )


def test_who_is_far_from_the_median_goes_to_a_third_person():
    rows = [row("a", "liver", 0.9), row("b", "liver", 0.9), row("c", "liver", 0.75), row("d", "liver", 0.8)]
    # of liver 0.1, 0.1, 0.2, 0.25 and 0.31 are missing: more than 0.4 goes to a third person
    rows += [row("e", "liver", 0.69), row("a", "spleen", 0.6)]
    result = second_reading_of(("a", "b", "c", "d", "e"), [], rows)
    limits = {each.case for each in result.for_a_third if each.structure == "liver"}
    assert limits == set()
    rows[2] = row("c", "liver", 0.4)
    result = second_reading_of(("a", "b", "c", "d", "e"), [], rows)
    assert [each.case for each in result.for_a_third] == ["c"]
    figures = {each.structure: each for each in result.agreement}
    assert figures["liver"].median_dice == 0.8
    assert figures["liver"].median_difference_ml == 1.0
    assert figures[""].read == 6
    assert "for a third person: c: liver" in result.text


def test_alpha_of_decisions_by_hand():
    pairs = [("accept", "accept"), ("accept", "accept"), ("accept", "edit"), ("edit", "edit")]
    # 8 decisions, 5 accept and 3 edit: expected disagreement 1 - (20 + 6) / 56, observed 1 / 4
    assert krippendorff_alpha(pairs) == pytest.approx(1 - 0.25 / (30 / 56))
    assert krippendorff_alpha([("edit", "edit"), ("accept", "accept")]) == 1
    assert krippendorff_alpha([("accept", "accept")] * 4) is None
    assert krippendorff_alpha([]) is None
    rng = np.random.default_rng(0)
    names = np.array(["accept", "edit", "absent"])
    chance = krippendorff_alpha(list(zip(names[rng.integers(0, 3, 4000)], names[rng.integers(0, 3, 4000)])))
    assert abs(chance) < 0.05
