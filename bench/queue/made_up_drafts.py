"""Pools of real anatomy whose structures differ a thousandfold in size, with made-up drafts and made-up quality.

No data set at hand has both many sizes and enough patients to train on. So the masks of one torso stand for the
expert's, in every case, and drafts are these masks with borders moved by a smooth field that is drawn, and with an end
cut off now and then. What is predicted of each is its true Dice with noise in the logit. That says what minutes are
worth where sizes differ, and nothing of how well anything is predicted.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter

from bench.queue.pools import EXPERT, MASKS, POOL_FILE, PoolFacts, version_name
from bench.runs import processor_name
from segfw.base.progress import progress
from segfw.dataset.labels import LabelSet
from segfw.images.formats import read_mask, write_labels
from segfw.quality.case_quality import CaseQuality, CaseRegions, quality_file, regions_file
from segfw.quality.quality_model import CLEAN, StructureQuality

TORSO_MASK = "labels/example_seg.nii.gz"
HEAVY = "heavy"
MOVED = {CLEAN: (0.03, 0.12), HEAVY: (0.1, 0.6)}  # of a ball's radius, log-uniform
END_CUT = {CLEAN: 0.05, HEAVY: 0.25}  # how often up to half of the slices are lost
LEAST_VOXELS = 30
NOISE = 0.6  # of predictions, in the logit of Dice


def write_made_up_pool(torso: Path, pool: Path, cases: int) -> None:
    """Writes a pool as ``predict_pool`` does."""
    mask = read_mask(torso / TORSO_MASK)
    values = mask.array[0]
    present, counts = np.unique(values, return_counts=True)
    kept = [int(value) for value, number in zip(present, counts) if value and number >= LEAST_VOXELS]
    expert = np.where(np.isin(values, kept), values, 0)
    names = ("background", *(f"structure_{value}" for value in kept))
    labels = LabelSet(names=names, values=(0, *kept))
    spacing_mm = mask.geometry.spacing_mm
    versions = {}
    for number in progress("made-up cases", range(cases)):
        case = f"torso_{number:02d}"
        versions[case] = (CLEAN, HEAVY)
        for shift in (CLEAN, HEAVY):
            rng = np.random.default_rng([number, list(MOVED).index(shift)])
            draft = drawn_draft(expert, kept, spacing_mm, shift, rng)
            name = version_name(case, shift)
            for folder, array in ((EXPERT, expert), (MASKS, draft)):
                (pool / folder).mkdir(parents=True, exist_ok=True)
                write_labels(pool / folder / f"{name}.nii.gz", array, mask.geometry)
            _write_quality(pool / MASKS, name, labels, expert, draft, spacing_mm, rng)
    PoolFacts(
        name="torso, made-up drafts",
        processor=processor_name(),
        labels=labels,
        patient_of={case: case for case in versions},
        versions=versions,
    ).save(pool / POOL_FILE)


def drawn_draft(
    expert: np.ndarray,
    kept: list[int],
    spacing_mm: tuple[float, float, float],
    shift: str,
    rng: np.random.Generator,
) -> np.ndarray:
    """The expert's mask with every structure changed by itself; what is drawn later lies over what was before."""
    draft = np.zeros_like(expert)
    low, high = np.log(MOVED[shift])
    for value in rng.permutation(kept).tolist():
        places = np.argwhere(expert == value)
        start = np.maximum(0, places.min(0) - 4)
        stop = np.minimum(expert.shape, places.max(0) + 5)
        block = tuple(slice(int(first), int(last)) for first, last in zip(start, stop))
        own = expert[block] == value
        radius_mm = (3 * len(places) * float(np.prod(spacing_mm)) / (4 * np.pi)) ** (1 / 3)
        inside = distance_transform_edt(np.pad(own, 1), sampling=spacing_mm)[1:-1, 1:-1, 1:-1]
        outside = distance_transform_edt(~own, sampling=spacing_mm)
        field = gaussian_filter(rng.normal(size=own.shape), 2.0)
        field *= radius_mm * float(np.exp(rng.uniform(low, high))) / max(1e-9, float(field.std()))
        changed = inside - outside + field > 0
        if rng.random() < END_CUT[shift]:
            lost = int(rng.uniform(0.1, 0.5) * len(changed))
            changed[: lost or 1] = False
        draft[block][changed] = value
    return draft


def _write_quality(
    folder: Path,
    name: str,
    labels: LabelSet,
    expert: np.ndarray,
    draft: np.ndarray,
    spacing_mm: tuple[float, float, float],
    rng: np.random.Generator,
) -> None:
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    wrong_share = float((expert != draft).mean()) * float(np.exp(rng.normal(0, 0.3)))
    structures = []
    for structure, value in zip(labels.names[1:], labels.values[1:]):
        one = draft == value
        other = expert == value
        total = int(one.sum()) + int(other.sum())
        dice = 2 * int((one & other).sum()) / total if total else 1.0
        said, pair = (_noisy(dice, rng) for _ in range(2))
        wrong = int((one != other).sum())
        structures.append(
            StructureQuality(
                label=structure,
                value=value,
                predicted_dice=said if one.any() else None,
                lower_bound=None,
                alpha=0.1,
                p_fail=1 - said,
                verdict="look",
                ranking=said,
                features={
                    "pair": pair,
                    "doubtful_voxels": float(round(wrong * float(np.exp(rng.normal(0, 0.5))))),
                    "image_entropy": wrong_share,
                    "roundness": 0.5,
                },
                reasons=("made up",),
                volume_ml=float(one.sum()) * voxel_ml,
                slices=int(one.any((1, 2)).sum()),
            )
        )
    path = quality_file(folder, name)
    CaseQuality(
        case=name,
        model_digest="made up",
        quality_digest="made up",
        folds=("0",),
        gate=None,
        structures=tuple(structures),
        guarantee="exchangeable",
    ).save(path)
    z, y, x = draft.shape
    CaseRegions(case=name, shape=(z, y, x), regions=()).save(regions_file(path))


def _noisy(dice: float, rng: np.random.Generator) -> float:
    clipped = float(np.clip(dice, 0.02, 0.98))
    return float(1 / (1 + np.exp(-(np.log(clipped / (1 - clipped)) + rng.normal(0, NOISE)))))
