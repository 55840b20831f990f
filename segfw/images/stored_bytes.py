"""What a file may announce: no more than it can hold, and no more than memory takes."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from segfw.base.resources import free_memory_bytes
from segfw.images.voxels import Refusal

MOST_BYTES_OF_ONE_BY_DEFLATE = 1032  # zlib, gzip and PNG: two bits stand for 258 bytes at most
GZIP = 31  # zlib's number for gzip, with its largest window
SURPLUS_BYTES = 15  # that may follow the voxels: the end of a line, or padding to a round number
CHUNK_BYTES = 1 << 22
MEMBER_BYTES = 1 << 16  # given to a decoder at a time, which copies what is left at the end of a member
MOST_TINY_MEMBERS = 10_000
TINY_MEMBER = 64  # bytes on average


def check_room(voxel_bytes: int) -> None:
    """Raises Refusal if voxels would not fit into the memory that is free now."""
    free = free_memory_bytes()
    if voxel_bytes > free:
        room = f"the {free / 1e9:,.1f} GB of memory that are free"
        what = f"announces {voxel_bytes / 1e9:,.1f} GB of voxels, more than {room}"
        raise Refusal(f"{what}; check its header, or use a machine with more memory")


def check_claim(voxel_bytes: int, file_bytes: int, most_bytes_of_one: int) -> None:
    """Raises Refusal if a file announces more than a file of its size can hold, or more than memory takes."""
    if voxel_bytes > most_bytes_of_one * file_bytes:
        what = f"announces {voxel_bytes:,} bytes of voxels, which no file of {file_bytes:,} bytes holds"
        raise Refusal(f"{what}; copy or export it again")
    check_room(voxel_bytes)


def decompress_gzip(content: bytes, most_bytes: int) -> bytes:
    """What is compressed in ``content``, of all members, or its first ``most_bytes``.

    A member that ends before these has its checksum proven; raises ValueError where it is wrong or the end is missing.
    """
    parts: list[bytes] = []
    size = 0
    at = 0
    members = 0
    while size < most_bytes and not (members and _is_padding(content, at)):
        decoder = zlib.decompressobj(GZIP)
        while not decoder.eof:
            piece = content[at : at + MEMBER_BYTES]
            if not piece:
                raise ValueError("its compressed content is cut short")
            try:
                part = decoder.decompress(piece, most_bytes - size)
            except zlib.error as error:
                raise ValueError(f"its compressed content is damaged: {error}") from None
            parts.append(part)
            size += len(part)
            at += len(piece) - len(decoder.unused_data)
            if size == most_bytes:
                break
        members += 1
        check_members(members, size)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _is_padding(content: bytes, at: int) -> bool:
    """Whether nothing but zeros follows, which is padding behind the last member."""
    return at == len(content) or (content[at] == 0 and not content[at:].strip(b"\0"))


def check_members(members: int, size: int) -> None:
    """Raises ValueError for content that is compressed in a great many parts of next to nothing, which take long."""
    if members > MOST_TINY_MEMBERS and size < TINY_MEMBER * members:
        raise ValueError(f"its content is compressed in more than {MOST_TINY_MEMBERS:,} parts of next to nothing")


def decompressed_size(pieces: Iterable[bytes], *, most: int) -> int:
    """Bytes of the one zlib stream in ``pieces``, proven by its checksum; counted to a little more than ``most``."""
    decoder = zlib.decompressobj()
    size = 0
    for piece in pieces:
        rest = piece
        while size <= most and not decoder.eof:
            try:
                output = decoder.decompress(rest, CHUNK_BYTES)
            except zlib.error as error:
                raise ValueError(f"its compressed content is damaged: {error}") from None
            size += len(output)
            rest = decoder.unconsumed_tail
            if not rest and len(output) < CHUNK_BYTES:
                break
    if size <= most and not decoder.eof:
        raise ValueError("its compressed content is cut short")
    return size
