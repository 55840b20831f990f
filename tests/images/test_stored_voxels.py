"""One contract for all readers: what is returned was stored, whole, and within memory."""

import gzip
import struct
import subprocess
import sys
import zlib
from bz2 import compress as bzip2
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from tifffile import TiffFile, imwrite

from builders.data import write_slices
from segfw.base import resources
from segfw.images import stored_bytes
from segfw.images.formats import UnreadableFile, read_mask, read_volume
from segfw.images.text_header import data_files

SHAPE = (8, 10, 12)
LABELS = (np.indices(SHAPE).sum(0) // 4 % 3).astype(np.uint8)
IMAGE = np.random.default_rng(5).normal(100, 30, SHAPE).astype(np.int16)
META = """ObjectType = Image
NDims = 3
BinaryData = True
BinaryDataByteOrderMSB = {msb}
CompressedData = {compressed}
{more}TransformMatrix = 1 0 0 0 1 0 0 0 1
Offset = 0 0 0
ElementSpacing = 1 1.5 2
DimSize = {sizes}
ElementType = {kind}
ElementDataFile = {file}
"""
NRRD = """NRRD0004
type: {kind}
dimension: 3
space: left-posterior-superior
sizes: {sizes}
space directions: (1,0,0) (0,1.5,0) (0,0,2)
endian: {endian}
encoding: {encoding}
space origin: (0,0,0)
{more}
"""


def meta(path: Path, voxels: bytes, **changes: object) -> Path:
    fields = {"msb": False, "compressed": False, "more": "", "sizes": "12 10 8", "kind": "MET_UCHAR", "file": "LOCAL"}
    path.write_bytes(META.format(**{**fields, **changes}).encode() + voxels)
    return path


def nrrd(path: Path, voxels: bytes, **changes: object) -> Path:
    fields = {"kind": "uint8", "sizes": "12 10 8", "endian": "little", "encoding": "raw", "more": ""}
    path.write_bytes(NRRD.format(**{**fields, **changes}).encode() + voxels)
    return path


def write(path: Path, array: np.ndarray, kind: str) -> tuple[Path, Path]:
    """Writes an array in one way of one format; gives the file to read, and the one that holds the voxels."""
    words = {"uint8": ("MET_UCHAR", "uint8"), "int16": ("MET_SHORT", "int16")}[str(array.dtype)]
    packed = zlib.compress(array.tobytes())
    if kind in ("mha", "mha of gzip"):
        stored = packed if kind == "mha" else gzip.compress(array.tobytes())
        size = f"CompressedDataSize = {len(stored)}\n"
        return (meta(path / "a.mha", stored, compressed=True, more=size, kind=words[0]),) * 2
    if kind == "mhd":
        (path / "a b.zraw").write_bytes(packed)
        size = f"CompressedDataSize = {len(packed)}\n"
        header = meta(path / "a.mhd", b"", compressed=True, more=size, kind=words[0], file="a b.zraw")
        return header, path / "a b.zraw"
    if kind == "nrrd":
        return (nrrd(path / "a.nrrd", gzip.compress(array.tobytes()), encoding="gzip", kind=words[1]),) * 2
    if kind == "nrrd beside":
        (path / "a.raw.gz").write_bytes(gzip.compress(array.tobytes()))
        header = nrrd(path / "a.nrrd", b"", encoding="gzip", kind=words[1], more="data file: a.raw.gz")
        return header, path / "a.raw.gz"
    if kind == "nii.gz":
        nibabel.save(nibabel.Nifti1Image(array.T, np.eye(4)), path / "a.nii.gz")
        return (path / "a.nii.gz",) * 2
    if kind == "png":
        Image.fromarray(array[0] if array.dtype == np.uint8 else array[0].astype(np.uint16)).save(path / "a.png")
        return (path / "a.png",) * 2
    imwrite(path / "a.tif", array, compression="zlib", photometric="minisblack")
    return (path / "a.tif",) * 2


CHECKED = ("mha", "mha of gzip", "mhd", "nrrd", "nrrd beside", "nii.gz", "png", "tif")


@pytest.mark.parametrize("is_mask", [False, True])
@pytest.mark.parametrize("kind", CHECKED)
def test_no_flipped_bit_of_stored_voxels_is_read_as_an_image(tmp_path, kind, is_mask):
    """300 damages over all formats with a checksum: each is refused, or changed nothing that is returned."""
    array = LABELS if is_mask else IMAGE
    read = read_mask if is_mask else read_volume
    path, holder = write(tmp_path, array, kind)
    whole = read(path)
    expected = array[:1] if kind == "png" else array
    np.testing.assert_array_equal(whole.array[0], expected)
    content = holder.read_bytes()
    first = 0
    last = len(content)
    if kind in ("mha", "mha of gzip", "nrrd"):  # a header of text has no checksum
        end = b"LOCAL\n" if kind != "nrrd" else b"\n\n"
        first = content.index(end) + len(end)
    if kind == "tif":  # nor have tags
        with TiffFile(path) as file:
            first = file.pages[0].dataoffsets[0]
            last = first + file.pages[0].databytecounts[0]
    draw = np.random.default_rng(20)
    refused = 0
    for _ in range(19):  # of 16 files: 304
        damaged = bytearray(content)
        damaged[draw.integers(first, last)] ^= 1 << draw.integers(8)
        holder.write_bytes(damaged)
        try:
            volume = read(path)
        except UnreadableFile:
            refused += 1
            continue
        np.testing.assert_array_equal(volume.array, whole.array)
        assert volume.geometry == whole.geometry
    assert refused >= 15  # some bits, such as a time of gzip's, mean nothing


def refusal(path: Path) -> str:
    with pytest.raises(UnreadableFile) as caught:
        read_volume(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "; " in message
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


PACKED = zlib.compress(LABELS.tobytes())


@pytest.mark.parametrize("rows, stored", [(9, "more"), (11, "960"), (70, "960")])
def test_a_header_that_claims_other_sizes_than_are_stored(tmp_path, rows, stored):
    """8 x 10 x 12 voxels of one byte are 960 bytes."""
    sizes = f"12 {rows} 8"
    announced = f"announces {12 * rows * 8:,} bytes of voxels, but {stored} are stored"
    size = f"CompressedDataSize = {len(PACKED)}\n"
    assert announced in refusal(meta(tmp_path / "a.mha", PACKED, sizes=sizes, compressed=True, more=size))
    assert announced in refusal(meta(tmp_path / "b.mha", LABELS.tobytes(), sizes=sizes).rename(tmp_path / "c.mha"))
    assert announced in refusal(nrrd(tmp_path / "a.nrrd", LABELS.tobytes(), sizes=sizes))
    assert announced in refusal(
        nrrd(tmp_path / "b.nrrd", gzip.compress(LABELS.tobytes()), sizes=sizes, encoding="gzip")
    )
    assert announced in refusal(nrrd(tmp_path / "c.nrrd", bzip2(LABELS.tobytes()), sizes=sizes, encoding="bzip2"))
    (tmp_path / "v.raw").write_bytes(LABELS.tobytes())
    assert f"{announced} in v.raw" in refusal(meta(tmp_path / "d.mhd", b"", sizes=sizes, file="v.raw"))
    assert f"{announced} in v.raw" in refusal(nrrd(tmp_path / "d.nrrd", b"", sizes=sizes, more="data file: v.raw"))
    image = nibabel.Nifti1Image(LABELS.T, np.eye(4))
    content = bytearray(image.to_bytes())
    content[44:46] = struct.pack("<h", rows)
    (tmp_path / "a.nii").write_bytes(content)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(content))
    stored = "more" if stored == "more" else "1,312"
    for name in ("a.nii", "a.nii.gz"):
        what = f"announces {352 + 12 * rows * 8:,} bytes with the voxels, but {stored} are stored"
        assert what in refusal(tmp_path / name)


def test_a_compressed_size_that_lies(tmp_path):
    for lie in (len(PACKED) + 40, len(PACKED) - 7, 3):
        path = meta(tmp_path / "a.mha", PACKED, compressed=True, more=f"CompressedDataSize = {lie}\n")
        assert "compressed" in refusal(path)


def test_voxels_in_many_files(tmp_path):
    """Slices in files of their own, by a list and by a pattern; a number that does not fit, and one that is missing."""
    for number, labels in enumerate(LABELS, start=1):
        (tmp_path / f"s{number:03}.raw").write_bytes(labels.tobytes())
    names = "\n".join(f"s{number:03}.raw" for number in range(1, 9)) + "\n"
    whole = [
        meta(tmp_path / "a.mhd", names.encode(), file="LIST"),
        meta(tmp_path / "b.mhd", b"", file="s%03d.raw 1 8 1"),
        nrrd(tmp_path / "a.nrrd", names.encode(), more="data file: LIST").with_suffix(".nrrd"),
        nrrd(tmp_path / "b.nrrd", b"", more="data file: s%03d.raw 1 8 1"),
    ]
    text = (tmp_path / "a.nrrd").read_text().replace("LIST\n\n", "LIST\n")
    (tmp_path / "a.nrrd").write_text(text)
    for path in whole:
        np.testing.assert_array_equal(read_volume(path).array[0], LABELS)
        assert [file.name for file in data_files(path)] == [f"s{number:03}.raw" for number in range(1, 9)]
    assert "7 files of voxels, where its sizes need 8" in refusal(meta(tmp_path / "c.mhd", b"", file="s%03d.raw 1 7 1"))
    (tmp_path / "s004.raw").write_bytes(bytes(119))
    for path in whole:
        assert "announces 120 bytes of voxels, but 119 are stored in s004.raw" in refusal(path)
    (tmp_path / "s004.raw").unlink()
    for path in whole:
        assert f"lie in {tmp_path / 's004.raw'}, which is missing" in refusal(path)


def test_what_is_stored_otherwise_is_read_as_before(tmp_path):
    """Big-endian, several values a voxel, a size of the header, the last bytes of a file, text and hex."""
    big = IMAGE.astype(">i2").tobytes()
    whole = [
        meta(tmp_path / "a.mha", big, msb=True, kind="MET_SHORT"),
        nrrd(tmp_path / "a.nrrd", big, endian="big", kind="int16"),
        nrrd(tmp_path / "b.nrrd", gzip.compress(big), endian="big", kind="int16", encoding="gzip"),
        nrrd(tmp_path / "c.nrrd", " ".join(map(str, IMAGE.ravel())).encode(), kind="int16", encoding="text"),
    ]
    (tmp_path / "v.raw").write_bytes(bytes(100) + IMAGE.tobytes())
    whole.append(meta(tmp_path / "b.mhd", b"", kind="MET_SHORT", more="HeaderSize = 100\n", file="v.raw"))
    whole.append(meta(tmp_path / "c.mhd", b"", kind="MET_SHORT", more="HeaderSize = -1\n", file="v.raw"))
    whole.append(nrrd(tmp_path / "d.nrrd", b"", kind="int16", more="byte skip: 100\ndata file: v.raw"))
    whole.append(nrrd(tmp_path / "e.nrrd", b"", kind="int16", more=f"byte skip: -1\ndata file: {tmp_path / 'v.raw'}"))
    for path in whole:
        np.testing.assert_array_equal(read_volume(path).array[0], IMAGE, err_msg=path.name)
    two = np.stack([IMAGE, IMAGE + 1], -1)
    path = tmp_path / "two.mha"
    SimpleITK = pytest.importorskip("SimpleITK")
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(two, isVector=True), str(path), useCompression=True)
    np.testing.assert_array_equal(read_volume(path).array, np.moveaxis(two, -1, 0))


