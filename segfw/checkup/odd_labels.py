"""What is odd about the masks of a case beside those of the others: volumes, stray parts, places, swapped values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np

from segfw.base.robust import FEWEST_CASES, RAREST_SHARE, find_outliers, most_outliers, robust_spread
from segfw.base.words import count, figure
from segfw.checkup.case_details import CheckedCase
from segfw.checkup.odd_cases import Names, warning
from segfw.checkup.swaps import AXES, X_AXIS, Swap, find_swaps
from segfw.dataset.cases import Finding
from segfw.dataset.sides import pairs_by_name
from segfw.planning.splits import FOLDS

VOLUME_THRESHOLD = 5.0  # robust standard deviations
VOLUME_LEAST = 0.6  # of the logarithm: a factor of 1.8
ANATOMY_SPREAD = 0.5  # of the logarithm of the volume; lesions differ far more
PARTNER_SPREAD = 0.2  # labels whose ratio of volumes varies less predict each other
DARK_LEAST = 0.25  # more of the label than usual is on air
LEVEL_LEAST = 0.25  # of the image's range
STRAY_DIAMETERS = 0.5  # a stray part lies this far off, measured in diameters of a ball of the label's volume
STRAY_VOXELS = 3.0


def odd_labels(
    cases: Sequence[CheckedCase], names: Names, undrawn: Mapping[str, frozenset[int]] | None = None
) -> list[Finding]:
    """Volumes unlike the others', stray parts, labels on air, and labels that are in too few cases.

    ``undrawn`` are by case the labels that nobody drew in it, and that are not missing there.
    """
    found = _rare_labels(cases, names)
    for value in names:
        have = [case for case in cases if value in case.labels]
        if len(have) < FEWEST_CASES:
            continue
        drawn = [case for case in cases if value not in (undrawn or {}).get(case.id, ())]
        found += _missing(have, value, drawn, names)
        found += _odd_volumes(have, value, cases, names)
        found += _stray_parts(have, value, names[value], _stray_share(cases))
        found += _odd_levels(have, value, names[value])
        found += _on_air(have, value, names[value])
    return found


def _odd_levels(have: Sequence[CheckedCase], value: int, name: str) -> list[Finding]:
    """Labels that are brighter or darker in their image than in the others'."""
    levels = np.array([case.labels[value].level for case in have])
    found = []
    for outlier in find_outliers(levels, least=LEVEL_LEAST):
        case = have[outlier.index]
        label = case.labels[value]
        low, high = outlier.usual
        what = (
            f"{name} is {'bright' if outlier.z > 0 else 'dark'}: its mean lies at {label.level:.0%} of the "
            f"image's range, in the others at {low:.0%} to {high:.0%}"
        )
        remedy = "look whether the mask is shifted or belongs to another image"
        found.append(warning("odd-label-intensity", case, what, remedy, labels=(value,), place=label.centre))
    return found


def _on_air(have: Sequence[CheckedCase], value: int, name: str) -> list[Finding]:
    """Labels of which more lies on air or background than of the others'."""
    dark_shares = np.array([case.labels[value].dark_share for case in have])
    found = []
    for outlier in find_outliers(dark_shares, least=DARK_LEAST):
        if outlier.z <= 0:
            continue
        case = have[outlier.index]
        label = case.labels[value]
        usual = f"in the others it is at most {outlier.usual[1]:.0%}"
        what = f"{label.dark_share:.0%} of {name} lies on air or background; {usual}"
        remedy = "look whether the mask is shifted or belongs to another image"
        found.append(warning("label-outside-body", case, what, remedy, labels=(value,), place=label.centre))
    return found


