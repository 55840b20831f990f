"""The drafts of a folder of masks, and the images that they are of; told by names and small files alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from pydantic import ConfigDict

from segfw.base.errors import UserError
from segfw.base.file_names import FORMAT_FOLDERS, HIDDEN, MASK_SETTINGS_FILE
from segfw.base.printing import printable
from segfw.base.records import Record
from segfw.dataset.image_files import every_series, image_files
from segfw.evaluation.mask_facts import read_mask_facts
from segfw.images.formats import MASK_ENDINGS, size_and_change, split_ending
from segfw.measurements.masks_to_measure import images_of_cases

Source = tuple[str, int, int]  # name or its digest, bytes, last change


class _KeptSources(Record):
    """Of what ``predict`` keeps of a case: the files of its image."""

    model_config = ConfigDict(extra="ignore")

    id: str
    sources: tuple[Source, ...]


def drafts_in(folder: Path) -> dict[str, Path]:
    """The draft of each case: the file of an image format, or where there is none one of another format."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        stem, ending = split_ending(path)
        if ending in MASK_ENDINGS and not path.name.startswith(".") and path.is_file():
            found.setdefault(stem, path)
    for name, ending in FORMAT_FOLDERS.items():
        for path in sorted((folder / name).glob(f"[!.]*{ending}")):
            found.setdefault(path.name.removesuffix(ending), path)
    return dict(sorted(found.items()))


class DraftImages:
    """Finds the files of the images that the masks in a folder were made of, also where cases have pseudonyms.

    ``images`` is a folder that goes before the one that ``predict`` noted.
    """

    def __init__(self, folder: Path, drafts: Mapping[str, Path], images: str | None) -> None:
        self._folder = folder
        self._drafts = drafts
        noted = images if images is not None else read_mask_facts(folder).images
        self.source = (folder / noted).resolve() if noted else None
        self._by_name: dict[str, list[Path]] | None = None
        self._of_cases: dict[str, tuple[Path, ...]] | None = None

    def files(self, case: str) -> tuple[Path, ...]:
        """The files or folders of the image of a case, one a channel; none if they are not found any more."""
        if self.source is None or not self.source.is_dir():
            return ()
        return self._by_record(case) or self._by_names().get(case, ())

    def _by_record(self, case: str) -> tuple[Path, ...]:
        if not (self._folder / MASK_SETTINGS_FILE).is_file():
            return ()
        record = self._folder / HIDDEN / f"{case}.json"
        try:
            sources = _KeptSources.load(record).sources if record.is_file() else ()
        except UserError:  # of another version
            return ()
        found = [self._file(source) for source in sources]
        return tuple(path for path in found if path is not None) if found and None not in found else ()

    def _file(self, source: Source) -> Path | None:
        """The file of that name; of several the one that has not changed."""
        name, size, change = source
        named = self._named().get(name, [])
        if len(named) > 1:
            named = [path for path in named if size_and_change(path) == (size, change)]
        return named[0] if len(named) == 1 else None

    def _named(self) -> dict[str, list[Path]]:
        """What may be an image, by its name and by the digest of it."""
        if self._by_name is None:
            assert self.source is not None
            paths = image_files(self.source)
            paths += [path for path in every_series(self.source) if path not in set(paths)]
            self._by_name = {}
            for path in paths:
                name = printable(path.name)
                for key in (name, hashlib.sha256(name.encode()).hexdigest()[:16]):
                    self._by_name.setdefault(key, []).append(path)
        return self._by_name

    def _by_names(self) -> dict[str, tuple[Path, ...]]:
        if self._of_cases is None:
            assert self.source is not None
            try:
                self._of_cases = images_of_cases(self.source, self._drafts)
            except UserError:
                self._of_cases = {}
        return self._of_cases
