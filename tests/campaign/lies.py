"""Files that claim to be larger than they are, or that unpack to far more than they should: each is to be refused.

Sizes in headers, lengths of compressed and of undefined parts, numbers of files, pages, frames and tags.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydicom import Dataset

from builders.dicom import (
    BIG,
    DEFLATED,
    END_OF_ITEM,
    END_OF_SEQUENCE,
    IMPLICIT,
    RLE,
    UNDEFINED,
    dicom,
    element,
    item,
)
from builders.dicom_masks import (
    Grid,
    contour,
    contours_of,
    write_segmentation,
    write_series,
    write_structures,
)
from builders.nnunet import trained_folder
from fuzz.targets import WRITTEN
from segfw.base.written_by_people import read_json
from segfw.dataset.patients import read_groups
from segfw.grid.store import open_case
from segfw.images.formats import read_mask, read_volume
from segfw.inference.probabilities import read_probabilities
from segfw.model.load import load_model
from segfw.verbs.import_nnunet import import_nnunet

HUGE = 1 << 29


class Lie(NamedTuple):
    """``make`` writes into a folder and gives what ``read`` is given."""

    make: Callable[[Path], Path]
    read: Callable[[Path], object]
    may_be_read: bool = False  # where the claim means nothing, or is true


def _file(name: str, content: bytes | Callable[[], bytes]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content() if callable(content) else content)
        return folder / name

    return make


def _image(name: str, content: bytes | Callable[[], bytes], **more: bool) -> Lie:
    return Lie(_file(name, content), lambda path: read_volume(path).array.shape, **more)


# ---- NIfTI ----


def nifti(
    sizes: tuple[int, ...] = (12, 10, 8), *, offset: float = 352.0, kind: int = 2, voxels: bytes = bytes(960)
) -> bytes:
    """A NIfTI-1 file of any claims; ``kind`` 2 is uint8, 64 float64."""
    head = bytearray(352)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, len(sizes), *(*sizes, *(1,) * (7 - len(sizes))))
    struct.pack_into("<2h", head, 70, kind, {2: 8, 64: 64}[kind])
    struct.pack_into("<8f", head, 76, *(1.0,) * 8)
    struct.pack_into("<f", head, 108, offset)
    head[344:348] = b"n+1\0"
    return bytes(head) + voxels


def _extended() -> bytes:
    head = bytearray(nifti(voxels=b""))
    head[348] = 1  # extensions follow
    return bytes(head) + struct.pack("<2i", 0x7FFFFFF0, 4) + bytes(1000)


def _packed(*, head: bytes = b"", tail: int = HUGE, wbits: int = 31) -> bytes:
    """Something, and many zeros behind it, compressed; by pieces, so that making it costs little."""
    encoder = zlib.compressobj(1, zlib.DEFLATED, wbits)
    parts = [encoder.compress(head)]
    piece = bytes(1 << 20)
    parts += [encoder.compress(piece) for _ in range(tail >> 20)]
    return b"".join([*parts, encoder.flush()])


NIFTI = {
    "nii 1200^3": _image("a.nii", nifti((1200, 1200, 1200))),
    "nii 32767^3 of float64": _image("a.nii", nifti((32767, 32767, 32767), kind=64)),
    "nii of seven large axes": _image("a.nii", nifti((2000,) * 7)),
    "nii voxels at 2^40": _image("a.nii", nifti(offset=float(1 << 40))),
    "nii voxels at infinity": _image("a.nii", nifti(offset=float("inf"))),
    "nii extension of 2 GB": _image("a.nii", _extended()),
    "nii.gz 1200^3": _image("a.nii.gz", gzip.compress(nifti((1200, 1200, 1200)))),
    "nii.gz 32767^3 of float64": _image("a.nii.gz", gzip.compress(nifti((32767,) * 3, kind=64))),
    "nii.gz voxels at 2^40": _image("a.nii.gz", gzip.compress(nifti(offset=float(1 << 40)))),
    "nii.gz extension of 2 GB": _image("a.nii.gz", gzip.compress(_extended())),
    "nii.gz that unpacks to 512 MB": _image("a.nii.gz", lambda: _packed(head=nifti())),
    "nii.gz that unpacks to 512 MB in an extension": _image("a.nii.gz", lambda: _packed(head=_extended())),
    "nii.gz of a million empty members": _image("a.nii.gz", lambda: gzip.compress(b"") * 1_000_000),
    "nii.gz of a million members of a byte": _image(
        "a.nii.gz", lambda: gzip.compress(nifti()[:400]) + gzip.compress(b"a") * 1_000_000
    ),
    "gzip under .nii": _image("a.nii", lambda: _packed(head=nifti())),
    "gzip in gzip": _image("a.nii.gz", lambda: gzip.compress(_packed(head=nifti()))),
}


# ---- MetaImage and NRRD ----


def meta(
    *, sizes: str = "12 10 8", data: bytes = bytes(960), file: str = "LOCAL", kind: str = "MET_UCHAR", more: str = ""
) -> bytes:
    head = f"ObjectType = Image\nNDims = {len(sizes.split())}\nBinaryData = True\n{more}DimSize = {sizes}\n"
    return f"{head}ElementType = {kind}\nElementDataFile = {file}\n".encode() + data


def nrrd(
    *, sizes: str = "12 10 8", data: bytes = bytes(960), encoding: str = "raw", kind: str = "uint8", more: str = ""
) -> bytes:
    head = f"NRRD0005\ntype: {kind}\ndimension: {len(sizes.split())}\nsizes: {sizes}\nencoding: {encoding}\n{more}"
    return f"{head}endian: little\n\n".encode() + data


PACKED = zlib.compress(bytes(960))
IS_PACKED = f"CompressedData = True\nCompressedDataSize = {len(PACKED)}\n"
LARGE = "1200 1200 1200"
TEXTS = {
    "mha 1200^3": _image("a.mha", meta(sizes=LARGE)),
    "mha 10^9 cubed": _image("a.mha", meta(sizes="1000000000 1000000000 1000000000")),
    "mha compressed 1200^3": _image("a.mha", meta(sizes=LARGE, data=PACKED, more=IS_PACKED)),
    "mha of 10^9 channels": _image("a.mha", meta(more="ElementNumberOfChannels = 1000000000\n")),
    "mha of 10^9 dimensions": _image("a.mha", meta().replace(b"NDims = 3", b"NDims = 1000000000")),
    "mha header of 10^12 bytes": _image("a.mha", meta(more="HeaderSize = 1000000000000\n")),
    "mha compressed size 10^12": _image(
        "a.mha", meta(data=PACKED, more="CompressedData = True\nCompressedDataSize = 1000000000000\n")
    ),
    "mha that unpacks to 512 MB": _image("a.mha", lambda: meta(data=_packed(wbits=15), more="CompressedData = True\n")),
    "mha with a header of 100 MB": _image("a.mha", lambda: b"ObjectType = Image\nComment = " + bytes(100 << 20)),
    "mha text 1200^3": _image("a.mha", meta(sizes=LARGE).replace(b"BinaryData = True", b"BinaryData = False")),
    "mhd of 10^9 files": _image("a.mhd", meta(file="s%09d.raw 1 1000000000 1", data=b"")),
    "mhd of 10^9 files without a step": _image("a.mhd", meta(file="s%09d.raw 1 1000000000 0", data=b"")),
    "mhd pattern of 10^9 digits": _image("a.mhd", meta(file="s%999999999d.raw 1 8 1", data=b"")),
    "mhd list of a million files": _image("a.mhd", lambda: meta(file="LIST", data=b"a.raw\n" * 1_000_000)),
    "mhd whose voxels are a device": _image("a.mhd", meta(file="/dev/zero", data=b"")),
    "mhd whose voxels are itself": _image("a.mhd", meta(file="a.mhd", data=b"")),
    "nrrd 1200^3": _image("a.nrrd", nrrd(sizes=LARGE)),
    "nrrd 10^9 cubed": _image("a.nrrd", nrrd(sizes="1000000000 1000000000 1000000000")),
    "nrrd gzip 1200^3": _image("a.nrrd", nrrd(sizes=LARGE, data=gzip.compress(bytes(960)), encoding="gzip")),
    "nrrd bzip2 1200^3": _image("a.nrrd", nrrd(sizes=LARGE, data=bz2.compress(bytes(960)), encoding="bzip2")),
    "nrrd text 1200^3": _image("a.nrrd", nrrd(sizes=LARGE, data=b"0 " * 960, encoding="text")),
    "nrrd hex 1200^3": _image("a.nrrd", nrrd(sizes=LARGE, data=b"00" * 960, encoding="hex")),
    "nrrd gzip that unpacks to 512 MB": _image("a.nrrd", lambda: nrrd(data=_packed(), encoding="gzip")),
    "nrrd bzip2 that unpacks to 512 MB": _image(
        "a.nrrd", lambda: nrrd(data=bz2.compress(bytes(1 << 26)) * 8, encoding="bzip2")
    ),
    "nrrd gzip of a million empty members": _image(
        "a.nrrd", lambda: nrrd(data=gzip.compress(b"") * 1_000_000, encoding="gzip")
    ),
    "nrrd bzip2 of a million empty members": _image(
        "a.nrrd", lambda: nrrd(data=bz2.compress(b"") * 1_000_000, encoding="bzip2")
    ),
    "nrrd line skip 10^12": _image("a.nrrd", nrrd(more="line skip: 1000000000000\n")),
    "nrrd byte skip 10^15": _image("a.nrrd", nrrd(more="byte skip: 1000000000000000\n")),
    "nrrd gzip byte skip 10^15": _image(
        "a.nrrd", lambda: nrrd(data=_packed(), encoding="gzip", more="byte skip: 1000000000000000\n")
    ),
    "nrrd of 10^9 files": _image("a.nrrd", nrrd(more="data file: s%09d.raw 1 1000000000 1\n", data=b"")),
    "nrrd pattern of 10^9 digits": _image("a.nrrd", nrrd(more="data file: s%999999999d.raw 1 8 1\n", data=b"")),
    "nrrd of 10^9 dimensions": _image("a.nrrd", nrrd().replace(b"dimension: 3", b"dimension: 1000000000")),
    "nrrd with a header of 100 MB": _image("a.nrrd", lambda: b"NRRD0005\n" + b"#" * (100 << 20)),
}


# ---- pictures ----


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(
    columns: int = 12, rows: int = 10, *, pixels: bytes | None = None, more: bytes = b"", interlaced: int = 0
) -> bytes:
    pixels = zlib.compress(bytes(13 * 10)) if pixels is None else pixels
    head = _chunk(b"IHDR", struct.pack(">2I5B", columns, rows, 8, 0, 0, 0, interlaced))
    return b"\x89PNG\r\n\x1a\n" + head + more + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def bmp(columns: int, rows: int, *, packing: int = 0) -> bytes:
    head = b"BM" + struct.pack("<IHHI", 54 + 960, 0, 0, 54)
    return head + struct.pack("<IiiHHIIiiII", 40, columns, rows, 1, 24, packing, 0, 0, 0, 0, 0) + bytes(960)


def _saved_by_pillow(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        from PIL import Image

        Image.fromarray(np.arange(120, dtype=np.uint8).reshape(10, 12)).save(folder / name)
        (folder / name).write_bytes(change((folder / name).read_bytes()))
        return folder / name

    return make


def _picture(name: str, change: Callable[[bytes], bytes]) -> Lie:
    return Lie(_saved_by_pillow(name, change), lambda path: read_volume(path).array.shape)


def _large_jpeg(content: bytes) -> bytes:
    at = content.index(b"\xff\xc0") + 5
    return content[:at] + b"\xff\xff\xff\xff" + content[at + 4 :]


def _large_gif(content: bytes) -> bytes:
    at = content.index(b",") + 5
    return content[:6] + b"\xff\xff\xff\xff" + content[10:at] + b"\xff\xff\xff\xff" + content[at + 4 :]


def tiff(tags: dict[int, tuple[int, int, int]], *, data: bytes = bytes(120), pages: int = 1) -> bytes:
    """A little-endian TIFF; tags by number: type, count, value; 12 x 10 pixels of a byte where they say no other."""
    usual = {256: (3, 1, 12), 257: (3, 1, 10), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1), 273: (4, 1, 8)}
    usual |= {277: (3, 1, 1), 278: (3, 1, 10), 279: (4, 1, len(data))}
    entries = sorted((usual | tags).items())
    length = 2 + 12 * len(entries) + 4
    parts = [b"II*\0", struct.pack("<I", 8 + len(data)), data]
    for page in range(pages):
        after = 8 + len(data) + (page + 1) * length if page + 1 < pages else 0
        listed = b"".join(struct.pack("<HHII", number, *entry) for number, entry in entries)
        parts.append(struct.pack("<H", len(entries)) + listed + struct.pack("<I", after))
    return b"".join(parts)


PICTURES = {
    "png 60 000 x 60 000": _image("a.png", png(60_000, 60_000)),
    "png 2^31 x 2^31": _image("a.png", png((1 << 31) - 1, (1 << 31) - 1)),
    "png interlaced 60 000 x 60 000": _image("a.png", png(60_000, 60_000, interlaced=1)),
    "png whose pixels unpack to 512 MB": _image("a.png", lambda: png(pixels=_packed(wbits=15))),
    "png with a text that unpacks to 512 MB": _image(
        "a.png", lambda: png(more=_chunk(b"zTXt", b"Comment\0\0" + _packed(wbits=15))), may_be_read=True
    ),
    "png with a profile that unpacks to 512 MB": _image(
        "a.png", lambda: png(more=_chunk(b"iCCP", b"x\0\0" + _packed(wbits=15))), may_be_read=True
    ),
    "png of many empty parts": _image("a.png", lambda: png(more=_chunk(b"tEXt", b"a\0b") * 200_000), may_be_read=True),
    "bmp 60 000 x 60 000": _image("a.bmp", bmp(60_000, 60_000)),
    "bmp of runs 60 000 x 60 000": _image("a.bmp", bmp(60_000, 60_000, packing=1)),
    "jpg 65 535 x 65 535": _picture("a.jpg", _large_jpeg),
    "gif 65 535 x 65 535": _picture("a.gif", _large_gif),
    "tif 65 535 x 65 535": _image("a.tif", tiff({256: (4, 1, 65535), 257: (4, 1, 65535)})),
    "tif 2^32 columns": _image("a.tif", tiff({256: (4, 1, 0xFFFFFFFF)})),
    "tif of 20 000 samples": _image("a.tif", tiff({277: (3, 1, 20_000)})),
    "tif strip of 4 GB": _image("a.tif", tiff({279: (4, 1, 0xFFFFFFFF)})),
    "tif of 4 billion strips": _image("a.tif", tiff({273: (4, 0xFFFFFFFF, 8), 279: (4, 0xFFFFFFFF, 8)})),
    "tif tiles of 2^31": _image(
        "a.tif", tiff({322: (4, 1, 1 << 31), 323: (4, 1, 1 << 31), 324: (4, 1, 8), 325: (4, 1, 120)}), may_be_read=True
    ),
    "tif description of 4 GB": _image("a.tif", tiff({270: (2, 0xFFFFFFFF, 8)}), may_be_read=True),
    "tif deflate 13 000 x 13 000 of 20 pages": _image(
        "a.tif",
        lambda: tiff(
            {256: (4, 1, 13000), 257: (4, 1, 13000), 278: (4, 1, 13000), 259: (3, 1, 8)},
            data=zlib.compress(bytes(999)),
            pages=20,
        ),
    ),
    "tif whose strip unpacks to 512 MB": _image("a.tif", lambda: tiff({259: (3, 1, 8)}, data=_packed(wbits=15))),
    "tif whose strip unpacks to 512 MB by LZMA": _image(
        "a.tif", lambda: tiff({259: (3, 1, 34925)}, data=lzma.compress(bytes(HUGE), preset=0))
    ),
    "tif of 300 000 pages": _image("a.tif", lambda: tiff({}, pages=300_000)),
    "tif of a million tags": _image("a.tif", lambda: tiff({})[:-4][: 8 + 120] + b"\xff\xff" + bytes(12 * 65535)),
    "BigTIFF of 2^60 tags": _image("a.tif", b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 1 << 60) + bytes(1000)),
    "side file of 200 000 brackets": Lie(
        lambda folder: (_file("a.png", png())(folder), _file("a.json", b"[" * 200_000)(folder))[0],
        lambda path: read_volume(path).array.shape,
    ),
}


# ---- DICOM ----


def _series(content: bytes | Callable[[], bytes], **more: bool) -> Lie:
    def make(folder: Path) -> Path:
        (folder / "series").mkdir()
        _file("a.dcm", content)(folder / "series")
        return folder / "series"

    return Lie(make, lambda path: read_volume(path).array.shape, **more)


LONG = element(0x08, 0x1030, b"UT", b"MR", length=0xFFFFFFF0)
LONG_IMPLICIT = element(0x08, 0x1030, b"LO", b"MR", length=0xFFFFFFF0, syntax=IMPLICIT)
UNKNOWN = element(0x08, 0x1030, b"LO", b"GDCM ITK").replace(b"LO", b"SI")  # the library reads a length of 1.3 GB
ENDLESS = element(0x08, 0x1140, b"SQ", b"", length=UNDEFINED)
ENDLESS_IMPLICIT = element(0x08, 0x1140, b"SQ", b"", length=UNDEFINED, syntax=IMPLICIT)


def nested(depth: int, *, is_ended: bool = True, core: bytes = b"") -> bytes:
    """Sequences in sequences, without lengths."""
    begins = (ENDLESS + struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED)) * depth
    return begins + core + (END_OF_ITEM + END_OF_SEQUENCE) * (depth if is_ended else 0)


def _with_pixels_of_zeros() -> bytes:
    """Deflated, with 256 MB of zeros for pixels, where its rows and columns announce 8.6 GB."""
    return dicom(rows=65_535, columns=65_535, syntax=DEFLATED, pixels=bytes(1 << 28))


def _mask(make: Callable[[Path], Path], **more: bool) -> Lie:
    """A mask with names, beside its series."""

    def both(folder: Path) -> Path:
        write_series(folder / "ct", np.zeros(GRID.shape))
        return make(folder)

    return Lie(both, lambda path: read_mask(path).array.shape, **more)


GRID = Grid()
BOX = np.zeros(GRID.shape, bool)
BOX[1:3, 2:5, 3:8] = True


def _structures(*contours: Dataset) -> Callable[[Path], Path]:
    return lambda folder: write_structures(folder / "rs.dcm", {"a": contours or contours_of(BOX)})


def _segments(**elements: object) -> Callable[[Path], Path]:
    return lambda folder: write_segmentation(folder / "seg.dcm", {"a": BOX}, **elements)


def _far_apart(folder: Path) -> Path:
    far = Grid(step=(0.0, 0.0, 1e9))
    path = write_segmentation(folder / "seg.dcm", {"a": BOX}, far)
    content = path.read_bytes().replace(b"1000000000", b"0.00000001")  # the distance of slices that it says
    path.write_bytes(content)
    return path


def _of_many_items(folder: Path) -> Path:
    path = write_structures(folder / "rs.dcm", {"a": contours_of(BOX)})
    path.write_bytes(
        path.read_bytes() + struct.pack("<HHI", 0x3006, 0x0080, UNDEFINED) + item(b"", length=0) * 1_000_000
    )
    return path


def _zigzag(points: int) -> Dataset:
    corners = np.stack([np.arange(points) % 2 * 11.0, np.arange(points) * 9.0 / points], -1)
    return contour(GRID.points(2, corners))


FAR = [(1e30, 1e30), (1e30, 0), (0, 0)]
MASKS = {
    "SEG of 10^9 frames": _mask(_segments(NumberOfFrames=10**9)),
    "SEG 65 535 x 65 535": _mask(_segments(Rows=65_535, Columns=65_535)),
    "SEG of frames that lie far apart": _mask(_far_apart),
    "SEG of 16 bits": _mask(_segments(BitsAllocated=16)),
    "RTSTRUCT of a million items": _mask(_of_many_items),
    "RTSTRUCT far away": _mask(
        _structures(contour(GRID.points(2, [(1e30, 1e30), (1e30, 0), (0, 0)]))), may_be_read=True
    ),
    "RTSTRUCT of 100 000 corners": _mask(_structures(_zigzag(100_000)), may_be_read=True),
    "RTSTRUCT of 5 500 contours on a slice": _mask(
        _structures(*(contour(GRID.points(2, [(0, 0), (0, 5), (5 + n * 1e-3, 5)])) for n in range(5_500)))
    ),
}

DICOM = {
    "DICOM 65 535 x 65 535": _series(dicom(rows=65_535, columns=65_535)),
    "DICOM of 10^9 frames": _series(dicom(frames=10**9)),
    "DICOM of 65 535 samples": _series(dicom(samples=65_535)),
    "DICOM pixels of 4 GB": _series(dicom(pixel_length=0xFFFFFFF0)),
    "DICOM pixels without a length or an end": _series(dicom(pixel_length=UNDEFINED)),
    "DICOM RLE 65 535 x 65 535": _series(
        dicom(
            rows=65_535,
            columns=65_535,
            syntax=RLE,
            pixel_length=UNDEFINED,
            pixels=item(b"", length=0) + item(bytes(64), length=64) + END_OF_SEQUENCE,
        )
    ),
    "DICOM fragment of 4 GB": _series(
        dicom(
            syntax=RLE,
            pixel_length=UNDEFINED,
            pixels=item(b"", length=0) + item(bytes(64), length=0xFFFFFFF0) + END_OF_SEQUENCE,
        )
    ),
    "DICOM element of 4 GB": _series(dicom(more=LONG)),
    "DICOM element of a type that nobody knows": _series(dicom(more=UNKNOWN)),
    "DICOM element of a type that nobody knows, before the data set": _series(
        dicom().replace(b"\2\0\3\0UI", b"\2\0\3\0SI")
    ),
    "DICOM element of 4 GB, implicit": _series(dicom(more=LONG_IMPLICIT, syntax=IMPLICIT)),
    "DICOM element of 4 GB, big-endian": _series(
        dicom(more=element(0x08, 0x1030, b"UT", b"MR", length=0xFFFFFFF0, syntax=BIG), syntax=BIG)
    ),
    "DICOM element of 4 GB, deflated": _series(dicom(more=LONG, syntax=DEFLATED)),
    "DICOM element of 4 GB in a sequence": _series(
        dicom(more=element(0x08, 0x1140, b"SQ", item(LONG, length=len(LONG))))
    ),
    "DICOM element of 4 GB in a sequence, implicit": _series(
        dicom(
            more=element(0x08, 0x1140, b"SQ", item(LONG_IMPLICIT, length=len(LONG_IMPLICIT)), syntax=IMPLICIT),
            syntax=IMPLICIT,
        )
    ),
    "DICOM element of 4 GB in a sequence without a length": _series(dicom(more=ENDLESS + item(LONG) + END_OF_SEQUENCE)),
    "DICOM element of 4 GB behind a sequence without a length": _series(
        dicom(more=ENDLESS + item(element(0x08, 0x1155, b"UI", b"1.2")) + END_OF_SEQUENCE + LONG)
    ),
    "DICOM element of 4 GB behind one, implicit": _series(
        dicom(
            more=ENDLESS_IMPLICIT
            + item(element(0x08, 0x1155, b"UI", b"1.2", syntax=IMPLICIT))
            + END_OF_SEQUENCE
            + LONG_IMPLICIT,
            syntax=IMPLICIT,
        )
    ),
    "DICOM item of 4 GB": _series(dicom(more=ENDLESS + item(bytes(20), length=0xFFFFFFF0) + END_OF_SEQUENCE)),
    "DICOM sequence of 4 GB": _series(dicom(more=element(0x08, 0x1140, b"SQ", item(b""), length=0xFFFFFFF0))),
    "DICOM sequence without an end": _series(dicom(more=ENDLESS + item(b""))),
    "DICOM sequences 30 deep": _series(dicom(more=nested(30)), may_be_read=True),
    "DICOM sequences 10 000 deep": _series(lambda: dicom(more=nested(10_000))),
    "DICOM sequences a million deep": _series(lambda: dicom(more=nested(1_000_000))),
    "DICOM sequences a million deep, without an end": _series(lambda: dicom(more=nested(1_000_000, is_ended=False))),
    "DICOM sequence of a million items": _series(
        lambda: dicom(more=ENDLESS + item(b"", length=0) * 1_000_000 + END_OF_SEQUENCE), may_be_read=True
    ),
    "DICOM deflated 65 535 x 65 535": _series(_with_pixels_of_zeros),
    "DICOM deflated that unpacks to 512 MB": _series(
        lambda: dicom(syntax=DEFLATED, more=element(0x08, 0x1030, b"UT", bytes(HUGE)))
    ),
}


# ---- models, arrays, text ----


def _model_with(weights: Callable[[bytes], bytes]) -> Lie:
    def make(folder: Path) -> Path:
        shutil.copytree(WRITTEN / "imported", folder / "imported")
        file = next((folder / "imported").rglob("weights.safetensors"))
        file.write_bytes(weights(file.read_bytes()))
        return folder / "imported"

    return Lie(make, lambda path: sorted(load_model(path).weights))


def _header(change: Callable[[dict], object]) -> Callable[[bytes], bytes]:
    def changed(content: bytes) -> bytes:
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        change(header)
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + content[8 + length :]

    return changed


def _claim_shape(header: dict) -> None:
    name = next(each for each in header if each != "__metadata__")
    header[name]["shape"] = [1 << 40]


def _claim_offsets(header: dict) -> None:
    name = next(each for each in header if each != "__metadata__")
    header[name]["data_offsets"] = [0, 1 << 42]


def _blosc2(member: str, change: Callable[[bytearray], object], read: Callable[[Path], object], **more: bool) -> Lie:
    def make(folder: Path) -> Path:
        top = WRITTEN / member.partition("/")[0]
        shutil.copytree(top, folder / top.name)
        content = bytearray((folder / member).read_bytes())
        content = content[: int.from_bytes(content[16:24], "big")]  # without its seal, as older versions wrote them
        change(content)
        (folder / member).write_bytes(content)
        return folder / member

    return Lie(make, read, **more)


def _set(at: int, content: bytes) -> Callable[[bytearray], None]:
    def change(frame: bytearray) -> None:
        frame[at : at + len(content)] = content

    return change


def _zip_of(members: dict[str, bytes], **options: int) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        with zipfile.ZipFile(folder / "model.zip", "w", **options) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return folder / "model.zip"

    return make


def _theirs(change: Callable[[Path], object]) -> Lie:
    def make(folder: Path) -> Path:
        model = trained_folder(folder / "theirs")
        change(next(model.rglob("checkpoint_final.pth")))
        return model

    return Lie(make, lambda path: import_nnunet(path, path.parents[1] / "model"))


def _huge_storage(path: Path) -> None:
    """The pickle of a checkpoint says that a storage has 10^12 numbers."""
    import torch

    content = torch.load(path, weights_only=False)
    first = next(iter(content["network_weights"]))
    content["network_weights"][first] = torch.zeros(1).expand(1 << 20, 1 << 20)
    torch.save(content, path)


def _bomb(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    largest = max(members, key=lambda name: len(members[name]))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, bytes(HUGE) if name == largest else content)


PROBABILITIES = "predicted/probabilities/new_20.b2nd"
ARRAY = "work/preprocessed/2d/case_01.image.b2nd"


def _read_array(path: Path) -> object:
    return np.asarray(open_case(path.parent, "case_01", in_memory=True).image[:]).shape


OTHERS = {
    "weights with a header of 2^63 bytes": _model_with(lambda content: struct.pack("<Q", (1 << 63) - 1) + content[8:]),
    "weights with a header of 2 GB": _model_with(lambda content: struct.pack("<Q", 1 << 31) + content[8:]),
    "weights with a header of 90 MB": _model_with(
        lambda content: struct.pack("<Q", 90 << 20) + b'{"a":"' + b" " * ((90 << 20) - 8) + b'"}'
    ),
    "weights of 2^40 numbers": _model_with(_header(_claim_shape)),
    "weights that lie at 2^42": _model_with(_header(_claim_offsets)),
    "weights with 200 000 brackets": _model_with(
        lambda content: struct.pack("<Q", 200_000) + b"[" * 200_000 + content[:100]
    ),
    "model file that unpacks to 512 MB": Lie(
        _zip_of({"model.json": b"{}", "plan.json": bytes(HUGE)}, compression=zipfile.ZIP_DEFLATED),
        lambda path: sorted(load_model(path).weights),
    ),
    "model file whose card unpacks to 512 MB": Lie(
        _zip_of({"model.json": bytes(HUGE)}, compression=zipfile.ZIP_DEFLATED),
        lambda path: sorted(load_model(path).weights),
    ),
    "model file of 100 000 members": Lie(
        _zip_of({f"m{number}": b"" for number in range(100_000)}), lambda path: sorted(load_model(path).weights)
    ),
    "nnU-Net's checkpoint of 2^40 numbers": _theirs(_huge_storage),
    "nnU-Net's checkpoint that unpacks to 512 MB": _theirs(_bomb),
    "probabilities of 2^62 bytes": _blosc2(
        PROBABILITIES, _set(30, struct.pack(">q", 1 << 62)), lambda path: read_probabilities(path).shape
    ),
    "probabilities in chunks of 2 GB": _blosc2(
        PROBABILITIES,
        _set(58, struct.pack(">i", 0x7FFFFFF0)),
        lambda path: read_probabilities(path).shape,
        may_be_read=True,
    ),
    "probabilities with a header of 2 GB": _blosc2(
        PROBABILITIES, _set(12, struct.pack(">i", 0x7FFFFFF0)), lambda path: read_probabilities(path).shape
    ),
    "preprocessed image of 2^62 bytes": _blosc2(ARRAY, _set(30, struct.pack(">q", 1 << 62)), _read_array),
    "preprocessed image in chunks of 2 GB": _blosc2(
        ARRAY, _set(58, struct.pack(">i", 0x7FFFFFF0)), _read_array, may_be_read=True
    ),
    "JSON of 200 000 brackets": Lie(_file("a.json", b"[" * 200_000), read_json),
    "JSON with a number of a million digits": Lie(_file("a.json", b'{"a": ' + b"9" * 1_000_000 + b"}"), read_json),
    "groups with a cell of 100 MB": Lie(
        _file("groups.csv", lambda: b"case;patient\na;" + b"x" * (100 << 20)), lambda path: read_groups(path, ["a"])
    ),
}
LIES = NIFTI | TEXTS | PICTURES | DICOM | MASKS | OTHERS
