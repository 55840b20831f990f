"""What a request brings: read as far as it may be large, and unpacked as far as it must be."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Mapping

MOST_JSON_BYTES = 1 << 20
GZIP = 16 + zlib.MAX_WBITS
SURPLUS_BYTES = 1 << 16  # of what cannot be compressed
PART_BYTES = 1 << 20


class BodyTooLarge(Exception):
    """More came than may come; what is left of it is not read."""


class BodyDamaged(Exception):
    """It cannot be unpacked, or is shorter or longer than it must be. The message is a sentence."""


async def read_body(headers: Mapping[str, str], parts: AsyncIterator[bytes], most_bytes: int) -> bytes:
    """The body of a request; BodyTooLarge before any of it is read, where its length says so, or as soon as it is."""
    said = headers.get("content-length", "")
    if said.isascii() and said.isdigit() and int(said) > most_bytes:
        raise BodyTooLarge
    found: list[bytes] = []
    total = 0
    async for part in parts:
        total += len(part)
        if total > most_bytes:
            raise BodyTooLarge
        found.append(part)
    return b"".join(found)


def most_packed_bytes(unpacked_bytes: int) -> int:
    """What gzip makes at most of so many bytes."""
    return unpacked_bytes + unpacked_bytes // 1000 + SURPLUS_BYTES


def unpacked(packed: bytes, wanted_bytes: int) -> bytearray:
    """What was gzipped, if it is exactly ``wanted_bytes``; never more than that is unpacked.

    BodyTooLarge where there is more, BodyDamaged where there is less, or where it is no gzip or was cut.
    """
    unpacker = zlib.decompressobj(GZIP)
    result = bytearray(wanted_bytes)
    end = 0
    left: bytes = packed
    try:
        while not unpacker.eof:
            part = unpacker.decompress(left, min(PART_BYTES, wanted_bytes - end + 1))
            if end + len(part) > wanted_bytes:
                raise BodyTooLarge
            result[end : end + len(part)] = part
            end += len(part)
            is_cut = not part and not unpacker.unconsumed_tail
            left = unpacker.unconsumed_tail
            if is_cut:
                break
    except zlib.error as error:
        raise BodyDamaged(f"the bitmap cannot be unpacked ({error}); save again") from None
    if not unpacker.eof or unpacker.unused_data:
        raise BodyDamaged("the bitmap was cut, or more follows it; save again")
    if end != wanted_bytes:
        raise BodyDamaged(f"the bitmap has {end} voxels, and {wanted_bytes} were sent; load the case again")
    return result
