"""Planted cases look like all others at the page, and leave nothing in the store, the log and the versions."""

from __future__ import annotations

import json

import numpy as np
import pytest

from builders.drafts_folder import drawn_mask, make_drafts
from segfw.base.errors import UserError
from segfw.review_page.review_desk import Bitmap, ReviewDesk, Seat
from segfw.review_page.review_index import Wanted
from segfw.review_page.session_summary import session_summary
from segfw.reviewing.people import Person
from segfw.reviewing.refusals import Conflict, Locked
from segfw.reviewing.review_policy import ReviewPolicy
from segfw.reviewing.review_store import ReviewStore
from segfw.reviewing.states import WrongState
from segfw.verbs.queue import queue
from segfw.worklist.planted_cases import PlantedCases

ANNA = Person(user="Anna")
CASES = {f"case_{number:02d}": drawn_mask((6, 20, 20)) for number in range(1, 13)}


@pytest.fixture
def folder(tmp_path):
    made = make_drafts(tmp_path, CASES)
    queue(made, plant=1, seed=3)
    return made


def desk_of(folder, person=ANNA, **options):
    return ReviewDesk(ReviewStore.open(folder), Seat(person=person, **options))


def planted_id(folder):
    (plant,) = PlantedCases(folder).read().plants
    return plant.id


def shapes_of(value):
    """The keys and types of nested JSON: two cases that look alike have the same."""
    if isinstance(value, dict):
        return {name: shapes_of(part) for name, part in value.items()}
    return type(value).__name__


def test_a_planted_case_is_in_the_queue_like_the_others(folder):
    desk = desk_of(folder)
    case = planted_id(folder)
    told = desk.queue(0, 500, Wanted())
    assert told["progress"]["cases"] == 13
    rows = [row for row in told["items"] if row["case"] == case]
    assert sorted(row["structure"] for row in rows) == ["liver", "tumour"]
    other = next(row for row in told["items"] if row["case"] != case)
    assert shapes_of(rows[0]) == shapes_of(other)
    assert "plant" not in json.dumps(told)


def test_a_planted_case_is_told_of_like_the_others(folder):
    desk = desk_of(folder)
    case = planted_id(folder)
    (plant,) = PlantedCases(folder).read().plants
    told = desk.case(case, desk.views.grid(case))
    other = desk.case(plant.source, desk.views.grid(plant.source))
    assert shapes_of(told) == shapes_of(other)
    assert told["planted"] is False
    assert told["has_image"]
    assert plant.source not in json.dumps(told)
    grid = desk.views.grid(case)
    np.testing.assert_array_equal(desk.views.image(case, grid).array, desk.views.image(plant.source, grid).array)
    assert (desk.views.label(case, 0, grid) != desk.views.label(plant.source, 0, grid)).any()  # the error is there


def test_all_steps_can_be_taken_and_nothing_reaches_the_store(folder):
    desk = desk_of(folder)
    case = planted_id(folder)
    log = desk.store.log.path
    before = log.read_bytes() if log.is_file() else b""
    grid = desk.views.grid(case)
    with pytest.raises(Locked):
        desk.save(case, bitmap(grid, desk.views.label(case, 0, grid), 0))
    assert desk.open(case)["state"] == "IN_REVIEW"
    drawn = desk.views.label(case, 0, grid).copy()
    drawn[0, 0, 0] = 1
    assert desk.save(case, bitmap(grid, drawn, 0))["version"] == 1
    with pytest.raises(Conflict):
        desk.save(case, bitmap(grid, drawn, 0))
    np.testing.assert_array_equal(desk.views.label(case, 1, grid), drawn)
    with pytest.raises(UserError, match="nothing is decided on liver, tumour"):
        desk.finish(case)
    assert desk.decide(case, "liver", "accept", region=None, asked_again=False)["asked"]  # as of any case
    for name in ("liver", "tumour"):
        assert desk.decide(case, name, "edit", region=None, asked_again=True)["decisions"][name] == "edit"
    with pytest.raises(WrongState):
        desk.sign(case, name="Dr A", meaning="review", sha256="0")
    made = desk.finish(case)
    assert made["state"] == "REVIEWED"
    with pytest.raises(UserError):
        desk.sign(case, name="Dr A", meaning="review", sha256="0")
    assert desk.sign(case, name="Dr A", meaning="review", sha256=made["sha256"])["state"] == "SIGNED"
    # Another server shows the same
    again = desk_of(folder)
    assert again.case(case, again.views.grid(case))["state"] == "SIGNED"
    assert (log.read_bytes() if log.is_file() else b"") == before
    assert not (folder / "review" / "labels").exists()
    assert case not in desk.store.case_ids
    (plant,) = PlantedCases(folder).read().plants
    assert plant.is_caught


