"""Errors that a user can act on, and one place that tells damage from permission, a full disk and too many threads.

Permission and a full disk come as OSError from Python, and as errors of their own, with the system's words in them,
from safetensors, torch and SimpleITK.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

# EFBIG: a limit on the size of files, which some clusters set (ulimit -f).
FULL_ERRORS = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
FULL_WORDS = re.compile(
    r"no space left on device|disk quota exceeded|file too large|not enough space on the disk"
    r"|\(os error (27|28|122|112)\)|PytorchStreamWriter failed writing|unexpected pos \d+ vs",
    re.IGNORECASE,
)
FULL_BELOW_BYTES = 1 << 20  # writers that do not say why they failed, such as SimpleITK's, leave less than this
FORBIDDEN_ERRORS = {errno.EACCES, errno.EPERM, errno.EROFS}
FORBIDDEN_WORDS = re.compile(
    r"permission denied|operation not permitted|read-only file system|access is denied|\(os error (1|13|30)\)",
    re.IGNORECASE,
)
THREAD_WORDS = "can't start new thread"
MEGABYTE = 1024**2

# What to do about an error of the system, by its number; others are said in the system's words.
REMEDIES = {
    errno.ENOENT: "there is no such file or folder; check the name",
    errno.ENOTDIR: "a part of this path is a file; give another folder",
    errno.EISDIR: "is a folder, not a file; give a file",
    errno.EEXIST: "is there already; give another name",
    errno.ENOTEMPTY: "is there already and not empty; give a new or empty folder",
    errno.ENAMETOOLONG: "the name is too long for this disk; give a shorter one",
    errno.ELOOP: "is a link that leads to itself; replace it by the file that is meant",
    errno.EMFILE: "this process may not open more files; raise the limit with ulimit -n",
    errno.ENFILE: "the machine cannot open more files; close other programs",
    errno.EIO: "the disk does not answer as it should (input/output error); copy the file elsewhere and try again",
    errno.EAGAIN: "the system has no more processes or threads to give; give fewer --workers, or raise ulimit -u",
}


# A value of so many letters without a space is no name that anybody gave; of it the beginning is shown.
LONGEST_WORD = 1000
LETTERS_SHOWN = 100
OVERLONG = re.compile(rf"(\S{{{LETTERS_SHOWN}}})\S{{{LONGEST_WORD - LETTERS_SHOWN},}}")


class UserError(Exception):
    """The user's input is wrong. The message is one sentence: which file, what value, what to do."""

    def __str__(self) -> str:
        return OVERLONG.sub(r"\1...", super().__str__())


class DiskFull(UserError, OSError):
    """Nothing more can be written; what is done is kept."""


def _led_to(error: BaseException | None) -> Iterator[BaseException]:
    """The error and those that led to it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, says that the disk has no more room or a quota is used up."""
    for each in _led_to(error):
        number = getattr(each, "errno", None)
        if isinstance(each, DiskFull) or number in FULL_ERRORS:
            return True
        # A number that is there says enough; a UserError is about something else, whatever it quotes.
        if number is None and not isinstance(each, UserError) and FULL_WORDS.search(str(each)):
            return True
    return False


def is_forbidden(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, says that this user may not read or write a file."""
    for each in _led_to(error):
        number = getattr(each, "errno", None)
        if number in FORBIDDEN_ERRORS:
            return True
        if number is None and not isinstance(each, UserError) and FORBIDDEN_WORDS.search(str(each)):
            return True
    return False


def disk_of(path: Path) -> Path:
    """The folder that the disk which holds ``path``, or would hold it, is mounted at."""
    place = Path(path).absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    device = place.stat().st_dev
    while place != place.parent and place.parent.stat().st_dev == device:
        place = place.parent
    return place


def disk_full(path: Path, error: BaseException) -> DiskFull:
    """What to raise where the disk of ``path`` took no more, for which ``error`` was raised."""
    import shutil  # here, because --help has no need of it

    strerror = getattr(error, "strerror", None)
    if strerror:
        reason = f"[Errno {getattr(error, 'errno', None)}] {strerror}"
    elif isinstance(error, shutil.Error):  # a list of all the files that could not be copied
        reason = "No space left on device"
    else:
        reason = str(error).partition("\n")[0][:200]
    try:
        disk = disk_of(path)
        free = f"; {shutil.disk_usage(disk).free / MEGABYTE:.1f} MB are free on {disk}"
    except OSError:
        free = ""
    return DiskFull(f"{path}: the disk is full ({reason}{free}); free some space and call the same command again")


def raise_if_full(error: BaseException, path: Path) -> None:
    """Raises DiskFull if writing ``path`` failed of a full disk, also where the writer does not say why."""
    import shutil

    if isinstance(error, UserError):
        return
    says_nothing = isinstance(error, RuntimeError | ValueError) and getattr(error, "errno", None) is None
    try:
        nothing_left = says_nothing and shutil.disk_usage(Path(path).parent).free < FULL_BELOW_BYTES
    except OSError:
        nothing_left = False
    if nothing_left or is_disk_full(error):
        raise disk_full(Path(path), error) from error


def forbidden(path: Path | str, doing: str = "read") -> UserError:
    """What to raise where this user may not read or write a file: it is not damaged."""
    return UserError(
        f"{path}: may not be {doing} by this user (permission denied); the file is not damaged: ask its owner for the "
        "right, for example by chmod a+rX"
    )


def unreadable(path: Path | str, error: BaseException, damaged: str) -> UserError:
    """What to raise where a file cannot be read: the sentence ``damaged``, unless the system says that it is not.

    Permission, a disk that does not answer, or too many open files are no damage.
    """
    if is_forbidden(error):
        return forbidden(path)
    number = getattr(error, "errno", None)
    if number in (errno.EMFILE, errno.ENFILE, errno.EIO, errno.ELOOP):
        return UserError(f"{path}: {REMEDIES[number]}")
    return UserError(damaged)


def reason_of(error: BaseException) -> str | None:
    """One sentence about what the system refused, with the file and the remedy; None for any other error."""
    if isinstance(error, UserError):
        return str(error)
    number = getattr(error, "errno", None)
    path = getattr(error, "filename", None)
    if isinstance(path, bytes):
        path = os.fsdecode(path)
    if is_disk_full(error):
        return str(disk_full(Path(path) if isinstance(path, str | Path) else Path.cwd(), error))
    if is_forbidden(error) and (isinstance(error, OSError) or path is not None):
        what = path if path is not None else str(error)
        return (
            f"{what}: this user may not read it, or not write there (permission denied); ask its owner for the right, "
            "or give another folder"
        )
    if isinstance(error, RuntimeError) and THREAD_WORDS in str(error):
        return f"the system gives no more threads ({error}); give fewer --workers, or raise the limit with ulimit -u"
    if isinstance(error, ValueError) and "embedded null" in str(error):
        return f"a name of a file holds a NUL character ({error}), which no file can have; correct the name"
    if isinstance(error, RuntimeError) and "Symlink loop" in str(error):
        return f"{error}: is a link that leads to itself; replace it by the file that is meant"
    if not isinstance(error, OSError):
        return None
    if number in REMEDIES:
        return f"{path if path is not None else error}: {REMEDIES[number]}"
    return f"{path}: {error.strerror}" if path is not None and error.strerror else str(error)
