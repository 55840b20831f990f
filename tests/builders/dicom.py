"""DICOM files, element by element, with lengths that may be wrong (PS3.5, section 7)."""

from __future__ import annotations

import struct
import zlib

EXPLICIT = b"1.2.840.10008.1.2.1"
IMPLICIT = b"1.2.840.10008.1.2"
DEFLATED = b"1.2.840.10008.1.2.1.99"
BIG = b"1.2.840.10008.1.2.2"
RLE = b"1.2.840.10008.1.2.5"
UNDEFINED = 0xFFFFFFFF
END_OF_ITEM = struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
END_OF_SEQUENCE = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
LONG_TYPES = (b"OB", b"OW", b"SQ", b"UN", b"UT")


def element(
    group: int, number: int, kind: bytes, value: bytes, *, length: int | None = None, syntax: bytes = EXPLICIT
) -> bytes:
    """One element of a data set; ``length`` is what it claims to have."""
    value += b"\0" * (len(value) % 2)
    length = len(value) if length is None else length
    order = ">" if syntax == BIG else "<"
    tag = struct.pack(order + "HH", group, number)
    if syntax == IMPLICIT:
        return tag + struct.pack("<I", length) + value
    if kind in LONG_TYPES:
        return tag + kind + struct.pack(order + "HI", 0, length) + value
    return tag + kind + struct.pack(order + "H", length) + value


def item(content: bytes, *, length: int = UNDEFINED) -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, length) + content + (END_OF_ITEM if length == UNDEFINED else b"")


def dicom(
    *,
    more: bytes = b"",
    rows: int = 10,
    columns: int = 12,
    frames: int = 1,
    samples: int = 1,
    syntax: bytes = EXPLICIT,
    pixels: bytes = bytes(240),
    pixel_length: int | None = None,
) -> bytes:
    """One slice of MR, with ``more`` before its pixels."""
    order = ">" if syntax == BIG else "<"

    def short(number: int, value: int) -> bytes:
        return element(0x28, number, b"US", struct.pack(order + "H", value), syntax=syntax)

    start = element(0x08, 0x16, b"UI", b"1.2.840.10008.5.1.4.1.1.4", syntax=syntax)
    start += element(0x08, 0x18, b"UI", b"1.2.3.4.5", syntax=syntax) + element(0x08, 0x60, b"CS", b"MR", syntax=syntax)
    place = element(0x20, 0x0E, b"UI", b"1.2.3.4", syntax=syntax) + element(
        0x20, 0x32, b"DS", b"0\\0\\0", syntax=syntax
    )
    place += element(0x20, 0x37, b"DS", b"1\\0\\0\\0\\1\\0", syntax=syntax)
    counted = short(0x02, samples) + element(0x28, 0x04, b"CS", b"MONOCHROME2", syntax=syntax)
    counted += element(0x28, 0x08, b"IS", str(frames).encode(), syntax=syntax) if frames != 1 else b""
    counted += short(0x10, rows) + short(0x11, columns) + element(0x28, 0x30, b"DS", b"1\\1", syntax=syntax)
    counted += short(0x100, 16) + short(0x101, 16) + short(0x102, 15) + short(0x103, 0)
    last = element(0x7FE0, 0x10, b"OW", pixels, length=pixel_length, syntax=syntax)
    body = start + more + place + counted + last
    if syntax == DEFLATED:
        encoder = zlib.compressobj(9, zlib.DEFLATED, -15)
        body = encoder.compress(body) + encoder.flush()
    meta_elements = element(2, 1, b"OB", b"\0\1") + element(2, 2, b"UI", b"1.2.840.10008.5.1.4.1.1.4")
    meta_elements += element(2, 3, b"UI", b"1.2.3.4.5") + element(2, 0x10, b"UI", syntax)
    return bytes(128) + b"DICM" + element(2, 0, b"UL", struct.pack("<I", len(meta_elements))) + meta_elements + body
