"""The page of a comparison of starts: what was gained, the arms over time, what was held equal, and the guards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segfw.base.durations import duration_text
from segfw.base.figures import write_page
from segfw.base.tables import Column, Table
from segfw.base.words import count, listed
from segfw.model.pretraining_record import KeptOutImage, PretrainingRecord
from segfw.pretraining.start_curves import dice_curves, loss_curves, numbers_labelled
from segfw.pretraining.start_results import ARMS, PRETRAINED, SCRATCH_LONGER, Gain, StartResult, StartsSummary
from segfw.pretraining.starts_plots import draw_gains, draw_over_time

TEMPLATE = Path(__file__).with_name("starts.html.jinja")
PAGE_FILE = "compare_starts.html"


@dataclass(frozen=True, kw_only=True)
class ComparedStarts:
    """All that the page shows. ``patient_of`` is by scored case; ``pretraining`` is what the second arm began with."""

    output: Path
    configuration: str
    summary: StartsSummary
    results: tuple[StartResult, ...]
    patient_of: Mapping[str, str]
    pretraining: PretrainingRecord | None
    version: str


def write_starts_page(path: Path, compared: ComparedStarts) -> None:
    """Writes the page, atomically."""
    summary = compared.summary
    results = compared.results
    head, of_what = headline(summary.gains)
    seeds = {result.seed for result in results}
    scored = {case for result in results for case in result.end}
    patients = {compared.patient_of.get(case, case) for case in scored}
    write_page(
        path,
        TEMPLATE,
        title=f"Starts of {compared.configuration} compared",
        head=head,
        of_what=of_what,
        summary=summary,
        seeds=len(seeds),
        patients=len(patients),
        scored=f"{count(len(scored), 'case')} of {count(len(patients), 'patient')}",
        pretraining_time=duration_text(summary.pretrain_s),
        training_time=duration_text(_asked_s(summary)),
        fold=summary.asked.get("fold", "0"),
        plots=[(labelled, _over_time(compared, labelled)) for labelled in numbers_labelled(results)],
        gains_png=draw_gains(summary.gains) if summary.gains else None,
        gain_table=gain_table(summary.gains),
        arm_table=arm_table(results),
        guards=[summary.guards[arm] for arm in ARMS if arm in summary.guards],
        kept_out_table=None if compared.pretraining is None else kept_out_table(compared.pretraining.kept_out),
        version=compared.version,
    )


def _asked_s(summary: StartsSummary) -> float:
    asked = summary.asked["time_budget_s"]
    assert isinstance(asked, int | float)
    return float(asked)


def headline(gains: Sequence[Gain]) -> tuple[str, str]:
    """The verdict on the pretraining in equal total time at the end, and of what it is.

    Where numbers of labelled patients differ, those with a gain or a loss are named.
    """
    main = [gain for gain in gains if (gain.at, gain.first, gain.second) == ("end", PRETRAINED, SCRATCH_LONGER)]
    if not main:
        return "nothing to compare", "there is no Dice of any structure in both arms"
    verdicts = {gain.labelled: gain.verdict for gain in main}
    shown = []
    for verdict in ("gain", "loss"):
        labelled = [name for name, each in verdicts.items() if each == verdict]
        if labelled:
            shown.append(
                verdict if len(labelled) == len(main) else f"{verdict} with {listed(labelled, 'and')} labelled"
            )
    numbers = listed(verdicts, "and")
    return (
        ", ".join(shown) or "no gain shown",
        f"pretrained against from nothing in the same time in all, at the end, with {numbers} labelled patients",
    )


def _over_time(compared: ComparedStarts, labelled: str) -> bytes | None:
    """None where there is neither a Dice nor a loss."""
    pretrain_s = compared.summary.pretrain_s
    dices = dice_curves(compared.results, labelled, pretrain_s, compared.patient_of)
    losses = loss_curves(compared.output, compared.configuration, compared.results, labelled, pretrain_s)
    return draw_over_time(dices, losses) if dices or losses else None


def gain_table(gains: Sequence[Gain]) -> Table:
    """A row for each gain."""
    return Table(
        name="Gains in mean Dice",
        elsewhere="compare_starts.csv has all rows.",
        columns=[
            Column(title="Labelled", values=[gain.labelled for gain in gains]),
            Column(
                title="When", values=[gain.at for gain in gains], hint="after a quarter of the training, or at its end"
            ),
            Column(
                title="Arms", values=[gain.first for gain in gains], notes=[f"against {gain.second}" for gain in gains]
            ),
            Column(title="First", values=[gain.first_dice for gain in gains], digits=4),
            Column(title="Second", values=[gain.second_dice for gain in gains], digits=4),
            Column(title="Gain", values=[f"{gain.difference:+.4f}" for gain in gains]),
            Column(
                title="95 % by patient",
                values=[_bounds(gain.low, gain.high, "patients") for gain in gains],
                hint="patients drawn anew, for these seeds",
            ),
            Column(
                title="95 % by seed",
                values=[_bounds(gain.seed_low, gain.seed_high, "seeds") for gain in gains],
                hint="Student's t over the seeds",
            ),
            Column(title="Verdict", values=[gain.verdict for gain in gains]),
        ],
    )


def _bounds(low: float | None, high: float | None, of: str) -> str:
    return f"too few {of}" if low is None or high is None else f"{low:+.4f} to {high:+.4f}"


def arm_table(results: Sequence[StartResult]) -> Table:
    """A row for each arm with so many labelled patients: what its trainings had, in the mean over seeds."""
    groups = [
        (labelled, arm, mine)
        for labelled in numbers_labelled(results)
        for arm in ARMS
        if (mine := [each for each in results if (each.labelled, each.arm) == (labelled, arm)])
    ]
    return Table(
        name="What each arm had",
        elsewhere="compare_starts.jsonl has all trainings.",
        columns=[
            Column(title="Labelled", values=[labelled for labelled, _, _ in groups]),
            Column(title="Arm", values=[arm for _, arm, _ in groups]),
            Column(title="Seeds", values=[len(mine) for _, _, mine in groups], digits=0),
            Column(title="Cases", values=[_mean(len(each.cases) for each in mine) for _, _, mine in groups], digits=0),
            Column(title="Steps", values=[_mean(each.steps for each in mine) for _, _, mine in groups], digits=0),
            Column(
                title="Training",
                unit="s",
                values=[_mean(each.seconds for each in mine) for _, _, mine in groups],
                digits=0,
                hint="without the pretraining",
            ),
        ],
    )


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def kept_out_table(kept_out: Sequence[KeptOutImage]) -> Table | None:
    """A row for each image that was offered and not learnt of; None without any."""
    if not kept_out:
        return None
    return Table(
        name="Images that stayed unseen",
        search="Find an image",
        elsewhere="pretrained/pretraining.json has all of them.",
        columns=[
            Column(title="Image", values=[image.id for image in kept_out]),
            Column(title="Why", values=[image.reason for image in kept_out]),
        ],
    )
