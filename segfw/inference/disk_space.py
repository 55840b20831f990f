"""Room on the disk that masks are written to: looked at before the work, and told from other errors when it is gone."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Sequence
from pathlib import Path

from segfw.base.records import GIGABYTE, UserError
from segfw.dataset.cases import Case
from segfw.images.formats import size_and_change
from segfw.inference.output_folder import OutputFolder

# EFBIG: a limit on the size of files, which some clusters set (ulimit -f).
FULL_ERRORS = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
FULL_BELOW_BYTES = 1 << 20  # writers without error numbers, such as SimpleITK's, leave less than this
# Of a mask per byte of the image's file; a guess, on the safe side for compressed images and masks of few labels.
MASK_SHARE = 0.05
PLAIN_MASK_SHARE = 1.0  # of one that is not compressed


class DiskFull(UserError):
    """Nothing more can be written; what is done is kept."""


def is_full(error: BaseException, folder: Path) -> bool:
    """Whether a write failed because there is no more room."""
    reason: BaseException | None = error
    while reason is not None:
        if getattr(reason, "errno", None) in FULL_ERRORS:
            return True
        if isinstance(reason, RuntimeError) and shutil.disk_usage(folder).free < FULL_BELOW_BYTES:
            return True
        reason = reason.__cause__ or (None if reason.__suppress_context__ else reason.__context__)
    return False


def require_space(cases: Sequence[Case], folder: OutputFolder, spare_bytes: int = FULL_BELOW_BYTES) -> None:
    """Warns if the disk may be too small for all the cases; raises UserError if it is for the first of them.

    What masks take is a guess from the size of the images' files; ``spare_bytes`` stay free beside the first.
    """
    share = MASK_SHARE if folder.ending.endswith(".gz") else PLAIN_MASK_SHARE
    share += sum(extra.bytes_per_image_byte for extra in folder.extras)
    sizes = [share * sum(size_and_change(path)[0] for path in case.images) for case in cases]
    free = shutil.disk_usage(folder.path).free
    free_room = f"{folder.path}: {free / GIGABYTE:.3g} GB are free"
    if sizes and free < sizes[0] + spare_bytes:
        raise UserError(f"{free_room}, too few for even one case; free some space or write to another disk")
    if free < sum(sizes):
        needed = sum(sizes) / GIGABYTE
        print(
            f"warning: {free_room}, and {len(cases)} cases may take {needed:.3g} GB; a full disk stops the work, "
            "which the same command resumes"
        )
