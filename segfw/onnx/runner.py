"""Segments NIfTI images with exported networks. Needs numpy, onnxruntime and nibabel, and nothing else.

    python predict.py IMAGE.nii.gz [SECOND_CHANNEL.nii.gz ...] MASK.nii.gz

``pipeline.json`` beside this file says everything that was decided in training; this file is what it means. Arrays are
(C, Z, Y, X) or (K, Z, Y, X): C channels of the image, K outputs of the network.
"""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import combinations, product
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np
from nibabel.orientations import apply_orientation, io_orientation, ornt_transform

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

CANONICAL = np.array([[2, 1], [1, 1], [0, 1]])  # z, y, x ascend to the head, the front and the patient's right
ENDS = ("LR", "PA", "IS")  # where an axis can point: against and along RAS axes 0, 1 and 2
AS_STORED = np.array([[0, 1], [1, 1], [2, 1]], dtype=float)
SPLINE_PADDING = 12  # voxels: a cubic spline's memory of its border, 0.27 per voxel, is then below float32
ENDINGS = (".nii", ".nii.gz")
PIPELINE = "pipeline.json"
EXPORT_AGAIN = "get the whole folder of the export again"


def are_numbers(value: Any, kinds: tuple[type, ...] = (int,), count: int | None = None) -> bool:
    """Whether it is a list of finite numbers of these kinds, of this length; true and false are none."""
    return (
        isinstance(value, list)
        and (count is None or len(value) == count)
        and all(type(one) in kinds and abs(one) < 2**31 for one in value)
    )


def are_names(value: Any) -> bool:
    """Whether it is a list of names, of one at least."""
    return isinstance(value, list) and len(value) > 0 and all(isinstance(one, str) and one for one in value)


def is_positive(value: Any) -> bool:
    """Whether it is a finite number above 0."""
    return are_numbers([value], (int, float)) and value > 0


def are_spacings(value: Any) -> bool:
    """Whether it is three lengths, each of which may be null."""
    return isinstance(value, list) and len(value) == 3 and all(one is None or is_positive(one) for one in value)


def is_rule(rule: Any) -> bool:
    """Whether it says how a channel is normalised."""
    if not isinstance(rule, dict) or not isinstance(rule.get("inside_mask"), bool):
        return False
    stats = rule.get("stats")
    wanted = ("percentile_00_5", "percentile_99_5", "mean", "std")
    if rule.get("kind") == "ct":
        return isinstance(stats, dict) and are_numbers([stats.get(name) for name in wanted], (int, float))
    return isinstance(rule.get("kind"), str)


def are_rules(value: Any) -> bool:
    """Whether it is a list of rules of normalisation."""
    return isinstance(value, list) and all(map(is_rule, value))


def are_axes(value: Any) -> bool:
    """Whether it is a list of axes, each once."""
    return are_numbers(value) and set(value) <= {0, 1, 2} and len(set(value)) == len(value)


def are_orders(value: Any) -> bool:
    """Whether it holds for some axes the order that a mirrored result is put into."""
    return isinstance(value, dict) and all(
        are_numbers(order) and sorted(order) == list(range(len(order))) for order in value.values()
    )


def is_axis_order(value: Any) -> bool:
    """Whether it says where the axes x, y and z are to point, such as 'LPS'."""
    return isinstance(value, str) and len(value) == 3 and all(sum(end in ends for end in value) == 1 for ends in ENDS)


# What is read of pipeline.json: how it must be, as a test and in words.
FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "networks": (are_names, "a list of file names"),
    "channels": (are_names, "a list of names"),
    "preprocessing.orientation": (
        lambda value: value in ("canonical", "as stored") or is_axis_order(value),
        "'canonical', 'as stored' or an order of axes such as 'LPS'",
    ),
    "preprocessing.voxel_size": (
        lambda value: value in ("axes", "stated", "stated in RAS"),
        "'axes', 'stated' or 'stated in RAS'",
    ),
    "preprocessing.axis_order": (
        lambda value: are_axes(value) and len(value) == 3,
        "the axes 0, 1 and 2 in some order",
    ),
    "preprocessing.spacing_mm": (are_spacings, "three lengths above 0, or null"),
    "preprocessing.thick_above_ratio": (is_positive, "a number above 0"),
    "preprocessing.normalization": (are_rules, "a list with kind, inside_mask and stats for each channel"),
    "tiles.patch_size": (lambda value: are_numbers(value, count=3) and min(value) > 0, "three numbers of voxels"),
    "tiles.step": (lambda value: is_positive(value) and value <= 1, "a share of the patch, above 0 and up to 1"),
    "tiles.gaussian_sigma_as_share_of_patch": (is_positive, "a number above 0"),
    "tiles.mirror_axes": (are_axes, "a list of axes"),
    "tiles.output_orders_by_mirror_axis": (are_orders, "an order of the outputs for some axes"),
    "labels.values": (lambda value: are_numbers(value) and len(value) > 0, "a list of whole numbers"),
    "labels.painted_classes": (lambda value: are_numbers(value), "a list of whole numbers"),
}


