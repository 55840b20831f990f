"""Prediction by nnU-Net v2 and segfw with the same weights: wall time, memory of the whole process tree, and masks.

    python -m bench prediction --data ../shared/data/hippocampus --keep work_predict

Everything is kept in ``--keep``: a comparison that was stopped goes on
with the same command. Models are made by segfw and exported to nnU-Net, so that both run the same network.

hippocampus: a network trained for ``--train-time`` on fold 0 predicts the cases held out of it, step 0.5, mirrored.
phantom: a made CT of ``--phantom-size``, networks with 6 stages and as many classes as ``--classes`` says. Their
weights are random, but the four finest stages pass on only what comes from below, so that classes form regions as those
of a trained network do and not noise. ``--step`` and ``--mirroring`` are of this part.

Seconds by part are what each program's own functions took, added up over cases, one worker reading and one writing;
they overlap in time, so that the wall time may be less than their sum. nnU-Net is ended when it takes more than
``--most-gb`` or ``--most-s``; its way from logits to mask is then measured on the first slices that fit, and what the
whole volume would take is extrapolated and marked so.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import psutil

from bench.against_nnunet.prediction_phantom import FEATURES, PHANTOM_MM, network_shape, phantom_plan, smooth_weights
from bench.against_nnunet.prediction_table import table
from bench.figures import dices
from bench.measure import GB, measure
from bench.phantom import phantom_image
from bench.runs import (
    DEFAULT_NNUNET,
    IN_NNUNET,
    SEGFW,
    as_published,
    keep_or_refuse,
    linked_cases,
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
from segfw.images.formats import read_volume
from segfw.model.load import load_model
from segfw.model.source import WEIGHTS_FILE, fold_folder
from segfw.model.weights import save_weights
from segfw.planning.plan import FULLRES, PLAN_FILE
from segfw.planning.splits import SPLITS_FILE, Splits
from segfw.verbs.export_nnunet import export_nnunet

SHARE_OF_MEMORY = 0.9  # that nnU-Net may take, of what is free at the start
ORDINARY = {"step": 0.5, "mirroring": True}
NOTES = "SEGFW_COMPARISON_NOTES"  # as in bench/in_nnunet/predict.py, which runs where this file cannot be imported
WRAPPER = IN_NNUNET / "predict.py"


def main(arguments: Sequence[str] | None = None) -> None:
    args = build_parser().parse_args(arguments)
    require_nnunet(args.nnunet_python)
    args.most_gb = args.most_gb or round(SHARE_OF_MEMORY * psutil.virtual_memory().available / GB, 1)
    names = (
        "step",
        "mirroring",
        "phantom_size",
        "phantom_patch",
        "features",
        "cases",
        "train_time",
        "device",
        "precision",
        "threads",
    )
    keep_or_refuse(args.keep, {"data": args.data} | {name: getattr(args, name) for name in names})
    results = {}
    if "hippocampus" in args.parts:
        if args.data is None:
            sys.exit("--data is missing, the folder of the hippocampus; give it, or --parts phantom")
        name = args.data.name
        part = Prediction(args, name, ORDINARY)
        results[name] = part.run(part.prepare_data)
    if "phantom" in args.parts:
        for classes in args.classes:
            settings = {"step": args.step, "mirroring": args.mirroring == "on", "classes": classes}
            part = Prediction(args, f"phantom_{classes}", settings)
            results[part.name] = part.run(part.prepare_phantom)
    chosen = str(pick_precision(args.precision, pick_device(args.device))).removeprefix("torch.")
    kept = {
        "machine": machine(),
        "precision": chosen,
        "threads": args.threads,
        "device": args.device,
        "results": results,
    }
    (args.keep / "result.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    text = table(kept)
    (args.keep / "benchmarks.md").write_text(text, encoding="utf-8")
    print(text)
    print(f"written: {args.keep / 'result.json'} and benchmarks.md, for docs/benchmarks.md")


class Prediction:
    """One model, its images, and what each program took to predict them."""

    def __init__(self, args: argparse.Namespace, name: str, settings: dict[str, object]) -> None:
        self.args = args
        self.name = name
        self.settings = settings
        self.home = args.keep.resolve() / name
        self.model = self.home / "model"
        self.exported = self.home / "nnunet_model"
        self.images = self.home / "images"
        self.results = self.home / "results"

    def run(self, prepare: Callable[[], dict]) -> dict:
        """Prepares, predicts with both, compares the masks; each only if it was not done before."""
        result = {"settings": self.settings} | once(self.results / "prepare.json", prepare)
        once(self.results / "export.json", self.export)
        result["segfw"] = once(self.results / "segfw.json", self.segfw)
        result["nnunet"] = once(self.results / "nnunet.json", self.nnunet)
        if result["nnunet"]["stopped"]:
            result["nnunet_part"] = once(self.results / "nnunet_part.json", self.nnunet_part)
        else:
            result["agreement"] = once(self.results / "agreement.json", self.agreement)
        return result

    def export(self) -> dict:
        """The model as nnU-Net loads it."""
        (folder,) = export_nnunet(self.model, remove(self.exported))
        return {"folder": folder.name}

    @property
    def nnunet_model(self) -> Path:
        (folder,) = self.exported.iterdir()
        return folder

    def segfw(self) -> dict:
        masks = remove(self.home / "masks_segfw")
        command = [str(SEGFW), "predict", str(self.model), str(self.images), str(masks), "--configuration", FULLRES]
        command += ["--folds", "0", "--step", str(self.settings["step"]), "--device", self.args.device]
        command += ["--precision", self.args.precision]
        command += [] if self.settings["mirroring"] else ["--no-mirroring"]
        environment = os.environ | {"OMP_NUM_THREADS": str(self.args.threads)}
        measured = measure(command, env=environment, log=self.home / "logs" / "segfw.log")
        seconds = json.loads((masks / "timings.json").read_text(encoding="utf-8"))["total"]
        return asdict(measured) | {"seconds": {name.removesuffix("_s"): value for name, value in seconds.items()}}

    def nnunet(self) -> dict:
        options = ["--images", self.images, "--masks", remove(self.home / "masks_nnunet")]
        options += ["--step", self.settings["step"], "--device", self.args.device]
        options += [] if self.settings["mirroring"] else ["--no-mirroring"]
        return self._wrapped("predict", options)

    def nnunet_part(self) -> dict:
        """Its way from logits to mask for as many slices as fit into its memory, and the same for the whole volume."""
        old = network_shape(self.args.phantom_size)
        new = self.args.phantom_size
        # A voxel's logit takes up to 6 bytes before and 8 after it is resized; measured runs stay below that.
        whole_gb = self.settings["classes"] * (6 * np.prod(old) + 8 * np.prod(new)) / GB
        share = min(1.0, 0.5 * self.args.most_gb / whole_gb)
        slices = [max(1, round(share * size)) for size in (old[0], new[0])]
        found = self._wrapped("export", ["--old", slices[0], *old[1:], "--new", slices[1], *new[1:]])
        factor = new[0] / slices[1]
        restore_s = found["seconds"].get("restore", float("nan"))
        return found | {
            "slices": slices[1],
            "of": new[0],
            "extrapolated_restore_s": restore_s * factor,
            "extrapolated_gb": found["peak_pss_gb"] * factor,
        }

    def _wrapped(self, what: str, options: list[object]) -> dict:
        notes = self.home / "logs" / f"nnunet_{what}.jsonl"
        notes.parent.mkdir(parents=True, exist_ok=True)
        notes.write_text("", encoding="utf-8")
        threads = str(self.args.threads)
        command = [self.args.nnunet_python, WRAPPER, what, "--model", self.nnunet_model, "--threads", threads, *options]
        environment = nnunet_environment(self.home) | {NOTES: str(notes), "OMP_NUM_THREADS": threads}
        measured = measure(
            [str(word) for word in command],
            env=environment,
            log=self.home / "logs" / f"nnunet_{what}.log",
            most_gb=self.args.most_gb,
            most_s=self.args.most_s,
        )
        return asdict(measured) | {"seconds": seconds_by_part(notes)}

    def agreement(self) -> dict:
        """Share of equal voxels, and the mean Dice of the masks of both over labels and cases."""
        equal = []
        dice = []
        for path in sorted((self.home / "masks_nnunet").glob("*.nii.gz")):
            theirs = read_volume(path).array
            ours = read_volume(self.home / "masks_segfw" / path.name).array
            equal.append(float((theirs == ours).mean()))
            dice += list(dices(theirs, ours).values())
        return {"cases": len(equal), "equal_voxels": float(np.mean(equal)), "dice": float(np.mean(dice or [1.0]))}

    # What is predicted

    def prepare_data(self) -> dict:
        """A short training on fold 0 and links to the images that it holds out."""
        data = subset(self.args.data, self.home / "data", self.args.cases)
        log = self.home / "logs" / "train.log"
        plan = [str(SEGFW), "plan-and-preprocess", str(data), str(self.model), "--configurations", FULLRES]
        measure([*plan, *as_published()], env=os.environ, log=log)
        train = [str(SEGFW), "train", str(self.model), FULLRES, "0", "--overwrite", "--device", self.args.device]
        environment = os.environ | {"OMP_NUM_THREADS": str(self.args.threads)}
        measure([*train, "--time-budget", f"{self.args.train_time:g}s"], env=environment, log=log)
        # Both mirror along all axes, also if so short a training did not.
        loaded = load_model(self.model, FULLRES, ("0",))
        path = fold_folder(self.model, FULLRES, "0") / WEIGHTS_FILE
        save_weights(path, loaded.weights["0"], epoch=0, mirror_axes=(0, 1, 2))
        held_out = Splits.load(self.model / SPLITS_FILE).fold("0").validation
        linked_cases(data, self.home, held_out, "images", "labels")
        parameters = sum(tensor.numel() for tensor in loaded.weights["0"].values())
        return {"images": len(held_out), "parameters": parameters, "logits": "trained"}

    def prepare_phantom(self) -> dict:
        """A made CT and a network for it whose classes form regions."""
        size = tuple(self.args.phantom_size)
        phantom_image(self.images / "phantom_0000.nii.gz", size, PHANTOM_MM, seed=0)
        plan = phantom_plan(self.settings["classes"], tuple(self.args.phantom_patch), size, tuple(self.args.features))
        plan.save(self.model / PLAN_FILE)
        weights = smooth_weights(plan.configuration(FULLRES).network, seed=0)
        path = fold_folder(self.model, FULLRES, "0") / WEIGHTS_FILE
        save_weights(path, weights, epoch=0, mirror_axes=(0, 1, 2))
        parameters = sum(tensor.numel() for tensor in weights.values())
        return {"images": 1, "parameters": parameters, "logits": "random, smooth"}


def seconds_by_part(notes: Path) -> dict[str, float]:
    """Sums of what nnU-Net's functions noted; reading happens inside of preprocessing and is taken off it."""
    total: dict[str, float] = {}
    for line in notes.read_text(encoding="utf-8").splitlines():
        note = json.loads(line)
        total[note["part"]] = total.get(note["part"], 0.0) + note["seconds"]
    if "read_and_preprocess" in total:
        total["preprocess"] = total.pop("read_and_preprocess") - total.get("read", 0.0)
    return total


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench prediction", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keep", type=Path, required=True, help="folder for everything; the same one goes on")
    parser.add_argument("--parts", nargs="+", choices=("hippocampus", "phantom"), default=("hippocampus", "phantom"))
    parser.add_argument("--data", type=Path, help="folder of the hippocampus in nnU-Net's raw layout")
    parser.add_argument("--cases", type=int, help="only the first so many of its cases, to try the script")
    parser.add_argument("--train-time", type=duration_s, default=120.0, metavar="TIME", help="(default: 2m)")
    parser.add_argument("--classes", type=int, nargs="+", default=[15, 105], help="of the phantom, background included")
    parser.add_argument("--phantom-size", type=int, nargs=3, default=(300, 512, 512), metavar=("Z", "Y", "X"))
    parser.add_argument("--phantom-patch", type=int, nargs=3, default=(80, 160, 160), metavar=("Z", "Y", "X"))
    parser.add_argument("--features", type=int, nargs="+", default=FEATURES, help="by stage of the phantom's network")
    parser.add_argument("--step", type=float, default=1.0, help="of the phantom's tiles (default: 1.0, the fastest)")
    parser.add_argument("--mirroring", choices=("on", "off"), default="off", help="of the phantom (default: off)")
    parser.add_argument("--most-gb", type=float, help="that nnU-Net may take (default: nine tenths of what is free)")
    parser.add_argument("--most-s", type=float, default=1500.0, help="that one run of nnU-Net may take")
    parser.add_argument("--threads", type=int, default=usable_cpus(), help="(default: all cores)")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16", "fp16"), help="of segfw")
    parser.add_argument("--nnunet-python", type=Path, default=DEFAULT_NNUNET)
    return parser
