"""``segfw queue`` on folders as predict leaves them, worked on through the store of reviews."""

import csv
import json

import numpy as np
import pytest

import segfw
from builders.quality_files import region, structure, write_quality
from builders.review import ANNA, BEN, Clock, masks_folder
from segfw.base.errors import UserError
from segfw.cli import main
from segfw.reviewing.review_store import ReviewStore
from segfw.standing.of_review import review_facts
from segfw.worklist.planted_cases import PlantedCases
from segfw.worklist.queue_file import read_queue
from segfw.worklist.queue_outputs import queue_lines

CASES = tuple(f"case_{number:02d}" for number in range(6))


@pytest.fixture
def folder(tmp_path):
    masks = masks_folder(tmp_path, CASES)
    for number, case in enumerate(CASES):
        liver = structure("liver", 0.9 - 0.1 * number, verdict="do-not-use" if number == 5 else "look", volume_ml=4.0)
        regions = [region(1, "spleen", 150.0, slices=(3,))] if number == 0 else []
        write_quality(masks, case, [liver, structure("spleen", 0.95, value=2, volume_ml=2.0)], regions)
    return masks


def reviewed(store, case, decisions, active_s=60.0):
    store.open_case(case, ANNA)
    for name, decision in decisions.items():
        store.renew(case, ANNA, active_s=active_s)
        store.decide(case, ANNA, name, decision, asked_again=True)
    store.finish(case, ANNA)


def test_the_worst_comes_first_and_files_agree(folder, capsys):
    made = segfw.queue(folder, minutes=4, regions=True)
    first = made.item(0)
    assert (first.case, first.structure, first.region) == ("case_05", "liver", None)
    assert first.gain == pytest.approx(0.6, abs=1e-4)
    assert len(made) == 13
    assert read_queue(folder) == made
    rows = list(csv.DictReader((folder / "queue.csv").open()))
    assert [row["case"] for row in rows] == [item.case for item in made.items()]
    assert float(rows[-1]["minutes_so_far"]) == pytest.approx(made.total_minutes, abs=0.05)
    assert [row["fits"] for row in rows].count("yes") == made.within_minutes
    fitting = [float(row["minutes_so_far"]) for row in rows if row["fits"] == "yes"]
    assert max(fitting) <= 4 < float(rows[made.within_minutes]["minutes_so_far"])
    page = (folder / "queue.html").read_text()
    assert "case_05" in page
    assert "Go on:" in page
    assert made.stop.reasons[0] == "12 structures are open"
    # By default structures alone are items
    assert {item.region for item in segfw.queue(folder).items()} == {None}


