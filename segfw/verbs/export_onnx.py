"""A trained model as ONNX networks, a description of everything around them, and a runner that needs no segfw."""

from __future__ import annotations

import copy
import json
import logging
import shutil
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import segfw.onnx.runner
from segfw.base.files import partial_path, remove_partials, whole_file
from segfw.base.records import UserError
from segfw.base.words import count, first_line
from segfw.grid.resample import ANISOTROPY_LIMIT, OF_IMAGES, OF_LOGITS
from segfw.model.load import Model, load_model
from segfw.model.selection import read_selection
from segfw.model.source import ModelSource, postprocessing_name
from segfw.networks import BuildNetwork, build_network
from segfw.planning.mirroring import output_orders

OPSET = 18  # the newest that PyTorch's exporter writes without converting
PIPELINE_FILE, RUNNER_FILE, LICENCE_FILE = "pipeline.json", "predict.py", "LICENCE.txt"
LARGEST_MESSAGE = 1_800_000_000  # bytes: protobuf ends at 2 GiB, above which weights lie beside the network
MOST_DIFFERENT = 1e-3  # between both runtimes, as a share of the largest logit: the rounding of float32 lies far below
SIGMA_SHARE = 1 / 8  # of the Gaussian in inference.sliding_window


def export_onnx(
    model: Path,
    folder: Path,
    *,
    configuration: str | None = None,
    folds: tuple[str, ...] | None = None,
    best: bool = False,
    licence: str | None = None,
    overwrite: bool = False,
    build: BuildNetwork = build_network,
) -> str:
    """Writes ``folder`` with one ONNX file per fold, pipeline.json and predict.py, and returns what it did in words.

    Each network takes (batch, C, Z, Y, X) float32 with any batch and gives logits, and has been compared with PyTorch
    on noise. The folder appears whole or not at all. Raises UserError for cascades, and where a package is missing or
    the network has an operation that ONNX lacks.
    """
    _check_packages()
    folder = Path(folder)
    if folder.suffix or folder.is_file():
        raise UserError(f"{folder}: ONNX networks and their description go into a folder; give a name without ending")
    if folder.exists() and not (overwrite and (folder / PIPELINE_FILE).is_file()):
        how = "or --overwrite" if (folder / PIPELINE_FILE).is_file() else "which is not there yet"
        raise UserError(f"{folder}: exists; give another name, {how}")
    loaded = load_model(Path(model), configuration, folds, best=best)
    if loaded.previous is not None:
        raise UserError(
            f"{model}: {loaded.configuration.name} is the second stage of a cascade, which --onnx does not write; "
            "export it without --onnx, or give --configuration 3d_fullres"
        )
    partial = partial_path(folder)
    partial.mkdir(parents=True)
    try:
        files, difference = [], 0.0
        for fold, weights in loaded.weights.items():
            files.append(f"network_fold_{fold}.onnx")
            difference = max(difference, _write_network(partial / files[-1], loaded, weights, build))
        notes = _left_out(Path(model), loaded.configuration.name)
        text = json.dumps(pipeline_of(loaded, files, licence, notes), indent=1) + "\n"
        (partial / PIPELINE_FILE).write_text(text, encoding="utf-8")
        shutil.copyfile(segfw.onnx.runner.__file__, partial / RUNNER_FILE)
        if licence and Path(licence).is_file():
            shutil.copyfile(licence, partial / LICENCE_FILE)
        _put_in_place(partial, folder)
        remove_partials(folder.parent, name=folder.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    lines = [
        f"written: {folder} ({count(len(files), 'network')} of {loaded.configuration.name}, opset {OPSET})",
        f"on noise the logits of PyTorch and onnxruntime differ by {difference:.1g} of the largest at most",
        *(f"note: {note}" for note in notes),
    ]
    return "\n".join(lines)


def _put_in_place(partial: Path, folder: Path) -> None:
    """Gives a finished folder its name; what had it before goes when the new one is in its place."""
    old = partial_path(folder)
    if folder.exists():
        folder.rename(old)
    try:
        partial.rename(folder)
    except BaseException:
        if old.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def pipeline_of(model: Model, files: Sequence[str], licence: str | None = None, notes: Sequence[str] = ()) -> dict:
    """Everything that turns an image into a mask, as ``pipeline.json`` holds it and the runner reads it."""
    chosen, labels = model.configuration, model.plan.labels
    how = chosen.preprocessing
    # The runner reads NIfTI alone, and the last two rules are of pictures.
    if (how.images, how.logits) != (OF_IMAGES, OF_LOGITS) or how.voxel_size in ("side file", "unit"):
        raise UserError(f"{chosen.name} resamples otherwise than ONNX's pipeline does; export it without --onnx")
    orders = output_orders(chosen.swapped_pairs, labels)
    is_text = licence is not None and Path(licence).is_file()
    return {
        "format": "segfw onnx 1",
        "dataset": model.plan.dataset,
        "configuration": chosen.name,
        "folds": list(model.weights),
        "licence": f"see {LICENCE_FILE}" if is_text else licence,
        "not_included": list(notes),
        "networks": list(files),
        "network_input": "image: float32 (batch, channel, *patch_size), axes as in preprocessing.axis_order",
        "network_output": "logits: float32 (batch, class or region, *patch_size); the mean over networks is taken",
        "opset": OPSET,
        "channels": [channel.name for channel in model.plan.channels],
        "preprocessing": {
            "steps": [
                "canonical: axes permuted and flipped so that (z, y, x) ascend to the head, the front and the right of "
                "the patient; as stored: (z, y, x) of the file",
                "voxel_size axes: edges of voxels are the lengths of the axes; stated: NIfTI's pixdim (a slice without "
                "a third axis is 999 times as thick as a pixel is long); stated in RAS: pixdim where the axes ascend "
                "to the right, the front and the head already, else their lengths in float32",
                "cropped to the box of all voxels that are not zero in some channel",
                "axes transposed to axis_order",
                "each channel normalised; with inside_mask statistics of, and values in, the non-zero voxels with "
                "their holes filled, 0 elsewhere",
                "resampled to spacing_mm (null: the image's own) and max(1, round(old / new * size)) voxels, by cubic "
                "splines (mode nearest, voxels as intervals), clipped to the range of the values before",
                "an axis whose spacing is the longest by more than thick_above_ratio, in the image or else in "
                "spacing_mm, and not shared, is resampled by nearest neighbour instead, and clipped slice by slice",
            ],
            "orientation": model.plan.orientation,
            "voxel_size": how.voxel_size,
            "axis_order": list(how.axis_order),
            "spacing_mm": list(how.spacing_mm),
            "thick_above_ratio": ANISOTROPY_LIMIT,
            "normalization": [rule.model_dump(mode="json") for rule in how.normalization],
        },
        "tiles": {
            "steps": [
                "an image smaller than patch_size is padded with zeros on both sides, the odd voxel behind",
                "tiles at even distances of at most step * patch_size, the first and the last flush with the border",
                "per tile the mean of the logits over networks and all subsets of mirror_axes, mirrored back, where "
                "channel i of a mirrored result is taken from output_orders_by_mirror_axis[axis][i]",
                "blended by a Gaussian with its largest value in voxel size // 2 of each axis of the tile",
            ],
            "patch_size": list(chosen.patch_size),
            "step": 0.5,
            "gaussian_sigma_as_share_of_patch": SIGMA_SHARE,
            "mirror_axes": list(model.mirror_axes),
            "output_orders_by_mirror_axis": {str(axis): list(order) for axis, order in orders.items()},
        },
        "labels": {
            "steps": [
                "logits resized linearly to the cropped image's voxels, a thick axis (first of spacing_mm, then of "
                "the image) by nearest neighbour",
                "the class with the largest logit; with regions, in their order, painted_classes where a logit is > 0",
                "0 outside the crop; axes transposed, flipped and permuted back; values[class] is written",
            ],
            "names": list(labels.names),
            "values": list(labels.values),
            "regions": [region.model_dump(mode="json") for region in labels.regions],
            "painted_classes": list(labels.painted_classes),
        },
    }


def _check_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"--onnx needs the package {error.name}; install it with pip install 'segfw[onnx]'") from None


