"""Ways to damage a file. Each takes its bytes and a seeded generator, and gives other bytes."""

from __future__ import annotations

import gzip
import io
import json
import re
import struct
import warnings
import zipfile
from collections.abc import Callable
from copy import deepcopy
from random import Random
from typing import Any

Mutation = Callable[[bytes, Random], bytes]

HEADER_BYTES = 400  # of binary formats: there their sizes and types stand
NUMBER = re.compile(rb"-?\d+(\.\d+)?(e[+-]?\d+)?")
ODD_NUMBERS = (b"0", b"-1", b"1e308", b"1e-320", b"nan", b"inf", b"2147483648", b"99999999999999999999", b"", b"3.5")
ODD_INTEGERS = (0, 1, -1, 127, 255, 32767, 65535, 2**31 - 1, -(2**31))
ODD_FLOATS = (0.0, -1.0, 1e38, 1e-38, float("nan"), float("inf"))
ODD_TEXTS = (
    b"\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\r\n",
    b'"',
    b",",
    b";",
    b"{",
    b"[" * 5000,
    b"\x1b[2J",
    b"\\ud800",
)
ODD_VALUES = (
    *(None, True, 0, -1, 3.5, 1e308, 10**30, 10**400, float("nan"), float("-inf")),
    *("", "a", "1", "../..", "\x00", "\ud800", "=1+1", "x" * 10_000),
    *([], {}, [[]], [None], [0, 0, 0], {"a": 1}, [[1, 0], [0, 1]]),
)


def flipped(content: bytes, draw: Random, first: int = 0) -> bytes:
    """One bit from byte ``first`` on."""
    damaged = bytearray(content)
    damaged[draw.randrange(min(first, len(content) - 1), len(content))] ^= 1 << draw.randrange(8)
    return bytes(damaged)


def many_flipped(content: bytes, draw: Random) -> bytes:
    for _ in range(draw.randint(2, 20)):
        content = flipped(content, draw)
    return content


def cut(content: bytes, draw: Random) -> bytes:
    return content[: draw.randrange(len(content))]


def hole(content: bytes, draw: Random) -> bytes:
    start = draw.randrange(len(content))
    return content[:start] + content[start + draw.randint(1, 64) :]


def repeated(content: bytes, draw: Random) -> bytes:
    start = draw.randrange(len(content))
    return content[: start + draw.randint(1, 200)] + content[start:]


def blanked(content: bytes, draw: Random) -> bytes:
    start = draw.randrange(len(content))
    length = min(draw.choice((1, 4, 64, 512)), len(content) - start)
    return content[:start] + draw.choice((b"\x00", b"\xff")) * length + content[start + length :]


def header_number(content: bytes, draw: Random) -> bytes:
    """Another integer or float of 1 to 8 bytes somewhere in the header."""
    order = draw.choice("<>")
    if draw.random() < 0.7:
        kind = draw.choice("bhiq")
        size = struct.calcsize(kind)
        value = draw.choice([each for each in ODD_INTEGERS if abs(each) < 1 << (8 * size - 1)])
        packed = struct.pack(order + kind, value)
    else:
        packed = struct.pack(order + "f", draw.choice(ODD_FLOATS))
    start = draw.randrange(max(1, min(HEADER_BYTES, len(content) - len(packed))))
    return content[:start] + packed + content[start + len(packed) :]


def text_number(content: bytes, draw: Random) -> bytes:
    """Another number in place of one that is written as text, in the first kilobytes."""
    found = list(NUMBER.finditer(content, 0, 8192))
    if not found:
        return flipped(content, draw)
    chosen = draw.choice(found)
    return content[: chosen.start()] + draw.choice(ODD_NUMBERS) + content[chosen.end() :]


def text_line(content: bytes, draw: Random) -> bytes:
    """A line of a text header or of a table left out, twice, or with something odd in it."""
    head = content[:4096]
    lines = head.split(b"\n")
    number = draw.randrange(len(lines))
    how = draw.randrange(3)
    if how == 0:
        del lines[number]
    elif how == 1:
        lines.insert(number, lines[number])
    else:
        place = draw.randint(0, len(lines[number]))
        lines[number] = lines[number][:place] + draw.choice(ODD_TEXTS) + lines[number][place:]
    return b"\n".join(lines) + content[4096:]


