"""TIFF: pages as slices, checked against the file before anything is allocated, and the spacing that tags give.

tifffile reads the structure, the tags of ImageJ and OME, and all kinds of pages whose compression it knows without
further libraries. Others (LZW, JPEG, fax) are decoded by SimpleITK, and by Pillow what SimpleITK would reduce to
colours of 8 bits; what they give must have the shape and the type that the tags say. Palettes and single bits are
Pillow's. tifffile is imported where it is used, because importing segfw must stay light.
"""

from __future__ import annotations

import logging
import lzma
import struct
import zlib
from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from segfw.images.geometry import Spacing
from segfw.images.pillow_pages import page_values
from segfw.images.stored_bytes import CHUNK_BYTES
from segfw.images.voxels import Refusal

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from tifffile import TiffFile, TiffPage

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # what it would complain of is checked here

# Cameras and paint programs put these resolutions into every file; they say nothing about the object.
PRINT_DPI = (72, 75, 90, 96, 100, 120, 150, 180, 200, 240, 300, 350, 360, 400, 600, 720, 1200, 2400)
UNIT_MM = {
    "nm": 1e-6,
    "um": 1e-3,
    "µm": 1e-3,  # the micro sign
    "μm": 1e-3,  # the Greek letter
    "\\u00b5m": 1e-3,  # as ImageJ writes it
    "micron": 1e-3,
    "microns": 1e-3,
    "mm": 1.0,
    "cm": 10.0,
    "inch": 25.4,
    "m": 1000.0,
}
TIFF_UNIT_MM = {2: 25.4, 3: 10.0}
INCH = 2

# Numbers of tags, and of what they hold, in the TIFF 6.0 specification.
X_RESOLUTION = 282
Y_RESOLUTION = 283
RESOLUTION_UNIT = 296
MIN_IS_BLACK = 1
RGB = 2
PALETTE = 3
COLOUR_SPACES = {5: "CMYK", 8: "LAB", 9: "LAB", 10: "LAB"}

TAG_TYPES = frozenset({*range(1, 14), 16, 17, 18})  # of TIFF 6.0, its supplement 1 and BigTIFF

# Codes of lossless compressions, and how many bytes one byte of them stands for at most.
UNCOMPRESSED = 1
MOST_BYTES_OF_ONE = {
    UNCOMPRESSED: 1,
    5: 1400,  # LZW: 12 bits for a string of at most 4096 - 258 bytes, growing by one
    8: 1032,  # deflate: two bits for 258 bytes
    32946: 1032,  # deflate, by its old code
    32773: 64,  # PackBits: two bytes for 128
    34925: 1 << 14,  # LZMA
    50000: 1 << 15,  # Zstandard: a block of 128 kB as one repeated byte, in four bytes
}
MOST_BYTES_OF_ONE_ELSEWHERE = 1 << 15  # fax and JPEG
UNPACKERS: dict[int, Callable[[], zlib._Decompress | lzma.LZMADecompressor]] = {
    8: zlib.decompressobj,
    32946: zlib.decompressobj,
    34925: lzma.LZMADecompressor,
}
SURPLUS_BYTES_OF_STRIP = 1 << 26  # that a strip may unpack to beyond its pixels before it is looked at
MOST_PAGES = 20_000  # beyond any stack; each takes tifffile some time
WHOLE_BYTES = (8, 16, 32, 64)  # bits of a sample


class Tiff(NamedTuple):
    """What a TIFF holds: its values (Z, Y, X, C), how many channels its pages run through, and its spacing."""

    array_zyxc: np.ndarray
    page_channels: int
    spacing_mm: Spacing | None


def is_tiff(path: Path) -> bool:
    """Whether a file begins as a TIFF does, whatever its ending says."""
    with path.open("rb") as file:
        return file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_tiff(path: Path, *, is_mask: bool) -> Tiff:
    """Reads a TIFF of one page for each slice (and channel).

    Raises Refusal for what is no plain stack, and ValueError or OSError for a file that is damaged or cut short.
    """
    from tifffile import TiffFile

    _check_chain(path)
    with TiffFile(path) as file:
        pages = [page.aspage() for page in file.pages]
        _check_all_pages_are_here(file)
        _check_kind(file, pages)
        _check_claims(pages, file.filehandle.size)
        _check_unpacked(pages, path)
        array = _values(path, pages, is_mask=is_mask)
        channels = int(_imagej(file).get("channels", 1))
        return Tiff(array_zyxc=array, page_channels=channels, spacing_mm=tiff_spacing(file))


