"""The command line: each verb parses its arguments and calls one public function with the same names."""

from __future__ import annotations

import argparse
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

# torch takes seconds to import: verbs import what they need when they run, so that --help answers at once.

OK, SOME_FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130
MIRRORING = {"auto": None, "on": True, "off": False}
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


def memory_gb(text: str) -> float | str:
    """'auto' or a number of GB."""
    try:
        return "auto" if text == "auto" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of GB nor auto") from None


def build_parser() -> argparse.ArgumentParser:
    """The parser of all verbs."""
    parser = argparse.ArgumentParser(
        prog="segfw",
        description="Self-configuring segmentation of CT, MR and other medical images.",
        epilog="example: segfw run RAW WORK --configurations 3d_fullres --folds 0 --time-budget 30m",
    )
    parser.add_argument("--debug", action="store_true", help="show the full traceback of an error")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for add in (_add_run, _add_plan, _add_train, _add_predict, _add_evaluate, _add_info, _add_doctor, _add_demo):
        add(verbs)
    return parser


def _verb(verbs: argparse._SubParsersAction, name: str, what: str, example: str) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, help=what, description=what, epilog=f"example: {example}")
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


def _planning_options(parser: argparse.ArgumentParser) -> None:
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
    parser.add_argument("--workers", type=int, help="threads that read and preprocess (default: one per processor)")


def _training_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--epochs", type=int, help="length of the training (default: 1000)")
    parser.add_argument("--steps-per-epoch", type=int, help="batches per epoch (default: 250)")
    parser.add_argument(
        "--time-budget", type=duration_s, metavar="TIME", help="train each fold this long instead: 90s, 12m, 1h30m"
    )
    parser.add_argument("--batch-size", type=int, help="patches per step (default: the plan's)")
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default: 0)")
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16", "fp16"))
    parser.add_argument("--augmentation", default="device", choices=("device", "none"))
    parser.add_argument(
        "--mirroring", default="auto", choices=tuple(MIRRORING), help="mirrored images too (default: in long runs)"
    )
    parser.add_argument("--device", default="auto", help=DEVICES)


def _add_run(verbs: argparse._SubParsersAction) -> None:
    what = "From a folder of images and masks to trained, validated models; call it again to go on where it stopped."
    parser = _verb(
        verbs, "run", what, "segfw run hippocampus work --configurations 3d_fullres --folds 0 --time-budget 12m"
    )
    parser.add_argument("raw", type=Path, help="folder of images and masks")
    parser.add_argument("work", type=Path, help="folder for everything that is made")
    _planning_options(parser)
    parser.add_argument("--folds", nargs="+", metavar="FOLD", help="0 to 4, or all (default: 0 1 2 3 4)")
    _training_options(parser)
    parser.set_defaults(call=_run)


def _add_plan(verbs: argparse._SubParsersAction) -> None:
    what = "Verify the data, choose spacing, patch, network and batch, and preprocess."
    parser = _verb(verbs, "plan-and-preprocess", what, "segfw plan-and-preprocess hippocampus work")
    parser.add_argument("raw", type=Path, help="folder of images and masks")
    parser.add_argument("work", type=Path, help="folder for everything that is made")
    _planning_options(parser)
    parser.add_argument("--device", default="auto", help=f"{DEVICES}; a GPU is also used to check the plan's memory")
    parser.add_argument("--plan-only", action="store_true", help="do not preprocess")
    parser.add_argument("--overwrite", action="store_true", help="read and plan anew, whatever is there")
    parser.set_defaults(call=_plan)


def _add_train(verbs: argparse._SubParsersAction) -> None:
    what = "Train one fold of one configuration and score it on its validation cases."
    parser = _verb(verbs, "train", what, "segfw train work 3d_fullres 0 --time-budget 2h")
    parser.add_argument("work", type=Path, help="work folder of plan-and-preprocess")
    parser.add_argument("configuration", help="2d or 3d_fullres")
    parser.add_argument("fold", help="0 to 4, or all")
    _training_options(parser)
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--overwrite", action="store_true", help="delete this fold's run and train anew")
    parser.set_defaults(call=_train)


