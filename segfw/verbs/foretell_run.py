"""What ``segfw run --dry-run`` says: data, plan, folds, length and disk, before anything is written."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from segfw.base.records import GIGABYTE
from segfw.base.words import count
from segfw.planning.memory import needed_gb
from segfw.planning.plan import Configuration
from segfw.verbs.plan_and_preprocess import ForetoldWork


def foretold_text(work: Path, foretold: ForetoldWork, chosen: Sequence[Configuration], folds: Sequence[str]) -> str:
    """Several lines; the length of the training is said elsewhere."""
    plan = foretold.plan
    manifest = foretold.manifest
    stored = {each.data_name: plan.configurations[each.data_name].estimate.disk_gb for each in chosen}
    place = work.absolute()
    place = place if place.is_dir() else next(parent for parent in place.parents if parent.is_dir())
    free_gb = shutil.disk_usage(place).free / GIGABYTE
    labels = ", ".join(f"{name} = {value}" for name, value in zip(plan.labels.names[1:], plan.labels.values[1:]))
    lines = [
        f"data: {manifest.name}, {count(len(manifest.cases), 'case')} ({manifest.layout} layout), channels "
        f"{', '.join(channel.name for channel in plan.channels)}",
        f"labels: {labels}",
        *(f"  {note}" for note in (*manifest.notes, *foretold.findings)),
        f"folds: {', '.join(folds)}; {foretold.splits.source}",
        *(f"  {note}" for note in foretold.notes),
        *(_configuration_line(each) for each in chosen),
        f"disk: at most {sum(stored.values()):.3g} GB for preprocessed data, {free_gb:.3g} GB free in {place}",
    ]
    return "\n".join(lines)


def _configuration_line(configuration: Configuration) -> str:
    spacing = " x ".join("own" if s is None else f"{s:.4g}" for s in configuration.preprocessing.spacing_mm)
    patch = " x ".join(map(str, configuration.patch_size))
    gpu_gb = needed_gb(configuration.estimate.training_memory_gb)
    return (
        f"{configuration.name}: resampled to {spacing} mm, patches of {patch} voxels, {configuration.batch_size} a "
        f"step, {gpu_gb:.1f} GB of GPU memory or {configuration.estimate.ram_gb:.1f} GB of RAM with the data in it"
    )
