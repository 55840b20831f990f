"""What a model finds in a case whose mask is known, clean and spoilt: all that its predicted quality is learned from.

A pass is one prediction of one image by networks that never saw it: features of each network's masks, and the Dice that
these masks have on the image's own grid. Spoilt copies bring the failures that clean cases hardly have.
"""

# M members, Z Y X space

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar
from zlib import crc32

import numpy as np
import torch

from segfw.base.records import Record
from segfw.dataset.annotated_structures import is_annotated
from segfw.dataset.cases import Case
from segfw.dataset.labels import LabelSet
from segfw.evaluation.confusion import dice, label_counts
from segfw.grid.preprocess import preprocess_classes
from segfw.grid.restore import Restoring
from segfw.grid.store import read_case
from segfw.images.units import SCAN
from segfw.images.values import as_integers
from segfw.images.volume import Volume
from segfw.inference.held_out_counts import joint_counts
from segfw.inference.predictor import Predictor
from segfw.perturbations.spoiling import SHIFTS, spoilt
from segfw.quality.image_fingerprint import Fingerprint, image_fingerprint
from segfw.quality.member_maps import MemberMaps
from segfw.quality.plausible_thresholds import PlausibleHistograms, StructureHistogram
from segfw.quality.quality_features import Features, Shape, pairwise_dice, shapes_of, structure_features
from segfw.quality.quality_model import CLEAN

T = TypeVar("T")

SHIFTS_OF_A_CASE = 5  # of all there are, drawn: each of them is seen often enough in all cases together


class MeasuredStructure(Record):
    """One structure as one network found it; ``dice`` is None where neither mask has it."""

    features: Features
    dice: float | None
    true_ml: float
    predicted_ml: float


class CalibrationPass(Record):
    """One image, clean or spoilt, by every fold; of several also how far they agree, and the Dice of their mean."""

    shift: str
    folds: dict[str, dict[str, MeasuredStructure]]
    pair: dict[str, float] = {}
    mean_dice: dict[str, float | None] = {}


class CalibratedCase(Record):
    """What calibration keeps of a case. Without ``passes`` it only tells what training images and masks look like.

    Structures that are not annotated in the case are nowhere in it, and ``shapes`` are without those of which the
    ignore label hides how large they are.
    """

    case: str
    made_from: str
    fingerprint: Fingerprint
    shapes: dict[str, Shape]
    passes: tuple[CalibrationPass, ...] = ()
    histograms: dict[str, StructureHistogram] = {}


@dataclass(frozen=True, kw_only=True)
class ReadCase:
    """An image, and its mask as classes (1, Z, Y, X) on its grid."""

    image: Volume
    classes: Volume


def read_with_classes(case: Case, labels: LabelSet) -> ReadCase:
    """A labelled case from its files; ValueError if a value in the mask is no label."""
    image, mask = read_case(case)
    if mask is None:
        raise ValueError(f"{case.id} has no mask")
    classes = labels.to_classes(as_integers(mask.array), case.label_map)
    return ReadCase(image=image, classes=Volume(array=classes, geometry=image.geometry))


def shifts_of(case_id: str, number: int = SHIFTS_OF_A_CASE) -> tuple[str, ...]:
    """Which shifts a case is spoilt by: drawn of all, the same for the same case."""
    names = list(SHIFTS)
    chosen = np.random.default_rng(crc32(case_id.encode())).choice(len(names), min(number, len(names)), replace=False)
    return tuple(names[index] for index in sorted(chosen.tolist()))


def look_at_case(predictor: Predictor, case: Case, made_from: str) -> CalibratedCase:
    """What a training image and its mask look like, without predicting."""
    labels = predictor.plan.labels
    read = read_with_classes(case, labels)
    prepared = predictor.prepare(read.image)
    reference = preprocess_classes(read.classes, prepared.record)
    return CalibratedCase(
        case=case.id,
        made_from=made_from,
        fingerprint=image_fingerprint(prepared.image, prepared.record),
        shapes=shapes_of(reference.numpy(), prepared.record.spacing_mm, labels, case.annotated),
    )


