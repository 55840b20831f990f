"""Training by nnU-Net v2 and segfw on the same data, split and plan: steps per minute, and scores after equal time.

    python -m bench training --data ../shared/data/hippocampus --keep work_compare

Everything is kept in ``--keep``: a comparison that was stopped goes on with
the same command, and ``--phases`` does a part of it. Each training is a process of its own, never two at once.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bench.against_nnunet.arrays import compare_plans, load_plans
from bench.against_nnunet.training_tables import markdown, tables
from bench.measure import measure
from bench.runs import (
    DATASET,
    DEFAULT_NNUNET,
    IN_NNUNET,
    SEGFW,
    as_published,
    count_cases,
    keep_or_refuse,
    linked_cases,
    linked_work,
    machine,
    nnunet_environment,
    once,
    remove,
    require_nnunet,
    subset,
    usable_cpus,
)
from segfw.base.device import pick_device, pick_precision
from segfw.base.durations import duration_s
from segfw.model.training_record import read_metrics
from segfw.planning.plan import PLAN_FILE, Plan
from segfw.planning.splits import SPLITS_FILE, Splits

PHASES = ("steps", "nnunet", "segfw", "predict", "report")
NNUNET = "nnU-Net"


def main(arguments: Sequence[str] | None = None) -> None:
    args = build_parser().parse_args(arguments)
    require_nnunet(args.nnunet_python)
    args.precisions = args.precisions or (["fp16", "auto"] if args.device == "cuda" else ["auto", "fp32"])
    names = ("configuration", "fold", "cases", "splits", "steps", "equal_time", "device", "threads")
    keep_or_refuse(args.keep, {"data": args.data.resolve()} | {name: getattr(args, name) for name in names})
    comparison = Comparison(args)
    comparison.prepare()  # nothing is compared before the plans are known to be equal
    for phase in PHASES:
        if phase in args.phases:
            getattr(comparison, phase)()


class Comparison:
    """Folders, commands and results of one comparison. nnU-Net's number for the data set is always 1."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.keep = args.keep.resolve()
        self.work = self.keep / "segfw"
        self.results = self.keep / "results"
        self.preprocessed = self.keep / "nnUNet_preprocessed" / DATASET
        self.held_out = self.keep / "held_out"
        self.data = subset(args.data, self.keep / "data", args.cases).resolve()

    def nnunet_command(self, command: list[str], name: str, results: str = "nnUNet_results") -> dict:
        """Runs a command of nnU-Net's environment, its models in the folder ``results``; returns time and memory."""
        # Its default of 12 augmentation workers, but no more than there are cores.
        threads = {"OMP_NUM_THREADS": str(self.args.threads), "nnUNet_n_proc_DA": str(min(12, self.args.threads))}
        environment = nnunet_environment(self.keep, self.keep / results) | threads
        return asdict(measure(command, env=environment, log=self.keep / "logs" / f"{name}.log"))

    def segfw_command(self, arguments: list[object], name: str) -> dict:
        """Runs a verb of segfw; returns time and memory."""
        command = [str(SEGFW), *(str(argument) for argument in arguments)]
        environment = os.environ | {"OMP_NUM_THREADS": str(self.args.threads)}
        return asdict(measure(command, env=environment, log=self.keep / "logs" / f"{name}.log"))

    def train_nnunet(self, name: str, fold: str, length: list[str]) -> dict:
        """A training by ``in_nnunet/train.py``, models in the folder ``name``; returns what it noted, and memory."""
        remove(self.keep / name)
        script = IN_NNUNET / "train.py"
        noted = self.keep / "logs" / f"{name}.json"
        command = [str(self.args.nnunet_python), str(script), "--configuration", self.args.configuration]
        command += ["--fold", fold, "--device", self.args.device, "--threads", str(self.args.threads)]
        measured = self.nnunet_command([*command, *length, "--output", str(noted)], name, name)
        return json.loads(noted.read_text(encoding="utf-8")) | measured

    def train_segfw(self, name: str, fold: str, options: list[object]) -> dict:
        """A training in a work folder ``name`` of its own; returns its epochs, time and memory."""
        work = linked_work(self.work, self.keep / name)
        arguments = ["train", work, self.args.configuration, fold, "--device", self.args.device, "--overwrite"]
        measured = self.segfw_command([*arguments, *options], name)
        epochs = read_metrics(work / "runs" / self.args.configuration / f"fold_{fold}")
        return {"epochs": epochs} | measured

    # Phases

    def prepare(self) -> None:
        """Plans and preprocesses with both, one split for both; ends the program if the plans differ."""
        plans = once(self.results / "prepare.json", self._prepare)["plans"]
        for configuration, plan in plans.items():
            if not plan["equal"]:
                sys.exit(f"the plans of {configuration} differ: segfw {plan['segfw']}, nnU-Net {plan['nnunet']}")

    def _prepare(self) -> dict:
        raw = self.keep / "nnUNet_raw"
        configuration = self.args.configuration
        raw.mkdir(exist_ok=True)
        if not (raw / DATASET).is_symlink():
            (raw / DATASET).symlink_to(self.data, target_is_directory=True)
        plan = ["plan-and-preprocess", self.data, self.work, "--configurations", configuration, *as_published()]
        if self.args.splits:
            plan += ["--splits", self.args.splits]
        self.segfw_command(plan, "prepare_segfw")
        command = self.args.nnunet_python.with_name("nnUNetv2_plan_and_preprocess")
        workers = ["-np", str(self.args.threads), "-npfp", str(self.args.threads)]
        self.nnunet_command([str(command), "-d", "1", "-c", configuration, *workers], "prepare_nnunet")
        splits = Splits.load(self.work / SPLITS_FILE)
        text = json.dumps(nnunet_splits(splits), indent=1)
        (self.preprocessed / "splits_final.json").write_text(text + "\n", encoding="utf-8")
        fold = splits.fold(self.args.fold)
        linked_cases(self.data, self.held_out, fold.validation, "images", "labels")
        plans = compare_plans(self.work, load_plans(self.preprocessed), [configuration])
        return {"plans": plans, "train": len(fold.train), "validation": len(fold.validation)}

    def steps(self) -> None:
        """Rounds of training steps, whose order turns; the fold is 'all', so that nothing is validated at the end."""
        programs = [NNUNET, *self.args.precisions]
        batch = Plan.load(self.work / PLAN_FILE).configuration(self.args.configuration).batch_size
        fixed = ["--epochs", 2, "--steps-per-epoch", self.args.steps, "--batch-size", batch]
        for number in range(self.args.rounds):
            in_turn = programs if number % 2 == 0 else programs[::-1]
            for program in in_turn:
                if program == NNUNET:
                    result = self.results / f"steps_nnunet_{number}.json"
                    once(result, self.train_nnunet, "steps_nnunet", "all", ["--steps", str(self.args.steps)])
                else:
                    result = self.results / f"steps_segfw_{program}_{number}.json"
                    once(result, self.train_segfw, "steps_segfw", "all", [*fixed, "--precision", program])

    def nnunet(self) -> None:
        """nnU-Net on the fold for the time given, a run per seed."""
        for seed in self.args.nnunet_seeds:
            name = f"nnunet_seed_{seed}"
            length = ["--budget-s", str(self.args.equal_time), "--seed", str(seed)]
            once(self.results / f"{name}.json", self.train_nnunet, name, self.args.fold, length)

    def segfw(self) -> None:
        """segfw on the fold for the time given, a run per seed."""
        for seed in self.args.seeds:
            name = f"segfw_seed_{seed}"
            options = ["--time-budget", f"{self.args.equal_time:g}s", "--seed", seed]
            once(self.results / f"{name}.json", self.train_segfw, name, self.args.fold, options)

    def predict(self) -> None:
        """The held-out cases by each model's own predictor, its mirroring as it comes, scored by one scorer."""
        names = [f"nnunet_seed_{seed}" for seed in self.args.nnunet_seeds]
        for name in [*names, *(f"segfw_seed_{seed}" for seed in self.args.seeds)]:
            if (self.results / f"{name}.json").is_file():
                once(self.results / f"predict_{name}.json", self._predict, name)

    def _predict(self, name: str) -> dict:
        images = self.held_out / "images"
        masks = remove(self.keep / "predictions" / name)
        configuration = self.args.configuration
        fold = self.args.fold
        if name.startswith("nnunet"):
            command = [str(self.args.nnunet_python.with_name("nnUNetv2_predict")), "-i", str(images), "-o", str(masks)]
            command += ["-d", "1", "-c", configuration, "-f", fold, "-device", self.args.device]
            # Workers that read and write, beside the network's threads: as few as it has, for the cores are few.
            measured = self.nnunet_command([*command, "-npp", "1", "-nps", "1"], f"predict_{name}", name)
        else:
            options = ["--configuration", configuration, "--folds", fold, "--device", self.args.device]
            measured = self.segfw_command(["predict", self.keep / name, images, masks, *options], f"predict_{name}")
        scores = self.results / f"scores_{name}.json"
        self.segfw_command(["evaluate", masks, self.held_out / "labels", "--output", scores], f"evaluate_{name}")
        return measured | {"scores": without_cases(json.loads(scores.read_text(encoding="utf-8")))}

    def report(self) -> None:
        """The table, result.json and benchmarks.md of all that has been done so far."""
        result = {
            "data": self.args.data.name,
            "cases": count_cases(self.data),
            "configuration": self.args.configuration,
            "device": self.args.device,
            "threads": self.args.threads,
            "auto_precision": str(pick_precision("auto", pick_device(self.args.device))).removeprefix("torch."),
            "machine": machine(),
            "budget_s": self.args.equal_time,
            "prepare": json.loads((self.results / "prepare.json").read_text(encoding="utf-8")),
        }
        result |= self.figures()
        (self.keep / "result.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        (self.keep / "benchmarks.md").write_text(markdown(result), encoding="utf-8")
        print(tables(result))
        print(f"written: {self.keep / 'result.json'} and benchmarks.md, for docs/benchmarks.md")

    def figures(self) -> dict[str, dict]:
        """What the kept results say: rounds of steps by program, trainings and predictions by run."""
        steps: dict[str, list[dict]] = {}
        training = {}
        prediction = {}
        for path in sorted(self.results.glob("*_*.json")):
            phase, _, rest = path.stem.partition("_")
            kept = json.loads(path.read_text(encoding="utf-8"))
            if phase == "steps":
                program = rest.rpartition("_")[0]  # without the number of the round
                steps.setdefault(program, []).append(kept | speed(kept["epochs"]))
            elif phase == "predict":
                prediction[rest] = kept
            elif phase in ("nnunet", "segfw"):
                training[path.stem] = kept | {"steps": sum(row["steps"] for row in kept["epochs"])}
        return {"steps": steps, "training": training, "prediction": prediction}


def nnunet_splits(splits: Splits) -> list[dict[str, list[str]]]:
    """segfw's folds as nnU-Net writes them."""
    return [{"train": list(fold.train), "val": list(fold.validation)} for fold in splits.folds]


def speed(epochs: list[dict]) -> dict[str, float]:
    """Steps per minute, loading and augmentation included and validation not, without the first epoch (warm-up)."""
    rows = epochs[1:]
    seconds = [row["epoch_s"] / row["steps"] for row in rows]
    return {"step_s": statistics.median(seconds), "steps_per_minute": 60 / statistics.median(seconds)}


def without_cases(scores: dict) -> dict:
    return {name: value for name, value in scores.items() if name in ("labels", "foreground_mean", "notes")}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench training", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder in nnU-Net's raw layout")
    parser.add_argument("--keep", type=Path, required=True, help="folder for everything; the same one goes on")
    parser.add_argument("--phases", nargs="+", choices=PHASES, default=PHASES, help="(default: all, in order)")
    parser.add_argument("--configuration", default="3d_fullres", choices=("2d", "3d_fullres"))
    parser.add_argument("--fold", default="0", choices=("0", "1", "2", "3", "4"))
    parser.add_argument("--splits", type=Path, help="splits_final.json for both (default: drawn, the same for both)")
    parser.add_argument("--cases", type=int, help="only the first so many cases, to try the script")
    parser.add_argument("--steps", type=int, default=12, help="steps that are timed, after as many that are not")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--precisions",
        nargs="+",
        choices=("auto", "fp32", "bf16", "fp16"),
        help="of segfw's steps (default: auto, and on cuda also fp16, which is nnU-Net's there)",
    )
    parser.add_argument("--equal-time", type=duration_s, default=720.0, metavar="TIME", help="(default: 12m)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of segfw")
    parser.add_argument("--nnunet-seeds", type=int, nargs="+", default=[0])
    parser.add_argument(
        "--threads", type=int, default=usable_cpus(), help="(default: all cores, which nnU-Net predicts with anyway)"
    )
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--nnunet-python", type=Path, default=DEFAULT_NNUNET)
    return parser
