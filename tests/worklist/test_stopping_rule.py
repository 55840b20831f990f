"""Whether to stop: the sentence in English, and the numbers that other languages make their own of."""

import pytest

from segfw.worklist.audit_sample import AuditResult
from segfw.worklist.stopping_rule import Stop, stopping


def audited(bound, *, read=59, failed=0):
    return AuditResult(of="", rest=200, sampled=59, read=read, failed=failed, alpha=0.05, bound=bound)


def asked(**how):
    given = {
        "items_left": 7,
        "spent_minutes": 30.0,
        "minutes": 60.0,
        "best_per_minute": 0.02,
        "worth": 0.01,
        "audit": [],
        "audit_target": 0.05,
        "do_not_use_left": 0,
    }
    return stopping(**{**given, **how})


def test_while_nothing_holds_the_nearest_conditions_are_told():
    stop = asked(audit=[audited(0.08, failed=1)])
    assert not stop.is_reached
    assert stop.text == (
        "go on: 7 structures are open; 30 of 60 minutes are spent; the best item brings 0.0200 Dice a minute, and 0.01 "
        "is worth it; audit: at most 8.0 % of 200 drafts that the queue did not reach fail (1 of 59 did; holds in 95 "
        "of 100 audits); wanted is at most 5 %"
    )
    assert [(fact.kind, fact.number, fact.limit, fact.holds) for fact in stop.facts] == [
        ("open", 7, None, False),
        ("minutes", 30, 60, False),
        ("worth", 0.02, 0.01, False),
        ("audit", None, 0.05, False),
    ]


@pytest.mark.parametrize(
    ("how", "kind", "text"),
    [
        ({"items_left": 0}, "decided", "stop: every structure is decided"),
        ({"spent_minutes": 61.0}, "minutes", "stop: 61 of 60 minutes are spent"),
        ({"worth": 0.03}, "worth", "stop: the best item brings 0.0200 Dice a minute, and 0.03 is worth it"),
        ({"audit": [audited(0.04)]}, "audit", "and nothing is left that is not to be used"),
    ],
)
def test_what_holds_is_told_alone(how, kind, text):
    stop = asked(**how)
    assert stop.is_reached
    assert [fact.kind for fact in stop.facts] == [kind]
    assert text in stop.text


def test_an_audit_that_is_good_is_not_enough_while_masks_are_left_that_are_not_to_be_used():
    stop = asked(audit=[audited(0.04)], do_not_use_left=2)
    assert not stop.is_reached
    assert "but 2 items not to be used are left" in stop.text
    assert stop.facts[-1].number == 2


def test_queues_of_before_have_the_sentence_alone():
    old = Stop.model_validate_json('{"is_reached": false, "reasons": ["1 structure is open"]}')
    assert (old.text, old.facts) == ("go on: 1 structure is open", ())
    assert Stop.model_validate_json(asked().model_dump_json()) == asked()
