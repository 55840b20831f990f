"""Options in a file: TOML with what each option means, which people change and give to --settings again."""

from __future__ import annotations

import argparse
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

from segfw.base.durations import duration_s, typed_duration
from segfw.base.errors import UserError
from segfw.base.options import (
    Options,
    WrongOption,
    help_of,
    option_name_of,
    option_text,
    wanted_of,
    words_of,
)
from segfw.base.printing import printable
from segfw.base.words import did_you_mean, listed

# Of dotted keys the parser makes lists whose length grows with the square of theirs.
MOST_CHARACTERS = 1 << 16
LONGEST_LINE = 4096


def settings_text(records: Iterable[Options], head: str) -> str:
    """The options of some records as TOML; those that have no value stand there as a comment.

    ``head`` is a comment of one line that says what they are of.
    """
    parts = [
        f"# {printable(head)}\n"
        "# What is typed goes before what stands here. Delete a line, or put a # before it, for the default.\n"
    ]
    for record in records:
        for key, each in _keys(type(record)).items():
            value = written_value(type(record), each, getattr(record, each.name))
            setting = f"# {key} =" if value is None else f"{key} = {_toml(value)}"
            parts.append(f"# {' '.join(help_of(each).replace('%%', '%').split())}\n{setting}\n")
    return "\n".join(parts)


def read_settings(path: Path, records: Iterable[type[Options]]) -> dict[str, Any]:
    """By the name of its field, what a file of settings says of the options of some records.

    Raises UserError, which names the file and the key, for a file that cannot be read, a key that is no option and a
    value that an option cannot have.
    """
    import tomllib

    from segfw.base.written_by_people import read_text

    text = read_text(path)
    if len(text) > MOST_CHARACTERS or max(map(len, text.splitlines()), default=0) > LONGEST_LINE:
        what = f"has more than {MOST_CHARACTERS:,} characters, or {LONGEST_LINE:,} in a line"
        raise UserError(f"{path}: {what}; write lines such as epochs = 100")
    try:
        content = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError also of a number of thousands of digits
        raise UserError(f"{path}: is not readable TOML ({error}); write lines such as epochs = 100") from None
    known = {key: (record, each) for record in records for key, each in _keys(record).items()}
    found: dict[str, Any] = {}
    for key, value in content.items():
        if key not in known:
            near = did_you_mean(key, known) or "; each key is the name of an option without its --"
            raise UserError(f"{path}: there is no option {key!r}{near}")
        record, each = known[key]
        try:
            found[each.name] = _read(record, each, value)
        except WrongOption as error:
            raise UserError(f"{path}: {key} {error.problem}") from None
    return found


def typed_words(given: Options, left_out: Collection[str] = ()) -> list[str]:
    """What is typed for the options of a record that are not at their defaults, but for the fields in ``left_out``."""
    record = type(given)
    typed: list[str] = []
    for each in fields(record):
        value = getattr(given, each.name)
        if option_text(each).name is None or each.name in left_out or value == each.default:
            continue
        typed.append(option_name_of(record, each.name))
        if isinstance(value, bool) and words_of(record, each) is None:  # a flag
            continue
        if isinstance(value, tuple):
            typed.extend(str(part) for part in value)
        else:
            typed.append(str(value if isinstance(value, Path) else written_value(record, each, value)))
    return typed


def _keys(record: type[Options]) -> dict[str, Field[Any]]:
    """The fields of a record by their names in the file: options as they are typed, and what Python alone takes."""
    typed_first = sorted(fields(record), key=lambda each: option_text(each).name is None)
    keys: dict[str, Field[Any]] = {}
    for each in typed_first:
        name = option_name_of(record, each.name).removeprefix("--")
        keys.setdefault(name.removeprefix("no-") if each.default is True else name, each)
    return keys


def written_value(record: type[Options], each: Field[Any], value: Any) -> Any:
    """A value as the file holds it, which is how people type it; None where it has none."""
    words = words_of(record, each)
    if words is not None:
        return next(word for word, meaning in words.items() if meaning == value)
    if isinstance(value, Path):
        return str(value.absolute())
    if isinstance(value, tuple):
        return tuple(str(part.absolute()) if isinstance(part, Path) else part for part in value)
    return typed_duration(value) if value is not None and option_text(each).parse is duration_s else value


def _read(record: type[Options], each: Field[Any], value: Any) -> Any:
    """The value of a field from what the file says; raises WrongOption if it cannot be."""
    text = option_text(each)
    if isinstance(value, dict):
        raise WrongOption(record, each.name, f"is {value!r}; give {wanted_of(record, each.name)}")
    words = words_of(record, each)
    if words is not None:
        meanings: dict[object, object] = {meaning: meaning for meaning in words.values() if isinstance(meaning, bool)}
        meanings.update(words)
        if not isinstance(value, str | bool) or value not in meanings:
            near = did_you_mean(str(value), words)
            raise WrongOption(record, each.name, f"is {value!r}; give {listed(map(repr, words))}{near}")
        return meanings[value]
    if text.parse is not None:
        try:
            value = text.parse(str(value))
        except argparse.ArgumentTypeError as error:
            raise WrongOption(record, each.name, f"is {value!r}: {error}") from None
    for one in value if isinstance(value, list) else [value]:
        if text.choices is not None and one not in text.choices:
            near = did_you_mean(str(one), map(str, text.choices))
            raise WrongOption(record, each.name, f"is {one!r}; give {listed(map(repr, text.choices))}{near}")
    checked = record(**value) if isinstance(value, Mapping) else record(**{each.name: value})
    return value if isinstance(value, Mapping) else getattr(checked, each.name)


def _toml(value: Any) -> str:
    """A value in TOML. JSON's texts are TOML's, but for two kinds of characters."""
    if isinstance(value, str):
        return json.dumps(printable(value), ensure_ascii=False)
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return str(value).lower() if isinstance(value, bool) else repr(value)
