"""Options that several verbs share, the types of their values, and the arguments that they become."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

ON_OFF = {"auto": None, "on": True, "off": False}
DEVICES = "auto, cpu, cuda, cuda:1 or mps (default: auto)"


def duration_s(text: str) -> float:
    """Seconds of '90s', '12m', '1h30m' or '2h'."""
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", text.strip())
    if not text.strip() or not match or not any(match.groups()):
        raise argparse.ArgumentTypeError(f"{text!r} is no duration; write for example 90s, 12m, 2h or 1h30m")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    total = hours * 3600 + minutes * 60 + seconds
    if total <= 0:
        raise argparse.ArgumentTypeError("the duration must be longer than nothing")
    return total


def extension(text: str) -> dict[str, float]:
    """Arguments of ``pipeline.train`` for '100' (epochs) or '30m' (time)."""
    if text.isdecimal() and int(text) > 0:
        return {"extend_epochs": int(text)}
    return {"extend_s": duration_s(text)}


def memory_gb(text: str) -> float | str:
    """'auto' or a number of GB."""
    try:
        return "auto" if text == "auto" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of GB nor auto") from None


def planning_options(parser: argparse.ArgumentParser) -> None:
    """How data are planned and prepared."""
    parser.add_argument("--configurations", nargs="+", metavar="NAME", help="2d, 3d_fullres ... (default: all planned)")
    parser.add_argument(
        "--preset", default="plain", help="plain, or resenc-m, resenc-l, resenc-xl with a residual encoder"
    )
    parser.add_argument(
        "--gpu-memory-gb",
        type=memory_gb,
        metavar="GB",
        help="memory to fill, or auto for all of the GPU here (default: what the preset was published with, such as 8)",
    )
    parser.add_argument("--as-published", action="store_true", help="plan exactly as nnU-Net does")
    parser.add_argument("--spacing-mm", type=float, nargs=3, metavar=("Z", "Y", "X"), help="target spacing")
    parser.add_argument(
        "--groups",
        metavar="CSV|REGEX",
        help="cases of one patient: a table with columns case and patient, or an expression such as '(pat\\d+)_'",
    )
    parser.add_argument("--splits", type=Path, metavar="FILE", help="given folds (splits_final.json or splits.json)")
    parser.add_argument("--plans", type=Path, metavar="FILE", help="nnU-Net's nnUNetPlans.json, followed to the letter")
    parser.add_argument("--workers", type=int, help="threads that read and preprocess (default: one per processor)")
    parser.add_argument("--cluster", metavar="ADDRESS", help="Dask scheduler, whose workers preprocess: host:8786")


def training_options(parser: argparse.ArgumentParser) -> None:
    """How a network is trained."""
    parser.add_argument("--epochs", type=int, help="length of the training (default: 1000)")
    parser.add_argument("--steps-per-epoch", type=int, help="batches per epoch (default: 250)")
    parser.add_argument(
        "--time-budget", type=duration_s, metavar="TIME", help="train each fold this long instead: 90s, 12m, 1h30m"
    )
    parser.add_argument("--batch-size", type=int, help="patches per step (default: the plan's)")
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default: 0)")
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16", "fp16"))
    parser.add_argument(
        "--augmentation",
        default="device",
        choices=("device", "reference", "none"),
        help="on the device (default), by the published pipeline on the CPU, or none",
    )
    parser.add_argument("--elastic", action="store_true", help="elastic deformations as well")
    parser.add_argument(
        "--mirroring", default="auto", choices=tuple(ON_OFF), help="mirrored images too (default: in long runs)"
    )
    parser.add_argument("--loss", default="dice-ce", choices=("dice-ce", "dice-topk"))
    parser.add_argument(
        "--patience", type=int, metavar="EPOCHS", help="end the run early after so many epochs without progress"
    )
    parser.add_argument(
        "--accumulate", type=int, metavar="N", help="compute each batch in N parts (default: as few as fit)"
    )
    parser.add_argument(
        "--compile", default="auto", choices=tuple(ON_OFF), help="torch.compile (default: where it pays)"
    )
    parser.add_argument(
        "--init-from", type=Path, metavar="MODEL", help="begin with another model's weights, as far as they fit"
    )
    parser.add_argument(
        "--log", nargs="+", default=[], choices=("tensorboard", "mlflow"), help="write the figures there as well"
    )
    parser.add_argument("--device", default="auto", help=DEVICES)


def tiling_options(parser: argparse.ArgumentParser) -> None:
    """How tiles are laid and computed at prediction."""
    parser.add_argument("--step", type=float, default=0.5, help="distance of tiles, in tiles (default: 0.5)")
    parser.add_argument("--no-mirroring", action="store_true", help="faster, slightly less accurate")
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16", "fp16"))


def as_tuple(values: Sequence[str] | None) -> tuple[str, ...] | None:
    """Values of an option that takes several; None where it was not given."""
    return None if values is None else tuple(values)


def planning_arguments(args: argparse.Namespace) -> dict:
    """Keyword arguments of planning, of what ``planning_options`` took."""
    return {
        "preset": args.preset,
        "gpu_memory_gb": args.gpu_memory_gb,
        "as_published": args.as_published,
        "configurations": as_tuple(args.configurations),
        "spacing_mm": None if args.spacing_mm is None else tuple(args.spacing_mm),
        "groups": args.groups,
        "splits": args.splits,
        "plans": args.plans,
        "workers": args.workers,
        "cluster": args.cluster,
    }


def training_arguments(args: argparse.Namespace) -> dict:
    """Keyword arguments of training, of what ``training_options`` took."""
    return {
        "epochs": args.epochs,
        "steps_per_epoch": args.steps_per_epoch,
        "time_budget_s": args.time_budget,
        "batch_size": args.batch_size,
        "seed": args.seed,
        "precision": args.precision,
        "augmentation": args.augmentation,
        "elastic": args.elastic,
        "mirroring": ON_OFF[args.mirroring],
        "compile": ON_OFF[args.compile],
        "loss": args.loss,
        "accumulate": args.accumulate,
        "patience": args.patience,
        "init_from": args.init_from,
        "log": tuple(args.log),
        "device": args.device,
    }
