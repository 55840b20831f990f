"""Lines of a log about work that is under way."""

import itertools
import threading

from segfw.base.progress import ProgressLines, SpokenLines, growing_pauses_s, progress, progress_bar


def test_pauses_grow_to_five_minutes():
    assert list(itertools.islice(growing_pauses_s(), 8)) == [5, 10, 20, 40, 80, 160, 300, 300]


def test_a_log_shows_life_while_nothing_is_done(capsys):
    spoken = threading.Event()

    def line() -> str:
        spoken.set()
        return "still there"

    with SpokenLines(line, iter((0.0, 3600.0))):
        assert spoken.wait(60)
    assert capsys.readouterr().err == "still there\n"  # and the end waits for no pause


def test_the_line_of_a_log_tells_what_is_done_and_what_is_left(monkeypatch):
    seconds = iter((0.0, 5.0, 90.0))
    monkeypatch.setattr("segfw.base.progress.time.monotonic", lambda: next(seconds))
    lines = ProgressLines("predicting", 20)
    assert lines.line() == "predicting: 0 of 20 cases in 00:05"
    lines.update(3)
    assert lines.line() == "predicting: 3 of 20 cases in 01:30, about 08:30 left"


def test_of_several_processes_the_first_one_speaks(monkeypatch):
    assert isinstance(progress_bar("predicting", 3), ProgressLines)  # tests have no terminal
    monkeypatch.setenv("RANK", "1")
    assert not isinstance(progress_bar("predicting", 3), ProgressLines)
    assert list(progress("predicting", [1, 2])) == [1, 2]


def test_work_that_is_done_at_once_says_nothing(capsys):
    before = threading.active_count()
    assert list(progress("predicting", range(5))) == [0, 1, 2, 3, 4]
    assert capsys.readouterr().err == ""
    assert threading.active_count() == before
