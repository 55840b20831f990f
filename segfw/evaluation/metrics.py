"""Scores of one label in one case, from one joint histogram, and the records of a whole evaluation.

Legend: K classes (0 is the background), Z Y X space. TP, FP, FN, TN are voxel counts. Distances are in mm,
volumes in ml and areas of single slices in mm2; of pictures whose pixels have no known size, both are in pixels
(``images/units.py``). Names end in the unit: what an image has no millimetres for is None there, and has its _px.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from pydantic import SerializerFunctionWrapHandler, field_validator, model_serializer

from segfw.base.records import Record
from segfw.evaluation.confusion import dice, label_counts, ratio
from segfw.evaluation.group_statistics import GroupedScores
from segfw.evaluation.lesions import LesionCounts, lesion_total
from segfw.evaluation.statistics import Paired
from segfw.evaluation.surface import NO_SURFACE, SurfaceScore
from segfw.images.units import ALL_UNITS, SCAN, Units


class Metric(NamedTuple):
    """What a column is called, and its value where nothing is wrong; ``larger_is_better`` is None for a bias.

    Shares, from 0 to 1, have no ``unit``.
    """

    title: str
    short: str
    best: float
    larger_is_better: bool | None = True
    digits: int = 3
    unit: str = ""

    @property
    def with_unit(self) -> str:
        """The title and what it is in: 'HD95 mm'."""
        return f"{self.title} {self.unit}".strip()

    @property
    def head(self) -> str:
        """The same, short: of a column on the console."""
        return f"{self.short} {self.unit}".strip()


METRICS = {
    "dice": Metric("Dice", "Dice", 1.0),
    "jaccard": Metric("Jaccard", "Jaccard", 1.0),
    "tpr": Metric("TPR", "TPR", 1.0),
    "precision": Metric("Precision", "Precision", 1.0),
    "specificity": Metric("Specificity", "Spec.", 1.0),
    "volume_similarity": Metric("Volume similarity", "Vol. sim.", 1.0),
    "volume_difference": Metric("Volume difference", "Vol. diff.", 0.0, None, unit="of ref."),
    "hd95_mm": Metric("HD95", "HD95", 0.0, False, 2, "mm"),
    "assd_mm": Metric("ASSD", "ASSD", 0.0, False, 2, "mm"),
    "hd95_px": Metric("HD95", "HD95", 0.0, False, 2, "px"),
    "assd_px": Metric("ASSD", "ASSD", 0.0, False, 2, "px"),
    "nsd": Metric("NSD", "NSD", 1.0),
    "lesion_tpr": Metric("Lesion TPR", "Les. TPR", 1.0),
    "lesion_precision": Metric("Lesion precision", "Les. prec.", 1.0),
    "lesion_f1": Metric("Lesion F1", "Les. F1", 1.0),
}

NOT_ANNOTATED = "not annotated"
RARE_UNITS = ("_mm2", "_px")  # ends of names

EMPTY_MASK_POLICY = (
    "A label that is in neither mask of a case has no scores there and is left out of the means (both empty). A label "
    "the prediction lacks altogether (missed) has 0 for every share, and for HD95 and ASSD the diagonal of the image, "
    "which no distance exceeds, so that missing a structure never improves a mean of these. A label predicted where "
    "the reference has none (invented) has the same, but no TPR, specificity or volume difference, which do not exist "
    "there. The volume difference is a bias and no score: it is -1 where a label was missed, errors of both signs "
    "cancel in its mean, and invented labels are not in it; volume similarity counts all three."
)

COMPARISON_POLICY = (
    "Differences are first minus second over the cases that both predicted. Where one is rightly empty and the other "
    "invented the label, the former counts as perfect there, so that the invention is not lost with the pair. p is "
    "of Wilcoxon's signed-rank test, two-sided, not corrected for the number of labels and metrics"
)

# Below this share of the image nearly all is background, and specificity is close to 1 whatever was predicted.
SPECIFICITY_SHARE = 0.05


class Measures(Record):
    """What is measured beyond voxel counts, and how.

    ``lesions`` names the labels that are scored component by component ("all" for every one), ``strata_ml`` bounds the
    size classes of these (of areas 1000 mm2, or pixels, stand for a millilitre). ``tolerance_mm`` counts pixels where
    there are no millimetres. A component is found where it overlaps one of the other mask by any voxel, or, if
    ``lesion_iou`` is above 0, by at least that intersection over union.
    """

    surface: bool = True
    tolerance_mm: float = 1.0
    lesions: tuple[str, ...] = ()
    strata_ml: tuple[float, ...] = (0.1, 1.0)
    lesion_iou: float = 0.0

    @field_validator("tolerance_mm")
    @classmethod
    def _tolerance(cls, value: float) -> float:
        if value < 0:
            raise ValueError(f"--tolerance-mm is {value:g}; give 0 or more")
        return value

    @field_validator("lesion_iou")
    @classmethod
    def _iou(cls, value: float) -> float:
        if not 0 <= value <= 1:
            raise ValueError(f"--lesion-iou is {value:g}; give 0 (any overlap) to 1")
        return value

    @field_validator("strata_ml")
    @classmethod
    def _strata(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(bound <= 0 for bound in value) or sorted(set(value)) != list(value):
            raise ValueError(f"--lesion-strata-ml is {value}; give rising volumes above 0")
        return value


class MeanScores(Record):
    """Mean of each metric over where it exists; None if it exists nowhere (or was not asked for)."""

    dice: float | None
    jaccard: float | None
    tpr: float | None
    precision: float | None
    specificity: float | None = None
    volume_similarity: float | None = None
    volume_difference: float | None = None
    hd95_mm: float | None = None
    assd_mm: float | None = None
    hd95_px: float | None = None
    assd_px: float | None = None
    nsd: float | None = None
    lesion_tpr: float | None = None
    lesion_precision: float | None = None
    lesion_f1: float | None = None

    @model_serializer(mode="wrap")
    def _without_other_units(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Fields in units that are not those of scans stand in files only where there is something in them.

        So do those that tell of cases which are annotated in part.
        """
        found = dump(self)
        usual = {"annotated": True, "not_annotated": 0}
        return {
            key: value
            for key, value in found.items()
            if (value is not None or not key.endswith(RARE_UNITS)) and (key not in usual or value != usual[key])
        }


