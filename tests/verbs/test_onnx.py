"""Networks written as ONNX and the runner that goes with them: the masks of ``segfw predict``, without segfw."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy import ndimage

from builders.data import blocks_case
from builders.models import cascade_model, plan_of, small_model, write_fold
from builders.networks import spec
from builders.training import ZSCORE, configuration
from segfw.base.records import UserError
from segfw.cli import main
from segfw.dataset.cases import Channel
from segfw.dataset.labels import LabelSet, Region
from segfw.grid.normalize import IntensityStats, Normalization
from segfw.grid.preprocess import Preprocessing, stack_channels
from segfw.grid.resample import axis_matrix
from segfw.images.formats import read_volume
from segfw.inference.predictor import Predictor
from segfw.model.load import load_model
from segfw.onnx import runner
from segfw.onnx.pipeline import pipeline_of
from segfw.onnx.write_network import with_stock_norms
from segfw.planning.plan import PLAN_FILE
from segfw.verbs.export_onnx import export_onnx

REASON = "needs the extra 'onnx' (pip install 'segfw[onnx]')"
STATS = IntensityStats(
    mean=100.0, std=30.0, minimum=0.0, maximum=250.0, median=100.0, percentile_00_5=60.0, percentile_99_5=150.0
)
CT = Normalization(kind="ct", stats=STATS)
MASKED = Normalization(kind="zscore", inside_mask=True)
OBLIQUE = np.array([[-0.9, 0.2, 0.3, 30.0], [0.25, 1.4, -0.4, -9.0], [-0.2, 0.3, 3.9, 5.0], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def onnxruntime():
    for name in ("onnx", "onnxscript"):
        pytest.importorskip(name, reason=REASON)
    return pytest.importorskip("onnxruntime", reason=REASON)


def plain(folder: Path) -> None:
    """Two folds, one channel, mirrored along two axes, spacing 4 x 1.5 x 1 mm."""
    chosen = configuration(ZSCORE, spec(features=(4, 8)))
    plan_of(chosen).save(folder / PLAN_FILE)
    for seed, fold in enumerate(("0", "1")):
        write_fold(folder, chosen, fold, (0, 2), seed)


def regions(folder: Path) -> None:
    """Two channels, one of them inside a mask, regions, and axes in another order than in the file."""
    order = {"axis_order": (1, 0, 2), "spacing_mm": (1.3, 3.0, 1.1), "normalization": (CT, MASKED)}
    chosen = configuration(Preprocessing(**order), spec(in_channels=2, classes=2, features=(4, 8)))
    parts = Region(name="all", values=(3, 7), painted=3), Region(name="core", values=(7,), painted=7)
    labels = LabelSet(names=("background", "rim", "core"), values=(0, 3, 7), ignore=9, regions=parts)
    plan_of(chosen, labels=labels, channels=(Channel(name="CT"), Channel(name="T1"))).save(folder / PLAN_FILE)
    write_fold(folder, chosen, "0", (1,), seed=2)


def sides(folder: Path) -> None:
    """Left and right change places along x in the mirror; thick slices, for which x and y are resampled alone."""
    rescale = (Normalization(kind="rescale"),)
    how = Preprocessing(axis_order=(0, 1, 2), spacing_mm=(6.0, 1.2, 1.2), normalization=rescale)
    network = spec(classes=4, features=(4, 8), kernels=((1, 3, 3), (3, 3, 3)), strides=((1, 1, 1), (1, 2, 2)))
    changes = {"patch_size": (4, 16, 16), "swapped_labels": ((2, 1, 3),)}
    chosen = configuration(how, network).model_copy(update=changes)
    labels = LabelSet(names=("background", "left", "middle", "right"), values=(0, 300, 1, -2))
    plan_of(chosen, labels=labels).save(folder / PLAN_FILE)
    write_fold(folder, chosen, "all", (1, 2), seed=4)


def slices(folder: Path) -> None:
    """A 2-D configuration: each image's own distance of slices."""
    how = Preprocessing(
        axis_order=(0, 1, 2), spacing_mm=(None, 1.3, 1.3), normalization=(Normalization(kind="zscore"),)
    )
    network = spec(features=(4, 8), kernels=((1, 3, 3), (1, 3, 3)), strides=((1, 1, 1), (1, 2, 2)))
    changes = {"name": "2d", "patch_size": (1, 16, 12)}
    chosen = configuration(how, network).model_copy(update=changes)
    plan_of(chosen).save(folder / PLAN_FILE)
    write_fold(folder, chosen, "0", (1, 2), seed=5)


