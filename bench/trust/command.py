"""Whether what segfw says of its masks holds, on patients that nothing was fitted or chosen on.

    python -m bench trust split hippocampus RAW              RAW/train and RAW/kept, by links
    python -m bench trust train RAW WORK --minutes 3         every fold, on one core
    segfw calibrate WORK
    python -m bench trust predict WORK RAW/kept ITEMS --name hippocampus
    python -m bench trust table ITEMS ...                    a line each in bench/results/trust.jsonl, and Markdown
    python -m bench trust simulate                           the rule of 'use' with 200 made-up patients

Every kept-out case is predicted by all folds, as it is and spoilt by six shifts, and what was found is stored with the
true Dice, so that tables need no network again. Figures are means over quality models of 80 % of the calibration's
patients each, drawn anew; intervals come from the kept-out patients drawn anew.
"""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bench.accuracy.sets import SETS
from bench.result_lines import append_line, require_lines
from bench.runs import SEGFW
from bench.subcommands import RESULTS, Subcommands, add_data, add_results, call

KEPT = RESULTS / "trust.jsonl"
SIMULATED = RESULTS / "trust_simulated.jsonl"
FOLDS = ("0", "1", "2", "3", "4")


def main(arguments: Sequence[str] | None = None) -> None:
    call(build_parser(), arguments)


def split(args: argparse.Namespace) -> None:
    """Raw folders of links."""
    from bench.trust.raw_folders import split_raw

    counts = split_raw(args.data, args.set, args.raw)
    print(f"{args.raw}: {counts['train']} cases to train, {counts['kept']} kept out")


def train(args: argparse.Namespace) -> None:
    """Every fold of the part that trains."""
    from bench.trust.raw_folders import GROUPS

    command = [str(SEGFW), "run", str(args.raw / "train"), str(args.work), "--folds", *FOLDS]
    command += ["--time-budget", f"{args.minutes:g}m", "--seed", str(args.seed), "--device", "cpu"]
    if args.name in GROUPS:
        command += ["--groups", GROUPS[args.name]]
    print(" ".join(command))
    subprocess.run(command, check=True)


def predict(args: argparse.Namespace) -> None:
    """Every kept-out case by all folds."""
    from bench.trust.kept_cases import predict_kept
    from bench.trust.raw_folders import GROUPS

    predict_kept(args.work, args.kept, args.items, args.name, groups=GROUPS.get(args.name))


def table(args: argparse.Namespace) -> None:
    """Figures of all items, kept and printed."""
    from bench.trust.trust_results import as_markdown, result_of

    for items in args.items:
        result = result_of(items, args.splits, args.fail_below, leaves_shifts_out=args.leave_shifts_out)
        append_line(args.results, result)
        print(as_markdown(result), end="\n\n")


def show(args: argparse.Namespace) -> None:
    """The tables of the results that are kept."""
    from bench.trust.trust_results import TrustResult, as_markdown

    results = require_lines(TrustResult, args.results, "trust table ITEMS")
    print("\n\n".join(as_markdown(result) for result in results))


def simulated(args: argparse.Namespace) -> None:
    """Made-up patients."""
    from bench.trust.simulation import simulate, simulation_table

    found = []
    for patients in args.patients:
        for noise in args.noise:
            result = simulate(patients, failing=args.failing, noise=noise, target=args.target, runs=args.runs)
            append_line(args.results, result)
            found.append(result)
    print(simulation_table(found))


def build_parser() -> argparse.ArgumentParser:
    verbs = Subcommands("trust", __doc__)

    asked = verbs.add("split", split, "raw folders without the kept-out patients, and of these")
    asked.add_argument("set", choices=sorted(_sets()))
    asked.add_argument("raw", type=Path, help="new folder")
    add_data(asked)

    asked = verbs.add("train", train, "all five folds of RAW/train")
    asked.add_argument("raw", type=Path)
    asked.add_argument("work", type=Path)
    asked.add_argument("--name", default="", choices=("", *SETS), help="of the data set, whose patients are known then")
    asked.add_argument("--minutes", type=float, required=True, help="of each fold")
    asked.add_argument("--seed", type=int, default=0)

    asked = verbs.add("predict", predict, "kept-out cases, clean and spoilt, by all folds of a calibrated model")
    asked.add_argument("work", type=Path)
    asked.add_argument("kept", type=Path, help="labelled cases that nothing was fitted on")
    asked.add_argument("items", type=Path, help="folder for what is found")
    asked.add_argument("--name", required=True, help="of the data set, in tables")

    asked = verbs.add("table", table, "figures with intervals")
    asked.add_argument("items", type=Path, nargs="+")
    asked.add_argument("--splits", type=int, default=20)
    asked.add_argument("--fail-below", type=float, default=0.7, help="Dice below which a mask has failed")
    asked.add_argument(
        "--no-shifts-left-out",
        dest="leave_shifts_out",
        action="store_false",
        help="spare the models that never saw one shift, six of seven",
    )
    add_results(asked, KEPT)

    asked = verbs.add("show", show, "the tables of the results that are kept")
    add_results(asked, KEPT)

    asked = verbs.add("simulate", simulated, "the rule of 'use' with made-up patients")
    asked.add_argument("--patients", type=int, nargs="+", default=[40, 80, 200])
    asked.add_argument("--failing", type=float, default=0.1, help="share of clean masks that have failed")
    asked.add_argument("--noise", type=float, nargs="+", default=[0.3, 0.8], help="of features, in the logit of Dice")
    asked.add_argument("--target", type=float, default=0.05, help="largest share of wrong masks among those released")
    asked.add_argument("--runs", type=int, default=20)
    add_results(asked, SIMULATED)
    return verbs.parser


def _sets() -> tuple[str, ...]:
    """Names of the data sets that are split here; read from the module that knows only when the parser is made."""
    from bench.trust.raw_folders import KEPT

    return tuple(KEPT)


if __name__ == "__main__":
    main()