def refused(desk, case, take):
    """What a step that cannot be taken is refused with, without the name of the case."""
    with pytest.raises(UserError) as caught:
        take(desk.source.steps(case), case)
    return str(caught.value).replace(case, "CASE")


def test_a_planted_case_refuses_in_the_words_of_the_others(folder):
    desk = desk_of(folder)
    case = planted_id(folder)
    small = np.zeros((2, 2, 2), np.uint8)
    saved = {"base": 0, "origin": "edited", "tool": "brush"}
    signed = {"name": "Dr A", "meaning": "review", "version_sha256": "0" * 64}
    not_opened = [
        lambda steps, name: steps.finish(name, ANNA),
        lambda steps, name: steps.save(name, ANNA, small, **saved),
        lambda steps, name: steps.reject(name, ANNA, "other"),
        lambda steps, name: steps.reject(name, ANNA, "dull"),
        lambda steps, name: steps.sign(name, ANNA, **signed),
        lambda steps, name: steps.sign(name, ANNA, **signed | {"meaning": "hearsay"}),
        lambda steps, name: steps.amend(name, ANNA, " "),
    ]
    opened = [
        lambda steps, name: steps.save(name, ANNA, small, **saved),
        lambda steps, name: steps.decide(name, ANNA, "spleen", "edit"),
        lambda steps, name: steps.decide(name, ANNA, "liver", "perhaps"),
        lambda steps, name: steps.finish(name, ANNA),
    ]
    for take in not_opened:
        assert refused(desk, case, take) == refused(desk, "case_05", take)
    for name in (case, "case_05"):
        desk.open(name)
    for take in opened:
        assert refused(desk, case, take) == refused(desk, "case_05", take)
    for name in (case, "case_05"):
        for structure in ("liver", "tumour"):
            desk.decide(name, structure, "edit", region=None, asked_again=True)
        desk.finish(name)
    assert refused(desk, case, not_opened[4]) == refused(desk, "case_05", not_opened[4])


def test_whom_the_policy_does_not_name_may_do_nothing_with_a_planted_case_either(folder):
    policy = ReviewPolicy(reviewers=("Ben",), signers=("Ben",))
    policy.save(folder / "review" / "policy.json")
    desk = desk_of(folder)
    case = planted_id(folder)
    for take in (
        lambda steps, name: steps.open_case(name, ANNA),
        lambda steps, name: steps.renew(name, ANNA, active_s=1.0),
        lambda steps, name: steps.decide(name, ANNA, "liver", "accept"),
        lambda steps, name: steps.finish(name, ANNA),
        lambda steps, name: steps.release(name, ANNA),
        lambda steps, name: steps.reject(name, ANNA, "other", "no"),
        lambda steps, name: steps.sign(name, ANNA, name="Dr A", meaning="review", version_sha256="0" * 64),
        lambda steps, name: steps.amend(name, ANNA, "a reason"),
    ):
        sentence = refused(desk, case, take)
        assert "'Anna' may not" in sentence
        assert sentence == refused(desk, "case_05", take)


def test_with_four_eyes_nobody_signs_a_planted_case_that_he_ever_had_in_hand(folder):
    """Anna reviews, Ben reviews again: neither signs, before and after the server is started anew."""
    ReviewPolicy(four_eyes=True).save(folder / "review" / "policy.json")
    ben = Person(user="Ben")
    desk = desk_of(folder)
    case = planted_id(folder)
    for name in (case, "case_05"):
        steps = desk.source.steps(name)
        for person in (ANNA, ben):
            steps.open_case(name, person)
            for structure in ("liver", "tumour"):
                steps.decide(name, person, structure, "edit", asked_again=True)
            steps.finish(name, person)
    for person in (ANNA, ben):

        def sign(steps, name, person=person):
            sha256 = steps.standing(name).sha256
            steps.sign(name, person, name="Dr", meaning="review", version_sha256=sha256)

        sentence = refused(desk, case, sign)
        assert f"{person.user} reviewed or changed it" in sentence
        assert sentence == refused(desk, "case_05", sign)
        assert sentence == refused(desk_of(folder), case, sign)  # of a server that was started anew


