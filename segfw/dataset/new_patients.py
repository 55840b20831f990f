"""New images in a folder for each patient, or in BIDS: a case is a patient, or a visit of one."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from segfw.base.records import UserError
from segfw.base.words import count
from segfw.dataset.bids import images_by_session
from segfw.dataset.cases import Case, Channel
from segfw.dataset.image_files import image_files, inner_folders
from segfw.dataset.pairing import as_word
from segfw.dataset.patient_folders import Visit, require_distinct, visits_in

SHOWN = 4  # images that a sentence names


def find_patients(source: Path, channels: Sequence[Channel]) -> list[Case] | None:
    """Cases of a folder of patients' folders, called by the patient, or patient and visit; None if it is none.

    Files whose names hold a word for a mask are passed over. Folders of DICOM series alone are no folders of
    patients: there, every series is an image. A folder without an image is a case all the same, which fails.

    Raises UserError if a patient's images cannot be told apart by the names of the model's channels.
    """
    if any(path.is_file() for path in image_files(source)):
        return None
    folders = inner_folders(source)
    if folders and all(folder.name.startswith("sub-") for folder in folders):
        sessions = images_by_session(source)
        return [_case(source, case, files, channels, _bare_name) for case, files in sorted(sessions.items())] or None
    visits, _ = visits_in(source)
    if not any(path.is_file() for visit in visits for path in visit.files):
        return None
    require_distinct(source, visits)
    cases = [_case_of(source, visit, channels) for visit in visits]
    empty = {folder.name for folder in folders} - {visit.patient for visit in visits}
    cases += [Case(id=name, images=(source / name,)) for name in empty]
    return sorted(cases, key=lambda case: case.id)


def _case_of(source: Path, visit: Visit, channels: Sequence[Channel]) -> Case:
    if not visit.images:
        return Case(id=visit.case, images=(visit.folder,))
    return _case(source, visit.case, visit.images, channels, visit.channel_of)


def _bare_name(path: Path) -> str:
    return path.name


def _case(
    source: Path,
    case: str,
    files: Sequence[Path],
    channels: Sequence[Channel],
    name_of: Callable[[Path], str],
) -> Case:
    """One file, or one file a channel: by the channels' names, or by numbers 0000, 0001, ... of as many."""
    if len(files) == 1:
        return Case(id=case, images=tuple(files))
    named = [[path for path in files if _holds(name_of(path), channel.name)] for channel in channels]
    if all(len(found) == 1 for found in named) and len({found[0] for found in named}) == len(named):
        return Case(id=case, images=tuple(found[0] for found in named))
    numbers = [re.fullmatch(r"(?:.*_)?(\d{4})(?:\..*)?", name_of(path)) for path in files]
    if [number and int(number[1]) for number in numbers] == list(range(len(channels))):
        return Case(id=case, images=tuple(files))
    shown = ", ".join(path.relative_to(source).as_posix() for path in files[:SHOWN])
    more = f" and {len(files) - SHOWN} more" if len(files) > SHOWN else ""
    wanted = ", ".join(channel.name for channel in channels)
    raise UserError(
        f"{source}: {case} has {count(len(files), 'image')} ({shown}{more}), but the model has "
        f"{count(len(channels), 'channel')} ({wanted}); leave one image for each, called by its channel"
    )


def _holds(name: str, channel: str) -> bool:
    """Whether a name holds the channel's name as a word of its own, in capitals or not."""
    return as_word(channel, re.IGNORECASE).search(name) is not None