def test_the_command_says_what_comes_first_and_refuses_what_is_wrong(folder, capsys):
    assert main(["queue", str(folder), "--minutes", "4", "--for", "pool"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("12 items of 6 cases for these masks")
    assert any(line.startswith("case_05: liver: ") for line in said)
    assert said[-3].startswith("go on: 12 structures are open; 0 of 4 minutes are spent")
    assert said[-2].endswith("queue.csv")
    assert said[-1] == f"next: segfw review {folder}"
    for arguments, message in (
        (("--minutes", "0"), "--minutes is 0.0; give more than 0"),
        (("--fail-below", "1"), "--fail-below is 1.0; give more than 0 and less than 1"),
        (("--weights", "nowhere.csv"), "nowhere.csv: "),
    ):
        assert main(["queue", str(folder), *arguments]) == 2
        assert message in capsys.readouterr().err
    assert main(["queue", str(folder / "quality")]) == 2
    assert "is no folder of segfw's masks" in capsys.readouterr().err
    (folder / "review" / "audit.json").write_text("{")
    assert main(["queue", str(folder)]) == 2
    assert "audit.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("column", "change", "message"),
    [
        ("gain", lambda values: values[:-1], "the columns differ in length"),
        ("case", lambda values: [*values[:-1], 6], "column 'case' has a number that none of the 6 names has"),
        ("role", lambda values: [-1, *values[1:]], "column 'role' has a number that none of the 2 names has"),
    ],
)
def test_a_queue_whose_columns_do_not_fit_is_refused(folder, column, change, message):
    segfw.queue(folder)
    path = folder / "review" / "queue.json"
    content = json.loads(path.read_text())
    content["columns"][column] = change(content["columns"][column])
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        read_queue(folder)


def test_what_is_decided_is_left_out_and_minutes_are_learned(folder):
    store = ReviewStore.open(folder)
    before = segfw.queue(folder)
    reviewed(store, "case_05", {"liver": "accept", "spleen": "accept"}, active_s=600.0)
    after = segfw.queue(folder)
    assert {item.case for item in after.items()} == set(CASES[:5])
    assert after.closed_items == 2
    assert after.spent_minutes == pytest.approx(20.0)
    assert after.minutes_model.measured == 2
    # both took many times what is assumed, so all others are expected to take longer
    assert after.total_minutes > 1.1 * (
        before.total_minutes - sum(i.minutes for i in before.items() if i.case == "case_05")
    )
    stopped = segfw.queue(folder, minutes=15)
    assert stopped.stop.is_reached
    assert "20 of 15 minutes are spent" in stopped.stop.text
    assert stopped.within_minutes == 0


def test_it_stops_where_nothing_pays(folder):
    assert not segfw.queue(folder, worth=0.001).stop.is_reached
    stopped = segfw.queue(folder, worth=100)
    assert stopped.stop.is_reached
    assert "100 is worth it" in stopped.stop.text


def test_weights_count_and_wrong_ones_are_refused(folder, tmp_path):
    table = tmp_path / "weights.csv"
    table.write_text("structure,weight\nliver,0\n")
    made = segfw.queue(folder, weights=table, regions=False)
    assert {item.structure for item in made.items(0, 6)} == {"spleen"}
    for text, message in (
        ("structure,weight\nlivr,1\n", "line 2: there is no structure 'livr'; did you mean liver"),
        ("structure,weight\nliver,-1\n", "line 2: the weight of 'liver' is '-1'"),
        ("structure,weight\nliver,1\nliver,2\n", "line 3: 'liver' has a weight already"),
        ("structure\nliver\n", "no column for the weight"),
    ):
        table.write_text(text)
        with pytest.raises(UserError, match=message):
            segfw.queue(folder, weights=table)


def test_for_the_model_whole_cases_come_in_turn(folder):
    made = segfw.queue(folder, goal="model", regions=False)
    cases = [item.case for item in made.items()]
    assert len(set(cases)) == 6
    assert all(cases[2 * n] == cases[2 * n + 1] for n in range(6))
    assert cases[0] == "case_05"


def test_a_folder_without_quality_says_what_to_do_and_takes_doubt(folder):
    for path in (folder / "quality").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="run segfw calibrate on the model and predict again"):
        segfw.queue(folder)
    lines = ["case,foreground_voxels,entropy,disagreement", "case_03,12,0.5,", "case_01,12,0.2,", "case_00,0,,"]
    (folder / "uncertainty.csv").write_text("\n".join(lines) + "\n")
    made = segfw.queue(folder)
    assert made.ranked_by == "doubt"
    page = (folder / "queue.html").read_text()
    assert "and no Dice" in page
    assert "Predicted Dice" not in page
    assert [item.case for item in made.items()][::2] == ["case_00", "case_03", "case_01"]
    assert made.left_out == ("case_02", "case_04", "case_05")
    (folder / "uncertainty.csv").write_text("case,entropy\na,x\n")
    with pytest.raises(UserError, match="is no table of doubt"):
        segfw.queue(folder)


# ---- audit ----


