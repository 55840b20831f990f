"""The features of a cohort, from the options to the tables: what the verb ``measure`` does with ``--radiomics``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from segfw.base.parallel import Pool
from segfw.base.records import UserError
from segfw.base.shared_work import CohortResult, share_out
from segfw.base.words import count
from segfw.dataset.patients import guess_groups
from segfw.measurements.masks_to_measure import FoundMasks, MaskCase
from segfw.measurements.measure_case import cost_bytes
from segfw.measurements.measure_options import MeasureOptions
from segfw.measurements.measures_folder import MeasuresFolder
from segfw.radiomics.all_features import feature_names
from segfw.radiomics.cohort_settings import settings_for
from segfw.radiomics.features_folder import FeaturesFolder, FeaturesJob
from segfw.radiomics.features_records import CaseFeatures
from segfw.radiomics.radiomics_case import TELLING, RadiomicsJob
from segfw.radiomics.radiomics_settings import read_filters
from segfw.radiomics.radiomics_tables import (
    check_feature_outputs,
    features_file,
    settings_file,
    stability_file,
    write_feature_tables,
)
from segfw.radiomics.repeatability import FEWEST_CASES
from segfw.radiomics.stability_table import FeatureStability, stability_of

MEMORY_FACTOR = 4  # of what measuring takes: places and neighbours of voxels


@dataclass(frozen=True, kw_only=True)
class Radiomics:
    """What is told of a cohort, and where."""

    output: Path
    found: FoundMasks
    job: RadiomicsJob
    structures: tuple[str, ...]
    patient_of: Mapping[str, str]

    @property
    def versions(self) -> int:
        """How many changed versions are asked for; 0 where stability is not."""
        return self.job.folder.versions

    def share_out(self, cases: Sequence[MaskCase], pool: Pool) -> CohortResult[MaskCase]:
        """Tells the features of those cases that could be measured."""
        measured = [case for case in cases if self.job.measures.is_done(case)]
        print(f"telling features: {self.job.settings.text()}")
        return share_out(
            self.job, measured, self.job.folder, pool, TELLING, cost_bytes=lambda case: MEMORY_FACTOR * cost_bytes(case)
        )

    def write(self) -> RadiomicsFound:
        """Writes the tables of all cases that any call has told, as their files are now."""
        folder = self.job.folder
        cases: dict[str, CaseFeatures] = {}
        for case in self.found.cases:
            measured = self.job.measures.current(case)
            kept = folder.current(case)
            if measured is not None and measured.problem:
                kept = CaseFeatures(id=case.id, sources=case.sources, problem=measured.problem)
            if kept is not None:
                cases[case.id] = kept
        names = feature_names(self.job.settings)
        stability = stability_of(cases, names, self.patient_of)
        kept_stability = stability if self.versions else None
        write_feature_tables(self.output, cases, self.structures, self.job.settings, kept_stability)
        return RadiomicsFound(
            settings=self.job.settings.text(),
            features=len(names),
            cases=len(cases),
            patients=len({self.patient_of[case] for case in cases}),
            stability=tuple(stability),
            versions=self.versions,
        )


@dataclass(frozen=True, kw_only=True)
class RadiomicsFound:
    """What is said of the features of a cohort, in the terminal and on the page."""

    settings: str
    features: int
    cases: int
    patients: int
    stability: tuple[FeatureStability, ...]
    versions: int

    @property
    def scans_note(self) -> str:
        """That one scan of each patient is compared; '' where nobody has several."""
        if self.patients == self.cases:
            return ""
        return f"one scan of each of {count(self.patients, 'patient')} is compared with those of the others"

    def text(self) -> str:
        """How many features of how many cases, and how many of them are stable."""
        lines = [f"{count(self.features, 'feature')} of {count(self.cases, 'case')}: {self.settings}"]
        if self.scans_note:
            lines.append(f"  {self.scans_note}")
        for structure in dict.fromkeys(each.structure for each in self.stability):
            of_it = [each for each in self.stability if each.structure == structure]
            follows = sum(each.follows_volume for each in of_it)
            verdicts = Counter(each.verdict for each in of_it if each.verdict)
            parts = [f"{verdicts[name]} {name}" for name in ("stable", "moderate", "unstable") if verdicts]
            if self.versions and not verdicts:
                parts.append(f"stability not told (fewer than {FEWEST_CASES} patients have it in all versions)")
            lines.append(f"  {structure}: {', '.join([*parts, f'{follows} follow the volume'])}")
        return "\n".join(lines)


def feature_files(output: Path) -> list[Path]:
    """The files of features that are there beside a table of measures."""
    return [file for file in (features_file(output), stability_file(output), settings_file(output)) if file.is_file()]


def check_asked(output: Path, options: MeasureOptions) -> None:
    """UserError if options of features do not go together, or would replace what is not ours."""
    if not options.radiomics:
        for name in ("settings", "stability", "filters"):
            if getattr(options, name) is not None:
                raise UserError(f"--{name}: is for features; give --radiomics with it, or leave it out")
        return
    if options.images is None:
        raise UserError("--radiomics: tells the values of images; give their folder with --images")
    if options.settings is not None and not options.settings.is_file():
        raise UserError(f"{options.settings}: no such file; give NAME_radiomics.json, which measure --radiomics wrote")
    read_filters(options.filters or ())
    check_feature_outputs(output)


def radiomics_of(
    output: Path,
    found: FoundMasks,
    cases: Sequence[MaskCase],
    only: tuple[str, ...] | None,
    options: MeasureOptions,
    measures: MeasuresFolder,
    patient_of: Mapping[str, str] | None = None,
) -> Radiomics:
    """The work that is asked for, ``cases`` of it here; UserError if settings or what is there do not fit it.

    Without ``patient_of`` patients are told by the names of the cases, where these do it clearly.
    """
    versions = options.stability or 0
    if patient_of is None:
        patient_of = guess_groups([case.id for case in found.cases], for_folds=False)
    patients = len(set(patient_of.values()))
    if versions and patients < FEWEST_CASES:
        raise UserError(
            f"--stability: compares patients with one another and needs at least {FEWEST_CASES}, here "
            f"{'is' if patients == 1 else 'are'} {patients} in {count(len(found.cases), 'case')}; leave it out, or say "
            "with --by-patient who is who"
        )
    folder = FeaturesFolder.beside(output, versions)
    file = settings_file(output)
    given = None if options.settings is None else Path(options.settings)
    with folder.alone():
        settings = settings_for(found, file, given, read_filters(options.filters or ()), overwrite=options.overwrite)
    job = FeaturesJob(settings=settings, labels=found.labels, channels=found.channels, only=only)
    folder.agree(
        job,
        cases,
        overwrite=options.overwrite,
        otherwise=f"{output}: its features were told with other options",
        remedy="give another name",
    )
    settings.save(file)
    return Radiomics(
        output=output,
        found=found,
        job=RadiomicsJob(
            folder=folder, measures=measures, labels=found.labels, channels=found.channels, settings=settings
        ),
        structures=tuple(name for name in found.labels.structures if only is None or name in only),
        patient_of=patient_of,
    )
