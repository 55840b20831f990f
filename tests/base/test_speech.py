"""What a command says reaches the terminal, less of it under --quiet, and its log, which never stands in the way."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading

import pytest

from builders.waiting import run_together
from segfw.base.speech import BAR_LINE_EVERY_S, Log, LogPlace, aside, spoken_output

LINE = re.compile(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d{4} \[(\d+)\] (.*)")


def log_in(folder) -> Log:
    return Log(LogPlace(file=folder / "log.txt", marks=(folder / "mark",)))


def logged(folder) -> list[str]:
    lines = (folder / "log.txt").read_text(encoding="utf-8").splitlines()
    matches = [LINE.fullmatch(line) for line in lines]
    assert all(matches), lines
    return [match[2] for match in matches]


def speak():
    print("training 2d fold 0")
    print("warning: case_01 is odd")
    aside("case_02: 3 of 9", sys.stderr)
    print("an error of a library", file=sys.stderr)
    sys.stderr.write("\rtraining: 10%")


def end():
    aside("a table")
    print("report: work/report.html")


@pytest.mark.parametrize("is_quiet", [False, True])
def test_quiet_keeps_warnings_errors_and_results_and_the_log_all(is_quiet, tmp_path, capsys):
    (tmp_path / "mark").touch()
    with spoken_output() as speech:
        speech.is_quiet = is_quiet
        speech.log = log_in(tmp_path)
        speak()
        speech.is_at_end = True
        end()
    said = capsys.readouterr()
    kept = "warning: case_01 is odd\nreport: work/report.html\n"
    everything = "training 2d fold 0\nwarning: case_01 is odd\na table\nreport: work/report.html\n"
    assert said.out == (kept if is_quiet else everything)
    bar = "\rtraining: 10%"
    assert said.err == ("an error of a library\n" if is_quiet else f"case_02: 3 of 9\nan error of a library\n{bar}")
    assert logged(tmp_path) == [
        *("training 2d fold 0", "warning: case_01 is odd", "case_02: 3 of 9", "an error of a library"),
        *("training: 10%", "a table", "report: work/report.html"),
    ]


def test_a_moving_bar_is_a_line_now_and_then(tmp_path, monkeypatch):
    (tmp_path / "mark").touch()
    now_s = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now_s[0])
    with spoken_output() as speech:
        speech.log = log_in(tmp_path)
        for percent in range(0, 100, 10):
            sys.stderr.write(f"\rtraining: {percent}%")
            now_s[0] += BAR_LINE_EVERY_S / 3
    assert logged(tmp_path) == ["training: 0%", "training: 30%", "training: 60%", "training: 90%"]


def test_a_log_begins_with_what_was_said_before_its_folder_was_there(tmp_path):
    folder = tmp_path / "work"
    log = log_in(folder)
    log.add("$ segfw run raw work")
    assert not folder.exists()
    folder.mkdir()
    log.add("checked 6 cases")
    assert list(folder.iterdir()) == []  # it may be a folder of the user's that is going to be refused
    (folder / "mark").touch()
    log.add("planned 2d\n\n  of 6 cases\n")
    assert logged(folder) == ["$ segfw run raw work", "checked 6 cases", "planned 2d", "  of 6 cases"]


def test_nothing_that_goes_wrong_with_a_log_is_raised(tmp_path):
    (tmp_path / "mark").touch()
    (tmp_path / "log.txt").mkdir()
    log = log_in(tmp_path)
    log.add("lost")
    (tmp_path / "log.txt").rmdir()
    log.add("kept Kn\udcf6chel\x1b[2J")
    (torn,) = (line for line in (tmp_path / "log.txt").read_text(encoding="utf-8").splitlines() if line)
    assert LINE.fullmatch(torn)[2] == r"kept Kn\udcf6chel\x1b[2J"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full, a disk that is always full, is of Linux")
def test_a_full_disk_takes_the_log_and_nothing_else(tmp_path, capsys):
    (tmp_path / "mark").touch()
    (tmp_path / "log.txt").symlink_to("/dev/full")
    with spoken_output() as speech:
        speech.log = log_in(tmp_path)
        print("training")
    assert capsys.readouterr().out == "training\n"


def test_processes_and_threads_write_whole_lines(tmp_path):
    (tmp_path / "mark").touch()
    code = (
        "import sys; from pathlib import Path; from segfw.base.speech import *\n"
        "spoken = spoken_output(); speech = spoken.__enter__()\n"
        "speech.log = Log(LogPlace(file=Path('log.txt'), marks=(Path('mark'),)))\n"
        "for number in range(200): print(sys.argv[1] * 50, number)"
    )
    workers = [
        subprocess.Popen([sys.executable, "-c", code, name], cwd=tmp_path, stdout=subprocess.DEVNULL) for name in "ab"
    ]
    assert [worker.wait(60) for worker in workers] == [0, 0]
    with spoken_output() as speech:
        speech.log = log_in(tmp_path)
        threads = [threading.Thread(target=lambda: [print("c" * 50, number) for number in range(200)]) for _ in "12"]
        run_together(threads)
    lines = logged(tmp_path)
    for name, times in (("a", 1), ("b", 1), ("c", 2)):
        assert sorted(line for line in lines if name in line) == sorted(
            [f"{name * 50} {number}" for number in range(200)] * times
        )
    assert len(lines) == 800
