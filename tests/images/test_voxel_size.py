"""What counts as the edges of voxels: the axes, what files state beside them, or one; nnU-Net's readers differ."""

import gzip
import json
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
from PIL import Image

from builders.nnunet import dataset, plans
from segfw.grid.normalize import Normalization
from segfw.grid.preprocess import Preprocessing, preprocess_image, voxel_edges
from segfw.images.formats import read_volume, write_labels
from segfw.images.volume import to_canonical
from segfw.inference.image_types import open_image
from segfw.nnunet.import_folders import channels_and_labels
from segfw.nnunet.read_plans import plan_of_nnunet
from segfw.onnx import runner as onnx_runner
from segfw.planning.preprocessed_bytes import float32_bytes

ARRAY = np.arange(1, 2 * 3 * 4 + 1, dtype=np.uint8).reshape(4, 3, 2)  # (x, y, z)


def contradictory(path, axes=(0, 1, 2), flips=(1, 1, 1), **header):
    """Pixdim 1, 2, 5 along the axes of the array, beside an sform with edges of 3, 3 and 3 mm."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for column, (axis, flip) in enumerate(zip(axes, flips)):
        affine[axis, column] = 3 * flip
    image = nibabel.Nifti1Image(ARRAY, affine)
    image.header["qform_code"] = 0
    image.header["pixdim"][1:4] = (1, 2, 5)
    for name, value in header.items():
        image.header[name] = value
    nibabel.save(image, path)
    return read_volume(path)


def rule(voxel_size, **changes):
    none = (Normalization(kind="none"),)
    fixed = {"axis_order": (0, 1, 2), "spacing_mm": (1.0, 1.0, 1.0), "normalization": none}
    return Preprocessing(**fixed | {"voxel_size": voxel_size} | changes)


@pytest.mark.parametrize(
    ("voxel_size", "spacing", "shape"),
    [
        ("axes", (3, 3, 3), (6, 9, 12)),
        ("stated", (5, 2, 1), (10, 6, 4)),
        ("stated in RAS", (5, 2, 1), (10, 6, 4)),
        ("unit", (1, 1, 1), (2, 3, 4)),
    ],
)
def test_a_contradictory_header_is_taken_by_the_rule(tmp_path, voxel_size, spacing, shape):
    volume = contradictory(tmp_path / "a.nii.gz")
    image, record = preprocess_image(volume, rule(voxel_size, orientation="as stored"))
    assert record.cropped_spacing_mm == spacing
    assert image.shape == (1, *shape)
    assert volume.geometry.spacing_mm == (3, 3, 3)  # where the mask is written to does not change


def test_stated_edges_follow_their_axes_when_the_image_is_turned(tmp_path):
    # Stored x runs to the front, y to the head, z to the left: canonical (z, y, x) is stored (y, x, z).
    volume = contradictory(tmp_path / "a.nii.gz", axes=(1, 2, 0), flips=(1, -1, -1))
    turned = to_canonical(volume)
    assert (turned.array.shape, turned.stated_mm) == ((1, 3, 4, 2), (2, 1, 5))
    record = preprocess_image(volume, rule("stated", axis_order=(1, 0, 2)))[1]
    assert (record.cropped_shape, record.cropped_spacing_mm) == ((4, 3, 2), (1, 2, 5))


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, -1, 1), (1, 1, -1)])
@pytest.mark.parametrize("voxel_size", ["axes", "stated", "stated in RAS"])
def test_nibabel_forgets_what_is_stated_when_it_turns_an_image_and_the_runner_of_onnx_knows(
    tmp_path, voxel_size, flips
):
    volume = contradictory(tmp_path / "a.nii.gz", flips=flips)
    record = preprocess_image(volume, rule(voxel_size))[1]
    is_turned = flips != (1, 1, 1)
    is_stated = voxel_size == "stated" or (voxel_size == "stated in RAS" and not is_turned)
    assert record.cropped_spacing_mm == ((5, 2, 1) if is_stated else (3, 3, 3))
    _, affine, stated = onnx_runner.read([tmp_path / "a.nii.gz"])
    assert tuple(onnx_runner.voxel_edges(affine, stated, voxel_size, is_turned)) == record.cropped_spacing_mm


def test_the_runner_of_onnx_measures_axes_in_32_bit_as_segfw_does(tmp_path):
    angle = np.radians(20)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine[:3, :3] *= (0.5, 0.7, 2.5)
    nibabel.save(nibabel.Nifti1Image(ARRAY, affine), tmp_path / "a.nii.gz")
    record = preprocess_image(read_volume(tmp_path / "a.nii.gz"), rule("axes", orientation="as stored"))[1]
    _, affine, stated = onnx_runner.read([tmp_path / "a.nii.gz"])
    assert np.linalg.norm(affine[:3, 2]) != 0.5
    assert tuple(onnx_runner.voxel_edges(affine, stated, "axes", False)) == record.cropped_spacing_mm
    assert record.cropped_spacing_mm[2] == 0.5


def test_edges_have_the_unit_of_the_header_in_a_file_and_in_memory(tmp_path):
    stored = contradictory(tmp_path / "a.nii.gz", xyzt_units=3)
    assert stored.stated_mm == (0.005, 0.002, 0.001)
    assert stored.geometry.spacing_mm == pytest.approx((0.003, 0.003, 0.003))
    image = nibabel.load(tmp_path / "a.nii.gz")
    held, mask_of = open_image(image)
    assert (held.stated_mm, held.geometry) == (stored.stated_mm, stored.geometry)
    np.testing.assert_array_equal(mask_of(np.zeros((2, 3, 4), np.uint8)).affine, image.affine)


def test_turned_axes_in_32_bit_do_not_change_what_is_stated(tmp_path):
    angle = np.radians(20)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine[:3, :3] *= (0.4882813, 0.4882813, 2.5)
    nibabel.save(nibabel.Nifti1Image(ARRAY, affine), tmp_path / "a.nii.gz")
    stored = float(np.float32(0.4882813))
    assert read_volume(tmp_path / "a.nii.gz").stated_mm == (2.5, stored, stored)


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_a_file_of_two_dimensions_is_never_thick_in_its_plane(tmp_path, ending):
    SimpleITK = pytest.importorskip("SimpleITK")
    image = SimpleITK.GetImageFromArray(np.ones((3, 4), np.float32))
    image.SetSpacing((4.0, 0.5))
    SimpleITK.WriteImage(image, str(tmp_path / f"a{ending}"))
    volume = read_volume(tmp_path / f"a{ending}")
    assert volume.stated_mm == (3996, 0.5, 4)
    assert volume.geometry.spacing_mm[0] == 1
    assert open_image(image)[0].stated_mm == (3996, 0.5, 4)


def test_tags_of_a_stack_are_not_stated_but_its_side_file_is(tmp_path):
    pages = [Image.fromarray(page) for page in ARRAY.transpose(2, 1, 0)]
    tags = {270: "ImageJ=1.53t\nimages=2\nslices=2\nunit=mm\nspacing=7.0\n", 282: 0.5, 283: 0.25, 296: 1}
    pages[0].save(tmp_path / "a_0000.tif", save_all=True, append_images=pages[1:], tiffinfo=tags)
    tagged = read_volume(tmp_path / "a_0000.tif")
    assert (tagged.geometry.spacing_mm, tagged.stated_mm) == ((7, 4, 2), None)
    rules = "axes", "stated", "side file", "unit"
    assert [voxel_edges(tagged, one) for one in rules] == [(7, 4, 2), (7, 4, 2), (1, 1, 1), (1, 1, 1)]
    (tmp_path / "a.json").write_text(json.dumps({"spacing": [5, 1, 2]}))
    beside = read_volume(tmp_path / "a_0000.tif")
    assert [voxel_edges(beside, one) for one in rules] == [(5, 1, 2), (5, 1, 2), (5, 1, 2), (1, 1, 1)]


def test_a_picture_has_units_whatever_it_says(tmp_path):
    SimpleITK = pytest.importorskip("SimpleITK")
    image = SimpleITK.GetImageFromArray(ARRAY[:, :, 0])
    image.SetSpacing((0.25, 3.0))
    SimpleITK.WriteImage(image, str(tmp_path / "a.png"))
    preprocessing = rule("unit", spacing_mm=(None, 1.0, 1.0), orientation="as stored")
    image, record = preprocess_image(read_volume(tmp_path / "a.png"), preprocessing)
    assert (image.shape, record.spacing_mm) == ((1, 1, 4, 3), (999, 1, 1))


@pytest.mark.parametrize(
    ("reader", "wanted"),
    [
        ("SimpleITKIO", ("stated", "as stored")),
        ("NibabelIO", ("stated", "as stored")),
        ("NibabelIOWithReorient", ("stated in RAS", "canonical")),
        ("SimpleITKIOWithReorient", ("stated", "canonical")),
        ("Tiff3DIO", ("side file", "as stored")),
        ("NaturalImage2DIO", ("unit", "as stored")),
    ],
)
def test_every_reader_has_its_rule(tmp_path, reader, wanted):
    channels, labels = channels_and_labels(dataset(), tmp_path / "dataset.json")
    plan = plan_of_nnunet(plans() | {"image_reader_writer": reader}, channels, labels, tmp_path / "plans.json")
    preprocessing = plan.configurations["3d_fullres"].preprocessing
    assert (preprocessing.voxel_size, preprocessing.orientation) == wanted


def test_a_mask_has_the_place_of_its_image(tmp_path):
    volume = contradictory(tmp_path / "image.nii.gz", qform_code=1, sform_code=4, quatern_b=0.6, qoffset_x=-7)
    write_labels(tmp_path / "mask.nii.gz", ARRAY.transpose(2, 1, 0), volume.geometry, tmp_path / "image.nii.gz")
    image, mask = (nibabel.load(tmp_path / f"{name}.nii.gz") for name in ("image", "mask"))
    np.testing.assert_array_equal(mask.get_qform(), image.get_qform())
    np.testing.assert_array_equal(mask.get_sform(), image.get_sform())
    assert mask.header.get_zooms() == (1, 2, 5)
    assert [int(mask.header[code]) for code in ("qform_code", "sform_code")] == [1, 4]
    np.testing.assert_array_equal(np.asanyarray(mask.dataobj), ARRAY)
    # Of a file with other axes nothing is taken but its place in the list of arguments.
    write_labels(tmp_path / "other.nii.gz", ARRAY, volume.geometry, tmp_path / "image.nii.gz")
    assert nibabel.load(tmp_path / "other.nii.gz").shape == (2, 3, 4)


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_the_mask_of_a_plane_is_a_plane(tmp_path, ending):
    SimpleITK = pytest.importorskip("SimpleITK")
    image = SimpleITK.GetImageFromArray(np.ones((3, 4), np.float32))
    image.SetSpacing((0.7, 1.25))
    image.SetOrigin((-4.0, 17.5))
    SimpleITK.WriteImage(image, str(tmp_path / f"image{ending}"))
    geometry = read_volume(tmp_path / f"image{ending}").geometry
    labels = np.arange(12, dtype=np.uint8).reshape(1, 3, 4)
    write_labels(tmp_path / f"mask{ending}", labels, geometry, tmp_path / f"image{ending}")
    mask = SimpleITK.ReadImage(str(tmp_path / f"mask{ending}"))
    assert (mask.GetSize(), mask.GetOrigin()) == ((4, 3), (-4, 17.5))
    assert mask.GetSpacing() == pytest.approx((0.7, 1.25))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(mask), labels[0])


def big_endian(image):
    header = nibabel.Nifti1Header(endianness=">")
    return nibabel.Nifti1Image(np.asanyarray(image.dataobj), image.affine, header)


def series(image):
    array = np.stack([np.asanyarray(image.dataobj)] * 2, axis=-1)
    return nibabel.Nifti1Image(array, image.affine)


KINDS = {
    "NIfTI-2": lambda image: nibabel.Nifti2Image(np.asanyarray(image.dataobj), image.affine),
    "big-endian": big_endian,
    "series": series,
    "plain": lambda image: image,
}


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("is_gzipped", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_has_the_header_of_every_kind_of_nifti(tmp_path, kind, is_gzipped, ending):
    image = KINDS[kind](nibabel.Nifti1Image(ARRAY, np.diag([3, 3, 3, 1])))
    image.header["pixdim"][1:5] = (1, 2, 5, 7)
    image.header["qform_code"] = 0
    image.header["xyzt_units"] = 2
    path = tmp_path / f"image{ending}"
    content = image.to_bytes()
    path.write_bytes(gzip.compress(content) if is_gzipped else content)
    geometry = read_volume(path).geometry
    write_labels(tmp_path / "mask.nii.gz", ARRAY.transpose(2, 1, 0), geometry, path)
    mask = nibabel.load(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(np.asanyarray(mask.dataobj), ARRAY)
    np.testing.assert_array_equal(mask.affine, np.diag([3, 3, 3, 1]))
    assert mask.header["pixdim"][1:5].tolist() == [1, 2, 5, 1]
    assert [int(mask.header[name]) for name in ("qform_code", "sform_code", "xyzt_units")] == [0, 2, 2]


def test_the_mask_of_a_flat_nifti_keeps_the_thickness_that_its_header_names(tmp_path):
    image = nibabel.Nifti1Image(ARRAY[:, :, 0], np.diag([3, 3, 3, 1]))
    image.header["pixdim"][1:4] = (1, 2, 5)
    nibabel.save(image, tmp_path / "image.nii.gz")
    geometry = read_volume(tmp_path / "image.nii.gz").geometry
    write_labels(tmp_path / "mask.nii.gz", ARRAY[None, :, :, 0].swapaxes(1, 2), geometry, tmp_path / "image.nii.gz")
    mask = nibabel.load(tmp_path / "mask.nii.gz")
    assert (mask.shape, mask.header["pixdim"][1:4].tolist()) == ((4, 3), [1, 2, 5])


@pytest.mark.parametrize(
    ("image_ending", "mask_ending"),
    [(".nrrd", ".nrrd"), (".mha", ".mha"), (".mha", ".nrrd"), (".nrrd", ".nii.gz"), ("", ".nii.gz"), ("", ".mha")],
)
def test_a_mask_lies_where_its_image_does_in_every_format(tmp_path, image_ending, mask_ending):
    SimpleITK = pytest.importorskip("SimpleITK")
    path = tmp_path / f"image{image_ending}"
    turn = (0, -1, 0, 0, 0, 1, -1, 0, 0)
    image = SimpleITK.GetImageFromArray(ARRAY.transpose(2, 1, 0))
    image.SetSpacing((0.7, 1.25, 3.3))
    image.SetOrigin((-4.0, 17.5, 2.0))
    image.SetDirection(turn)
    if image_ending:
        SimpleITK.WriteImage(image, str(path))
        geometry = read_volume(path).geometry
    else:  # a series of DICOM files: its folder has no header to take
        path.mkdir()
        geometry = open_image(image)[0].geometry
    write_labels(tmp_path / f"mask{mask_ending}", ARRAY.transpose(2, 1, 0), geometry, path)
    mask = SimpleITK.ReadImage(str(tmp_path / f"mask{mask_ending}"))
    assert mask.GetSpacing() == pytest.approx((0.7, 1.25, 3.3), abs=1e-6)
    assert mask.GetOrigin() == pytest.approx((-4.0, 17.5, 2.0), abs=1e-6)
    assert mask.GetDirection() == pytest.approx(turn, abs=1e-6)
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(mask), ARRAY.transpose(2, 1, 0))


@pytest.mark.parametrize(("voxel_size", "voxels"), [("axes", 12 * 48), ("unit", 12)])
def test_memory_for_pictures_is_counted_without_their_tags(voxel_size, voxels):
    """Pixels of 6 x 16 mm to ones of 1 x 2 mm are 48 times as many; where edges are units the image's own count."""
    case = SimpleNamespace(id="a", shape=(1, 3, 4), cropped_shape=(1, 3, 4), spacing_mm=(7.0, 6.0, 16.0))
    preprocessing = rule(voxel_size, spacing_mm=(None, 1.0, 2.0))
    configuration = SimpleNamespace(preprocessing=preprocessing)
    plan = SimpleNamespace(configurations={"2d": configuration}, channels=("grey", "red"))
    assert float32_bytes(case, plan) == 4 * 2 * voxels
