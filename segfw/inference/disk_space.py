"""Room on the disk that masks are written to: looked at before the work, and told from other errors when it is gone."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from segfw.base.errors import FULL_BELOW_BYTES
from segfw.base.records import GIGABYTE, UserError
from segfw.base.words import count
from segfw.dataset.cases import Case
from segfw.images.formats import size_and_change
from segfw.inference.output_folder import OutputFolder


def require_space(cases: Sequence[Case], folder: OutputFolder, spare_bytes: int = FULL_BELOW_BYTES) -> None:
    """Warns if the disk may be too small for all the cases; raises UserError if it is for the first of them.

    What masks take is a guess from the size of the images' files; ``spare_bytes`` stay free beside the first.
    """
    sizes = expected_bytes(cases, folder)
    free = shutil.disk_usage(folder.path).free
    free_room = f"{folder.path}: {gigabytes(free)} are free"
    if sizes and free < sizes[0] + spare_bytes:
        raise UserError(f"{free_room}, too few for even one case; free some space or write to another disk")
    if free < sum(sizes):
        needed = gigabytes(sum(sizes))
        print(
            f"warning: {free_room}, and {count(len(cases), 'case')} may take {needed}; a full disk stops the work, "
            "which the same command resumes"
        )


def expected_bytes(cases: Sequence[Case], folder: OutputFolder) -> list[float]:
    """Bytes that the mask of each case, and what is made beside it, may take."""
    share = sum(each.bytes_per_image_byte for each in folder.formats)
    share += sum(extra.bytes_per_image_byte for extra in folder.extras)
    return [share * sum(size_and_change(path)[0] for path in case.images) for case in cases]


def gigabytes(size: float) -> str:
    """Such as '1.53 GB', and '0 GB' below a megabyte, where digits mean nothing."""
    return f"{round(size / GIGABYTE, 3):.3g} GB"
