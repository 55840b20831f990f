"""The features on the page of measures: which are the same again, and which only repeat the volume."""

from __future__ import annotations

from segfw.base.tables import Column, Table
from segfw.measurements.measure_page import PageSection
from segfw.radiomics.radiomics_cohort import RadiomicsFound
from segfw.radiomics.repeatability import FEWEST_CASES, FOLLOWS_VOLUME

ELSEWHERE = "They are in the CSV tables, too."
FIGURES = 3


def radiomics_section(found: RadiomicsFound) -> PageSection:
    """A row for every feature of every structure."""
    rows = found.stability
    columns = [
        Column(title="Structure", values=[each.structure for each in rows], choose="All structures"),
        Column(title="Feature", values=[each.feature for each in rows]),
        Column(title="Patients", values=[each.n for each in rows], digits=0),
        Column(title="of them cut", values=[each.n_cut for each in rows], digits=0),
        Column(title="Rho with volume", values=[each.rho_volume for each in rows], significant=FIGURES),
        Column(
            title="Follows the volume", values=["yes" if each.follows_volume else "" for each in rows], choose="All"
        ),
    ]
    if found.versions:
        columns += [
            Column(title="Verdict", values=[each.verdict for each in rows], choose="All"),
            Column(title="ICC, images", values=[each.icc_image for each in rows], significant=FIGURES),
            Column(title="at least", values=[each.icc_image_low for each in rows], significant=FIGURES),
        ]
    if any(each.n_folds for each in rows):
        columns += [
            Column(title="ICC, folds", values=[each.icc_folds for each in rows], significant=FIGURES),
            Column(title="at least", values=[each.icc_folds_low for each in rows], significant=FIGURES),
        ]
    return PageSection(
        title="Features",
        lead=f"{found.features} features of each structure, as the Image Biomarker Standardisation Initiative defines "
        f"them: {found.settings}.",
        table=Table(name="Features", columns=columns, search="Find a feature", elsewhere=ELSEWHERE, sticky=2),
        below=_below(found),
    )


def _below(found: RadiomicsFound) -> str:
    text = (
        "Structures that are cut are compared, too, with themselves in the same image. Rho is the rank correlation "
        f"with the volume, from {FEWEST_CASES} patients on: a feature above {FOLLOWS_VOLUME} either way says little "
        "that the volume does not."
    )
    if found.versions:
        text += (
            f" ICC(1,1) compares {found.versions} changed versions of each image and mask (turned, shifted, noisier, "
            "the mask grown or shrunk) with the differences between patients; the verdict goes by the lower end of its "
            "95 % interval: stable from 0.9 on, moderate from 0.75 on."
        )
    if found.scans_note:
        text += f" Of several scans of a patient the first is taken: {found.scans_note}."
    return text
