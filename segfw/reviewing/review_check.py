"""Whether the log and the masks of a review are as they were written."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from segfw.base.errors import UserError
from segfw.base.progress import progress
from segfw.base.records import Record
from segfw.reviewing.review_folder import ReviewFolder
from segfw.reviewing.review_log import LogCheck, LogDamaged
from segfw.reviewing.version_files import VERSION_NAME, record_file, version_file, versions_folder


class FileProblem(Record):
    """A file that is not as the log says."""

    file: str  # from the folder of the masks
    what: str


class ReviewCheck(Record):
    """The log, and every file of a version. ``changed`` are the signed cases that may not be delivered, and why;
    ``image_gone`` those whose image is not found any more, which nobody can hold against what was signed.

    ``versions`` is how many were read; ``notes`` are files that the log does not know, of a process that was killed or
    that somebody put there.
    """

    log: LogCheck
    files: tuple[FileProblem, ...]
    changed: dict[str, tuple[str, ...]]
    notes: tuple[FileProblem, ...]
    versions: int
    image_gone: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing was changed."""
        return self.log.ok and not self.files and not self.changed


def check_review(review: ReviewFolder, anchor: Path | None = None) -> ReviewCheck:
    """Reads the log, against the ``anchor`` if there is one, and every version; what the log knows up to the first
    line that was changed."""
    log = review.log.verify(anchor)
    known = _known_versions(review)
    problems: list[FileProblem] = []
    notes: list[FileProblem] = []
    for case in progress("verifying", review.case_ids):
        for number, sha256 in sorted(known.get(case, {}).items()):
            problem = _problem(review, case, number, sha256)
            if problem:
                problems.append(
                    FileProblem(file=_name(review, version_file(review.folder, case, number)), what=problem)
                )
        notes += _strangers(review, case, known.get(case, {}))
    changed = {}
    image_gone: tuple[str, ...] = ()
    if log.ok:
        found = {case: review.changed(case) for case in review.case_ids}
        changed = {case: what for case, what in found.items() if what}
        image_gone = tuple(case for case in review.case_ids if review.is_image_gone(case))
    versions = sum(map(len, known.values()))
    return ReviewCheck(
        log=log,
        files=tuple(problems),
        changed=changed,
        notes=tuple(notes),
        versions=versions,
        image_gone=image_gone,
    )


def check_log(review: ReviewFolder, anchor: Path | None = None) -> ReviewCheck:
    """Reads the log alone, against the ``anchor`` if there is one."""
    return ReviewCheck(log=review.log.verify(anchor), files=(), changed={}, notes=(), versions=0)


def _known_versions(review: ReviewFolder) -> Mapping[str, Mapping[int, str]]:
    histories = ReviewFolder(review.folder, review.clock)
    with suppress(LogDamaged):  # which the check of the log tells
        histories.standings()
    return histories.known_versions()


def _problem(review: ReviewFolder, case: str, number: int, sha256: str) -> str:
    """What is wrong with a version's files, in words; '' if nothing is."""
    mask = version_file(review.folder, case, number)
    record = record_file(review.folder, case, number)
    if not mask.is_file():
        return "is gone"
    try:
        about = review.version(case, number)
    except UserError:
        return f"{record.name} beside it is gone or damaged"
    if about.sha256 != sha256:
        return f"{record.name} beside it was changed: it has another hash than the log"
    try:
        is_same = review.sha256(case, number) == sha256
    except UserError as error:
        return f"cannot be read any more ({error})"
    return "" if is_same else "was changed: it holds other voxels, or another place, than the log says"


def _strangers(review: ReviewFolder, case: str, known: Mapping[int, str]) -> list[FileProblem]:
    place = versions_folder(review.folder, case)
    if not place.is_dir():
        return []
    found = []
    for path in sorted(place.iterdir()):
        match = VERSION_NAME.fullmatch(path.name)
        if match is None or int(match[1]) not in known:
            found.append(
                FileProblem(file=_name(review, path), what="is of no version that the log knows; it is not used")
            )
    return found


def _name(review: ReviewFolder, path: Path) -> str:
    return path.relative_to(review.folder).as_posix()
