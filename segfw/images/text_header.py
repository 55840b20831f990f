"""Headers of text, of MetaImage and NRRD: looked at, and what they announce proven, before a library gets the file.

SimpleITK returns its buffer as an image when a compressed block is damaged or shorter than the header announces, takes
memory for whatever a header announces, and does not come back from some directions. So the numbers of a header are
looked at here first, the bytes of voxels are counted, and compressed ones decompressed, which checks their checksum.

MetaImage as in ITK's MetaIO (its page on the MetaIO format); NRRD as in its definition of format 5, sections 3 to 5.
"""

from __future__ import annotations

import math
import re
import zlib
from bz2 import BZ2Decompressor
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from segfw.base.words import count
from segfw.images.stored_bytes import (
    CHUNK_BYTES,
    MEMBER_BYTES,
    MOST_BYTES_OF_ONE_BY_DEFLATE,
    SURPLUS_BYTES,
    check_claim,
    check_members,
    check_room,
)
from segfw.images.voxels import Refusal

HEADER_BYTES = 1 << 20  # a header of text ends before this, its list of files included
ZLIB_OR_GZIP = 47  # zlib's number for either, with its largest window
LARGEST_NUMBER = 1e15  # of a place, a length or a direction; ITK does not come back from the largest ones
MOST_FILES = 100_000

META_BYTES = {
    "CHAR": 1,
    "UCHAR": 1,
    "SHORT": 2,
    "USHORT": 2,
    "INT": 4,
    "UINT": 4,
    "LONG": 4,
    "ULONG": 4,
    "LONG_LONG": 8,
    "ULONG_LONG": 8,
    "FLOAT": 4,
    "DOUBLE": 8,
}
NRRD_BYTES = {
    **dict.fromkeys(("signed char", "int8", "int8_t", "uchar", "unsigned char", "uint8", "uint8_t"), 1),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), 2),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), 2),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t", "uint", "unsigned int", "uint32", "uint32_t"), 4),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long", "signed long long int"), 8),
    **dict.fromkeys(("int64", "int64_t", "ulonglong", "unsigned long long", "unsigned long long int"), 8),
    **dict.fromkeys(("uint64", "uint64_t", "double"), 8),
    "float": 4,
}
META_PLACING = (
    *("TransformMatrix", "Rotation", "Orientation", "Offset", "Position", "Origin", "CenterOfRotation"),
    *("ElementSpacing", "ElementSize"),
)
NRRD_PLACING = (
    *("space directions", "space origin", "spacings", "measurement frame"),
    *("axis mins", "axis maxs", "thicknesses"),
)
SPACE_KINDS = ("domain", "space")  # of NRRD's axes; others, such as 'vector', have no spacing
ENCODINGS = {
    "raw": "raw",
    "gz": "deflate",
    "gzip": "deflate",
    "bz2": "bzip2",
    "bzip2": "bzip2",
    "txt": "text",
    "text": "text",
    "ascii": "text",
    "hex": "hex",
}


class TextHeader(NamedTuple):
    """What a header of text announces of the voxels: how many bytes, where they lie, and in which encoding."""

    voxel_bytes: int
    values: int
    files: tuple[Path, ...]  # that hold the voxels, each an equal share; the header's own where they follow it
    is_attached: bool
    encoding: str  # raw, deflate, bzip2, text or hex
    start: int = 0  # bytes before the voxels; -1: the voxels are the last bytes of the file
    skipped_lines: int = 0
    skipped_bytes: int = 0  # behind the lines, and of what is decompressed
    stored_bytes: int | None = None  # of the compressed block, where the header says it
    is_in_order: bool = True  # as SimpleITK gives them: little-endian, the values of a voxel side by side


class StoredVoxels(NamedTuple):
    """What was found to be stored: bytes of all voxels, and their CRC-32 where they were decompressed."""

    voxel_bytes: int
    crc: int | None

    def check_same(self, array: np.ndarray) -> None:
        """Raises ValueError if an array that a library read is not what is stored."""
        is_same = array.nbytes == self.voxel_bytes
        if is_same and self.crc is not None:
            is_same = zlib.crc32(np.ascontiguousarray(array).data) == self.crc
        if not is_same:
            raise ValueError("its voxels cannot be read as its header describes them")


def read_header(path: Path) -> TextHeader:
    """What the header of a MetaImage or NRRD file announces; Refusal where a number of it cannot be."""
    with path.open("rb") as file:
        start = file.read(HEADER_BYTES)
    return _nrrd_header(path, start) if start.startswith(b"NRRD") else _meta_header(path, start)