def test_an_audit_is_drawn_before_read_after_and_bounds_the_rest(folder):
    store = ReviewStore.open(folder)
    first = segfw.queue(folder, audit=8, seed=3)
    assert first.audit_state == "drawn"
    assert all(item.role == "work" for item in first.items())
    drawn = [event for event in store.log.events() if event.event == "audit-drawn"]
    assert "8 of 12 open structures drawn, seed 3" in drawn[0].reason
    with pytest.raises(UserError, match="an audit of 8 items was drawn at"):
        segfw.queue(folder, audit=8)
    reviewed(store, "case_05", {"liver": "accept", "spleen": "accept"})

    begun = segfw.queue(folder, read_audit=True)
    kept = json.loads((folder / "review" / "audit.json").read_text())["audits"][0]
    wanted = sorted(tuple(item) for item in kept["items"] if item[0] != "case_05")
    assert kept["rest"] == {"": 10}
    shown = begun.items(0, len(wanted))
    assert [(item.case, item.structure) for item in shown] == wanted
    assert all((item.role, item.predicted_dice, item.gain) == ("audit", None, None) for item in shown)
    assert begun.item(len(wanted)).role == "work"
    # all livers have 4 ml and all spleens 2: how bad one is believed to be must not show by its minutes
    minutes: dict[tuple[str, bool], set[float | None]] = {}
    for item, before in zip(shown, (None, *shown)):
        is_new = before is None or before.case != item.case
        minutes.setdefault((item.structure, is_new), set()).add(item.minutes)
    assert all(len(each) == 1 for each in minutes.values())
    assert "0 of" in begun.audit[0].text
    lines = queue_lines(begun)[1:]  # below the sums: nothing that was predicted is told of what the audit drew
    assert all(line.endswith(" min; drawn for the audit") for line in lines[: len(wanted)])
    assert all(", may gain " in line for line in lines[len(wanted) : -2])

    for case, name in wanted:
        if store.standing(case).state == "DRAFT":
            reviewed(store, case, {"liver": "accept", "spleen": "absent" if name == "spleen" else "accept"})
    done = segfw.queue(folder)
    result = done.audit[0]
    assert result.sampled == result.read == len(wanted)
    failed = sum(store.standing(case).decisions[name] == "absent" for case, name in wanted)
    assert result.failed == failed
    # all but 10 - sampled are known; the bound is exact for so small a pool
    assert result.failed / 10 <= result.bound <= (result.failed + 10 - result.sampled) / 10
    told = review_facts(folder)
    assert told.audit == done.audit
    assert f"audit: {result.text}" in told.lines()
    with pytest.raises(UserError, match="all audits that were announced"):
        segfw.queue(folder, audit=3)
    with pytest.raises(UserError, match="the last one has begun already"):
        segfw.queue(folder, read_audit=True)


def test_a_corrected_draft_fails_by_its_dice_and_a_rejected_case_fails(folder):
    store = ReviewStore.open(folder)
    segfw.queue(folder, audit=12, fail_below=0.7)
    segfw.queue(folder, read_audit=True)
    # 8 voxels of liver; without one the Dice is 14/15, without five 6/11
    for case, gone in (("case_00", 1), ("case_01", 5)):
        store.open_case(case, ANNA)
        values = store.read(case, 0).array[0].copy()
        values[tuple(np.argwhere(values == 1)[:gone].T)] = 0
        store.save(case, ANNA, values, base=0, origin="edited", tool="test")
        store.decide(case, ANNA, "liver", "edit")
    store.reject("case_02", BEN, "image-bad")
    result = segfw.queue(folder).audit[0]
    assert (result.read, result.failed, result.bound) == (4, 3, None)


def test_a_draft_fails_that_was_corrected_and_then_accepted_or_rejected(folder):
    store = ReviewStore.open(folder)
    segfw.queue(folder, audit=12, fail_below=0.7)
    segfw.queue(folder, read_audit=True)
    store.open_case("case_00", ANNA)
    values = store.read("case_00", 0).array[0].copy()
    values[tuple(np.argwhere(values == 1)[:5].T)] = 0  # of 8 voxels of liver: Dice 6/11
    store.save("case_00", ANNA, values, base=0, origin="edited", tool="test")
    for name in ("liver", "spleen"):
        store.decide("case_00", ANNA, name, "accept", asked_again=True)
    result = segfw.queue(folder).audit[0]
    assert (result.read, result.failed) == (2, 1)
    store.finish("case_00", ANNA)
    store.open_case("case_01", ANNA)
    store.decide("case_01", ANNA, "liver", "accept", asked_again=True)
    store.reject("case_01", ANNA, "image-bad")
    result = segfw.queue(folder).audit[0]
    assert (result.read, result.failed) == (4, 3)