def _add_predict(verbs: argparse._SubParsersAction) -> None:
    parser = _verb(verbs, "predict", "Write masks for new images.", "segfw predict work new_scans masks --folds 0")
    parser.add_argument("model", type=Path, help="work folder or model directory")
    parser.add_argument("input", type=Path, help="folder of images, or one file")
    parser.add_argument("output", type=Path, help="folder for the masks")
    parser.add_argument("--configuration", help="default: the only one that is trained")
    parser.add_argument("--folds", nargs="+", metavar="FOLD", help="default: all that are trained, averaged")
    parser.add_argument(
        "--step", type=float, default=0.5, help="distance of tiles, as a share of a tile (default: 0.5)"
    )
    parser.add_argument("--no-mirroring", action="store_true", help="faster, slightly less accurate")
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16", "fp16"))
    parser.add_argument("--device", default="auto", help=DEVICES)
    parser.add_argument("--ending", default=".nii.gz", help="file format of the masks (default: .nii.gz)")
    parser.add_argument("--overwrite", action="store_true", help="predict again what is there")
    parser.set_defaults(call=_predict)


def _add_evaluate(verbs: argparse._SubParsersAction) -> None:
    what = "Score a folder of masks against reference masks of the same names."
    parser = _verb(verbs, "evaluate", what, "segfw evaluate masks labelsTs --output scores.json --report report.html")
    parser.add_argument("predictions", type=Path, help="folder of predicted masks")
    parser.add_argument("reference", type=Path, help="folder of expert masks")
    parser.add_argument("--output", type=Path, help="scores.json (a CSV is written beside it)")
    parser.add_argument("--report", type=Path, help="report.html, with pictures")
    parser.add_argument("--images", type=Path, help="folder of the images, for the report's pictures")
    parser.set_defaults(call=_evaluate)


def _add_info(verbs: argparse._SubParsersAction) -> None:
    parser = _verb(
        verbs, "info", "Explain a plan in words: what was chosen, why, and what it costs.", "segfw info work"
    )
    parser.add_argument("work", type=Path, help="work folder or model directory")
    parser.add_argument("--device", default="auto", help=f"{DEVICES}, for the expected training time")
    parser.set_defaults(call=_info)


def _add_doctor(verbs: argparse._SubParsersAction) -> None:
    what = "Show versions, devices, memory and disk, and what to do about anything wrong."
    _verb(verbs, "doctor", what, "segfw doctor").set_defaults(call=_doctor)


def _add_demo(verbs: argparse._SubParsersAction) -> None:
    what = "Make a small data set, train on it, predict and score images never seen: about 5 minutes on two cores."
    parser = _verb(verbs, "demo", what, "segfw demo demo")
    parser.add_argument("folder", type=Path, nargs="?", default=Path("demo"), help="default: demo")
    parser.add_argument(
        "--time-budget", type=duration_s, default=285.0, metavar="TIME", help="for training (default: 4m45s)"
    )
    parser.add_argument("--device", default="auto", help=DEVICES)
    parser.set_defaults(call=_demo)


