"""Reading and writing volumes: one row of FORMATS per file ending, and DICOM series as folders."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypeVar
from unicodedata import normalize

import numpy as np
from pydantic import ValidationError

from segfw.base.errors import UserError, unreadable
from segfw.base.files import whole_file
from segfw.base.wrong_value import wrong_value
from segfw.images.dicom import files_of_series, is_dicom, read_series, what_it_is
from segfw.images.dicom_header import read_header, require_header
from segfw.images.dicom_masks import named_dicom, require_same_series, series_of_mask
from segfw.images.dicom_seg import read_segmentation
from segfw.images.geometry import Geometry, corner_distance_mm, shear_degrees
from segfw.images.itk import read_itk, write_itk, write_itk_like, write_mhd
from segfw.images.named_mask import DrawnAs, NamedMask, Structure, painted
from segfw.images.nifti import read_nifti, write_nifti, write_nifti_like
from segfw.images.raster import read_picture, read_picture_mask, side_file, write_picture
from segfw.images.rtstruct import read_structure_set
from segfw.images.seg_nrrd import read_seg_nrrd, segment_structures
from segfw.images.stored_bytes import check_room
from segfw.images.text_header import data_files
from segfw.images.volume import Volume
from segfw.images.voxels import NO_SERIES, Refusal, Voxels

Read = TypeVar("Read")

# Voxels of scans, micro-CT included, have edges of at least and at most these.
SMALLEST_LIKELY_MM = 0.004
LARGEST_LIKELY_MM = 50.0
SHEAR_WORTH_A_NOTE = 0.5  # degrees; below it lies the rounding of headers


class UnreadableFile(UserError):
    """A file that cannot be opened, decoded or placed in space; the message is a sentence for the user."""


class Format(NamedTuple):
    """How one file ending is read and written."""

    read: Callable[[Path], Voxels]
    write: Callable[..., None] | None  # path, (Z, Y, X), affine; None: cannot hold labels
    read_mask: Callable[[Path], Voxels] | None = None  # where a mask is to be read in another way than an image
    # As write, with the header of a file of the same family: what an affine does not say stays as it is there.
    write_like: Callable[..., None] | None = None
    holds_text: bool = False  # whether both take what is ``said`` of the volume into its header


NIFTI = Format(read_nifti, write_nifti, write_like=write_nifti_like, holds_text=True)
ITK = Format(read_itk, write_itk, write_like=write_itk_like, holds_text=True)
PICTURE = Format(read_picture, write_picture, read_picture_mask)
LOSSY = Format(read_picture, None, read_picture_mask)
SEG_NRRD = ".seg.nrrd"
FORMATS = {
    ".nii.gz": NIFTI,
    ".nii": NIFTI,
    SEG_NRRD: Format(read_itk, None),
    ".nrrd": ITK,
    ".mha": ITK,
    ".mhd": Format(read_itk, write_mhd, holds_text=True),
    ".png": PICTURE,
    ".tif": PICTURE,
    ".tiff": PICTURE,
    ".bmp": PICTURE,
    ".gif": PICTURE,
    ".jpg": LOSSY,
    ".jpeg": LOSSY,
}
PLAIN_MASK = ".nii.gz"
MOST_OFF = 0.01  # of a voxel's edge, by which a file that was written may be off
ROUNDING = 1e-6  # of a place: NIfTI keeps them in 32 bit
MASK_ENDINGS = tuple(ending for ending, format in FORMATS.items() if format.write)


def split_ending(path: Path) -> tuple[str, str]:
    """('case_0000', '.nii.gz') of '.../case_0000.nii.gz'; the ending is '' if no format of ours has it.

    Letters with accents are composed (Unicode's form NFC): macOS and archives made there write them in two parts, and
    what looks the same is the same case.
    """
    for ending in FORMATS:
        if path.name.lower().endswith(ending):
            return normalize("NFC", path.name[: -len(ending)]), path.name[-len(ending) :].lower()
    return normalize("NFC", path.name), ""


def is_picture(path: Path) -> bool:
    """Whether a file is a picture by its ending: PNG, TIFF, BMP, GIF or JPEG."""
    return FORMATS.get(split_ending(path)[1]) in (PICTURE, LOSSY)


def read_volume(path: str | Path) -> Volume:
    """Reads an image as stored, a folder as a DICOM series.

    Parameters
    ----------
    path
        A file in any format that training reads, or a folder of one DICOM series.

    Returns
    -------
    Volume
        The array (C, Z, Y, X) and its place in space: spacing in mm, affine. Integer files stay integers; files with a
        scale factor become float32; the byte order is the machine's own.

    Raises
    ------
    UnreadableFile
        A UserError, with a sentence that says what is wrong.
    """
    path = Path(path)
    return _read(path, read=_image_reader(path))


def read_mask(path: Path, of: Volume | None = None, drawn_as: Sequence[DrawnAs] | None = None) -> Volume:
    """Reads a mask as stored.

    Pictures give the indices of their palette, one channel where all is grey, else numbers of colours: see
    ``segfw.images.mask_colours``.

    Parameters
    ----------
    path
        A mask in any format of images, a .seg.nrrd, a DICOM SEG or an RTSTRUCT.
    of
        The image that it is of. The structures of the last three are put on its grid; without it a .seg.nrrd and a SEG
        have a grid of their own, from the first slice in which something is, and for an RTSTRUCT its series is looked
        for beside it.
    drawn_as
        What the structures of the last three become in the mask; others are left out. None takes all, by the numbers
        that the file gives them.

    Raises
    ------
    UnreadableFile
        With a sentence that says what is wrong; also where structures that must not overlap do.
    """
    path = Path(path)
    return _read(
        path, read=lambda file: _read_named(file, of, drawn_as) if has_names(file) else _mask_reader(file)(file)
    )


def has_names(path: Path) -> bool:
    """Whether a file, by its ending or its first elements, is a mask whose structures have names of their own."""
    ending = split_ending(path)[1]
    if ending == SEG_NRRD:
        return path.is_file()
    return (not ending or path.is_dir()) and named_dicom(path) is not None


def open_named_mask(path: Path) -> NamedMask | None:
    """The structures of a .seg.nrrd, DICOM SEG or RTSTRUCT, before any is drawn; None for any other mask.

    Raises UnreadableFile.
    """
    if not has_names(path):
        return None
    return _or_unreadable(path, lambda: _open_named(path))


def structures_in(path: Path) -> tuple[Structure, ...]:
    """The structures of a mask by name, as its file lists them; none where they have no names.

    Raises UnreadableFile.
    """
    if split_ending(path)[1] == SEG_NRRD and path.is_file():
        return _or_unreadable(path, lambda: segment_structures(path))
    mask = open_named_mask(path)
    return () if mask is None else mask.structures


def _open_named(path: Path) -> NamedMask | None:
    if split_ending(path)[1] == SEG_NRRD:
        return read_seg_nrrd(path)
    file = named_dicom(path)
    if file is None:
        return None
    is_structure_set = require_header(file).kind == "structure set"
    return read_structure_set(file) if is_structure_set else read_segmentation(file)


def _read_named(path: Path, of: Volume | None, drawn_as: Sequence[DrawnAs] | None) -> Voxels:
    mask = _open_named(path)
    if mask is None:  # a .seg.nrrd that names no segment
        return read_itk(path)
    if of is not None:
        require_same_series(mask, of.series)
    grid = of.geometry if of is not None and of.is_placed else mask.grid
    uids = NO_SERIES if of is None else of.series
    if grid is None:
        series = series_of_mask(path)
        if series is None:
            what = "has no grid of its own, and the series that it was drawn on is not beside it"
            raise Refusal(f"{what}; put the series into its folder, or give the images too")
        image = _checked(read_series(series))
        grid = image.geometry
        uids = image.series
    check_room(4 * math.prod(grid.shape))
    array = painted(mask, grid, drawn_as)
    return Voxels(array[None], grid.matrix, mask.notes, series=uids)


def _mask_reader(path: Path) -> Callable[[Path], Voxels]:
    ending = split_ending(path)[1]
    if path.is_dir() or not ending:
        return read_series
    return FORMATS[ending].read_mask or FORMATS[ending].read


def _image_reader(path: Path) -> Callable[[Path], Voxels]:
    ending = split_ending(path)[1]
    return FORMATS[ending].read if ending and not path.is_dir() else read_series


def _read(path: Path, *, read: Callable[[Path], Voxels]) -> Volume:
    ending = split_ending(path)[1]
    if path.is_symlink() and not path.exists():
        raise UnreadableFile(f"{path}: {what_it_is(path)}")
    if not path.exists():
        raise UnreadableFile(f"{path}: no such file; check the name")
    if not path.is_file() and not path.is_dir():
        raise UnreadableFile(f"{path}: {what_it_is(path)}")
    if not path.is_dir() and not ending and not is_dicom(path):
        raise UnreadableFile(f"{path}: unknown ending; segfw reads {', '.join(FORMATS)} and folders of DICOM files")
    volume = _or_unreadable(path, lambda: _checked(read(path)))
    if FORMATS.get(ending) in (PICTURE, LOSSY):  # many come from a microscope: any size of their pixels is likely
        return replace(volume, is_picture=True)
    note = _unlikely_size(volume.geometry)
    return replace(volume, notes=(*volume.notes, note)) if note else volume


def _or_unreadable(path: Path, read: Callable[[], Read]) -> Read:
    """What ``read`` gives of a file; UnreadableFile, with a sentence, for all that goes wrong."""
    ending = split_ending(path)[1]
    try:
        return read()
    except Refusal as error:
        raise UnreadableFile(f"{path}: {error}") from None
    except ValidationError as error:
        raise UnreadableFile(f"{path}: bad geometry: {_geometry_reason(error)}") from None
    except MemoryError:
        raise UnreadableFile(f"{path}: does not fit into memory, or its header is damaged; check its size") from None
    except (OSError, EOFError, ValueError, RuntimeError) as error:
        # Of several files, such as a header and its voxels, the one that the system names
        named = getattr(error, "filename", None)
        file = Path(named) if isinstance(named, str) else path
        damaged = f"{path}: cannot be read ({_reason(error)}); copy or export the file again"
        raise UnreadableFile(str(unreadable(file, error, damaged))) from None
    except Exception as error:  # nibabel, zlib and Pillow have their own; importing them here would load them for all
        raise UnreadableFile(f"{path}: cannot be read ({_reason(error)}); is it really {ending or 'DICOM'}?") from None


def _unlikely_size(geometry: Geometry) -> str | None:
    """A note on voxels that are a thousand times too small or too large for a scan, as of another unit than mm."""
    edge_mm = sorted(geometry.spacing_mm)[1]
    if SMALLEST_LIKELY_MM <= edge_mm <= LARGEST_LIKELY_MM:
        return None
    unit = "in m" if edge_mm < SMALLEST_LIKELY_MM else "in micrometres"
    sizes = " x ".join(f"{length:.3g}" for length in geometry.spacing_mm)
    return f"its voxels are {sizes} mm large, as if lengths were written {unit}; correct the header if that is not so"


def _checked(voxels: Voxels) -> Volume:
    array, affine, notes, is_placed, stated_mm, series = voxels
    if not array.size:
        raise Refusal(f"has no voxels, its shape is {array.shape}; export the file again")
    if array.dtype.kind not in "iufb":
        raise Refusal(f"has voxels of type {_in_words(array.dtype)} (complex or colour); store one number per voxel")
    geometry = Geometry.of(array.shape[1:], affine)
    shear = shear_degrees(affine)
    if shear > SHEAR_WORTH_A_NOTE:
        what = f"its axes miss right angles by {shear:.1f} degrees (gantry tilt or shear), which the network will see"
        notes = (*notes, f"{what}; resample it to right angles if other images have them")
    is_long = array.dtype.kind == "f" and array.dtype.itemsize > 4
    dtype = np.dtype(np.float32) if is_long else array.dtype.newbyteorder("=")
    array = array.astype(dtype, copy=False)
    return Volume(
        array=array,
        geometry=geometry,
        notes=tuple(notes),
        is_placed=is_placed,
        stated_mm=stated_mm,
        series=series,
    )


def _in_words(dtype: np.dtype) -> str:
    return "".join(dtype.names) if dtype.names else str(dtype)


def _geometry_reason(error: ValidationError) -> str:
    first = error.errors()[0]
    if first["type"] == "finite_number":
        return "its header places voxels by a number that is infinite or NaN; repair the file's header"
    return wrong_value("its geometry", first).removeprefix("its geometry: ")


def _reason(error: Exception) -> str:
    """The line of a library's message that says most: the last one that is not its guess at a cause."""
    guesses = ("Reason:", "- could the file be damaged?")
    lines = [line.strip() for line in str(error).splitlines()]
    lines = [line for line in lines if line and not line.startswith(guesses)]
    return re.sub(r"^(sitk::ERROR: |ITK ERROR: \w+\(\w+\): )", "", lines[-1]) if lines else type(error).__name__


def files_read(path: Path) -> tuple[Path, ...]:
    """All files that an image is read from: itself, its side file, the voxels that its header names; or a series."""
    ending = split_ending(path)[1]
    if path.is_dir():
        return tuple(sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith(".")))
    if FORMATS.get(ending) in (PICTURE, LOSSY):
        beside = side_file(path)
        return (path,) if beside is None else (path, beside)
    if not ending and is_dicom(path):
        header = read_header(path)
        if header is not None and header.kind == "image":
            return files_of_series(path)
    if path.is_file() and ending in (".mha", ".mhd", ".nrrd", SEG_NRRD):
        return (path, *data_files(path))
    return (path,)