def read_pipeline(path: Path) -> dict[str, Any]:
    """The content of ``pipeline.json``; ends with a sentence unless it is whole and makes sense."""
    try:
        pipeline = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        sys.exit(f"{path}: cannot be read ({error}); {EXPORT_AGAIN}")
    if not isinstance(pipeline, dict):
        sys.exit(f"{path}: holds no JSON object; {EXPORT_AGAIN}")
    for name, (is_right, how) in FIELDS.items():
        value: Any = pipeline
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if not is_right(value):
            is_what = "is missing" if value is None else f"is {json.dumps(value)[:80]}"
            sys.exit(f"{path}: {name} {is_what}, but must be {how}; {EXPORT_AGAIN}")
    count = len(pipeline["channels"])
    if len(pipeline["preprocessing"]["normalization"]) != count:
        sys.exit(f"{path}: preprocessing.normalization does not fit {count} channels; {EXPORT_AGAIN}")
    labels = pipeline["labels"]
    if not all(0 <= painted < len(labels["values"]) for painted in labels["painted_classes"]):
        sys.exit(f"{path}: labels.painted_classes names a class that labels.values lacks; {EXPORT_AGAIN}")
    found = pipeline["tiles"]["output_orders_by_mirror_axis"].values()
    if any(len(order) != len(labels["painted_classes"] or labels["values"]) for order in found):
        sys.exit(f"{path}: tiles.output_orders_by_mirror_axis does not fit labels.values; {EXPORT_AGAIN}")
    return pipeline


def open_networks(folder: Path, files: Sequence[str]) -> list[InferenceSession]:
    """The networks of these names in the folder; ends with a sentence if one is missing or damaged."""
    try:
        import onnxruntime
    except ModuleNotFoundError:
        sys.exit("the package onnxruntime is missing; install it with: pip install onnxruntime")
    networks = []
    for name in files:
        path = folder / name
        if not path.is_file():
            sys.exit(f"{path}: no such file; {EXPORT_AGAIN}")
        try:
            networks.append(onnxruntime.InferenceSession(path))
        except Exception as error:  # onnxruntime's errors have no class in common but this
            sys.exit(f"{path}: is no ONNX network that can be run ({first_line(error)}); {EXPORT_AGAIN}")
    return networks


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def check_output(path: Path) -> None:
    """Ends with a sentence if no mask can be written to this path; before the work and not after it."""
    if not path.name.endswith(ENDINGS):
        sys.exit(f"{path}: a mask is written as {' or '.join(ENDINGS)}; give a name that ends so")
    if not path.parent.is_dir():
        sys.exit(f"{path}: there is no folder {path.parent}; make it first")
    if path.is_dir():
        sys.exit(f"{path}: is a folder; give the name of a new file")


