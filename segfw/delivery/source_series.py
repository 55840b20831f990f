"""The DICOM series that delivered files refer to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segfw.base.records import UserError
from segfw.dataset.image_files import every_series
from segfw.images.dicom import holds_dicom
from segfw.interop.reference_series import is_series
from segfw.reviewing.draft_files import DraftImages, drafts_in
from segfw.reviewing.review_store import ReviewStore


def images_of(store: ReviewStore, cases: Sequence[str], series: Path | None) -> dict[str, Path | None]:
    """The first image of each case: in ``series``, if that is given, or where the review has it.

    ``series`` may be one series, to which all cases refer that lie on its grid, or a folder of series, which are found
    as those that were predicted, or by the names of cases. UserError if there is no such folder.
    """
    if series is None:
        return {case: next(iter(store.image_files(case)), None) for case in cases}
    if not series.exists():
        raise UserError(f"--dicom {series}: no such folder; give a DICOM series, or a folder of them")
    given = series.resolve()
    if not given.is_dir() or holds_dicom(given):
        return dict.fromkeys(cases, given)
    images = DraftImages(store.folder, drafts_in(store.folder), str(given))
    by_name = {path.name: path for path in every_series(given)}
    found: dict[str, Path | None] = {}
    for case in cases:
        candidates = [*images.files(case), *filter(None, [by_name.get(case)])]
        found[case] = next((path for path in candidates if is_series(path)), None)
    return found
