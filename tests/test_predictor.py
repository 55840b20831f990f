"""Finding images to predict, and predicting single volumes through the Python interface."""

import numpy as np
import pytest
import torch
from conftest import blocks_case, write_nifti, write_slices
from small_training import configuration

from segfw.data.formats import read_volume
from segfw.data.manifest import Channel, LabelSet
from segfw.data.normalize import Normalization
from segfw.data.preprocess import Preprocessing
from segfw.inference.cohort import predict_cases
from segfw.inference.folder import OutputFolder
from segfw.inference.images import find_images
from segfw.inference.predictor import Predictor
from segfw.model import Model
from segfw.networks import build_network
from segfw.networks.spec import NetworkSpec
from segfw.planning.plan import Plan
from segfw.records import UserError

ONE, TWO = (Channel(name="MR"),), (Channel(name="t1"), Channel(name="flair"))
SPEC = NetworkSpec(
    architecture="plain-unet",
    in_channels=1,
    classes=3,
    features=(4, 8),
    strides=((1, 1, 1), (2, 2, 2)),
    kernels=((3, 3, 3), (3, 3, 3)),
    encoder_blocks=(1, 1),
    decoder_convs=(1,),
)


def touch(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")
    return folder


def found(folder, channels):
    return {case.id: [path.name for path in case.images] for case in find_images(folder, channels)}


def test_plain_and_numbered_names_of_one_channel(tmp_path):
    assert found(touch(tmp_path / "a", "p1.nii.gz", "p2.nii"), ONE) == {"p1": ["p1.nii.gz"], "p2": ["p2.nii"]}
    assert found(touch(tmp_path / "b", "p1_0000.nrrd", "notes.txt"), ONE) == {"p1": ["p1_0000.nrrd"]}


def test_a_name_that_ends_in_a_year_is_a_case_of_its_own(tmp_path):
    names = ("scan_2021.nii.gz", "scan_2022.nii.gz")
    assert found(touch(tmp_path, *names), ONE) == {"scan_2021": [names[0]], "scan_2022": [names[1]]}


def test_channels_by_number_and_by_name(tmp_path):
    numbered = ("p1_0000.nii.gz", "p1_0001.nii.gz", "p2_0000.nii.gz")
    assert found(touch(tmp_path / "a", *numbered), TWO) == {"p1": list(numbered[:2]), "p2": [numbered[2]]}
    named = ("x_flair_1.nii.gz", "x_t1_1.nii.gz")
    cases = list(found(touch(tmp_path / "b", *named), TWO).values())
    assert cases == [["x_t1_1.nii.gz", "x_flair_1.nii.gz"]]  # in the order of the model's channels


def test_a_channel_name_is_a_word_of_its_own(tmp_path):
    channels = (Channel(name="t1"), Channel(name="t1ce"))
    names = ("p1_t1ce.nii.gz", "p1_t1.nii.gz", "p2-t1.nii.gz", "p2-t1ce.nii.gz")
    assert found(touch(tmp_path, *names), channels) == {
        "p1": ["p1_t1.nii.gz", "p1_t1ce.nii.gz"],
        "p2": ["p2-t1.nii.gz", "p2-t1ce.nii.gz"],
    }


def test_a_single_file(tmp_path):
    folder = touch(tmp_path, "p1_0000.nii.gz")
    assert found(folder / "p1_0000.nii.gz", ONE) == {"p1": ["p1_0000.nii.gz"]}


def test_a_series_folder_of_them_and_nested_ones(tmp_path):
    for name in ("p1/t2", "p2/t2", "p2/deeper/t2"):
        touch(tmp_path / "nested" / name, "1.dcm", "2.dcm", "notes.txt")
    touch(tmp_path / "flat" / "p1_0000", "1.dcm")
    touch(tmp_path / "flat" / "p1_0001", "1.dcm")
    touch(tmp_path / "flat" / "empty")
    assert found(tmp_path / "nested" / "p1" / "t2", ONE) == {"t2": ["t2"]}
    assert found(tmp_path / "nested" / "p1", ONE) == {"t2": ["t2"]}
    assert found(tmp_path / "nested", ONE) == {"p1_t2": ["t2"], "p2_t2": ["t2"], "p2_deeper_t2": ["t2"]}
    assert found(tmp_path / "flat", TWO) == {"p1": ["p1_0000", "p1_0001"]}
    assert found(tmp_path / "flat" / "p1_0000", ONE) == {"p1": ["p1_0000"]}
    touch(tmp_path / "by_name" / "p1", "x")
    for name in ("p1/t1", "p1/flair"):
        touch(tmp_path / "by_name" / name, "1.dcm")
        touch(tmp_path / "by_name" / name.replace("p1", "p2"), "1.dcm")
    assert found(tmp_path / "by_name", TWO) == {"p1": ["t1", "flair"], "p2": ["t1", "flair"]}


def test_series_that_cannot_be_told_apart_or_lie_among_files(tmp_path):
    touch(tmp_path / "a", "p1.nii", "p1.nii.gz")
    with pytest.raises(UserError, match=r"p1.nii and p1.nii.gz would both be the case p1; rename or move one"):
        find_images(tmp_path / "a", ONE)
    touch(tmp_path / "b", "1.dcm", "p1.nii")
    with pytest.raises(UserError, match="holds DICOM files and p1.nii beside them; give each series a folder"):
        find_images(tmp_path / "b", ONE)
    with pytest.raises(UserError, match="1.dcm: is one file of a DICOM series; give the folder"):
        find_images(tmp_path / "b" / "1.dcm", ONE)


def test_nothing_to_predict(tmp_path):
    with pytest.raises(UserError, match="no such file or folder; give the images to predict"):
        find_images(tmp_path / "nowhere", ONE)
    with pytest.raises(UserError, match=r"holds no image segfw can read \(.nii.gz"):
        find_images(touch(tmp_path, "notes.txt"), ONE)


@pytest.fixture
def model() -> Model:
    torch.manual_seed(3)
    how = Preprocessing(axis_order=(0, 1, 2), spacing_mm=(4.0, 1.5, 1.0), normalization=(Normalization(kind="zscore"),))
    chosen = configuration(how, SPEC)
    plan = Plan(
        dataset="blocks",
        preset="plain",
        gpu_memory_gb=8,
        as_published=False,
        orientation="canonical",
        channels=ONE,
        labels=LabelSet(names=("background", "bright", "dark"), values=(0, 3, 7)),
        training_cases=4,
        configurations={"3d_fullres": chosen},
        reasons=(),
    )
    weights = build_network(SPEC).state_dict()
    return Model(plan=plan, configuration=chosen, weights={"0": weights}, mirror_axes=(2,))


def test_orientation_of_the_file_does_not_change_the_mask(model, tmp_path):
    """The same head stored along other axes gives the same mask in space."""
    image, _ = blocks_case(1)
    write_nifti(tmp_path / "a.nii.gz", image)
    predictor = Predictor.of(model, device="cpu", precision="fp32")
    volume = read_volume(tmp_path / "a.nii.gz")
    mask = predictor(volume)
    assert mask.shape == volume.geometry.shape
    assert len(np.unique(mask)) > 1

    affine = volume.geometry.matrix
    flip = np.eye(4)
    flip[0, 0], flip[0, 3] = -1, volume.geometry.shape[0] - 1
    turned = type(volume)(
        array=np.ascontiguousarray(volume.array[:, ::-1].transpose(0, 1, 3, 2)),
        geometry=type(volume.geometry).of(
            (volume.geometry.shape[0], *volume.geometry.shape[:0:-1]), (affine @ flip)[:, [0, 2, 1, 3]]
        ),
    )
    again = predictor(turned)
    assert np.array_equal(again.transpose(0, 2, 1)[::-1], mask)


def test_a_dicom_series_and_its_nifti_twin_give_one_mask(model, tmp_path):
    image = blocks_case(1)[0].transpose(2, 1, 0)
    positions = np.array([3.0, 4, 5]) + np.arange(len(image))[:, None] * np.array([0, 0, 4.0])
    write_slices(tmp_path / "in" / "p1", image, positions=positions, axes=np.eye(3)[:2])
    predictor = Predictor.of(model, device="cpu", precision="fp32")
    assert not predict_cases(
        [predictor], find_images(tmp_path / "in", ONE), OutputFolder(path=tmp_path / "out")
    ).failures
    series, mask = read_volume(tmp_path / "in" / "p1"), read_volume(tmp_path / "out" / "p1.nii.gz")
    np.testing.assert_allclose(mask.geometry.matrix, series.geometry.matrix, atol=1e-5)
    write_nifti(tmp_path / "twin.nii.gz", image.transpose(2, 1, 0))
    twin = read_volume(tmp_path / "twin.nii.gz")
    placed = type(twin)(array=twin.array, geometry=series.geometry)
    np.testing.assert_array_equal(predictor(placed), mask.array[0])
    assert len(np.unique(mask.array)) > 1


def test_only_axes_that_training_mirrored_are_mirrored(model):
    assert Predictor.of(model, device="cpu").mirror_axes == (2,)
    assert Predictor.of(model, device="cpu", mirroring=False).mirror_axes == ()


def test_wrong_channels_and_step_are_refused(model, tmp_path):
    predictor = Predictor.of(model, device="cpu")
    image, _ = blocks_case(1)
    write_nifti(tmp_path / "a.nii.gz", np.stack([image, image], -1), (1, 1.5, 4))
    with pytest.raises(UserError, match=r"the image has 2 channels, but the model was trained on 1 \(MR\)"):
        predictor(read_volume(tmp_path / "a.nii.gz"))
    with pytest.raises(UserError, match="--step is 0; give a share of the tile between 0 and 1"):
        Predictor.of(model, device="cpu", step=0)


def test_bf16_agrees_with_fp32_nearly_everywhere(model, tmp_path):
    write_nifti(tmp_path / "a.nii.gz", blocks_case(2)[0])
    volume = read_volume(tmp_path / "a.nii.gz")
    masks = [Predictor.of(model, device="cpu", precision=precision)(volume) for precision in ("fp32", "bf16")]
    assert (masks[0] == masks[1]).mean() > 0.97  # an untrained network: many voxels are nearly ties
