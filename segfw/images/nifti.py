"""NIfTI-1 and NIfTI-2, plain or gzipped whatever the ending says."""

from __future__ import annotations

import gzip
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segfw.images.geometry import corner_distance_mm, shear_degrees
from segfw.images.stored_bytes import MOST_BYTES_OF_ONE_BY_DEFLATE, SURPLUS_BYTES, check_claim, decompress_gzip
from segfw.images.voxels import Refusal, Voxels, stated_spacing

if TYPE_CHECKING:
    import nibabel

GZIP_MARK = b"\x1f\x8b"
HEADER_SIZES = {348, 540}  # of NIfTI-1 and NIfTI-2, the first number of every file
UNIT_MM = {1: 1000.0, 3: 0.001}  # NIfTI's codes for metres and micrometres; all others count as millimetres
CODES = {1: "scanner", 2: "aligned", 3: "Talairach", 4: "MNI"}
# Fields of the header that say where voxels are.
PLACING = (
    *("pixdim", "xyzt_units", "qform_code", "sform_code"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z"),
)
DESCRIPTION_BYTES = 80
LONGEST_LINE = 1000  # one row of more voxels than this is no image: values on a surface come like that


def read_nifti(path: Path) -> Voxels:
    """Reads image or mask; channels are on the fourth axis, or on the fifth of NIfTI's vectors."""
    image = _open(path)
    array = np.asanyarray(image.dataobj)
    if array.ndim == 5 and array.shape[3] == 1:
        array = array[:, :, :, 0]
    if array.ndim not in (2, 3, 4):
        raise ValueError(f"has {array.ndim} dimensions {array.shape}, expected 2, 3 or 4 (the last one channels)")
    array = array.reshape(array.shape + (1,) * (4 - array.ndim))
    if sorted(array.shape[:3])[1] == 1 and max(array.shape[:3]) > LONGEST_LINE:
        size = " x ".join(map(str, array.shape[:3]))
        raise Refusal(f"holds {size} voxels, a list of values (on a surface?) and no image; give the volume itself")
    affine = _with_thickness(image.affine, array.shape[:3])
    notes = (*_conflict(image, array.shape[:3]), *_missing_spacing(path, image, array.shape[:3]))
    unit = unit_mm(image.header)
    affine[:3] *= unit
    stated = stated_spacing([unit * float(edge) for edge in image.header.get_zooms()[:3][::-1]])
    return Voxels(array.transpose(3, 2, 1, 0), affine[:, [2, 1, 0, 3]], notes, stated_mm=stated)


def unit_mm(header: nibabel.Nifti1Header) -> float:
    """Millimetres that a length of 1 in the header means."""
    return UNIT_MM.get(int(header["xyzt_units"]) & 7, 1.0)


def _open(path: Path) -> nibabel.Nifti1Image:
    """The image, of which all voxels that its header announces were proven to be stored."""
    import nibabel

    start = _start(path)
    file_bytes = path.stat().st_size
    is_gzipped = start.startswith(GZIP_MARK)
    if not is_gzipped and (path.suffix.lower() != ".gz" or _header_sizes(start) & HEADER_SIZES):
        announced = _announced_bytes(start)
        image = nibabel.load(path) if path.suffix.lower() != ".gz" else _of_content(path.read_bytes())
        if not isinstance(image, nibabel.Nifti1Image):  # of which NIfTI-2's is a kind
            raise ValueError(f"is no NIfTI volume but what nibabel calls {type(image).__name__}")
        _check_length(announced, file_bytes)
        return image
    # Decompressed here because nibabel stops before the checksum: a damaged file would give wrong voxels in silence.
    content = path.read_bytes()
    announced = _announced_bytes(decompress_gzip(content, max(HEADER_SIZES)))
    check_claim(announced, file_bytes, MOST_BYTES_OF_ONE_BY_DEFLATE)
    content = decompress_gzip(content, announced + SURPLUS_BYTES + 1)
    _check_length(announced, len(content))
    return _of_content(content)


def _of_content(content: bytes) -> nibabel.Nifti1Image:
    import nibabel

    kind = nibabel.Nifti2Image if 540 in _header_sizes(content) else nibabel.Nifti1Image
    return kind.from_bytes(content)


def _announced_bytes(start: bytes) -> int:
    """Bytes of the whole file, not compressed, as its header gives them; 0 where it is no header of NIfTI."""
    import nibabel

    if not _header_sizes(start) & HEADER_SIZES:
        return 0
    kind = nibabel.Nifti2Header if 540 in _header_sizes(start) else nibabel.Nifti1Header
    header = kind(start[: kind.template_dtype.itemsize], check=False)
    voxels = prod(int(size) for size in header.get_data_shape())
    return (
        max(int(header["vox_offset"]), len(start) and int(header["sizeof_hdr"]))
        + voxels * header.get_data_dtype().itemsize
    )


def _check_length(announced: int, stored: int) -> None:
    if announced and not announced <= stored <= announced + SURPLUS_BYTES:
        number = "more" if stored > announced else f"{stored:,}"
        raise ValueError(f"its header announces {announced:,} bytes with the voxels, but {number} are stored")


def _start(path: Path, is_gzipped: bool = False) -> bytes:
    with gzip.open(path) if is_gzipped else path.open("rb") as file:
        return file.read(max(HEADER_SIZES))


def _header_sizes(content: bytes) -> set[int]:
    """What the first number of a NIfTI file says, in both byte orders."""
    return {int.from_bytes(content[:4], order) for order in ("little", "big")}


def _with_thickness(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The affine with an edge of one unit for an axis of a single voxel that has none, as 2-D files often say."""
    affine = affine.copy()
    empty = [axis for axis in range(3) if not affine[:3, axis].any()]
    if len(empty) == 1 and shape[empty[0]] == 1:
        first = affine[:3, (empty[0] + 1) % 3]
        second = affine[:3, (empty[0] + 2) % 3]
        normal = np.cross(first, second)
        affine[:3, empty[0]] = normal / (np.linalg.norm(normal) or 1.0)
    return affine


def _conflict(image: nibabel.Nifti1Image, shape: tuple[int, ...]) -> tuple[str, ...]:
    """Compares the two places a NIfTI header gives, of which the sform counts where it is set.

    With different codes they are meant to differ (scanner and template, say): a note. With one and the same code one
    of them is wrong, and nobody but the user knows which: a refusal. A qform cannot hold a shear, so beside a sheared
    sform it says nothing.
    """
    header = image.header
    sform_code = int(header["sform_code"])
    qform_code = int(header["qform_code"])
    if sform_code <= 0 or qform_code <= 0:
        return ()
    sform = header.get_sform()
    qform = header.get_qform()
    if shear_degrees(sform) > 0.1 or not np.isfinite(qform).all():
        return ()
    distance = corner_distance_mm(shape, sform, qform)
    if distance <= 0.5 * np.linalg.norm(sform[:3, :3], axis=0).min():
        return ()
    first = _place("sform", sform_code, sform)
    second = _place("qform", qform_code, qform)
    what = f"its {first} and {second} put a corner {distance:.4g} mm apart"
    if sform_code != qform_code:
        return (f"{what}, and the sform is used; check that image and mask agree",)
    raise Refusal(f"{what}; write the right one over the other, for example with nibabel's set_sform or set_qform")


def _place(name: str, code: int, affine: np.ndarray) -> str:
    """'sform (scanner, origin -90, 12.5, 7)'."""
    origin = ", ".join(f"{value:.5g}" for value in affine[:3, 3])
    return f"{name} ({CODES.get(code, code)}, origin {origin})"


def _missing_spacing(path: Path, image: nibabel.Nifti1Image, shape: tuple[int, ...]) -> tuple[str, ...]:
    """Nibabel puts 1 where a header says 0, so the header is looked at once more."""
    if int(image.header["sform_code"]) > 0:
        return ()
    kind = type(image.header)
    start = _start(path, is_gzipped=_start(path).startswith(GZIP_MARK))
    raw = kind(start[: kind.template_dtype.itemsize], check=False)
    missing = [axis for axis in range(3) if shape[axis] > 1 and raw["pixdim"][axis + 1] == 0]
    if not missing:
        return ()
    axes = ", ".join("xyz"[axis] for axis in missing)
    return (f"says no spacing along {axes}, so 1 mm is taken; write the true spacing into its header",)


def write_nifti_like(
    path: Path,
    array_zyx: np.ndarray,
    affine: np.ndarray,
    like: Path,
    stored_as: type[np.integer] | None = None,
    said: str = "",
) -> None:
    """Writes one volume with the place that the header of the NIfTI file ``like`` gives, contradictions included.

    Programs that prefer the qform, or the pixdim, then find mask and image on one grid as well. Files of two dimensions
    stay such. With other shapes it is the affine that is written. ``stored_as`` is as in ``write_nifti``.
    """
    import nibabel

    start = _start(like, is_gzipped=_start(like).startswith(GZIP_MARK))
    kind = nibabel.Nifti2Header if 540 in _header_sizes(start) else nibabel.Nifti1Header
    theirs = kind(start[: kind.template_dtype.itemsize], check=False)
    array_xyz = array_zyx.transpose(2, 1, 0)
    shape = theirs.get_data_shape()[:3]
    if shape + (1,) * (3 - len(shape)) != array_xyz.shape:
        write_nifti(path, array_zyx, affine, stored_as, said)
        return
    image = nibabel.Nifti1Image(array_xyz.reshape(shape), None)
    if stored_as is not None:
        image.set_data_dtype(stored_as)
    for name in PLACING:
        image.header[name] = theirs[name]
    image.header["pixdim"][4:] = 1  # times of a series
    image.header["descrip"] = _description(said)
    nibabel.save(image, path)


def write_nifti(
    path: Path,
    array_zyx: np.ndarray,
    affine: np.ndarray,
    stored_as: type[np.integer] | None = None,
    said: str = "",
) -> None:
    """Writes one volume; the sform holds the affine exactly, the qform too unless the axes are sheared.

    Floats can be ``stored_as`` integers with a scale factor, as fine as their range allows. ``said`` is put into the
    header as a description, as far as it has room.
    """
    import nibabel

    image = nibabel.Nifti1Image(array_zyx.transpose(2, 1, 0), affine[:, [2, 1, 0, 3]])
    image.set_qform(image.affine, code=0 if shear_degrees(affine) > 0.1 else 1)
    image.set_sform(affine[:, [2, 1, 0, 3]], code=1)
    image.header.set_xyzt_units("mm")
    if stored_as is not None:
        image.set_data_dtype(stored_as)
    image.header["descrip"] = _description(said)
    nibabel.save(image, path)


def _description(text: str) -> bytes:
    """What fits into the header's description: 79 bytes and an end."""
    return text.encode("ascii", errors="replace")[: DESCRIPTION_BYTES - 1]
