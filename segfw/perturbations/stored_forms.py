"""The same image in other files: axes, number types, byte orders and formats that hold exactly the same values.

The files are read again by segfw's own readers, as any file of a user's would be.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations, product
from pathlib import Path

import numpy as np

from segfw.grid.preprocess import stack_channels
from segfw.images.formats import read_volume
from segfw.images.geometry import shear_degrees
from segfw.images.itk import write_itk
from segfw.images.volume import Volume, is_axis_order, to_orientation

MOST_SHEAR = 1e-3  # degrees; NRRD and MetaImage of SimpleITK hold no more
NIFTI_HEADER_BYTES = 352
STEPS = 30_000  # that floats are rounded to, of the 32 767 that 16 bits with a sign have
MOST_STEPS = 32_000  # of a scaled file: some more, lest what was rounded gets coarser steps
LARGEST_SHORT = 32_767

ALL_AXIS_ORDERS = tuple(
    "".join(letters)
    for ends in product("LR", "PA", "IS")
    for letters in permutations(ends)
    if is_axis_order("".join(letters))
)


def in_steps(volume: Volume) -> Volume:
    """The image with values that a file of scaled integers holds exactly: integers as they are, floats rounded.

    Floats are rounded to steps of a power of two, of which there are at most STEPS between the smallest and the
    largest value of a channel.
    """
    if volume.array.dtype.kind in "iub":
        return volume
    rounded = np.empty(volume.array.shape, dtype=np.float32)
    for channel, voxels in enumerate(volume.array):
        step, first = _steps_of(voxels, STEPS)
        rounded[channel] = np.rint((voxels.astype(np.float64) - first) / step) * step + first
    return replace(volume, array=rounded)


def _steps_of(voxels: np.ndarray, most: int) -> tuple[float, float]:
    """The step between stored values of a channel, a power of two, and the value that is stored as 0."""
    low = float(voxels.min())
    width = float(voxels.max()) - low
    if width <= 0:
        return 1.0, low
    step = 2.0 ** math.ceil(math.log2(width / most))
    return step, math.floor(low / step) * step


def reread(volume: Volume, form: str, folder: Path) -> Volume:
    """The image written in one of FORMS into a folder, a file a channel, and read again.

    Whether the form can hold it, ``can_hold`` tells beforehand.
    """
    ending, write = FORMS[form]
    if volume.is_coloured:
        path = folder / f"image{ending}"
        write(path, volume)
        return read_volume(path)
    read = []
    for channel in range(len(volume.array)):
        path = folder / f"image_{channel:04}{ending}"
        write(path, replace(volume, array=volume.array[channel : channel + 1]))
        read.append(read_volume(path))
    return stack_channels(read)


def can_hold(volume: Volume, form: str) -> bool:
    """Whether a form can hold an image exactly: pictures have forms of their own, and not all hold sheared axes."""
    if volume.is_picture or not volume.is_placed:
        is_small = volume.array.dtype in (np.uint8, np.uint16) and volume.geometry.shape[0] == 1
        return form == "tif" and is_small and len(volume.array) in (1, 3)
    if form == "tif":
        return False
    if form in ("mha", "nrrd"):
        return shear_degrees(volume.geometry.matrix) < MOST_SHEAR and volume.array.dtype.kind != "b"
    return True


def in_axis_order(volume: Volume, order: str) -> Volume:
    """The same voxels in the same places, with the file's axes x, y and z pointing where the letters say."""
    return to_orientation(volume, order)


def _write_nifti(path: Path, volume: Volume, dtype: np.dtype, *, scale: tuple[float, float] = (1.0, 0.0)) -> None:
    """One channel as NIfTI-1 with an sform, its values stored as (value - offset) / slope in ``dtype``."""
    import gzip

    import nibabel

    slope, offset = scale
    stored = volume.array[0]
    if scale != (1.0, 0.0):
        stored = np.rint((stored.astype(np.float64) - offset) / slope)
    header = nibabel.Nifti1Header(endianness=">" if dtype.byteorder == ">" else "<")
    header.set_data_shape(volume.geometry.shape[::-1])
    header.set_data_dtype(dtype)
    header.set_sform(volume.geometry.matrix[:, [2, 1, 0, 3]], code=1)
    edges_mm = volume.stated_mm or volume.geometry.spacing_mm
    header.set_zooms(edges_mm[::-1])
    header.set_xyzt_units("mm")
    header["scl_slope"] = slope
    header["scl_inter"] = offset
    header["vox_offset"] = NIFTI_HEADER_BYTES
    header["magic"] = b"n+1"
    content = header.binaryblock.ljust(NIFTI_HEADER_BYTES, b"\0")
    content += np.ascontiguousarray(stored.astype(dtype)).tobytes()  # (z, y, x) in C order is (x, y, z) in Fortran's
    path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)


def _own_type(volume: Volume) -> np.dtype:
    """The type of the file, or the next one that every NIfTI reader knows."""
    dtype = volume.array.dtype
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    return np.dtype(np.float32) if dtype.kind == "f" and dtype.itemsize < 4 else dtype


def _plain(path: Path, volume: Volume) -> None:
    _write_nifti(path, volume, _own_type(volume))


def _float32(path: Path, volume: Volume) -> None:
    _write_nifti(path, volume, np.dtype(np.float32))


def _float64(path: Path, volume: Volume) -> None:
    _write_nifti(path, volume, np.dtype(np.float64))


def _big_endian(path: Path, volume: Volume) -> None:
    _write_nifti(path, volume, _own_type(volume).newbyteorder(">"))


def _scaled(path: Path, volume: Volume) -> None:
    """Half steps of integers, or the steps of ``in_steps``, counted from the smallest value."""
    voxels = volume.array[0]
    if voxels.dtype.kind in "iub":
        scale = (0.5, float(voxels.min()))
    else:
        scale = _steps_of(voxels, MOST_STEPS)
    slope, offset = scale
    largest = (float(voxels.max()) - offset) / slope
    dtype = np.dtype(np.int16) if largest <= LARGEST_SHORT else np.dtype(np.int32)
    _write_nifti(path, volume, dtype, scale=scale)


def _itk(path: Path, volume: Volume) -> None:
    dtype = _own_type(volume)
    write_itk(path, volume.array[0].astype(dtype, copy=False), volume.geometry.matrix)


def _tif(path: Path, volume: Volume) -> None:
    import tifffile

    if volume.is_coloured:
        tifffile.imwrite(path, np.moveaxis(volume.array[:, 0], 0, -1), photometric="rgb")
        return
    tifffile.imwrite(path, volume.array[0, 0], photometric="minisblack")


# Name -> the file's ending, and what writes one channel
FORMS: dict[str, tuple[str, Callable[[Path, Volume], None]]] = {
    "nii.gz": (".nii.gz", _plain),
    "float32": (".nii.gz", _float32),
    "float64": (".nii.gz", _float64),
    "scaled integers": (".nii.gz", _scaled),
    "big-endian": (".nii", _big_endian),
    "mha": (".mha", _itk),
    "nrrd": (".nrrd", _itk),
    "tif": (".tif", _tif),
}