def read(paths: Sequence[str | Path]) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """Image (C, Z, Y, X) as stored, affine from (z, y, x) to RAS mm, and edges (z, y, x) in mm stated beside it."""
    channels: list[np.ndarray] = []
    affines: list[np.ndarray] = []
    edges: list[list[float]] = []
    for path in paths:
        if not Path(path).is_file():
            sys.exit(f"{path}: no such file; give NIfTI images, one for each channel")
        try:
            image: Any = nibabel.load(path)
            array = np.asanyarray(image.dataobj)
        except nibabel.filebasedimages.ImageFileError:
            sys.exit(f"{path}: is no NIfTI image; convert it first")
        except (OSError, EOFError, ValueError, zlib.error) as error:
            sys.exit(f"{path}: cannot be read ({first_line(error)}); copy or export the file again")
        if not isinstance(image, nibabel.Nifti1Pair) or image.affine is None:
            sys.exit(f"{path}: is no NIfTI image; convert it first")
        if array.ndim == 5 and array.shape[3] == 1:
            array = array[:, :, :, 0]
        array = array.reshape(array.shape + (1,) * (4 - array.ndim))
        unit = {1: 1000.0, 3: 0.001}.get(int(image.header["xyzt_units"]) & 7, 1.0)  # metres, micrometres
        affine = np.diag([unit, unit, unit, 1]) @ with_thickness(image.affine.copy(), array.shape)
        edges.append([unit * float(edge) for edge in image.header.get_zooms()[2::-1]])
        dtype = np.dtype(np.float32) if array.dtype.str[1:] in ("f8", "f16") else array.dtype.newbyteorder("=")
        channels.append(array.transpose(3, 2, 1, 0).astype(dtype, copy=False))
        affines.append(affine[:, [2, 1, 0, 3]])
        if channels[-1].shape[1:] != channels[0].shape[1:] or not np.allclose(affines[-1], affines[0], atol=1e-3):
            sys.exit(f"{path}: lies on another grid than {paths[0]}; resample the channels to one grid first")
        if not np.isfinite(channels[-1]).all():
            sys.exit(f"{path}: holds values that are infinite or no numbers; repair the image")
        if channels[-1].min() == channels[-1].max():
            sys.exit(f"{path}: every voxel has the same value; export the image again or leave it out")
    stated = edges[0] if len(edges[0]) == 3 else [999 * max(edges[0]), *edges[0]]  # one slice is never thin
    return channels[0] if len(channels) == 1 else np.concatenate(channels), affines[0], stated


def with_thickness(affine: np.ndarray, shape_xyz: Sequence[int]) -> np.ndarray:
    """The affine with an edge of 1 mm for an axis of a single voxel that has none, as 2-D files often say."""
    empty = [axis for axis in range(3) if not affine[:3, axis].any()]
    if len(empty) == 1 and shape_xyz[empty[0]] == 1:
        normal = np.cross(affine[:3, (empty[0] + 1) % 3], affine[:3, (empty[0] + 2) % 3])
        affine[:3, empty[0]] = normal / (np.linalg.norm(normal) or 1.0)
    return affine


def voxel_edges(affine: np.ndarray, stated: Sequence[float], rule: str, is_turned: bool) -> np.ndarray:
    """Edges (z, y, x): the stated ones, or the lengths of the axes less the rounding of what a header has in 32 bit."""
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    in_32_bit = lengths.astype(np.float32)
    if rule != "axes":
        return in_32_bit if rule == "stated in RAS" and is_turned else np.asarray(stated)
    held = np.array([f"{length:.6g}" for length in lengths], np.float32)
    return np.where((in_32_bit != lengths) & (abs(lengths - held) <= 2 * np.spacing(in_32_bit)), held, lengths)


def nonzero_box(image: np.ndarray) -> tuple[slice, ...]:
    """Slices of the smallest box that holds every voxel that is not zero in some channel; all of an empty image."""
    inside = (image != 0).any(0)
    if not inside.any():
        return tuple(slice(0, size) for size in inside.shape)
    lines = [np.flatnonzero(inside.any(tuple(other for other in range(3) if other != axis))) for axis in range(3)]
    return tuple(slice(line[0], line[-1] + 1) for line in lines)


def filled_holes(mask: np.ndarray) -> np.ndarray:
    """The mask and what it encloses: everything that no path of empty voxels joins with the border."""
    empty = ~np.pad(mask, 1)
    outside = np.zeros_like(empty)
    for axis in range(3):
        border = np.moveaxis(outside, axis, 0)
        border[0] = True
        border[-1] = True
    count = 0
    while count < outside.sum():
        count = outside.sum()
        for axis in range(3):
            reached = np.moveaxis(outside, axis, 0)
            free = np.moveaxis(empty, axis, 0)
            for index in range(1, len(reached)):
                reached[index] |= reached[index - 1] & free[index]
            for index in range(len(reached) - 2, -1, -1):
                reached[index] |= reached[index + 1] & free[index]
    return ~outside[1:-1, 1:-1, 1:-1]


