"""The page of a stress test: what broke, curves, levels of loss and the worst pictures, in one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segfw.base.errors import UserError
from segfw.base.figures import write_page
from segfw.base.tables import Column, Table
from segfw.base.words import count
from segfw.evaluation.overlays import draw_overlay
from segfw.images.volume import Volume, to_canonical
from segfw.perturbations.regridding import covered, on_grid
from segfw.robustness.stress_case import StressJob, read_image
from segfw.robustness.stress_figures import draw_curves
from segfw.robustness.stress_folder import StressCase
from segfw.robustness.stress_records import ChangeSummary, LevelOfLoss, StressReport, StructureSummary
from segfw.robustness.stress_report import LOSS

TEMPLATE = Path(__file__).with_name("stress.html.jinja")
ELSEWHERE = "stress.csv has all rows."
MOST_PICTURES = 6
WORTH_A_PICTURE = 0.98  # agreement below which a mask is shown


@dataclass(frozen=True, kw_only=True)
class ChangePicture:
    """A case before (solid) and after (dashed) a change, over the changed image."""

    case: str
    text: str
    png: bytes
    has_directions: bool


def write_stress_page(path: Path, report: StressReport, work: StressJob, cases: Sequence[StressCase]) -> None:
    """Writes the page, atomically; the cases that are shown are predicted once more."""
    classes = {name: work.labels.drawn_classes[name] for name in report.structures}
    pictures = _pictures(report, work, cases)
    exact = [change for change in report.changes if change.perturbation.kind == "exact"]
    near = [change for change in report.changes if change.perturbation.kind == "near"]
    curves = [change for change in report.changes if change.perturbation.kind == "degrades"]
    write_page(
        path,
        TEMPLATE,
        title=f"Robustness of {Path(report.model).resolve().name}",
        report=report,
        cases=count(len(report.cases), "image").split(" ", 1),
        exact_count=count(len(exact), "change").split(" ", 1),
        exact_table=exact_table(exact) if exact else None,
        near_table=near_table(near) if near else None,
        level_table=level_table(report.levels) if report.levels else None,
        curve_table=curve_table(curves) if curves else None,
        dice_png=draw_curves(report, classes, is_dice=True) if report.reference else None,
        agreement_png=draw_curves(report, classes, is_dice=False),
        pictures=pictures,
        loss=LOSS,
    )


def exact_table(changes: Sequence[ChangeSummary]) -> Table:
    """A row for each change that must change nothing."""
    return Table(
        name="Changes that must change nothing",
        elsewhere=ELSEWHERE,
        columns=[
            Column(title="Change", values=[_name_of(change) for change in changes]),
            Column(title="Images", values=[change.cases for change in changes], digits=0),
            Column(title="Changed voxels", values=[change.changed_voxels for change in changes], digits=0),
            Column(title="in images", values=[len(change.changed_cases) for change in changes], digits=0),
            Column(title="Verdict", values=[_verdict(change) for change in changes]),
        ],
    )


def _name_of(change: ChangeSummary) -> str:
    """'axis order 1 (PIL, RSA)': of what was drawn a few."""
    drawn = list(dict.fromkeys(detail.removeprefix("stored as ") for detail in change.details.values()))
    more = ", ..." if len(drawn) > 3 else ""
    return change.perturbation.text + (f" ({', '.join(drawn[:3])}{more})" if drawn else "")


def _verdict(change: ChangeSummary) -> str:
    if change.holds is None:
        return "not tried"
    if change.perturbation.kind == "exact":
        return "holds" if change.holds else "BROKEN"
    return "holds" if change.holds else "does not hold"


def near_table(changes: Sequence[ChangeSummary]) -> Table:
    """A row for each change and structure where little should change."""
    return _agreement_table("Changes that should change little", changes, has_verdict=True)


def curve_table(changes: Sequence[ChangeSummary]) -> Table:
    """A row for each level and structure of the curves."""
    return _agreement_table("Every level of every change", changes, has_verdict=False)


def _agreement_table(name: str, changes: Sequence[ChangeSummary], *, has_verdict: bool) -> Table:
    rows = [(change, each) for change in changes for each in change.structures]
    columns = [
        Column(title="Change", values=[_name_of(change) for change, _ in rows], choose="All changes"),
        Column(title="Structure", values=[each.structure for _, each in rows], choose="All structures"),
    ]
    for title, values, hint in (
        ("Agreement", [each.agreement for _, each in rows], "mean Dice with the mask of the unchanged image"),
        ("Worst", [each.worst_agreement for _, each in rows], "of the images"),
        ("Grid allows", [each.ceiling for _, each in rows], "what a mask alone keeps on the other grid and back"),
        ("Dice before", [each.dice_before for _, each in rows], "with the expert's masks"),
        ("Dice after", [each.dice_after for _, each in rows], "with the expert's masks"),
    ):
        if any(value is not None for value in values):
            columns.append(Column(title=title, values=values, digits=3, hint=hint))
    columns.append(
        Column(title="Volume", unit="% change", values=[each.change_of_volume_percent for _, each in rows], digits=1)
    )
    columns.append(Column(title="Found", unit="of expected", values=[_found(each) for _, each in rows]))
    columns.append(Column(title="Invented", values=[each.invented for _, each in rows], digits=0))
    if has_verdict:
        columns.append(Column(title="Verdict", values=[_verdict(change) for change, _ in rows]))
    return Table(name=name, columns=columns, search="Find a change or a structure", elsewhere=ELSEWHERE, sticky=2)


def _found(each: StructureSummary) -> str:
    """'7 (was 8) of 8'."""
    was = "" if each.found_after == each.found_before else f" (was {each.found_before})"
    return f"{each.found_after}{was} of {each.expected}"


def level_table(levels: Sequence[LevelOfLoss]) -> Table:
    """A row for each change and structure: at which level 0.05 is lost."""
    return Table(
        name="Levels that cost 0.05",
        elsewhere=ELSEWHERE,
        search="Find a change or a structure",
        sticky=2,
        columns=[
            Column(title="Change", values=[each.change for each in levels], choose="All changes"),
            Column(title="Structure", values=[each.structure for each in levels], choose="All structures"),
            Column(title="Level", values=[each.level for each in levels], significant=3),
            Column(title="Unit", values=[each.unit for each in levels]),
            Column(title="Tried up to", values=[each.strongest_level for each in levels], significant=3),
            Column(title="Largest loss", values=[each.largest_loss for each in levels], digits=3),
            Column(title="of", values=[each.of for each in levels]),
        ],
    )


def _pictures(report: StressReport, work: StressJob, cases: Sequence[StressCase]) -> list[ChangePicture]:
    """The worst masks: of each change at most one, broken exact ones first."""
    by_id = {case.id: case for case in cases}
    pictures = []
    for change, case_id, agreement in _worst(report)[:MOST_PICTURES]:
        picture = _picture(by_id[case_id], change, agreement, work, report.structures)
        if picture is not None:
            pictures.append(picture)
    return pictures


def _worst(report: StressReport) -> list[tuple[ChangeSummary, str, float]]:
    """Of each kind of change its worst level, structure and case."""
    worst: dict[str, tuple[float, ChangeSummary, str]] = {}
    for change in report.changes:
        for each in change.structures:
            if each.worst_agreement is None:
                continue
            is_worth = each.worst_agreement < WORTH_A_PICTURE
            if change.perturbation.kind == "exact":
                is_worth = change.holds is False and each.worst_agreement < 1
            name = change.perturbation.name
            if is_worth and (name not in worst or each.worst_agreement < worst[name][0]):
                worst[name] = (each.worst_agreement, change, each.worst_case)
    ordered = sorted(worst.values(), key=lambda found: (found[1].perturbation.kind != "exact", found[0]))
    return [(change, case, agreement) for agreement, change, case in ordered]


def _picture(
    case: StressCase, change: ChangeSummary, agreement: float, work: StressJob, shown_names: Sequence[str]
) -> ChangePicture | None:
    """None where a file has gone meanwhile: a picture is not worth losing the page for."""
    try:
        image = read_image(case, len(work.predictor.plan.channels))
        before = work.mask(image)
        changed, after = work.tried(case, image, change.perturbation)
    except UserError:
        return None
    shown = changed.volume
    if shown.geometry != image.geometry:
        same_axes = Volume(array=shown.array, geometry=changed.geometry)
        shown = on_grid(same_axes, image.geometry)
    inside = covered(changed.geometry, image.geometry)  # of a smaller field of view nothing else counts
    before_zyx, after_zyx = (_canonical(np.where(inside, mask, 0), image) for mask in (before, after))
    keep = np.zeros(work.labels.classes, bool)
    for name in shown_names:
        keep[list(work.structures[name])] = True
    png = draw_overlay(
        _shown(shown.array, image),
        np.where(keep[before_zyx], before_zyx, 0),
        np.where(keep[after_zyx], after_zyx, 0),
        to_canonical(image).geometry.spacing_mm,
        work.labels.names,
        has_directions=not image.is_picture,
        units=image.units,
    )
    detail = change.details.get(case.id, "")
    text = f"{change.perturbation.text}{f', {detail}' if detail else ''}; agreement {agreement:.3f}"
    return ChangePicture(case=case.id, text=text, png=png, has_directions=not image.is_picture)


def _canonical(mask_zyx: np.ndarray, image: Volume) -> np.ndarray:
    return to_canonical(Volume(array=mask_zyx[None], geometry=image.geometry)).array[0]


def _shown(array_czyx: np.ndarray, image: Volume) -> np.ndarray:
    """The first channel (Z, Y, X), or the colours (Z, Y, X, 3) of a picture that has them."""
    canonical = to_canonical(Volume(array=array_czyx, geometry=image.geometry))
    return np.moveaxis(canonical.array, 0, -1) if image.is_coloured else canonical.array[0]