def _left_out(model: Path, configuration: str) -> list[str]:
    """What a model holds beside its networks that ONNX does not, a sentence each."""
    notes = []
    with ModelSource.open(model) as source:
        if read_selection(source) is not None:
            notes.append("the postprocessing and ensemble of selection.json are not part of it")
        postprocessing = postprocessing_name(configuration)
        if source.has(postprocessing):
            notes.append(f"{postprocessing} is not part of it")
    return notes


def _write_network(path: Path, model: Model, weights: Mapping[str, Tensor], build: BuildNetwork) -> float:
    """Writes one network and returns by how much it differs from PyTorch's, as a share of the largest logit."""
    import onnxruntime

    network = with_stock_norms(build(model.configuration.network)).eval()
    network.load_state_dict(weights)
    generator = torch.Generator().manual_seed(0)
    # Two samples, because a batch of one is taken for a constant.
    shape = (2, model.configuration.network.in_channels, *model.configuration.patch_size)
    patches = torch.randn(shape, generator=generator)
    size = sum(tensor.nbytes for tensor in weights.values())
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision, which nothing needs here
            torch.onnx.export(
                network,
                (patches,),
                path,
                dynamo=True,
                input_names=["image"],
                output_names=["logits"],
                opset_version=OPSET,
                external_data=size > LARGEST_MESSAGE,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
    except (torch.onnx.OnnxExporterError, RuntimeError) as error:
        name, cause = model.configuration.network.architecture, error
        while cause.__cause__ is not None:  # the first lines of those above only say that it did not work
            cause = cause.__cause__
        reason = first_line(cause).rstrip(".")
        raise UserError(f"{name} cannot be written as ONNX ({reason}); export it without --onnx") from None
    _forget_origin(path)
    session = onnxruntime.InferenceSession(path)
    one = patches[:1]
    with torch.inference_mode():
        wanted = network(one).numpy()
    (found,) = session.run(None, {"image": one.numpy()})
    difference = float(np.abs(found - wanted).max() / np.abs(wanted).max())
    if not difference < MOST_DIFFERENT:
        name = model.configuration.network.architecture
        raise UserError(f"{name}: as ONNX its logits differ by {difference:.2g}; export it without --onnx")
    return difference


def _forget_origin(path: Path) -> None:
    """Removes what the exporter notes at every operation: the stack of calls, with the folders of this machine."""
    import onnx

    network = onnx.load(path, load_external_data=False)
    graph = network.graph
    for part in (network, graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        del part.metadata_props[:]
        part.doc_string = ""
    with whole_file(path) as partial:
        onnx.save(network, partial)


def with_stock_norms(network: nn.Module) -> nn.Module:
    """A copy whose instance norms are PyTorch's own, which the exporter knows as one operation."""
    network = copy.deepcopy(network)
    for module in network.modules():
        for stock in (nn.InstanceNorm2d, nn.InstanceNorm3d):
            if isinstance(module, stock):
                module.__class__ = stock
    return network