@pytest.mark.parametrize(
    "number", ["1e308", "-1e200", "nan", "inf", "1" + "0" * 400], ids=["1e308", "-1e200", "nan", "inf", "10^400"]
)
def test_impossible_places_are_refused_before_any_library_sees_them(tmp_path, number, monkeypatch):
    SimpleITK = pytest.importorskip("SimpleITK")
    monkeypatch.setattr(SimpleITK, "ReadImage", lambda path: pytest.fail("SimpleITK got the file"))
    for field in ("TransformMatrix = 1", "Offset = 0", "ElementSpacing = 1"):
        path = meta(tmp_path / "a.mha", LABELS.tobytes())
        text = path.read_bytes().replace(field.encode(), field[:-1].encode() + number.encode(), 1)
        path.write_bytes(text)
        assert f"{number[:40]}, which places voxels by no possible number" in refusal(path)
    for field in ("space directions: (1", "space origin: (0"):
        path = nrrd(tmp_path / "a.nrrd", LABELS.tobytes())
        path.write_bytes(path.read_bytes().replace(field.encode(), field[:-1].encode() + number.encode(), 1))
        assert "no possible number" in refusal(path)


@pytest.mark.parametrize("sizes", ["-12 10 8", "0 10 8", "12 10", "12 10 x", "1e3 10 8", "9" * 30 + " 1 1"])
def test_impossible_sizes_are_refused(tmp_path, sizes):
    assert "repair the file's header" in refusal(meta(tmp_path / "a.mha", LABELS.tobytes(), sizes=sizes))
    assert "repair the file's header" in refusal(nrrd(tmp_path / "a.nrrd", LABELS.tobytes(), sizes=sizes))