def as_stored(folder: Path) -> None:
    """Axes as they lie in the file, as nnU-Net has them."""
    how = ZSCORE.model_copy(update={"orientation": "as stored", "axis_order": (2, 0, 1)})
    chosen = configuration(how, spec(features=(4, 8)))
    plan_of(chosen).save(folder / PLAN_FILE)
    write_fold(folder, chosen, "0", (), seed=6)


def turned(folder: Path) -> None:
    """Axes turned to those of the training images, as the import of a model of nnU-Net's can ask for."""
    how = ZSCORE.model_copy(update={"orientation": "LPS", "axis_order": (2, 0, 1)})
    chosen = configuration(how, spec(features=(4, 8)))
    plan_of(chosen).save(folder / PLAN_FILE)
    write_fold(folder, chosen, "0", (), seed=6)


def imported(folder: Path) -> None:
    """The size of voxels as nibabel has it after turning images to RAS: stated beside the axes or not."""
    how = ZSCORE.model_copy(update={"voxel_size": "stated in RAS"})
    chosen = configuration(how, spec(features=(4, 8)))
    plan_of(chosen).save(folder / PLAN_FILE)
    write_fold(folder, chosen, "0", (), seed=7)


MODELS = {model.__name__: model for model in (plain, regions, sides, slices, as_stored, turned, imported)}


@pytest.fixture(scope="module")
def export_of(onnxruntime, tmp_path_factory):
    """Gives model folder and export of a row of MODELS, made once."""

    @cache
    def make(name: str) -> tuple[Path, Path]:
        folder = tmp_path_factory.mktemp(name)
        (folder / "work").mkdir()
        MODELS[name](folder / "work")
        export_onnx(folder / "work", folder / "onnx")
        return folder / "work", folder / "onnx"

    return make


@pytest.fixture(scope="module")
def sessions(onnxruntime):
    """Opens the networks of an export; one thread, as waiting ones would take the processor from other tests."""

    def open_all(folder: Path, names: list[str]) -> list:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        return [onnxruntime.InferenceSession(folder / name, options) for name in names]

    return open_all


def write_image(path: Path, array_xyz: np.ndarray, affine: np.ndarray, stated: tuple[float, ...] = ()) -> Path:
    image = nibabel.Nifti1Image(array_xyz, affine)
    image.header["pixdim"][1 : 1 + len(stated)] = stated
    nibabel.save(image, path)
    return path


