"""Predicting single images through the Python interface."""

from dataclasses import replace

import nibabel
import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounter

from builders.data import blocks_case, write_nifti, write_slices
from builders.models import ONE, plan_of
from builders.networks import spec
from builders.training import ZSCORE, configuration
from segfw.base.device import compiling_pays_in_prediction
from segfw.base.records import GIGABYTE, UserError
from segfw.base.stopwatch import Stopwatch
from segfw.dataset.cases import Channel
from segfw.dataset.labels import LabelSet, Region
from segfw.dataset.new_images import find_images
from segfw.grid.normalize import Normalization
from segfw.grid.preprocess import Preprocessing
from segfw.grid.restore import Restoring, restored
from segfw.grid.slabs import Slab, dense, one_slab
from segfw.images.formats import read_volume
from segfw.images.volume import Volume
from segfw.inference import predictor as predictor_module
from segfw.inference.image_types import open_image
from segfw.inference.many_cases import predict_cases
from segfw.inference.output_folder import OutputFolder
from segfw.inference.predictor import Predictor
from segfw.inference.ready_networks import compile_network, in_precision, with_way_back
from segfw.model.load import Model
from segfw.networks import build_network, fastest_layout
from segfw.planning.plan import Plan

SPEC = spec(features=(4, 8))
TWO = (Channel(name="t1"), Channel(name="flair"))


@pytest.fixture
def model() -> Model:
    torch.manual_seed(3)
    chosen = configuration(ZSCORE, SPEC)
    weights = build_network(SPEC).state_dict()
    return Model(plan=plan_of(chosen), configuration=chosen, weights={"0": weights}, mirror_axes=(2,))


def test_orientation_of_the_file_does_not_change_the_mask(model, tmp_path):
    """The same head stored along other axes gives the same mask in space."""
    image, _ = blocks_case(1)
    write_nifti(tmp_path / "a.nii.gz", image)
    predictor = Predictor.of(model, device="cpu", precision="fp32")
    volume = read_volume(tmp_path / "a.nii.gz")
    mask = predictor(volume).array[0]
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
    again = predictor(turned).array[0]
    assert np.array_equal(again.transpose(0, 2, 1)[::-1], mask)


def test_a_dicom_series_and_its_nifti_twin_give_one_mask(model, tmp_path):
    image = blocks_case(1)[0].transpose(2, 1, 0)
    positions = np.array([3.0, 4, 5]) + np.arange(len(image))[:, None] * np.array([0, 0, 4.0])
    write_slices(tmp_path / "in" / "p1", image, positions=positions, axes=np.eye(3)[:2])
    predictor = Predictor.of(model, device="cpu", precision="fp32")
    assert not predict_cases(
        [predictor], find_images(tmp_path / "in", ONE), OutputFolder(path=tmp_path / "out")
    ).failures
    series = read_volume(tmp_path / "in" / "p1")
    mask = read_volume(tmp_path / "out" / "p1.nii.gz")
    np.testing.assert_allclose(mask.geometry.matrix, series.geometry.matrix, atol=1e-5)
    write_nifti(tmp_path / "twin.nii.gz", image.transpose(2, 1, 0))
    twin = read_volume(tmp_path / "twin.nii.gz")
    placed = type(twin)(array=twin.array, geometry=series.geometry)
    np.testing.assert_array_equal(predictor(placed).array, mask.array)
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
    with pytest.raises(UserError, match="^step is 0; give a share of the tile between 0 and 1"):
        Predictor.of(model, device="cpu", step=0)


def test_bf16_agrees_with_fp32_nearly_everywhere(model, tmp_path):
    write_nifti(tmp_path / "a.nii.gz", blocks_case(2)[0])
    volume = read_volume(tmp_path / "a.nii.gz")
    masks = [Predictor.of(model, device="cpu", precision=precision)(volume).array for precision in ("fp32", "bf16")]
    assert (masks[0] == masks[1]).mean() > 0.97  # an untrained network: many voxels are nearly ties


def rotated(degrees: float) -> np.ndarray:
    """About the axis z of the body."""
    turn = np.radians(degrees)
    return np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])