def series(folder: Path, array_zyx: np.ndarray) -> Path:
    places = np.arange(len(array_zyx))[:, None] * np.array([0, 0, 3.0])
    return write_slices(folder, array_zyx, positions=places, axes=np.eye(3)[:2])


def huge_dicom(folder: Path) -> Path:
    path = next(series(folder, IMAGE[:1]).iterdir())
    content = path.read_bytes()
    for tag in (b"\x28\0\x10\0\2\0\0\0", b"\x28\0\x11\0\2\0\0\0"):  # rows and columns
        at = content.index(tag) + len(tag)
        content = content[:at] + b"\xff\xff" + content[at + 2 :]
    path.write_bytes(content)
    return folder


def test_claims_beyond_what_a_file_holds_cost_no_memory(tmp_path):
    """In a process that may not take 300 MB more than it has when it begins to read."""
    zeros = zlib.compress(bytes(1000))
    nifti = nibabel.Nifti1Image(LABELS.T, np.eye(4))
    content = bytearray(nifti.to_bytes())
    content[42:48] = struct.pack("<3h", 1200, 1200, 1200)
    (tmp_path / "a.nii").write_bytes(content)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(content))
    (tmp_path / "bomb.nii.gz").write_bytes(gzip.compress(nifti.to_bytes() + bytes(1 << 29)))
    size = f"CompressedDataSize = {len(zeros)}\n"
    meta(tmp_path / "a.mha", zeros, sizes="1200 1200 1200", compressed=True, more=size)
    meta(tmp_path / "b.mha", bytes(1000), sizes="1200 1200 1200")
    nrrd(tmp_path / "a.nrrd", bytes(1000), sizes="1200 1200 1200")
    nrrd(tmp_path / "b.nrrd", gzip.compress(bytes(1000)), sizes="1200 1200 1200", encoding="gzip")
    bomb = gzip.compress(bytes(1 << 29))
    nrrd(tmp_path / "c.nrrd", bomb, encoding="gzip")
    Image.fromarray(LABELS[0]).save(tmp_path / "a.png")
    Image.fromarray(LABELS[0]).save(tmp_path / "a.bmp")
    for side in (13_000, 60_000):
        png = (tmp_path / "a.png").read_bytes()
        header = b"IHDR" + struct.pack(">2I", side, side) + png[24:29]
        (tmp_path / f"{side}.png").write_bytes(png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:])
        bmp = (tmp_path / "a.bmp").read_bytes()
        (tmp_path / f"{side}.bmp").write_bytes(bmp[:18] + struct.pack("<2i", side, side) + bmp[26:])
    (tmp_path / "a.png").unlink()
    (tmp_path / "a.bmp").unlink()
    huge_dicom(tmp_path / "series")
    script = (
        "import resource, sys; from pathlib import Path; import numpy, nibabel, SimpleITK, PIL.Image;"
        "from segfw.images.formats import UnreadableFile, read_volume\n"
        "used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 300_000_000,) * 2)\n"
        "for path in sorted(Path(sys.argv[1]).iterdir()):\n"
        "    try: print('READ', path.name, read_volume(path).array.shape)\n"
        "    except UnreadableFile as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=False, timeout=300
    )
    lines = done.stdout.splitlines()
    assert len(lines) == len(list(tmp_path.iterdir())) == 13, done.stderr
    for line in lines:
        assert "announces" in line or "more than" in line, line
        assert "does not fit" not in line, line  # found by looking, not by trying


