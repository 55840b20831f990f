"""The options of everything that predicts or averages predictions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from segfw.base.options import (
    CONFIGURATION_HELP,
    DEVICES,
    KERNELS,
    NAMES_HELP,
    NAMINGS,
    OFF_ON,
    ONLY_HELP,
    PRECISIONS,
    PSEUDONYMS_HELP,
    Options,
    Precision,
    option,
)
from segfw.model.export_options import LAST_OR_BEST, WEIGHTS
from segfw.planning.published import TILE_STEP

POSTPROCESSING = "selection.json, to do as it found best, or postprocessing.json of an imported model"
AS = (
    "formats of the masks: nifti, seg.nrrd, dicom-seg, rtstruct, bids, or an ending such as .nrrd or .png (default: "
    "nifti); dicom-seg and rtstruct of DICOM series"
)
SEG_TYPE = "of dicom-seg; few viewers know label maps yet (default: {default})"
HOLES = "of rtstruct: part of the outline, or outlines of their own, CLOSEDPLANAR_XOR (default: {default})"


@dataclass(frozen=True, kw_only=True)
class TilingOptions(Options):
    """How tiles are laid over an image and computed."""

    step: float = option(TILE_STEP, "distance of tiles, in tiles (default: {default})")
    mirroring: bool = option(True, "faster, slightly less accurate")
    precision: Precision = option("auto", PRECISIONS)


@dataclass(frozen=True, kw_only=True)
class FormatOptions(Options):
    """In which formats masks are written."""

    formats: tuple[str, ...] = option(("nifti",), AS, name="--as", metavar="FORMAT")
    seg_type: Literal["binary", "labelmap"] = option("binary", SEG_TYPE)
    holes: Literal["keyhole", "xor"] = option("keyhole", HOLES)
    sr: bool = option(False, "with dicom-seg: a DICOM report (TID 1500) of volumes as well")

    @property
    def holes_asked(self) -> str | None:
        """How RTSTRUCT is written, None where it is not asked for."""
        return self.holes if "rtstruct" in self.formats else None

    @property
    def seg_type_asked(self) -> str | None:
        """How DICOM SEG is written, None where it is not asked for."""
        return self.seg_type if "dicom-seg" in self.formats else None


@dataclass(frozen=True, kw_only=True)
class SelectOptions(TilingOptions):
    """What ``select`` compares, and how it predicts what is missing."""

    configurations: tuple[str, ...] | None = option(None, "default: all that are trained", metavar="NAME")
    device: str = option("auto", DEVICES)
    groups: str | Path | None = option(
        None, "cases of one patient (default: as the folds were planned)", metavar="CSV|REGEX"
    )


@dataclass(frozen=True, kw_only=True)
class PredictOptions(TilingOptions, FormatOptions):
    """What ``predict`` predicts with, where, and what it writes besides the masks.

    ``best`` takes the weights of each fold's best epoch. ``part`` '3/8' takes every eighth case from the third on.
    """

    configuration: str | None = option(None, CONFIGURATION_HELP)
    folds: tuple[str, ...] | None = option(None, "default: all that are trained, averaged", metavar="FOLD")
    only: tuple[str, ...] | None = option(None, ONLY_HELP, metavar="NAME")
    names: str | None = option(None, f"{NAMES_HELP}; masks get these", choices=NAMINGS, metavar="NAMING")
    save_probabilities: int | None = option(
        None,
        "for segfw ensemble, with 8 bits (default) or 16, which take four times the space",
        metavar="BITS",
        nargs="?",
        const=8,
        choices=(8, 16),
    )
    uncertainty: bool = option(False, "maps of entropy and disagreement of folds")
    plausible: bool = option(False, "of a calibrated model, the least and the most that may be right, and each fold's")
    quality: bool = option(True, "leave out how far each mask may be trusted, which calibrated models tell")
    report: bool = option(False, "a page for each case, for which it is predicted four times")
    max_memory_gb: float | None = option(
        None, "of this computer's memory (default: 80 %% of what is free)", metavar="GB"
    )
    device: str | tuple[str, ...] = option("auto", f"{DEVICES}; several share the cases")
    part: str | None = option(None, "only each N-th case from the K-th on, for an array of N jobs: 3/8", metavar="K/N")
    cluster: str | None = option(None, "Dask scheduler, whose workers predict: host:8786", metavar="ADDRESS")
    best: bool = option(False, WEIGHTS, name="--weights", words=LAST_OR_BEST)
    kernels: bool = option(False, KERNELS, words=OFF_ON)
    postprocessing: Path | None = option(None, POSTPROCESSING, metavar="FILE")
    pseudonyms: Path | None = option(None, PSEUDONYMS_HELP, metavar="FILE")
    overwrite: bool = option(False, "predict again what is there")
    dry_run: bool = option(False, "say which cases would be predicted, what is done and what would fail; write nothing")


@dataclass(frozen=True, kw_only=True)
class EnsembleOptions(FormatOptions):
    """How ``ensemble`` averages."""

    numbers_are_finite: ClassVar[bool] = False

    weights: tuple[float, ...] | None = option(None, "one per folder (default: equal)", metavar="W")
    postprocessing: Path | None = option(None, POSTPROCESSING, metavar="FILE")
    maps_of: tuple[str, ...] = option((), "write their mean probability as well", name="--map-of", metavar="LABEL")
    images: Path | None = option(
        None,
        "of the cases, which dicom-seg and rtstruct refer to (default: those that the first folder was predicted of)",
        metavar="FOLDER",
    )
    overwrite: bool = option(False, "average again what is there")
