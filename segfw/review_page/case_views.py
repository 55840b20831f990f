"""The volumes of a case as the page gets them: image, versions of the mask, doubt, other masks and candidates.

Little is kept in memory: the two masks and the one image that were looked at last, and the grid of each case.
"""

# z y x space

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segfw.base.errors import UserError
from segfw.base.file_names import PLAUSIBLE_FOLDER, UNCERTAINTY_FOLDER
from segfw.grid.boxes import Box, nonzero_box
from segfw.images.formats import MASK_ENDINGS, read_mask, read_volume, size_and_change
from segfw.images.geometry import Geometry
from segfw.images.volume import Volume, stored_like
from segfw.quality.kept_quality import KeptRegion, kept_regions
from segfw.quality.run_lengths import mask_of_runs
from segfw.review_page.case_source import CaseSource
from segfw.review_page.label_palette import LabelPalette
from segfw.review_page.served_grid import LARGEST_WHOLE, ServedGrid, served_box
from segfw.review_page.volume_bytes import shown_array

MASKS_KEPT = 2
DOUBT_MAP = "entropy"
LEAST_OF_CT = -500.0  # values below this are Hounsfield units: nothing but CT goes there
SAMPLED = 1 << 20  # voxels that a window is taken from
FOLD = re.compile(r"fold_[A-Za-z0-9_.-]+")
VERSION = re.compile(r"version_([0-9]{1,6})")


class NotFound(UserError):
    """There is no such thing."""


@dataclass(frozen=True)
class ShownImage:
    """One channel of an image on a served grid, or its colours; ``low`` and ``high`` are percentiles 1 and 99."""

    array: np.ndarray
    is_picture: bool
    is_ct: bool
    low: float
    high: float