def oblique_image() -> nibabel.Nifti1Image:
    """Anisotropic, 20 degrees askew, stored from head to foot and with x and y exchanged."""
    array = blocks_case(3, (19, 22, 11))[0].transpose(1, 0, 2)[:, :, ::-1]
    affine = np.eye(4)
    affine[:3, :3] = rotated(20) @ np.array([[0, 1, 0], [1.5, 0, 0], [0, 0, -4.0]])
    affine[:3, 3] = (-31, 7, 90)
    return nibabel.Nifti1Image(np.ascontiguousarray(array), affine)


def test_every_kind_of_image_gives_the_same_mask_of_its_own_kind(model, tmp_path):
    SimpleITK = pytest.importorskip("SimpleITK")
    image = oblique_image()
    image.header.set_xyzt_units("mm")
    nibabel.save(image, tmp_path / "a.nii.gz")
    predictor = Predictor.of(model, device="cpu", precision="fp32")
    volume = read_volume(tmp_path / "a.nii.gz")
    by_path = predictor(tmp_path / "a.nii.gz")
    assert by_path.geometry == volume.geometry
    assert by_path.array.shape == (1, 11, 19, 22)
    assert len(np.unique(by_path.array)) > 1
    mask_xyz = by_path.array[0].transpose(2, 1, 0)
    for other in (str(tmp_path / "a.nii.gz"), [tmp_path / "a.nii.gz"], volume):
        again = predictor(other)
        assert again.geometry == volume.geometry
        np.testing.assert_array_equal(again.array, by_path.array)
    by_nibabel = predictor(image)
    np.testing.assert_array_equal(np.asanyarray(by_nibabel.dataobj), mask_xyz)
    np.testing.assert_array_equal(by_nibabel.affine, image.affine)
    np.testing.assert_array_equal(predictor(np.asanyarray(image.dataobj), image.affine), mask_xyz)
    flat = np.asanyarray(image.dataobj)[:, :, 5]
    assert predictor(flat, image.affine).shape == flat.shape
    assert predictor(nibabel.Nifti1Image(flat, image.affine)).shape == flat.shape
    itk = SimpleITK.ReadImage(str(tmp_path / "a.nii.gz"))
    by_itk = predictor(itk)
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(by_itk), by_path.array[0])
    assert by_itk.GetDirection() == itk.GetDirection()
    assert (by_itk.GetSpacing(), by_itk.GetOrigin()) == (itk.GetSpacing(), itk.GetOrigin())


def test_channels_of_all_kinds(model, tmp_path):
    SimpleITK = pytest.importorskip("SimpleITK")
    torch.manual_seed(4)
    how = model.configuration.preprocessing
    how = how.model_copy(update={"normalization": how.normalization * 2})
    network = SPEC.model_copy(update={"in_channels": 2})
    chosen = configuration(how, network)
    plan = model.plan.model_copy(update={"channels": TWO, "configurations": {"3d_fullres": chosen}})
    weights = {"0": build_network(network).state_dict()}
    predictor = Predictor.of(Model(plan=plan, configuration=chosen, weights=weights, mirror_axes=()), device="cpu")
    first = oblique_image()
    both = np.stack([np.asanyarray(first.dataobj), np.asanyarray(first.dataobj)[::-1]], -1)
    for number in range(2):
        nibabel.save(nibabel.Nifti1Image(both[..., number], first.affine), tmp_path / f"a_000{number}.nii")
    paths = [tmp_path / "a_0000.nii", tmp_path / "a_0001.nii"]
    mask = predictor(paths).array[0]
    np.testing.assert_array_equal(predictor(both, first.affine), mask.transpose(2, 1, 0))
    four_d = predictor(nibabel.Nifti1Image(both, first.affine))
    np.testing.assert_array_equal(np.asanyarray(four_d.dataobj), mask.transpose(2, 1, 0))
    vectors = SimpleITK.GetImageFromArray(both.transpose(2, 1, 0, 3), isVector=True)
    vectors.CopyInformation(SimpleITK.ReadImage(str(paths[0])))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(predictor(vectors)), mask)
    nibabel.save(nibabel.Nifti1Image(both[:-1, :, :, 1], first.affine), paths[1])
    with pytest.raises(UserError, match="a_0001.nii"):
        predictor(paths)