def calibrate_case(
    predictor: Predictor, case: Case, folds: Sequence[str], shifts: Sequence[str], made_from: str
) -> CalibratedCase:
    """Predicts a case by networks that never saw it, clean and by each of ``shifts``.

    Parameters
    ----------
    predictor
        Of the networks of ``folds``, in this order.
    case
        With its mask.
    folds
        Names of the predictor's networks.
    shifts
        Names of SHIFTS; without any the image is predicted as it is alone.
    made_from
        Digest of all that the result depends on.

    Returns
    -------
    CalibratedCase
        With a pass for the clean image and one for each shift.

    Raises
    ------
    UserError
        If the case cannot be read, or has not the model's channels.
    """
    labels = predictor.plan.labels
    read = read_with_classes(case, labels)
    clean, seen = _pass(predictor, read, folds, CLEAN, counts_levels=True)
    assert seen is not None  # it was asked for
    passes = [_drawn_pass(case, clean)]
    for shift in shifts:
        rng = np.random.default_rng([crc32(case.id.encode()), list(SHIFTS).index(shift)])
        image, classes = spoilt(read.image, read.classes, shift, rng)
        assert classes is not None  # one was given
        found, _ = _pass(predictor, ReadCase(image=image, classes=classes), folds, shift, counts_levels=False)
        passes.append(_drawn_pass(case, found))
    return CalibratedCase(
        case=case.id,
        made_from=made_from,
        fingerprint=seen.fingerprint,
        shapes=shapes_of(seen.reference_zyx, seen.spacing_mm, labels, case.annotated),
        passes=tuple(passes),
        histograms=_drawn(case, seen.histograms),
    )


def _drawn(case: Case, by_structure: Mapping[str, T]) -> dict[str, T]:
    """Without the structures that nobody drew in a case: whether a mask of one is right nobody knows."""
    return {name: value for name, value in by_structure.items() if is_annotated(case, name)}


def _drawn_pass(case: Case, found: CalibrationPass) -> CalibrationPass:
    return CalibrationPass(
        shift=found.shift,
        folds={fold: _drawn(case, measured) for fold, measured in found.folds.items()},
        pair=_drawn(case, found.pair),
        mean_dice=_drawn(case, found.mean_dice),
    )


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What a clean pass shows besides."""

    fingerprint: Fingerprint
    reference_zyx: np.ndarray
    spacing_mm: tuple[float, float, float]
    histograms: dict[str, StructureHistogram]


def _pass(
    predictor: Predictor, read: ReadCase, folds: Sequence[str], shift: str, *, counts_levels: bool
) -> tuple[CalibrationPass, _Seen | None]:
    """One prediction, slab by slab: every network's mask is restored to the image's grid and compared there."""
    labels = predictor.plan.labels
    prepared = predictor.prepare(read.image)
    maps = MemberMaps(prepared.record, labels)
    reference: torch.Tensor | None = None
    levels: PlausibleHistograms | None = None
    if counts_levels:
        reference = preprocess_classes(read.classes, prepared.record)
        levels = PlausibleHistograms(labels, reference)
    restoring = [Restoring(prepared.record, labels.painted_classes) for _ in folds]
    of_mean = Restoring(prepared.record, labels.painted_classes) if len(folds) > 1 else None
    for slab in predictor.slabs(prepared, by_member=len(folds) > 1):
        maps.add(slab)
        if levels is not None:
            levels.add(slab)
        for member, each in enumerate(restoring):
            each.add(slab.of_member(member) if len(folds) > 1 else slab)
        if of_mean is not None:
            of_mean.add(slab)

    # Against the reference
    truth_zyx = read.classes.array[0]
    ml_per_voxel = SCAN.voxel_size(read.image.geometry)
    measured: dict[str, dict[str, MeasuredStructure]] = {}
    for member, fold in enumerate(folds):
        features = structure_features(maps, member, labels)
        joint = joint_counts(truth_zyx, restoring[member].result(), labels)
        measured[fold] = {}
        for name, classes in labels.structures.items():
            counts = label_counts(joint, classes)
            measured[fold][name] = MeasuredStructure(
                features=features[name],
                dice=dice(counts),
                true_ml=(counts.tp + counts.fn) * ml_per_voxel,
                predicted_ml=(counts.tp + counts.fp) * ml_per_voxel,
            )
    mean_dice: dict[str, float | None] = {}
    if of_mean is not None:
        joint = joint_counts(truth_zyx, of_mean.result(), labels)
        mean_dice = {name: dice(label_counts(joint, classes)) for name, classes in labels.structures.items()}
    found = CalibrationPass(shift=shift, folds=measured, pair=pairwise_dice(maps, labels), mean_dice=mean_dice)
    if reference is None or levels is None:
        return found, None
    seen = _Seen(
        fingerprint=image_fingerprint(prepared.image, prepared.record),
        reference_zyx=reference.numpy(),
        spacing_mm=prepared.record.spacing_mm,
        histograms=levels.result(),
    )
    return found, seen
