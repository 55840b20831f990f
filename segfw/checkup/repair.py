"""Repaired copies of a data set: what is safely repairable is repaired, all else is copied as it is."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path
from unicodedata import normalize

import numpy as np

from segfw.base.files import is_empty, new_folder, whole_file
from segfw.base.records import Record, UserError
from segfw.base.words import count
from segfw.base.written_by_people import read_json
from segfw.checkup.check_report import CheckReport
from segfw.dataset.cases import Case, FoundDataset, read_label
from segfw.dataset.nnunet_raw import FILES_FIELD
from segfw.dataset.verify import grid_mismatch
from segfw.images.formats import FORMATS, MASK_ENDINGS, UnreadableFile, is_picture, read_volume, split_ending
from segfw.images.geometry import Geometry
from segfw.images.mask_colours import is_colour
from segfw.images.values import as_integers
from segfw.images.volume import Volume, stored_like

FIXES_FILE = "fixes.json"
# Kinds of findings of reading and verifying that can be repaired.
FIXABLE = frozenset({"same-image", "image-nan", "mask-grid", "channel-grid"})
# A mask whose grid has the image's shape and lies within this many voxels of it was drawn on the image, and its header
# was damaged later; one that lies farther off is resampled to where it says it is.
SAME_PLACE_VOXELS = 3.0
LEAST_OVERLAP = 0.5  # share of the smaller grid's corners and centre that lie inside the other


class Fixes(Record):
    """What was done to each case, and what was left as it is; by case id, '' for the data set."""

    source: str
    done: dict[str, tuple[str, ...]]
    left: dict[str, tuple[str, ...]]


def require_new_folder(fix: Path, raw: Path) -> None:
    """Raises UserError unless ``fix`` is a new or empty folder outside ``raw``."""
    if fix.exists() and (not fix.is_dir() or not is_empty(fix)):
        raise UserError(f"{fix}: exists and is not empty; give a new folder for the repaired copy")
    if raw.resolve() in (fix.resolve(), *fix.resolve().parents):
        raise UserError(f"{fix}: lies inside the data set; give a folder elsewhere")


def needs_repair(found: FoundDataset, report: CheckReport) -> bool:
    """Whether ``write_fixed`` would change anything."""
    return any(finding.fixable for finding in report.findings) or any(_is_float_mask(case) for case in found.cases)


def write_fixed(found: FoundDataset, report: CheckReport, fix: Path) -> Fixes:
    """Writes a complete copy of the data set into ``fix``, in the same layout, with what can be repaired repaired.

    Files that need no repair are hard links where the file system allows, else copies; originals stay untouched. The
    copy is there, whole, at the end, or not at all.
    """
    with new_folder(fix) as partial:
        return _write_copy(found, report, partial)


def _write_copy(found: FoundDataset, report: CheckReport, fix: Path) -> Fixes:
    done: dict[str, list[str]] = {}
    doubles = {finding.case: finding.others[0] for finding in report.findings if finding.kind == "same-image"}
    dropped: set[Path] = set()
    fixable = {finding.case for finding in report.findings if finding.fixable}
    shutil.copytree(found.root, fix, copy_function=_link, dirs_exist_ok=True, ignore=_once_each())
    for case in found.cases:
        files = [*case.images, *([case.label] if case.label else [])]
        if case.id in doubles:
            dropped.update(path for path in files if path.is_relative_to(found.root))
            done[case.id] = [f"left out: its image is the same as that of {doubles[case.id]}"]
            continue
        try:
            changes, words = _repair(case) if case.id in fixable or _is_float_mask(case) else ({}, [])
        except (UnreadableFile, ValueError):
            continue  # nothing can be done for this case, and the report says what is wrong with it
        if not all(path.is_relative_to(found.root) for path in files):
            continue  # listed in dataset.json, but kept elsewhere
        if words:
            done[case.id] = words
        for path, volume in changes.items():
            _write(fix / path.relative_to(found.root), volume)
    for path in dropped:
        copy = fix / path.relative_to(found.root)
        if copy.is_dir():  # a DICOM series
            shutil.rmtree(copy)
        else:
            copy.unlink(missing_ok=True)
        if copy.parent != fix and copy.parent.is_dir() and not any(copy.parent.iterdir()):  # of a patient
            copy.parent.rmdir()
    _unlist(fix / "dataset.json", {path.relative_to(found.root) for path in dropped}, found.root)
    left: dict[str, list[str]] = {}
    for finding in report.findings:
        if finding.severity != "note" and not (finding.fixable and finding.case in done):
            left.setdefault(finding.case, []).append(str(finding))
    fixes = Fixes(
        source=str(found.root.resolve()),
        done={case: tuple(words) for case, words in done.items()},
        left={case: tuple(words) for case, words in left.items()},
    )
    fixes.save(fix / FIXES_FILE)
    return fixes


def _once_each() -> Callable[[str, list[str]], list[str]]:
    """What a copy leaves out: links to folders that were copied (circles among them), links to nothing, pipes.

    What is lost by the last two stands in the report as an error of its case.
    """
    copied: set[Path] = set()

    def left_out(folder: str, names: list[str]) -> list[str]:
        copied.add(Path(folder).resolve())
        paths = {name: Path(folder, name) for name in names}
        circles = [name for name, path in paths.items() if path.is_symlink() and path.resolve() in copied]
        return circles + [name for name, path in paths.items() if not path.is_file() and not path.is_dir()]

    return left_out


def _link(source: str, target: str) -> None:
    try:
        os.link(Path(source).resolve(), target)
    except OSError:
        shutil.copy2(source, target)


def _unlist(description: Path, dropped: set[Path], root: Path) -> None:
    """Takes files that were left out off the lists of a dataset.json, nnU-Net's or a Decathlon's."""
    if not dropped or not description.is_file():
        return
    content = read_json(description)
    entries = content.get("training")
    if isinstance(entries, list):
        names = {normalize("NFC", path.as_posix()) for path in dropped}
        content["training"] = [
            entry
            for entry in entries
            if not (isinstance(entry, dict) and normalize("NFC", str(entry.get("image"))).removeprefix("./") in names)
        ]
    if isinstance(content.get("numTraining"), int):
        content["numTraining"] = len(content["training"]) if isinstance(entries, list) else content["numTraining"]
    by_case = content.get(FILES_FIELD)
    if isinstance(by_case, dict):
        gone = {(root / path).resolve() for path in dropped}
        content[FILES_FIELD] = {
            case: entry
            for case, entry in by_case.items()
            if not any((root / name).resolve() in gone for name in entry["images"])
        }
    with whole_file(description) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8", newline="\n")


def _is_float_mask(case: Case) -> bool:
    """Whether the mask holds integers as floating numbers, which any reader but a careful one trips over."""
    if case.label is None or split_ending(case.label)[1] not in (".nii", ".nii.gz"):
        return False
    import nibabel

    try:
        image = nibabel.load(case.label)
    except Exception:  # nibabel has its own error types; an unreadable mask is reported by the check
        return False
    return isinstance(image, nibabel.spatialimages.SpatialImage) and image.get_data_dtype().kind == "f"


def _repair(case: Case) -> tuple[dict[Path, Volume], list[str]]:
    """New contents of the case's files, and what was done, in words."""
    if case.label is None:
        raise ValueError("it has no mask")
    images = [read_volume(path) for path in case.images]
    mask = stored_like(read_label(case, images[0]), images[0])
    if is_picture(case.label) and any(is_colour(value) for value in np.unique(mask.array)):
        raise ValueError("its mask is in colours, which are not written")
    changes: dict[Path, Volume] = {}
    words: list[str] = []
    grid = images[0].geometry
    for path, volume in zip(case.images, images):
        if not _can_write(path, volume):
            raise ValueError("its format cannot be written")
        array = volume.array
        geometry = volume.geometry
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            finite = np.isfinite(array)
            if not finite.any():
                continue
            fill = float(array[finite].min())
            broken = int((~finite).sum())
            were = f"{count(broken, 'voxel')} that {'was' if broken == 1 else 'were'}"
            words.append(f"{path.name}: {were} NaN or infinite set to {fill:.6g}")
            array = np.where(finite, array, np.float32(fill))
            changes[path] = Volume(array=array, geometry=geometry)
        is_placed = images[0].is_placed and volume.is_placed  # pictures do not say where they lie
        if is_placed and grid_mismatch(grid, geometry) and _overlap(grid, geometry):
            changes[path] = Volume(array=_resampled(array, geometry, grid, order=1), geometry=grid)
            words.append(f"{path.name}: resampled (linear) onto the grid of {case.images[0].name}")
    if not _can_write(case.label, mask):
        raise ValueError("its format cannot be written")
    changed_mask, mask_words = _repaired_mask(case.label.name, mask, grid, case.images[0].name)
    if changed_mask is not None:
        changes[case.label] = changed_mask
    return changes, words + mask_words