def test_what_memory_does_not_take_is_said_before_it_is_taken(tmp_path, monkeypatch):
    path = meta(tmp_path / "a.mha", LABELS.tobytes())
    monkeypatch.setattr(stored_bytes, "free_memory_bytes", lambda: 959)
    assert "of memory that are free" in refusal(path)
    monkeypatch.setattr(stored_bytes, "free_memory_bytes", resources.free_memory_bytes)
    np.testing.assert_array_equal(read_volume(path).array[0], LABELS)


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95, 0.999])
@pytest.mark.parametrize("ending", [".png", ".bmp", ".gif", ".jpg"])
def test_pictures_that_are_cut_short_are_refused(tmp_path, ending, kept):
    noise = np.random.default_rng(0).integers(0, 255, (40, 50), dtype=np.uint8)
    path = tmp_path / f"a{ending}"
    Image.fromarray(noise).save(path)
    read_volume(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    refusal(path)


@pytest.mark.parametrize("cut", [1, 100, 239, 400, 900])
def test_a_dicom_slice_that_is_cut_short_is_named(tmp_path, cut):
    """Not passed over: the others would be taken for the whole series."""
    folder = series(tmp_path / "series", IMAGE[:3])
    path = sorted(folder.iterdir())[1]
    path.write_bytes(path.read_bytes()[:-cut])
    assert path.name in refusal(folder)


def test_a_dicom_slice_of_other_rows_than_it_holds_is_named(tmp_path):
    folder = series(tmp_path / "series", IMAGE[:1])
    path = next(folder.iterdir())
    content = path.read_bytes()
    path.write_bytes(content.replace(b"\x28\0\x10\0\2\0\0\0\x0a", b"\x28\0\x10\0\2\0\0\0\x09"))
    assert f"the header of {path.name} announces 216 bytes of pixels, but 240 are stored" in refusal(folder)


@pytest.mark.parametrize("edge_mm, unit", [(0.001, "in m"), (0.01, None), (1.0, None), (1000.0, "in micrometres")])
def test_voxels_a_thousand_times_too_small_or_large_get_a_note(tmp_path, edge_mm, unit):
    nibabel.save(nibabel.Nifti1Image(LABELS.T, np.diag([edge_mm, edge_mm, edge_mm, 1])), tmp_path / "a.nii.gz")
    notes = read_volume(tmp_path / "a.nii.gz").notes
    assert [f"as if lengths were written {unit};" in note for note in notes] == ([True] if unit else [])


def test_a_damaged_chain_of_tiff_pages_comes_to_an_end(tmp_path):
    """A page whose list of tags is not one, a circle, and a next page outside the file."""
    path, _ = write(tmp_path, LABELS, "tif")
    content = path.read_bytes()
    first = int.from_bytes(content[4:8], "little")
    tags = int.from_bytes(content[first : first + 2], "little")
    after = first + 2 + 12 * tags
    wrong = {
        "no list of tags": content[: first + 4] + b"%d 1" + content[first + 8 :],
        "form a circle": content[:after] + first.to_bytes(4, "little") + content[after + 4 :],
        "is not in the file": content[:after] + (10**6).to_bytes(4, "little") + content[after + 4 :],
    }
    for words, damaged in wrong.items():
        path.write_bytes(damaged)
        assert words in refusal(path)


def test_an_element_of_dicom_longer_than_its_file_never_reaches_the_library(tmp_path, monkeypatch):
    """Which would take 4 GB for it: the file is named as damaged."""
    folder = series(tmp_path / "series", IMAGE[:3])
    path = sorted(folder.iterdir())[1]
    content = path.read_bytes()
    tag = b"\x28\0\x10\0\2\0\0\0"  # rows
    path.write_bytes(content.replace(tag, tag[:4] + b"\xf0\xff\xff\xf0"))
    SimpleITK = pytest.importorskip("SimpleITK")
    read = SimpleITK.ImageFileReader.SetFileName
    seen = []
    monkeypatch.setattr(
        SimpleITK.ImageFileReader, "SetFileName", lambda self, name: seen.append(name) or read(self, name)
    )
    assert f"beside them {path.name}, which is damaged or cut short" in refusal(folder)
    assert len(seen) == 2
    assert str(path) not in seen
