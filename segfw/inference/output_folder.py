"""A folder of masks that several processes may write to at the same time, and that survives all of them being killed.

Beside the masks there is ``.segfw/``: per case a lock, held while it is worked on, and a record of what its mask was
made from. The system lets go of a lock when its process ends, however it ends, so that no case is held by the dead.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from segfw.base.case_files import Sources
from segfw.base.file_names import (
    CASE_PAGES_FOLDER,
    PLAUSIBLE_FOLDER,
    QUALITY_FOLDER,
    QUALITY_TABLE_FILE,
    REGIONS_ENDING,
    REVIEW_FOLDER,
)
from segfw.base.file_names import HIDDEN as HIDDEN
from segfw.base.files import remove_partials, write_text
from segfw.base.locks import alone, claimed
from segfw.base.printing import csv_text, printable
from segfw.base.records import Record, UserError
from segfw.base.stopwatch import CaseTimes
from segfw.dataset.cases import Case
from segfw.dataset.finished_mask import ImageFormat, MaskFormat, MaskMaker
from segfw.dataset.labels import LabelSet
from segfw.images.formats import size_and_change
from segfw.inference.predict_protocol import LooksAgain, OpenFileSink
from segfw.inference.probabilities import ENDING
from segfw.inference.probabilities import FOLDER as PROBABILITIES
from segfw.inference.uncertainty import FOLDER as UNCERTAINTY
from segfw.inference.uncertainty import MAPS, map_name
from segfw.inference.uncertainty import TABLE_FILE as UNCERTAINTY_TABLE

TIMINGS_FILE = "timings.json"
TIMED_PARTS = tuple(part.name for part in fields(CaseTimes) if part.name != "case")


class PredictedCase(Record):
    """What a mask was made from (digest of the file's name, bytes, last change in ns), and the seconds of each part.

    Names of files may be of patients, whose pseudonyms stand beside them here.
    """

    id: str
    sources: Sources
    seconds: dict[str, float]
    device: str
    files: tuple[str, ...] = ()  # of the mask, in all formats that it was written in, from its folder


@dataclass(frozen=True, kw_only=True)
class Extra:
    """What is made of every case besides its mask; what ``open`` gives writes ``FOLDER/CASE.ENDING``, and this last.

    ``write_table`` writes what is said of all cases together into the folder of the masks, from the files of each.
    ``look_again`` predicts the case in other ways, for the sink that ``open`` made.
    """

    folder: str
    ending: str
    open: OpenFileSink
    bytes_per_image_byte: float  # about
    by_member: bool = False  # whether it needs the networks of an ensemble apart
    write_table: Callable[[Path], object] | None = None
    look_again: LooksAgain | None = None


@dataclass(frozen=True, kw_only=True)
class OutputFolder:
    """Where the files of each case are: the mask in each of ``formats``, and those of ``extras``.

    Masks are said to be of ``maker``, and to have ``labels`` (None: those of the model's plan), of which ``only`` those
    were looked for (empty: all).
    """

    path: Path
    formats: tuple[MaskFormat, ...] = (ImageFormat(),)
    extras: tuple[Extra, ...] = ()
    labels: LabelSet | None = None
    only: tuple[str, ...] = ()
    maker: MaskMaker = MaskMaker()

    def mask(self, case_id: str) -> Path:
        """The file of a mask that is written last."""
        return self.masks(case_id)[-1]

    def masks(self, case_id: str) -> list[Path]:
        """The files of a mask in all formats, in the order in which they are written."""
        return [self.path / file for each in self.formats for file in each.files(case_id)]

    def beside(self, case_id: str) -> list[Path]:
        """The files that are made with the mask, in the order of ``extras``."""
        return [self.path / extra.folder / f"{case_id}{extra.ending}" for extra in self.extras]

    def is_done(self, case: Case) -> bool:
        """Whether all that is asked for is there, and the image has not changed since."""
        files = (*self.masks(case.id), *self.beside(case.id))
        return all(file.is_file() for file in files) and not self.is_outdated(case)

    def is_outdated(self, case: Case) -> bool:
        """Whether there is a mask of other image files than those that are there now; a mask without record is not."""
        if not any(file.is_file() for file in self._all_masks(case.id)):
            return False
        known = self._known(case.id)
        sources = sources_of(case)
        return known is not None and known.sources not in (_without_names(sources), sources)  # the latter is of old

    @contextmanager
    def claim(self, case: Case) -> Iterator[bool]:
        """Whether the case is ours to do while the block lasts; False if another process or thread is at it."""
        with claimed(self.path / HIDDEN / f"{case.id}.lock") as is_ours:
            yield is_ours

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Waits until no other process is in such a block of this folder: for decisions and files they share."""
        with alone(self.path / HIDDEN / "folder"):
            yield

    def forget(self, case_id: str) -> None:
        """Removes what is there of a case, the mask first, because without it nothing passes for done.

        Whatever is asked for now: what an earlier call made beside the mask must not pass for made with a new one.
        """
        maps = [self.path / UNCERTAINTY / map_name(case_id, name) for name in MAPS]
        extras = (self.path / PROBABILITIES / f"{case_id}{ENDING}", self.path / UNCERTAINTY / f"{case_id}.json", *maps)
        for file in (*self._all_masks(case_id), *self.beside(case_id), *extras):
            file.unlink(missing_ok=True)
        (self.path / UNCERTAINTY_TABLE).unlink(missing_ok=True)  # has a line of it
        self.forget_quality(case_id)
        self._record(case_id).unlink(missing_ok=True)

    def forget_quality(self, case_id: str) -> None:
        """Removes what is told of how far a mask may be trusted; the mask stays."""
        for name in (f"{case_id}.json", f"{case_id}{REGIONS_ENDING}"):
            (self.path / QUALITY_FOLDER / name).unlink(missing_ok=True)
        (self.path / CASE_PAGES_FOLDER / f"{case_id}.html").unlink(missing_ok=True)
        for file in self._plausible_files(case_id):
            file.unlink(missing_ok=True)
        (self.path / QUALITY_TABLE_FILE).unlink(missing_ok=True)  # has lines of it

    def _plausible_files(self, case_id: str) -> list[Path]:
        """Plausible masks of a case, as the file says that lists them, and that file."""
        lists = self.path / PLAUSIBLE_FOLDER / f"{case_id}.json"
        try:
            names = json.loads(lists.read_bytes())["files"]
            # Whatever stands there, only files in the folder and of the case.
            masks = [
                lists.with_name(name) for name in names if name.startswith(f"{case_id}_") and Path(name).name == name
            ]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):  # not there, or damaged
            masks = []
        return [lists, *masks]

    def known(self) -> set[str]:
        """Ids of the cases that were predicted into this folder."""
        return {file.stem for file in (self.path / HIDDEN).glob("[!.]*.json")}

    def remember(self, case: Case, sources: Sources, times: CaseTimes, device: str) -> None:
        """Keeps what a mask was made from, which may have changed since it was read."""
        seconds = {part: round(seconds, 3) for part, seconds in asdict(times).items() if part != "case"}
        files = tuple(file.relative_to(self.path).as_posix() for file in self._all_masks(case.id))
        known = PredictedCase(id=case.id, sources=_without_names(sources), seconds=seconds, device=device, files=files)
        known.save(self._record(case.id))

    def seconds_per_case(self) -> float | None:
        """Mean of what the parts of each mask that is here took together; None where there is none."""
        known = [sum(case.seconds.values()) for case in self._known_cases()]
        return sum(known) / len(known) if known else None

    def clean(self) -> None:
        """Removes what killed processes left half-written."""
        folders = {self.path, self.path / HIDDEN, *(self.path / extra.folder for extra in self.extras)}
        for known in self._known_cases():
            folders |= {(self.path / file).parent for file in known.files}
        for folder in sorted(folders):
            remove_partials(folder)

    def write_timings(self) -> None:
        """Writes ``timings.json`` and ``timings.csv``: seconds of each part, by case, of all who wrote here."""
        with self.alone():  # and read only now, so that the last one to write has seen all
            known = self._known_cases()
            cases = {printable(case.id): case.seconds | {"device": case.device} for case in known}
            total = {part: round(sum(case.seconds.get(part, 0.0) for case in known), 3) for part in TIMED_PARTS}
            text = json.dumps({"total": total, "cases": cases}, indent=1)
            write_text(self.path / TIMINGS_FILE, text + "\n")
            rows = [(case.id, *(case.seconds.get(part, 0.0) for part in TIMED_PARTS), case.device) for case in known]
            table = csv_text(("case", *TIMED_PARTS, "device"), rows)
            write_text((self.path / TIMINGS_FILE).with_suffix(".csv"), table)

    def _known_cases(self) -> list[PredictedCase]:
        known = []
        for file in sorted((self.path / HIDDEN).glob("*.json")):
            try:
                known.append(PredictedCase.load(file))
            except UserError:  # of another version
                continue
        return known

    def _all_masks(self, case_id: str) -> list[Path]:
        """The files of a mask that are asked for now, the last one first, and those of formats of earlier calls."""
        known = self._known(case_id)
        earlier = () if known is None else (self.path / file for file in known.files if not _is_of_people(file))
        return list(dict.fromkeys((*reversed(self.masks(case_id)), *earlier)))

    def _known(self, case_id: str) -> PredictedCase | None:
        try:
            return PredictedCase.load(self._record(case_id))
        except UserError:  # no record, or of another version
            return None

    def _record(self, case_id: str) -> Path:
        return self.path / HIDDEN / f"{case_id}.json"


def _is_of_people(file: str) -> bool:
    """Whether a file, from the folder of the masks, lies where people's masks do, whatever a record says."""
    return REVIEW_FOLDER in Path(file).parts


def images_of_masks(folder: Path, images: Iterable[Path]) -> dict[str, Path]:
    """The first image of each case that was predicted into ``folder``, among ``images``, whatever cases are called.

    By its name, bytes and last change; of those that two images share nothing is told.
    """
    alike: dict[Sources, list[Path]] = {}
    for path in images:
        alike.setdefault(_without_names(((printable(path.name), *size_and_change(path)),)), []).append(path)
    found = {}
    for file in sorted((folder / HIDDEN).glob("[!.]*.json")):
        try:
            known = PredictedCase.load(file)
        except UserError:  # of another version
            continue
        paths = alike.get(known.sources[:1], [])
        if len(paths) == 1:
            found[known.id] = paths[0]
    return found


def sources_of(case: Case) -> Sources:
    """Name, bytes and last change of each file of the image; not its folder, which may be moved."""
    return tuple((printable(path.name), *size_and_change(path)) for path in case.images)


def _without_names(sources: Sources) -> Sources:
    """The same with a digest for each name."""
    return tuple((hashlib.sha256(name.encode()).hexdigest()[:16], size, change) for name, size, change in sources)