def test_an_audit_of_each_structure_divides_alpha(folder):
    segfw.queue(folder, audit=2, audit_by="structure", audits=2)
    kept = json.loads((folder / "review" / "audit.json").read_text())
    assert kept["announced"] == 2
    assert kept["audits"][0]["alpha"] == 0.05 / 4
    assert sorted(name for _, name in kept["audits"][0]["items"]) == ["liver", "liver", "spleen", "spleen"]
    assert kept["audits"][0]["pool"] == {"liver": 6, "spleen": 6}


def test_an_audit_must_be_there_to_begin(folder):
    with pytest.raises(UserError, match="none is drawn; draw one"):
        segfw.queue(folder, read_audit=True)


# ---- planted errors ----


@pytest.fixture
def large_folder(tmp_path):
    cases = tuple(f"scan{number:03d}" for number in range(24))
    masks = masks_folder(tmp_path, cases)
    for case in cases:
        write_quality(masks, case, [structure("liver", 0.8), structure("spleen", 0.9, value=2)])
    return masks


def enlarged(folder, monkeypatch):
    """Errors are made in structures of 8 voxels, too."""
    monkeypatch.setattr("segfw.worklist.made_errors.LEAST_VOXELS", 4)
    return folder


def test_planted_errors_stand_among_the_others_and_are_told_at_the_end(large_folder, monkeypatch, capsys):
    folder = enlarged(large_folder, monkeypatch)
    made = segfw.queue(folder, plant=2, seed=5)
    assert len(made) == 50
    store = ReviewStore.open(folder)
    planted = PlantedCases(folder)
    plants = planted.read().plants
    names = {item.case for item in made.items()}
    assert {plant.id for plant in plants} <= names
    assert not {plant.id for plant in plants} & set(store.case_ids)
    for plant in plants:
        assert len(plant.id) == len(plant.source)
        source = store.read(plant.source, 0).array
        changed = planted.mask(plant.id).array
        assert changed.shape == source.shape
        assert (changed != source).any()
        assert planted.mask(plant.id).geometry == store.read(plant.source, 0).geometry
    for name in ("queue.json", "../queue.csv", "../queue.html"):
        assert "plant" not in (folder / "review" / name).read_text()

    one, other = plants
    planted.answer(one.id, ANNA, one.structure, "edit", now=store.clock)
    planted.answer(other.id, ANNA, other.structure, "accept", now=store.clock)
    result = planted.vigilance()
    assert (result.caught, result.answered, result.planted) == (1, 2, 2)
    assert one.id not in {item.case for item in segfw.queue(folder).items()}

    assert review_facts(folder) is None  # before they are revealed nobody is told
    assert main(["queue", str(folder), "--reveal"]) == 0
    said = capsys.readouterr().out
    assert "1 of 2 planted errors were seen" in said
    assert f"not seen: {other.structure} of a copy of {other.source} ({other.kind})" in said
    assert any(line.startswith("vigilance: 1 of 2 planted errors were seen") for line in review_facts(folder).lines())
    told = [event for event in store.log.events() if event.event == "planted"]
    assert [event.planted for event in told] == [True, True]
    assert {event.case for event in told} == {one.source, other.source}
    assert ["accepted" in event.reason for event in told] == [False, True]
    assert not list((folder / "review" / "plants").glob("*.nii.gz"))
    with pytest.raises(UserError, match="no errors are planted"):
        segfw.queue(folder, reveal=True)
    assert all(standing.state == "DRAFT" for standing in store.standings().values())


def test_not_too_many_are_planted_and_not_twice(large_folder, monkeypatch):
    folder = enlarged(large_folder, monkeypatch)
    with pytest.raises(UserError, match="of 48 open structures at most 5 of 100 may be planted, which is 2"):
        segfw.queue(folder, plant=3)
    segfw.queue(folder, plant=1)
    with pytest.raises(UserError, match="1 errors are planted already"):
        segfw.queue(folder, plant=1)
    with pytest.raises(UserError, match="has no case 'scan000'"):
        PlantedCases(folder).answer("scan000", ANNA, "liver", "edit", now=Clock())


def test_where_no_error_can_be_made_nothing_is_planted(large_folder):
    with pytest.raises(UserError, match="errors can be planted in 0 cases"):
        segfw.queue(large_folder, plant=2)
    assert not PlantedCases(large_folder).read().plants
