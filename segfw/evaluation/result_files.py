"""The files of an evaluation: scores as JSON, tables beside it, and a report with pictures of single cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from pathlib import Path

import numpy as np

from segfw.base.files import write_text
from segfw.base.output_paths import PAGE_ENDINGS, is_json_with, is_page, is_table_of, require_replaceable
from segfw.base.own_version import own_version
from segfw.base.records import UserError
from segfw.evaluation.group_text import group_tests_csv, groups_csv
from segfw.evaluation.mask_facts import Training, training_of
from segfw.evaluation.masks import read_image
from segfw.evaluation.metrics import Scores, mean_dice
from segfw.evaluation.overlays import Overlay, draw_overlay, overlay_cases
from segfw.evaluation.pairs import LabelledPairs
from segfw.evaluation.report import write_report
from segfw.evaluation.text import comparison_csv, lesions_csv, scores_csv, summary_csv
from segfw.images.volume import to_canonical

# Beside NAME.json, by the ending of the name: the first columns of each table.
TABLES = {
    ".csv": ("case", "label"),
    "_summary.csv": ("label", "metric"),
    "_lesions.csv": ("case", "label"),
    "_comparison.csv": ("label", "metric"),
    "_groups.csv": ("column", "group"),
    "_group_tests.csv": ("column", "tested"),
}


@dataclass(frozen=True, kw_only=True)
class ResultFiles:
    """What is written of an evaluation, and what the report shows beside the scores.

    ``output`` (NAME.json) also gets NAME.csv (a row per case and label), NAME_summary.csv, and where there is something
    to say NAME_lesions.csv, NAME_comparison.csv, NAME_groups.csv and NAME_group_tests.csv. ``report`` is an HTML page:
    its pictures show ``images`` (file of the first channel by case id) where given, ``curve`` has a mapping per epoch,
    as in metrics.jsonl. ``training`` is how the model was trained, as far as known; without it what the curve tells.
    """

    title: str = ""
    output: Path | None = None
    report: Path | None = None
    images: Mapping[str, Path] = field(default_factory=dict)
    curve: Sequence[Mapping[str, object]] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    training: Sequence[Training] = ()

    def __post_init__(self) -> None:
        check_output(self.output)
        check_report(self.report)


def check_output(output: Path | None) -> None:
    """UserError if the name of the scores does not end in .json."""
    if output is not None and Path(output).suffix.lower() != ".json":
        raise UserError(f"{output}: scores are written as JSON (and CSV beside it); give a name that ends in .json")
    if output is None:
        return
    output = Path(output)
    require_replaceable(output, (".json",), is_json_with("cases", "labels", "foreground_mean"))
    for ending, columns in TABLES.items():
        require_replaceable(output.with_name(output.stem + ending), (".csv",), is_table_of(*columns))


def check_report(report: Path | None) -> None:
    """UserError if the page does not end in .html, or if what is there is no page."""
    require_replaceable(report, PAGE_ENDINGS, is_page)


def write_results(files: ResultFiles, scores: Scores, pairs: LabelledPairs) -> None:
    """Writes the scores and the report, as far as they are asked for."""
    if files.output is not None:  # first: a picture that cannot be drawn is not worth losing the scores for
        write_scores(files.output, scores)
    if files.report is not None:
        write_report_of_pairs(files.report, files, scores, pairs)


def write_scores(output: Path, scores: Scores) -> None:
    """The JSON and the tables beside it; the JSON last, because its presence says that the tables are there too."""
    tables = {".csv": scores_csv(scores), "_summary.csv": summary_csv(scores)}
    if any(label.lesions for label in scores.labels.values()):
        tables["_lesions.csv"] = lesions_csv(scores)
    if scores.comparison is not None:
        tables["_comparison.csv"] = comparison_csv(scores.comparison)
    if scores.by:
        tables["_groups.csv"] = groups_csv(scores.by)
        tables["_group_tests.csv"] = group_tests_csv(scores.by)
    for ending in TABLES.keys() - tables.keys():  # of an earlier call, whose numbers would be taken for these
        output.with_name(output.stem + ending).unlink(missing_ok=True)
    for ending, text in tables.items():
        write_text(output.with_name(output.stem + ending), text)
    scores.save(output)


def write_report_of_pairs(path: Path, files: ResultFiles, scores: Scores, pairs: LabelledPairs) -> None:
    """Draws the worst, median and best cases, which are read again, and writes the page."""
    labels = pairs.labels
    facts = {
        **files.facts,
        "Cases": str(len(scores.cases)),
        "Written": f"{datetime.now().astimezone():%Y-%m-%d %H:%M} by segfw {own_version()}",
    }
    overlays = []
    for rank, case in overlay_cases(scores).items():
        overlay, complaint = _picture_of(case, rank, scores, pairs, files.images.get(case))
        if files.images and case not in files.images:
            complaint = "there is no file of its name among the images"
        if complaint:
            facts[f"Image of {case} left out"] = complaint
        overlays.append(overlay)
    write_report(
        path,
        title=files.title,
        scores=scores,
        overlays=overlays,
        curve=files.curve,
        facts=facts,
        colors={name: color for name, color in labels.drawn_classes.items() if name in scores.labels},
        training=files.training or training_of(files.curve),
    )


def _picture_of(case: str, rank: str, scores: Scores, pairs: LabelledPairs, image: Path | None) -> tuple[Overlay, str]:
    """Both masks of a case, over its image where there is one, and why the image is left out ('' if not)."""
    labels = pairs.labels
    reference, _ = pairs.files[case]
    reference_zyx, prediction_zyx, stored = pairs.read(case, image)
    annotated = pairs.annotated.get(case, tuple(labels.structures))
    if pairs.only or case in pairs.annotated:  # others are not drawn
        names = [name for name in pairs.only or labels.structures if name in annotated]
        shown = list(chain.from_iterable(labels.structures[name] for name in names))
        for mask_zyx in (reference_zyx, prediction_zyx):
            mask_zyx[~np.isin(mask_zyx, shown)] = 0
    if labels.ignored_class is not None:  # which is not drawn
        reference_zyx[reference_zyx == labels.ignored_class] = 0
        prediction_zyx[prediction_zyx == labels.ignored_class] = 0
    image_zyx = None
    complaint = ""
    if image is not None:
        try:
            image_zyx = read_image(image, reference, stored)
        except UserError as error:  # a picture is not worth losing the report for
            complaint = str(error)
    picture = draw_overlay(
        image_zyx,
        reference_zyx,
        prediction_zyx,
        to_canonical(stored).geometry.spacing_mm,
        labels.names,
        has_directions=not stored.is_picture,
        units=stored.units,
    )
    overlay = Overlay(
        case=case,
        rank=rank,
        dice=mean_dice(scores.cases[case]),
        image_png=picture,
        has_image=image_zyx is not None,
        has_directions=not stored.is_picture,
    )
    return overlay, complaint
