"""What a name says: which structure of the table, which side, which number in a row. Every word has to mean something.

Names are taken apart by a grammar, and what is left must be a name of the table as a whole: nothing is searched in
anything, so that 肾上腺 (adrenal gland) is no 肾 (kidney), and 'liver hilum' no liver::

    name     =  side? name-of-the-table side?  |  level  |  group number         English words in any order
    side     =  left right l r lt rt ..., both bilateral, 左 右 左侧 右侧 双 双侧 两侧
    level    =  C1-C7 T1-T12 L1-L6 S1-S5, 颈1, 胸十二, 腰1椎体, 第十二胸椎, 'vertebra L5', 'L5 vertebra'
    number   =  of ribs and of segments of the liver: 3, third, 3rd, III, 第3, 三

English is taken apart where letters meet other characters, and between 'Parotid' and 'L' of 'ParotidL'; a plural is its
singular, and 'of' and 'the' mean nothing. Traditional characters are read as simplified ones. Sides are the patient's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import chain
from typing import NamedTuple
from unicodedata import normalize

from segfw.dataset.anatomy import Side, Structure, anatomy
from segfw.dataset.chinese_text import NUMBER, is_chinese, number_of, simplified
from segfw.dataset.side_words import ABBREVIATIONS, CHINESE, CHINESE_BOTH, WORDS, words_of


class Reading(NamedTuple):
    """One thing that a name can mean. ``side`` is '' where the name says none."""

    id: str
    side: Side


LONGEST_NAME = 200  # characters; nothing is called longer
# What may stand between words; anything else, such as '+', has a meaning that no name has.
SEPARATORS = r"\s_\-./,:;'\"()\[\]{}?!·"
_ALLOWED = re.compile(rf"[A-Za-z0-9\u3400-\u9fff{SEPARATORS}]+")
_SEPARATORS = re.compile(rf"[{SEPARATORS}]+")

# ---- words ----

EMPTY_WORDS = frozenset({"of", "the"})
_LEFT = frozenset({"lft", *(left for left, _ in (*WORDS, *ABBREVIATIONS))})
_RIGHT = frozenset({"rgt", *(right for _, right in (*WORDS, *ABBREVIATIONS))})
_BOTH = frozenset({"both", "bilateral"})
# A side that stands before or behind a single word without anything between, as in 'lparotid' and 'leftlens'.
_GLUED: Mapping[str, Side] = {"left": "left", "right": "right", "lt": "left", "rt": "right", "l": "left", "r": "right"}
FEWEST_GLUED = 3  # letters of the word behind it
_IRREGULAR = {
    "vertebrae": "vertebra",
    "scapulae": "scapula",
    "femora": "femur",
    "humeri": "humerus",
    "hippocampi": "hippocampus",
    "bronchi": "bronchus",
    "testes": "testis",
    "feet": "foot",
    "lenses": "lens",
    "sinuses": "sinus",
    "pelves": "pelvis",
}
_ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth"
_ROMAN = "i ii iii iv v vi vii viii ix x xi xii"
_NUMBERED = {f"{number}{ending}": number for number in range(1, 21) for ending in ("", "st", "nd", "rd", "th")}
_NUMBER_OF_WORD = (
    _NUMBERED
    | {word: number for number, word in enumerate(_ORDINALS.split(), start=1)}
    | {word: number for number, word in enumerate(_ROMAN.split(), start=1)}
)
_LEVEL = re.compile(r"[ctls]\d{1,2}")
_LEVEL_WORDS = frozenset({"vertebra", "vb", "vertebral"})

# ---- Chinese ----

_LETTER = {"颈": "C", "胸": "T", "腰": "L", "骶": "S"}
_CHINESE_SIDES: Mapping[str, Side] = {
    **dict.fromkeys(CHINESE_BOTH, "both"),
    **{left: "left" for left, _ in CHINESE},
    **{right: "right" for _, right in CHINESE},
    **dict.fromkeys(("l", "lt", "left"), "left"),
    **dict.fromkeys(("r", "rt", "right"), "right"),
}
_CHINESE_LEVELS = (
    re.compile(rf"第?(?P<number>{NUMBER})(?P<row>[颈胸腰骶])椎(?:体|骨)?"),
    re.compile(rf"(?P<row>[颈胸腰骶])椎?第?(?P<number>{NUMBER})(?:椎体|椎骨|椎|节)?"),
    re.compile(r"(?P<row>[ctls])(?P<number>\d{1,2})(?:椎体|椎骨|椎)?"),
)
# Of what is counted, with the word that is counted.
_CHINESE_COUNTED = (
    (re.compile(rf"第?(?P<number>{NUMBER})(?:对|根|号)?肋骨?"), "rib"),
    (re.compile(rf"肋骨?第?(?P<number>{NUMBER})"), "rib"),
    (re.compile(rf"肝脏?第?(?P<number>{NUMBER})段"), "liver_segment"),
)


@cache
def readings(name: str) -> tuple[Reading, ...]:
    """All that a name can mean, in the order of the table; nothing if any part of it means nothing."""
    text = normalize("NFKC", name).strip()
    if not 0 < len(text) <= LONGEST_NAME or not _ALLOWED.fullmatch(text):
        return ()
    found = dict.fromkeys(_of_chinese(text) if is_chinese(text) else _of_english(text))
    # 左侧脑室 is the left one (左) of 侧脑室, and not the left (左侧) of 脑室, which has no sides.
    fitting = [reading for reading in found if _has_side(reading)] or list(found)
    order = list(anatomy())
    return tuple(sorted(fitting, key=lambda reading: order.index(reading.id)))


def _has_side(reading: Reading) -> bool:
    """True if there is such a side of the structure, or none is said."""
    structure = anatomy()[reading.id]
    return structure.has_sides or reading.side in ("", structure.laterality)


def plain(name: str) -> str:
    """A name in which case, and what stands between words, make no difference."""
    return _SEPARATORS.sub(" ", normalize("NFKC", name)).strip().casefold()


# ---- English ----


class _Index(NamedTuple):
    """Ids and sides by the words of a name in any order, and by its letters without anything between."""

    by_words: Mapping[tuple[str, ...], tuple[Reading, ...]]
    by_letters: Mapping[str, tuple[Reading, ...]]


@cache
def _english() -> _Index:
    by_words: dict[tuple[str, ...], list[Reading]] = {}
    by_letters: dict[str, list[Reading]] = {}
    for structure in anatomy().values():
        for side, text in (("", structure.english), *structure.english_synonyms):
            said, words = _without_side(_words(text))
            reading = _reading(structure, side or said)
            by_words.setdefault(tuple(sorted(words)), []).append(reading)
            by_letters.setdefault("".join(words), []).append(reading)
    return _Index(
        {words: tuple(dict.fromkeys(found)) for words, found in by_words.items()},
        {letters: tuple(dict.fromkeys(found)) for letters, found in by_letters.items()},
    )


def _of_english(text: str) -> Iterator[Reading]:
    words = _words(text)
    side, rest = _without_side(words)
    if not rest:
        return
    found = list(chain(_named(rest), _level(rest), _counted(rest)))
    if len(words) == 1 and not found:
        yield from _glued(words[0])
        return
    for reading in found:
        if not side or reading.side in ("", side):
            yield _reading(anatomy()[reading.id], side or reading.side)
        elif anatomy()[reading.id].laterality:  # of a structure that exists on the other side alone
            yield Reading(reading.id, side)


def _words(text: str) -> tuple[str, ...]:
    return tuple(_singular(word) for word in words_of(text) if word not in EMPTY_WORDS)


def _singular(word: str) -> str:
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    # Also of words that are no plurals, such as pancreas: names are compared after the same has been done to both.
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def _without_side(words: Sequence[str]) -> tuple[Side, tuple[str, ...]]:
    """The side that words say, and the others; all words are left, which are no name, where they say more than one."""
    said: list[Side] = []
    rest = []
    for word in words:
        side = _side_of(word)
        if side:
            said.append(side)
        else:
            rest.append(word)
    if len(said) > 1:
        return "", tuple(words)
    return (said[0] if said else ""), tuple(rest)


def _side_of(word: str) -> Side:
    if word in _LEFT:
        return "left"
    if word in _RIGHT:
        return "right"
    return "both" if word in _BOTH else ""


def _named(words: Sequence[str]) -> tuple[Reading, ...]:
    """By the words in any order, or by their letters in this order: 'bowel small', 'opticnerve'."""
    index = _english()
    return index.by_words.get(tuple(sorted(words)), ()) or index.by_letters.get("".join(words), ())


def _level(words: Sequence[str]) -> Iterator[Reading]:
    """'l5', 'vertebra l5'."""
    levels = [word for word in words if _LEVEL.fullmatch(word)]
    if len(levels) == 1 and all(word in _LEVEL_WORDS for word in words if word not in levels):
        yield from _numbered("vertebra", f"{levels[0][0].upper()}{int(levels[0][1:])}")


def _counted(words: Sequence[str]) -> Iterator[Reading]:
    """'rib 3', 'third rib', 'liver segment iv'."""
    numbers = [word for word in words if word in _NUMBER_OF_WORD]
    rest = [word for word in words if word not in numbers]
    if len(numbers) == 1 and rest:
        for reading in _named(rest):
            yield from _numbered(reading.id, str(_NUMBER_OF_WORD[numbers[0]]))


def _glued(word: str) -> Iterator[Reading]:
    """'lparotid', 'leftlens', 'parotidl'."""
    for said, side in _GLUED.items():
        for is_glued, rest in (
            (word.startswith(said), word.removeprefix(said)),
            (word.endswith(said), word.removesuffix(said)),
        ):
            if is_glued and len(rest) >= FEWEST_GLUED:
                for reading in _named((_singular(rest),)):
                    if not reading.side:
                        yield _reading(anatomy()[reading.id], side)


# ---- Chinese ----


@cache
def _chinese() -> Mapping[str, tuple[Reading, ...]]:
    found: dict[str, list[Reading]] = {}
    for structure in anatomy().values():
        for side, text in (("", structure.chinese), *structure.chinese_synonyms):
            found.setdefault(_together(text), []).append(_reading(structure, side))
    return {text: tuple(dict.fromkeys(all_found)) for text, all_found in found.items()}


def _together(text: str) -> str:
    return _SEPARATORS.sub("", simplified(normalize("NFKC", text))).casefold()


def _of_chinese(text: str) -> Iterator[Reading]:
    together = _together(text)
    for side, rest in _chinese_sides(together):
        for reading in chain(_chinese().get(rest, ()), _chinese_level(rest), _chinese_counted(rest)):
            if not side or not reading.side:
                yield _reading(anatomy()[reading.id], side or reading.side)
            elif anatomy()[reading.id].laterality:
                yield Reading(reading.id, side)


def _chinese_sides(text: str) -> Iterator[tuple[Side, str]]:
    """Every way to take a side off: ('', '左肾'), ('left', '肾')."""
    yield "", text
    for said, side in _CHINESE_SIDES.items():
        if text.startswith(said):
            yield side, text.removeprefix(said)
        if text.endswith(said):
            yield side, text.removesuffix(said)


def _chinese_level(text: str) -> Iterator[Reading]:
    for pattern in _CHINESE_LEVELS:
        match = pattern.fullmatch(text)
        if match:
            row = match["row"]
            yield from _numbered("vertebra", f"{_LETTER.get(row, row.upper())}{number_of(match['number'])}")


def _chinese_counted(text: str) -> Iterator[Reading]:
    for pattern, counted in _CHINESE_COUNTED:
        match = pattern.fullmatch(text)
        if match:
            yield from _numbered(counted, str(number_of(match["number"])))


def _numbered(group: str, number: str) -> Iterator[Reading]:
    """The structure of a number in a row, if there are so many."""
    structure = anatomy().get(f"{group}_{number}")
    if structure is not None:
        yield _reading(structure, "")


def _reading(structure: Structure, side: Side) -> Reading:
    """Of what exists on one side alone, that side is meant where none is said."""
    return Reading(structure.id, side or structure.laterality)
