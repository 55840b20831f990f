"""Trains nnU-Net v2 with its stock trainer and writes down when each step ended. Runs in nnU-Net's own environment.

    nnunet-venv/bin/python bench/in_nnunet/train.py --configuration 3d_fullres --fold 0 --budget-s 720 --output X

What is computed is untouched: only the trainer's public lengths (epochs, steps per epoch, validation steps) are set,
and two of its hooks are wrapped to read the clock. ``python -m bench training`` calls it.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

WANTED_EPOCHS = (15, 30)  # of a run that is as long as the budget: the learning rate falls in that many stairs
CALIBRATION_EPOCHS = 3
CALIBRATION_STEPS = 3


class OutOfTimeError(Exception):
    """The budget is spent."""


@dataclass
class Watch:
    """Clock times of a training, all in seconds of one monotonic clock."""

    epoch_starts: list[float] = field(default_factory=list)
    step_ends: list[list[float]] = field(default_factory=list)  # per epoch

    def first_s(self) -> float:
        """When the first epoch began, which is just before the first step."""
        return self.epoch_starts[0]

    def epochs(self) -> list[dict[str, float]]:
        """Steps of each epoch, and the time from its start to its last step's end: no validation, as in segfw."""
        pairs = zip(self.epoch_starts, self.step_ends)
        return [{"steps": len(ends), "epoch_s": ends[-1] - start} for start, ends in pairs if ends]

    def step_s(self) -> float:
        """Median time of a step, data loading included, without the first epoch, which warms up."""
        steps = []
        for start, ends in list(zip(self.epoch_starts, self.step_ends))[1:]:
            steps += [after - before for before, after in zip([start, *ends], ends)]
        return statistics.median(steps)

    def warm_up_s(self) -> float:
        """What the first epoch took longer than its steps do later, while the augmentation workers fill their queue."""
        first = self.epochs()[0]
        return max(0.0, first["epoch_s"] - first["steps"] * self.step_s())

    def between_s(self) -> float:
        """Median time from an epoch's last step to the next epoch's start: validation, checkpoint, pictures."""
        return statistics.median(
            following - ends[-1] for ends, following in zip(self.step_ends, self.epoch_starts[1:]) if ends
        )


def fit_schedule(
    budget_s: float, step_s: float, between_s: float, wanted: tuple[int, int] = WANTED_EPOCHS
) -> tuple[int, int]:
    """(epochs, steps per epoch) with as many steps as fit the budget, and a wanted number of epochs where possible.

    nnU-Net lowers its learning rate once per epoch, to nearly zero in the last one, so the epochs together must be as
    long as the budget: no shorter, which wastes time, and no longer, which would cut it off at a high rate.
    """
    best = (0, 0, 0)
    for steps in range(1, max(1, math.ceil(budget_s / step_s)) + 1):
        epochs = int(budget_s / (steps * step_s + between_s))
        is_wanted = wanted[0] <= epochs <= wanted[1]
        if is_wanted and epochs * steps > best[0]:
            best = (epochs * steps, epochs, steps)
    if best[0]:
        return best[1:]
    return max(1, int(budget_s / (step_s + between_s))), 1  # too short for the wanted number of epochs


def make_trainer(args: argparse.Namespace, epochs: int, steps: int):  # noqa: ANN201 (a class of nnU-Net's)
    """nnU-Net's own trainer as nnUNetv2_train makes it, with this length."""
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args

    fold = args.fold if args.fold == "all" else int(args.fold)
    trainer = get_trainer_from_args("1", args.configuration, fold, device=torch.device(args.device))
    trainer.num_epochs = epochs
    trainer.num_iterations_per_epoch = steps
    trainer.num_val_iterations_per_epoch = 1  # the fewest it can do
    return trainer


def watched(trainer, budget_s: float | None = None) -> Watch:  # noqa: ANN001
    """Runs a training with the clock read at each epoch's start and each step's end; ends it when time is up."""
    watch = Watch()
    start_epoch = trainer.on_train_epoch_start
    train_step = trainer.train_step

    def on_train_epoch_start() -> None:
        _stop_if_late(watch, budget_s)
        watch.epoch_starts.append(time.monotonic())
        watch.step_ends.append([])
        start_epoch()

    def step(batch: dict) -> dict:
        _stop_if_late(watch, budget_s)
        result = train_step(batch)  # reads the loss, so the device is done when it returns
        watch.step_ends[-1].append(time.monotonic())
        return result

    trainer.on_train_epoch_start = on_train_epoch_start
    trainer.train_step = step
    try:
        trainer.run_training()
    except OutOfTimeError:
        trainer.on_train_end()  # writes the final checkpoint, as at a normal end
    return watch


def _stop_if_late(watch: Watch, budget_s: float | None) -> None:
    if budget_s and any(watch.step_ends) and time.monotonic() - watch.first_s() >= budget_s:
        raise OutOfTimeError


def train_for(args: argparse.Namespace) -> dict:
    """A training of ``--budget-s`` seconds, its schedule fitted to the speed of a short one just before."""
    trainer = make_trainer(args, CALIBRATION_EPOCHS, CALIBRATION_STEPS)
    calibration = watched(trainer)
    shutil.rmtree(trainer.output_folder)
    step_s = calibration.step_s()
    between_s = calibration.between_s()
    warm_up_s = calibration.warm_up_s()
    del trainer
    epochs, steps = fit_schedule(max(0.0, args.budget_s - warm_up_s), step_s, between_s)
    print(f"a step takes {step_s:.3f} s, the end of an epoch {between_s:.3f} s: {epochs} epochs of {steps} steps")
    _seed(args.seed)
    trainer = make_trainer(args, epochs, steps)
    watch = watched(trainer, args.budget_s)
    done = watch.epochs()
    return {
        "steps": sum(row["steps"] for row in done),
        "planned_epochs": epochs,
        "planned_steps_per_epoch": steps,
        "calibrated_step_s": step_s,
        "calibrated_between_s": between_s,
        "calibrated_warm_up_s": warm_up_s,
        "elapsed_s": watch.step_ends[len(done) - 1][-1] - watch.first_s(),
        "last_learning_rate": trainer.optimizer.param_groups[0]["lr"],
        "epochs": done,
    }


def _seed(seed: int) -> None:
    """Seeds this process. nnU-Net's workers seed themselves from the system, so no two runs are the same."""
    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed(seed)  # noqa: NPY002 (what nnU-Net draws from)
    torch.manual_seed(seed)


def time_steps(args: argparse.Namespace) -> dict:
    """Two epochs of ``--steps`` each: the first warms up."""
    return {"epochs": watched(make_trainer(args, 2, args.steps)).epochs()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--configuration", required=True)
    parser.add_argument("--fold", required=True)
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--steps", type=int, help="two epochs of so many steps")
    length.add_argument("--budget-s", type=float, help="train so long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, required=True, help="of PyTorch on the CPU")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, required=True, help="JSON file")
    args = parser.parse_args()
    import torch

    # As its own command does: one thread beside a GPU, else all; and the fastest algorithms for a fixed shape.
    torch.set_num_threads(args.threads)
    if args.device == "cuda":
        torch.set_num_threads(1)
        torch.set_num_interop_threads(1)
        torch.backends.cudnn.benchmark = True
    result = time_steps(args) if args.steps else train_for(args)
    if args.device == "cuda":
        result["gpu_memory_gb"] = torch.cuda.max_memory_allocated() / 1024**3
    args.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":  # nnU-Net's workers may import this file anew
    main()
