"""Verification, fingerprint, plan and preprocessing by nnU-Net v2 and segfw: time, memory, and every difference.

    make nnunet-venv
    python -m bench preprocessing --data ../shared/data/hippocampus --repeats 3
    python -m bench preprocessing --phantom --repeats 3

nnU-Net has a virtual environment of its own and runs by its own command line. Each run is a whole process tree with a
fresh output folder; the programs take turns, so that a machine that slows down slows all. Memory is the peak of the
tree's summed PSS (pages that processes share count once), sampled every 50 ms; RSS sums are in the JSON as well.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from bench.against_nnunet.arrays import TOLERANCE, compare_cases, compare_plans, load_plans
from bench.figures import columns
from bench.measure import Measured, measure
from bench.phantom import make_phantom
from bench.runs import (
    DATASET,
    DEFAULT_NNUNET,
    SEGFW,
    as_published,
    count_cases,
    machine,
    nnunet_environment,
    require_nnunet,
    subset,
)

PHANTOM_SIZE = (300, 512, 512)
SAME = "nnU-Net, as many workers"
DEFAULTS = "nnU-Net, its defaults"


def main(arguments: Sequence[str] | None = None) -> None:
    args = build_parser().parse_args(arguments)
    require_nnunet(args.nnunet_python)
    with tempfile.TemporaryDirectory(prefix="compare-", dir=args.temporary) as folder:
        home = Path(folder)
        if args.phantom:
            name = "CT phantom"
            data = make_phantom(home / "phantom", tuple(args.phantom_size), seed=args.seed)
        else:
            name = args.data.name
            data = subset(args.data, home / "data", args.cases)
        runs = Runs(data, home, args.nnunet_python, args.configurations, args.workers)
        programs = {SAME: runs.nnunet_with_same_workers, "segfw": runs.segfw}
        if not args.no_defaults:
            programs[DEFAULTS] = runs.nnunet
        measured = take_turns(programs, args.repeats)
        plans = load_plans(runs.preprocessed / DATASET)
        result = {
            "data": name,
            "cases": count_cases(data),
            "configurations": args.configurations,
            "workers": args.workers,
            "machine": machine(),
            "runs": {program: [asdict(run) for run in series] for program, series in measured.items()},
            "plans": compare_plans(runs.work, plans, args.configurations),
            "arrays": {
                configuration: compare_cases(runs.work, runs.preprocessed / DATASET, plans, configuration)
                for configuration in args.configurations
            },
        }
    show(result, measured)
    if args.output:
        args.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(f"written to {args.output}")


class Runs:
    """Folders and commands of one comparison."""

    def __init__(self, data: Path, home: Path, nnunet_python: Path, configurations: list[str], workers: int) -> None:
        self.data = data
        self.home = home
        self.configurations = configurations
        self.workers = workers
        self.command = nnunet_python.with_name("nnUNetv2_plan_and_preprocess")
        self.work = home / "segfw"
        self.preprocessed = home / "nnUNet_preprocessed"
        raw = home / "nnUNet_raw"
        raw.mkdir()
        (raw / DATASET).symlink_to(data.resolve(), target_is_directory=True)

    def segfw(self) -> Measured:
        shutil.rmtree(self.work, ignore_errors=True)
        command = [str(SEGFW), "plan-and-preprocess", str(self.data), str(self.work), "--workers", str(self.workers)]
        command += ["--configurations", *self.configurations, *as_published()]
        return measure(command, env=os.environ, log=self.home / "segfw.log")

    def nnunet(self, *options: str) -> Measured:
        shutil.rmtree(self.preprocessed, ignore_errors=True)
        command = [str(self.command), "-d", "1", "--verify_dataset_integrity", "-c", *self.configurations, *options]
        return measure(command, env=nnunet_environment(self.home), log=self.home / "nnunet.log")

    def nnunet_with_same_workers(self) -> Measured:
        return self.nnunet("-np", str(self.workers), "-npfp", str(self.workers))


def take_turns(programs: Mapping[str, Callable[[], Measured]], repeats: int) -> dict[str, list[Measured]]:
    """Runs each program once per round; every other round goes backwards, so that none is always first."""
    measured: dict[str, list[Measured]] = {name: [] for name in programs}
    for number in range(repeats):
        names = list(programs)
        if number % 2 == 1:
            names.reverse()
        for name in names:
            measured[name].append(programs[name]())
            print(f"round {number + 1}, {name}: {measured[name][-1].wall_s:.1f} s", flush=True)
    return measured


def show(result: dict, measured: Mapping[str, Sequence[Measured]]) -> None:
    """A table of medians, ratios to segfw, plans and the largest differences."""
    print(f"\n{result['data']}, {result['cases']} cases, {', '.join(result['configurations'])}; {result['machine']}")
    _show_times(measured)
    for configuration, plan in result["plans"].items():
        print(f"plan of {configuration}: {'equal' if plan['equal'] else 'DIFFERENT'}, {plan['segfw']}")
        if not plan["equal"]:
            print(f"  nnU-Net: {plan['nnunet']}")
    for configuration, cases in result["arrays"].items():
        _show_arrays(configuration, cases)


def _show_times(measured: Mapping[str, Sequence[Measured]]) -> None:
    rows = [["", "wall s", "peak GB", "processes", "time x", "memory x"]]
    wall_s = {name: statistics.median(run.wall_s for run in runs) for name, runs in measured.items()}
    peak_gb = {name: statistics.median(run.peak_pss_gb for run in runs) for name, runs in measured.items()}
    for name, runs in measured.items():
        most_processes = max(run.most_processes for run in runs)
        row = [name, f"{wall_s[name]:.1f}", f"{peak_gb[name]:.2f}", str(most_processes)]
        row += [f"{wall_s[name] / wall_s['segfw']:.1f}", f"{peak_gb[name] / peak_gb['segfw']:.1f}"]
        rows.append(row)
    print(columns(rows))


def _show_arrays(configuration: str, cases: Sequence[dict]) -> None:
    agreeing = sum(case["agrees"] for case in cases)
    print(f"arrays of {configuration}: {agreeing} of {len(cases)} cases agree within {TOLERANCE} of the range")
    compared = [case for case in cases if "image_max" in case]
    if compared:
        worst = {key: max(case[key] for case in compared) for key in ("image_max", "image_p99_9", "mask_share")}
        print(f"  worst case: {', '.join(f'{key} {value:.2e}' for key, value in worst.items())}")
    for case in cases:
        if not case["agrees"]:
            print(f"  {case}")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench preprocessing", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, help="folder in nnU-Net's raw layout")
    source.add_argument("--phantom", action="store_true", help="three made CT scans with 15 label values")
    parser.add_argument("--cases", type=int, help="only the first so many cases of --data")
    parser.add_argument("--phantom-size", type=int, nargs=3, default=PHANTOM_SIZE, metavar=("Z", "Y", "X"))
    parser.add_argument("--seed", type=int, default=0, help="of the phantom")
    parser.add_argument("--configurations", nargs="+", default=["3d_fullres"], choices=("2d", "3d_fullres"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-defaults", action="store_true", help="leave out nnU-Net with its own number of workers")
    parser.add_argument("--nnunet-python", type=Path, default=DEFAULT_NNUNET)
    parser.add_argument("--temporary", type=Path, help="folder for what is made and removed (default: the system's)")
    parser.add_argument("--output", type=Path, help="JSON file for all figures")
    return parser
