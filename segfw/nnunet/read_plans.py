"""nnU-Net v2's plans.json as configurations of ours; what cannot be followed exactly is refused by name."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from segfw.base.errors import UserError, unreadable
from segfw.base.records import GIGABYTE, NAME
from segfw.base.written_by_people import Unreadable, parse_json
from segfw.base.wrong_value import wrong_value
from segfw.dataset.cases import Channel
from segfw.dataset.labels import LabelSet
from segfw.grid.normalize import IntensityStats, Normalization
from segfw.grid.preprocess import Preprocessing, VoxelSize
from segfw.images.volume import AS_STORED, CANONICAL, Orientation, is_axis_order
from segfw.nnunet.architectures import network_of, unknown_network
from segfw.nnunet.resampling_functions import resampling_of
from segfw.planning.memory import step_cost
from segfw.planning.plan import Configuration, Estimate, Plan
from segfw.planning.presets import with_z

T = TypeVar("T")

NO_ESTIMATE = Estimate(training_memory_gb=0, teraflop_per_step=0, ram_gb=0, disk_gb=0)
NORMALIZATIONS = {
    "CTNormalization": "ct",
    "ZScoreNormalization": "zscore",
    "RescaleTo01Normalization": "rescale",
    "RGBTo01Normalization": "rgb",
    "NoNormalization": "none",
}
# RAS in (z, y, x) order is our canonical orientation; the other readers leave the array as the file stores it.
READERS: dict[str, tuple[Orientation, VoxelSize]] = {
    "NibabelIOWithReorient": (CANONICAL, "stated in RAS"),
    "SimpleITKIOWithReorient": (CANONICAL, "stated"),
    "SimpleITKIO": (AS_STORED, "stated"),
    "NibabelIO": (AS_STORED, "stated"),
    "NaturalImage2DIO": (AS_STORED, "unit"),
    "Tiff3DIO": (AS_STORED, "side file"),
}
TRAINED_ON = "segfw_trained_on"  # of ours in plans.json: where the axes of the training images pointed, such as 'LPS'
CONFIGURATION_NAME = re.compile(NAME)  # it becomes the name of a folder, also in a model file
LARGEST_JSON = 50_000_000  # bytes; plans have some thousands
PLANNED_GB = {"nnUNetPlannerResEncL": 24.0, "nnUNetPlannerResEncXL": 40.0}  # all others: 8


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; raises UserError if there is no such file or it holds something else."""
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise ValueError(f"{path.stat().st_size:,} bytes are too many")
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        damaged = f"{path}: cannot be read ({error}); take it from the original model or data set"
        raise unreadable(path, error, damaged) from None
    # Statistics of a channel without any foreground are NaN there, and are looked at where they are used.
    try:
        found = parse_json(content, path, finite=False)
    except Unreadable as error:
        reason = error.reason
        raise UserError(f"{path}: cannot be read ({reason}); take it from the original model or data set") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: holds no JSON object; take it from the original model or data set")
    return found


@dataclass(frozen=True, kw_only=True)
class _Described:
    """nnU-Net's plans, and what its dataset.json says; ``path`` of the plans is named in errors."""

    plans: Mapping[str, Any]
    channels: tuple[Channel, ...]
    labels: LabelSet
    path: Path