def _check_chain(path: Path) -> None:
    """Follows the pages from one to the next: each must lie in the file, once, and be a list of tags.

    Of a damaged chain tifffile makes thousands of pages out of anything that follows.
    """
    size = path.stat().st_size
    seen: set[int] = set()
    with path.open("rb") as file:
        start = file.read(16)
        order = "<" if start[:2] == b"II" else ">"
        is_big = start[2:4] in (b"+\0", b"\0+")
        count_format, place_format, tag_bytes = ("Q", "Q", 20) if is_big else ("H", "I", 12)
        place = struct.unpack_from(order + place_format, start, 8 if is_big else 4)[0]
        while place:
            number = len(seen) + 1
            if place in seen:
                raise ValueError(f"its pages form a circle behind page {len(seen)}")
            seen.add(place)
            if number > MOST_PAGES:
                raise Refusal(f"has more than {MOST_PAGES:,} pages; save the stack as NIfTI")
            file.seek(place)
            counted = file.read(struct.calcsize(order + count_format))
            tags = struct.unpack(order + count_format, counted)[0] if place + len(counted) < size else 0
            if not 0 < tags * tag_bytes < size:
                raise ValueError(f"it is cut short or damaged: page {number} is not in the file")
            listed = file.read(tags * tag_bytes)
            following = file.read(struct.calcsize(order + place_format))
            types = {struct.unpack_from(f"{order}H", listed, at)[0] for at in range(2, len(listed) - 1, tag_bytes)}
            if not types <= TAG_TYPES or len(listed) < tags * tag_bytes:
                raise ValueError(f"it is cut short or damaged: page {number} is no list of tags")
            if len(following) < struct.calcsize(order + place_format):
                raise ValueError(f"it is cut short behind page {number}")
            place = struct.unpack(order + place_format, following)[0]


def _check_all_pages_are_here(file: TiffFile) -> None:
    """Each page says where the next one is, the last one nowhere: a stack cut at the border of a page says it still."""
    file.filehandle.seek(file.pages.next_page_offset or 0)
    place = file.filehandle.read(file.tiff.offsetsize)
    if int.from_bytes(place, "little" if file.byteorder == "<" else "big") != 0:
        raise ValueError(f"it is cut short behind page {len(file.pages)}, where another one should follow")


def _check_kind(file: TiffFile, pages: Sequence[TiffPage]) -> None:
    """Refuses what is no plain stack of slices."""
    from PIL import Image

    first = pages[0]
    if first.photometric in COLOUR_SPACES:
        raise Refusal(f"has colours in {COLOUR_SPACES[first.photometric]}; save it as RGB or grey")
    imagej = _imagej(file)
    if int(imagej.get("frames", 1)) > 1:
        raise Refusal(f"is a time series of {imagej['frames']} frames; save one of them as a stack")
    if int(imagej.get("images", len(pages))) != len(pages):
        what = f"announces {imagej['images']} pages but has {len(pages)} (ImageJ stores large stacks like that)"
        raise Refusal(f"{what}; save it as NIfTI or NRRD")
    if first.imagedepth > 1:
        raise Refusal("keeps several slices in one page; save it with a page for each slice, or as NIfTI")
    ome = _ome(file)
    channels = int(ome.get("SizeC", 1))
    times = int(ome.get("SizeT", 1))
    if times > 1 or channels not in (1, first.samplesperpixel):
        what = f"is an OME-TIFF of {channels} channels and {times} time points"
        raise Refusal(f"{what}; save each channel of one time point as a stack")
    if any(page.shape != first.shape for page in pages):
        raise Refusal("has pages of different sizes; save those of one size as a stack")
    if any((page.dtype, page.photometric) != (first.dtype, first.photometric) for page in pages):
        raise Refusal("has pages of different kinds; save those of one kind as a stack")
    most_pixels = 2 * (Image.MAX_IMAGE_PIXELS or 0)
    if first.imagewidth * first.imagelength > most_pixels > 0:
        raise Refusal(f"has more than {most_pixels:,} pixels; cut it into tiles")


