"""What all cases together say: means and worst ones of each change, and the level at which a structure is lost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segfw.base.own_version import own_version
from segfw.base.words import count
from segfw.inference.mask_settings import PredictionSettings
from segfw.perturbations.perturbation import Perturbation
from segfw.perturbations.perturbing import SERIES
from segfw.robustness.stress_folder import StressCase, StressFolder
from segfw.robustness.stress_records import (
    CaseStress,
    ChangeSummary,
    Effect,
    LevelOfLoss,
    StressReport,
    StructureEffect,
    StructureSummary,
)

LOSS = 0.05  # whose level is told
NEAR = 0.99  # of the agreement that the grid allows
SHOWN = 5
ORDER = {"exact": 0, "near": 1, "degrades": 2}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a call asks for: the model and the folders as they were typed, the structures that are told of.

    ``failed`` are the cases that this call could not try, with the reason.
    """

    model: Path
    images: Path
    reference: Path | None
    structures: tuple[str, ...]
    failed: Mapping[str, str]


def gathered(
    folder: StressFolder,
    cases: Sequence[StressCase],
    settings: PredictionSettings,
    asked: Asked,
    *,
    orientation: str,
) -> StressReport:
    """The report of what is there of the cases by now."""
    structures = asked.structures
    failed = asked.failed
    found = [kept for kept in (folder.current(case) for case in cases) if kept is not None and kept.tried != "some"]
    known = {each.id for each in found}
    perturbations = list(dict.fromkeys(effect.perturbation for each in found for effect in each.effects))
    if folder.is_quick:
        perturbations = [each for each in perturbations if _is_quick(each)]
    perturbations.sort(key=lambda each: (ORDER[each.kind], _place(each), each.strength))
    changes = tuple(_change(perturbation, found, structures) for perturbation in perturbations)
    return StressReport(
        version=own_version(),
        configuration=settings.configuration,
        folds=settings.folds,
        precision=settings.precision,
        weights_digest=settings.weights_digest,
        quick=folder.is_quick,
        cases=tuple(each.id for each in found),
        missing=tuple(case.id for case in cases if case.id not in known and case.id not in failed),
        failed=dict(failed),
        structures=tuple(structures),
        changes=changes,
        levels=tuple(_levels(changes, structures)),
        notes=tuple(_notes(changes, len(found))),
        model=str(asked.model),
        images=str(asked.images),
        reference=str(asked.reference or ""),
        orientation=orientation,
    )


def _is_quick(perturbation: Perturbation) -> bool:
    if perturbation.name in SERIES:
        return perturbation.level in SERIES[perturbation.name].quick
    return not perturbation.name.startswith("axis order") or perturbation.name == "axis order 1"


def _place(perturbation: Perturbation) -> int:
    """Where a curve stands in the table of all; others stay in the order in which they were tried."""
    return list(SERIES).index(perturbation.name) if perturbation.name in SERIES else -1


def _change(perturbation: Perturbation, found: Sequence[CaseStress], structures: Sequence[str]) -> ChangeSummary:
    tried: dict[str, Effect] = {}
    for case in found:
        effect = case.effect_of(perturbation)
        if effect is not None:
            tried[case.id] = effect
    whole = {case: effect for case, effect in tried.items() if not effect.problem}
    summaries = tuple(_structure(name, whole) for name in structures)
    changed = tuple(case for case, effect in whole.items() if effect.changed_voxels)
    holds = None
    if perturbation.kind == "exact" and whole:
        holds = not changed
    elif perturbation.kind == "near" and whole:
        holds = all(
            each.agreement is None or each.agreement >= NEAR * (1.0 if each.ceiling is None else each.ceiling)
            for each in summaries
        )
    return ChangeSummary(
        perturbation=perturbation,
        cases=len(whole),
        changed_voxels=sum(effect.changed_voxels for effect in whole.values()),
        changed_cases=changed,
        details={case: effect.detail for case, effect in whole.items() if effect.detail},
        structures=summaries,
        holds=holds,
        problems={case: effect.problem for case, effect in tried.items() if effect.problem},
    )


def _structure(name: str, effects: Mapping[str, Effect]) -> StructureSummary:
    found: dict[str, StructureEffect] = {}
    for case, effect in effects.items():
        found[case] = next(each for each in effect.structures if each.structure == name)
    agreeing = {case: each.agreement for case, each in found.items() if each.agreement is not None}
    worst_case = min(agreeing, key=lambda case: agreeing[case], default="")
    paired = [
        (each.dice_before, each.dice_after)
        for each in found.values()
        if each.dice_before is not None and each.dice_after is not None
    ]
    growths = [
        100 * (each.voxels_after - each.voxels_before) / each.voxels_before
        for each in found.values()
        if each.voxels_before
    ]
    return StructureSummary(
        structure=name,
        cases=len(agreeing),
        agreement=_mean(agreeing.values()),
        worst_agreement=agreeing[worst_case] if worst_case else None,
        worst_case=worst_case,
        ceiling=_mean(each.ceiling for each in found.values() if each.ceiling is not None),
        dice_before=_mean(before for before, _ in paired),
        dice_after=_mean(after for _, after in paired),
        change_of_dice=_mean(after - before for before, after in paired),
        change_of_volume_percent=_mean(growths),
        expected=sum(each.expected for each in found.values()),
        found_before=sum(each.found_before for each in found.values()),
        found_after=sum(each.found_after for each in found.values()),
        invented=sum(not each.expected and each.voxels_after > 0 for each in found.values()),
    )