def plan_of_nnunet(
    plans: Mapping[str, Any],
    channels: tuple[Channel, ...],
    labels: LabelSet,
    path: Path,
    *,
    names: tuple[str, ...] | None = None,
    training_cases: int = 0,
    is_known: bool = True,
    to_train: bool = True,
) -> Plan:
    """The plan that says what ``plans`` says, with all its configurations or only ``names``.

    ``path`` is named in errors. A network that segfw does not know (``is_known`` False) is described by its channels
    alone, and what a training step takes is then not counted. How masks are resampled matters only ``to_train`` and to
    cascades. Raises UserError, with the reason, if a configuration asks for something that segfw would compute
    otherwise.
    """
    if not isinstance(plans.get("configurations"), dict) or not plans["configurations"]:
        raise UserError(f"{path}: has no configurations; is this the plans.json of nnU-Net v2?")
    described = _Described(plans=plans, channels=channels, labels=labels, path=path)
    try:
        configurations = {
            name: _configuration(described, name, is_known=is_known, to_train=to_train)
            for name in names or tuple(plans["configurations"])
        }
        orientation, _ = _reading(plans, path)
        if plans.get("label_manager", "LabelManager") != "LabelManager":
            raise UserError(f"{path}: label_manager {plans['label_manager']!r} is unknown; only the default one is")
        if is_known:
            configurations = {name: _with_cost(configuration) for name, configuration in configurations.items()}
        return Plan(
            dataset=str(plans["dataset_name"]),
            preset=str(plans["plans_name"]),
            gpu_memory_gb=PLANNED_GB.get(plans.get("experiment_planner_used", ""), 8.0),
            as_published=True,
            channels=channels,
            labels=labels,
            training_cases=training_cases,
            configurations=configurations,
            reasons=(f"Taken from nnU-Net's {plans['plans_name']}; images are oriented {orientation}.",),
        )
    except KeyError as error:
        raise UserError(f"{path}: field {error} is missing; is this the plans.json of nnU-Net v2?") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = " ".join(map(str, first["loc"]))
        raise UserError(f"{path}: {wrong_value(where, first)}; correct the plans") from None
    except (TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise UserError(f"{path}: is not as nnU-Net v2 writes it ({error}); take it from the original") from None


def _reading(plans: Mapping[str, Any], path: Path) -> tuple[Orientation, VoxelSize]:
    """The rules by which nnU-Net's reader orients images and tells the size of their voxels."""
    reader = plans["image_reader_writer"]
    if reader not in READERS:
        raise UserError(f"{path}: image_reader_writer {reader!r} is unknown; segfw knows {', '.join(READERS)}")
    orientation, voxel_size = READERS[reader]
    trained_on = plans.get(TRAINED_ON)
    if trained_on is None:
        return orientation, voxel_size
    if not isinstance(trained_on, str) or not is_axis_order(trained_on):
        raise UserError(f"{path}: {TRAINED_ON} is {trained_on!r}; it is an order of axes such as 'LPS'")
    if orientation != AS_STORED or voxel_size not in ("stated", "axes"):
        why = (
            "turns images by itself" if orientation != AS_STORED else "reads pictures, which have no sides of a patient"
        )
        raise UserError(
            f"{path}: --trained-on says that axes point to {trained_on}, but nnU-Net's {reader} {why}; leave it out"
        )
    return trained_on, voxel_size


def resolved(plans: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    """A configuration with everything that it inherits from others."""
    found: dict[str, Any] = {}
    seen: list[object] = []
    entries = plans.get("configurations")
    ancestor: object = name
    while ancestor is not None:
        is_name = isinstance(ancestor, str) and ancestor not in seen
        if not isinstance(entries, dict) or not is_name or ancestor not in entries:
            raise UserError(f"{path}: configuration {ancestor!r} is missing or inherits from itself; correct the plans")
        seen.append(ancestor)
        entry = entries[ancestor]
        if not isinstance(entry, dict):
            raise UserError(
                f"{path}: configuration {ancestor!r} is {reprlib.repr(entry)}, no JSON object; correct the plans"
            )
        found = {**entry, **found}
        ancestor = entry.get("inherits_from")
    return found


def _configuration(described: _Described, name: str, *, is_known: bool, to_train: bool) -> Configuration:
    plans = described.plans
    path = described.path
    labels = described.labels
    if not CONFIGURATION_NAME.fullmatch(name):
        raise UserError(
            f"{path}: configuration {name!r} has a name that cannot be a folder's; rename it with letters of English, "
            "digits, '_', '-' and '.'"
        )
    entry = resolved(plans, name, path)
    where = f"{path}: configuration {name}"
    if entry.get("preprocessor_name", "DefaultPreprocessor") != "DefaultPreprocessor":
        raise UserError(f"{where}: preprocessor {entry['preprocessor_name']!r} is unknown; only the default one is")

    previous = entry.get("previous_stage")
    if previous is not None and resolved(plans, previous, path).get("previous_stage"):
        raise UserError(f"{where}: its first stage, {previous!r}, is a second one itself; correct the plans")
    inputs = len(described.channels) + (len(labels.values) - 1 if previous else 0)

    is_2d = len(entry["patch_size"]) == 2
    patch_size = with_z(tuple(entry["patch_size"]), 1)
    median = tuple(float(size) for size in entry["median_image_size_in_voxels"])
    if is_2d and len(median) == 2:
        median = (float(plans["original_median_shape_after_transp"][0]), *median)
    preprocessing = _preprocessing(described, entry, where, masks=to_train or previous is not None)
    if is_known:
        network = network_of(entry, inputs, labels.outputs, where)
    else:
        network = unknown_network(entry, inputs, labels)
    return Configuration(
        name=name,
        previous_stage=previous,
        previous_through_file=bool(previous),
        preprocessing=preprocessing,
        median_shape=_three(median),
        patch_size=patch_size,
        batch_size=entry["batch_size"],
        batch_dice=entry["batch_dice"],
        mirror_axes=(1, 2) if is_2d else (0, 1, 2),
        network=network,
        estimate=NO_ESTIMATE,
        reasons=(
            f"Patch {' x '.join(map(str, patch_size))} voxels, batch of {entry['batch_size']}, network and spacing "
            f"from nnU-Net's {plans['plans_name']}, to the letter.",
        ),
    )


def _preprocessing(described: _Described, entry: Mapping[str, Any], where: str, *, masks: bool) -> Preprocessing:
    """How images are brought to the grid; ``masks`` if masks are resampled too."""
    orientation, voxel_size = _reading(described.plans, described.path)
    axis_order = tuple(described.plans["transpose_forward"])
    lengths = entry["spacing"]
    if len(lengths) == 2:
        lengths = [None, *lengths]
    resampling = resampling_of(entry, masks=masks, where=where)
    normalization = _normalization(described.plans, entry, len(described.channels), where)
    if resampling is None:
        return Preprocessing(
            axis_order=axis_order,
            spacing_mm=(None, None, None),
            normalization=normalization,
            orientation=orientation,
            voxel_size=voxel_size,
        )
    images, logits = resampling
    return Preprocessing(
        axis_order=axis_order,
        spacing_mm=_three(None if length is None else float(length) for length in lengths),
        normalization=normalization,
        orientation=orientation,
        voxel_size=voxel_size,
        images=images,
        logits=logits,
    )


def _three(values: Iterable[T]) -> tuple[T, T, T]:
    """The values as (z, y, x); ValueError if there are more or fewer."""
    z, y, x = values
    return z, y, x


def _normalization(
    plans: Mapping[str, Any], entry: Mapping[str, Any], channels: int, where: str
) -> tuple[Normalization, ...]:
    schemes = entry["normalization_schemes"]
    masked = entry["use_mask_for_norm"]
    # The first versions of nnU-Net v2 said 'by_modality'.
    intensities = plans.get(
        "foreground_intensity_properties_per_channel", plans.get("foreground_intensity_properties_by_modality", {})
    )
    for field, values in (("normalization_schemes", schemes), ("use_mask_for_norm", masked)):
        if len(values) != channels:
            raise UserError(
                f"{where}: {field} is of {len(values)} channels, but there are {channels}; is it of other data?"
            )
    found = []
    for index, (scheme, is_masked) in enumerate(zip(schemes, masked, strict=True)):
        if scheme not in NORMALIZATIONS:
            raise UserError(f"{where}: normalisation {scheme!r} is unknown; segfw knows {', '.join(NORMALIZATIONS)}")
        kind = NORMALIZATIONS[scheme]
        stats = _intensities(intensities.get(str(index)) or {}, is_needed=kind == "ct")
        # Of nnU-Net's schemes only the z-score looks at the mask.
        found.append(Normalization(kind=kind, inside_mask=bool(is_masked) and kind == "zscore", stats=stats))
    return tuple(found)


def _intensities(properties: Mapping[str, Any], *, is_needed: bool) -> IntensityStats | None:
    """A channel's intensities; None if some are missing or no numbers, unless the normalisation needs them."""
    names = {name: name for name in IntensityStats.model_fields} | {"minimum": "min", "maximum": "max"}
    values = [properties.get(name) for name in names.values()]
    is_whole = all(isinstance(value, int | float) and isfinite(value) for value in values)
    if not is_whole and not is_needed:
        return None
    return IntensityStats(**{ours: properties[theirs] for ours, theirs in names.items()})


def _with_cost(configuration: Configuration) -> Configuration:
    cost = step_cost(configuration.network)
    batch = configuration.batch_size
    estimate = configuration.estimate.model_copy(
        update={
            "training_memory_gb": cost.peak_bytes(configuration.patch_size, batch) / GIGABYTE,
            "teraflop_per_step": cost.flops(configuration.patch_size, batch) / 1e12,
        }
    )
    return configuration.model_copy(update={"estimate": estimate})