def _check_claims(pages: Sequence[TiffPage], file_bytes: int) -> None:
    """Compares what the pages announce with what the file holds, before memory is taken for it."""
    most = 0
    claimed = 0
    for number, page in enumerate(pages, start=1):
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            if count < 1 or offset < 1 or offset + count > file_bytes:
                raise ValueError(f"it is cut short: values of page {number} are not in the file")
        if len(page.dataoffsets) != prod(page.chunked):
            raise ValueError(f"page {number} has {len(page.dataoffsets)} of {prod(page.chunked)} strips or tiles")
        row_bits = page.imagewidth * page.samplesperpixel * page.bitspersample
        page_bytes = page.imagelength * -(-row_bits // 8)
        if page.compression == UNCOMPRESSED and sum(page.databytecounts) < page_bytes:
            raise ValueError(f"page {number} keeps {sum(page.databytecounts):,} of {page_bytes:,} bytes of pixels")
        claimed += page_bytes
        most = max(most, MOST_BYTES_OF_ONE.get(page.compression, MOST_BYTES_OF_ONE_ELSEWHERE))
    if claimed > most * file_bytes:
        what = f"announces {claimed:,} bytes of pixels, which no file of {file_bytes:,} bytes holds"
        raise Refusal(f"{what}; export it again")


def _check_unpacked(pages: Sequence[TiffPage], path: Path) -> None:
    """Unpacks once, keeping nothing, what could become far larger than its pixels; tifffile would take all of it."""
    with path.open("rb") as file:
        for number, page in enumerate(pages, start=1):
            if page.compression not in UNPACKERS:
                continue
            pixels = -(-prod(page.chunks) * page.bitspersample // 8)
            for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
                if count * MOST_BYTES_OF_ONE[page.compression] <= pixels + SURPLUS_BYTES_OF_STRIP:
                    continue
                file.seek(offset)
                if not _unpacks_within(file.read(count), page.compression, pixels + SURPLUS_BYTES_OF_STRIP):
                    raise ValueError(f"a strip or tile of page {number} unpacks to far more than its {pixels:,} bytes")


def _unpacks_within(packed: bytes, compression: int, most: int) -> bool:
    """Whether a compressed block becomes at most so many bytes."""
    decoder = UNPACKERS[compression]()
    size = 0
    while True:
        try:
            unpacked = decoder.decompress(packed, CHUNK_BYTES)
        except (zlib.error, lzma.LZMAError):  # for the reader to complain of
            return True
        size += len(unpacked)
        if size > most or decoder.eof or not unpacked:
            return size <= most
        packed = b"" if isinstance(decoder, lzma.LZMADecompressor) else decoder.unconsumed_tail


def _values(path: Path, pages: Sequence[TiffPage], *, is_mask: bool) -> np.ndarray:
    """Values (Z, Y, X, C) as stored; colours of a palette looked up unless they are a mask's indices."""
    from PIL import Image

    first = pages[0]
    if first.photometric == PALETTE or first.bitspersample == 1:
        with Image.open(path) as picture:
            return _by_pillow(picture, pages, is_mask=is_mask)
    if all(_can_decode(page) for page in pages):
        return _by_tifffile(pages)
    array = _by_itk(path)
    if _is_as_announced(array, pages):
        return array
    with Image.open(path) as picture:
        if picture.mode in ("L", "I;16", "I", "F", "RGB", "RGBA", "LA"):
            array = _by_pillow(picture, pages, is_mask=is_mask)
    if not _is_as_announced(array, pages):
        raise Refusal("is a TIFF that cannot be read without loss; save it without tiles and compression, or as PNG")
    return array


def _can_decode(page: TiffPage) -> bool:
    """Whether tifffile gives the stored values of a page, and without any further library."""
    from tifffile import TIFF

    return (
        page.compression in MOST_BYTES_OF_ONE
        and page.compression in TIFF.DECOMPRESSORS
        and page.predictor in TIFF.UNPREDICTORS
        and page.photometric in (MIN_IS_BLACK, RGB)
        and page.bitspersample in WHOLE_BYTES
        and page.fillorder == 1
    )


def _by_tifffile(pages: Sequence[TiffPage]) -> np.ndarray:
    first = pages[0]
    size = (first.imagelength, first.imagewidth, first.samplesperpixel)
    dtype = np.dtype(first.dtype)
    array = np.empty((len(pages), *size), np.float32 if dtype == np.float16 else dtype)
    for page, values_yxc in zip(pages, array):
        samples, _, _, _, per_pixel = page.shaped  # samples in planes of their own, or beside each other
        values = page.asarray(maxworkers=1)  # cases are read in threads already
        if samples > 1 and per_pixel == 1:
            values = np.moveaxis(values, 0, -1)
        values_yxc[...] = values.reshape(size)
    return array


def _by_itk(path: Path) -> np.ndarray:
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)  # what it would warn of is checked here
    image = SimpleITK.ReadImage(str(path))
    array = SimpleITK.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() == 1:
        array = array[..., None]
    return array.reshape(-1, *array.shape[-3:])


def _by_pillow(picture: Picture, pages: Sequence[TiffPage], *, is_mask: bool) -> np.ndarray:
    decoded = []
    for number in range(len(pages)):
        picture.seek(number)
        decoded.append(page_values(picture, is_mask=is_mask))
    return np.stack(decoded)


def _is_as_announced(array_zyxc: np.ndarray, pages: Sequence[TiffPage]) -> bool:
    """Whether decoded values have the shape and the type that the tags give."""
    first = pages[0]
    shape = (len(pages), first.imagelength, first.imagewidth, first.samplesperpixel)
    return array_zyxc.shape == shape and array_zyxc.dtype == first.dtype


def _imagej(file: TiffFile) -> dict[str, str]:
    """What ImageJ says of a stack; empty for files of other programs."""
    if not file.is_imagej or not file.imagej_metadata:
        return {}
    return {field: str(value) for field, value in file.imagej_metadata.items()}


def _ome(file: TiffFile) -> dict[str, str]:
    """The attributes of the first image that an OME-TIFF describes; empty for other files."""
    from tifffile import xml2dict

    if not file.is_ome or not file.ome_metadata:
        return {}
    images = xml2dict(file.ome_metadata)["OME"]["Image"]
    first = images[0] if isinstance(images, list) else images
    return {attribute: str(value) for attribute, value in first["Pixels"].items()}


def tiff_spacing(file: TiffFile) -> Spacing | None:
    """Spacing (z, y, x) in mm, None where the file says none that can be trusted.

    OME: its own fields. ImageJ: pixels per unit, and 'spacing' between slices. Other files: pixels per inch or
    centimetre, unless that is one of the resolutions that printers have.
    """
    ome = _ome(file)
    if ome:
        return _ome_spacing(ome)
    imagej = _imagej(file)
    tags = file.pages.first.tags
    rows_per_unit = _ratio(tags.valueof(Y_RESOLUTION))
    columns_per_unit = _ratio(tags.valueof(X_RESOLUTION))
    if imagej:
        unit_mm = UNIT_MM.get(imagej.get("unit", "").strip().lower())
    else:
        unit_mm = TIFF_UNIT_MM.get(int(tags.valueof(RESOLUTION_UNIT, INCH)))
        if unit_mm is not None and _is_of_printers(25.4 * rows_per_unit / unit_mm):
            unit_mm = None
    if unit_mm is None or rows_per_unit <= 0 or columns_per_unit <= 0:
        return None
    slices_mm = abs(float(imagej.get("spacing", 0))) * unit_mm or 1.0
    return slices_mm, unit_mm / rows_per_unit, unit_mm / columns_per_unit


def _ratio(value: tuple[int, int] | None) -> float:
    """A fraction as tags hold it; 0 where it is none."""
    if value is None or value[1] == 0:
        return 0.0
    return value[0] / value[1]


def _is_of_printers(dpi: float) -> bool:
    return any(abs(dpi - usual) < 0.1 for usual in PRINT_DPI)


def _ome_spacing(ome: dict[str, str]) -> Spacing | None:
    """Spacing (z, y, x) of an OME-TIFF in mm, in micrometres unless it says otherwise; 1 mm for slices without any."""
    slices, rows, columns = (_ome_length(ome, axis) for axis in "ZYX")
    return (slices or 1.0, rows, columns) if rows > 0 and columns > 0 else None


def _ome_length(ome: dict[str, str], axis: str) -> float:
    """Millimetres of a voxel along an axis; 0 where the file does not say."""
    unit_mm = UNIT_MM.get(ome.get(f"PhysicalSize{axis}Unit", "um").lower())
    length = float(ome.get(f"PhysicalSize{axis}", 0))
    return length * unit_mm if unit_mm else 0.0


def write_tiff(path: Path, array_zyx: np.ndarray, spacing_mm: Spacing) -> None:
    """Writes a stack of slices as ImageJ describes them, one page each."""
    from tifffile import TiffWriter

    slices = len(array_zyx)
    fields = ("ImageJ=1.53t", f"images={slices}", f"slices={slices}", "unit=mm", f"spacing={spacing_mm[0]!r}", "")
    with TiffWriter(path) as file:
        file.write(
            array_zyx,
            photometric="minisblack",
            compression="zlib",
            description="\n".join(fields),
            resolution=(1 / spacing_mm[2], 1 / spacing_mm[1]),
            resolutionunit="none",
            metadata=None,  # tifffile's own description of the shape
            software=False,
            maxworkers=1,
        )
