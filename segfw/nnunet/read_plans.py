"""nnU-Net v2's plans.json as configurations of ours; what cannot be followed exactly is refused by name."""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from segfw.base.records import GIGABYTE, NAME, UserError
from segfw.dataset.cases import Channel
from segfw.dataset.labels import LabelSet
from segfw.grid.normalize import IntensityStats, Normalization
from segfw.grid.preprocess import Preprocessing, VoxelSize
from segfw.images.volume import AS_STORED, CANONICAL, Orientation
from segfw.nnunet.architectures import network_of, unknown_network
from segfw.nnunet.resampling_functions import resampling_of
from segfw.planning.memory import step_cost
from segfw.planning.plan import Configuration, Estimate, Plan
from segfw.planning.presets import with_z

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
CONFIGURATION_NAME = re.compile(NAME)  # it becomes the name of a folder, also in a model file
LARGEST_JSON = 50_000_000  # bytes; plans have some thousands
PLANNED_GB = {"nnUNetPlannerResEncL": 24.0, "nnUNetPlannerResEncXL": 40.0}  # all others: 8


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; raises UserError if there is no such file or it holds something else."""
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise ValueError(f"{path.stat().st_size:,} bytes are too many")
        found = json.loads(path.read_text(encoding="utf-8-sig"))  # some editors on Windows mark UTF-8
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({error}); take it from the original model or data set") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: holds no JSON object; take it from the original model or data set")
    return found


def plan_of_nnunet(
    plans: Mapping[str, Any],
    channels: tuple[Channel, ...],
    labels: LabelSet,
    path: Path,
    *,
    names: tuple[str, ...] | None = None,
    training_cases: int = 0,
    with_costs: bool = True,
    is_known: bool = True,
    to_train: bool = True,
) -> Plan:
    """The plan that says what ``plans`` says, with all its configurations or only ``names``.

    ``path`` is named in errors. ``with_costs`` counts what a training step takes. A network that segfw does not know
    (``is_known`` False) is described by its channels alone. How masks are resampled matters only ``to_train`` and to
    cascades. Raises UserError, with the reason, if a configuration asks for something that segfw would compute
    otherwise.
    """
    if not isinstance(plans.get("configurations"), dict) or not plans["configurations"]:
        raise UserError(f"{path}: has no configurations; is this the plans.json of nnU-Net v2?")
    try:
        found = {
            name: _configuration(plans, name, channels, labels, path, is_known, to_train)
            for name in names or tuple(plans["configurations"])
        }
        orientation, _ = _reading(plans, path)
        if plans.get("label_manager", "LabelManager") != "LabelManager":
            raise UserError(f"{path}: label_manager {plans['label_manager']!r} is unknown; only the default one is")
        planner = plans.get("experiment_planner_used", "")
        if with_costs and is_known:
            found = {name: _with_cost(configuration) for name, configuration in found.items()}
        return Plan(
            dataset=str(plans["dataset_name"]),
            preset=str(plans["plans_name"]),
            gpu_memory_gb=PLANNED_GB.get(planner, 8.0),
            as_published=True,
            orientation=orientation,
            channels=channels,
            labels=labels,
            training_cases=training_cases,
            configurations=found,
            reasons=(f"Taken from nnU-Net's {plans['plans_name']}; images are oriented {orientation}.",),
        )
    except KeyError as error:
        raise UserError(f"{path}: field {error} is missing; is this the plans.json of nnU-Net v2?") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"{part} " for part in first["loc"])
        got = f"{where}{reprlib.repr(first['input'])}: " if where else ""
        raise UserError(f"{path}: {got}{first['msg'].removeprefix('Value error, ')}; correct the plans") from None
    except (TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise UserError(f"{path}: is not as nnU-Net v2 writes it ({error}); take it from the original") from None


def _reading(plans: Mapping[str, Any], path: Path) -> tuple[Orientation, VoxelSize]:
    """The rules by which nnU-Net's reader orients images and tells the size of their voxels."""
    reader = plans["image_reader_writer"]
    if reader not in READERS:
        raise UserError(f"{path}: image_reader_writer {reader!r} is unknown; segfw knows {', '.join(READERS)}")
    return READERS[reader]


