"""The files of an evaluation: scores as JSON, tables beside it, and a report with pictures of single cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from segfw.base.files import write_text
from segfw.base.records import UserError
from segfw.dataset.labels import LabelMap, LabelSet
from segfw.evaluation.masks import read_image, read_pair
from segfw.evaluation.metrics import Scores, mean_dice
from segfw.evaluation.overlays import Overlay, draw_overlay, overlay_cases
from segfw.evaluation.report import write_report
from segfw.evaluation.text import comparison_csv, lesions_csv, scores_csv, summary_csv
from segfw.images.volume import to_canonical


def write_scores(output: Path, scores: Scores) -> None:
    """The JSON and the tables beside it; the JSON last, because its presence says that the tables are there too."""
    tables = {".csv": scores_csv(scores), "_summary.csv": summary_csv(scores)}
    if any(label.lesions for label in scores.labels.values()):
        tables["_lesions.csv"] = lesions_csv(scores)
    if scores.comparison is not None:
        tables["_comparison.csv"] = comparison_csv(scores.comparison)
    for ending, text in tables.items():
        write_text(output.with_name(output.stem + ending), text)
    scores.save(output)


def write_report_of_pairs(
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
    """Draws the worst, median and best cases, which are read again, and writes the page."""
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
    painted = labels.painted_classes or tuple(labels.foreground.values())
    colors = dict(zip(labels.structures, painted))
    write_report(path, title=title, scores=scores, overlays=overlays, curve=curve, facts=facts, colors=colors)
