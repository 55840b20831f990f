"""The elements of a DICOM file, followed through all sequences before a library gets it (PS3.5, section 7, annex A).

The library takes memory for whatever length an element announces, unpacks what is deflated at once, and calls itself
for every sequence that lies in a sequence.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple, Protocol

from segfw.images.stored_bytes import CHUNK_BYTES
from segfw.images.voxels import Refusal

UNDEFINED_LENGTH = 0xFFFFFFFF  # of a sequence, an item or compressed pixels, which end by a mark
IMPLICIT = b"1.2.840.10008.1.2"  # transfer syntaxes; all others are explicit and little-endian
EXPLICIT = b"1.2.840.10008.1.2.1"
DEFLATED = b"1.2.840.10008.1.2.1.99"
BIG_ENDIAN = b"1.2.840.10008.1.2.2"
RUN_LENGTHS = b"1.2.840.10008.1.2.5"
RUN_LENGTHS_HEADER = 64
MOST_SEGMENTS = 15
# Types whose length takes two bytes (PS3.5, section 7.1.2). Of all others, those that a damaged file makes up too, it
# takes four after two that are left free, and so the library reads it.
SHORT_TYPES = frozenset(
    (b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS")
    + (b"ST", b"TM", b"UI", b"UL", b"US")
)
MARK_AT = 128
MARK = b"DICM"
SYNTAX = b"\2\0\x10\0"  # the element that says it
PIXELS = (0x7FE0, 0x0010)
DELIMITERS = 0xFFFE
ITEM = 0xE000
ITEM_MARK = {"little": b"\xfe\xff\x00\xe0", "big": b"\xff\xfe\xe0\x00"}
# Far beyond what any scanner writes.
MOST_DEEP = 100
MOST_ELEMENTS = 500_000
MOST_UNPACKED_HEADER = 1 << 26
MOST_VALUE = 4096  # bytes of an element that is looked at

Tag = tuple[int, int]  # group and element


class _Bytes(Protocol):
    """What a file holds, or what is unpacked of it, from one end to the other."""

    at: int

    def read(self, count: int) -> bytes:
        """The next bytes, fewer at the end."""

    def peek(self, count: int) -> bytes:
        """The same, which come again with the next."""

    def skip(self, count: int) -> None:
        """Passes over bytes; raises ValueError if there are fewer."""

    def require(self, count: int) -> None:
        """Raises ValueError if it is known that fewer bytes are left."""


class _Stored:
    """The bytes of a file as they are; for ``skip`` nothing is read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        self.at = file.tell()

    def read(self, count: int) -> bytes:
        found = self._file.read(count)
        self.at += len(found)
        return found

    def peek(self, count: int) -> bytes:
        found = self._file.read(count)
        self._file.seek(-len(found), os.SEEK_CUR)
        return found

    def require(self, count: int) -> None:
        left = self._size - self.at
        if count > left:
            raise ValueError(f"an element announces {count:,} bytes, {left:,} are left")

    def skip(self, count: int) -> None:
        self.require(count)
        self._file.seek(count, os.SEEK_CUR)
        self.at += count