def normalized(channel: np.ndarray, rule: Mapping[str, Any], filled: np.ndarray | None) -> np.ndarray:
    """Float32: clipped, shifted and divided by the rule of the channel; with ``inside_mask`` 0 outside ``filled``."""
    voxels = channel[filled] if rule["inside_mask"] else channel
    low = -np.inf
    high = np.inf
    shift = 0.0
    divisor = 1.0
    if rule["kind"] == "ct":
        low = rule["stats"]["percentile_00_5"]
        high = rule["stats"]["percentile_99_5"]
        shift = rule["stats"]["mean"]
        divisor = max(rule["stats"]["std"], 1e-8)
    elif rule["kind"] == "zscore":
        shift = float(voxels.mean(dtype=np.float64))
        squares = [np.square(part - shift, dtype=np.float64).sum() for part in np.array_split(voxels, len(channel))]
        divisor = max((sum(squares) / voxels.size) ** 0.5, 1e-8)  # a slice's worth at once, for little memory
    elif rule["kind"] == "rescale":
        shift = float(voxels.min())
        divisor = max(float(voxels.max()) - shift, 1e-8)
    elif rule["kind"] == "rgb":
        divisor = 255
    elif rule["kind"] != "none":
        sys.exit(f"{PIPELINE}: unknown normalisation {rule['kind']!r}; get predict.py of the same export")
    result = np.array(channel, dtype=np.float32, order="C").clip(np.float32(low), np.float32(high))
    result -= np.float32(shift)
    result /= np.float32(divisor)
    if filled is not None and rule["inside_mask"]:
        result[~filled] = 0
    return result


@lru_cache
def resizing(old: int, new: int, order: int) -> np.ndarray:
    """Matrix (new, old) that resizes one axis by nearest neighbour (0), linear (1) or cubic spline interpolation (3).

    Voxels are intervals that cover the axis; beyond its ends the last voxel goes on.
    """
    centres = (np.arange(new) + 0.5) * (old / new) - 0.5
    rows = np.arange(new)
    matrix = np.zeros((new, old))
    if order == 0:
        matrix[rows, np.floor(centres + 0.5).astype(int).clip(0, old - 1)] = 1
        return matrix.astype(np.float32)
    if order == 1 or old == 1:
        below = np.floor(centres.clip(0, old - 1)).astype(int)
        share = centres.clip(0, old - 1) - below
        matrix[rows, below] = 1 - share
        matrix[rows, np.minimum(below + 1, old - 1)] += share
        return matrix.astype(np.float32)
    # The coefficients of the B-spline that passes through all voxels, the axis continued at both ends (prefilter).
    count = old + 2 * SPLINE_PADDING
    spline = (4 * np.eye(count) + np.eye(count, k=1) + np.eye(count, k=-1)) / 6
    spline[[0, -1], [0, -1]] = 5 / 6  # mirrored about the outer faces
    continued = np.eye(old)[np.arange(-SPLINE_PADDING, old + SPLINE_PADDING).clip(0, old - 1)]
    coefficients = np.linalg.solve(spline, continued)
    first = np.floor(centres).astype(int) - 1
    for offset in range(4):
        distance = np.abs(centres - first - offset)
        weight = np.where(distance < 1, 2 / 3 - distance**2 + distance**3 / 2, (2 - distance) ** 3 / 6)
        matrix += weight[:, None] * coefficients[first + offset + SPLINE_PADDING]
    matrix[np.abs(matrix) < 1e-9] = 0
    return matrix.astype(np.float32)


def resized(array_zyx: np.ndarray, shape: Sequence[int], orders: Sequence[int]) -> np.ndarray:
    """The array with this shape, each axis resized by its order of interpolation."""
    for axis in range(3):
        if array_zyx.shape[axis] != shape[axis]:
            matrix = resizing(array_zyx.shape[axis], shape[axis], orders[axis])
            array_zyx = np.moveaxis(np.tensordot(matrix, array_zyx, (1, axis)), 0, axis)
    return array_zyx


def thick_axis(spacing_mm: Sequence[float], target_mm: Sequence[float], limit: float) -> int | None:
    """The axis that is resampled by nearest neighbour, because its voxels are far longer; None if none is."""
    for spacing in (spacing_mm, target_mm):
        if max(spacing) / min(spacing) > limit:
            longest = [axis for axis in range(3) if spacing[axis] == max(spacing)]
            return longest[0] if len(longest) == 1 else None
    return None


def resized_image(channel: np.ndarray, shape: Sequence[int], thick: int | None) -> np.ndarray:
    """Cubic in all axes but the ``thick`` one; clipped to the range of the whole, or of each slice across it."""
    in_plane = tuple(axis for axis in range(3) if axis != thick)
    low = channel.min(in_plane, keepdims=True)
    high = channel.max(in_plane, keepdims=True)
    flat = tuple(channel.shape[axis] if axis == thick else shape[axis] for axis in range(3))
    result = resized(channel, flat, (3, 3, 3)).clip(low, high)
    return resized(result, shape, (0, 0, 0))