def _can_write(path: Path, volume: Volume) -> bool:
    """Whether a changed file of this kind could be written: of several channels only NIfTI, of DICOM and JPEG none."""
    ending = split_ending(path)[1]
    return path.is_file() and ending in MASK_ENDINGS and (len(volume.array) == 1 or ending.startswith(".nii"))


def _repaired_mask(name: str, mask: Volume, grid: Geometry, image_name: str) -> tuple[Volume | None, list[str]]:
    """The mask of the file ``name`` with what was wrong put right, and what was done; None if nothing was."""
    array = mask.array
    geometry = mask.geometry
    words: list[str] = []
    if array.shape[0] != 1:
        return None, []
    try:
        whole = as_integers(array)
    except ValueError:
        return None, []
    if array.dtype.kind == "f":
        words.append(f"{name}: stored as floating numbers, now as integers")
    if grid_mismatch(grid, geometry):
        if not mask.is_placed:  # a picture that does not say where it lies
            return None, []
        if geometry.shape == grid.shape and _voxels_apart(grid, geometry) <= SAME_PLACE_VOXELS:
            words.append(f"{name}: placement copied from {image_name}, as the shape is equal and the place nearly")
        elif _overlap(grid, geometry):
            whole = _resampled(whole, geometry, grid, order=0)
            words.append(f"{name}: resampled (nearest neighbour) onto the grid of {image_name}")
        else:
            return None, []
        geometry = grid
    return (Volume(array=whole, geometry=geometry), words) if words else (None, [])


