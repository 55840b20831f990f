"""PNG, TIFF, BMP, GIF and JPEG as images and as masks; spacing only where a file truly says it."""

from __future__ import annotations

import json
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from builders.data import refusal_of
from segfw.base.records import UserError
from segfw.dataset.verify import volume_mismatch
from segfw.images.formats import MASK_ENDINGS, read_mask, read_volume, size_and_change, write_labels
from segfw.images.geometry import Geometry
from segfw.images.tiff import PRINT_DPI
from segfw.images.volume import from_canonical, to_canonical

GREY = np.arange(20, dtype=np.uint8).reshape(4, 5) * 12
COLOUR = np.random.default_rng(0).integers(0, 255, (4, 5, 3)).astype(np.uint8)
STACK = np.arange(60, dtype=np.uint16).reshape(3, 4, 5) * 300
PICTURES = [ending for ending in MASK_ENDINGS if ending in (".png", ".tif", ".tiff", ".bmp", ".gif")]


def place(spacing_zyx: tuple[float, ...] = (1, 1, 1)) -> np.ndarray:
    """The affine of a picture: rows run to the back and columns to the left."""
    affine = np.zeros((4, 4))
    affine[2, 0] = spacing_zyx[0]
    affine[1, 1] = -spacing_zyx[1]
    affine[0, 2] = -spacing_zyx[2]
    affine[3, 3] = 1
    return affine


def save_tiff(path: Path, pages: np.ndarray, tags: dict[int, object]) -> Path:
    directory = ImageFileDirectory_v2()
    for tag, value in tags.items():
        directory[tag] = value
    first, *others = [Image.fromarray(page) for page in pages]
    first.save(path, save_all=True, append_images=others, tiffinfo=directory)
    return path


@pytest.mark.parametrize("ending", [".png", ".tif", ".tiff", ".bmp", ".gif", ".jpg", ".jpeg", ".PNG"])
def test_a_grey_picture_is_one_slice_without_a_place(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    Image.fromarray(GREY).save(path, quality=100)
    volume = read_volume(path)
    assert volume.array.dtype == np.uint8
    assert volume.array.shape == (1, 1, 4, 5)
    np.testing.assert_allclose(volume.array[0, 0], GREY, atol=3 if "j" in ending else 0)
    np.testing.assert_array_equal(volume.geometry.matrix, place())
    assert not volume.is_placed
    assert volume.notes[0].startswith("says no size of its pixels, so lengths and areas are in pixels; ")


@pytest.mark.parametrize("ending", [".png", ".tif", ".bmp"])
def test_colours_are_channels(tmp_path, ending):
    Image.fromarray(COLOUR).save(tmp_path / f"a{ending}")
    np.testing.assert_array_equal(read_volume(tmp_path / f"a{ending}").array, COLOUR.transpose(2, 0, 1)[:, None])


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_transparency_is_dropped_where_it_says_nothing(tmp_path, ending):
    for name, mode, expected in (("grey", "LA", GREY[None]), ("colour", "RGBA", COLOUR.transpose(2, 0, 1))):
        picture = Image.fromarray(GREY if name == "grey" else COLOUR).convert(mode)
        picture.save(tmp_path / f"{name}{ending}")
        np.testing.assert_array_equal(read_volume(tmp_path / f"{name}{ending}").array[:, 0], expected)
        picture.putpixel((0, 0), (1,) * len(mode))
        picture.save(tmp_path / f"{name}{ending}")
        assert "transparency (alpha) channel that varies; save it without" in refusal_of(tmp_path / f"{name}{ending}")


def test_16_bit_colours_and_floats_keep_their_values(tmp_path):
    SimpleITK = pytest.importorskip("SimpleITK")
    values = np.random.default_rng(0).integers(0, 65_535, (4, 5, 3)).astype(np.uint16)
    for ending in (".png", ".tif"):
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(values, isVector=True), str(tmp_path / f"a{ending}"))
        np.testing.assert_array_equal(read_volume(tmp_path / f"a{ending}").array[:, 0], values.transpose(2, 0, 1))
    for kind in (np.int8, np.int16, np.int32, np.float32):
        numbers = (np.arange(20).reshape(4, 5) - 7).astype(kind)
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(numbers), str(tmp_path / "b.tif"))
        volume = read_volume(tmp_path / "b.tif")
        np.testing.assert_array_equal(volume.array[0, 0], numbers)
        assert volume.array.dtype == kind