def data_files(path: Path) -> tuple[Path, ...]:
    """Files beside the header that hold the voxels; none where the header keeps them, or cannot be read."""
    try:
        header = read_header(path)
    except (OSError, ValueError):  # for the reader to complain of
        return ()
    return () if header.is_attached else header.files


def check_stored(path: Path) -> StoredVoxels:
    """Proves that the file and those it names hold the voxels that the header announces, all of them and no more.

    Compressed voxels are decompressed to their checksum, piece by piece; plain ones are counted. Raises Refusal, or
    an error that says what is damaged.
    """
    header = read_header(path)
    missing = [file for file in header.files if not file.is_file()]
    if missing:
        raise Refusal(f"its voxels lie in {missing[0]}, which is missing; put that file where the header names it")
    expected = header.voxel_bytes // len(header.files)
    check_room(header.voxel_bytes)
    crc = 0
    for file in header.files:
        named = "" if header.is_attached else f" in {file.name}"
        if header.encoding == "deflate":
            check_claim(expected, file.stat().st_size, MOST_BYTES_OF_ONE_BY_DEFLATE)
        found, crc = _bytes_in(file, header, expected, crc)
        if found != expected:
            stored = "more" if found > expected else f"{found:,}"
            what = f"its header announces {expected:,} bytes of voxels, but {stored} are stored{named}"
            raise ValueError(what)
    is_known = header.encoding in ("deflate", "bzip2") and header.is_in_order
    return StoredVoxels(header.voxel_bytes, crc if is_known else None)


def _bytes_in(file: Path, header: TextHeader, expected: int, crc: int) -> Decompressed:
    """Bytes of voxels that one file holds; ``expected`` also where only padding follows."""
    size = file.stat().st_size
    if header.start < 0:  # whatever lies before them is a header
        return Decompressed(min(size, expected), crc)
    with file.open("rb") as stored:
        stored.seek(header.start)
        for _ in range(header.skipped_lines):
            if not stored.readline():
                break
        here = stored.tell()
        if header.encoding == "raw":
            found = size - here
            if header.skipped_bytes < 0:
                return Decompressed(min(found, expected), crc)
            found -= header.skipped_bytes
            is_padded = expected <= found <= expected + SURPLUS_BYTES
            return Decompressed(expected if is_padded else max(found, 0), crc)
        if header.encoding in ("text", "hex"):
            return Decompressed(_bytes_of_text(stored.read(), header, expected), crc)
        stored_bytes = header.stored_bytes or size - here
        if stored_bytes > size - here:
            raise ValueError(f"its header announces {stored_bytes:,} compressed bytes, but {size - here:,} are stored")
        pieces = _pieces(stored.read, stored_bytes)
        most = expected + header.skipped_bytes
        return _decompressed(pieces, header.encoding, most=most, skipped=header.skipped_bytes, crc=crc)


def _bytes_of_text(text: bytes, header: TextHeader, expected: int) -> int:
    share = header.values // len(header.files)
    if header.encoding == "hex":
        return len(b"".join(text.split())) // 2
    found = len(text.split())
    return expected * found // share if share else 0


def _pieces(read: Callable[[int], bytes], size: int) -> Iterator[bytes]:
    while size > 0:
        piece = read(min(size, MEMBER_BYTES))
        if not piece:
            return
        size -= len(piece)
        yield piece


class Decompressed(NamedTuple):
    """How many bytes a compressed block holds, and their CRC-32 in one with those before."""

    size: int
    crc: int


def _decompressed(pieces: Iterator[bytes], encoding: str, *, most: int, skipped: int, crc: int) -> Decompressed:
    """Bytes that are compressed in ``pieces``, counted to a little more than ``most``; an error where damaged."""
    size = 0
    members = 0
    decoder: zlib._Decompress | BZ2Decompressor | None = None
    for piece in pieces:
        while size <= most:
            if decoder is None:
                if not piece.strip(b"\0\r\n"):  # nothing, or padding behind the last block
                    break
                members += 1
                check_members(members, size)
                decoder = zlib.decompressobj(ZLIB_OR_GZIP) if encoding == "deflate" else BZ2Decompressor()
            try:
                output = decoder.decompress(piece, CHUNK_BYTES)
            except (zlib.error, OSError) as error:
                raise ValueError(f"its compressed voxels are damaged: {error}") from None
            crc = zlib.crc32(memoryview(output)[max(0, skipped - size) :], crc)
            size += len(output)
            if decoder.eof:
                piece = decoder.unused_data
                decoder = None
                continue
            piece = b"" if isinstance(decoder, BZ2Decompressor) else decoder.unconsumed_tail
            if not piece and len(output) < CHUNK_BYTES:
                break
    if decoder is not None and size <= most:
        raise ValueError("its compressed voxels are cut short")
    return Decompressed(max(0, size - skipped), crc)


