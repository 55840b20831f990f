"""Everything that turns an image into a mask beside the networks, as pipeline.json describes it to the runner."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segfw.base.records import UserError
from segfw.grid.resample import ANISOTROPY_LIMIT, OF_IMAGES, OF_LOGITS
from segfw.model.load import Model
from segfw.model.selection import read_selection
from segfw.model.source import ModelSource, postprocessing_name
from segfw.onnx.write_network import OPSET
from segfw.planning.mirroring import output_orders

PIPELINE_FILE = "pipeline.json"
LICENCE_FILE = "LICENCE.txt"
SIGMA_SHARE = 1 / 8  # of the Gaussian in inference.sliding_window


def pipeline_of(
    model: Model, files: Sequence[str], licence: str | None = None, notes: Sequence[str] = ()
) -> dict[str, Any]:
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


def left_out(model: Path, configuration: str) -> list[str]:
    """What a model holds beside its networks that ONNX does not, a sentence each."""
    notes = []
    with ModelSource.open(model) as source:
        if read_selection(source) is not None:
            notes.append("the postprocessing and ensemble of selection.json are not part of it")
        postprocessing = postprocessing_name(configuration)
        if source.has(postprocessing):
            notes.append(f"{postprocessing} is not part of it")
    return notes
