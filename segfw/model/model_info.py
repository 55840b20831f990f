"""A model's plan and card, and what is trained of it, in words and as JSON."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from segfw.base.answers import Answer
from segfw.base.words import listed
from segfw.model.calibration_facts import CalibrationFacts, calibration_text
from segfw.model.card import Card
from segfw.planning.explain import explain_configuration, explain_costs, explain_plan
from segfw.planning.plan import Plan
from segfw.planning.plan_for_device import hours_per_fold
from segfw.planning.published import EPOCHS, STEPS_PER_EPOCH


class ModelInfo(Answer):
    """What was planned and why, what it costs on ``device``, and which folds are trained, by configuration.

    ``step_s`` are the seconds that a training step is expected to take there; none of a model whose training is over.
    ``hours_per_fold`` are those of the published length, ``published_steps`` steps.
    """

    kind: Literal["plan"] = "plan"
    path: Path
    device: str
    step_s: dict[str, float]
    hours_per_fold: dict[str, float]
    published_steps: int = EPOCHS * STEPS_PER_EPOCH
    trained_folds: dict[str, tuple[str, ...]]
    plan: Plan
    card: Card | None
    calibration: CalibrationFacts | None = None

    @classmethod
    def of(
        cls,
        path: Path,
        plan: Plan,
        card: Card | None,
        trained: dict[str, tuple[str, ...]],
        device: str,
        flops: Callable[[], float],
        calibration: CalibrationFacts | None = None,
    ) -> ModelInfo:
        """The same, with costs where ``flops`` operations per second are reached, or as they were measured there."""
        step_s: dict[str, float] = {}
        if not plan.is_imported:
            step_s = {name: each.estimate.step_s_on(device, flops) for name, each in plan.configurations.items()}
        return cls(
            path=path,
            device=device,
            step_s=step_s,
            hours_per_fold={name: hours_per_fold(seconds) for name, seconds in step_s.items()},
            trained_folds=trained,
            plan=plan,
            card=card,
            calibration=calibration,
        )

    def text(self) -> str:
        """Several lines: the card, the plan, then each configuration."""
        lines = [self.card.text(), ""] if self.card else []
        lines += explain_plan(self.plan)
        for name, configuration in self.plan.configurations.items():
            lines += ["", *explain_configuration(configuration, self.plan.length_unit)]
            if name in self.step_s:
                lines += explain_costs(configuration.estimate, self.device, self.step_s[name])
            lines.append(f"  {trained_text(self.trained_folds[name])}.")
        if any(self.trained_folds.values()):
            lines += ["", f"Calibration: {calibration_text(self.calibration)}."]
        return "\n".join(lines)


def trained_text(folds: tuple[str, ...]) -> str:
    """'Fold 0 is trained', 'Folds 0, 1 and 2 are trained', 'No fold is trained yet'."""
    if not folds:
        return "No fold is trained yet"
    if folds == ("all",):
        return "One network is trained, on all cases (fold 'all')"
    return f"Fold {folds[0]} is trained" if len(folds) == 1 else f"Folds {listed(folds, 'and')} are trained"
