"""Wording that sentences for the user share."""

from __future__ import annotations


def count(number: int, noun: str) -> str:
    """'1 case', '2 cases'."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def first_line(error: BaseException, longest: int | None = None) -> str:
    """The first line of an error's message, or the error's type where it has none; at most ``longest`` characters."""
    lines = str(error).strip().splitlines()
    line = lines[0] if lines else type(error).__name__
    return line[:longest]
