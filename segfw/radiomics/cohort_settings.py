"""Which settings a cohort is told with: those that are given, those of an earlier call, or new ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segfw.base.records import UserError
from segfw.images.geometry import Spacing
from segfw.images.header_only import volume_of_header
from segfw.images.units import PICTURE, SLICE, Units
from segfw.measurements.masks_to_measure import ONE_CHANNEL, FoundMasks, MaskCase
from segfw.measurements.measure_case import case_in_memory
from segfw.radiomics.radiomics_settings import CT, Modality, RadiomicsSettings, decided

LOOKED_AT = 5  # cases that are read to tell what kind of images they are, evenly from all
AIR_HU = -500  # CT reaches below, as air does


def settings_for(
    found: FoundMasks, file: Path, given: Path | None, log_mm: tuple[float, ...], *, overwrite: bool
) -> RadiomicsSettings:
    """The settings in ``given``, else those in ``file`` from an earlier call, else new ones.

    ``log_mm`` are filters, if any are asked for. Raises UserError if the settings are of other images, or have other
    filters than are asked for; if no image can be read, or none has millimetres.
    """
    source = given if given is not None else file if file.is_file() and not overwrite else None
    looks = [look for look in (_look(case, found) for case in _evenly(found.cases)) if look is not None]
    usable = [look for look in looks if look.units != PICTURE]
    if not usable:
        why = "none of those looked at can be read" if not looks else "they have no millimetres"
        raise UserError(f"{found.cases[0].mask.parent}: features cannot be told of these images, because {why}")
    modalities = modalities_of(usable, found.channels)
    if source is None:
        has_one_slice = float(np.median([look.units == SLICE for look in usable])) > 0.5
        settings = decided(_spacings(found.cases, usable), has_one_slice, modalities, log_mm)
    else:
        settings = RadiomicsSettings.load(source)
        settings.require_like(modalities, source)
        if log_mm and settings.log_mm != log_mm:
            has = ",".join(f"{width:g}" for width in settings.log_mm) or "none"
            raise UserError(
                f"{source}: has other filters (log: {has}) than --filters; leave out --filters, or decide anew under "
                "another name"
            )
    return settings


def _evenly(cases: Sequence[MaskCase]) -> list[MaskCase]:
    number = min(LOOKED_AT, len(cases))
    return [cases[index * len(cases) // number] for index in range(number)]


@dataclass(frozen=True, kw_only=True)
class _Look:
    """What is remembered of an image that was read: no voxels, of which several images take much memory."""

    units: Units
    spacing_mm: Spacing
    lowest: dict[str, float]  # of each channel


def _look(case: MaskCase, found: FoundMasks) -> _Look | None:
    """None if a file cannot be read; whoever tells its features says why."""
    try:
        mask, _ = case_in_memory(case, found.labels, found.channels)
    except UserError:
        return None
    return _Look(
        units=mask.units,
        spacing_mm=mask.geometry.spacing_mm,
        lowest={name: _lowest(image) for name, image in mask.channels.items()},
    )


def _lowest(image_zyx: np.ndarray) -> float:
    """Of what are numbers: air around a round field of view may be none, and is no sign that an image is no CT."""
    return float(np.fmin.reduce(image_zyx, axis=None))


def _spacings(cases: Sequence[MaskCase], looks: Sequence[_Look]) -> list[Spacing]:
    """Of all masks whose headers say it, else of those that were read."""
    spacings = []
    for case in cases:
        try:
            header = volume_of_header(case.mask)
        except UserError:
            continue
        if header is not None:
            spacings.append(header.geometry.spacing_mm)
    return spacings or [look.spacing_mm for look in looks]


def modalities_of(looks: Sequence[_Look], channel_names: Sequence[str]) -> dict[str, Modality]:
    """By the names of the channels where dataset.json gives them, else by the lowest values."""
    # Channels that nobody named are called by their numbers.
    is_named = not all(name.startswith((ONE_CHANNEL, "channel_")) for name in channel_names)
    kinds: dict[str, Modality] = {}
    for name in looks[0].lowest:
        lowest = [look.lowest[name] for look in looks if math.isfinite(look.lowest.get(name, math.nan))]
        is_ct = name.upper() == CT if is_named else bool(lowest) and float(np.median(lowest)) <= AIR_HU
        kinds[name] = "CT" if is_ct else "other"
    return kinds