def _rare_labels(cases: Sequence[CheckedCase], names: Names) -> list[Finding]:
    """Labels in fewer cases than there are folds; where many are rare it is how the data are, and one note."""
    have = {value: [case.id for case in cases if value in case.labels] for value in names}
    rare = [value for value in names if len(have[value]) < min(FOLDS, len(cases))]
    if not rare:
        return []
    remedy = f"with {FOLDS} folds some never see it in training or validation; add cases or merge the label"
    if len(cases) < FEWEST_CASES or len(rare) > max(2, len(names) // RAREST_SHARE):
        shown = ", ".join(names[value] for value in rare[:10]) + (", ..." if len(rare) > 10 else "")
        what = f"{count(len(rare), 'label')} of {len(names)} are in fewer than {min(FOLDS, len(cases))} cases: {shown}"
        return [Finding(kind="rare-label", severity="note", what=what, remedy=remedy, labels=tuple(rare))]
    return [
        Finding(
            kind="rare-label",
            severity="warning",
            what=f"{names[value]} (value {value}) is in {count(len(have[value]), 'case')} only",
            remedy=remedy,
            others=tuple(have[value]),
            labels=(value,),
        )
        for value in rare
    ]


def _missing(have: list[CheckedCase], value: int, cases: Sequence[CheckedCase], names: Names) -> list[Finding]:
    """Cases without a label that nearly all others have in much the same size, so that it is anatomy and no lesion."""
    without = [case for case in cases if value not in case.labels and case.labels]
    volumes = np.log([case.labels[value].size for case in have])
    is_anatomy = robust_spread(volumes) <= ANATOMY_SPREAD and 1 not in have[0].shape
    if not is_anatomy or len(without) > most_outliers(len(cases)):
        return []
    what = f"{names[value]} is missing, which all but {count(len(without), 'case')} of {len(cases)} have"
    remedy = "draw it, or check that it is not to be seen there"
    return [warning("missing-label", case, what, remedy, labels=(value,)) for case in without]


def _odd_volumes(have: list[CheckedCase], value: int, cases: Sequence[CheckedCase], names: Names) -> list[Finding]:
    """Volumes unlike the others', or unlike what another label of the case, such as the other side's, lets expect."""
    if 1 in have[0].shape:  # a section through a structure may have any size
        return []
    volumes = np.log([case.labels[value].size for case in have])
    found: dict[str, Finding] = {}
    outliers = find_outliers(volumes, least=VOLUME_LEAST, threshold=VOLUME_THRESHOLD)
    for outlier in outliers:
        # At the border of the image a structure may be cut to any size.
        if outlier.z < 0 and have[outlier.index].labels[value].is_cut:
            continue
        low, high = np.exp(outlier.usual)
        odd = have[outlier.index]
        usual = f"in the others {figure(low)} to {figure(high)} {odd.units.size}"
        found[odd.id] = _odd_volume(odd, value, names, usual)
    partner = _partner(have, value, volumes)
    if partner is not None and len(have) == len(cases):
        partner_volumes = np.log([case.labels[partner].size for case in have])
        for outlier in find_outliers(volumes - partner_volumes, least=VOLUME_LEAST, threshold=VOLUME_THRESHOLD):
            case = have[outlier.index]
            if case.labels[value].is_cut or case.labels[partner].is_cut:
                continue
            off = abs(volumes[outlier.index] - np.median(volumes))
            partner_off = abs(partner_volumes[outlier.index] - np.median(partner_volumes))
            if off < partner_off:  # it is the partner that is odd
                continue
            low, high = np.exp(outlier.usual)
            ratio = np.exp(volumes - partner_volumes)[outlier.index]
            words = f"{ratio:.3g} times {names[partner]}, in the others {low:.3g} to {high:.3g} times"
            found.setdefault(case.id, _odd_volume(case, value, names, words))
    return list(found.values())


def _odd_volume(case: CheckedCase, value: int, names: Names, usual: str) -> Finding:
    label = case.labels[value]
    what = f"{names[value]} has {figure(label.size)} {label.unit}; {usual}"
    remedy = "look whether a part is missing, or whether another structure has its value"
    return warning("outlier-volume", case, what, remedy, labels=(value,), place=label.centre)


def _partner(have: list[CheckedCase], value: int, volumes: np.ndarray) -> int | None:
    """The label whose volume goes with this one's most closely; None if none does so closely enough to tell."""
    spreads = {}
    for other in set.intersection(*(set(case.labels) for case in have)) - {value}:
        ratio = volumes - np.log([case.labels[other].size for case in have])
        spreads[other] = robust_spread(ratio)
    best = min(spreads, key=lambda other: spreads[other], default=None)
    return best if best is not None and spreads[best] <= PARTNER_SPREAD else None


def _stray_share(cases: Sequence[CheckedCase]) -> float:
    """Share of all labels that have a stray part: high in slices, where one structure shows in several places."""
    labels = list(chain.from_iterable(case.labels.values() for case in cases))
    return float(np.mean([label.stray_mm > 0 for label in labels])) if labels else 0.0


def _cube_edge_mm(case: CheckedCase, value: int, *, is_flat: bool) -> float:
    """Edge of a cube of the label's volume, or of a square of its area."""
    size = case.labels[value].size / case.units.unit_voxel  # in mm3 or mm2
    return float(size ** (1 / 2 if is_flat else 1 / 3))


def _stray_parts(have: list[CheckedCase], value: int, name: str, stray_share: float) -> list[Finding]:
    """Small parts far from the label where it is in one piece, or has its small parts close by, in the others."""
    labels = [case.labels[value] for case in have]
    sizes_mm = [2 * _cube_edge_mm(case, value, is_flat=1 in have[0].shape) for case in have]
    far_mm = STRAY_DIAMETERS * 0.62 * float(np.median(sizes_mm))  # 0.62: radius of a ball of volume 1
    is_far = [label.stray_mm > max(far_mm, STRAY_VOXELS * max(case.spacing_mm)) for case, label in zip(have, labels)]
    is_near = [label.stray_mm > far_mm / 2 for label in labels]
    limit = most_outliers(len(have))
    if stray_share > 1 / RAREST_SHARE or sum(is_near) > 2 * limit or sum(is_far) > limit:
        return []
    found = []
    for case, label, far in zip(have, labels, is_far):
        if far:
            part = f"a part of {name} with {count(label.stray_voxels, 'voxel')}"
            what = f"{part} lies {label.stray_mm:.0f} {case.units.length} from the rest"
            remedy = "look at it and erase it if it is a slip of the mouse"
            found.append(warning("label-island", case, what, remedy, labels=(value,), place=label.stray_at))
    return found


def swapped_labels(cases: Sequence[CheckedCase], names: Names) -> list[Finding]:
    """Labels that lie the other way round than in nearly all cases, and left labels on the right in all cases."""
    exchanged = [_swap_finding(cases[swap.case], swap, names) for swap in find_swaps(list(cases))]
    return exchanged + _all_swapped(cases, names)


def _swap_finding(case: CheckedCase, swap: Swap, names: Names) -> Finding:
    first = names[swap.pair[0]]
    second = names[swap.pair[1]]
    axis = AXES[swap.axis]
    unit = case.units.length
    evidence = f"{first} lies {swap.found_mm:.0f} {unit} from {second} along {axis}"
    evidence += f", in the others {swap.usual_mm:.0f} {unit}"
    if swap.is_mirrored:
        kind = "mirrored-labels"
        what = f"the mask, or the whole case, is mirrored along {axis}: {evidence}"
        remedy = "check the direction in the file's header; turn the case round"
    else:
        kind = "left-right-swap" if swap.axis == X_AXIS else "swapped-labels"
        what = f"{first} and {second} are exchanged: {evidence}"
        remedy = "exchange the two values in the mask"
    place = case.labels[swap.pair[0]].centre
    return warning(kind, case, what, remedy, labels=swap.pair, place=place)


def _all_swapped(cases: Sequence[CheckedCase], names: Names) -> list[Finding]:
    """Pairs by name whose left one lies on the patient's right in nearly all cases: consistent, so only a note."""
    value_of = {name: value for value, name in names.items()}
    pairs, _ = pairs_by_name(list(value_of))
    found = []
    for left_name, right_name in pairs:
        left = value_of[left_name]
        right = value_of[right_name]
        distances = [
            case.labels[left].centroid_mm[X_AXIS] - case.labels[right].centroid_mm[X_AXIS]
            for case in cases
            if left in case.labels and right in case.labels
        ]
        if distances and np.mean(np.array(distances) > 0) > 0.8:
            what = f"{left_name} lies to the patient's right of {right_name} in nearly all cases"
            remedy = "the names or the directions in the headers are wrong; training does not mind, readers may"
            found.append(Finding(kind="sides-by-name", severity="note", what=what, remedy=remedy, labels=(left, right)))
    return found
