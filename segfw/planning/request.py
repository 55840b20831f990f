"""What is asked of a plan: the options of planning and of the preparation of the data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from segfw.base.durations import duration_s
from segfw.base.options import DEVICES, LABEL_NAMES_HELP, PSEUDONYMS_HELP, Options, number_or_auto, option, setting
from segfw.planning.published import PresetName


@dataclass(frozen=True, kw_only=True)
class PlanRequest(Options):
    """How data are planned and prepared."""

    configurations: tuple[str, ...] | None = option(None, "2d, 3d_fullres ... (default: all planned)", metavar="NAME")
    preset: PresetName = option(
        "plain",
        "networks: plain (default), resenc-* with a residual encoder, or one of MONAI's",
    )
    gpu_memory_gb: float | Literal["auto"] | None = option(
        None,
        "memory to fill, or auto for all of the GPU here (default: what the preset was published with, such as 8)",
        metavar="GB",
        parse=number_or_auto,
    )
    as_published: bool = option(False, "plan exactly as nnU-Net does")
    spacing_mm: tuple[float, float, float] | None = option(None, "target spacing", metavar=("Z", "Y", "X"))
    groups: str | Path | None = option(
        None,
        "cases of one patient: a table with columns case and patient, or an expression such as '(pat\\d+)_'",
        metavar="CSV|REGEX",
    )
    label_names: Path | None = option(None, LABEL_NAMES_HELP, metavar="FILE")
    pseudonyms: Path | None = option(None, PSEUDONYMS_HELP, metavar="FILE")
    splits: Path | None = option(None, "given folds (splits_final.json or splits.json)", metavar="FILE")
    leave_out_by: str | None = option(
        None,
        "a fold for each value of a table's column, such as sites.csv:site, that trains without its cases",
        metavar="FILE.csv:COLUMN",
    )
    plans: Path | None = option(None, "nnU-Net's nnUNetPlans.json, followed to the letter", metavar="FILE")
    workers: int | None = option(None, "threads that read and preprocess (default: one per processor)", ge=1)
    cluster: str | None = option(None, "Dask scheduler, whose workers preprocess: host:8786", metavar="ADDRESS")

    @property
    def decisive(self) -> dict[str, object]:
        """By name, what another plan is made for. The names and values are digested: see ``planner.request_digest``."""
        return {
            "preset": self.preset,
            "gpu_memory_gb": self.gpu_memory_gb,
            "as_published": self.as_published,
            "spacing_mm": self.spacing_mm,
        }


@dataclass(frozen=True, kw_only=True)
class PrepareOptions(Options):
    """Where and how far ``plan_and_preprocess`` goes, which changes nothing in what is planned."""

    device: str = option("auto", f"{DEVICES}; a GPU is also used to check the plan's memory")
    plan_only: bool = option(False, "do not preprocess")
    overwrite: bool = option(False, "read and plan anew, whatever is there")
    folds: tuple[str, ...] = setting((), "folds that there must be")
    time_budget_s: float | None = option(
        None,
        "plan networks for folds that are trained this long: 90s, 12m, 1h30m (default: for the published length)",
        parse=duration_s,
        metavar="TIME",
        gt=0,
    )
