"""The two cold compilations of a training step, in processes of their own beside the sections that no clock reads."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from bench import CLONE
from bench.gpu.steps import nnunet_step, segfw_step
from bench.gpu.timing import synchronize
from bench.gpu.visit import Visit

LONGEST_WAIT_S = 100


def warm(visit: Visit, program: str) -> None:
    """Compiles the step of 'segfw' or 'nnunet' and takes one; what is compiled stays in the cache on disk."""
    began = time.monotonic()
    problem = visit.problem()
    if program == "nnunet":
        nnunet_step(visit, problem, compiled=True)()
    else:
        segfw_step(visit, problem, compiled=True).call()
    synchronize(visit.device)
    print(f"compiled {program}: {time.monotonic() - began:.0f} s", flush=True)


def start_compilers(visit: Visit) -> None:
    """Starts :func:`warm` for both programs; on the CPU nothing is compiled."""
    if not visit.on_cuda:
        return
    for program in ("segfw", "nnunet"):
        if program == "nnunet" and not visit.has_nnunet:
            continue
        command = [sys.executable, "-m", "bench", "gpu", "--warm", program]
        command += ["--output", str(visit.folder), "--nnunet", str(visit.nnunet_folder)]
        with _log(visit, program).open("w", encoding="utf-8") as log:
            visit.compilers[program] = subprocess.Popen(command, cwd=CLONE, stdout=log, stderr=subprocess.STDOUT)


def await_compilers(visit: Visit, found: dict, until_left_s: float) -> None:
    """Seconds of each compilation. One that takes too long is ended, and the sections below compile for themselves."""
    if not visit.compilers:
        found["skipped"] = "nothing is compiled on a CPU"
    for program, process in visit.compilers.items():
        patience_s = max(0.0, min(LONGEST_WAIT_S, visit.seconds_left() - until_left_s))
        try:
            process.wait(timeout=patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        found[program] = {
            "exit_status": process.returncode,
            "seconds_since_start": round(visit.seconds_gone(), 1),
            "log": _log(visit, program).read_text(encoding="utf-8", errors="replace")[-500:],
        }


def stop_compilers(visit: Visit) -> None:
    """Ends those that still run, as when the visit is interrupted."""
    for process in visit.compilers.values():
        if process.poll() is None:
            process.kill()
            process.wait()


def _log(visit: Visit, program: str) -> Path:
    return visit.folder / f"compile_{program}.log"
