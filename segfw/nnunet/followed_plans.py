"""Plans of nnU-Net that a data set of ours is to follow to the letter."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segfw.base.records import UserError
from segfw.dataset.cases import DatasetManifest
from segfw.nnunet.architectures import architecture_of
from segfw.nnunet.read_plans import plan_of_nnunet, resolved
from segfw.planning.plan import CASCADE, FULLRES, Configuration, Plan
from segfw.planning.planner import PROCESS_GB, stored_gb
from segfw.planning.request import PlanRequest


def require_nothing_else(path: Path, request: PlanRequest) -> None:
    """Raises UserError if something is asked for that a plan to follow to the letter already says."""
    defaults = PlanRequest().decisive
    for name, value in request.decisive.items():
        if value != defaults[name]:
            option = f"--{name.replace('_', '-')}"
            raise UserError(
                f"--plans {path}: is followed to the letter, so {option} cannot be given too; leave one out"
            )


def followed_plan(manifest: DatasetManifest, plans: Mapping[str, Any], path: Path) -> Plan:
    """The plan for a data set that follows nnU-Net's ``plans``, which were read from ``path``."""
    cases = len(manifest.cases)
    plan = plan_of_nnunet(plans, manifest.channels, manifest.labels, path, training_cases=cases)
    for name in plan.configurations:
        _, network = architecture_of(resolved(plans, name, path))
        untrainable = {
            "dropout_op": network.get("dropout_op") is not None,
            "conv_bias": network.get("conv_bias", True) is not True,
            "norm_op_kwargs": not (network.get("norm_op_kwargs") or {}).get("affine"),  # PyTorch's default is without
        }
        wrong = next((key for key, is_so in untrainable.items() if is_so), None)
        if wrong is not None:
            raise UserError(
                f"{path}: configuration {name}: trains with {wrong} {network.get(wrong)!r}, which segfw does not; "
                "train with nnU-Net"
            )
    _require_shared_data(plan, path)
    configurations = {name: _with_storage(chosen, cases) for name, chosen in plan.configurations.items()}
    return plan.model_copy(update={"dataset": manifest.name, "configurations": configurations})


def _require_shared_data(plan: Plan, path: Path) -> None:
    """A configuration of the cascade's usual name is trained on the data of 3d_fullres, so they must be the same."""
    second = plan.configurations.get(CASCADE)
    full = plan.configurations.get(FULLRES)
    if second is not None and (full is None or full.preprocessing != second.preprocessing):
        raise UserError(
            f"{path}: {CASCADE} is not preprocessed as {FULLRES}, whose data it is trained on; give it another name"
        )


def _with_storage(configuration: Configuration, cases: int) -> Configuration:
    disk_gb = stored_gb(configuration.median_shape, cases, len(configuration.preprocessing.normalization))
    estimate = configuration.estimate.model_copy(update={"disk_gb": disk_gb, "ram_gb": PROCESS_GB + disk_gb})
    return configuration.model_copy(update={"estimate": estimate})