class LabelScore(MeanScores):
    """Agreement on one label in one case; None is a metric that does not exist there (see ``label_score``).

    A label that is not ``annotated`` in the case has no scores: nobody knows whether what was predicted is there. Its
    predicted size is kept.
    """

    tp: int
    fp: int
    fn: int
    reference_ml: float | None = None
    predicted_ml: float | None = None
    reference_mm2: float | None = None
    predicted_mm2: float | None = None
    reference_px: float | None = None
    predicted_px: float | None = None
    lesions: tuple[LesionCounts, ...] = ()
    annotated: bool = True

    @property
    def units(self) -> Units:
        """What the sizes and distances of this case are in."""
        found = [
            units
            for units in ALL_UNITS
            for mask in ("reference", "predicted")
            if getattr(self, f"{mask}_{units.size}") is not None
        ]
        return found[0] if found else SCAN

    @property
    def outcome(self) -> str:
        """'not annotated', 'both empty', 'missed', 'invented', or '' where both masks have the label."""
        if not self.annotated:
            return NOT_ANNOTATED
        in_reference = self.tp + self.fn > 0
        in_prediction = self.tp + self.fp > 0
        if in_reference:
            return "" if in_prediction else "missed"
        return "invented" if in_prediction else "both empty"


class Spread(Record):
    """One metric of one label over the cases where it exists.

    ``std`` is the sample's (None for one case), ``q1`` and ``q3`` are quartiles, ``low`` and ``high`` bound the 95 %
    bootstrap interval of the mean (None for fewer cases than it takes).
    """

    cases: int
    median: float
    std: float | None
    q1: float
    q3: float
    low: float | None
    high: float | None


class LabelSummary(MeanScores):
    """One label over all cases: means, how many cases counted for Dice or had an empty mask of which kind, spreads.

    In ``not_annotated`` cases nobody drew it, and it has no scores. ``lesions`` are pooled over cases, while
    ``lesion_tpr`` and its like are means over cases.
    """

    cases: int
    both_empty: int
    missed: int
    invented: int
    not_annotated: int = 0
    spread: dict[str, Spread] = {}
    lesions: tuple[LesionCounts, ...] = ()


