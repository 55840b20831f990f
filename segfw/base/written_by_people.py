"""Text and JSON that people wrote: in whatever encoding their editor has, and with nothing in it that cannot be.

Everything that segfw reads and that somebody may have written or changed by hand goes through here.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from segfw.base.errors import UserError, forbidden, is_forbidden, reason_of

LARGEST_JSON = 1 << 28  # bytes; the longest lists of cases have some millions
DEEPEST_JSON = 100  # levels of lists and objects
BOMS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
SAVE_AS_UTF_8 = "open it in an editor and save it as UTF-8"


class Unreadable(UserError):
    """A file holds no text or no JSON; ``reason`` says why, without the file."""

    def __init__(self, source: Path | str, what: str, reason: str, remedy: str) -> None:
        super().__init__(f"{source}: {what} ({reason}); {remedy}")
        self.reason = reason


def decode_text(content: bytes, source: Path | str, *, latin: bool = False) -> str:
    """The text in UTF-8 or, as Windows writes it, UTF-16, with or without a byte order mark; or in UTF-32.

    ``latin`` takes what is none of them for the encoding of Western Windows (cp1252): for texts in which a wrong
    character does no harm, such as a licence. Elsewhere a name would become another name without a word.

    Raises UserError naming ``source`` if it is none of them.
    """
    try:
        # Told by the byte order mark, or by where zeros are among the first four bytes (RFC 4627, section 3).
        return content.decode(json.detect_encoding(content)).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        if not latin or content.startswith(BOMS):
            raise Unreadable(source, "is not text in UTF-8 or UTF-16", str(error), SAVE_AS_UTF_8) from None
    return content.decode("cp1252", errors="replace")


def read_text(path: Path, *, latin: bool = False) -> str:
    """The text of a file that somebody wrote, as ``decode_text`` tells it.

    Raises UserError if it is in another encoding or may not be read, and OSError otherwise.
    """
    return decode_text(_content(Path(path)), path, latin=latin)


def read_json(path: Path) -> Any:
    """What a JSON file that somebody wrote holds, as ``parse_json`` takes it; UserError if it cannot be read."""
    path = Path(path)
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise UserError(f"{path}: has {path.stat().st_size:,} bytes, more than any that is meant for this")
        content = _content(path)
    except OSError as error:
        raise UserError(reason_of(error) or f"{path}: cannot be read ({error})") from None
    return parse_json(content, path)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        if is_forbidden(error):
            raise forbidden(path) from None
        raise


def parse_json(text: str | bytes, source: Path | str, *, finite: bool = True) -> Any:
    """What a text of JSON holds.

    Raises UserError naming ``source`` if it is none, or holds what no JSON that segfw reads has a use for: lists
    in lists without end, half a character (lone surrogates) or NUL in a text, two different values of one name, or,
    but where ``finite`` is False, numbers that are none (NaN, Infinity, 1e999).
    """
    if isinstance(text, bytes):
        text = decode_text(text, source)
    try:
        found = json.loads(text.removeprefix("\ufeff"), object_pairs_hook=_object)
        _check_parts(found, finite=finite)
    except RecursionError:
        raise _not_json(source, "it is nested without end") from None
    except ValueError as error:
        raise _not_json(source, str(error)) from None
    return found


def _not_json(source: Path | str, reason: str) -> Unreadable:
    return Unreadable(source, "is not readable JSON", reason, "correct it or take it from the original")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        for name, value in pairs:
            if found[name] != value:
                raise ValueError(f"it names {name!r} twice, with different values")
    return found


def _check_parts(found: Any, *, finite: bool) -> None:
    """ValueError if any part is nested too deep, or is a text or number that nothing can be done with."""
    waiting = [(found, 0)]
    while waiting:
        part, depth = waiting.pop()
        if depth > DEEPEST_JSON:
            raise ValueError(f"it is nested more than {DEEPEST_JSON} times")
        if isinstance(part, dict):
            waiting += [(name, depth + 1) for name in part]
            waiting += [(value, depth + 1) for value in part.values()]
        elif isinstance(part, list):
            waiting += [(value, depth + 1) for value in part]
        elif isinstance(part, str):
            check_text(part)
        elif isinstance(part, float) and finite and not math.isfinite(part):
            raise ValueError(f"it holds {part}, which is no number")


def check_text(text: str) -> None:
    """ValueError if a text holds half a character (a lone surrogate) or NUL, which no name of anything can hold."""
    odd = re.search("[\ud800-\udfff\0]", text)
    if odd:
        raise ValueError(f"it holds the text {text[:80]!a}, of which {odd[0]!a} is no character")