def tile_starts(size: int, tile: int, step: float) -> list[int]:
    """Where tiles begin along an axis: at even distances of ``step`` tiles or less, flush with both ends."""
    if size <= tile:
        return [0]
    count = ceil((size - tile) / (tile * step)) + 1
    return list(dict.fromkeys(round((size - tile) * index / (count - 1)) for index in range(count)))


def gaussian(tile: Sequence[int], sigma_share: float) -> np.ndarray:
    """Weights of a tile's voxels, largest 1 in voxel size // 2, and nowhere zero."""
    weights: np.ndarray = np.ones(())
    for size in tile:
        offsets = np.arange(size) - size // 2
        weights = weights[..., None] * np.exp(-0.5 * (offsets / (size * sigma_share)) ** 2)
    return (weights / weights.max()).clip(weights[weights > 0].min()).astype(np.float32)


def mirrored(array: np.ndarray, axes: Sequence[int], orders: Mapping[str, Sequence[int]]) -> np.ndarray:
    """(B, C, Z, Y, X) flipped, and the channels of left and right exchanged; doing it again undoes it."""
    for axis in axes:
        if str(axis) in orders:
            array = array[:, orders[str(axis)]]
    return np.ascontiguousarray(np.flip(array, tuple(axis + 2 for axis in axes)))