class _Inflated:
    """What a deflated rest of a file unpacks to, a piece at a time."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decoder = zlib.decompressobj(-zlib.MAX_WBITS)
        self._ready = b""
        self.at = 0

    def peek(self, count: int) -> bytes:
        while len(self._ready) < count:
            piece = self._piece()
            if not piece:
                break
            self._ready += piece
        return self._ready[:count]

    def require(self, count: int) -> None:
        """Only unpacking it would tell."""

    def read(self, count: int) -> bytes:
        found = self.peek(count)
        self._ready = self._ready[count:]
        self.at += len(found)
        return found

    def skip(self, count: int) -> None:
        missing = count - len(self._ready)
        self._ready = self._ready[count:]
        while missing > 0:
            piece = self._piece()
            if not piece:
                raise ValueError(f"an element announces {count:,} bytes, {count - missing:,} are left")
            self._ready = piece[missing:]
            missing -= len(piece)
        self.at += count

    def _piece(self) -> bytes:
        while not self._decoder.eof:
            packed = self._decoder.unconsumed_tail or self._file.read(CHUNK_BYTES)
            try:
                piece = self._decoder.decompress(packed, CHUNK_BYTES)
            except zlib.error as error:
                raise ValueError(f"its deflated content is damaged: {error}") from None
            if piece or not packed:
                return piece
        return b""


class _Container(NamedTuple):
    """A sequence or an item that was entered: where it ends, None if by a mark, and how its elements are written."""

    end: int | None
    is_implicit: bool


def check_elements(
    path: Path, *, most_elements: int = MOST_ELEMENTS, most_items: int = MOST_ELEMENTS, must_end: bool = False
) -> int | None:
    """Follows all elements: none is longer than what is left of the file, and sequences lie in each other only so deep.

    Returns how many bytes of pixels are stored where their element says it; None for compressed ones and where there
    are none. Raises ValueError for a damaged file, with ``must_end`` also for one that ends within a sequence, which
    the library takes for its end; and Refusal for one that would take memory or time without end.
    """
    with path.open("rb") as file:
        try:
            syntax = _syntax(file)
            source: _Bytes = _Inflated(file) if syntax == DEFLATED else _Stored(file)
            pixel_bytes = _follow(source, syntax, most_elements=most_elements, most_items=most_items, must_end=must_end)
        except Refusal:
            raise
        except ValueError as error:
            raise ValueError(f"{path.name}: {error}") from None
        if syntax == DEFLATED and source.at - (pixel_bytes or 0) > MOST_UNPACKED_HEADER:
            raise Refusal(f"has {path.name} in it, which unpacks to far more than a slice; convert it to NIfTI")
    return pixel_bytes


def first_elements(path: Path, tags: Collection[Tag]) -> dict[Tag, bytes]:
    """The values of elements ``tags`` of a data set itself, as they are stored, read no further than the last of them.

    Raises ValueError for a damaged file, Refusal as ``check_elements``.
    """
    found: dict[Tag, bytes] = {}
    with path.open("rb") as file:
        try:
            syntax = _syntax(file)
            source: _Bytes = _Inflated(file) if syntax == DEFLATED else _Stored(file)
            _follow(source, syntax, tags=tags, found=found)
        except Refusal:
            raise
        except ValueError as error:
            raise ValueError(f"{path.name}: {error}") from None
    return found


def _syntax(file: BinaryIO) -> bytes:
    """How the data set is written, by the elements before it, or by its first one; ``file`` comes to that."""
    file.seek(MARK_AT)
    if file.read(len(MARK)) != MARK:  # it begins with the first element at once
        file.seek(0)
    source = _Stored(file)
    said = b""
    while True:
        start = file.read(8)
        if start[:2] != b"\2\0":
            break
        source.at = file.tell()
        length = int.from_bytes(start[6:], "little")
        if start[4:6] not in SHORT_TYPES:
            length = int.from_bytes(source.read(4), "little")
        if start[:4] == SYNTAX:
            said = source.read(min(length, 64)).rstrip(b"\0 ")
        else:
            source.skip(length)
    file.seek(-len(start), os.SEEK_CUR)
    return said or (EXPLICIT if _is_type(start[4:6]) else IMPLICIT)


def _is_type(letters: bytes) -> bool:
    return letters.isalpha() and letters.isupper()


def _follow(
    source: _Bytes,
    syntax: bytes,
    *,
    most_elements: int = MOST_ELEMENTS,
    most_items: int = MOST_ELEMENTS,
    must_end: bool = False,
    tags: Collection[Tag] = (),
    found: dict[Tag, bytes] | None = None,
) -> int | None:
    """Goes through all elements to the end; returns the bytes of the pixels, None where no length is said.

    Where there are ``tags``, their values are put into ``found``, and what stands behind the last of them is not read.
    """
    last = max(tags, default=None)
    order: Literal["little", "big"] = "big" if syntax == BIG_ENDIAN else "little"
    entered: list[_Container] = []
    pixel_bytes = None
    is_in_pixels = False  # among the fragments of compressed ones
    fragments = 0
    items = 0
    for _ in range(most_elements):
        while entered and entered[-1].end is not None and source.at >= entered[-1].end:
            entered.pop()
        start = source.read(8)
        if len(start) < 8:
            if must_end and (start or is_in_pixels or any(container.end is None for container in entered)):
                raise ValueError("it ends within a sequence")
            return pixel_bytes
        group = int.from_bytes(start[:2], order)
        number = int.from_bytes(start[2:4], order)
        if group == DELIMITERS:
            length = int.from_bytes(start[4:], order)
            is_in_pixels = is_in_pixels and number == ITEM
            if is_in_pixels:
                fragments += 1
                if syntax == RUN_LENGTHS and fragments > 1:  # the first one is a table of places
                    _check_segments(source, length)
                source.skip(length)
            elif number == ITEM:
                items += 1
                if items > most_items:
                    raise Refusal(f"has sequences of more than {most_items:,} items; export fewer structures at a time")
                is_implicit = entered[-1].is_implicit if entered else syntax == IMPLICIT
                _enter(entered, source, length, is_implicit)
            elif entered and entered[-1].end is None:
                entered.pop()
            continue
        if last is not None and not entered and (group, number) > last:
            return None
        is_implicit = entered[-1].is_implicit if entered else syntax == IMPLICIT
        kind = b"" if is_implicit or not _is_type(start[4:6]) else start[4:6]
        length = _length(start, kind, source, order)
        if (group, number) == PIXELS and not entered:
            is_in_pixels = length == UNDEFINED_LENGTH
            pixel_bytes = None if is_in_pixels else length
        if is_in_pixels:
            continue
        if length == UNDEFINED_LENGTH or kind == b"SQ" or _holds_items(source, kind, length, order):
            # An unknown element without a length is written implicitly (PS3.5, section 6.2.2).
            _enter(entered, source, length, is_implicit or not kind or kind == b"UN")
        elif found is not None and not entered and (group, number) in tags and length <= MOST_VALUE:
            source.require(length)
            found[(group, number)] = source.read(length)
        else:
            source.skip(length)
    raise Refusal(f"holds more than {most_elements:,} elements of DICOM, which no slice has; convert it to NIfTI")


def _check_segments(source: _Bytes, length: int) -> None:
    """A frame of run lengths begins with their number of segments (PS3.5, annex G); of none the library dies."""
    segments = int.from_bytes(source.peek(4), "little")
    if length < RUN_LENGTHS_HEADER or not 1 <= segments <= MOST_SEGMENTS:
        raise ValueError(f"its pixels are packed in {segments:,} segments of {length:,} bytes")


def _length(start: bytes, kind: bytes, source: _Bytes, order: Literal["little", "big"]) -> int:
    if not kind:
        return int.from_bytes(start[4:], order)
    return int.from_bytes(start[6:] if kind in SHORT_TYPES else source.read(4), order)


def _holds_items(source: _Bytes, kind: bytes, length: int, order: Literal["little", "big"]) -> bool:
    """Whether an element of a type that is not said or not known is a sequence: it begins with an item."""
    if (kind and kind != b"UN") or length < 8:
        return False
    return source.peek(4) == ITEM_MARK[order]


def _enter(entered: list[_Container], source: _Bytes, length: int, is_implicit: bool) -> None:
    """Notes that what follows lies in a sequence or an item."""
    if len(entered) >= MOST_DEEP:
        raise Refusal(f"has sequences of DICOM in each other, more than {MOST_DEEP // 2} deep; convert it to NIfTI")
    end = None
    if length != UNDEFINED_LENGTH:
        source.require(length)
        end = source.at + length
    entered.append(_Container(end, is_implicit))
