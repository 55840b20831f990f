"""A visit ends within its minutes, whatever the card: by a simulated clock; and goes on where one was killed."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch

from bench import CLONE
from bench.__main__ import main
from bench.gpu import sections as module
from bench.gpu.section_time import LATE_S, OutOfTime, Section, allowed_s, ended_after, given_up_at_last
from bench.gpu.sections import SECTIONS, run_sections
from bench.gpu.suite import told_so_far
from bench.gpu.visit import MARGIN_S, Visit, attempt

TEN_MINUTES_S = 600.0
KEPT = [section.name for section in SECTIONS if section.is_kept]


@dataclass
class SimulatedCard:
    """A clock that only sections move: each by ``pace`` times what it takes at least, or until it is ended.

    One that is ended takes ``late_s`` more. ``begun`` has of each the seconds that were left when it began.
    """

    pace: float
    late_s: float = 0.0
    clock_s: float = 1000.0
    begun: dict[str, float] = field(default_factory=dict)
    may_take_s: float = math.inf

    def now_s(self) -> float:
        return self.clock_s

    @contextmanager
    def ended_after(self, seconds: float) -> Iterator[None]:
        self.may_take_s = seconds
        yield

    def sections(self) -> list[Section]:
        return [replace(section, measure=self._measure(section)) for section in SECTIONS]

    def _measure(self, section: Section) -> Callable[[Visit, dict, float], None]:
        def measure(visit: Visit, found: dict, until_left_s: float) -> None:
            self.begun[section.name] = visit.seconds_left()
            found["figure"] = 1
            takes_s = self.pace * section.least_s
            if takes_s > self.may_take_s:
                self.clock_s += self.may_take_s + self.late_s
                raise OutOfTime
            self.clock_s += takes_s

        return measure


@pytest.fixture(autouse=True)
def _no_compilers(monkeypatch):
    monkeypatch.setattr(module, "start_compilers", lambda visit: None)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", torch.backends.cudnn.benchmark)


def visit_on(card: SimulatedCard, folder: Path) -> Visit:
    record = {"device": "a card", "torch": "2", "versions": {}, "sections": {}}
    return Visit(
        folder=folder,
        device=torch.device("cuda", 0),
        whole_s=TEN_MINUTES_S,
        nnunet_folder=folder,
        data_folder=folder,
        cine_folder=folder,
        began_s=card.clock_s,
        now_s=card.now_s,
        record=record,
    )


def sections_in(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))["sections"]


@pytest.mark.parametrize("late_s", [0.0, LATE_S])
@pytest.mark.parametrize("pace", [0.2, 0.7, 0.9, 1.0, 1.3, 2.0, 20.0])
def test_ten_minutes_hold_what_is_kept_on_every_card_and_the_rest_is_named(pace, late_s, tmp_path):
    card = SimulatedCard(pace=pace, late_s=late_s)
    visit = visit_on(card, tmp_path)
    run_sections(visit, sections=card.sections(), ended_after=card.ended_after)
    assert visit.seconds_gone() <= TEN_MINUTES_S - MARGIN_S
    assert [name for name in card.begun if name in KEPT] == KEPT
    for section in SECTIONS:
        if section.name in card.begun:
            assert card.begun[section.name] >= section.least_s
    found = sections_in(tmp_path)
    assert list(found) == [section.name for section in SECTIONS]
    skipped = {name for name, figures in found.items() if "skipped" in figures}
    assert skipped == set(found) - set(card.begun)
    assert all(re.fullmatch(r"\d+ s are left for it, and it takes \d+ s", found[name]["skipped"]) for name in skipped)
    unfinished = [name for name, figures in found.items() if "unfinished" in figures]
    assert bool(unfinished) == (pace > 1)
    assert all(found[name]["figure"] == 1 for name in card.begun)  # also of what was ended


def test_a_card_twice_as_fast_as_need_be_has_time_for_more_and_a_slow_one_for_nothing_else(tmp_path):
    more = {}
    for pace in (0.2, 0.9, 20.0):
        card = SimulatedCard(pace=pace)
        (tmp_path / str(pace)).mkdir()
        run_sections(visit_on(card, tmp_path / str(pace)), sections=card.sections(), ended_after=card.ended_after)
        more[pace] = [name for name in card.begun if name not in KEPT]
    assert more[0.2] == [section.name for section in SECTIONS if not section.is_kept]
    # 570 - 0.9 * 520 = 102 s are left, of which these four take 90; 12 are too few for 10 and 3 to end.
    assert more[0.9] == ["kernels", "predict", "feed", "memory"]
    assert more[20.0] == []


def test_time_for_kept_sections_is_left_by_those_before_them():
    """5 s and 3 s more to end, of 20: what comes before may take 20 - 8 - 3."""
    nothing = lambda visit, found, until_left_s: None  # noqa: E731
    first = Section(name="first", least_s=1, most_s=100, measure=nothing)
    kept = Section(name="kept", least_s=5, most_s=50, measure=nothing, is_kept=True)
    other = Section(name="other", least_s=7, most_s=50, measure=nothing)
    assert allowed_s(first, [kept, other], 20) == 9
    assert allowed_s(replace(first, most_s=4), [kept, other], 20) == 4


def test_the_kept_sections_fit_into_ten_minutes_and_all_of_them_do_not():
    kept_s = sum(section.least_s + LATE_S for section in SECTIONS if section.is_kept)
    assert kept_s <= TEN_MINUTES_S - MARGIN_S
    assert sum(section.least_s for section in SECTIONS) > TEN_MINUTES_S - MARGIN_S


def test_a_section_is_ended_when_its_time_is_over_and_keeps_its_figures(tmp_path):
    """By the real clock: a minute's figure, whose errors would be noted and the next one taken."""

    def slow(visit: Visit, found: dict, until_left_s: float) -> None:
        found["first"] = 1
        attempt(found, "second", lambda: time.sleep(60))
        found["third"] = 1

    visit = visit_on(SimulatedCard(pace=1), tmp_path)
    section = Section(name="slow", least_s=0.01, most_s=0.05, measure=slow)
    module.run_section(visit, section, [], ended_after)
    found = sections_in(tmp_path)["slow"]
    assert found["first"] == 1
    assert not {"second", "third"} & set(found)
    assert found["unfinished"].startswith("ended after 0 s")


