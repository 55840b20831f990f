"""What ``segfw run --dry-run`` tells: data, plan, folds, length and disk, before anything is written."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

from segfw.base.answers import Answer
from segfw.base.output_paths import nearest_folder
from segfw.base.records import GIGABYTE, Record
from segfw.base.words import count
from segfw.planning.memory import needed_gb
from segfw.planning.plan import Configuration
from segfw.training.expected_length import ExpectedTraining
from segfw.verbs.plan_and_preprocess import ForetoldWork


class ForetoldConfiguration(Record):
    """One way in which would be trained; ``spacing_mm`` is None along an axis that keeps each image's own."""

    name: str
    spacing_mm: tuple[float | None, ...]
    patch_size: tuple[int, ...]
    batch_size: int
    gpu_memory_gb: float
    ram_gb: float  # with the data in it
    disk_gb: float  # of the preprocessed data, which configurations may share

    @classmethod
    def of(cls, configuration: Configuration, disk_gb: float) -> Self:
        """What a plan says of a configuration."""
        return cls(
            name=configuration.name,
            spacing_mm=configuration.preprocessing.spacing_mm,
            patch_size=configuration.patch_size,
            batch_size=configuration.batch_size,
            gpu_memory_gb=needed_gb(configuration.estimate.training_memory_gb),
            ram_gb=configuration.estimate.ram_gb,
            disk_gb=disk_gb,
        )

    def line(self) -> str:
        """Spacing, patch, batch and memory."""
        spacing = " x ".join("own" if s is None else f"{s:.4g}" for s in self.spacing_mm)
        patch = " x ".join(map(str, self.patch_size))
        return (
            f"{self.name}: resampled to {spacing} mm, patches of {patch} voxels, {self.batch_size} a step, "
            f"{self.gpu_memory_gb:.1f} GB of GPU memory or {self.ram_gb:.1f} GB of RAM with the data in it"
        )


class ForetoldTraining(Record):
    """How long the folds of a configuration take that are not begun; None where that is not known beforehand."""

    configuration: str
    folds: int
    steps_per_fold: int | None
    seconds_per_fold: float | None
    seconds: float | None

    @classmethod
    def of(cls, expected: ExpectedTraining) -> Self:
        """The figures of what is expected."""
        return cls(
            configuration=expected.name,
            folds=expected.folds,
            steps_per_fold=expected.steps,
            seconds_per_fold=expected.fold_s,
            seconds=expected.all_s,
        )


class ForetoldRun(Answer):
    """What ``run`` would do. ``length`` are the sentences on the trainings, with warnings where nobody wants such."""

    kind: Literal["foretold run"] = "foretold run"
    dataset: str
    layout: str
    cases: int
    channels: tuple[str, ...]
    labels: dict[str, int]
    notes: tuple[str, ...]  # on the data
    folds: tuple[str, ...]
    folds_source: str
    folds_notes: tuple[str, ...]
    configurations: tuple[ForetoldConfiguration, ...]
    disk_needed_gb: float
    disk_free_gb: float
    disk: Path
    trainings: tuple[ForetoldTraining, ...]
    length: tuple[str, ...]

    @classmethod
    def of(
        cls,
        work: Path,
        foretold: ForetoldWork,
        chosen: Sequence[Configuration],
        folds: Sequence[str],
        expected: Sequence[ExpectedTraining],
        length: Sequence[str],
    ) -> Self:
        """Of the work folder to be, the configurations and folds asked for, and how long these take."""
        plan = foretold.plan
        manifest = foretold.manifest
        stored = {each.data_name: plan.configurations[each.data_name].estimate.disk_gb for each in chosen}
        disk = nearest_folder(work.absolute())
        return cls(
            dataset=manifest.name,
            layout=manifest.layout,
            cases=len(manifest.cases),
            channels=tuple(channel.name for channel in plan.channels),
            labels=dict(zip(plan.labels.names[1:], plan.labels.values[1:])),
            notes=(*manifest.notes, *foretold.findings),
            folds=tuple(folds),
            folds_source=foretold.splits.source,
            folds_notes=foretold.notes,
            configurations=tuple(ForetoldConfiguration.of(each, stored[each.data_name]) for each in chosen),
            disk_needed_gb=sum(stored.values()),
            disk_free_gb=shutil.disk_usage(disk).free / GIGABYTE,
            disk=disk,
            trainings=tuple(ForetoldTraining.of(each) for each in expected),
            length=tuple(length),
        )

    def text(self) -> str:
        """Several lines."""
        labels = ", ".join(f"{name} = {value}" for name, value in self.labels.items())
        lines = [
            f"data: {self.dataset}, {count(self.cases, 'case')} ({self.layout} layout), channels "
            f"{', '.join(self.channels)}",
            f"labels: {labels}",
            *(f"  {note}" for note in self.notes),
            f"folds: {', '.join(self.folds)}; {self.folds_source}",
            *(f"  {note}" for note in self.folds_notes),
            *(each.line() for each in self.configurations),
            f"disk: at most {self.disk_needed_gb:.3g} GB for preprocessed data, {self.disk_free_gb:.3g} GB free in "
            f"{self.disk}",
            *self.length,
        ]
        return "\n".join(lines)