def test_images_that_cannot_be_used_are_refused(model):
    predictor = Predictor.of(model, device="cpu")
    array = np.zeros((5, 6, 7), np.float32)
    with pytest.raises(UserError, match="an array says nothing of its place; give affine="):
        predictor(array)
    with pytest.raises(UserError, match="an affine belongs to an array, and the image is str"):
        predictor("a.nii.gz", np.eye(4))
    with pytest.raises(UserError, match=r"shape \(5, 6, 7\) and an affine of \(3, 3\)"):
        predictor(array, np.eye(3))
    with pytest.raises(UserError, match="dict is no image that is known here; give a path"):
        predictor({})
    array[1, 1, 1] = np.nan
    with pytest.raises(UserError, match="(?i)nan"):
        predictor(array, np.eye(4))


def volume_of(array_xyz: np.ndarray, spacing_xyz: tuple[float, ...] = (1, 1.5, 4)) -> Volume:
    return open_image(array_xyz, np.diag([*spacing_xyz, 1]))[0]


@pytest.mark.parametrize("are_regions", [False, True])
def test_an_image_of_zeros_is_background_where_only_other_voxels_count(model, are_regions):
    inside = Normalization(kind="zscore", inside_mask=True)
    how = model.configuration.preprocessing.model_copy(update={"normalization": (inside,)})
    labels = model.plan.labels
    if are_regions:
        regions = {"all": (3, 7), "bright": (3,), "dark": (7,)}
        drawn = tuple(Region(name=name, values=values, painted=values[0]) for name, values in regions.items())
        labels = labels.model_copy(update={"regions": drawn})
    chosen = model.configuration.model_copy(update={"preprocessing": how})
    plan = model.plan.model_copy(update={"labels": labels, "configurations": {"3d_fullres": chosen}})
    model = Model(plan=plan, configuration=chosen, weights=model.weights, mirror_axes=())
    predictor = Predictor.of(model, device="cpu", precision="fp32")
    array = np.zeros((20, 18, 10), np.int16)
    mask = predictor(volume_of(array)).array
    assert mask.shape == (1, 10, 18, 20)
    assert not mask.any()
    (slab,) = predictor.slabs(predictor.prepare(volume_of(array)), by_member=True)
    assert slab.member_count == 1
    assert dense([slab]).shape == (3, 10, 18, 20)
    array[4:9, 5:9, 2:8] = blocks_case(0)[0][4:9, 5:9, 2:8]
    assert predictor(volume_of(array)).array.any()


class Collecting:
    """A sink that keeps the logits of every fold."""

    def __init__(self) -> None:
        self.blocks = []

    def add(self, slab: Slab) -> None:
        block = (slice(slab.start, slab.stop), slice(None), slice(None))
        self.blocks.append(torch.stack([slab.logits(block, member) for member in range(slab.member_count)]))


def test_sinks_see_every_slab_and_the_parts_are_timed(model):
    torch.manual_seed(5)
    weights = model.weights | {"1": build_network(SPEC).state_dict()}
    two = Model(plan=model.plan, configuration=model.configuration, weights=weights, mirror_axes=(1,))
    predictor = Predictor.of(two, device="cpu", precision="fp32")
    prepared = predictor.prepare(volume_of(blocks_case(2, (20, 30, 40))[0]))
    sink = Collecting()
    watch = Stopwatch()
    classes = predictor.classes(prepared, [sink], by_member=True, watch=watch)
    logits = torch.cat(sink.blocks, 2)
    assert logits.shape == (2, 3, *prepared.image.shape[1:])
    np.testing.assert_array_equal(predictor.finish(classes), np.array([0, 3, 7])[classes])
    np.testing.assert_array_equal(classes, restored(predictor.slabs(prepared), prepared.record))
    torch.testing.assert_close(logits.mean(0), dense(predictor.slabs(prepared)), rtol=1e-4, atol=1e-5)
    times = watch.times("a")
    assert times.case == "a"
    assert min(times.network_s, times.restore_s) > 0 == times.read_s


SPEC_2D = {"strides": ((1, 1, 1), (1, 2, 2)), "kernels": ((1, 3, 3), (1, 3, 3))}