@pytest.mark.parametrize("ending", [".png", ".tif", ".gif", ".bmp"])
def test_palettes(tmp_path, ending):
    """A coloured palette gives colours to an image and indices to a mask; a grey one its grey values to both."""
    indices = (np.arange(20).reshape(4, 5) % 3).astype(np.uint8)
    colours = np.array([[0, 0, 0], [255, 0, 0], [10, 20, 30]], np.uint8)
    coloured = Image.fromarray(indices)
    coloured.putpalette(colours.ravel().tolist())
    coloured.save(tmp_path / f"colour{ending}")
    np.testing.assert_array_equal(
        read_volume(tmp_path / f"colour{ending}").array, colours[indices].transpose(2, 0, 1)[:, None]
    )
    np.testing.assert_array_equal(read_mask(tmp_path / f"colour{ending}").array, indices[None, None])
    grey = Image.fromarray(indices)
    grey.putpalette([0, 0, 0, 255, 255, 255, 128, 128, 128])
    grey.save(tmp_path / f"grey{ending}")
    for read in (read_volume, read_mask):
        expected = np.array([0, 255, 128], np.uint8)[indices]
        np.testing.assert_array_equal(read(tmp_path / f"grey{ending}").array, expected[None, None])


@pytest.mark.parametrize("ending", [".png", ".tif", ".bmp"])
def test_bits_are_0_and_1_in_masks_and_0_and_255_in_images(tmp_path, ending):
    bits = np.eye(4, 5).astype(bool)
    Image.fromarray(bits).save(tmp_path / f"a{ending}")
    np.testing.assert_array_equal(read_volume(tmp_path / f"a{ending}").array[0, 0], 255 * bits)
    np.testing.assert_array_equal(read_mask(tmp_path / f"a{ending}").array[0, 0], bits)


def test_a_grey_mask_saved_in_colour_is_one_channel(tmp_path):
    Image.fromarray(np.stack([GREY] * 3, -1)).save(tmp_path / "a.png")
    assert read_volume(tmp_path / "a.png").array.shape == (3, 1, 4, 5)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png").array, GREY[None, None])
    Image.fromarray(COLOUR).save(tmp_path / "b.png")
    red, green, blue = COLOUR.astype(int)[..., 0], COLOUR.astype(int)[..., 1], COLOUR.astype(int)[..., 2]
    number = 2**24 + 2**16 * red + 2**8 * green + blue  # for a table of colours to look up, or the data check to refuse
    np.testing.assert_array_equal(read_mask(tmp_path / "b.png").array, number[None, None])


def test_tiff_pages_are_slices_and_imagej_says_their_spacing(tmp_path):
    description = "ImageJ=1.53\nimages=3\nslices=3\nunit=micron\nspacing=5.0\n"
    tags = {270: description, 282: 1 / 0.5, 283: 1 / 2.0, 296: 1}
    volume = read_volume(save_tiff(tmp_path / "a.tif", STACK, tags))
    np.testing.assert_array_equal(volume.array[0], STACK)
    assert volume.geometry.spacing_mm == pytest.approx((0.005, 0.002, 0.0005))
    assert (volume.is_placed, volume.notes) == (True, ())
    tags[270] = description.replace("unit=micron\n", "")  # pixels, then
    assert not read_volume(save_tiff(tmp_path / "b.tif", STACK, tags)).is_placed


def test_channels_of_imagej_run_faster_than_slices(tmp_path):
    pages = np.arange(4 * 20, dtype=np.uint8).reshape(4, 4, 5)  # z0c0, z0c1, z1c0, z1c1
    tags = {270: "ImageJ=1.53\nimages=4\nchannels=2\nslices=2\n"}
    volume = read_volume(save_tiff(tmp_path / "a.tif", pages, tags))
    np.testing.assert_array_equal(volume.array, pages[[[0, 2], [1, 3]]])
    tags = {270: "ImageJ=1.53\nimages=4\nframes=4\n"}
    assert "is a time series of 4 frames; save one" in refusal_of(save_tiff(tmp_path / "b.tif", pages, tags))
    tags = {270: "ImageJ=1.53\nimages=900\n"}
    assert "announces 900 pages but has 4" in refusal_of(save_tiff(tmp_path / "c.tif", pages, tags))


