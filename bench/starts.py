"""Whether pretraining on images alone pays with few labelled patients: `segfw compare-starts` on two data sets.

    python -m bench starts run hippocampus --minutes 0.7 --work ../starts    10 labelled of the training patients
    python -m bench starts run cardiac_cine --minutes 0.5 --work ../starts   4 labelled patients
    python -m bench starts table                                             what is kept, as Markdown

Three seeds, each with three trainings: from nothing, from nothing for as long as pretraining and training together, and
pretrained. An interrupted one goes on: give the same command again. Every finished training is a line of
bench/results/starts.jsonl. Trainings of a minute are pilots: they say how the machinery behaves, not what hours bring.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from bench.figures import markdown
from bench.result_lines import append_line, read_lines
from bench.runs import processor_name
from bench.subcommands import RESULTS, Subcommands, add_data, add_results, call
from segfw.base.records import Record
from segfw.dataset.layouts import find_dataset
from segfw.planning.splits import SPLITS_FILE, Splits
from segfw.pretraining.start_results import RESULTS_FILE, StartResult, gains_of, read_results
from segfw.training.run_record import PACKAGE, git_state
from segfw.verbs.compare_starts import compare_starts
from segfw.verbs.plan_and_preprocess import plan_and_preprocess

KEPT = RESULTS / "starts.jsonl"
LABELLED = {"hippocampus": "10", "cardiac_cine": "4"}
# Of 20 patients, five folds would leave 4 to be scored: too few for an interval.
IN_HALVES = ("cardiac_cine",)


class StartsLine(Record):
    """A finished training of a comparison, and the comparison that it belongs to."""

    data_set: str
    minutes: float
    test_patients: int | None
    patient_of: dict[str, str]  # of the cases that it is scored on
    configuration: str
    processor: str
    commit: str
    result: StartResult

    @property
    def key(self) -> tuple[object, ...]:
        """What it is told apart by."""
        return (self.data_set, self.minutes, self.test_patients, *self.result.key)


def main(arguments: Sequence[str] | None = None) -> None:
    call(build_parser(), arguments)


def run(args: argparse.Namespace) -> None:
    """Plans, compares, and keeps every training."""
    seconds = 60 * args.minutes
    work = args.work.resolve() / args.set / f"{args.minutes:g}min"
    raw = args.data / args.set
    splits_file = halves(raw, work.with_name("halves.json")) if args.set in IN_HALVES else None
    plan = plan_and_preprocess(raw, work, time_budget_s=seconds, splits=splits_file, device=args.device)
    configuration = plan.chosen or next(iter(plan.predicting))
    summary = compare_starts(
        work,
        labelled=LABELLED[args.set],
        seeds=args.seeds,
        time_budget_s=seconds,
        configuration=configuration,
        test_patients=args.test_patients,
        device=args.device,
    )
    print("\n".join(gain.text() for gain in summary.gains))
    splits = Splits.load(work / SPLITS_FILE)
    state = git_state(PACKAGE)
    kept = {line.key for line in read_lines(StartsLine, args.results)}
    for result in read_results(work / "compare_starts" / RESULTS_FILE):
        line = StartsLine(
            data_set=args.set,
            minutes=args.minutes,
            test_patients=args.test_patients,
            patient_of=splits.patients_of(result.end) or {case: case for case in result.end},
            configuration=configuration,
            processor=processor_name(),
            commit="" if state is None else state.commit,
            result=result,
        )
        if line.key not in kept:
            append_line(args.results, line)


def halves(raw: Path, path: Path) -> Path:
    """Two folds: each trains on every other patient, whom ids begin with, and validates on the rest."""
    cases = sorted(case.id for case in find_dataset(raw).cases)
    patients = sorted({case.split("_")[0] for case in cases})
    parts = [[case for case in cases if patients.index(case.split("_")[0]) % 2 == part] for part in range(2)]
    folds = [{"train": parts[part], "val": parts[1 - part]} for part in range(2)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(folds), encoding="utf-8")
    return path


def table(args: argparse.Namespace) -> None:
    """The table of what is kept."""
    print(as_markdown(read_lines(StartsLine, args.results)))


def as_markdown(lines: Sequence[StartsLine]) -> str:
    """A row for every arm of every comparison, after a quarter and at the end."""
    rows = [
        ["data set", "minutes", "seeds", "patients", "at", "arms", "Dice", "gain", "by patient", "by seed", "shown"]
    ]
    for data_set, minutes, patients in dict.fromkeys(
        (each.data_set, each.minutes, each.test_patients) for each in lines
    ):
        chosen = [
            each for each in lines if (each.data_set, each.minutes, each.test_patients) == (data_set, minutes, patients)
        ]
        patient_of = {case: patient for each in chosen for case, patient in each.patient_of.items()}
        for gain in gains_of([each.result for each in chosen], patient_of):
            rows.append(
                [
                    f"{data_set}, {gain.labelled} labelled",
                    f"{minutes:g}",
                    str(gain.seeds),
                    str(gain.patients),
                    gain.at,
                    f"{gain.first} / {gain.second}",
                    f"{gain.first_dice:.3f} / {gain.second_dice:.3f}",
                    f"{gain.difference:+.3f}",
                    _interval(gain.low, gain.high),
                    _interval(gain.seed_low, gain.seed_high),
                    gain.verdict,
                ]
            )
    return markdown(rows)


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:+.3f} to {high:+.3f}"


def build_parser() -> argparse.ArgumentParser:
    verbs = Subcommands("starts", __doc__)

    asked = verbs.add("run", run, "one data set")
    asked.add_argument("set", choices=tuple(LABELLED))
    asked.add_argument("--minutes", type=float, default=12.0, help="of each training, and of the pretraining")
    asked.add_argument("--seeds", type=int, default=3)
    asked.add_argument("--test-patients", type=int, help="that are scored (default: all of the fold)")
    add_data(asked)
    asked.add_argument("--work", type=Path, required=True, help="folder for everything")
    asked.add_argument("--device", default="cpu")
    add_results(asked, KEPT)

    shown = verbs.add("table", table, "the results that are kept")
    add_results(shown, KEPT)
    return verbs.parser


if __name__ == "__main__":
    main()
