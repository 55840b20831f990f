"""Foreign names on the terminal and in tables do nothing there, and every one can be written."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from segfw.base.files import write_text
from segfw.base.printing import csv_text, number_cell, printable, printable_output, safe_cell
from segfw.base.records import Record


class Named(Record):
    names: dict[str, tuple[str, ...]]


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "latin-1", "ascii"])
def test_every_name_can_be_printed_in_every_encoding(monkeypatch, encoding):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding, newline=""))
    with printable_output():
        print("Kn\udcf6chel 病人 ü", flush=True)
    expected = {
        "utf-8": r"Kn\udcf6chel 病人 ü",
        "cp1252": r"Kn\udcf6chel \u75c5\u4eba ü",
        "latin-1": r"Kn\udcf6chel \u75c5\u4eba ü",
        "ascii": r"Kn\udcf6chel \u75c5\u4eba \xfc",
    }
    assert raw.getvalue().decode(encoding) == expected[encoding] + "\n"


def test_commands_to_the_terminal_are_shown_and_not_obeyed(capsys):
    with printable_output():
        print("a\x1b[2J\x1b]0;title\x07b\x9b31m\u202ecod\tz")
        print("errors\x08\x1b[A", file=sys.stderr)
    said = capsys.readouterr()
    assert said.out == "a\\x1b[2J\\x1b]0;title\\x07b\\x9b31m\\u202ecod\tz\n"
    assert said.err == "errors\\x08\\x1b[A\n"


def test_progress_bars_still_move(capsys):
    with printable_output():
        sys.stderr.write("\n\x1b[A")
        sys.stderr.write("\rpredicting:  50%|█████     |")
    assert capsys.readouterr().err == "\n\x1b[A\rpredicting:  50%|█████     |"


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("=cmd|'/c calc'!A1", "'=cmd|'/c calc'!A1"),
        ("+1+1", "'+1+1"),
        ("-1+1", "'-1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\tx", "'\tx"),
        ("-0.25", "-0.25"),
        ("+3e-4", "+3e-4"),
        ("-", "-"),
        ("case_1", "case_1"),
        ("Kn\udcf6chel", r"Kn\udcf6chel"),
        (-0.25, -0.25),
        (None, None),
    ],
)
def test_no_cell_is_a_formula(cell, expected):
    assert safe_cell(cell) == expected


def test_a_table_is_read_back_as_it_was():
    text = csv_text(("case", "dice"), [("a,b", 0.5), ("=1", -1)])
    assert list(csv.reader(text.splitlines())) == [["case", "dice"], ["a,b", "0.5"], ["'=1", "-1"]]


def test_names_that_are_not_utf_8_can_be_kept_in_files(tmp_path):
    Named(names={"Kn\udcf6chel": ("\udcfc",)}).save(tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text()) == {"names": {"Kn\\udcf6chel": ["\\udcfc"]}}
    assert Named.load(tmp_path / "a.json").names == {"Kn\\udcf6chel": ("\\udcfc",)}
    write_text(tmp_path / "a.html", "<p>Kn\udcf6chel")
    assert (tmp_path / "a.html").read_text() == "<p>Kn\\udcf6chel"
    assert printable("plain") == "plain"


def test_cells_of_numbers_are_empty_or_have_so_many_digits():
    values = (None, True, False, 0.0, 2 / 3, 123456.7, 12, "a word")
    assert [number_cell(value, 3) for value in values] == ["", 1, 0, "0", "0.667", "1.23e+05", 12, "a word"]


def test_a_reader_that_has_gone_does_not_end_the_work(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w", encoding="utf-8") as pipe:
        ended = subprocess.run(
            [sys.executable, "-c", SPEAKS, tmp_path / "made"],
            stdout=pipe,
            stderr=subprocess.PIPE,
            text=True,
            timeout=300,
        )
        pipe.close()
    assert (ended.returncode, ended.stderr) == (0, "")
    assert (tmp_path / "made").is_file()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
def test_what_a_full_disk_does_not_take_is_told_at_the_end_of_the_work(tmp_path):
    with open("/dev/full", "w", encoding="utf-8") as full:
        ended = subprocess.run(
            [sys.executable, "-c", SPEAKS, tmp_path / "made"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=300,
        )
    assert ended.stderr == "segfw: not all that was said could be written: No space left on device\n"
    assert ended.returncode == 2
    assert (tmp_path / "made").is_file()


# A verb that says much before it makes its file, and more afterwards
SPEAKS = """
import sys
from pathlib import Path
from segfw import cli

def say_and_make(*_):
    print("before " * 10_000, flush=True)
    Path(sys.argv[1]).touch()
    print("after " * 10_000)
    return 0

cli._main = say_and_make
cli.command()
"""