class CaseViews:
    """Volumes of the cases of one folder. Any number of threads may ask."""

    def __init__(self, source: CaseSource, palette: LabelPalette, *, largest_whole: int = LARGEST_WHOLE) -> None:
        self.source = source
        self.palette = palette
        self._largest_whole = largest_whole
        self._masks: OrderedDict[object, Volume] = OrderedDict()
        self._image: tuple[object, ShownImage] | None = None
        self._grids: dict[object, ServedGrid] = {}
        self._lock = threading.RLock()

    # ---- grids ----

    def grid(self, case: str, *, box_xyz: str = "", is_whole: bool = False) -> ServedGrid:
        """What is served of a case: what was asked for, or else what suits it."""
        if is_whole:
            return ServedGrid.whole(self.mask(case, 0).geometry)
        own = self._own_grid(case)
        return own if not box_xyz else ServedGrid(own.file, _box_of(box_xyz, own))

    def _own_grid(self, case: str) -> ServedGrid:
        key = (case, *size_and_change(self.source.draft_file(case)))
        if key not in self._grids:
            draft = self.mask(case, 0)
            boxes: list[Box] = []
            if draft.array.size > self._largest_whole:
                is_drawn = draft.array != self.palette.background
                boxes = [nonzero_box(is_drawn)] if is_drawn.any() else []
                boxes += [region.box_zyx for region in self.regions(case) if region.box_zyx is not None]
            self._grids[key] = served_box(draft.geometry, boxes, largest_whole=self._largest_whole)
        return self._grids[key]

    # ---- volumes ----

    def mask(self, case: str, number: int) -> Volume:
        """A version of the mask in the file's own order; 0 is the draft."""
        if number:
            key: object = (case, number)
            return self._kept_mask(key, lambda: self.source.read(case, self._version(case, number)))
        file = self.source.draft_file(case)
        return self._kept_mask((case, 0, *size_and_change(file)), lambda: self.source.read(case, 0))

    def _version(self, case: str, number: int) -> int:
        if number not in {version.number for version in self.source.versions(case)}:
            raise NotFound(f"{case}: has no version {number}; load the case again")
        return number

    def _kept_mask(self, key: object, read: Callable[[], Volume]) -> Volume:
        with self._lock:
            if key not in self._masks:
                while len(self._masks) >= MASKS_KEPT:  # before the next one is read
                    self._masks.popitem(last=False)
                self._masks[key] = read()
            self._masks.move_to_end(key)
            return self._masks[key]

    def label(self, case: str, number: int, grid: ServedGrid, group: int = 0) -> np.ndarray:
        """The bitmap of a version."""
        return self.bitmap(self.mask(case, number).array[0], grid, group)

    def bitmap(self, values_zyx: np.ndarray, grid: ServedGrid, group: int = 0) -> np.ndarray:
        """The bitmap of a mask in the file's order."""
        return self.palette.to_indexes(grid.cut_out(values_zyx), group)

    def image_files(self, case: str) -> tuple[Path, ...]:
        """The files of the case's image; NotFound if it is not there any more."""
        files = self.source.image_files(case)
        if not files:
            raise NotFound(f"{case}: its image is not found any more; put it back to where it was predicted from")
        return files

    def image(self, case: str, grid: ServedGrid, channel: int = 0) -> ShownImage:
        """What is shown of the case's image; NotFound if it is not there any more."""
        files = self.image_files(case)
        key = (case, grid.box, channel, *(size_and_change(file) for file in files))
        with self._lock:
            if self._image is None or self._image[0] != key:
                self._image = None
                self._image = (key, self._read_image(case, files, grid, channel))
            return self._image[1]

    def _read_image(self, case: str, files: tuple[Path, ...], grid: ServedGrid, channel: int) -> ShownImage:
        if len(files) > 1:
            if not 0 <= channel < len(files):
                raise NotFound(f"{case}: has no channel {channel}; there are {len(files)}, from 0 on")
            volume = read_volume(files[channel])
            shown = 0
        else:
            volume = read_volume(files[0])
            shown = channel
            if channel >= (1 if volume.is_coloured else len(volume.array)):
                raise NotFound(f"{case}: has no channel {channel}; its image has {len(volume.array)}, from 0 on")
        mask = self.mask(case, 0)
        volume = stored_like(volume, mask)
        if volume.geometry.shape != mask.geometry.shape:
            raise UserError(f"{files[0]}: has another size than the mask of {case}; predict the case again")
        is_ct = not volume.is_picture and float(np.nan_to_num(volume.array[shown]).min()) < LEAST_OF_CT
        array = shown_array(volume, shown)
        if array.ndim == 4:
            array = np.moveaxis(grid.cut_out(np.moveaxis(array, -1, 0)), 0, -1)
        else:
            array = grid.cut_out(array)
        sample = array.reshape(-1)[:: max(1, array.size // SAMPLED)]
        low, high = np.percentile(sample, (1, 99)).tolist()
        return ShownImage(array, volume.is_picture, is_ct, low, high)

    def channels(self, case: str) -> list[str]:
        """What the channels that can be asked for are called: their numbers, since names may tell of patients."""
        return [f"{number:04d}" for number in range(len(self.source.image_files(case)))]

    # ---- what else is told of a case ----

    def doubt_file(self, case: str) -> Path | None:
        """The map of doubt that ``predict --uncertainty`` wrote, if it is there."""
        file = self.source.folder / UNCERTAINTY_FOLDER / f"{self.source.told_of(case)}_{DOUBT_MAP}.nii.gz"
        return file if file.is_file() else None

    def doubt(self, case: str, grid: ServedGrid) -> np.ndarray:
        """How doubtful each voxel is, 0 to 255."""
        values = self.doubt_values(case)
        if values is None:
            raise NotFound(f"{case}: there is no map of doubt; segfw predict --uncertainty makes one")
        return (grid.cut_out(values) * 255).clip(0, 255).astype(np.uint8)

    def _on_grid_of(self, case: str, volume: Volume, file: Path) -> Volume:
        mask = self.mask(case, 0)
        volume = stored_like(volume, mask)
        if volume.geometry.shape != mask.geometry.shape:
            raise UserError(f"{file}: has another size than the mask of {case}; predict the case again")
        return volume

    def others(self, case: str) -> list[str]:
        """What a mask can be compared with: the draft, single folds' masks, and other versions."""
        folder = self.source.folder / PLAUSIBLE_FOLDER
        told_of = self.source.told_of(case)
        folds = set()
        for ending in MASK_ENDINGS:
            for file in folder.glob(f"*{ending}"):
                name = file.name.removesuffix(ending)
                if name.startswith(f"{told_of}_") and FOLD.fullmatch(name.removeprefix(f"{told_of}_")):
                    folds.add(name.removeprefix(f"{told_of}_"))
        versions = [f"version_{version.number}" for version in self.source.versions(case)]
        return ["draft", *sorted(folds), *versions]

    def fold_masks(self, case: str) -> list[np.ndarray]:
        """Label values (Z, Y, X) of single folds, in the order of the draft's file; none where they were not kept."""
        return [self._fold(case, name) for name in self.others(case) if FOLD.fullmatch(name)]

    def doubt_values(self, case: str) -> np.ndarray | None:
        """How doubtful each voxel of the file's grid is, 0 to 1; None where there is no map of it."""
        file = self.doubt_file(case)
        return None if file is None else self._on_grid_of(case, read_volume(file), file).array[0]

    def other(self, case: str, kind: str, grid: ServedGrid, group: int = 0) -> np.ndarray:
        """The bitmap of one of ``others``."""
        if kind not in self.others(case):
            raise NotFound(f"{case}: there is no {kind} to compare with")
        version = VERSION.fullmatch(kind)
        if kind == "draft" or version is not None:
            return self.label(case, int(version[1]) if version else 0, grid, group)
        return self.bitmap(self._fold(case, kind), grid, group)

    def _fold(self, case: str, kind: str) -> np.ndarray:
        """Label values of one of the folds among ``others``."""
        folder = self.source.folder / PLAUSIBLE_FOLDER
        names = [f"{self.source.told_of(case)}_{kind}{ending}" for ending in MASK_ENDINGS]
        file = next(folder / name for name in names if (folder / name).is_file())
        return self._on_grid_of(case, read_mask(file), file).array[0]

    def regions(self, case: str) -> tuple[KeptRegion, ...]:
        """Suspected regions of the draft; none where they are of another grid than it is."""
        kept = kept_regions(self.source.folder, self.source.told_of(case))
        if kept is None or kept.shape != self.mask(case, 0).geometry.shape:
            return ()
        return kept.regions

    def candidate(self, case: str, region: int, number: int, grid: ServedGrid) -> np.ndarray:
        """Another mask inside of a region's box, 0 and 1, as far as the box is served."""
        found = next((each for each in self.regions(case) if each.id == region), None)
        if found is None or found.box_zyx is None or not 0 <= number < len(found.candidates):
            raise NotFound(f"{case}: region {region} has no candidate {number}")
        z, y, x = (stop - start for start, stop in found.box_zyx)
        mask = mask_of_runs(found.candidates[number].runs, (z, y, x))
        return grid.part_of_file_box(mask, found.box_zyx).astype(np.uint8)

    def geometry(self, case: str) -> Geometry:
        """The grid of the case's mask in its file's order."""
        return self.mask(case, 0).geometry


def _box_of(text: str, own: ServedGrid) -> Box:
    """The box 'x0,y0,z0,x1,y1,z1' of the whole served grid; UserError if it is none."""
    parts = text.split(",")
    if len(parts) != 6 or not all(part.isascii() and part.isdigit() and len(part) < 7 for part in parts):
        raise UserError(f"box={text[:100]!r} is no box; give x0,y0,z0,x1,y1,z1 as the case says it")
    x0, y0, z0, x1, y1, z1 = map(int, parts)
    box: Box = ((z0, z1), (y0, y1), (x0, x1))
    for (start, stop), size in zip(box, own.full_shape):
        if not 0 <= start < stop <= size:
            raise UserError(f"box={text} does not lie in the image; load the case again")
    return box
