"""Pixels proven before they are decoded: PNG by all its checksums, BMP and DICOM by their length, others by their size.

PNG (W3C, second edition): every chunk ends in the CRC-32 of its type and content, and the filtered rows of all IDAT
chunks are one zlib stream of a length that the header gives. JPEG and GIF have no checksums.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import BinaryIO, Literal

from segfw.images.stored_bytes import (
    MOST_BYTES_OF_ONE_BY_DEFLATE,
    SURPLUS_BYTES,
    check_claim,
    decompressed_size,
)

PNG_MARK = b"\x89PNG\r\n\x1a\n"
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by type of colour
# First column and row of PNG's seven interlaced passes, and the steps to the next.
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
UNDEFINED_LENGTH = 0xFFFFFFFF  # of DICOM's compressed pixels, which end by a mark
END_OF_SEQUENCE = b"\xfe\xff\xdd\xe0\0\0\0\0"
MOST_BYTES_OF_ONE = {
    "GIF": 1400,  # LZW: 12 bits for a string of at most 4096 - 258 bytes, growing by one
    "BMP": 256,  # two bytes for a run of 255 pixels
    "JPEG": 1 << 15,
    "MPO": 1 << 15,
}


def check_picture(path: Path, kind: str, *, columns: int, rows: int, bits_per_pixel: int) -> None:
    """Proves what the format lets one prove of a picture's pixels; raises Refusal or ValueError if they are not whole.

    ``kind`` is Pillow's name of the format, and the sizes are those that the header announces.
    """
    if kind == "PNG":
        _check_png(path)
        return
    check_claim(columns * rows * bits_per_pixel // 8, path.stat().st_size, MOST_BYTES_OF_ONE.get(kind, 1 << 15))
    if kind == "BMP":
        _check_bmp(path)


def _check_bmp(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(54)
    if len(start) < 54 or int.from_bytes(start[14:18], "little") < 40:  # of OS/2: rare, and its decoder counts bytes
        return
    if int.from_bytes(start[30:34], "little") not in (0, 3):  # run lengths, which end by a mark of their own
        return
    columns = int.from_bytes(start[18:22], "little", signed=True)
    rows = abs(int.from_bytes(start[22:26], "little", signed=True))
    bits = int.from_bytes(start[28:30], "little")
    row_bytes = -(-columns * bits // 32) * 4
    announced = int.from_bytes(start[10:14], "little") + rows * row_bytes
    stored = path.stat().st_size
    if not announced <= stored <= announced + SURPLUS_BYTES:
        number = "more" if stored > announced else f"{stored:,}"
        raise ValueError(f"its header announces {announced:,} bytes with the pixels, but {number} are stored")


def _check_png(path: Path) -> None:
    """Raises ValueError for a PNG of which any checksum is wrong, or that holds fewer or more pixels than it says."""
    with path.open("rb") as file:
        if file.read(len(PNG_MARK)) != PNG_MARK:
            raise ValueError("it does not begin as a PNG does")
        chunks = _png_chunks(file)
        kind, header = next(chunks, (b"", b""))
        if kind != b"IHDR" or len(header) != 13:
            raise ValueError("it has no header of PNG")
        announced = _png_bytes(header)
        check_claim(announced, path.stat().st_size, MOST_BYTES_OF_ONE_BY_DEFLATE)
        pixels = (content for kind, content in chunks if kind == b"IDAT")
        stored = decompressed_size(pixels, most=announced)
        for _ in chunks:  # to the last one: each has a checksum
            pass
    if stored != announced:
        number = "more" if stored > announced else f"{stored:,}"
        raise ValueError(f"its header announces {announced:,} bytes of pixels, but {number} are stored")


def _png_chunks(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Type and content of each chunk, whose checksum was proven; ends with IEND."""
    kind = b""
    while kind != b"IEND":
        start = file.read(8)
        if len(start) < 8:
            raise ValueError("it is cut short")
        length = int.from_bytes(start[:4], "big")
        kind = start[4:]
        content = file.read(length) if length < 1 << 31 else b""
        checksum = file.read(4)
        if len(content) < length or len(checksum) < 4:
            raise ValueError(f"it is cut short in its part {kind.decode('latin-1')!r}")
        if zlib.crc32(content, zlib.crc32(kind)) != int.from_bytes(checksum, "big"):
            raise ValueError(f"the checksum of its part {kind.decode('latin-1')!r} is wrong: it is damaged")
        yield kind, content


def _png_bytes(header: bytes) -> int:
    """Bytes of all rows, each with its filter's number, as the zlib stream of a PNG holds them."""
    columns = int.from_bytes(header[:4], "big")
    rows = int.from_bytes(header[4:8], "big")
    bits = header[8] * PNG_CHANNELS.get(header[9], 4)
    passes = ADAM7 if header[12] else ((0, 0, 1, 1),)
    announced = 0
    for first_x, first_y, step_x, step_y in passes:
        width = -(-(columns - first_x) // step_x)
        height = -(-(rows - first_y) // step_y)
        if width > 0 and height > 0:
            announced += height * (1 + -(-width * bits // 8))
    return announced


def check_dicom_pixels(path: Path, *, columns: int, rows: int, bits: int, samples: int) -> None:
    """Proves that one DICOM file holds all pixels of the slice that its header announces.

    Plain pixels are counted, and of compressed ones the end must be there (DICOM PS3.5, sections 7.1 and A.4). Files
    that are deflated as a whole do not show their pixels here, and pass.
    """
    announced = -(-columns * rows * samples * bits // 8)
    size = path.stat().st_size
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        found = [
            *_dicom_lengths(content, b"\xe0\x7f\x10\x00", "little"),
            *_dicom_lengths(content, b"\x7f\xe0\x00\x10", "big"),
        ]
        if not found:
            return
        for place, length in found:  # icons, too, have pixels, and pixels may look like any of it
            if length == UNDEFINED_LENGTH:
                if content.rfind(END_OF_SEQUENCE) > place:
                    check_claim(announced, size, MOST_BYTES_OF_ONE["JPEG"])
                    return
            elif place + length <= size and (samples > 1 or announced <= length <= announced + SURPLUS_BYTES):
                return
    stored = max(min(length, size - place) for place, length in found)
    raise ValueError(f"the header of {path.name} announces {announced:,} bytes of pixels, but {stored:,} are stored")


def _dicom_lengths(content: mmap, tag: bytes, order: Literal["little", "big"]) -> list[tuple[int, int]]:
    """Where values of a tag may begin, and how many bytes they say they have."""
    found = []
    at = content.find(tag)
    while at >= 0 and at + 12 <= len(content):
        has_type = content[at + 4 : at + 6] in (b"OW", b"OB", b"UN")
        length_at = at + 8 if has_type else at + 4
        found.append((length_at + 4, int.from_bytes(content[length_at : length_at + 4], order)))
        at = content.find(tag, at + 4)
    return found
