"""Records of options: a field says its default, type and help, from which the command line and Python keywords come.

Everything here is read for ``--help``, which must not wait: nothing heavy is imported before a value is checked.
"""

from __future__ import annotations

import argparse
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Literal,
    ParamSpec,
    Self,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from segfw.base.errors import UserError
from segfw.base.words import did_you_mean, listed

if TYPE_CHECKING:
    from segfw.base.records import Record

P = ParamSpec("P")
R = TypeVar("R")

OFF_ON: Mapping[str, object] = {"off": False, "on": True}
AUTO_ON_OFF: Mapping[str, object] = {"auto": None, "on": True, "off": False}
METADATA_KEY = "option"
LIMITS = {"ge": "{} or more", "gt": "more than {}", "le": "{} or less", "lt": "less than {}"}
LIMIT_ERRORS = ("greater_than_equal", "greater_than", "less_than_equal", "less_than")
KINDS: Mapping[object, str] = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "a text",
    Path: "a path",
}
_IS_TYPED: ContextVar[bool] = ContextVar("is_typed", default=False)  # whether errors name options as they are typed
_TYPES: dict[type[Options], dict[str, Any]] = {}
_RECORDS: dict[type[Options], type[Record]] = {}  # made when the first value is checked

DEVICES = "auto, cpu, cuda, cuda:1 or mps (default: auto)"
ONLY_HELP = (
    "these structures alone: names, Chinese or English, commas between them (segfw find tells which labels they are)"
)
CONFIGURATION_HELP = (
    "default: what segfw select chose, or the only one that is trained, or of several the calibrated one"
)
ONE_CONFIGURATION_HELP = (
    "default: what segfw select chose (where it averages two, name one), or the only one that is trained, or of "
    "several the calibrated one"
)
NAMES_HELP = "say what another program calls the labels, and its numbers: totalsegmentator, totalsegmentator-v1 or -mr"
NAMINGS = ("totalsegmentator", "totalsegmentator-v1", "totalsegmentator-mr")
PSEUDONYMS_HELP = "table of DICOM's PatientID and the name of the case, made or added to (CSV: patient,name)"
LABEL_NAMES_HELP = "table of label names (CSV, TSV, JSON, ITK-SNAP, 3D Slicer); default: labels.csv beside the folders"
Precision = Literal["auto", "fp32", "bf16", "fp16"]
KERNELS = "own Triton kernels on CUDA, which no card has run yet (default: off)"
PRECISIONS = "of the network's arithmetic (default: auto, 16 bit where the device is faster in it)"


@dataclass(frozen=True, kw_only=True)
class OptionText:
    """How a field is typed on the command line, and the limits of its value.

    ``name`` is the option where it is not that of the field, None where no option belongs to it. ``words`` are what
    can be typed, with their values. ``parse`` turns what is typed into the value, or into a mapping of several fields.
    Options of one ``exclusive`` group cannot be given together.
    """

    help: str
    name: str | None
    metavar: str | tuple[str, ...] | None = None
    parse: Callable[[str], object] | None = None
    words: Mapping[str, object] | None = None
    choices: tuple[object, ...] | None = None
    nargs: int | str | None = None
    const: object = None
    exclusive: str = ""
    limits: Mapping[str, float]


def option(
    default: object,
    help: str = "",
    *,
    name: str = "",
    metavar: str | tuple[str, ...] | None = None,
    parse: Callable[[str], object] | None = None,
    words: Mapping[str, object] | None = None,
    choices: tuple[object, ...] | None = None,
    nargs: int | str | None = None,
    const: object = None,
    exclusive: str = "",
    **limits: float,
) -> Any:
    """A field of an options record that can be typed on the command line; ``{default}`` in ``help`` is filled in.

    ``limits`` are ge, gt, le and lt (at least, above, at most, below).
    """
    text = OptionText(
        help=help,
        name=name,
        metavar=metavar,
        parse=parse,
        words=words,
        choices=choices,
        nargs=nargs,
        const=const,
        exclusive=exclusive,
        limits=limits,
    )
    return field(default=default, metadata={METADATA_KEY: text})