def image_files(folder: Path, channels: int, kind: str) -> list[Path]:
    """One file per channel: with an empty border and holes inside, on grids of many kinds."""
    shape = {"small": (9, 7, 3), "slice": (26, 22, 1)}.get(kind, (22, 19, 11))
    rng = np.random.default_rng(len(kind))
    image = np.zeros(shape, np.float32)
    inner = tuple(slice(min(2, n // 3), n - min(1, n // 3)) for n in shape)
    blocks = blocks_case(3, (24, 24, 12))[0][tuple(slice(0, part.stop - part.start) for part in inner)]
    image[inner] = blocks
    affine = {"oblique": OBLIQUE, "thick": np.diag([1.0, 1.1, 5.2, 1.0])}.get(kind, np.diag([1.3, 1.1, 3.1, 1.0]))
    if kind == "flipped":  # stored along y, z, x, two of them downwards
        affine = np.array([[0, 0, -1.2, 9], [1.4, 0, 0, 2], [0, -3.7, 0, 8], [0, 0, 0, 1.0]])
        image = image.transpose(1, 2, 0)[:, ::-1].copy()
    files = []
    for channel in range(channels):
        part = image + (image > 0) * rng.normal(0, 3 + 20 * channel, image.shape)
        part[tuple(n // 2 for n in shape) if kind != "flipped" else (9, 5, 11)] = 0  # a hole
        stored = part.astype(np.int16 if channel == 0 else np.float64)
        stated = (1.1, 1.3, 2.3) if kind == "stated" else ()  # not what the axes measure
        files.append(write_image(folder / f"{kind}_{channel}.nii.gz", stored, affine, stated))
    return files


class Nudged:
    """A network whose logit of one class is a little larger or smaller: who wins by less is a tie."""

    def __init__(self, session, index: int, by: float) -> None:
        self.session = session
        self.index = index
        self.by = by

    def run(self, names, feed):
        (logits,) = self.session.run(names, feed)
        logits[:, self.index] += self.by
        return (logits,)


def ties(read, pipeline, networks, outputs: int) -> np.ndarray:
    masks = [
        runner.segment(*read, pipeline, [Nudged(network, index, by) for network in networks])
        for index in range(outputs)
        for by in (-1e-4, 1e-4)
    ]
    return np.any([mask != masks[0] for mask in masks], axis=0)


@pytest.mark.parametrize("kind", ["plain", "oblique", "flipped", "thick", "small", "slice", "stated"])
@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_runner_gives_the_masks_of_predict(export_of, sessions, tmp_path, name, kind):
    work, folder = export_of(name)
    model = load_model(work)
    files = image_files(tmp_path, len(model.plan.channels), kind)
    wanted = Predictor.of(model, device="cpu", precision="fp32")(
        stack_channels([read_volume(file) for file in files])
    ).array[0]
    pipeline = json.loads((folder / "pipeline.json").read_text())
    networks = sessions(folder, pipeline["networks"])
    read = runner.read(files)
    found = runner.segment(*read, pipeline, networks)
    assert found.shape == wanted.shape == read_volume(files[0]).geometry.shape
    assert len(np.unique(wanted)) > 1
    differs = found != wanted
    if differs.any():  # float32 adds in another order
        assert not (differs & ~ties(read, pipeline, networks, model.plan.labels.outputs)).any()
    assert differs.sum() <= 3


@pytest.mark.parametrize("name", ["regions", "sides"])
def test_the_runner_alone_writes_a_mask_without_segfw_torch_or_scipy(export_of, tmp_path, name):
    work, folder = export_of(name)
    model = load_model(work)
    files = image_files(tmp_path, len(model.plan.channels), "flipped")
    moved = shutil.copytree(folder, tmp_path / "moved")
    blocked = ("segfw", "torch", "scipy", "SimpleITK", "monai", "pydantic", "safetensors", "onnx")
    code = (
        "import sys, runpy\n"
        f"for name in {blocked}: sys.modules[name] = None\n"
        f"sys.argv = {['predict.py', *map(str, files), str(tmp_path / 'mask.nii.gz')]}\n"
        f"runpy.run_path({str(moved / 'predict.py')!r}, run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    image, mask = (nibabel.load(path) for path in (files[0], tmp_path / "mask.nii.gz"))
    np.testing.assert_allclose(mask.affine, image.affine, atol=1e-5)
    predictor = Predictor.of(model, device="cpu", precision="fp32")
    wanted = predictor(stack_channels([read_volume(file) for file in files])).array[0].transpose(2, 1, 0)
    assert mask.shape == wanted.shape
    assert (np.asanyarray(mask.dataobj) != wanted).sum() <= 3
    assert np.asanyarray(mask.dataobj).dtype == (np.int16 if wanted.max() > 255 or wanted.min() < 0 else np.uint8)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_description_is_complete_and_names_nobody(export_of, name):
    work, folder = export_of(name)
    text = (folder / "pipeline.json").read_text()
    pipeline = json.loads(text)
    model = load_model(work)
    assert pipeline["labels"]["values"] == list(model.plan.labels.values)
    assert pipeline["tiles"]["patch_size"] == list(model.configuration.patch_size)
    assert pipeline["tiles"]["mirror_axes"] == list(model.mirror_axes)
    assert pipeline["folds"] == list(model.weights)
    assert pipeline["channels"] == [channel.name for channel in model.plan.channels]
    assert str(work.parent) not in text
    assert not re.search(rb"/(home|tmp|root|work|Users)/", b"".join(path.read_bytes() for path in folder.iterdir()))


def test_sides_change_places_in_the_mirror(export_of, sessions, tmp_path):
    """Without the exchange the masks would be others, so the comparison above means something."""
    folder = export_of("sides")[1]
    pipeline = json.loads((folder / "pipeline.json").read_text())
    assert pipeline["tiles"]["output_orders_by_mirror_axis"] == {"2": [0, 3, 2, 1]}
    networks = sessions(folder, pipeline["networks"])
    read = runner.read(image_files(tmp_path, 1, "plain"))
    found = runner.segment(*read, pipeline, networks)
    pipeline["tiles"]["output_orders_by_mirror_axis"] = {}
    assert (runner.segment(*read, pipeline, networks) != found).sum() > 20


def test_any_batch_and_a_version_of_operators_that_is_said(export_of, sessions):
    import onnx

    folder = export_of("plain")[1]
    pipeline = json.loads((folder / "pipeline.json").read_text())
    assert pipeline["networks"] == ["network_fold_0.onnx", "network_fold_1.onnx"]
    session = sessions(folder, pipeline["networks"])[0]
    batch = np.random.default_rng(0).normal(size=(3, 1, 8, 16, 16)).astype(np.float32)
    (together,) = session.run(None, {"image": batch})
    apart = [session.run(None, {"image": sample[None]})[0] for sample in batch]
    np.testing.assert_allclose(together, np.concatenate(apart), atol=1e-5)
    assert together.shape == (3, 3, 8, 16, 16)
    versions = {entry.domain: entry.version for entry in onnx.load(folder / "network_fold_0.onnx").opset_import}
    assert versions[""] == pipeline["opset"] == 18


def test_what_export_says_and_the_licence(onnxruntime, tmp_path, capsys):
    (tmp_path / "LICENCE").write_text("Free for all\n")
    arguments = ["export", str(small_model(tmp_path / "work")), str(tmp_path / "onnx"), "--onnx", "--licence"]
    (tmp_path / "work" / "runs" / "3d_fullres" / "postprocessing.json").write_text('{"steps": []}')
    assert main([*arguments, str(tmp_path / "LICENCE")]) == 0
    printed = capsys.readouterr().out
    assert "1 network of 3d_fullres, opset 18" in printed
    assert "note: runs/3d_fullres/postprocessing.json is not part of it" in printed
    assert re.search(r"PyTorch and onnxruntime differ by \de-\d\d of the largest at most", printed)
    assert (tmp_path / "onnx" / "LICENCE.txt").read_text() == "Free for all\n"
    assert json.loads((tmp_path / "onnx" / "pipeline.json").read_text())["licence"] == "see LICENCE.txt"
    assert main([*arguments, "MIT"]) == 2
    assert "onnx: exists; give another name, or --overwrite" in capsys.readouterr().err


def test_an_old_export_stays_until_the_new_one_is_in_its_place(onnxruntime, tmp_path, monkeypatch):
    work = small_model(tmp_path / "work")
    folder = tmp_path / "onnx"
    folder.mkdir()
    (folder / "pipeline.json").write_text("old")
    rename = Path.rename
    asked = []

    def fails_once(self, target):
        if target == folder and not asked:
            asked.append(self)
            raise OSError("the disk is full")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails_once)
    with pytest.raises(OSError, match="the disk is full"):
        export_onnx(work, folder, overwrite=True)
    assert (folder / "pipeline.json").read_text() == "old"
    export_onnx(work, folder, overwrite=True)
    assert json.loads((folder / "pipeline.json").read_text())["folds"] == ["0"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["onnx", "work"]


def test_folders_that_are_in_the_way_cascades_and_missing_packages(onnxruntime, tmp_path, monkeypatch):
    work = small_model(tmp_path / "work")
    with pytest.raises(UserError, match="second stage of a cascade, which --onnx does not write; export it without"):
        export_onnx(cascade_model(tmp_path / "cascade"), tmp_path / "onnx", configuration="3d_cascade_fullres")
    with pytest.raises(UserError, match="go into a folder; give a name without ending"):
        export_onnx(work, tmp_path / "model.onnx")
    with pytest.raises(UserError, match="exists; give another name, which is not there yet"):
        export_onnx(work, work, overwrite=True)  # no export, so it is not replaced
    assert (work / PLAN_FILE).is_file()
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(
        UserError, match=r"--onnx needs the package onnxscript; install it with pip install 'segfw\[onn"
    ):
        export_onnx(work, tmp_path / "onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cascade", "work"]


def test_a_network_that_cannot_be_written_leaves_nothing(onnxruntime, tmp_path):
    import torch

    class Odd(torch.nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, image):
            logits = self.network(image)
            return logits * (2 if float(logits.sum()) > 0 else 3)  # depends on values, which no graph can

        def load_state_dict(self, weights):
            self.network.load_state_dict(weights)

    from segfw.networks import build_network

    with pytest.raises(UserError, match="plain-unet cannot be written as ONNX .*; export it without --onnx"):
        export_onnx(small_model(tmp_path / "work"), tmp_path / "onnx", build=lambda spec: Odd(build_network(spec)))
    assert [path.name for path in tmp_path.iterdir()] == ["work"]


@pytest.mark.parametrize("old, new", [(1, 4), (2, 3), (3, 7), (5, 5), (20, 7), (7, 20), (50, 13), (61, 90)])
@pytest.mark.parametrize("order", [0, 1, 3])
def test_the_runners_resampling_is_scipys(old, new, order):
    np.testing.assert_allclose(runner.resizing(old, new, order), axis_matrix(old, new, order).numpy(), atol=1e-7)


def test_the_runners_holes_are_scipys():
    rng = np.random.default_rng(1)
    for shape, share in (((9, 8, 7), 0.5), ((6, 12, 5), 0.65), ((1, 9, 9), 0.6), ((4, 4, 4), 0.0), ((4, 4, 4), 1.0)):
        mask = rng.random(shape) < share
        assert np.array_equal(runner.filled_holes(mask), ndimage.binary_fill_holes(mask))
    shell = np.zeros((7, 7, 7), bool)
    shell[1:6, 1:6, 1:6] = True
    shell[2:5, 2:5, 2:5] = False
    assert runner.filled_holes(shell).sum() == 125
    shell[1, 3, 3] = False  # a way out
    assert runner.filled_holes(shell).sum() == 125 - 27 - 1


def test_the_runner_normalises_inside_a_mask_slice_by_slice_and_not_voxel_by_voxel(monkeypatch):
    channel = np.random.default_rng(0).normal(50, 9, (5, 8, 7)).astype(np.float32)
    filled = np.random.default_rng(1).random(channel.shape) < 0.5
    calls = []
    square = np.square
    monkeypatch.setattr(runner.np, "square", lambda *given, **how: calls.append(1) or square(*given, **how))
    found = runner.normalized(channel, {"kind": "zscore", "inside_mask": True}, filled)
    assert len(calls) == 5
    inside = channel[filled].astype(np.float64)
    np.testing.assert_allclose(found[filled], (inside - inside.mean()) / inside.std(), atol=1e-5)
    assert not found[~filled].any()


def test_what_the_runner_refuses(tmp_path):
    image = blocks_case(1)[0]
    first = write_image(tmp_path / "a.nii.gz", image, np.eye(4))
    moved = write_image(tmp_path / "b.nii.gz", image, np.diag([2.0, 1, 1, 1]))
    with pytest.raises(SystemExit, match="b.nii.gz: lies on another grid than .*a.nii.gz; resample the channels"):
        runner.read([first, moved])
    broken = write_image(tmp_path / "c.nii.gz", np.full((4, 4, 4), np.nan, np.float32), np.eye(4))
    with pytest.raises(SystemExit, match="c.nii.gz: holds values that are infinite or no numbers"):
        runner.read([broken])
    empty = write_image(tmp_path / "d.nii.gz", np.zeros((4, 4, 4), np.int16), np.eye(4))
    with pytest.raises(SystemExit, match="d.nii.gz: every voxel has the same value; export the image again"):
        runner.read([empty])
    other = tmp_path / "e.mgz"
    nibabel.save(nibabel.MGHImage(image.astype(np.float32), np.eye(4)), other)
    with pytest.raises(SystemExit, match="e.mgz: is no NIfTI image; convert it first"):
        runner.read([other])
    with pytest.raises(SystemExit, match="usage: python predict.py IMAGE"):
        runner.main(["a.nii.gz"])
    described = {"channels": ["CT", "T1"], "preprocessing": {}, "labels": {}}
    with pytest.raises(SystemExit, match=r"the image has 1 channels, but the networks take 2 \(CT, T1\)"):
        runner.segment(image[None], np.eye(4), (1, 1, 1), described, [])


@pytest.fixture
def typed(export_of, sessions, monkeypatch):
    """Calls the runner as ``python predict.py ...`` in a folder; what it ended with, or nothing."""
    folder = export_of("sides")[1]
    networks = sessions(folder, json.loads((folder / "pipeline.json").read_text())["networks"])

    def call(folder: Path, *arguments: str | Path, opened: list | None = networks) -> str:
        monkeypatch.setattr(runner, "__file__", str(folder / "predict.py"))
        if opened is not None:  # to open them for every call would take the time of all the rest
            monkeypatch.setattr(runner, "open_networks", lambda folder, files: opened)
        try:
            runner.main([str(argument) for argument in arguments])
        except SystemExit as end:
            return str(end.code)
        return ""

    return call


def test_files_that_the_runner_cannot_read_or_write_end_in_a_sentence(export_of, typed, tmp_path):
    folder = export_of("sides")[1]
    image = image_files(tmp_path, 1, "small")[0]
    mask = tmp_path / "mask.nii.gz"
    assert typed(folder, image, mask) == ""
    assert nibabel.load(mask).shape == nibabel.load(image).shape
    missing = tmp_path / "missing.nii.gz"
    assert typed(folder, missing, mask) == f"{missing}: no such file; give NIfTI images, one for each channel"
    text = tmp_path / "text.nii.gz"
    text.write_text("no image")
    assert typed(folder, text, mask).startswith(f"{text}: ")
    cut = tmp_path / "cut.nii.gz"
    (tmp_path / "large").mkdir()
    cut.write_bytes(image_files(tmp_path / "large", 1, "plain")[0].read_bytes()[:-400])
    found = typed(folder, cut, mask)
    assert found.startswith(f"{cut}: cannot be read (")
    assert found.endswith("); copy or export the file again")
    assert typed(folder, image, tmp_path / "mask.png") == (
        f"{tmp_path / 'mask.png'}: a mask is written as .nii or .nii.gz; give a name that ends so"
    )
    nowhere = tmp_path / "nowhere" / "mask.nii"
    assert typed(folder, image, nowhere) == f"{nowhere}: there is no folder {nowhere.parent}; make it first"


def test_networks_that_are_missing_damaged_or_of_another_model(export_of, typed, sessions, tmp_path):
    folder = shutil.copytree(export_of("sides")[1], tmp_path / "out")
    arguments = image_files(tmp_path, 1, "small")[0], tmp_path / "mask.nii.gz"
    others = sessions(export_of("regions")[1], ["network_fold_0.onnx"])
    found = typed(folder, *arguments, opened=others)
    assert found.startswith("pipeline.json: does not fit the networks (")
    assert found.endswith("); get the whole folder of the export again")


def test_networks_are_opened_or_named(export_of, tmp_path):
    folder = shutil.copytree(export_of("sides")[1], tmp_path / "out")
    path = folder / "network_fold_all.onnx"
    assert len(runner.open_networks(folder, [path.name])) == 1
    path.write_bytes(b"no network")
    with pytest.raises(
        SystemExit, match=r"network_fold_all.onnx: is no ONNX network that can be run \(.*\); get the who"
    ):
        runner.open_networks(folder, [path.name])
    path.unlink()
    with pytest.raises(SystemExit, match=r"network_fold_all.onnx: no such file; get the whole folder of the export"):
        runner.open_networks(folder, [path.name])


def test_what_the_networks_give_must_be_numbers(export_of, typed, tmp_path):
    class Broken:
        def run(self, names, feed):
            return (np.full((1, 4, *feed["image"].shape[2:]), np.nan, np.float32),)

    arguments = image_files(tmp_path, 1, "small")[0], tmp_path / "mask.nii.gz"
    found = typed(export_of("sides")[1], *arguments, opened=[Broken()])
    assert found == "what the networks give is no number (NaN or infinite); the image or the networks are damaged"
    assert not (tmp_path / "mask.nii.gz").exists()


def places(held: object, path: tuple = ()) -> list[tuple]:
    """Where a value stands in nested objects and lists, every one."""
    inner = held.items() if isinstance(held, dict) else enumerate(held) if isinstance(held, list) else ()
    return [path] * bool(path) + [place for key, value in inner for place in places(value, (*path, key))]


def changed(held: dict, place: tuple, value: object) -> dict:
    """A copy with another value there, or without it if the value is Ellipsis."""
    copy = json.loads(json.dumps(held))
    holder = copy
    for key in place[:-1]:
        holder = holder[key]
    if value is ...:
        del holder[place[-1]]
    else:
        holder[place[-1]] = value
    return copy


def test_every_field_of_the_pipeline_left_out_or_altered_gives_a_mask_or_a_sentence(export_of, typed, tmp_path):
    work, folder = export_of("sides")
    pipeline = json.loads((folder / "pipeline.json").read_text())
    arguments = image_files(tmp_path, 1, "small")[0], tmp_path / "mask.nii.gz"
    (tmp_path / "out").mkdir()
    file = tmp_path / "out" / "pipeline.json"
    refused = set()
    for place in [place for place in places(pipeline) if "steps" not in place]:  # these are for people
        for value in (..., None, "x", -1, 0, [], {}, float("nan")):
            file.write_text(json.dumps(changed(pipeline, place, value)))
            said = typed(file.parent, *arguments)
            assert "\n" not in said, place
            if said:
                refused.add(place)
                assert re.match(r"(\S*pipeline.json: |what the networks give|the image has)", said), (
                    place,
                    value,
                    said,
                )
    needed = {tuple(name.split(".")) for name in runner.FIELDS}
    assert needed <= refused
    assert ("dataset",) not in refused  # what is only told
    for text in ("{", "[]", "", "[" * 200_000, b"\xff\xfe\x00"):
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        assert typed(file.parent, *arguments).startswith(f"{file}: ")


def test_stock_norms_are_put_into_a_copy():
    import torch

    from segfw.networks import build_network

    network = build_network(spec()).eval()
    copy = with_stock_norms(network)
    kinds = {type(module) for module in copy.modules()}
    assert torch.nn.InstanceNorm3d in kinds
    assert torch.nn.InstanceNorm3d not in {type(module) for module in network.modules()}
    image = torch.randn(1, 1, 8, 16, 16)
    torch.testing.assert_close(copy(image), network(image), atol=1e-5, rtol=1e-5)


def test_voxel_sizes_of_pictures_are_none_of_the_runner(tmp_path):
    imported(tmp_path)
    model = load_model(tmp_path)
    how = model.configuration.preprocessing.model_copy(update={"voxel_size": "unit"})
    chosen = model.configuration.model_copy(update={"preprocessing": how})
    with pytest.raises(UserError, match="resamples otherwise than ONNX's pipeline does"):
        pipeline_of(replace(model, configuration=chosen), [])
