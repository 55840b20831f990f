"""What ``measure`` measures of masks, and what it writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from segfw.base.options import LABEL_NAMES_HELP, Options, option

VERSIONS = 20  # of images and masks, where nobody says how many
GUESS = "guess"  # patients by the names of the cases


@dataclass(frozen=True, kw_only=True)
class MeasureOptions(Options):
    """What ``measure`` measures and writes. ``by_patient`` 'guess' tells patients by the names of the cases."""

    images: Path | None = option(None, "folder of the images, for intensities and pictures (default: shape alone)")
    only: tuple[str, ...] | None = option(
        None, "only these structures, in English or Chinese (default: all)", metavar="NAMES"
    )
    report: Path | None = option(None, "report.html: distributions, outliers and pictures")
    wide: bool = option(False, "a second table with a row a case, NAME_wide.csv")
    per_component: bool = option(False, "a table of every connected part, such as lesions, NAME_components.csv")
    by_patient: str | Path | None = option(
        None,
        "compare the time points of each patient, NAME_patients.csv: a table of cases and patients, or an expression "
        "that finds the patient in a case's name (default: as the names clearly tell)",
        metavar="CSV|REGEX",
        nargs="?",
        const=GUESS,
    )
    label_names: Path | None = option(None, LABEL_NAMES_HELP, metavar="FILE")
    model: Path | None = option(None, "calibrated model that made the masks, for intervals of volumes", metavar="MODEL")
    radiomics: bool = option(
        False, "features of intensities and texture as IBSI defines them, NAME_radiomics.csv; needs --images"
    )
    settings: Path | None = option(
        None,
        "NAME_radiomics.json of the first cohort, which every other one needs (default: decided anew)",
        metavar="FILE",
    )
    stability: int | None = option(
        None,
        "how far each feature is the same of so many changed images and masks, NAME_stability.csv (default with "
        "nothing behind it: 20)",
        metavar="VERSIONS",
        nargs="?",
        const=VERSIONS,
        ge=2,
        le=200,
    )
    filters: tuple[str, ...] | None = option(
        None, "features of filtered images too: log:2,4 for Laplacians of Gaussians of 2 and 4 mm", metavar="FILTERS"
    )
    workers: int | None = option(None, "threads that read and measure (default: one per processor)", ge=1)
    part: str | None = option(None, "only each N-th case from the K-th on, for an array of N jobs: 3/8", metavar="K/N")
    cluster: str | None = option(None, "Dask scheduler, whose workers measure: host:8786", metavar="ADDRESS")
    overwrite: bool = option(False, "measure again what is there")
