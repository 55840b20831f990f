"""New cases whose images are among the old ones: under whatever name, they would train what they judge."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from segfw.dataset.cases import Case
from segfw.images.formats import files_read


def same_images(new: Sequence[Case], old: Sequence[Case]) -> dict[str, str]:
    """By new case the old one with the same image files, or the first of the new ones; others are left out.

    Files are compared byte for byte, but only those of one size. The same voxels stored in another way are not found.
    """
    by_size: dict[tuple[int, ...], list[Case]] = defaultdict(list)
    for case in old:
        by_size[_sizes(case)].append(case)
    found = {}
    for case in new:
        size = _sizes(case)
        alike = by_size[size]
        if alike:
            content = _digest(case)
            first = next((other for other in alike if _digest(other) == content), None)
            if first is not None:
                found[case.id] = first.id
                continue
        alike.append(case)
    return found


def _files(case: Case) -> list[Path]:
    return [file for image in case.images for file in files_read(image) if file.is_file()]


def _sizes(case: Case) -> tuple[int, ...]:
    """Bytes of the files; of a case whose files are gone nothing, which no new case is like."""
    return tuple(file.stat().st_size for file in _files(case))


def _digest(case: Case) -> bytes:
    digest = hashlib.sha256()
    for file in _files(case):
        with open(file, "rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.digest()