def setting(default: object, help: str, **limits: float) -> Any:
    """A field of an options record that is given in Python alone."""
    return field(default=default, metadata={METADATA_KEY: OptionText(help=help, name=None, limits=limits)})


class WrongOption(UserError):
    """A value that an option cannot have: ``name`` is its field in ``record``, ``problem`` the rest of the sentence."""

    def __init__(self, record: type[Options], name: str, problem: str) -> None:
        super().__init__(f"{option_name_of(record, name) if _IS_TYPED.get() else name} {problem}")
        self.name = name
        self.problem = problem


@dataclass(frozen=True, kw_only=True)
class Options:
    """Base of the options records: frozen, by keyword, and checked at birth.

    Values stay as they are given, but that a text becomes a Path and a list a tuple where the field is one.
    Raises WrongOption, which names the keyword or the option, if a value is of another type or out of range.
    """

    numbers_are_finite: ClassVar[bool] = True  # False where the function says more about others

    def __post_init__(self) -> None:
        # The defaults are checked by a test, so that nothing is loaded for them.
        given = [each.name for each in fields(self) if getattr(self, each.name) is not each.default]
        if given:
            hints = field_types(type(self))
            for name in given:
                object.__setattr__(self, name, _path_or_tuple(getattr(self, name), hints[name]))
            self._checked()

    def _checked(self) -> Record:
        from pydantic import ValidationError

        try:
            return record_of(type(self)).model_validate(vars(self))
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0])
            wanted = wanted_of(type(self), name, first["type"])
            raise WrongOption(type(self), name, f"is {getattr(self, name)!r}; give {wanted}") from None

    def save(self, path: Path) -> None:
        """Writes the options as indented JSON, atomically."""
        self._checked().save(path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads options that ``save`` wrote; UserError names the file and the field that is wrong."""
        return cls(**dict(record_of(cls).load(path)))

    def as_json(self) -> dict[str, Any]:
        """The values by name, as JSON holds them."""
        return self._checked().model_dump(mode="json")

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> Self:
        """The record of what ``add_options`` made the parser take."""
        values: dict[str, Any] = {}
        for each in fields(cls):
            if each.name not in arguments:
                continue
            value = getattr(arguments, each.name)
            words = words_of(cls, each)
            if words is not None and isinstance(value, str):
                value = words[value]
            if isinstance(value, Mapping):  # one option that is about several fields
                values.update(value)
            elif each.name not in values:
                values[each.name] = value
        return cls(**values)


# ---- what a field says ----


def field_types(record: type[Options]) -> dict[str, Any]:
    """Types of the fields by name."""
    if record not in _TYPES:
        _TYPES[record] = get_type_hints(record)
    return _TYPES[record]


def option_text(each: Field[Any]) -> OptionText:
    """How a field of an options record is typed on the command line."""
    text: OptionText = each.metadata[METADATA_KEY]
    return text


def option_name_of(record: type[Options], name: str) -> str:
    """The option that a field is typed as; fields that are given in Python alone are named alike."""
    each = next(each for each in fields(record) if each.name == name)
    given = option_text(each).name
    if given:
        return given
    negated = "no-" if each.default is True else ""
    return f"--{negated}{name.removesuffix('_s').replace('_', '-')}"


def words_of(record: type[Options], each: Field[Any]) -> Mapping[str, object] | None:
    """The words that can be typed for a field, with their values; None if it is no choice between such."""
    words = option_text(each).words
    if words is None and set(_alternatives(field_types(record)[each.name])) == {bool, types.NoneType}:
        return AUTO_ON_OFF
    return words


def wanted_of(record: type[Options], name: str, error: str = "") -> str:
    """What a field takes, in words; ``error`` is what pydantic calls the reason for which a value was refused."""
    each = next(each for each in fields(record) if each.name == name)
    limits = listed((LIMITS[limit].format(f"{value:g}") for limit, value in option_text(each).limits.items()), "and")
    if error in LIMIT_ERRORS:
        return limits
    kinds = listed(_kind(one) for one in _alternatives(field_types(record)[name]) if one is not types.NoneType)
    if error == "finite_number":
        kinds = kinds.replace("number", "finite number")
    return f"{kinds}, {limits}" if limits else kinds


def _kind(hint: Any) -> str:
    """A type in words."""
    parts = get_args(hint)
    if get_origin(hint) is Literal:
        return listed(repr(each) for each in parts)
    if get_origin(hint) is tuple:
        kind = KINDS[parts[0]].removeprefix("a ")
        return f"{kind}s" if parts[-1] is Ellipsis else f"{len(parts)} {kind}s"
    return KINDS[hint]


def help_of(each: Field[Any]) -> str:
    """What a field means, with its default."""
    default = each.default
    shown = " ".join(map(str, default)) if isinstance(default, tuple) else str(default)
    return option_text(each).help.replace("{default}", shown)


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """The types of a union; of another type this one alone."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _path_or_tuple(value: Any, hint: Any) -> Any:
    allowed = _alternatives(hint)
    if isinstance(value, str) and Path in allowed and str not in allowed:
        return Path(value)
    tuples = [each for each in allowed if get_origin(each) is tuple]
    if isinstance(value, list) and tuples:
        value = tuple(value)
    if isinstance(value, tuple) and any(get_args(each)[0] is Path for each in tuples):
        return tuple(Path(one) if isinstance(one, str) else one for one in value)
    if any(get_args(each)[0] is str for each in tuples):  # names, such as those of folds, which may be numbers
        if isinstance(value, str) and str not in allowed:
            return (value,)
        if isinstance(value, tuple):
            return tuple(str(one) if type(one) is int else one for one in value)
    return value


def record_of(options: type[Options]) -> type[Record]:
    """The record with the same fields that checks values, writes them and reads them."""
    if options in _RECORDS:
        return _RECORDS[options]
    from pydantic import ConfigDict, create_model
    from pydantic import Field as Limited

    from segfw.base.records import Record

    hints = field_types(options)
    definitions: dict[str, Any] = {}
    for each in fields(options):
        limits: dict[str, Any] = dict(option_text(each).limits)
        default = ... if each.default is MISSING else each.default
        definitions[each.name] = (hints[each.name], Limited(default=default, **limits))
    base = type("Base", (Record,), {"model_config": ConfigDict(allow_inf_nan=not options.numbers_are_finite)})
    _RECORDS[options] = create_model(options.__name__, __base__=base, **definitions)
    return _RECORDS[options]


# ---- the command line ----


def add_options(parser: argparse.ArgumentParser, record: type[Options]) -> None:
    """Lets a parser take the options of a record."""
    groups: dict[str, Any] = {}
    inherited = {each.name for parent in record.__bases__ if issubclass(parent, Options) for each in fields(parent)}
    # What is the verb's own comes first.
    for each in sorted(fields(record), key=lambda each: each.name in inherited):
        text = option_text(each)
        if text.name is None:
            continue
        place: Any = parser
        if text.exclusive:
            if text.exclusive not in groups:
                groups[text.exclusive] = parser.add_mutually_exclusive_group()
            place = groups[text.exclusive]
        place.add_argument(option_name_of(record, each.name), dest=each.name, **_argparse_keywords(record, each))


def _argparse_keywords(record: type[Options], each: Field[Any]) -> dict[str, Any]:
    """What argparse is told of a field."""
    text = option_text(each)
    hint = next(one for one in _alternatives(field_types(record)[each.name]) if one is not types.NoneType)
    keywords: dict[str, Any] = {"default": each.default}
    if text.help:
        keywords["help"] = help_of(each)
    if text.metavar is not None:
        keywords["metavar"] = text.metavar

    # Choices between words, and flags
    words = words_of(record, each)
    if words is not None:
        default = next(word for word, value in words.items() if value == each.default)
        return keywords | {"choices": tuple(words), "default": default}
    if hint is bool:
        return keywords | {"action": "store_false" if each.default is True else "store_true"}

    # Values, one or several
    tuples = [one for one in _alternatives(field_types(record)[each.name]) if get_origin(one) is tuple]
    if tuples:
        parts = get_args(tuples[0])
        keywords["nargs"] = "+" if parts[-1] is Ellipsis else len(parts)
        hint = parts[0]
    if get_origin(hint) is Literal:
        keywords["choices"] = get_args(hint)
        hint = type(get_args(hint)[0])
    if text.parse is not None or hint is not str:
        keywords["type"] = text.parse or PARSERS.get(hint, hint)
    if text.choices is not None:
        keywords["choices"] = text.choices
    if text.nargs is not None:
        keywords["nargs"] = text.nargs
    if text.const is not None:
        keywords["const"] = text.const
    return keywords


# ---- what is typed, as a value ----


def whole_number(text: str) -> int:
    """A number without a fraction."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None


def number(text: str) -> float:
    """Any number."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None


PARSERS: Mapping[object, Callable[[str], object]] = {int: whole_number, float: number}


def number_or_auto(text: str) -> float | str:
    """'auto' or a number of GB."""
    try:
        return "auto" if text == "auto" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of GB nor auto") from None


# ---- keywords in Python ----


@contextmanager
def named_as_typed() -> Iterator[None]:
    """Lets errors name options as they are typed, not by the keyword, while the block runs."""
    before = _IS_TYPED.set(True)
    try:
        yield
    finally:
        _IS_TYPED.reset(before)


@contextmanager
def named_by_keyword(records: Iterable[type[Options]]) -> Iterator[None]:
    """Lets errors of the block name the keywords of ``records`` for their options, unless all of it was typed."""
    if _IS_TYPED.get():
        yield
        return
    try:
        with named_as_typed():
            yield
    except UserError as error:
        keywords: dict[str, str] = {}
        for record in records:
            for each in fields(record):
                keywords = _keywords(record, each) | keywords
        for typed, keyword in sorted(keywords.items(), reverse=True):  # '--weights last' before '--weights'
            named = re.compile(rf"{typed}(?![\w-])")
            error.args = tuple(named.sub(keyword, part) if isinstance(part, str) else part for part in error.args)
        raise


def _keywords(record: type[Options], each: Field[Any]) -> dict[str, str]:
    """What is typed for a field, with and without a word for its value -> how it is said in Python."""
    option = option_name_of(record, each.name)
    words = words_of(record, each)
    if words is not None:
        return {option: each.name} | {f"{option} {word}": f"{each.name}={value}" for word, value in words.items()}
    is_switch = isinstance(each.default, bool)
    return {option: f"{each.name}={not each.default}" if is_switch else each.name}


def takes_options(**records: type[Options]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Lets a function that takes options records take their fields as keywords, too.

    ``records`` are the record of each parameter. A keyword that is a field of one changes that record's value; None
    stands for the default. What the function takes itself goes first. The stub of the package types the keywords.
    """
    names = [each.name for record in records.values() for each in fields(record)]
    assert len(names) == len(set(names)), "two records of one function share a field"

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        takes = signature(function)

        @wraps(function)
        def call(*arguments: P.args, **keywords: P.kwargs) -> R:
            parameters_given = {name: value for name, value in keywords.items() if name in takes.parameters}
            others = {name: value for name, value in keywords.items() if name not in takes.parameters}
            given = takes.bind_partial(*arguments, **parameters_given).arguments
            for parameter, record in records.items():
                if not isinstance(given.get(parameter, record()), record):
                    wrong = type(given[parameter]).__name__
                    raise TypeError(f"{function.__name__}() takes {record.__name__} as {parameter}, not {wrong}")
                defaults = {each.name: each.default for each in fields(record)}
                changes = {name: others.pop(name) for name in list(others) if name in defaults}
                changes = {name: defaults[name] if value is None else value for name, value in changes.items()}
                if changes:
                    given[parameter] = replace(given.get(parameter) or record(), **changes)
            if others:
                raise TypeError(_unknown(function.__name__, next(iter(others)), [*takes.parameters, *names]))
            by_name: Callable[..., R] = function
            with named_by_keyword(records.values()):
                return by_name(**given)

        call.__dict__["records"] = records
        return call

    return decorate


def _unknown(function: str, keyword: str, known: list[str]) -> str:
    return f"{function}() takes no {keyword!r}" + did_you_mean(keyword, known)