def _tuple(values: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if values is None else tuple(values)


def _planning_arguments(args: argparse.Namespace) -> dict:
    return {
        "preset": args.preset,
        "gpu_memory_gb": args.gpu_memory_gb,
        "as_published": args.as_published,
        "configurations": _tuple(args.configurations),
        "spacing_mm": None if args.spacing_mm is None else tuple(args.spacing_mm),
        "groups": args.groups,
        "splits": args.splits,
        "workers": args.workers,
    }


def _training_arguments(args: argparse.Namespace) -> dict:
    return {
        "epochs": args.epochs,
        "steps_per_epoch": args.steps_per_epoch,
        "time_budget_s": args.time_budget,
        "batch_size": args.batch_size,
        "seed": args.seed,
        "precision": args.precision,
        "augmentation": args.augmentation,
        "mirroring": MIRRORING[args.mirroring],
        "device": args.device,
    }


def _run(args: argparse.Namespace) -> None:
    from segfw.pipeline import run, summary

    planning, training = _planning_arguments(args), _training_arguments(args)
    scores = run(args.raw, args.work, folds=_tuple(args.folds), **planning, **training)
    print(summary(scores), end="")
    print(f"reports: {args.work}/runs/*/fold_*/report.html")
    print(f"next: segfw predict {args.work} NEW_IMAGES MASKS")


def _plan(args: argparse.Namespace) -> None:
    from segfw.planning.prepare import plan_and_preprocess

    plan = plan_and_preprocess(
        args.raw,
        args.work,
        plan_only=args.plan_only,
        device=args.device,
        overwrite=args.overwrite,
        **_planning_arguments(args),
    )
    ready = args.configurations[-1] if args.configurations else "3d_fullres"
    ready = ready if ready in plan.configurations else "2d"
    verb = "plan-and-preprocess RAW" if args.plan_only else f"train {args.work} {ready} 0"
    print(f"next: segfw {verb}")


def _train(args: argparse.Namespace) -> None:
    from segfw.model import fold_folder
    from segfw.pipeline import summary, train

    scores = train(
        args.work,
        args.configuration,
        args.fold,
        resume=args.resume,
        overwrite=args.overwrite,
        **_training_arguments(args),
    )
    if scores is not None:
        print(summary({args.configuration: {args.fold: scores}}), end="")
        print(f"report: {fold_folder(args.work, args.configuration, args.fold)}/report.html")
    print(f"next: segfw predict {args.work} NEW_IMAGES MASKS --configuration {args.configuration}")


def _predict(args: argparse.Namespace) -> None:
    from segfw.pipeline import predict

    predict(
        args.model,
        args.input,
        args.output,
        configuration=args.configuration,
        folds=_tuple(args.folds),
        step=args.step,
        mirroring=not args.no_mirroring,
        precision=args.precision,
        device=args.device,
        ending=args.ending,
        overwrite=args.overwrite,
    )
    print(f"masks are in {args.output}")
    print(f"next: segfw evaluate {args.output} EXPERT_MASKS --output scores.json --report report.html")


def _evaluate(args: argparse.Namespace) -> None:
    from segfw.evaluation.evaluate import evaluate, first_channel_files
    from segfw.evaluation.metrics import scores_table

    images = first_channel_files(args.images) if args.images else None
    scores = evaluate(args.predictions, args.reference, output=args.output, report=args.report, images=images)
    print(scores_table(scores))
    for path in (args.output, args.report):
        if path:
            print(f"written: {path}")


def _info(args: argparse.Namespace) -> None:
    from segfw.health import explain

    print(explain(args.work, device=args.device))


def _doctor(args: argparse.Namespace) -> None:
    from segfw.health import doctor

    print(doctor())


def _demo(args: argparse.Namespace) -> None:
    from segfw.demo import demo

    demo(args.folder, time_budget_s=args.time_budget, device=args.device)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a verb and returns the exit code: 0 done, 1 some cases failed, 2 the input is wrong."""
    args = build_parser().parse_args(arguments)
    from segfw.records import UserError

    try:
        args.call(args)
    except KeyboardInterrupt:
        code, message = INTERRUPTED, "interrupted; the same command goes on from here (segfw train needs --resume)"
    except Exception as error:
        from segfw.data.parallel import CasesFailed  # not before: it loads what --help should not wait for

        if not isinstance(error, UserError | CasesFailed | OSError):  # OSError: a full disk, a forbidden folder
            raise
        if args.debug:
            traceback.print_exc()
        code, message = SOME_FAILED if isinstance(error, CasesFailed) else WRONG_INPUT, str(error)
    else:
        return OK
    print(f"segfw: {message}", file=sys.stderr)
    return code
