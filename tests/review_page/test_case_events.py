"""Events of a case are found in a long log without reading it again."""

from builders.drafts_folder import make_drafts
from segfw.review_page.case_events import CaseEvents
from segfw.reviewing.people import Person
from segfw.reviewing.review_store import ReviewStore

ANNA = Person(user="Anna")
BEN = Person(user="Bén")


def test_events_are_those_of_the_store_while_the_log_grows(tmp_path):
    store = ReviewStore.open(make_drafts(tmp_path))
    events = CaseEvents(store.log.path)
    assert events.of("case_1") == []
    assert events.judged_by("Anna") == set()
    for case, person in (("case_1", ANNA), ("case_2", BEN)):
        store.open_case(case, person)
        store.decide(case, person, "liver", "edit")
        for each in ("case_1", "case_2", "nobody"):
            told = [(event["n"], event["event"], event["user"]) for event in events.of(each)]
            kept = [] if each == "nobody" else [(event.n, event.event, event.user) for event in store.history(each)]
            assert told == kept
    assert [event["event"] for event in events.of("case_2")] == ["open", "decide"]
    assert (events.judged_by("Anna"), events.judged_by("Bén")) == ({"case_1"}, {"case_2"})
