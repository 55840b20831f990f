"""The hash of an image's files, by which it shows that a mask was signed on other voxels than lie there now."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from segfw.images.formats import files_read

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
