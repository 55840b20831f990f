"""The page of a retraining: the verdict, base, control and new side by side, and what the labels were and cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from segfw.base.figures import write_page
from segfw.base.tables import Column, Table
from segfw.base.words import count
from segfw.model.promotion import Gain, Promotion
from segfw.retraining.retraining_record import BeganAs, FoldStart, NewLabel, Retraining

TEMPLATE = Path(__file__).with_name("retrain.html.jinja")
PAGE_FILE = "retrain.html"
BEGAN: dict[BeganAs, str] = {
    "unedited": "accepted as the model drew it",
    "edited": "drawn by the model, then changed",
    "blank": "drawn without the model",
}


def write_retrain_page(path: Path, promotion: Promotion, retraining: Retraining) -> None:
    """Writes the page, atomically."""
    began = Counter(label.began_as for label in retraining.new)
    write_page(
        path,
        TEMPLATE,
        title=f"Retraining of {promotion.base.name}",
        promotion=promotion,
        retraining=retraining,
        gain_table=gain_table([*promotion.structures, promotion.mean]),
        fold_table=fold_table(retraining.folds, retraining.new),
        label_table=labels_table(retraining.new),
        began=[(count(began[kind], "case"), words) for kind, words in BEGAN.items() if began[kind]],
        judges=count(promotion.mean.cases, "case"),
        patients=count(promotion.mean.patients, "patient"),
    )


def gain_table(gains: Sequence[Gain]) -> Table:
    """A row for each structure, the mean last."""
    return Table(
        name="Dice before and after",
        elsewhere="promotion.json has all rows.",
        columns=[
            Column(title="Structure", values=[gain.structure for gain in gains]),
            Column(title="Patients", values=[gain.patients for gain in gains], digits=0),
            Column(title="Before", values=[gain.base for gain in gains], digits=4, hint="the model as it was"),
            Column(
                title="Control",
                values=[gain.control for gain in gains],
                digits=4,
                hint="as many steps more, without the new labels",
            ),
            Column(title="New", values=[gain.new for gain in gains], digits=4),
            Column(title="New over control", values=[gain.over_control for gain in gains], digits=4),
            Column(title="95 %", values=[_bounds(gain.low, gain.high) for gain in gains], hint="patients drawn anew"),
            Column(title="New over before", values=[gain.over_base for gain in gains], digits=4),
            Column(title="95 % ", values=[_bounds(gain.low_over_base, gain.high_over_base) for gain in gains]),
        ],
    )


def _bounds(low: float | None, high: float | None) -> str:
    return "too few patients" if low is None or high is None else f"{low:+.4f} to {high:+.4f}"


def fold_table(starts: Sequence[FoldStart], new: Sequence[NewLabel]) -> Table:
    """A row for each fold that was retrained."""
    trained = [sum(start.fold not in label.held_out_of for label in new) for start in starts]
    return Table(
        name="What each fold was trained with",
        columns=[
            Column(title="Fold", values=[start.fold for start in starts]),
            Column(title="Steps before", values=[start.original_steps for start in starts], digits=0),
            Column(title="Extra steps", values=[start.steps for start in starts], digits=0, hint="of each arm"),
            Column(title="Learning rate", values=[start.learning_rate for start in starts], significant=3),
            Column(title="New cases", values=trained, digits=0, hint="that it trains on"),
            Column(
                title="Old cases", unit="% of a batch", values=[100 * start.old_share for start in starts], digits=0
            ),
        ],
    )


def labels_table(new: Sequence[NewLabel]) -> Table:
    """A row for each new case."""
    return Table(
        name="The new labels",
        elsewhere="retraining.json has all rows.",
        search="Find a case or a patient",
        columns=[
            Column(title="Case", values=[label.case.id for label in new]),
            Column(title="Patient", values=[label.patient for label in new]),
            Column(title="Label", values=[BEGAN[label.began_as] for label in new]),
            Column(title="State", values=[label.state for label in new]),
            Column(title="Signed by", values=[label.signed_by or "" for label in new]),
            Column(title="Version", values=[label.version for label in new], digits=0),
            Column(title="Held out of fold", values=[", ".join(label.held_out_of) for label in new]),
        ],
    )
