"""Volumes as a browser gets them: gzipped NIfTI-1, made part by part, so that no second copy of a volume is needed."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np

from segfw.base.errors import UserError
from segfw.images.geometry import Geometry
from segfw.images.volume import Volume
from segfw.review_page.served_grid import is_seen_as_served, straightened

PART_BYTES = 1 << 20
LEVEL = 1  # the computer is the same: time counts more than size
GZIP = 16 + zlib.MAX_WBITS
LONGEST_AXIS = 32767  # of NIfTI-1
COLOURS = np.dtype([("R", np.uint8), ("G", np.uint8), ("B", np.uint8)])
TAKEN_AS_THEY_ARE = ("uint8", "int16", "uint16", "float32")


def nifti_parts(array_zyx: np.ndarray, geometry: Geometry) -> Iterator[bytes]:
    """A gzipped NIfTI-1 file of a volume (Z, Y, X), or of colours (Z, Y, X, 3) in bytes, part by part.

    Its axes are x, y and z; where the viewer would order them otherwise they are straightened.
    """
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, GZIP)
    yield packer.compress(_header(array_zyx, geometry))
    content = np.ascontiguousarray(array_zyx).reshape(-1).view(np.uint8)
    for start in range(0, len(content), PART_BYTES):
        part = packer.compress(content[start : start + PART_BYTES].tobytes())
        if part:
            yield part
    yield packer.flush()


def gzip_parts(array: np.ndarray) -> Iterator[bytes]:
    """The bytes of an array, gzipped."""
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, GZIP)
    yield packer.compress(np.ascontiguousarray(array).tobytes())
    yield packer.flush()


def shown_affine(geometry: Geometry) -> np.ndarray:
    """The affine of x, y and z that the file says."""
    affine = geometry.matrix[:, [2, 1, 0, 3]]
    return affine if is_seen_as_served(affine) else straightened(affine, geometry.shape[::-1])


def _header(array_zyx: np.ndarray, geometry: Geometry) -> bytes:
    import nibabel

    shape_xyz = geometry.shape[::-1]
    if max(shape_xyz) > LONGEST_AXIS:
        raise UserError(f"the image has {max(shape_xyz)} voxels along an axis, more than the page can show (32767)")
    affine = shown_affine(geometry)
    header = nibabel.Nifti1Header(endianness="<")
    header.set_data_dtype(COLOURS if array_zyx.ndim == 4 else array_zyx.dtype.newbyteorder("<"))
    header.set_data_shape(shape_xyz)
    header.set_zooms(np.linalg.norm(affine[:3, :3], axis=0))
    header.set_sform(affine, code=1)
    header.set_xyzt_units("mm")
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    return bytes(header.binaryblock) + bytes(4)


def shown_array(volume: Volume, channel: int = 0) -> np.ndarray:
    """What is shown of an image: colours as (Z, Y, X, 3) in bytes, else one channel (Z, Y, X).

    Numbers of other types than a viewer takes become int16 where they are whole and small enough, else float32.
    """
    if volume.is_coloured:
        return np.ascontiguousarray(np.moveaxis(_as_bytes(volume.array), 0, -1))
    return _as_shown(volume.array[channel])


def _as_bytes(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    most = float(np.nan_to_num(array).max())
    return (np.nan_to_num(array) * (255 / max(most, 1e-6))).clip(0, 255).astype(np.uint8)


def _as_shown(array_zyx: np.ndarray) -> np.ndarray:
    if array_zyx.dtype.kind == "b":
        return array_zyx.astype(np.uint8)
    if array_zyx.dtype.name not in TAKEN_AS_THEY_ARE:
        limits = np.iinfo(np.int16)
        is_small = array_zyx.dtype.kind in "iu" and array_zyx.min() >= limits.min and array_zyx.max() <= limits.max
        array_zyx = array_zyx.astype(np.int16 if is_small else np.float32)
    if array_zyx.dtype.kind == "f" and not np.isfinite(array_zyx).all():
        array_zyx = np.nan_to_num(
            array_zyx, posinf=float(np.finfo(np.float32).max), neginf=float(np.finfo(np.float32).min)
        )
    return array_zyx
