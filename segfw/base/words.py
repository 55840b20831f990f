"""Wording that sentences for the user share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path


def count(number: int, noun: str, plural: str = "") -> str:
    """'1 case', '2 cases', '2 patches', '2 epochs'; '2 axes' with 'axes' as ``plural``."""
    return f"{number} {noun}" if number == 1 else f"{number} {plural or _plural(noun)}"


def named(noun: str, names: Sequence[object]) -> str:
    """'fold 0', 'folds 0 and 1', 'folds 0, 1 and 2'."""
    return f"{noun if len(names) == 1 else _plural(noun)} {listed(names, 'and')}"


def listed(words: Iterable[object], last: str = "or") -> str:
    """'a', 'a or b', 'a, b or c'."""
    texts = [str(word) for word in words]
    return f" {last} ".join(filter(None, (", ".join(texts[:-1]), *texts[-1:])))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """'; did you mean epochs?' for a word that is like a known one or the beginning of some, else nothing."""
    import difflib  # here, because --help has no need of it

    plain = {_plain(each): each for each in known}
    sought = _plain(word)
    near = [each for each in plain if sought and each.startswith(sought)]
    near = near or difflib.get_close_matches(sought, plain, n=1)
    return f"; did you mean {listed(plain[each] for each in near)}?" if near else ""


def figure(value: float) -> str:
    """A size in four digits, or all of them where it has more: '0.0123', '12.35', '28413'."""
    return f"{value:.0f}" if abs(value) >= 9999.5 else f"{value:.4g}"


def with_folder(path: Path) -> str:
    """A file's name after that of its folder: images and masks of a case mostly have the same name."""
    return f"{path.parent.name}/{path.name}" if path.parent.name else path.name


def _plural(noun: str) -> str:
    ending = "es" if noun.endswith(("s", "ch", "x")) and not noun.endswith("epoch") else "s"
    return noun + ending


def _plain(name: str) -> str:
    """A name in which slips of case, hyphens and underscores are no difference."""
    return name.lower().replace("_", "-").strip("-")


def first_line(error: BaseException, longest: int | None = None) -> str:
    """The first line of an error's message, or the error's type where it has none; at most ``longest`` characters."""
    lines = str(error).strip().splitlines()
    line = lines[0] if lines else type(error).__name__
    return line[:longest]
