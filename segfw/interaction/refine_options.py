"""What ``refine`` may do, and with which networks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from segfw.base.options import DEVICES, PRECISIONS, Options, Precision, option


@dataclass(frozen=True, kw_only=True)
class RefineOptions(Options):
    """Whether other labels, and files, may be overwritten; names of labels; folds, and where they run."""

    may_overwrite: bool = option(False, "let clicks take voxels from other labels; without it these are protected")
    label_names: Path | None = option(
        None,
        "table of what the mask's labels are called (default: what lies beside it, else the model's)",
        metavar="FILE",
    )
    folds: tuple[str, ...] | None = option(
        None, "default: all that are trained, averaged; each takes its time", metavar="FOLD"
    )
    device: str = option("auto", DEVICES)
    precision: Precision = option("auto", PRECISIONS)
    overwrite: bool = option(False, "replace OUTPUT if it is there, even if it is MASK itself")