def test_what_hangs_is_given_up_with_the_record_written(tmp_path, monkeypatch):
    monkeypatch.setattr("bench.gpu.section_time.LAST_S", 0.05)
    left = []
    visit = replace(visit_on(SimulatedCard(pace=1), tmp_path), whole_s=0.1)
    with given_up_at_last(visit, leave=left.append):
        for _ in range(1000):
            if left:
                break
            time.sleep(0.01)
    assert left == [1]
    assert "hung" in json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))["given_up"]


def test_a_killed_visit_goes_on_with_what_is_not_measured(tmp_path):
    """Killed in its third section, then called again: the first two are not measured twice."""

    class Killed(BaseException):
        pass

    card = SimulatedCard(pace=0.5)
    planned = card.sections()

    def kill(visit: Visit, found: dict, until_left_s: float) -> None:
        raise Killed

    killed = [*planned[:2], replace(planned[2], measure=kill), *planned[3:]]
    with pytest.raises(Killed):
        run_sections(visit_on(card, tmp_path), sections=killed, ended_after=card.ended_after)
    found = sections_in(tmp_path)
    assert list(found) == ["machine", "right", "compile"]
    assert found["compile"]["unfinished"] == "it was begun, and the visit was ended before it"
    card.begun.clear()
    again = visit_on(card, tmp_path)
    again.record["sections"] = found
    run_sections(again, sections=planned, ended_after=card.ended_after)
    assert list(card.begun)[:2] == ["compile", "step"]
    assert not {"machine", "right"} & set(card.begun)
    assert list(sections_in(tmp_path))[:3] == ["machine", "right", "compile"]


def test_a_second_call_keeps_the_figures_of_the_first_and_another_card_is_refused(tmp_path):
    arguments = ["gpu", "--cpu", "--output", str(tmp_path), "--limit", "10000"]
    main([*arguments, "--only", "norm"])
    figures = sections_in(tmp_path)["norm"]
    main([*arguments, "--only", "machine"])
    assert list(sections_in(tmp_path)) == ["machine", "norm"]
    assert sections_in(tmp_path)["norm"] == figures
    record = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    (tmp_path / "result.json").write_text(json.dumps(record | {"device": "another card"}), encoding="utf-8")
    with pytest.raises(SystemExit, match="was measured with device another card, here it is CPU, in miniature; give"):
        main([*arguments, "--only", "machine"])


def test_a_record_is_printed_as_tables_for_the_documentation(tmp_path, capsys):
    record = {
        "device": "a card",
        "torch": "2",
        "seconds": 9,
        "sections": {"step": {"eager": {"median_ms": 5.0}}, "norm": {"skipped": "3 s are left for it"}},
    }
    file = tmp_path / "result.json"
    file.write_text(json.dumps(record), encoding="utf-8")
    assert main(["gpu", "table", str(file)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("### a card, torch 2\n")
    assert "\n#### step\n\n| | |\n| --- | --- |\n| eager | median_ms 5 |\n" in printed
    assert "| skipped | 3 s are left for it |" in printed
    with pytest.raises(SystemExit, match=r"missing\.json: is no file; give the result.json of a visit"):
        main(["gpu", "table", str(tmp_path / "missing.json")])


def test_the_documentation_has_the_seconds_of_every_section():
    text = (CLONE / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    for section in SECTIONS:
        always = "always" if section.is_kept else "if there is time"
        assert f"\n| {section.name} | {section.least_s:g} to {section.most_s:g} | {always} | " in text
    least_s = sum(section.least_s for section in SECTIONS)
    most_s = sum(section.most_s for section in SECTIONS)
    kept_s = sum(section.least_s for section in SECTIONS if section.is_kept)
    assert f"All together take {least_s:g} to {most_s:g} s" in text
    assert f"at least {kept_s:g} s" in text


def test_tests_that_were_ended_are_counted_from_their_log():
    lines = ("a.py::one PASSED [ 10%]", "a.py::two FAILED [ 20%]", "a.py::three PASSED [ 30%]", "a.py::four")
    log = "\n".join(f"tests/{line}" for line in lines)
    assert told_so_far(log) == {"passed": 2, "failed": 1, "error": 0, "skipped": 0}
