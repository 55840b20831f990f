"""Scores a folder of predicted masks against a folder of reference masks; writes JSON, CSV and a report."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from segfw.data.description import DESCRIPTION_FILE, label_map_of, read_label_maps
from segfw.data.formats import split_ending
from segfw.data.geometry import to_canonical
from segfw.data.layouts import image_files, read_labels
from segfw.data.manifest import LABELS_FILE, LabelMap, LabelSet
from segfw.data.parallel import CasesFailed, Outcome, progress
from segfw.evaluation.masks import IDS_SHOWN, mask_values, read_image, read_pair
from segfw.evaluation.cases import score_case
from segfw.evaluation.metrics import METRICS, LabelScore, Scores, mean_dice
from segfw.evaluation.summary import summarize
from segfw.evaluation.report import Overlay, draw_overlay, overlay_cases, write_report
from segfw.records import UserError, count, write_text


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
        labels = _known_labels(predictions, reference)
    maps = read_label_maps(reference.resolve().parent, labels)
    try:
        label_maps = {case: label_map_of(case, maps) for case in pairs}
    except ValueError as error:
        raise UserError(f"{reference.resolve().parent}: label maps contradict each other: {error}") from None
    if labels is None:
        labels, label_notes = _labels_in_masks(reference, {case: pair[0] for case, pair in pairs.items()}, label_maps)
        notes += label_notes
    title = f"Evaluation of {predictions.resolve().name}"
    facts = {"Predictions": str(predictions), "Reference": str(reference)}
    return evaluate_pairs(
        pairs,
        labels,
        title=title,
        output=output,
        report=report,
        images=images,
        facts=facts,
        notes=notes,
        label_maps=label_maps,
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
    label_maps: Mapping[str, LabelMap] | None = None,
) -> Scores:
    """Scores {case id: (reference file, prediction file)}, one case in memory at a time.

    ``output`` (.json) also gets a CSV beside it. ``report`` is an HTML page: its pictures show ``images`` (file of the
    first channel by case id) where given, and ``curve`` has a mapping per epoch, as in metrics.jsonl. ``label_maps``
    say by case id what values in its reference mean; voxels of the ignore label there count nowhere. A case that
    cannot be read or lies on another grid does not stop the others: the scores without it are written, with a note,
    and CasesFailed is raised at the end.
    """
    _check_output(output)
    label_maps = label_maps or {}
    cases, failures = {}, []
    for case, (reference_file, prediction_file) in progress("scoring", pairs.items()):
        try:
            cases[case] = score_case(reference_file, prediction_file, labels, label_maps.get(case, ()))
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
    scores = summarize(cases, [*notes, *labels.explanation])
    if report is not None:
        _report(Path(report), title, scores, labels, pairs, images or {}, curve, facts or {}, label_maps)
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


def score_case(
    reference_file: Path, prediction_file: Path, labels: LabelSet, label_map: LabelMap = ()
) -> dict[str, LabelScore]:
    """Scores of every label except the background, or of every region, in one case, by name.

    ``label_map`` is applied to the reference; its voxels of the ignore label count nowhere.

    Raises UserError if a file cannot be read, the grids differ by half a voxel or more, or a value is no label.
    """
    reference_zyx, prediction_zyx, _ = read_pair(Path(reference_file), Path(prediction_file), labels, label_map)
    confusion_kk = confusion(reference_zyx, prediction_zyx, labels.classes)
    if labels.ignored_class is not None:
        confusion_kk[labels.ignored_class] = 0
    return {name: label_score(confusion_kk, classes) for name, classes in labels.structures.items()}


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


def _known_labels(predictions: Path, reference: Path) -> LabelSet | None:
    """Labels from labels.json beside the predictions or dataset.json beside the reference; None without both."""
    if (predictions / LABELS_FILE).is_file():
        return LabelSet.load(predictions / LABELS_FILE)
    description = reference.resolve().parent / DESCRIPTION_FILE
    return read_labels(description) if description.is_file() else None


def _labels_in_masks(
    reference: Path, files: Mapping[str, Path], label_maps: Mapping[str, LabelMap]
) -> tuple[LabelSet, list[str]]:
    """A label for every value in the reference masks, and a note that says so."""
    values: set[int] = set()
    for case, path in progress("finding labels", files.items()):
        meanings = dict(label_maps[case])
        values |= {meanings.get(value, value) for value in mask_values(path)}
    found = sorted(values - {0})
    if not found:
        remedy = f"add {reference.resolve().parent / DESCRIPTION_FILE} with 'labels'"
        raise UserError(f"{reference}: every mask is empty, so the labels are unknown; {remedy}")
    labels = LabelSet(names=("background", *(f"label_{value}" for value in found)), values=(0, *found))
    return labels, [f"labels were inferred from the values in the reference masks: {', '.join(map(str, found))}"]


def _report(
    path: Path,
    title: str,
    scores: Scores,
    labels: LabelSet,
    pairs: Mapping[str, tuple[Path, Path]],
    images: Mapping[str, Path],
    curve: Sequence[Mapping[str, float]] | None,
    facts: Mapping[str, str],
    label_maps: Mapping[str, LabelMap],
) -> None:
    """Draws the best, median and worst case, which are read again, and writes the page."""
    facts = {
        **facts,
        "Cases": str(len(scores.cases)),
        "Written": f"{datetime.now().astimezone():%Y-%m-%d %H:%M} by segfw {version('segfw')}",
    }
    overlays = []
    for rank, case in overlay_cases(scores).items():
        reference_zyx, prediction_zyx, stored = read_pair(*pairs[case], labels, label_maps.get(case, ()))
        if labels.ignored_class is not None:  # which is not drawn
            reference_zyx[reference_zyx == labels.ignored_class] = 0
            prediction_zyx[prediction_zyx == labels.ignored_class] = 0
        image_zyx = None
        if case in images:
            try:
                image_zyx = read_image(images[case], pairs[case][0], stored)
            except UserError as error:  # a picture is not worth losing the report for
                facts[f"Image of {case} left out"] = str(error)
        spacing_mm = to_canonical(stored).geometry.spacing_mm
        picture = draw_overlay(image_zyx, reference_zyx, prediction_zyx, spacing_mm, labels.names)
        overlays.append(Overlay(case=case, rank=rank, dice=mean_dice(scores.cases[case]), image_png=picture))
    write_report(path, title=title, scores=scores, overlays=overlays, curve=curve, facts=facts)
