"""What ``outcome`` looks at, and how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from segfw.base.options import Options, option

PERMUTATIONS = 200


@dataclass(frozen=True, kw_only=True)
class OutcomeOptions(Options):
    """What ``outcome`` looks at. ``test`` are the measures and the table of a second cohort; ``model`` a frozen one."""

    covariates: tuple[str, ...] | None = option(
        None, "columns of TABLE that are known anyway, such as age,sex: what features add is told", metavar="COLUMNS"
    )
    event: str | None = option(
        None, "the value of the target that is the event (default: 1, yes or true)", metavar="VALUE"
    )
    features: Path | None = option(
        None, "NAME_stability.csv: unstable features are left out; or a table of the features to take", metavar="FILE"
    )
    test: tuple[Path, Path] | None = option(
        None,
        "measures and table of a second cohort, on which the frozen models are judged",
        metavar=("MEASURES", "TABLE"),
    )
    model: Path | None = option(
        None, "outcome_model.json: these models are judged, and nothing is fitted", metavar="FILE"
    )
    by_patient: str | Path | None = option(
        None,
        "the patients of cases: a table of both, or an expression that finds the patient in a case's name (default: "
        "TABLE's column patient, or as the names clearly tell)",
        metavar="CSV|REGEX",
    )
    explore: bool = option(False, "go on with fewer than 20 events, and say so everywhere")
    permutations: int = option(
        PERMUTATIONS, "orders of outcomes that are dealt anew for p (default: {default})", ge=19, le=10000
    )
    dry_run: bool = option(False, "say what would be fitted, and write nothing")
