"""Scores a folder of predicted masks against a folder of reference masks; writes JSON, CSV and a report."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np

from segfw.data.formats import read_mask, read_volume, split_ending
from segfw.data.geometry import Geometry, Volume, largest_displacement_mm, stored_like, to_canonical
from segfw.data.layouts import image_files, read_labels
from segfw.data.manifest import LABELS_FILE, LabelSet
from segfw.data.parallel import CasesFailed, Outcome, progress
from segfw.data.verify import as_integers
from segfw.evaluation.metrics import METRICS, LabelScore, Scores, confusion, label_score, mean_dice, summarize
from segfw.evaluation.report import Overlay, draw_overlay, overlay_cases, write_report
from segfw.records import UserError, count, write_text

IDS_SHOWN = 10  # a sentence that lists hundreds of ids hides what it says


def evaluate(
    predictions: Path,
    reference: Path,
    *,
    labels: LabelSet | None = None,
    output: Path | None = None,
    report: Path | None = None,
    images: Mapping[str, Path] | None = None,
) -> Scores:
    """Scores every reference mask's prediction of the same name (the file endings may differ).

    Without ``labels`` they come from ``labels.json`` in the predictions folder, then from ``dataset.json`` beside the
    reference folder, else from the values in the reference masks. For ``output``, ``report`` and ``images`` see
    ``evaluate_pairs``. Raises UserError if a prediction is missing, and CasesFailed like ``evaluate_pairs``.
    """
    _check_output(output)
    predictions, reference = Path(predictions), Path(reference)
    pairs, notes = pair_masks(predictions, reference)
    if labels is None:
        labels, label_notes = _find_labels(predictions, reference, [pair[0] for pair in pairs.values()])
        notes += label_notes
    title = f"Evaluation of {predictions.resolve().name}"
    facts = {"Predictions": str(predictions), "Reference": str(reference)}
    return evaluate_pairs(
        pairs, labels, title=title, output=output, report=report, images=images, facts=facts, notes=notes
    )


def evaluate_pairs(
    pairs: Mapping[str, tuple[Path, Path]],
    labels: LabelSet,
    *,
    title: str,
    output: Path | None = None,
    report: Path | None = None,
    images: Mapping[str, Path] | None = None,
    curve: Sequence[Mapping[str, float]] | None = None,
    facts: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
) -> Scores:
    """Scores {case id: (reference file, prediction file)}, one case in memory at a time.

    ``output`` (.json) also gets a CSV beside it. ``report`` is an HTML page: its pictures show ``images`` (file of the
    first channel by case id) where given, and ``curve`` has a mapping per epoch, as in metrics.jsonl. A case that
    cannot be read or lies on another grid does not stop the others: the scores without it are written, with a note,
    and CasesFailed is raised at the end.
    """
    _check_output(output)
    cases, failures = {}, []
    for case, (reference_file, prediction_file) in progress("scoring", pairs.items()):
        try:
            cases[case] = score_case(reference_file, prediction_file, labels)
        except UserError as error:
            failures.append(Outcome(item=case, error=error))
    if not cases:
        raise failures[0].error if failures else UserError("there are no cases to score; give at least one")
    if failures:
        left_out = _listing([outcome.item for outcome in failures])
        notes = [
            *notes,
            f"{count(len(failures), 'case')} could not be scored and not counted in the means ({left_out})",
        ]
    scores = summarize(cases, notes)
    if report is not None:
        _report(Path(report), title, scores, labels, pairs, images or {}, curve, facts or {})
    if output is not None:
        write_text(Path(output).with_suffix(".csv"), scores_csv(scores))
        scores.save(Path(output))  # last: its presence says that the rest is there too
    if failures:
        raise CasesFailed("in evaluation", failures, None if output is None else Path(output).parent)
    return scores


def _check_output(output: Path | None) -> None:
    if output is not None and Path(output).suffix.lower() != ".json":
        raise UserError(f"{output}: scores are written as JSON (and CSV beside it); give a name that ends in .json")


def first_channel_files(folder: Path) -> dict[str, Path]:
    """{case id: image file of the first channel} of a folder of images named CASE or CASE_0000."""
    by_stem = {split_ending(path)[0]: path for path in image_files(folder)}
    return by_stem | {stem.removesuffix("_0000"): path for stem, path in by_stem.items()}


def score_case(reference_file: Path, prediction_file: Path, labels: LabelSet) -> dict[str, LabelScore]:
    """Scores of every label except the background in one case, by name.

    Raises UserError if a file cannot be read, the grids differ by half a voxel or more, or a value is no label.
    """
    reference_zyx, prediction_zyx, _ = _read_pair(Path(reference_file), Path(prediction_file), labels)
    confusion_kk = confusion(reference_zyx, prediction_zyx, labels.classes)
    return {name: label_score(confusion_kk, index) for name, index in labels.foreground.items()}


def pair_masks(predictions: Path, reference: Path) -> tuple[dict[str, tuple[Path, Path]], list[str]]:
    """{case id: (reference file, prediction file)} by equal names without ending, and what was left out, in words.

    Raises UserError if a reference has no prediction.
    """
    predicted, wanted = _masks_by_id(predictions), _masks_by_id(reference)
    missing = sorted(wanted.keys() - predicted.keys())
    if len(missing) == len(wanted):
        raise UserError(
            f"{predictions}: no file is named like a reference mask (here {_listing(predicted)}; in {reference} "
            f"{_listing(wanted)}); check that both folders belong together, and rename the predictions"
        )
    if missing:
        raise UserError(
            f"{predictions}: has no prediction for {len(missing)} of {len(wanted)} references ({_listing(missing)}); "
            f"predict these too, or take their masks out of {reference}"
        )
    extra = sorted(predicted.keys() - wanted.keys())
    notes = [f"predictions without a reference were ignored: {_listing(extra)}"] if extra else []
    return {case: (wanted[case], predicted[case]) for case in sorted(wanted)}, notes


def scores_csv(scores: Scores) -> str:
    """One row per case and label; a metric that does not exist is an empty cell."""
    columns = (*METRICS, "tp", "fp", "fn")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("case", "label", *columns))
    for case, by_label in scores.cases.items():
        for name, score in by_label.items():
            writer.writerow((case, name, *(getattr(score, column) for column in columns)))
    return text.getvalue()


def _masks_by_id(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the folder that holds the masks")
    masks: dict[str, Path] = {}
    for path in image_files(folder):
        case = split_ending(path)[0]
        if case in masks:
            raise UserError(f"{folder}: {masks[case].name} and {path.name} are masks of one case; keep one of them")
        masks[case] = path
    if not masks:
        raise UserError(f"{folder}: holds no mask segfw can read; give the folder that holds the masks themselves")
    return masks


def _listing(ids: Collection[str]) -> str:
    shown = ", ".join(sorted(ids)[:IDS_SHOWN])
    return f"{shown} and {len(ids) - IDS_SHOWN} more" if len(ids) > IDS_SHOWN else shown


def _find_labels(predictions: Path, reference: Path, reference_files: list[Path]) -> tuple[LabelSet, list[str]]:
    """Labels from labels.json, dataset.json or the reference masks, and a note where they had to be inferred."""
    if (predictions / LABELS_FILE).is_file():
        return LabelSet.load(predictions / LABELS_FILE), []
    description = reference.resolve().parent / "dataset.json"
    if description.is_file():
        return read_labels(description), []
    values: set[int] = set()
    for path in progress("finding labels", reference_files):
        values |= _mask_values(path)
    found = sorted(values - {0})
    if not found:
        raise UserError(f"{reference}: every mask is empty, so the labels are unknown; add {description} with 'labels'")
    labels = LabelSet(names=("background", *(f"label_{value}" for value in found)), values=(0, *found))
    return labels, [f"labels were inferred from the values in the reference masks: {', '.join(map(str, found))}"]


def _mask_values(path: Path) -> set[int]:
    values: set[float] = set()
    for slice_yx in _read_mask(path).array[0]:
        values.update(np.unique(slice_yx).tolist())
    fractions = [value for value in values if value != int(value)] if np.isfinite(list(values)).all() else ["nan"]
    if fractions:
        raise UserError(f"{path}: holds {fractions[0]}, which is no whole number; give the masks, not the images")
    return {int(value) for value in values}


def _read_mask(path: Path) -> Volume:
    """A mask as stored, (1, Z, Y, X)."""
    volume = read_mask(path)
    if volume.array.shape[0] != 1:
        raise UserError(f"{path}: has {volume.array.shape[0]} channels; a mask has one, with a number per label")
    return volume


def _read_pair(reference: Path, prediction: Path, labels: LabelSet) -> tuple[np.ndarray, np.ndarray, Volume]:
    """Class indices (Z, Y, X) of both masks in canonical orientation, and their common grid as stored."""
    wanted, predicted = _read_mask(reference), _read_mask(prediction)
    if not wanted.is_placed:  # a picture: the prediction lies where its image does
        wanted = stored_like(wanted, predicted)
    predicted = stored_like(predicted, wanted)
    _check_grid(prediction, predicted.geometry, reference, wanted.geometry)
    predicted = replace(predicted, geometry=wanted.geometry)  # oriented by the same rounding
    classes = (
        _classes(to_canonical(volume), labels, path) for volume, path in ((wanted, reference), (predicted, prediction))
    )
    return *classes, wanted


def _check_grid(path: Path, geometry: Geometry, reference: Path, wanted: Geometry) -> None:
    remedy = f"resample it to the grid of {reference}, or check that both belong to the same scan"
    if geometry.shape != wanted.shape:
        raise UserError(
            f"{path}: has {_voxels(geometry)} voxels and its reference {_voxels(wanted)} "
            f"(z, y, x after reorientation); {remedy}"
        )
    displacement, limit = largest_displacement_mm(geometry, wanted), min(wanted.spacing_mm) / 2
    if displacement >= limit:
        raise UserError(
            f"{path}: lies up to {displacement:.4g} mm away from its reference "
            f"(less than half a voxel, {limit:.4g} mm, is allowed); {remedy}"
        )


def _voxels(geometry: Geometry) -> str:
    return " x ".join(str(size) for size in geometry.shape)


def _classes(volume: Volume, labels: LabelSet, path: Path) -> np.ndarray:
    """Class index of every voxel, (Z, Y, X); slice by slice, since the search needs 8 bytes a voxel and more."""
    mask_zyx = volume.array[0]
    classes_zyx = np.empty(mask_zyx.shape, dtype=labels.to_classes(np.asarray(labels.values)).dtype)
    for slice_yx, classes_yx in zip(mask_zyx, classes_zyx):
        try:
            classes_yx[...] = labels.to_classes(as_integers(slice_yx))
        except ValueError:
            unknown = ", ".join(f"{value:.15g}" for value in np.setdiff1d(slice_yx, labels.values)[:IDS_SHOWN])
            known = ", ".join(f"{value} {name}" for name, value in zip(labels.names, labels.values))
            raise UserError(
                f"{path}: holds {unknown}, which is no label ({known}); correct the mask, or "
                "give the labels that it was made with"
            ) from None
    return classes_zyx


def _report(
    path: Path,
    title: str,
    scores: Scores,
    labels: LabelSet,
    pairs: Mapping[str, tuple[Path, Path]],
    images: Mapping[str, Path],
    curve: Sequence[Mapping[str, float]] | None,
    facts: Mapping[str, str],
) -> None:
    """Draws the best, median and worst case, which are read again, and writes the page."""
    facts = {
        **facts,
        "Cases": str(len(scores.cases)),
        "Written": f"{datetime.now().astimezone():%Y-%m-%d %H:%M} by segfw {version('segfw')}",
    }
    overlays = []
    for rank, case in overlay_cases(scores).items():
        reference_zyx, prediction_zyx, stored = _read_pair(*pairs[case], labels)
        image_zyx = None
        if case in images:
            try:
                image_zyx = _read_image(images[case], pairs[case][0], stored)
            except UserError as error:  # a picture is not worth losing the report for
                facts[f"Image of {case} left out"] = str(error)
        spacing_mm = to_canonical(stored).geometry.spacing_mm
        picture = draw_overlay(image_zyx, reference_zyx, prediction_zyx, spacing_mm, labels.names)
        overlays.append(Overlay(case=case, rank=rank, dice=mean_dice(scores.cases[case]), image_png=picture))
    write_report(path, title=title, scores=scores, overlays=overlays, curve=curve, facts=facts)


def _read_image(path: Path, reference: Path, stored: Volume) -> np.ndarray:
    """First channel (Z, Y, X) in canonical orientation; raises UserError unless it lies on the masks' grid."""
    volume = stored_like(read_volume(Path(path)), stored)
    _check_grid(Path(path), volume.geometry, reference, stored.geometry)
    return to_canonical(replace(volume, geometry=stored.geometry)).array[0]