def _meta_header(path: Path, start: bytes) -> TextHeader:
    fields: dict[str, str] = {}
    position = 0
    while "ElementDataFile" not in fields:
        end = start.find(b"\n", position)
        line = start[position : end if end >= 0 else len(start)]
        match = re.match(rb"\s*(\w+)\s*[=:]\s*(.*?)\s*$", line)
        if match:
            fields[match[1].decode()] = match[2].decode(errors="surrogateescape")
        if end < 0:
            break
        position = end + 1
    if "ElementDataFile" not in fields:
        raise ValueError("its header names no ElementDataFile")
    for name in META_PLACING:
        _check_numbers(name, fields.get(name, ""))
    dimensions = _integer("NDims", fields.get("NDims", "0"))
    sizes = _sizes("DimSize", fields.get("DimSize", ""), dimensions)
    channels = _integer("ElementNumberOfChannels", fields.get("ElementNumberOfChannels", "1"))
    kind = fields.get("ElementType", "").removeprefix("MET_").removesuffix("_ARRAY")
    if kind not in META_BYTES:
        raise ValueError(f"its header gives no type of voxels that is known: {fields.get('ElementType')!r}")
    values = math.prod(sizes) * max(channels, 1)
    is_binary = not _is_no(fields.get("BinaryData", "True"))
    is_compressed = not _is_no(fields.get("CompressedData", "False"))
    named = fields["ElementDataFile"]
    is_attached = named.upper() == "LOCAL"
    files = (path,) if is_attached else _named_files(path, named, start[position:], sizes, default_axes=dimensions - 1)
    stored = _integer("CompressedDataSize", fields.get("CompressedDataSize", "0"))
    encoding = "text" if not is_binary else "deflate" if is_compressed else "raw"
    header_size = _integer("HeaderSize", fields.get("HeaderSize", "0"), least=-1 if encoding == "raw" else 0)
    beginning = position if is_attached and header_size == 0 else header_size
    return TextHeader(
        voxel_bytes=values * META_BYTES[kind],
        values=values,
        files=files,
        is_attached=is_attached,
        encoding=encoding,
        start=beginning,
        stored_bytes=stored if stored and encoding == "deflate" else None,
        is_in_order=_is_no(fields.get("BinaryDataByteOrderMSB", fields.get("ElementByteOrderMSB", "False"))),
    )


def _is_no(value: str) -> bool:
    return value[:1] in ("F", "f", "0")


def _nrrd_header(path: Path, start: bytes) -> TextHeader:
    fields: dict[str, str] = {}
    position = 0
    rest = b""
    while True:
        end = start.find(b"\n", position)
        line = start[position : end if end >= 0 else len(start)].strip()
        position = end + 1 if end >= 0 else len(start)
        if not line:
            break
        match = re.match(rb"([^:#=]+):\s+(.*)$", line)
        if match:
            name = match[1].decode(errors="replace").strip().lower()
            name = {"datafile": "data file", "lineskip": "line skip", "byteskip": "byte skip"}.get(name, name)
            fields[name] = match[2].decode(errors="surrogateescape").strip()
            if name == "data file" and fields[name].startswith("LIST"):
                rest = start[position:]
                break
        if end < 0:
            break
    dimensions = _integer("dimension", fields.get("dimension", "0"))
    sizes = _sizes("sizes", fields.get("sizes", ""), dimensions)
    kinds = fields.get("kinds", "").lower().split()
    for name in NRRD_PLACING:
        _check_numbers(name, _without_axes_of_values(name, fields.get(name, ""), kinds, dimensions))
    kind = " ".join(fields.get("type", "").lower().split())
    if kind not in NRRD_BYTES:
        raise ValueError(f"its header gives no type of voxels that is known: {fields.get('type')!r}")
    encoding = ENCODINGS.get(fields.get("encoding", "").lower())
    if encoding is None:
        raise ValueError(f"its header gives no encoding that is known: {fields.get('encoding')!r}")
    named = fields.get("data file")
    files = (path,) if named is None else _named_files(path, named, rest, sizes, default_axes=dimensions - 1)
    skipped = _integer("byte skip", fields.get("byte skip", "0"), least=-1 if encoding == "raw" else 0)
    values = math.prod(sizes)
    return TextHeader(
        voxel_bytes=values * NRRD_BYTES[kind],
        values=values,
        files=files,
        is_attached=named is None,
        encoding=encoding,
        start=position if named is None else 0,
        skipped_lines=_integer("line skip", fields.get("line skip", "0")),
        skipped_bytes=skipped,
        is_in_order=fields.get("endian", "little").lower() == "little" and not _has_values_last(kinds),
    )