class Comparison(Record):
    """First against second predictions: each metric of each label, and of the cases' means over labels (foreground).

    ``only_first`` and ``only_second`` are cases that the other did not predict, ``second_cases`` the second's scores.
    """

    first: str
    second: str
    cases: tuple[str, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    labels: dict[str, dict[str, Paired]]
    foreground: dict[str, Paired]
    second_cases: dict[str, dict[str, LabelScore]]
    policy: str = COMPARISON_POLICY


class Scores(Record):
    """All scores of an evaluation, as in scores.json. ``foreground_mean`` is the mean over labels of their means.

    ``foreground_interval`` has its 95 % bootstrap interval over cases by metric, ``by`` the scores of groups where such
    were asked for. Files of before these were measured can be read: what they lack is None or empty.
    """

    labels: dict[str, LabelSummary]
    foreground_mean: MeanScores
    cases: dict[str, dict[str, LabelScore]]
    empty_mask_policy: str = EMPTY_MASK_POLICY
    notes: tuple[str, ...] = ()
    foreground_interval: dict[str, tuple[float, float]] = {}
    measures: Measures | None = None
    comparison: Comparison | None = None
    by: tuple[GroupedScores, ...] = ()

    @model_serializer(mode="wrap")
    def _as_before(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Files without groups are as before there were such, for readers of that time."""
        return {key: value for key, value in dump(self).items() if key != "by" or value}

    @property
    def shown(self) -> tuple[str, ...]:
        """Metrics that exist anywhere, in the order of METRICS."""
        return tuple(name for name in METRICS if getattr(self.foreground_mean, name) is not None) or ("dice",)

    @property
    def units(self) -> tuple[Units, ...]:
        """What sizes and distances are in, in the order of ALL_UNITS: mostly one, more where kinds of images mix."""
        found = {next(iter(by_label.values())).units for by_label in self.cases.values() if by_label}
        return tuple(units for units in ALL_UNITS if units in found) or (SCAN,)

    @property
    def extent(self) -> str:
        """'area' where all images are single slices or photographs, else 'volume'."""
        return "area" if {units.extent for units in self.units} == {"area"} else "volume"

    def metric(self, name: str) -> Metric:
        """What a metric is called here: of areas there is no volume."""
        found = METRICS[name]
        if self.extent == "volume":
            return found
        return found._replace(title=found.title.replace("Volume", "Area"), short=found.short.replace("Vol.", "Area"))


def label_score(
    confusion_kk: np.ndarray,
    classes: int | Sequence[int],
    *,
    voxel_size: float | None = None,
    units: Units = SCAN,
    surface: SurfaceScore = NO_SURFACE,
    lesions: Sequence[LesionCounts] = (),
) -> LabelScore:
    """Scores of a class, or of the union of several, from a (K, K) confusion matrix with the reference in rows.

    Empty masks: if both lack the class, every metric is None (left out of means, but counted). If only the reference
    lacks it, Dice, Jaccard, precision and volume similarity are 0, and TPR and volume difference are None, since there
    was nothing to find. If only the prediction lacks it, all are 0 (and the volume difference -1), so that missing a
    structure never raises a mean; that goes for precision too, which strictly does not exist there, and for
    specificity, which a mask of nothing would have for free.

    Volume difference is (predicted - reference) / reference; its mean over cases is a bias, in which -1 of a missed
    structure and 1 of one that was predicted twice as large cancel. Volume similarity is
    1 - |predicted - reference| / (predicted + reference) (Taha and Hanbury, BMC Medical Imaging 2015). Specificity is
    None where the reference takes less than SPECIFICITY_SHARE of the voxels.

    ``voxel_size`` and the distances of ``surface`` are in ``units``.
    """
    counts = label_counts(confusion_kk, classes)
    tp, fp, fn = counts
    voxels = int(confusion_kk.sum())
    wanted = tp + fn
    predicted = tp + fp
    is_missed = wanted > 0 and predicted == 0
    specificity = None
    if 0 < wanted < voxels and wanted >= SPECIFICITY_SHARE * voxels:
        specificity = 0.0 if is_missed else 1 - fp / (voxels - wanted)
    total = lesion_total(lesions)
    in_units: dict[str, Any] = {
        f"hd95_{units.length}": surface.hd95_mm,
        f"assd_{units.length}": surface.assd_mm,
    }
    if voxel_size is not None:
        in_units |= {f"reference_{units.size}": wanted * voxel_size, f"predicted_{units.size}": predicted * voxel_size}
    return LabelScore(
        dice=dice(counts),
        jaccard=ratio(tp, tp + fp + fn),
        tpr=ratio(tp, wanted),
        precision=0.0 if is_missed else ratio(tp, predicted),
        specificity=specificity,
        volume_similarity=None if wanted + predicted == 0 else 1 - abs(fp - fn) / (wanted + predicted),
        volume_difference=ratio(fp - fn, wanted),
        nsd=surface.nsd,
        lesion_tpr=None if total is None else total.tpr,
        lesion_precision=None if total is None else total.precision,
        lesion_f1=None if total is None else total.f1,
        tp=tp,
        fp=fp,
        fn=fn,
        lesions=tuple(lesions),
        **in_units,
    )


def score_not_annotated(
    confusion_kk: np.ndarray,
    classes: int | Sequence[int],
    *,
    voxel_size: float | None = None,
    units: Units = SCAN,
) -> LabelScore:
    """Of a class, or of the union of several, that nobody drew in a case: how much of it was predicted, and no more."""
    counts = label_counts(confusion_kk, classes)
    predicted = (counts.tp + counts.fp) * voxel_size if voxel_size is not None else None
    sizes: dict[str, Any] = {f"predicted_{units.size}": predicted}
    return LabelScore(dice=None, jaccard=None, tpr=None, precision=None, tp=0, fp=0, fn=0, annotated=False, **sizes)


def mean_dice(scores: Mapping[str, LabelScore]) -> float | None:
    """Mean Dice of one case over the labels that have one there; None if none has."""
    return mean(score.dice for score in scores.values())


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of what is not None; None if nothing is."""
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None
