"""Hashes of an image: of its files, by which it shows that other voxels lie there now, and of its voxels alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from segfw.images.formats import files_read
from segfw.images.volume import Volume, to_canonical

CHUNK_BYTES = 1 << 20


def image_sha256(images: Sequence[Path]) -> str | None:
    """Of the bytes of all files that an image is read from, whatever they are called; None without any."""
    if not images:
        return None
    digest = hashlib.sha256()
    for image in images:
        for path in files_read(image):
            with open(path, "rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    digest.update(chunk)
    return digest.hexdigest()


def voxels_sha256(image: Volume) -> str:
    """Of an image's voxels in canonical order and of their number along each axis.

    The same whatever the format, its compression, and the order and direction of the axes that a file stores. Values
    are taken as float32, so that a cast without loss changes nothing; where the image lies is not looked at.
    """
    array_czyx = to_canonical(image).array
    digest = hashlib.sha256(repr(array_czyx.shape).encode())
    for channel_zyx in array_czyx:
        for plane_yx in channel_zyx:
            digest.update(plane_yx.astype("<f4").tobytes())
    return digest.hexdigest()