def size_and_change(path: Path) -> tuple[int, int]:
    """Identity of an image's content: bytes of all files that it is read from, and a number that changes with each.

    Of a single file the number is its last change in nanoseconds. Of several it is drawn from the name, the bytes and
    the change of every one: an older file in the place of another is seen as well. A file that is missing counts as
    nothing; that is for the reader to complain of.
    """
    states = []
    for file in files_read(path):
        with suppress(OSError, ValueError):  # a name that no system has
            state = file.stat()
            states.append((file.name, state.st_size, state.st_mtime_ns))
    size = sum(state[1] for state in states)
    if len(states) == 1 and not path.is_dir():
        return size, states[0][2]
    if not states:
        return 0, 0
    digest = hashlib.sha256(repr(states).encode(errors="surrogateescape")).digest()
    return size, int.from_bytes(digest[:6], "big")  # which every reader of JSON takes exactly


def write_labels(
    path: Path,
    labels_zyx: np.ndarray,
    geometry: Geometry,
    like: Path | None = None,
    *,
    said: str = "",
    is_checked: bool = False,
    stored_as: np.dtype | None = None,
) -> None:
    """Writes an integer mask on ``geometry``'s grid, atomically, in the smallest type that holds its values.

    ``like`` is the image's file: a mask in its format gets all that its header says of its place, of which
    ``geometry`` is what segfw goes by. ``said`` is a text for the header, where the format has room for one.
    With ``is_checked`` the file is read again before it gets its name. ``stored_as`` is another type to write, where it
    holds all values and is of up to 32 bits, which all medical formats have.

    Raises UserError if the format of ``path``'s ending cannot hold these values on this grid, and if the file that was
    read again holds others, or puts them elsewhere.
    """
    path = Path(path)
    format = FORMATS.get(split_ending(path)[1])
    if format is None or format.write is None:
        reason = "has an unknown ending" if format is None else "is lossy and would blur labels"
        raise UserError(f"{path}: {reason}; masks are written as {', '.join(MASK_ENDINGS)}")
    labels = labels_zyx.astype(_smallest_type(labels_zyx))
    if stored_as is not None and stored_as.itemsize <= 4 and stored_as.kind in "iuf":
        as_wanted = labels_zyx.astype(stored_as)
        if (as_wanted == labels_zyx).all():
            labels = as_wanted
    text = {"said": said} if format.holds_text else {}
    with whole_file(path) as partial:
        try:
            if format.write_like and like is not None and _is_file_of(format, like):
                format.write_like(partial, labels, geometry.matrix, like, **text)
            else:
                format.write(partial, labels, geometry.matrix, **text)
        except Refusal as error:
            raise UserError(f"{path}: {error}") from None
        if is_checked:
            _check_written(partial, path, labels_zyx, geometry)