def resolved(plans: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    """A configuration with everything that it inherits from others."""
    found: dict[str, Any] = {}
    seen: list[str] = []
    entries = plans.get("configurations")
    while name is not None:
        if not isinstance(entries, dict) or name in seen or not isinstance(name, str) or name not in entries:
            raise UserError(f"{path}: configuration {name!r} is missing or inherits from itself; correct the plans")
        seen.append(name)
        entry = entries[name]
        if not isinstance(entry, dict):
            raise UserError(
                f"{path}: configuration {name!r} is {reprlib.repr(entry)}, no JSON object; correct the plans"
            )
        found = {**entry, **found}
        name = entry.get("inherits_from")
    return found


def _configuration(
    plans: Mapping[str, Any],
    name: str,
    channels: tuple[Channel, ...],
    labels: LabelSet,
    path: Path,
    is_known: bool,
    to_train: bool,
) -> Configuration:
    if not CONFIGURATION_NAME.fullmatch(name):
        raise UserError(
            f"{path}: configuration {name!r} has a name that cannot be a folder's; rename it with letters of English, "
            "digits, '_', '-' and '.'"
        )
    entry, where = resolved(plans, name, path), f"{path}: configuration {name}"
    if entry.get("preprocessor_name", "DefaultPreprocessor") != "DefaultPreprocessor":
        raise UserError(f"{where}: preprocessor {entry['preprocessor_name']!r} is unknown; only the default one is")
    patch = tuple(entry["patch_size"])
    is_2d = len(patch) == 2
    orientation, voxel_size = _reading(plans, path)
    previous = entry.get("previous_stage")
    if previous is not None and resolved(plans, previous, path).get("previous_stage"):
        raise UserError(f"{where}: its first stage, {previous!r}, is a second one itself; correct the plans")
    inputs = len(channels) + (len(labels.values) - 1 if previous else 0)
    median = tuple(float(size) for size in entry["median_image_size_in_voxels"])
    if is_2d and len(median) == 2:
        median = (float(plans["original_median_shape_after_transp"][0]), *median)
    spacing = tuple(None if length is None else float(length) for length in with_z(entry["spacing"], None))
    resampling = resampling_of(entry, masks=to_train or previous is not None, where=where)
    how = {} if resampling is None else dict(zip(("images", "logits"), resampling))
    return Configuration(
        name=name,
        previous_stage=previous,
        previous_through_file=bool(previous),
        preprocessing=Preprocessing(
            axis_order=tuple(plans["transpose_forward"]),
            spacing_mm=(None,) * 3 if resampling is None else spacing,
            normalization=_normalization(plans, entry, len(channels), where),
            orientation=orientation,
            voxel_size=voxel_size,
            **how,
        ),
        median_shape=median,
        patch_size=with_z(patch, 1),
        batch_size=entry["batch_size"],
        batch_dice=entry["batch_dice"],
        mirror_axes=(1, 2) if is_2d else (0, 1, 2),
        network=(
            network_of(entry, inputs, labels.outputs, where) if is_known else unknown_network(entry, inputs, labels)
        ),
        estimate=NO_ESTIMATE,
        reasons=(
            f"Patch {' x '.join(map(str, with_z(patch, 1)))} voxels, batch of {entry['batch_size']}, network and "
            f"spacing from nnU-Net's {plans['plans_name']}, to the letter.",
        ),
    )


def _normalization(
    plans: Mapping[str, Any], entry: Mapping[str, Any], channels: int, where: str
) -> tuple[Normalization, ...]:
    schemes, masked = entry["normalization_schemes"], entry["use_mask_for_norm"]
    # The first versions of nnU-Net v2 said 'by_modality'.
    words = "foreground_intensity_properties_"
    intensities = plans.get(f"{words}per_channel", plans.get(f"{words}by_modality", {}))
    for field, values in (("normalization_schemes", schemes), ("use_mask_for_norm", masked)):
        if len(values) != channels:
            what = f"{field} is of {len(values)} channels, but there are {channels}"
            raise UserError(f"{where}: {what}; is it of other data?")
    found = []
    for index, (scheme, is_masked) in enumerate(zip(schemes, masked, strict=True)):
        if scheme not in NORMALIZATIONS:
            raise UserError(f"{where}: normalisation {scheme!r} is unknown; segfw knows {', '.join(NORMALIZATIONS)}")
        kind = NORMALIZATIONS[scheme]
        stats = _intensities(intensities.get(str(index)) or {}, is_needed=kind == "ct")
        # Of nnU-Net's schemes only the z-score looks at the mask.
        found.append(Normalization(kind=kind, inside_mask=bool(is_masked) and kind == "zscore", stats=stats))
    return tuple(found)


def _intensities(given: Mapping[str, Any], *, is_needed: bool) -> IntensityStats | None:
    """A channel's intensities; None if some are missing or no numbers, unless the normalisation needs them."""
    names = {name: name for name in IntensityStats.model_fields} | {"minimum": "min", "maximum": "max"}
    is_whole = all(isinstance(given.get(name), int | float) and isfinite(given[name]) for name in names.values())
    return IntensityStats(**{ours: given[theirs] for ours, theirs in names.items()}) if is_needed or is_whole else None


def _with_cost(configuration: Configuration) -> Configuration:
    cost, batch = step_cost(configuration.network), configuration.batch_size
    estimate = configuration.estimate.model_copy(
        update={
            "training_memory_gb": cost.peak_bytes(configuration.patch_size, batch) / GIGABYTE,
            "teraflop_per_step": cost.flops(configuration.patch_size, batch) / 1e12,
        }
    )
    return configuration.model_copy(update={"estimate": estimate})
