"""Commands that are printed can be pasted."""

from __future__ import annotations

import shlex

import pytest

from segfw.base.shell_line import shell_line

PARTS = ("segfw", "predict", 'Müllers Daten/O\'Hara "1" & $2', "NEW")


def test_a_shell_reads_the_parts_back():
    assert shlex.split(shell_line(*PARTS, is_windows=False)) == list(PARTS)


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (r"C:\Users\ann\work", r"C:\Users\ann\work"),
        (r"C:\My Data\Kopf (neu)", r'"C:\My Data\Kopf (neu)"'),
        ("a&b", '"a&b"'),
        ("Größe", "Größe"),
        ("--configuration", "--configuration"),
    ],
)
def test_windows_takes_double_quotes(part, expected):
    assert shell_line("segfw", part, is_windows=True) == f"segfw {expected}"