def logits_of(image: np.ndarray, networks: Sequence[InferenceSession], tiles: Mapping[str, Any]) -> np.ndarray:
    """Logits (K, Z, Y, X): the mean over networks and mirrored copies, tiles blended by Gaussian weights."""
    tile = tiles["patch_size"]
    shape = image.shape[1:]
    missing = [max(0, edge - size) for size, edge in zip(shape, tile)]
    before = [count // 2 for count in missing]
    padded = np.pad(image, [(0, 0), *((first, count - first) for first, count in zip(before, missing))])

    weights = gaussian(tile, tiles["gaussian_sigma_as_share_of_patch"])
    weight_sum = np.zeros(padded.shape[1:], np.float32)
    total: np.ndarray | None = None  # its first axis is known when a network has answered
    starts = [tile_starts(size, edge, tiles["step"]) for size, edge in zip(padded.shape[1:], tile)]
    for start in product(*starts):
        place = tuple(slice(first, first + edge) for first, edge in zip(start, tile))
        try:
            predicted = tile_logits(padded[(slice(None), *place)], networks, tiles)
        except Exception as error:  # onnxruntime's errors have no class in common but this
            sys.exit(f"{PIPELINE}: does not fit the networks ({first_line(error)}); {EXPORT_AGAIN}")
        if total is None:
            total = np.zeros((len(predicted), *padded.shape[1:]), np.float32)
        total[(slice(None), *place)] += predicted * weights
        weight_sum[place] += weights
    assert total is not None  # every image has a tile
    total /= weight_sum
    if not np.isfinite(total).all():
        sys.exit("what the networks give is no number (NaN or infinite); the image or the networks are damaged")
    return total[(slice(None), *(slice(first, first + size) for first, size in zip(before, shape)))]


def tile_logits(tile: np.ndarray, networks: Sequence[InferenceSession], tiles: Mapping[str, Any]) -> np.ndarray:
    """Logits (K, Z, Y, X) of a tile (C, Z, Y, X): the mean over networks and mirrored copies."""
    axes = tiles["mirror_axes"]
    orders = tiles["output_orders_by_mirror_axis"]
    total: Any = 0
    count = 0
    for number in range(len(axes) + 1):
        for flipped in combinations(axes, number):
            for network in networks:
                (logits,) = network.run(None, {"image": mirrored(tile[None], flipped, {})})
                total = total + mirrored(logits, flipped, orders)[0]
                count += 1
    return total / np.float32(count)


def classes_at(logits: np.ndarray, shape: Sequence[int], thick: int | None, painted: Sequence[int]) -> np.ndarray:
    """The class with the largest logit; with regions the class each is painted as where its logit is above 0."""
    orders = [0 if axis == thick else 1 for axis in range(3)]
    result = np.zeros(shape, np.int32)
    largest: np.ndarray | None = None
    for index, channel in enumerate(logits):
        at_voxels = resized(channel, shape, orders)
        if painted:
            result[at_voxels > 0] = painted[index]
        elif largest is None:
            largest = at_voxels
        else:
            result[at_voxels > largest] = index
            largest = np.maximum(at_voxels, largest)
    return result


def wanted_axes(orientation: str) -> np.ndarray:
    """For each axis (z, y, x) the RAS axis that it is to run along, and 1 or -1: along or against it."""
    if orientation == "canonical":
        return CANONICAL
    rows = []
    for letter in reversed(orientation):
        world = next(axis for axis, ends in enumerate(ENDS) if letter in ends)
        rows.append((world, 1 if ENDS[world][1] == letter else -1))
    return np.array(rows, dtype=float)


def segment(
    image: np.ndarray,
    affine: np.ndarray,
    stated: Sequence[float],
    pipeline: Mapping[str, Any],
    networks: Sequence[InferenceSession],
) -> np.ndarray:
    """Label values (Z, Y, X) on the grid of ``image`` (C, Z, Y, X), of what ``read`` gives."""
    preprocessing = pipeline["preprocessing"]
    labels = pipeline["labels"]
    channels = pipeline["channels"]
    if len(image) != len(channels):
        sys.exit(f"the image has {len(image)} channels, but the networks take {len(channels)} ({', '.join(channels)})")

    # To the orientation and the order of axes that the networks know, without the empty border.
    order = preprocessing["axis_order"]
    transform = AS_STORED
    if preprocessing["orientation"] != "as stored":
        transform = ornt_transform(io_orientation(affine), wanted_axes(preprocessing["orientation"]))
    oriented = np.stack([apply_orientation(channel, transform) for channel in image])
    box = nonzero_box(oriented)
    cropped = oriented[(slice(None), *box)].transpose(0, *(axis + 1 for axis in order))

    # To the networks' spacing.
    is_turned = not np.array_equal(transform, AS_STORED)
    lengths = voxel_edges(affine, stated, preprocessing["voxel_size"], is_turned)
    spacing = [float(lengths[list(transform[:, 0]).index(axis)]) for axis in order]
    target = [length if wanted is None else wanted for length, wanted in zip(spacing, preprocessing["spacing_mm"])]
    shape = [max(1, round(old / new * size)) for size, old, new in zip(cropped.shape[1:], spacing, target)]
    rules = preprocessing["normalization"]
    filled = filled_holes((cropped != 0).any(0)) if any(rule["inside_mask"] for rule in rules) else None
    limit = preprocessing["thick_above_ratio"]
    thick = thick_axis(spacing, target, limit)
    ready = [resized_image(normalized(channel, rule, filled), shape, thick) for channel, rule in zip(cropped, rules)]

    # Through the networks, and all the way back.
    logits = logits_of(np.stack(ready).astype(np.float32), networks, pipeline["tiles"])
    outputs = len(labels["painted_classes"] or labels["values"])
    if len(logits) != outputs:
        sys.exit(f"{PIPELINE}: names {outputs} outputs, but the networks have {len(logits)}; {EXPORT_AGAIN}")
    thick = thick_axis(target, spacing, limit)
    found = classes_at(logits, cropped.shape[1:], thick, labels["painted_classes"])
    full = np.zeros(oriented.shape[1:], np.int32)
    full[box] = found.transpose(np.argsort(order))
    values = np.asarray(labels["values"], np.int32)
    return values[apply_orientation(full, ornt_transform(AS_STORED, transform))]


def write(path: str | Path, values_zyx: np.ndarray, affine: np.ndarray) -> None:
    """In the smallest type that holds the values, placed by the sform; by the qform too unless the axes are sheared."""
    low = values_zyx.min()
    high = values_zyx.max()
    dtypes = (np.uint8, np.int16, np.int32)
    dtype = next(dtype for dtype in dtypes if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max)
    affine_xyz = affine[:, [2, 1, 0, 3]]
    image = nibabel.Nifti1Image(values_zyx.astype(dtype).transpose(2, 1, 0), affine_xyz)
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    sheared = np.abs(axes.T @ axes - np.eye(3)).max() > np.sin(np.radians(0.1))
    image.set_qform(affine_xyz, code=0 if sheared else 1)
    image.set_sform(affine_xyz, code=1)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)


def main(arguments: Sequence[str]) -> None:
    if len(arguments) < 2:
        sys.exit("usage: python predict.py IMAGE.nii.gz [SECOND_CHANNEL.nii.gz ...] MASK.nii.gz")
    folder = Path(__file__).resolve().parent
    check_output(Path(arguments[-1]))
    pipeline = read_pipeline(folder / PIPELINE)
    networks = open_networks(folder, pipeline["networks"])
    image, affine, stated = read(arguments[:-1])
    write(arguments[-1], segment(image, affine, stated, pipeline, networks), affine)


if __name__ == "__main__":
    main(sys.argv[1:])
