"""Why a mask is in doubt, in words: what of it is unlike the masks of clean images in calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from segfw.base.records import Record
from segfw.base.words import count
from segfw.evaluation.metrics import mean
from segfw.quality.quality_features import Features, StructurePriors

MOST_REASONS = 4
FAR_Z = 3.0  # deviations from the training masks from which on volume and place are told
CUT_SHARE = 0.01  # of a mask's voxels on the border of the image from which on that is told
LEAST_MASKS = 10  # of which a usual range can be told


class UsualRange(Record):
    """Between which values a feature lies in nine of ten masks of clean images."""

    low: float
    high: float


# Features that mean doubt, by name: whether large values do, and how it is said, with its value and the usual limit.
WORDS: Mapping[str, tuple[bool, str]] = {
    "soft": (False, "the network expects a Dice of {value:.2f} of itself, usually {usual:.2f} or more"),
    "confidence": (False, "its mean probability is {value:.2f}, usually {usual:.2f} or more"),
    "unsure": (True, "{share:.0f} doubtful voxels for 100 of it, usually at most {usual_share:.0f}"),
    "rim_entropy": (True, "its border is uncertain (entropy {value:.2f}, usually at most {usual:.2f})"),
    "core_entropy": (True, "it is uncertain inside (entropy {value:.2f}, usually at most {usual:.2f})"),
    "slice_dice": (False, "neighbouring slices overlap by {value:.2f} only, usually {usual:.2f} or more"),
    "filling": (False, "it is scattered: it fills {value:.2f} of its box, usually {usual:.2f} or more"),
    "roundness": (False, "its surface is large for its volume"),
}


def usual_ranges(clean: Sequence[tuple[str, Features]]) -> dict[str, dict[str, UsualRange]]:
    """Ranges of the features of each structure over masks of clean images; nothing of fewer than LEAST_MASKS."""
    by_structure: dict[str, list[Features]] = {}
    for structure, features in clean:
        by_structure.setdefault(structure, []).append(features)
    ranges: dict[str, dict[str, UsualRange]] = {}
    for structure, masks in by_structure.items():
        ranges[structure] = {}
        for name in WORDS:
            values = [getattr(features, name) for features in masks]
            present = [value for value in values if value is not None]
            if len(present) >= LEAST_MASKS:
                low, high = np.quantile(present, (0.05, 0.95)).tolist()
                ranges[structure][name] = UsualRange(low=low, high=high)
    return ranges


def reasons_for(
    members: Sequence[Features],
    pair: float | None,
    usual: Mapping[str, UsualRange],
    prior: StructurePriors | None,
) -> list[str]:
    """What is odd about a mask, the oddest first, at most MOST_REASONS.

    Parameters
    ----------
    members
        Features by each network.
    pair
        Mean Dice between their masks.
    usual
        Ranges of the features in calibration.
    prior
        The structure in the training masks.
    """
    found: list[tuple[float, str]] = []
    # Agreement is compared with what the networks usually expect of themselves: nothing better was seen of pairs.
    if pair is not None and "soft" in usual and pair < usual["soft"].low:
        found.append((_excess(pair, usual["soft"], is_high=False), f"the folds agree on only {pair:.2f} of it"))
    found += _of_shape(members, prior)
    for name, (is_high, words) in WORDS.items():
        if name not in usual:
            continue
        value = mean([getattr(features, name) for features in members])
        if value is None:
            continue
        excess = _excess(value, usual[name], is_high=is_high)
        if excess > 0:
            limit = usual[name].high if is_high else usual[name].low
            text = words.format(
                value=value,
                usual=limit,
                share=100 * np.exp(min(value, 10.0)),
                usual_share=100 * np.exp(min(limit, 10.0)),
            )
            found.append((excess, text))
    found.sort(key=lambda reason: -reason[0])
    return [text for _, text in found[:MOST_REASONS]]


def _of_shape(members: Sequence[Features], prior: StructurePriors | None) -> list[tuple[float, str]]:
    found: list[tuple[float, str]] = []
    volume = mean([features.volume_mm3 for features in members])
    if prior is not None and prior.log_mm3 is not None and volume:
        away = (float(np.log(volume)) - prior.log_mm3.mean) / prior.log_mm3.sd
        if abs(away) > FAR_Z:
            side = "above" if away > 0 else "below"
            found.append((abs(away) / FAR_Z, f"its volume is {abs(away):.1f} SD {side} the training masks'"))
    place = mean([features.place_z for features in members])
    if place is not None and place > FAR_Z and volume:
        found.append((place / FAR_Z, f"it lies {place:.1f} SD from where the training masks have it"))
    pieces = round(mean([float(features.components) for features in members]) or 0)
    largest = mean([features.largest_share for features in members])
    if largest is not None and largest < 0.9 and pieces > 1:
        found.append((1.0, f"it is in {pieces} pieces, of which the largest has {largest:.2f} of it"))
    gaps = round(mean([float(features.gaps) for features in members]) or 0)
    if gaps:
        found.append((1.5, f"{count(gaps, 'slice')} inside of it {'lacks' if gaps == 1 else 'lack'} it"))
    border = mean([features.at_border for features in members])
    if border is not None and border > CUT_SHARE:
        found.append((0.5, f"{100 * border:.0f} % of it lies on the border of the image, so that it may be cut off"))
    return found


def _excess(value: float, usual: UsualRange, *, is_high: bool) -> float:
    """How far beyond the usual range, in widths of it."""
    width = max(usual.high - usual.low, 1e-3)
    return (value - usual.high) / width if is_high else (usual.low - value) / width