@pytest.mark.parametrize("shape", [(12, 9, 4), (40, 30, 1), (7, 41, 13)])
@pytest.mark.parametrize("is_2d, classes", [(True, 3), (False, 3), (True, 110), (False, 110)])
def test_small_images_single_slices_slices_of_2d_models_and_many_classes(shape, is_2d, classes):
    torch.manual_seed(6)
    network = spec(classes=classes, **(SPEC_2D if is_2d else {}))
    spacing = (None if is_2d else 4.0, 1.5, 1.0)
    how = Preprocessing(axis_order=(0, 1, 2), spacing_mm=spacing, normalization=(Normalization(kind="zscore"),))
    patch = (1, 16, 16) if is_2d else (8, 16, 16)
    chosen = configuration(how, network).model_copy(update={"patch_size": patch})
    names = ("background", *(f"label {number}" for number in range(1, classes)))
    labels = LabelSet(names=names, values=tuple(range(0, 10 * classes, 10)))
    plan = Plan(
        dataset="made up", preset="plain", gpu_memory_gb=8, as_published=False,
        channels=ONE, labels=labels, training_cases=4, configurations={"3d_fullres": chosen}, reasons=(),
    )  # fmt: skip
    weights = {"0": build_network(network).state_dict()}
    model = Model(plan=plan, configuration=chosen, weights=weights, mirror_axes=(1, 2))
    predictor = Predictor.of(model, device="cpu", precision="fp32")
    volume = volume_of(np.random.default_rng(0).normal(size=shape).astype(np.float32), (2, 2, 6))
    prepared = predictor.prepare(volume)
    assert dense(predictor.slabs(prepared)).shape == (classes, *prepared.record.shape)
    mask = predictor(volume).array[0]
    assert mask.shape == shape[::-1]
    assert set(np.unique(mask)) <= set(labels.values)
    assert len(np.unique(mask)) > 1


def test_convolutions_hold_16_bit_weights_and_the_last_layer_float32():
    network = in_precision(build_network(spec(classes=40)), torch.bfloat16)
    kinds = {name: weight.dtype for name, weight in network.named_parameters()}
    assert kinds["encoder.0.0.0.weight"] == kinds["up.0.weight"] == torch.bfloat16
    assert kinds["encoder.0.0.1.weight"] == kinds["heads.0.weight"] == torch.float32  # a norm, the last layer
    again = build_network(spec(classes=40))
    again.load_state_dict(network.state_dict())
    image = torch.randn(1, 1, 8, 16, 16)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(network.eval()(image), in_precision(again, torch.float32).eval()(image))


def test_one_channel_does_not_lose_the_layout():
    """Whether a convolution gives its layout on is the processor's; with one channel it must do as with two."""
    has_layout = {}
    for channels in (1, 2):
        network = build_network(spec(in_channels=channels))
        network = fastest_layout(in_precision(network, torch.bfloat16)).eval()
        first = next(weight for weight in network.parameters() if weight.ndim == 5)
        assert first.stride()[1] == 1  # channels last, also where one channel makes both layouts the same memory
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            found = network.encoder[0][0](torch.randn(1, channels, 8, 16, 16))
        has_layout[channels] = found.is_contiguous(memory_format=torch.channels_last_3d)
    assert has_layout[1] == has_layout[2]


def test_compiling_is_for_long_predictions_on_cuda_and_has_a_way_back(monkeypatch, capsys):
    cuda = torch.device("cuda")
    cpu = torch.device("cpu")
    assert not compiling_pays_in_prediction(cuda, 8 * 18)  # one image
    assert compiling_pays_in_prediction(cuda, 100 * 8 * 18)
    assert not compiling_pays_in_prediction(cpu, 10**6)

    calls = []

    def compile(function, **how):
        def broken(image):
            calls.append(image.shape)
            raise RuntimeError("no compiler\nat all")

        return broken

    monkeypatch.setattr(torch, "compile", compile)
    image = torch.randn(1, 1, 8, 16, 16)
    network = build_network(spec()).eval()
    with torch.inference_mode():
        wanted = network(image)
        compiled = compile_network(network)
        assert torch.equal(compiled(image), wanted)
        compiled(image)
    assert len(calls) == 1
    assert capsys.readouterr().out == "note: torch.compile is not usable here, going on without it: no compiler\n"


def test_a_prediction_sees_to_its_card_before_networks_are_there(model, monkeypatch):
    calls = []
    for name in ("keep_to_device_memory", "tune_convolutions"):
        monkeypatch.setattr(predictor_module, name, lambda device, name=name: calls.append(name))
    monkeypatch.setattr(predictor_module, "ready_networks", lambda *given, **more: calls.append("networks") or ())
    Predictor.of(model, device="cpu", precision="fp32")
    assert calls == ["keep_to_device_memory", "tune_convolutions", "networks"]