def test_ome_says_spacing_channels_and_time_points(tmp_path):
    size = 'PhysicalSizeX="0.5" PhysicalSizeY="2" PhysicalSizeZ="5" PhysicalSizeZUnit="mm"'
    text = '<?xml version="1.0"?><OME><Image><Pixels SizeC="{}" SizeT="{}" SizeZ="3" {}/></Image></OME>'
    volume = read_volume(save_tiff(tmp_path / "a.tif", STACK, {270: text.format(1, 1, size)}))
    np.testing.assert_array_equal(volume.array[0], STACK)
    assert volume.geometry.spacing_mm == pytest.approx((5, 0.002, 0.0005))
    assert not read_volume(save_tiff(tmp_path / "b.tif", STACK, {270: text.format(1, 1, "")})).is_placed
    micrometres = {"axes": "ZYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 2, "PhysicalSizeZ": 5}
    tifffile.imwrite(tmp_path / "d.ome.tif", STACK, ome=True, metadata=micrometres)
    assert read_volume(tmp_path / "d.ome.tif").geometry.spacing_mm == pytest.approx((0.005, 0.002, 0.0005))
    for channels, times in ((3, 1), (1, 3)):
        save_tiff(tmp_path / "c.tif", STACK, {270: text.format(channels, times, size)})
        assert f"is an OME-TIFF of {channels} channels and {times} time points; save" in refusal_of(tmp_path / "c.tif")


def test_tiles_that_simpleitk_would_reduce_to_8_bits_are_read_whole(tmp_path):
    for kind in (np.uint8, np.uint16, np.int16, np.float32):
        values = (np.arange(40 * 50) * 30 % 60_000).reshape(40, 50).astype(kind)
        tifffile.imwrite(tmp_path / "a.tif", values, tile=(16, 16))
        volume = read_volume(tmp_path / "a.tif")
        np.testing.assert_array_equal(volume.array, values[None, None])
        assert volume.array.dtype == kind
    colours = np.dstack([values, values + 1, values + 2]).astype(np.uint16)
    tifffile.imwrite(tmp_path / "b.tif", colours, tile=(16, 16), photometric="rgb")
    np.testing.assert_array_equal(read_volume(tmp_path / "b.tif").array[:, 0], colours.transpose(2, 0, 1))
    tifffile.imwrite(tmp_path / "c.tif", np.zeros((16, 32, 48), np.uint8), tile=(16, 16, 16), volumetric=True)
    assert "; save it with" in refusal_of(tmp_path / "c.tif")


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("layout", [{}, {"bigtiff": True}, {"byteorder": ">"}])
def test_stacks_are_read_whatever_their_layout(tmp_path, compression, layout):
    with tifffile.TiffWriter(
        tmp_path / "a.tif", **{key: layout[key] for key in layout if key != "rowsperstrip"}
    ) as file:
        rows = layout.get("rowsperstrip")
        for page in STACK:
            file.write(page, photometric="minisblack", compression=compression, rowsperstrip=rows, contiguous=False)
    volume = read_volume(tmp_path / "a.tif")
    np.testing.assert_array_equal(volume.array[0], STACK)
    assert volume.array.dtype == np.dtype("=u2")


def test_colours_in_planes_of_their_own_are_channels(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", COLOUR.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(read_volume(tmp_path / "a.tif").array[:, 0], COLOUR.transpose(2, 0, 1))


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_stack_that_is_cut_anywhere_is_refused(tmp_path, compression):
    whole = tmp_path / "whole.tif"
    with tifffile.TiffWriter(whole) as file:
        for page in STACK:
            file.write(page, photometric="minisblack", compression=compression, contiguous=False)
    content = whole.read_bytes()
    with tifffile.TiffFile(whole) as file:
        page_starts = [page.offset for page in file.pages]
    places = sorted({*page_starts, *range(1, len(content), 7), len(content) - 1})
    np.testing.assert_array_equal(read_volume(whole).array[0], STACK)
    path = tmp_path / "cut.tif"
    for place in places:
        path.write_bytes(content[:place])
        assert refusal_of(path).startswith("cannot be read (")


def test_pixels_that_no_file_of_this_size_holds_are_refused_before_memory_is_taken(tmp_path):
    """Twenty pages of 13 000 x 13 000 pixels, whose strips are all the same few bytes: 3.4 GB of a file of 17 kB."""
    strip = zlib.compress(bytes(13_000_000), 9)
    tags = {256: 13_000, 257: 13_000, 258: 8, 259: 8, 262: 1, 277: 1, 278: 1000}
    content = bytearray(struct.pack("<2sHI", b"II", 42, 0) + strip)
    link = 4  # where the place of the next page is to be written
    for _ in range(20):
        arrays = len(content)
        content += struct.pack("<13I", *[8] * 13) + struct.pack("<13I", *[len(strip)] * 13)
        struct.pack_into("<I", content, link, len(content))
        content += struct.pack("<H", len(tags) + 2)
        entries = [(tag, 4, 1, value) for tag, value in tags.items()]
        entries += [(273, 4, 13, arrays), (279, 4, 13, arrays + 52)]
        content += b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
        link = len(content)
        content += bytes(4)
    (tmp_path / "a.tif").write_bytes(content)
    tracemalloc.start()
    words = refusal_of(tmp_path / "a.tif")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert words.startswith("announces 3,380,000,000 bytes of pixels, which no file of ")
    assert peak < 10_000_000
    blank = np.zeros((2, 3000, 3000), np.uint8)  # the most that deflate can pack
    tifffile.imwrite(tmp_path / "b.tif", blank, photometric="minisblack", compression="zlib", rowsperstrip=3000)
    assert (tmp_path / "b.tif").stat().st_size < blank.nbytes / 900
    np.testing.assert_array_equal(read_volume(tmp_path / "b.tif").array[0], blank)


def test_a_strip_that_is_not_there_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", GREY, photometric="minisblack", compression="zlib", rowsperstrip=1)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
        counts = file.pages.first.tags["StripByteCounts"]
        counts.overwrite((0, *counts.value[1:]))
    assert "values of page 1 are not in the file" in refusal_of(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "b.tif", STACK[0], photometric="minisblack")
    with tifffile.TiffFile(tmp_path / "b.tif", mode="r+b") as file:
        file.pages.first.tags["StripByteCounts"].overwrite(38)
    assert "page 1 keeps 38 of 40 bytes of pixels" in refusal_of(tmp_path / "b.tif")


def test_pixels_per_centimetre_are_a_spacing_but_those_of_printers_are_not(tmp_path):
    for per_unit, unit, expected in ((4.0, 3, 2.5), (50.8, 2, 0.5), (10_000.0, 3, 0.001)):
        volume = read_volume(save_tiff(tmp_path / "a.tif", GREY[None], {282: per_unit, 283: per_unit, 296: unit}))
        assert volume.geometry.spacing_mm == pytest.approx((1, expected, expected))
    for dpi in PRINT_DPI:
        for tags in ({282: float(dpi), 283: float(dpi), 296: 2}, {282: dpi / 2.54, 283: dpi / 2.54, 296: 3}):
            assert not read_volume(save_tiff(tmp_path / "a.tif", GREY[None], tags)).is_placed
    for ending in (".png", ".jpg", ".bmp"):
        Image.fromarray(GREY).save(tmp_path / f"a{ending}", dpi=(50.8, 50.8))
        assert not read_volume(tmp_path / f"a{ending}").is_placed


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_the_spacing_that_simpleitk_writes_is_read(tmp_path, ending):
    SimpleITK = pytest.importorskip("SimpleITK")
    image = SimpleITK.GetImageFromArray(GREY)
    image.SetSpacing((0.5, 2))
    SimpleITK.WriteImage(image, str(tmp_path / f"a{ending}"))
    assert read_volume(tmp_path / f"a{ending}").geometry.spacing_mm == pytest.approx((1, 2, 0.5))


def test_a_side_file_says_the_spacing_as_for_nnunet(tmp_path):
    for name in ("case_0000", "case"):
        save_tiff(tmp_path / f"{name}.tif", STACK, {})
        (tmp_path / "case.json").write_text(json.dumps({"spacing": [5, 0.5, 2]}))
        assert read_volume(tmp_path / f"{name}.tif").geometry.spacing_mm == (5, 0.5, 2)
    assert size_and_change(tmp_path / "case_0000.tif")[0] == sum(
        (tmp_path / name).stat().st_size for name in ("case_0000.tif", "case.json")
    )
    for wrong in ("{}", "no json", '{"spacing": [1, 2, 0]}', '{"spacing": 3}', "[]"):
        (tmp_path / "case.json").write_text(wrong)
        assert 'side file case.json must hold {"spacing": [z, y, x]} in mm; correct it' in refusal_of(
            tmp_path / "case.tif"
        )


def test_what_is_no_plain_picture_is_refused(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.gif", save_all=True, append_images=[Image.fromarray(GREY.T.copy())])
    assert refusal_of(tmp_path / "a.gif") == "has 2 frames (an animation); save the one to use as PNG"
    Image.fromarray(GREY).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").rename(tmp_path / "b.png")
    assert refusal_of(tmp_path / "b.png") == "is a JPEG file under the ending .png; rename it to .jpg"
    Image.fromarray(COLOUR).convert("CMYK").save(tmp_path / "c.jpg")
    assert refusal_of(tmp_path / "c.jpg") == "has colours in CMYK; save it as RGB or grey"
    first = Image.fromarray(GREY)
    second = Image.fromarray(GREY[:3])
    first.save(tmp_path / "d.tif", save_all=True, append_images=[second])
    assert "; " in refusal_of(tmp_path / "d.tif")
    Image.fromarray(GREY).save(tmp_path / "e.jpg")
    assert refusal_of(tmp_path / "e.jpg", read_mask).startswith(
        "is a JPEG, which blurs label values; export the mask as"
    )


@pytest.mark.parametrize("ending", [*PICTURES, ".jpg"])
def test_damaged_pictures_are_named(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    path.write_text("<html>404 not found</html>")
    assert "cannot be read (" in refusal_of(path)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90)).astype(np.uint8)).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert "cannot be read (" in refusal_of(path)


def test_a_picture_to_be_turned_is_read_as_stored_and_noted(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(GREY).save(tmp_path / "a.jpg", exif=exif)
    volume = read_volume(tmp_path / "a.jpg")
    assert volume.array.shape == (1, 1, 4, 5)
    assert volume.notes[0].startswith("asks viewers to turn it (EXIF orientation 6), but is read as stored; ")


@pytest.mark.parametrize("ending", PICTURES)
@pytest.mark.parametrize("highest", [1, 255, 256, 65_535])
def test_masks_come_back(tmp_path, ending, highest):
    mask = np.zeros((1, 4, 5), np.int64)
    mask[0, 1, 2] = highest
    mask[0, 3, 0] = 1
    geometry = Geometry.of((1, 4, 5), place((1, 2, 0.5)))
    path = tmp_path / f"mask{ending}"
    if highest > 255 and ending in (".bmp", ".gif"):
        with pytest.raises(UserError, match=f"a {ending} file holds values from 0 to 255, not 0 to {highest}; write"):
            write_labels(path, mask, geometry)
        assert not list(tmp_path.iterdir())
        return
    write_labels(path, mask, geometry)
    volume = read_mask(path)
    np.testing.assert_array_equal(volume.array[0], mask)
    if ending not in (".bmp", ".gif"):
        assert volume.geometry.spacing_mm == pytest.approx((1, 2, 0.5))
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("kind, offset", [(np.uint8, 0), (np.uint16, 700), (np.int32, -9)])
def test_stacks_of_masks_come_back_with_their_spacing(tmp_path, kind, offset):
    mask = np.arange(60).reshape(3, 4, 5) + offset
    write_labels(tmp_path / "mask.tif", mask, Geometry.of(mask.shape, place((5, 0.5, 2))))
    volume = read_mask(tmp_path / "mask.tif")
    np.testing.assert_array_equal(volume.array[0], mask)
    assert volume.array.dtype == kind
    assert volume.geometry.spacing_mm == pytest.approx((5, 0.5, 2))


def test_what_a_picture_cannot_hold_is_refused(tmp_path):
    mask = np.zeros((3, 4, 5), np.uint8)
    with pytest.raises(UserError, match="mask.png: a .png file holds one slice, not 3; write .nii.gz or .tif"):
        write_labels(tmp_path / "mask.png", mask, Geometry.of(mask.shape, place()))
    with pytest.raises(UserError, match="has no position or direction in space, which this image has; write .nii.gz"):
        write_labels(tmp_path / "mask.tif", mask, Geometry.of(mask.shape, np.eye(4)))
    with pytest.raises(UserError, match="0 to 65535, not -1 to -1; write"):
        write_labels(tmp_path / "mask.png", np.full((1, 4, 5), -1), Geometry.of((1, 4, 5), place()))
    with pytest.raises(UserError, match="mask.jpg: is lossy and would blur labels; masks are written as .nii.gz"):
        write_labels(tmp_path / "mask.jpg", mask, Geometry.of(mask.shape, place()))
    assert not list(tmp_path.iterdir())


def test_a_picture_and_its_mask_fit_by_shape_alone(tmp_path):
    save_tiff(tmp_path / "image.tif", GREY[None], {282: 50.8, 283: 50.8, 296: 2})  # 0.5 mm
    Image.fromarray(GREY).save(tmp_path / "mask.gif")
    Image.fromarray(GREY[:3]).save(tmp_path / "other.gif")
    image = read_volume(tmp_path / "image.tif")
    assert volume_mismatch(image, read_mask(tmp_path / "mask.gif")) is None
    assert volume_mismatch(image, read_mask(tmp_path / "other.gif")) == "shape (z, y, x) (1, 3, 5) against (1, 4, 5)"


def test_a_restored_mask_is_the_picture_the_right_way_up(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.png")
    image = read_volume(tmp_path / "a.png")
    restored = from_canonical(to_canonical(image).array[0], image.geometry)
    write_labels(tmp_path / "mask.png", restored, image.geometry)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "mask.png")), GREY)