def _check_written(partial: Path, path: Path, labels_zyx: np.ndarray, geometry: Geometry) -> None:
    """UserError unless a file holds the mask, and, if it says a place, at the same place."""
    written = read_mask(partial)
    wrong = ""
    if written.array.shape != (1, *labels_zyx.shape) or (written.array[0] != labels_zyx).any():
        wrong = "other voxels"
    elif written.is_placed and not written.is_picture:
        distance_mm = corner_distance_mm(labels_zyx.shape, written.geometry.matrix, geometry.matrix)
        rounding_mm = ROUNDING * float(np.abs(geometry.matrix @ [*labels_zyx.shape, 1]).max())
        if distance_mm > MOST_OFF * min(geometry.spacing_mm) + rounding_mm:
            wrong = f"a corner {distance_mm:.3g} mm off"
    if wrong:
        raise UserError(f"{path}: would hold {wrong} than the mask, and was not written; write another format")


def _smallest_type(labels_zyx: np.ndarray) -> type[np.integer]:
    """The smallest of the types that every format of medical images has and that holds all values."""
    low = int(labels_zyx.min(initial=0))
    high = int(labels_zyx.max(initial=0))
    types: list[type[np.integer]] = [np.int16, np.int32]
    if low >= 0:
        types.insert(0, np.uint8)
    return next(one for one in types if np.iinfo(one).min <= low and high <= np.iinfo(one).max)


def write_map(path: Path, values_zyx: np.ndarray, geometry: Geometry, like: Path | None = None) -> None:
    """Writes float values as NIfTI in 8 bits with a scale factor, atomically; ``like`` is as in ``write_labels``."""
    with whole_file(path) as partial:
        if like is not None and _is_file_of(NIFTI, like):
            write_nifti_like(partial, values_zyx, geometry.matrix, like, stored_as=np.uint8)
        else:
            write_nifti(partial, values_zyx, geometry.matrix, stored_as=np.uint8)


def _is_file_of(format: Format, path: Path) -> bool:
    return path.is_file() and FORMATS.get(split_ending(path)[1]) is format