def encoded(content: bytes, draw: Random) -> bytes:
    """The text in another encoding of Windows."""
    text = content.decode("utf-8", errors="replace")
    return text.encode(draw.choice(("utf-16", "utf-8-sig", "utf-16-be", "utf-32")))


def json_edited(content: bytes, draw: Random) -> bytes:
    """JSON in which one to three parts are left out, renamed, or have another value."""
    try:
        found = json.loads(content)
    except ValueError:  # a record a line
        lines = content.splitlines()
        number = draw.randrange(len(lines))
        lines[number] = json_edited(lines[number], draw) if lines[number].startswith(b"{") else b"[]"
        return b"\n".join(lines)
    for _ in range(draw.randint(1, 3)):
        places = list(_places(found))
        if not places:
            return json.dumps(draw.choice(ODD_VALUES)).encode(errors="surrogatepass")
        holder, key = draw.choice(places)
        _edit(holder, key, draw)
    return json.dumps(found).encode(errors="surrogatepass")


def _places(found: Any) -> Any:
    """(holder, key) of every part at any depth."""
    if isinstance(found, dict):
        keys = list(found)
    elif isinstance(found, list):
        keys = list(range(len(found)))
    else:
        return
    for key in keys:
        yield found, key
        yield from _places(found[key])


def _edit(holder: Any, key: Any, draw: Random) -> None:
    how = draw.random()
    if how < 0.2:
        del holder[key]
    elif how < 0.3 and isinstance(holder, dict):
        holder[draw.choice(("", "a", "0", "-1", "\x00", "\ud800", "__class__"))] = holder.pop(key)
    elif how < 0.4 and isinstance(holder, list):
        holder.insert(key, holder[key])
    elif how < 0.5:
        holder[key] = [holder[key]]
    elif how < 0.6:
        holder[key] = str(holder[key])
    else:
        holder[key] = deepcopy(draw.choice(ODD_VALUES))


def inside_gzip(mutation: Mutation) -> Mutation:
    """The mutation of what is compressed, compressed again: the sum is right, the content is not."""
    return lambda content, draw: gzip.compress(mutation(gzip.decompress(content), draw), mtime=0)


def inside_zip(content: bytes, draw: Random) -> bytes:
    """A zip of which one member is damaged, left out, twice, or has another name; its sums are right."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    number = draw.randrange(len(members))
    name, inner = members[number]
    how = draw.randrange(6)
    if how == 0:
        del members[number]
    elif how == 1:
        members.append(members[number])
    elif how == 2:
        members[number] = (draw.choice(("../out", "/out", "a" * 300, "a\\b", "é", ".")), inner)
    elif name.endswith(".json"):
        members[number] = (name, json_edited(inner, draw))
    else:
        members[number] = (name, draw.choice((flipped, cut, header_number, text_number))(inner, draw))
    made = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(made, "w") as archive:
        warnings.simplefilter("ignore")  # of names that are there twice
        for each, data in members:
            archive.writestr(zipfile.ZipInfo(each), data)
    return made.getvalue()


BYTES: dict[str, Mutation] = {
    "a bit": flipped,
    "some bits": many_flipped,
    "a cut": cut,
    "a hole": hole,
    "a repeat": repeated,
    "a blank": blanked,
}
BINARY = BYTES | {"a number of the header": header_number}
TEXT = BYTES | {"a number": text_number, "a line": text_line}
JSON = TEXT | {"a field": json_edited, "another field": json_edited, "an encoding": encoded}
GZIP = BYTES | {
    "a bit inside": inside_gzip(flipped),
    "a number inside": inside_gzip(header_number),
    "a cut inside": inside_gzip(cut),
}
ZIP = BYTES | {"a member": inside_zip, "another member": inside_zip}