def _mean(values: Iterable[float]) -> float | None:
    known = list(values)
    return float(np.mean(known)) if known else None


def loss_of(summary: StructureSummary) -> tuple[float | None, bool]:
    """What a structure lost, and whether that is of Dice with the expert's masks; else it is of agreement.

    Agreement is held against the most that the other grid allows.
    """
    if summary.change_of_dice is not None:
        return -summary.change_of_dice, True
    if summary.agreement is None:
        return None, False
    return (1.0 if summary.ceiling is None else summary.ceiling) - summary.agreement, False


def _levels(changes: Sequence[ChangeSummary], structures: Sequence[str]) -> list[LevelOfLoss]:
    found = []
    for name in SERIES:
        of_series = [change for change in changes if change.perturbation.name == name]
        of_series = [change for change in of_series if change.perturbation.kind == "degrades"]
        for index, structure in enumerate(structures):
            level = _level_of_loss(of_series, index, structure)
            if level is not None:
                found.append(level)
    return found


def _level_of_loss(of_series: Sequence[ChangeSummary], index: int, structure: str) -> LevelOfLoss | None:
    """Between the level before and the first one at which LOSS is reached, in a straight line; None without any."""
    known = []
    is_dice = False
    for change in of_series:
        loss, is_dice = loss_of(change.structures[index])
        if loss is not None:
            known.append((change.perturbation, loss))
    if not known:
        return None
    first = known[0][0]
    previous_level = first.unchanged
    previous_loss = 0.0
    level = None
    for perturbation, loss in known:
        at = perturbation.level if perturbation.level is not None else 0.0
        if loss >= LOSS:
            share = (LOSS - previous_loss) / (loss - previous_loss)
            level = previous_level + share * (at - previous_level)
            break
        previous_level = at
        previous_loss = max(loss, 0.0)
    return LevelOfLoss(
        change=first.name,
        unit=first.unit,
        structure=structure,
        of="Dice" if is_dice else "agreement",
        reached=level is not None,
        level=level,
        strongest_level=known[-1][0].level or 0.0,
        largest_loss=max(loss for _, loss in known),
    )


def _notes(changes: Sequence[ChangeSummary], cases: int) -> list[str]:
    notes = ["changes are simulated: noise that is added is not another scanner"]
    again = next((change for change in changes if change.perturbation.name == "same again"), None)
    if again is not None and again.changed_voxels:
        notes.append(
            "the same image gives another mask each time: this device does not compute alike twice, so that nothing "
            "can be told of what must change nothing"
        )
    if again is not None:
        for summary in again.structures:
            if summary.expected and not summary.found_before:
                notes.append(f"{summary.structure} is found in no image, and what finds nothing cannot change")
            elif not summary.expected:
                notes.append(f"{summary.structure} is in none of {count(cases, 'image')}, of which nothing is told")
    return notes


def report_text(report: StressReport) -> str:
    """The report for the console: what broke, what nearly holds, and the level of each loss."""
    lines = []
    exact = [change for change in report.changes if change.perturbation.kind == "exact"]
    broken = report.broken
    if exact and not broken:
        names = f"{count(len(exact), 'change')} that must change nothing changed no voxel"
        lines.append(f"exact: {names} in {count(len(report.cases), 'image')}")
    for change in broken:
        where = ", ".join(_told(case, change.details) for case in change.changed_cases[:SHOWN])
        more = " ..." if len(change.changed_cases) > SHOWN else ""
        lines.append(
            f"BROKEN: {change.perturbation.text} changed {count(change.changed_voxels, 'voxel')} in "
            f"{len(change.changed_cases)} of {count(change.cases, 'image')}: {where}{more}"
        )
    for change in report.changes:
        if change.perturbation.kind == "near":
            verdict = "holds" if change.holds else "does not hold"
            lines.append(f"near: {change.perturbation.text} {verdict}: agreement {_lowest(change)}")
    reached = [level for level in report.levels if level.reached and level.level is not None]
    for level in sorted(reached, key=lambda each: list(SERIES).index(each.change)):
        at = f"{level.level:.3g} {level.unit}".rstrip()
        lines.append(f"{level.structure} loses {LOSS} of {level.of} at {level.change} {at}")
    kept = sorted(
        {level.change for level in report.levels} - {level.change for level in reached}, key=list(SERIES).index
    )
    if kept:
        lines.append(f"no structure loses {LOSS} by: {', '.join(kept)}")
    lines += [f"note: {note}" for note in report.notes]
    return "\n".join(lines)


def _told(case: str, details: Mapping[str, str]) -> str:
    return f"{case} ({details[case]})" if case in details else case


def _lowest(change: ChangeSummary) -> str:
    """'0.998 (left), of 0.999 that the grid allows': of the structure that is hit most."""
    known = [each for each in change.structures if each.agreement is not None]
    if not known:
        return "of nothing, because both masks are empty"
    lowest = min(known, key=lambda each: (each.agreement or 0.0) / (each.ceiling or 1.0))
    allowed = "" if lowest.ceiling is None else f", of {lowest.ceiling:.3f} that the grid allows"
    return f"{lowest.agreement:.3f} ({lowest.structure}{allowed})"
