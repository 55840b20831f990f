"""The command line: each verb calls one public function with the same argument names."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence

from segfw.arguments import build_parser
from segfw.options import planning_arguments

# torch takes seconds to import: verbs import what they need when they run, so that --help answers at once.

OK, SOME_FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130


def _plan(args: argparse.Namespace) -> None:
    from segfw.verbs.plan_and_preprocess import plan_and_preprocess

    plan = plan_and_preprocess(
        args.raw,
        args.work,
        plan_only=args.plan_only,
        device=args.device,
        overwrite=args.overwrite,
        **planning_arguments(args),
    )
    ready = args.configurations[-1] if args.configurations else "3d_fullres"
    if ready not in plan.configurations:  # nnU-Net's plans may call theirs anything
        ready = "2d" if "2d" in plan.configurations else next(iter(plan.configurations))
    ready = plan.configurations[ready].previous_stage or ready
    verb = "plan-and-preprocess RAW" if args.plan_only else f"train {args.work} {ready} 0"
    print(f"next: segfw {verb}")


CALLS = {
    "plan-and-preprocess": _plan,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a verb and returns the exit code: 0 done, 1 some cases failed, 2 the input is wrong."""
    args = build_parser().parse_args(arguments)
    from segfw.base.records import UserError

    try:
        code = CALLS[args.verb](args) if args.verb in CALLS else args.command.call(args)
    except KeyboardInterrupt:
        code, message = INTERRUPTED, "interrupted; the same command goes on from here (segfw train needs --resume)"
    except Exception as error:
        from segfw.base.parallel import CasesFailed  # not before: it loads what --help should not wait for

        if not isinstance(error, UserError | CasesFailed | OSError):  # OSError: a full disk, a forbidden folder
            raise
        if args.debug:
            traceback.print_exc()
        code, message = SOME_FAILED if isinstance(error, CasesFailed) else WRONG_INPUT, str(error)
    else:
        return OK if code is None else code
    print(f"segfw: {message}", file=sys.stderr)
    return code


def command() -> None:
    """What the shell runs as ``segfw``: ``main``, without the second that Python takes to tear PyTorch down."""
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
