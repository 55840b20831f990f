"""The page of a calibration: what is promised, on what it stands, and what each score is worth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segfw.base.figures import write_page
from segfw.base.tables import Column, Table
from segfw.base.words import count
from segfw.quality.calibration_figures import draw_predicted_against_true, draw_risk_coverage
from segfw.quality.quality_fitting import FittedQuality
from segfw.quality.quality_model import CLEAN, QualityModel
from segfw.quality.quality_worth import AGREEMENT, PREDICTED, QualityWorth, WorthUnderShift, judged_masks

TEMPLATE = Path(__file__).with_name("calibration.html.jinja")
DRAWN = (
    PREDICTED,
    AGREEMENT,
    "Dice that the network expects of itself",
    "mean Dice of the structure (constant)",
    "mean entropy of the image (as MONAI Label ranks)",
    "doubtful voxels (as AbdomenAtlas counts)",
    "volume against the training masks",
)


def write_calibration_page(path: Path, fitted: FittedQuality, worth: QualityWorth, dataset: str) -> None:
    """Writes the page, atomically.

    Parameters
    ----------
    path
        Where it lies.
    fitted
        What was learned.
    worth
        What it is worth.
    dataset
        Name of the data set.
    """
    model = fitted.model
    masks = judged_masks(fitted)
    clean = next(each for each in worth.shifts if each.shift == CLEAN)
    write_page(
        path,
        TEMPLATE,
        title=f"Quality of masks: {dataset}",
        model=model,
        headline=_headline(clean),
        minor=_minor(model, clean),
        promises=promises(model),
        score_table=score_table(worth),
        has_agreement=AGREEMENT in masks.scores,
        curves_png=draw_risk_coverage(masks, [name for name in DRAWN if name in masks.scores]),
        dice_png=draw_predicted_against_true(masks, model.alpha),
        shift_table=shift_table(worth.shifts, "What is said under each change"),
        unseen_table=shift_table(worth.unseen, "Changes that were never seen") if worth.unseen else None,
        volume_table=volume_table(model),
        plausible_table=plausible_table(model) if model.plausible else None,
        gate=model.gate,
    )


def _headline(clean: WorthUnderShift) -> tuple[str, str]:
    if not clean.used or clean.good_used is None:
        return "0 %", "of the good masks of clean images are released as “use”"
    # Not all of them are all of them.
    share = min(100 * clean.good_used, 99.9) if clean.good_used < 1 else 100.0
    return f"{share:.3g} %", "of the good masks of clean images are released as “use”"


def _minor(model: QualityModel, clean: WorthUnderShift) -> list[tuple[str, str]]:
    """Figures beside the headline."""
    counts = model.counts
    found = [
        (str(counts.cases), f"{'case' if counts.cases == 1 else 'cases'} of {count(counts.patients, 'patient')}"),
        (str(counts.clean_items), "clean masks of single structures"),
        (str(counts.items - counts.clean_items), "spoilt ones"),
    ]
    if clean.covered is not None:
        promised = f"of clean masks are not below their bound ({100 * (1 - model.alpha):g} % are promised)"
        found.append((f"{100 * clean.covered:.0f} %", promised))
    if clean.used:
        found.append((f"{clean.wrong_used} of {clean.used}", "clean masks of verdict 'use' have failed"))
    if clean.spearman is not None:
        found.append((f"{clean.spearman:.2f}", "rank correlation of predicted and true Dice, clean"))
    return found


def promises(model: QualityModel) -> list[str]:
    """What the quality model says and does not say, a sentence each."""
    limits = sorted(set(model.fail_below.values()))
    failed = f"below {limits[0]:g}" if len(limits) == 1 else "below the limit of its structure"
    sentences = [f"A mask counts as failed with a Dice {failed}."]
    bound = model.bounds[-1]
    if bound.factor is None or bound.spread is None:
        sentences.append(
            f"There is no bound: {count(bound.patients, 'patient')} are too few for one that holds for "
            f"{100 * (1 - model.alpha):g} %."
        )
    else:
        own = [f"{each.structure} ({each.patients})" for each in model.bounds if each.structure is not None]
        which = f"of its own for {', '.join(own)}" if own else f"of all structures together ({bound.patients} patients)"
        sentences.append(
            f"The lower bound holds for {100 * (1 - model.alpha):g} % of new cases, {which}; with so few patients the "
            f"share itself is known to {100 * bound.spread:.1f} percentage points or so."
        )
    rule = model.use_rule
    if rule.threshold is None:
        sentences.append(f"No mask is 'use': {rule.why}.")
    else:
        sentences.append(f"'Use' from a predicted Dice of {rule.threshold:.3f} on: {rule.why}.")
    sentences.append(
        "'Do not use' are masks that have more likely failed than not; all others are 'look'. An image unlike the "
        "training images can be 'look' at most."
    )
    return sentences


def score_table(worth: QualityWorth) -> Table:
    """A row for each score."""
    scores = worth.scores
    columns = [Column(title="Score", values=[each.score for each in scores])]
    for title, values, intervals in (
        ("clean", [each.clean for each in scores], [each.clean_interval for each in scores]),
        ("all", [each.all for each in scores], [each.all_interval for each in scores]),
    ):
        columns += [
            Column(title="Rank correlation", unit=title, values=[one.spearman for one in values], digits=2),
            Column(title="AUROC", unit=title, values=[one.auroc for one in values], digits=2),
            Column(
                title="nAURC",
                unit=title,
                values=[one.naurc for one in values],
                digits=3,
                notes=["" if each is None else f"{each[0]:.2f} to {each[1]:.2f}" for each in intervals],
            ),
            Column(title="Error", unit=title, values=[one.mae for one in values], digits=3),
            Column(title="Bias", unit=title, values=[one.bias for one in values], digits=3),
        ]
    return Table(name="What each score is worth", columns=columns)


def shift_table(shifts: Sequence[WorthUnderShift], name: str) -> Table:
    """A row for each change of the images."""
    return Table(
        name=name,
        columns=[
            Column(title="Images", values=[each.shift.replace("_", " ") for each in shifts]),
            Column(title="Masks", values=[each.masks for each in shifts], digits=0),
            Column(title="Mean Dice", values=[each.dice for each in shifts], digits=3),
            Column(title="Failed", unit="share", values=[each.failed for each in shifts], digits=2),
            Column(title="Rank correlation", values=[each.spearman for each in shifts], digits=2),
            Column(title="Error", values=[each.mae for each in shifts], digits=3),
            Column(title="Bias", values=[each.bias for each in shifts], digits=3),
            Column(title="Above the bound", unit="share", values=[each.covered for each in shifts], digits=2),
            Column(title="Used", values=[each.used for each in shifts], digits=0),
            Column(title="of them failed", values=[each.wrong_used for each in shifts], digits=0),
            Column(title="Good ones used", unit="share", values=[each.good_used for each in shifts], digits=2),
        ],
    )


def volume_table(model: QualityModel) -> Table:
    """A row for each structure."""
    names = list(model.volumes)
    found = [model.volumes[name] for name in names]
    return Table(
        name="Intervals of volumes",
        columns=[
            Column(title="Structure", values=names),
            Column(
                title="Up to", unit="times larger or smaller", values=[each.factor for each in found], significant=3
            ),
            Column(title="Cases", values=[each.cases for each in found], digits=0),
            Column(title="Patients", values=[each.patients for each in found], digits=0),
            Column(title="Missed", values=[each.missed for each in found], digits=0),
            Column(title="Invented", values=[each.invented for each in found], digits=0),
        ],
    )


def plausible_table(model: QualityModel) -> Table:
    """A row for each structure."""
    names = list(model.plausible)
    found = [model.plausible[name] for name in names]
    return Table(
        name="Inner and outer masks",
        columns=[
            Column(title="Structure", values=names),
            Column(title="Level", values=[each.level for each in found], digits=2),
            Column(title="Patients", values=[each.patients for each in found], digits=0),
            Column(title="Outer volume", unit="of the mask's", values=[each.outer_ratio for each in found], digits=2),
            Column(title="Inner volume", unit="of the mask's", values=[each.inner_ratio for each in found], digits=2),
            Column(title="Empty inner", unit="share", values=[each.empty_share for each in found], digits=2),
            Column(title="Note", values=[each.note for each in found]),
        ],
    )
