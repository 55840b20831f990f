"""Who may do what in which state: every pair of states and roles, and walks at random."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest

from builders.review import Clock, drawn, masks_folder
from segfw.base.errors import UserError
from segfw.reviewing.people import Person
from segfw.reviewing.review_policy import ReviewPolicy
from segfw.reviewing.review_store import ReviewStore
from segfw.reviewing.states import STATES

REVIEWER = Person(user="reviewer")
SIGNER = Person(user="signer")
BOTH = Person(user="both")
NEITHER = Person(user="neither")
OTHER = Person(user="other")  # a reviewer, who has the case where somebody has it
PEOPLE = (REVIEWER, SIGNER, BOTH, NEITHER, OTHER)
POLICY = ReviewPolicy(reviewers=("reviewer", "both", "other"), signers=("signer", "both"))
ALL = {"liver": "accept", "spleen": "accept"}

STEPS = ("open", "save", "decide", "release", "finish", "sign", "reject", "amend")
# What comes of a step in a state for somebody with the role that it needs; in no other pair of both is it allowed.
ALLOWED = {
    ("DRAFT", "open"): "IN_REVIEW",
    ("REVIEWED", "open"): "IN_REVIEW",
    ("REVIEWED", "sign"): "SIGNED",
    ("DRAFT", "reject"): "REJECTED",
    ("REVIEWED", "reject"): "REJECTED",
    ("SIGNED", "amend"): "REVIEWED",
}
OWN = {  # of who has the case open
    "open": "IN_REVIEW",
    "save": "IN_REVIEW",
    "decide": "IN_REVIEW",
    "release": "DRAFT",
    "finish": "REVIEWED",
    "reject": "REJECTED",
}


def store_with(folder: Path, policy: ReviewPolicy = POLICY, clock: Clock | None = None) -> ReviewStore:
    masks = masks_folder(folder, ("a", "b", "c"))
    (masks / "review").mkdir()
    policy.save(masks / "review" / "policy.json")
    return ReviewStore.open(masks, clock or Clock())


def bring(store: ReviewStore, state: str) -> None:
    """Brings case a into a state, by the person 'other' and a signer."""
    if state == "DRAFT":
        return
    store.open_case("a", OTHER)
    store.decide_all("a", OTHER, ALL)
    if state == "REJECTED":
        store.reject("a", OTHER, "image-bad")
    elif state != "IN_REVIEW":
        made = store.finish("a", OTHER)
        if state == "SIGNED":
            store.sign("a", SIGNER, name="S", meaning="review", version_sha256=made.sha256)
    assert store.standing("a").state == state


def take(store: ReviewStore, step: str, person: Person, case: str = "a") -> None:
    standing = store.standing(case)
    if step == "open":
        store.open_case(case, person)
    elif step == "save":
        values = drawn()
        values[0, 0, store.standing(case).version % 5] = 2
        store.save(case, person, values, base=standing.version, origin="edited", tool="test")
    elif step == "decide":
        store.decide(case, person, "liver", "edit")
    elif step == "release":
        store.release(case, person)
    elif step == "finish":
        store.finish(case, person)
    elif step == "sign":
        store.sign(case, person, name="A B", meaning="review", version_sha256=standing.sha256 or "")
    elif step == "reject":
        store.reject(case, person, "model-failed")
    else:
        store.amend(case, person, "a slip")


@pytest.mark.parametrize("state", STATES)
def test_every_step_of_everybody_in_every_state_is_allowed_or_refused(tmp_path, state):
    tried = 0
    store = None
    for number, (step, person) in enumerate(product(STEPS, PEOPLE)):
        if store is None:
            store = store_with(tmp_path / str(number))
            bring(store, state)
        role = "signer" if step in ("sign", "amend") else "reviewer"
        wanted = ALLOWED.get((state, step)) if store.policy.allows(person, role) else None
        if state == "IN_REVIEW" and person is OTHER:
            wanted = OWN.get(step)
        lines = len(store.log.events())
        if wanted is None:
            with pytest.raises(UserError):
                take(store, step, person)
            assert store.standing("a").state == state
            assert len(store.log.events()) == lines  # nothing was noted, as nothing happened
        else:
            take(store, step, person)
            assert store.standing("a").state == wanted, (step, person)
            store = None
        tried += 1
    assert tried == 40


@pytest.mark.parametrize("seed", range(8))
def test_whatever_is_done_what_is_signed_is_what_the_file_holds(tmp_path, seed):
    clock = Clock()
    policy = POLICY.model_copy(update={"four_eyes": bool(seed % 2)})
    store = store_with(tmp_path, policy, clock)
    draw = np.random.default_rng(seed)
    hashes: dict[tuple[str, int], str] = {}
    signed = 0  # how often a signed case was looked at
    for _ in range(150):
        case = ("a", "b", "c")[draw.integers(3)]
        step = STEPS[draw.choice(8, p=[0.2, 0.15, 0.05, 0.05, 0.25, 0.21, 0.01, 0.08])]
        person = PEOPLE[draw.choice(5, p=[0.3, 0.2, 0.2, 0.05, 0.25])]
        holder = store.standing(case).holder
        if holder is not None and draw.random() < 0.9:
            person = Person(user=holder)
        elif step in ("sign", "amend") and draw.random() < 0.7:
            person = (SIGNER, BOTH)[draw.integers(2)]
        clock.forward(seconds=float(draw.choice([1, 30, 90, 700, -50], p=[0.4, 0.3, 0.15, 0.05, 0.1])))
        lines = len(store.log.events())
        if step == "finish" and draw.random() < 0.8:
            with_decisions(store, case, person)
        try:
            take(store, step, person, case)
        except UserError:
            pass
        else:
            assert step in ("open", "save") or len(store.log.events()) > lines
        for name, standing in store.standings().items():
            if standing.state == "SIGNED":
                signed += 1
                assert store.sha256(name, standing.version) == standing.sha256
                assert store.changed(name) == ()
                if policy.four_eyes:
                    assert standing.signed_by != standing.reviewed_by
            for version in store.versions(name):
                assert hashes.setdefault((name, version.number), version.sha256) == version.sha256
    assert store.log.verify().ok
    for (name, number), sha256 in hashes.items():
        assert store.sha256(name, number) == sha256  # no version was written over
    assert ReviewStore.open(store.folder, clock).standings() == store.standings()
    assert signed > 10  # else this proves nothing


def with_decisions(store: ReviewStore, case: str, person: Person) -> None:
    if store.standing(case).holder == person.user:
        store.decide_all(case, person, ALL)
