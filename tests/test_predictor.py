"""Finding images to predict, and predicting single volumes through the Python interface."""

import numpy as np
import pytest
import torch
from conftest import blocks_case, write_nifti

from segfw.data.formats import read_volume
from segfw.data.manifest import Channel, LabelSet
from segfw.data.normalize import Normalization
from segfw.data.preprocess import Preprocessing
from segfw.inference.predictor import Predictor, find_images
from segfw.model import Model
from segfw.networks import build_network
from segfw.networks.spec import NetworkSpec
from segfw.planning.plan import Configuration, Estimate, Plan
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


def test_nothing_to_predict(tmp_path):
    with pytest.raises(UserError, match="no such file or folder; give the images to predict"):
        find_images(tmp_path / "nowhere", ONE)
    with pytest.raises(UserError, match=r"holds no image segfw can read \(.nii.gz"):
        find_images(touch(tmp_path, "notes.txt"), ONE)


@pytest.fixture
def model() -> Model:
    torch.manual_seed(3)
    how = Preprocessing(axis_order=(0, 1, 2), spacing_mm=(4.0, 1.5, 1.0), normalization=(Normalization(kind="zscore"),))
    configuration = Configuration(
        name="3d_fullres",
        preprocessing=how,
        median_shape=(10.0, 18.0, 20.0),
        patch_size=(8, 16, 16),
        batch_size=2,
        batch_dice=False,
        mirror_axes=(0, 1, 2),
        network=SPEC,
        estimate=Estimate(training_memory_gb=0.1, teraflop_per_step=0.001, ram_gb=0.001, disk_gb=0.001),
        reasons=(),
    )
    plan = Plan(
        dataset="blocks",
        preset="plain",
        gpu_memory_gb=8,
        as_published=False,
        orientation="canonical",
        channels=ONE,
        labels=LabelSet(names=("background", "bright", "dark"), values=(0, 3, 7)),
        training_cases=4,
        configurations={"3d_fullres": configuration},
        reasons=(),
    )
    weights = build_network(SPEC).state_dict()
    return Model(plan=plan, configuration=configuration, weights={"0": weights}, mirror_axes=(2,))


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
