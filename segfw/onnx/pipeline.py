"""``pipeline.json``: everything around the networks that turns an image into a mask, as the runner reads it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segfw.base.records import UserError
from segfw.dataset.labels import LabelSet
from segfw.grid.preprocess import Preprocessing
from segfw.grid.resample import ANISOTROPY_LIMIT, OF_IMAGES, OF_LOGITS
from segfw.model.load import Model
from segfw.onnx.write_network import OPSET
from segfw.planning.mirroring import output_orders
from segfw.planning.published import TILE_STEP

LICENCE_FILE = "LICENCE.txt"
SIGMA_SHARE = 1 / 8  # of the Gaussian in inference.sliding_window


def pipeline_of(
    model: Model, files: Sequence[str], licence: str | None = None, notes: Sequence[str] = ()
) -> dict[str, Any]:
    """The content of ``pipeline.json`` for the network ``files``, one for each fold of the model.

    ``licence`` is a name, or a file whose text lies beside it; ``notes`` say what of the model is not part of it.
    Raises UserError if the model resamples otherwise than the runner does.
    """
    configuration = model.configuration
    is_licence_text = licence is not None and Path(licence).is_file()
    return {
        "format": "segfw onnx 1",
        "dataset": model.plan.dataset,
        "configuration": configuration.name,
        "folds": list(model.weights),
        "licence": f"see {LICENCE_FILE}" if is_licence_text else licence,
        "not_included": list(notes),
        "networks": list(files),
        "network_input": "image: float32 (batch, channel, *patch_size), axes as in preprocessing.axis_order",
        "network_output": "logits: float32 (batch, class or region, *patch_size); the mean over networks is taken",
        "opset": OPSET,
        "channels": [channel.name for channel in model.plan.channels],
        "preprocessing": _preprocessing(configuration.name, configuration.preprocessing),
        "tiles": _tiles(model),
        "labels": _labels(model.plan.labels),
    }


def _preprocessing(name: str, preprocessing: Preprocessing) -> dict[str, Any]:
    # The runner reads NIfTI alone, and the last two rules are of pictures.
    is_known = (preprocessing.images, preprocessing.logits) == (OF_IMAGES, OF_LOGITS)
    if not is_known or preprocessing.voxel_size in ("side file", "unit"):
        raise UserError(f"{name} resamples otherwise than ONNX's pipeline does; export it without --onnx")
    return {
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
        "orientation": preprocessing.orientation,
        "voxel_size": preprocessing.voxel_size,
        "axis_order": list(preprocessing.axis_order),
        "spacing_mm": list(preprocessing.spacing_mm),
        "thick_above_ratio": ANISOTROPY_LIMIT,
        "normalization": [rule.model_dump(mode="json") for rule in preprocessing.normalization],
    }


def _tiles(model: Model) -> dict[str, Any]:
    orders = output_orders(model.configuration.swapped_pairs, model.plan.labels)
    return {
        "steps": [
            "an image smaller than patch_size is padded with zeros on both sides, the odd voxel behind",
            "tiles at even distances of at most step * patch_size, the first and the last flush with the border",
            "per tile the mean of the logits over networks and all subsets of mirror_axes, mirrored back, where "
            "channel i of a mirrored result is taken from output_orders_by_mirror_axis[axis][i]",
            "blended by a Gaussian with its largest value in voxel size // 2 of each axis of the tile",
        ],
        "patch_size": list(model.configuration.patch_size),
        "step": TILE_STEP,
        "gaussian_sigma_as_share_of_patch": SIGMA_SHARE,
        "mirror_axes": list(model.mirror_axes),
        "output_orders_by_mirror_axis": {str(axis): list(order) for axis, order in orders.items()},
    }


def _labels(labels: LabelSet) -> dict[str, Any]:
    return {
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
    }