def test_smaller_batches_are_filled_up_for_the_compiler(monkeypatch):
    """One program for a folder of images, and a new one only after memory ran out."""
    torch._dynamo.reset()
    counter = CompileCounter()
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **how: real(function, backend=counter, **how))
    network = build_network(spec()).eval()
    batches = [torch.randn(number, 1, 8, 16, 16) for number in (4, 1, 3, 4)]
    with torch.inference_mode():
        wanted = [network(batch) for batch in batches]
        compiled = compile_network(network)
        for batch, logits in zip(batches, wanted):
            torch.testing.assert_close(compiled(batch), logits, rtol=1e-5, atol=1e-5)
        assert counter.frame_count == 1
    torch._dynamo.reset()


def test_a_batch_that_had_no_memory_is_not_filled_up_again(monkeypatch):
    sizes = []

    def compile(function, **how):
        def run(image):
            sizes.append(len(image))
            if len(image) > 2:
                raise RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")
            return function(image)

        return run

    monkeypatch.setattr(torch, "compile", compile)
    run = with_way_back(lambda image: image)
    with pytest.raises(RuntimeError, match="ALLOC_FAILED"):
        run(torch.zeros(4, 1))
    assert len(run(torch.zeros(2, 1))) == 2
    assert len(run(torch.zeros(1, 1))) == 1
    assert sizes == [4, 2, 2]


def test_a_memory_limit_is_kept_or_refused_with_what_is_missing(model, capsys):
    volume = volume_of(blocks_case(2, (20, 30, 40))[0])
    wanted = Predictor.of(model, device="cpu", precision="fp32")(volume).array
    with pytest.raises(UserError, match=r"^max_memory_gb is 0.01, but the program and its networks alone take"):
        Predictor.of(model, device="cpu", precision="fp32", max_memory_gb=0.01)
    roomy = Predictor.of(model, device="cpu", precision="fp32", max_memory_gb=60.0)
    assert 50 * GIGABYTE < roomy.room_bytes < 60 * GIGABYTE
    with pytest.raises(UserError, match=r"GB of memory more than it may take, even with its sums on disk"):
        roomy.with_room(1000.0)(volume)
    np.testing.assert_array_equal(roomy(volume).array, wanted)
    assert "sums" not in capsys.readouterr().out


def test_restoring_that_does_not_fit_on_the_device_goes_on_on_the_host(model, monkeypatch, capsys):
    """A stand-in for a GPU: the meta device holds no values, and the first try runs out of memory."""
    predictor = Predictor.of(model, device="cpu", precision="fp32")
    prepared = predictor.prepare(volume_of(blocks_case(2, (20, 18, 12))[0]))
    wanted = predictor.classes(prepared)
    whole = one_slab(dense(predictor.slabs(prepared)))
    add = Restoring.add
    on_meta = replace(whole, channels_azyx=whole.channels_azyx.to("meta"))

    def out_of_memory_on_the_device(restoring, slab):
        if slab.channels_azyx.device.type != "cpu":
            raise torch.OutOfMemoryError("CUDA out of memory")
        add(restoring, slab)

    monkeypatch.setattr(Predictor, "slabs", lambda *_: iter([on_meta]))
    monkeypatch.setattr(Slab, "on_host", lambda slab: whole)
    monkeypatch.setattr(Restoring, "add", out_of_memory_on_the_device)
    np.testing.assert_array_equal(predictor.classes(prepared), wanted)
    assert "kept on the host" in capsys.readouterr().out


def test_a_predictor_is_used_for_many_cases_and_leaves_them_as_they_are(model):
    predictor = Predictor.of(model, device="cpu", precision="fp32")
    volumes = [volume_of(blocks_case(number, (20, 18, 10 + number))[0]) for number in range(3)]
    before = [volume.array.copy() for volume in volumes]
    first = [predictor(volume).array for volume in volumes]
    assert [mask.shape[1] for mask in first] == [10, 11, 12]
    for volume, array, mask in zip(volumes, before, first):
        np.testing.assert_array_equal(volume.array, array)
        np.testing.assert_array_equal(predictor(volume).array, mask)
