"""Dice of cases annotated in part: label 1 of hippocampus is hidden in half of the cases, label 2 in the other half;
of the organs of head-and-neck CT 1 to 3 are drawn in one half, 4 to 7 in the other.

    python -m bench partial train hippocampus marginal --seed 0 --minutes 3 --work ../partial
    python -m bench partial table

Arms: all (every label in every case), background (what is not drawn is called so), marginal (dataset.json says what was
drawn), first and second (a model for each half, which together take twice the time of the others). A finished training
is not done again, an interrupted one goes on. Each adds a line to bench/results/partial.jsonl: the scores of patients
that were kept out, and how much of each label was found in images that were trained on, with and without it drawn.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import CLONE
from bench.partial.halves import ARMS, SETS, Halves, PartialSet, halves_of, kept_labels, write_arm, write_images
from bench.partial.results import Figures, PartialResult
from bench.partial.tables import tables
from bench.result_lines import append_line, read_lines, require_lines
from bench.runs import processor_name
from bench.subcommands import RESULTS, Subcommands, add_data, add_results, call
from segfw.base.durations import typed_duration
from segfw.base.records import UserError
from segfw.dataset.labels import LabelSet
from segfw.model.training_record import read_run_record
from segfw.verbs.evaluate import evaluate

KEPT = RESULTS / "partial.jsonl"
TRAINED_ON = 6  # images of each half whose masks are looked at besides


def main(arguments: Sequence[str] | None = None) -> None:
    call(build_parser(), arguments)


def train(args: argparse.Namespace) -> None:
    """Trains one arm with one seed, and scores it."""
    results = args.results.resolve()
    key = (args.set, args.arm, args.seed, args.minutes)
    if any(line.key == key for line in read_lines(PartialResult, results)):
        print(f"{args.set} {args.arm} seed {args.seed}, {args.minutes:g} minutes: finished before")
        return
    halves = halves_of(args.data, args.set, args.kept)
    work = args.work.resolve() / args.set / f"{args.minutes:g}min" / args.arm / f"seed_{args.seed}"
    raw = write_arm(halves, SETS[args.set], args.arm, args.work.resolve() / args.set / "raw" / args.arm)
    length = ["--time-budget", typed_duration(60 * args.minutes), "--seed", str(args.seed)]
    chosen = ["--configurations", SETS[args.set].configuration, "--folds", "all", "--device", "cpu"]
    run_segfw("run", str(raw), str(work), *chosen, *length)
    append_line(results, _result(args, halves, work))


def run_segfw(*words: str) -> None:
    """This clone's segfw, whatever is installed; UserError where it fails."""
    environment = os.environ | {"PYTHONPATH": str(CLONE)}
    status = subprocess.run([sys.executable, "-m", "segfw", *words], env=environment, check=False).returncode
    if status:
        raise UserError(f"segfw {' '.join(words)} ended with {status}, for the reason above")


def _result(args: argparse.Namespace, halves: Halves, work: Path) -> PartialResult:
    of = SETS[args.set]
    found: dict[str, dict[str, dict[str, Figures]]] = {}
    looked_at = (*halves.first[:TRAINED_ON], *halves.second[:TRAINED_ON])
    for part, cases in (("kept", halves.kept), ("trained", looked_at)):
        folder = write_images(cases, of, args.work.resolve() / args.set / part)
        masks = work / part
        run_segfw("predict", str(work), str(folder / "images"), str(masks), "--device", "cpu")
        found[part] = scores_of(masks, folder / "labels", of, args.arm)
    run = read_run_record(work / "runs" / of.configuration / "fold_all")
    if run is None or run.end is None:
        raise UserError(f"{work}: fold all was not trained to its end")
    return PartialResult(
        data_set=args.set,
        arm=args.arm,
        seed=args.seed,
        minutes=args.minutes,
        processor=processor_name(),
        steps=run.end.steps,
        seconds=run.end.seconds,
        drawn_in=halves.drawn_in,
        kept=found["kept"],
        trained=found["trained"],
    )


def scores_of(masks: Path, reference: Path, of: PartialSet, arm: str) -> dict[str, dict[str, Figures]]:
    """Dice and volumes of the labels that a model of an arm finds, against every label, by case."""
    values = kept_labels(of, arm)
    labels = LabelSet(
        names=("background", *of.labels), values=tuple(range(len(of.labels) + 1))
    )  # also of masks that hold some of them
    scores = evaluate(masks, reference, labels=labels, only=tuple(values), surface=False)
    found: dict[str, dict[str, Figures]] = {}
    for case, by_label in scores.cases.items():
        found[case] = {}
        for name, score in by_label.items():
            if score.reference_ml is None or score.predicted_ml is None:
                raise UserError(f"{case}: has no millilitres")
            found[case][name] = Figures(
                dice=score.dice, reference_ml=score.reference_ml, predicted_ml=score.predicted_ml
            )
    return found


def show(args: argparse.Namespace) -> None:
    """The tables of all lines, as Markdown."""
    print(tables(require_lines(PartialResult, args.results, "partial train")))


def build_parser() -> argparse.ArgumentParser:
    verbs = Subcommands("partial", __doc__)
    training = verbs.add("train", train, "one arm with one seed")
    training.add_argument("set", choices=SETS)
    training.add_argument("arm", choices=ARMS)
    training.add_argument("--seed", type=int, default=0)
    training.add_argument("--minutes", type=float, default=3.0, help="of one core (default: %(default)s)")
    training.add_argument("--work", type=Path, required=True, help="folder for everything that is made")
    training.add_argument("--kept", type=int, help="cases that are kept out (default: as many as bench trust keeps)")
    add_data(training)
    add_results(training, KEPT)
    table = verbs.add("table", show, "what the results say, as Markdown")
    add_results(table, KEPT)
    return verbs.parser
