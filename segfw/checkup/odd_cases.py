"""What is odd about the image of a case beside those of the others: spacing, size, orientation, intensities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from segfw.base.robust import THRESHOLD, Outlier, find_outliers, robust_spread
from segfw.base.words import count
from segfw.checkup.case_details import CheckedCase
from segfw.checkup.swaps import AXES
from segfw.dataset.cases import Finding, Severity
from segfw.images.geometry import Shape

Names = dict[int, str]  # label value -> name

# Factors that a figure must differ by before it counts, however alike the other cases are: hospitals use slices of
# half and double thickness and crop to different fields of view, and no scanner's units are exact.
SPACING_FACTOR = 1.9
SIZE_FACTOR = 2.5
RANGE_FACTOR = 3.0
EXTREME_FACTOR = 4.0
SPACING_THRESHOLD = 5.0  # robust standard deviations
EXTREME_THRESHOLD = 5.0
COMMON_UNITS = 0.15  # spread of the logarithm of the ranges up to which images have units that mean something
OFFSET_SHARE = 0.45  # of the intensity range; air of a CT that was shifted by 1024 moves by about 0.7


def odd_geometry(cases: Sequence[CheckedCase]) -> list[Finding]:
    """Spacings and sizes unlike the others'."""
    found = []
    for axis, name in enumerate(AXES):
        spacings = np.log([case.spacing_mm[axis] for case in cases])
        for outlier in find_outliers(spacings, least=np.log(SPACING_FACTOR), threshold=SPACING_THRESHOLD):
            case = cases[outlier.index]
            unit = case.units.length
            what = f"the spacing along {name} is {case.spacing_mm[axis]:.4g} {unit}; {_usual(outlier, unit)}"
            found.append(warning("outlier-spacing", case, what, "check the header against the scanner's protocol"))
        for outlier in find_outliers(np.log([case.size_mm[axis] for case in cases]), least=np.log(SIZE_FACTOR)):
            case = cases[outlier.index]
            unit = case.units.length
            what = f"the image is {case.size_mm[axis]:.4g} {unit} long along {name}; {_usual(outlier, unit)}"
            found.append(warning("outlier-size", case, what, "check that it shows the same region as the others"))
    return found


def mixed_orientation(cases: Sequence[CheckedCase]) -> list[Finding]:
    """A note on cases that are stored in another orientation than most."""
    found = []
    stored = Counter(case.orientation for case in cases if case.orientation)
    if len(stored) > 1:
        usual, number = stored.most_common(1)[0]
        odd = tuple(case.id for case in cases if case.orientation not in (usual, ""))
        differently = ", ".join(code for code in stored if code != usual)
        what = f"{number} cases are stored as {usual}, {count(len(odd), 'other')} as {differently}"
        remedy = "nothing to do: all are turned to one orientation on reading"
        found.append(Finding(kind="mixed-orientation", severity="note", what=what, remedy=remedy, others=odd))
    return found


def _usual(outlier: Outlier, unit: str) -> str:
    low, high = np.exp(outlier.usual)
    between = f"{low:.4g} to {high:.4g}" if high > 1.001 * low else f"{low:.4g}"
    return f"in the others it is {between} {unit}".rstrip()


def warning(
    kind: str, case: CheckedCase, what: str, remedy: str, *, labels: tuple[int, ...] = (), place: Shape | None = None
) -> Finding:
    """A finding about one case that should be looked at."""
    return Finding(kind=kind, severity="warning", case=case.id, what=what, remedy=remedy, labels=labels, place=place)


class _Feature(NamedTuple):
    """A figure of a channel of all cases, of which outliers are looked for, and how to speak of them."""

    kind: str
    severity: Severity
    values: np.ndarray
    least: float
    threshold: float
    words: str
    remedy: str


def odd_intensities(cases: Sequence[CheckedCase]) -> list[Finding]:
    """Cases whose intensities are shifted, scaled or reach far beyond those of the others."""
    found = []
    for index in range(min((len(case.channels) for case in cases), default=0)):
        named: set[str] = set()
        for feature in _intensity_features(cases, index):
            for outlier in find_outliers(feature.values, least=feature.least, threshold=feature.threshold):
                case = cases[outlier.index]
                if case.id in named:  # the first words for it are enough
                    continue
                named.add(case.id)
                found.append(
                    Finding(
                        kind=feature.kind,
                        severity=feature.severity,
                        case=case.id,
                        what=f"{feature.words} in channel {index}: {_intensities(cases, case, index)}",
                        remedy=feature.remedy,
                    )
                )
    return found


def _intensities(cases: Sequence[CheckedCase], case: CheckedCase, index: int) -> str:
    channel = case.channels[index]
    others = [other.channels[index] for other in cases if other is not case]
    low = np.median([other.low for other in others])
    high = np.median([other.high for other in others])
    return (
        f"values mostly {channel.low:.4g} to {channel.high:.4g}, "
        f"extremes {channel.minimum:.4g} and {channel.maximum:.4g}; "
        f"the others lie mostly at {low:.4g} to {high:.4g}"
    )


def _intensity_features(cases: Sequence[CheckedCase], index: int) -> list[_Feature]:
    """Range, offset and extremes; the latter relative to the case's own range, as MR has no fixed units."""
    channels = [case.channels[index] for case in cases]
    low = np.array([channel.low for channel in channels])
    high = np.array([channel.high for channel in channels])
    reach_up = np.array([channel.maximum for channel in channels]) - low
    reach_down = high - np.array([channel.minimum for channel in channels])
    span = np.maximum(high - low, 1e-6 * np.maximum(np.abs(high), 1e-12))
    has_units = robust_spread(np.log(span)) * (1 + 4 / len(cases)) <= COMMON_UNITS
    rescale = "export the image again with the rescale slope and intercept applied as in the others"
    ranges = _Feature(
        kind="outlier-intensity" if has_units else "other-units",
        severity="warning" if has_units else "note",
        values=np.log(span),
        least=np.log(RANGE_FACTOR),
        threshold=THRESHOLD,
        words="another range",
        remedy=rescale if has_units else "nothing to do if the images are in arbitrary units, as in MR",
    )
    offsets = _Feature(
        kind="outlier-intensity",
        severity="warning",
        values=low / span,
        least=OFFSET_SHARE,
        threshold=THRESHOLD,
        words="another offset",
        remedy=rescale,
    )
    return [ranges, offsets, _extremes(reach_up, span), _extremes(reach_down, span)]


def _extremes(reach: np.ndarray, span: np.ndarray) -> _Feature:
    """How far the values of each case reach, as a multiple of its range."""
    return _Feature(
        kind="extreme-values",
        severity="warning",
        values=np.log(np.maximum(reach, span) / span),
        least=np.log(EXTREME_FACTOR),
        threshold=EXTREME_THRESHOLD,
        words="single extreme values",
        remedy="look at the brightest and darkest voxels; clip them to the values that tissue can have",
    )