def bitmap(grid, indexes, base):
    return Bitmap(indexes_zyx=indexes, grid=grid, group=0, base=base, origin="edited", is_autosave=False)


@pytest.mark.parametrize("decision, is_caught", [("accept", False), ("edit", True), ("absent", True)])
def test_what_is_decided_tells_whether_it_was_seen(folder, decision, is_caught):
    desk = desk_of(folder)
    case = planted_id(folder)
    desk.open(case)
    for name in ("liver", "tumour"):
        desk.decide(case, name, decision, region=None, asked_again=True)
    desk.finish(case)
    vigilance = PlantedCases(folder).vigilance()
    assert (vigilance.answered, vigilance.caught) == (1, int(is_caught))


def test_whoever_rejects_it_has_seen_it(folder):
    desk = desk_of(folder)
    case = planted_id(folder)
    assert desk.reject(case, "model-failed", "")["state"] == "REJECTED"
    assert PlantedCases(folder).vigilance().caught == 1
    assert desk_of(folder).source.standing(case).state == "REJECTED"
    with pytest.raises(WrongState):
        desk.open(case)


def test_a_blind_queue_hides_planted_cases_too(folder):
    queue(folder, blind=True)
    desk = desk_of(folder)
    case = planted_id(folder)
    assert desk.session()["blind"]
    assert desk.case(case, desk.views.grid(case))["hidden"]
    desk.open(case)
    desk.decide(case, "liver", "accept", region=None, asked_again=True)
    assert not desk.case(case, desk.views.grid(case))["hidden"]
    assert not desk_of(folder).case(case, desk.views.grid(case))["hidden"]


def test_the_summary_tells_of_planted_errors_once_they_are_revealed(folder):
    desk = desk_of(folder)
    case = planted_id(folder)
    before = session_summary(desk.store)
    assert (before["planted"], before["cases"], before["audit"]) == (None, 12, None)
    desk.open(case)
    for name in ("liver", "tumour"):
        desk.decide(case, name, "edit", region=None, asked_again=True)
    assert session_summary(desk.store) == before  # nothing moves
    queue(folder, reveal=True)
    told = session_summary(ReviewStore.open(folder))
    assert told["planted"] == {"shown": 1, "caught": 1, "lower_bound": pytest.approx(0.05)}
    assert told["log"]["n"] == before["log"]["n"] + 1


def test_the_summary_tells_minutes_states_the_audit_and_the_head_of_the_log(tmp_path):
    """12 cases of two structures; 4 of the 24 drafts are drawn, and all are read: one of them is absent."""
    folder = make_drafts(tmp_path, CASES)
    queue(folder, audit=4)
    queue(folder, read_audit=True)
    desk = desk_of(folder)
    drawn = [(item.case, item.structure) for item in desk.index().items if item.is_audit]
    assert len(drawn) == 4
    assert session_summary(desk.store)["audit"]["upper_bound"] is None  # not all are read
    assert desk.case(drawn[0][0], desk.views.grid(drawn[0][0]))["hidden"]  # the audit is read blind
    for number, (case, structure) in enumerate(drawn):
        desk.open(case)
        decision = "absent" if number == 0 else "accept"
        desk.decide(case, structure, decision, region=None, asked_again=True)
    desk.reject(next(case for case in CASES if case not in dict(drawn)), "image-bad", "")
    told = session_summary(desk.store)
    assert (told["signed"], told["reviewed"], told["rejected"]) == (0, 0, 1)
    assert (told["audit"]["checked"], told["audit"]["failures"]) == (4, 1)
    assert 0.5 < told["audit"]["upper_bound"] < 0.8
    check = desk.store.log.verify()
    assert told["log"] == {"n": check.head_n, "sha256": check.head_sha256, "problem": ""}
