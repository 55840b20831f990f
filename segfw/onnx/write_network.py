"""A network with its weights as one ONNX file, compared with PyTorch when it is written."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Mapping
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from segfw.base.files import whole_file
from segfw.base.records import UserError
from segfw.base.words import first_line
from segfw.networks import BuildNetwork
from segfw.planning.plan import Configuration

OPSET = 18  # the newest that PyTorch's exporter writes without converting
LARGEST_MESSAGE = 1_800_000_000  # bytes: protobuf ends at 2 GiB, above which weights lie beside the network
MOST_DIFFERENT = 1e-3  # between both runtimes, as a share of the largest logit: the rounding of float32 lies far below


def require_packages() -> None:
    """UserError if a package is missing that ONNX is written or checked with."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"--onnx needs the package {error.name}; install it with pip install 'segfw[onnx]'") from None


def write_network(
    path: Path, configuration: Configuration, weights: Mapping[str, Tensor], build: BuildNetwork
) -> float:
    """Writes one network and returns by how much it differs from PyTorch's, as a share of the largest logit.

    It takes (batch, C, Z, Y, X) float32 with any batch and gives logits. Raises UserError where it has an operation
    that ONNX lacks, or computes otherwise there.
    """
    import onnxruntime

    architecture = configuration.network.architecture
    network = with_stock_norms(build(configuration.network)).eval()
    network.load_state_dict(weights)
    generator = torch.Generator().manual_seed(0)
    # Two samples, because a batch of one is taken for a constant.
    shape = (2, configuration.network.in_channels, *configuration.patch_size)
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
        cause: BaseException = error
        while cause.__cause__ is not None:  # the first lines of those above only say that it did not work
            cause = cause.__cause__
        reason = first_line(cause).rstrip(".")
        raise UserError(f"{architecture} cannot be written as ONNX ({reason}); export it without --onnx") from None
    _forget_origin(path)
    session = onnxruntime.InferenceSession(path)
    patch = patches[:1]
    with torch.inference_mode():
        wanted = network(patch).numpy()
    (found,) = session.run(None, {"image": patch.numpy()})
    difference = float(np.abs(found - wanted).max() / np.abs(wanted).max())
    if not difference < MOST_DIFFERENT:
        raise UserError(f"{architecture}: as ONNX its logits differ by {difference:.2g}; export it without --onnx")
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
