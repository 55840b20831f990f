"""From what every calibration case gave to a quality model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from segfw.dataset.labels import LabelSet
from segfw.perturbations.spoiling import SHIFTS
from segfw.quality.calibration_pass import CalibratedCase
from segfw.quality.input_gate import fit_gate
from segfw.quality.model_identity import ModelIdentity
from segfw.quality.plausible_thresholds import fit_plausible
from segfw.quality.quality_features import Priors, priors_of
from segfw.quality.quality_fitting import FittedQuality, QualityRequest, fit_quality
from segfw.quality.quality_model import QualityItem


def quality_of_cases(
    cases: Sequence[CalibratedCase],
    patient_of: Mapping[str, str],
    labels: LabelSet,
    identity: ModelIdentity,
    request: QualityRequest,
    *,
    made: str,
    notes: Sequence[str] = (),
) -> FittedQuality:
    """The quality model of a configuration.

    Parameters
    ----------
    cases
        Those that were predicted, and those that only show what training images and masks look like.
    patient_of
        By case.
    labels, identity
        Of the model.
    request
        What the quality model shall say.
    made
        The day.
    notes
        What a reader should know.

    Returns
    -------
    FittedQuality
        The quality model, and what it says of its own cases without having seen their patients.

    Raises
    ------
    UserError
        If there are too few cases.
    """
    items = quality_items(cases, patient_of)
    patients = [patient_of[case.case] for case in cases]
    plausible = {}
    for name in labels.structures:
        predicted = [case for case in cases if name in case.histograms]
        plausible[name] = fit_plausible(
            [case.histograms[name] for case in predicted], [patient_of[case.case] for case in predicted]
        )
    return fit_quality(
        items,
        labels,
        identity,
        priors_of([case.shapes for case in cases]),
        _priors_without(cases, patients),
        request,
        made=made,
        shifts=[shift for shift in SHIFTS if any(item.shift == shift for item in items)],
        gate=fit_gate([case.fingerprint for case in cases], patients),
        plausible=plausible,
        notes=notes,
    )


def quality_items(cases: Sequence[CalibratedCase], patient_of: Mapping[str, str]) -> list[QualityItem]:
    """An item for every structure in every pass of every network."""
    items = []
    for case in cases:
        for each in case.passes:
            for fold, structures in each.folds.items():
                for name, measured in structures.items():
                    items.append(
                        QualityItem(
                            case=case.case,
                            patient=patient_of[case.case],
                            structure=name,
                            fold=fold,
                            shift=each.shift,
                            features=measured.features,
                            dice=measured.dice,
                            true_ml=measured.true_ml,
                            predicted_ml=measured.predicted_ml,
                            pair=each.pair.get(name),
                            mean_dice=each.mean_dice.get(name),
                        )
                    )
    return items


def _priors_without(cases: Sequence[CalibratedCase], patients: Sequence[str]) -> dict[str, Priors]:
    """Of each patient that was predicted, the masks of all others: its own would be measured against itself."""
    predicted = {patient for case, patient in zip(cases, patients) if case.passes}
    found: dict[str, Priors] = {}
    for own in sorted(predicted):
        others = [case.shapes for case, patient in zip(cases, patients) if patient != own]
        found[own] = priors_of(others)
    return found
