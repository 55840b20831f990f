"""The tables of features: NAME_radiomics.csv and NAME_stability.csv beside NAME.csv."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from segfw.base.files import write_text
from segfw.base.output_paths import is_json_with, is_table_of, require_replaceable
from segfw.base.printing import csv_text, number_cell
from segfw.radiomics.all_features import feature_names
from segfw.radiomics.features_folder import ENDING
from segfw.radiomics.features_records import CaseFeatures
from segfw.radiomics.radiomics_settings import RadiomicsSettings
from segfw.radiomics.stability_table import FeatureStability

STABILITY = "_stability"
FACTS = ("case", "structure", "status", "reason", "settings")
STABILITY_COLUMNS = tuple(FeatureStability.model_fields)
DIGITS = 12  # significant ones
DIGEST_LETTERS = 8


def settings_file(output: Path) -> Path:
    """Where the settings lie beside a table of measures."""
    return output.with_name(f"{output.stem}{ENDING}.json")


def features_file(output: Path) -> Path:
    """Where the features lie."""
    return output.with_name(f"{output.stem}{ENDING}.csv")


def stability_file(output: Path) -> Path:
    """Where it is told which features are stable."""
    return output.with_name(f"{output.stem}{STABILITY}.csv")


def check_feature_outputs(output: Path) -> None:
    """UserError if what is there already was not written by this verb."""
    require_replaceable(settings_file(output), (".json",), is_json_with("kind", "voxel_mm", "texture"))
    require_replaceable(features_file(output), (".csv",), is_table_of(*FACTS))
    require_replaceable(stability_file(output), (".csv",), is_table_of(*STABILITY_COLUMNS[:2]))


def write_feature_tables(
    output: Path,
    cases: Mapping[str, CaseFeatures],
    structures: Sequence[str],
    settings: RadiomicsSettings,
    stability: Sequence[FeatureStability] | None,
) -> None:
    """Writes the tables; one of ``stability`` of an earlier call does not stay where there is none now."""
    write_text(features_file(output), features_csv(cases, structures, settings))
    if stability is None:
        _remove(stability_file(output), STABILITY_COLUMNS[:2])
        return
    lines = [[number_cell(getattr(each, name), DIGITS) for name in STABILITY_COLUMNS] for each in stability]
    write_text(stability_file(output), csv_text(STABILITY_COLUMNS, lines))


def remove_feature_tables(output: Path) -> None:
    """Tables of an earlier call do not stay beside new measures; the settings do, for another call."""
    _remove(features_file(output), FACTS)
    _remove(stability_file(output), STABILITY_COLUMNS[:2])


def _remove(table: Path, columns: Sequence[str]) -> None:
    if table.is_file() and is_table_of(*columns)(table):
        table.unlink()
        print(f"removed: {table}, of an earlier call")


def features_csv(cases: Mapping[str, CaseFeatures], structures: Sequence[str], settings: RadiomicsSettings) -> str:
    """A row for every structure of every case. ``settings`` are told apart by the beginning of their SHA-256."""
    names = feature_names(settings)
    digest = digest_of(settings)
    lines: list[list[object]] = []
    for case, features in cases.items():
        if features.problem:
            for structure in structures:
                lines.append([case, structure, "failed", features.problem, digest, *[""] * len(names)])
        for each in features.structures:
            values = [number_cell(value, DIGITS) for value in each.values] or [""] * len(names)
            lines.append([case, each.structure, each.status, each.reason, digest, *values])
    return csv_text([*FACTS, *names], lines)


def digest_of(settings: RadiomicsSettings) -> str:
    """The same for the same settings, whichever cohort they were decided on."""
    text = settings.model_dump_json(exclude={"cases"})
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LETTERS]