def _has_values_last(kinds: list[str]) -> bool:
    """Whether an axis that is no space comes behind others, which SimpleITK puts first."""
    return any(kind not in SPACE_KINDS for kind in kinds[1:])


def _without_axes_of_values(name: str, text: str, kinds: list[str], dimensions: int) -> str:
    """Lengths of a field without those of axes that are no space, for which NRRD writes NaN."""
    lengths = text.split()
    if name not in ("spacings", "thicknesses", "axis mins", "axis maxs"):
        return text
    if len(kinds) == len(lengths):
        return " ".join(length for length, kind in zip(lengths, kinds) if kind in SPACE_KINDS or not _is_nan(length))
    if name == "thicknesses" or (dimensions > 3 and sum(map(_is_nan, lengths)) <= dimensions - 3):
        return " ".join(length for length in lengths if not _is_nan(length))
    return text


def _is_nan(text: str) -> bool:
    return text.lower() == "nan"


def _check_numbers(name: str, text: str) -> None:
    for word in re.split(r"[\s,()]+", text):
        if not word or word.lower() == "none":
            continue
        try:
            number = float(word)
        except ValueError:
            raise ValueError(f"its header has {name} {word[:40]!r}, which is no number") from None
        if not abs(number) <= LARGEST_NUMBER:
            what = f"its header has {name} {word[:40]}, which places voxels by no possible number"
            raise Refusal(f"{what}; repair the file's header")


def _integer(name: str, text: str, *, least: int = 0) -> int:
    if not re.fullmatch(r"[+-]?\d{1,18}", text) or int(text) < least:
        raise Refusal(f"its header has {name} {text[:40]!r}, which is no possible number; repair the file's header")
    return int(text)


def _sizes(name: str, text: str, dimensions: int) -> list[int]:
    sizes = [_integer(name, word) for word in text.split()]
    if len(sizes) != dimensions or not sizes or min(sizes) < 1:
        what = f"its header has {name} {text[:40]!r} for {count(dimensions, 'dimension')}"
        raise Refusal(f"{what}; repair the file's header")
    return sizes


def _named_files(path: Path, named: str, rest: bytes, sizes: list[int], *, default_axes: int) -> tuple[Path, ...]:
    """Files that hold the voxels: one, those of a LIST, or of a pattern with its first and last number and step."""
    words = named.split()
    if not words:
        raise ValueError("its header names no file of voxels")
    if words[0].upper() == "LIST":
        axes = int(re.sub(r"\D", "", words[1]) or 0) if len(words) > 1 else default_axes
        lines = (line.decode(errors="surrogateescape").strip() for line in rest.splitlines())
        names = [line for line in lines if line]
        most = math.prod(sizes[axes:])
        if path.suffix.lower() in (".mha", ".mhd"):
            names = names[:most]
        return _checked_number(path, names, most)
    if "%" in words[0] and len(words) >= 4:
        first, last, step = (_integer("data file", word, least=-MOST_FILES) for word in words[1:4])
        if (
            step == 0
            or abs(last - first) // abs(step) >= MOST_FILES
            or not re.fullmatch(r"[^%]*%0?\d{0,2}[di][^%]*", words[0])
        ):
            raise Refusal(f"its header names files by {named[:60]!r}, which cannot be followed; repair its header")
        numbers = range(first, last + (1 if step > 0 else -1), step)
        axes = int(words[4]) if len(words) > 4 and words[4].isdigit() else default_axes
        return _checked_number(path, [words[0] % number for number in numbers], math.prod(sizes[axes:]))
    return (path.parent / named,)


def _checked_number(path: Path, names: list[str], expected: int) -> tuple[Path, ...]:
    if len(names) != expected or not names:
        what = f"its header names {count(len(names), 'file')} of voxels, where its sizes need {expected}"
        raise Refusal(f"{what}; repair the file's header")
    return tuple(path.parent / name for name in names)