def _voxels_apart(grid: Geometry, other: Geometry) -> float:
    """How far the grids' corners lie apart, in voxels of ``grid``, at most along an axis; shapes are equal."""
    corners = _corners(grid)
    difference = np.linalg.solve(grid.matrix, other.matrix @ corners) - corners
    return float(np.abs(difference[:3]).max())


def _corners(grid: Geometry) -> np.ndarray:
    """Homogeneous indices of the corner voxels, as columns."""
    last = [size - 1 for size in grid.shape]
    return np.array([[*corner, 1.0] for corner in product(*((0, end) for end in last))]).T


def _overlap(first: Geometry, second: Geometry) -> bool:
    """Whether most of the smaller grid lies inside the other: a sample of places in one is looked up in the other."""

    def share(inner: Geometry, outer: Geometry) -> float:
        axes = [np.linspace(0, size - 1, 7) for size in inner.shape]
        places = np.stack([*np.meshgrid(*axes, indexing="ij"), np.ones((7, 7, 7))]).reshape(4, -1)
        found = np.linalg.solve(outer.matrix, inner.matrix @ places)[:3]
        limits = np.array(outer.shape)[:, None]
        return float(((found >= -0.5) & (found <= limits - 0.5)).all(0).mean())

    return max(share(first, second), share(second, first)) >= LEAST_OVERLAP


def _resampled(array_czyx: np.ndarray, source: Geometry, target: Geometry, *, order: int) -> np.ndarray:
    """The volume on another grid: order 1 linear, 0 nearest neighbour; outside, the voxel at the border or else 0."""
    from scipy.ndimage import affine_transform

    to_source = np.linalg.solve(source.matrix, target.matrix)
    return np.stack(
        [
            affine_transform(
                channel if order == 0 else channel.astype(np.float32),
                to_source[:3, :3],
                to_source[:3, 3],
                output_shape=target.shape,
                order=order,
                mode="constant" if order == 0 else "nearest",
                cval=0.0,
            )
            for channel in array_czyx
        ]
    )


def _write(path: Path, volume: Volume) -> None:
    """Replaces a file of the copy; a link to the original is taken away first, so that only the copy changes."""
    array = volume.array
    with whole_file(path) as partial:
        if len(array) == 1:
            write = FORMATS[split_ending(path)[1]].write
            if write is None:
                raise UserError(f"{path.name}: its format cannot be written; convert it first")
            write(partial, _smallest(array[0]), volume.geometry.matrix)
        else:
            _write_channels(partial, array, volume.geometry)


def _smallest(array: np.ndarray) -> np.ndarray:
    """Integers in a type that every format knows."""
    if array.dtype.kind in "iu" and array.dtype.itemsize > 4:
        return array.astype(np.int32)
    return array


def _write_channels(path: Path, array_czyx: np.ndarray, geometry: Geometry) -> None:
    """A file with several channels: NIfTI keeps them on the last axis, the other formats as vectors."""
    if split_ending(path)[1] not in (".nii", ".nii.gz"):
        raise UserError(f"{path.name}: a file with several channels can be repaired as NIfTI only; convert it first")
    import nibabel

    nibabel.save(nibabel.Nifti1Image(array_czyx.transpose(3, 2, 1, 0), geometry.matrix[:, [2, 1, 0, 3]]), path)
