"""How the arms of a comparison went over time: the loss while they trained, and the Dice of cases that no arm saw."""

# S seeds, T times

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segfw.model.source import fold_folder
from segfw.model.training_record import read_metrics
from segfw.pretraining.start_results import (
    ARMS,
    PRETRAINED,
    QUARTER,
    Arm,
    StartResult,
    patient_means,
    training_folder,
)

TIMES = 80  # of a curve of losses
FOLD = "0"  # of the models that are trained for a comparison


@dataclass(frozen=True, kw_only=True)
class ArmCurve:
    """One arm: the mean over its seeds at ``seconds_t`` of work in all, (T,), and the least and most of any seed."""

    arm: Arm
    seeds: int
    seconds_t: np.ndarray
    mean_t: np.ndarray
    low_t: np.ndarray
    high_t: np.ndarray


def numbers_labelled(results: Sequence[StartResult]) -> list[str]:
    """How many patients were labelled, each once, in the order of asking."""
    return list(dict.fromkeys(result.labelled for result in results))


def dice_curves(
    results: Sequence[StartResult], labelled: str, pretrain_s: float, patient_of: Mapping[str, str]
) -> list[ArmCurve]:
    """By arm the mean Dice of patients after a quarter of the training and at its end.

    The pretrained arm's times begin with the ``pretrain_s`` seconds of its pretraining. Arms without any Dice are left
    out.
    """
    curves = []
    for arm in ARMS:
        mine = [result for result in results if result.labelled == labelled and result.arm == arm]
        before_s = pretrain_s if arm == PRETRAINED else 0.0
        times = []
        values = []
        for result in mine:
            means = [patient_means([scores], patient_of) for scores in (result.quarter, result.end)]
            if all(means):
                times.append([before_s + QUARTER * result.seconds, before_s + result.seconds])
                values.append([float(np.mean(list(each.values()))) for each in means])
        if values:
            curves.append(_curve(arm, np.mean(times, axis=0), np.array(values)))
    return curves


def loss_curves(
    output: Path, configuration: str, results: Sequence[StartResult], labelled: str, pretrain_s: float
) -> list[ArmCurve]:
    """By arm the loss of its trainings, read from their folders; arms whose folders are gone are left out."""
    curves = []
    for arm in ARMS:
        lines = []
        for result in results:
            if result.labelled == labelled and result.arm == arm:
                home = training_folder(output, labelled, result.seed, arm)
                rows = read_metrics(fold_folder(home, configuration, FOLD))
                line = np.array([(row["elapsed_s"], row["train_loss"]) for row in rows], dtype=float)
                if len(line) > 1:
                    lines.append(line)
        if lines:
            first_s = max(line[0, 0] for line in lines)
            last_s = min(line[-1, 0] for line in lines)
            seconds_t = np.linspace(first_s, max(first_s, last_s), TIMES)
            values_st = np.array([np.interp(seconds_t, line[:, 0], line[:, 1]) for line in lines])
            curves.append(_curve(arm, seconds_t + (pretrain_s if arm == PRETRAINED else 0.0), values_st))
    return curves


def _curve(arm: Arm, seconds_t: np.ndarray, values_st: np.ndarray) -> ArmCurve:
    return ArmCurve(
        arm=arm,
        seeds=len(values_st),
        seconds_t=seconds_t,
        mean_t=values_st.mean(0),
        low_t=values_st.min(0),
        high_t=values_st.max(0),
    )
