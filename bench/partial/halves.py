"""Raw folders in which one half of the training cases knows some labels and the other half the others.

Patients are drawn into halves by a seed of their own, so that nothing but the masks tells a half. Those that
``bench trust`` keeps out are kept out here, too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np

from bench.accuracy.sets import raw_folder
from bench.trust.raw_folders import KEPT, SEED
from segfw.base.records import UserError
from segfw.dataset.cases import Case
from segfw.dataset.layouts import find_dataset


@dataclass(frozen=True, kw_only=True)
class PartialSet:
    """A data set's labels in the order of their values from 1 on; those of ``first`` are drawn in the first half.

    ``configuration`` is what learns them in the minutes of one core: the neck's small organs are found by slices alone.
    ``axes`` are letters as of nibabel's aff2axcodes, where the arrays' axes point if the files say it wrongly: who has
    one parotid alone cannot see that it lies apart from the other along another axis than the files say.
    """

    channel: str
    configuration: str
    labels: tuple[str, ...]
    first: tuple[str, ...]
    axes: str = ""

    @property
    def second(self) -> tuple[str, ...]:
        """The labels of the other half."""
        return tuple(name for name in self.labels if name not in self.first)


HEAD_AND_NECK = ("brainstem", "spinal cord", "right parotid", "left parotid", "oesophagus", "larynx", "mandible")
SETS = {
    "hippocampus": PartialSet(
        channel="MRI", configuration="3d_fullres", labels=("Anterior", "Posterior"), first=("Posterior",)
    ),
    "head_neck_ct": PartialSet(
        channel="CT-like", configuration="2d", labels=HEAD_AND_NECK, first=HEAD_AND_NECK[:3], axes="PLI"
    ),
}
# Arm: what its training masks show
ARMS = {
    "all": "every label in every case",
    "background": "half of the labels in each case, and what is not drawn is called background",
    "marginal": "half of the labels in each case, and dataset.json says which",
    "first": "the cases of the first half alone, with its labels",
    "second": "the cases of the second half alone, with its labels",
}


@dataclass(frozen=True, kw_only=True)
class Halves:
    """Cases of a data set: kept out, and of both halves of the training cases."""

    kept: tuple[Case, ...]
    first: tuple[Case, ...]
    second: tuple[Case, ...]

    @property
    def drawn_in(self) -> dict[str, str]:
        """'first' or 'second', by training case."""
        return {case.id: "first" for case in self.first} | {case.id: "second" for case in self.second}


def halves_of(data: Path, name: str, kept: int | None = None) -> Halves:
    """The same cases in every call; ``kept`` are kept out, by default as many as by ``bench trust``."""
    cases = sorted(find_dataset(raw_folder(data, name)).cases, key=lambda case: case.id)
    ids = [case.id for case in cases]
    out = set(np.random.default_rng(SEED).choice(ids, kept or KEPT[name], replace=False).tolist())
    rest = [case for case in cases if case.id not in out]
    order = np.random.default_rng(SEED + 1).permutation(len(rest))
    first = {rest[index].id for index in order[: len(rest) // 2]}
    return Halves(
        kept=tuple(case for case in cases if case.id in out),
        first=tuple(case for case in rest if case.id in first),
        second=tuple(case for case in rest if case.id not in first),
    )


def write_arm(halves: Halves, of: PartialSet, arm: str, raw: Path) -> Path:
    """The training cases of an arm in nnU-Net's layout: links to images, and masks without what was not drawn."""
    if arm not in ARMS:
        raise UserError(f"{arm!r} is no arm; choose from {', '.join(ARMS)}")
    drawn = {"first": of.first, "second": of.second}
    labels = drawn.get(arm, of.labels)
    for half, cases in (("first", halves.first), ("second", halves.second)):
        if arm not in drawn or arm == half:
            for case in cases:
                _write_case(case, raw, of, of.labels if arm == "all" else drawn[half])
    description: dict[str, object] = {
        "channel_names": {"0": of.channel},
        "labels": {"background": 0} | {name: of.labels.index(name) + 1 for name in labels},
        "file_ending": ".nii.gz",
    }
    if arm == "marginal":
        in_half = halves.drawn_in
        description["annotated"] = {case: list(drawn[half]) for case, half in in_half.items()}
    (raw / "dataset.json").write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
    return raw


def write_images(cases: Sequence[Case], of: PartialSet, folder: Path) -> Path:
    """FOLDER/images and FOLDER/labels with every label, to be predicted and scored."""
    for case in cases:
        _write_image(case, folder / "images" / f"{case.id}.nii.gz", of)
        _write_mask(case, folder / "labels" / f"{case.id}.nii.gz", of, of.labels)
    described = {"labels": {"background": 0} | {name: value for value, name in enumerate(of.labels, 1)}}
    (folder / "dataset.json").write_text(json.dumps(described) + "\n", encoding="utf-8")
    return folder


def _write_case(case: Case, raw: Path, of: PartialSet, drawn: Sequence[str]) -> None:
    _write_image(case, raw / "imagesTr" / f"{case.id}_0000.nii.gz", of)
    _write_mask(case, raw / "labelsTr" / f"{case.id}.nii.gz", of, drawn)


def _write_image(case: Case, path: Path, of: PartialSet) -> None:
    """A link, or a copy that says where its axes point."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink() or path.is_file():
        return
    if not of.axes:
        path.symlink_to(case.images[0].resolve())
        return
    image = nibabel.load(case.images[0])
    _save(np.asarray(image.dataobj), image, of, path)


def _save(array_xyz: np.ndarray, like: nibabel.Nifti1Image, of: PartialSet, path: Path) -> None:
    """An array on the grid of an image, which is turned so that its axes point where they do."""
    affine = turned(like.affine, of.axes) if of.axes else like.affine
    partial = path.with_name(f".{path.name}")
    nibabel.save(nibabel.Nifti1Image(array_xyz, affine), partial)
    partial.replace(path)


def turned(affine: np.ndarray, axes: str) -> np.ndarray:
    """The affine with the same spacing whose axes point where the letters say, with the first voxel at 0."""
    result = np.diag([0.0, 0.0, 0.0, 1.0])
    spacing_mm = nibabel.affines.voxel_sizes(affine)
    for column, (row, sign) in enumerate(nibabel.orientations.axcodes2ornt(axes)):
        result[int(row), column] = sign * spacing_mm[column]
    return result


def _write_mask(case: Case, path: Path, of: PartialSet, drawn: Sequence[str]) -> None:
    if case.label is None:
        raise UserError(f"{case.id}: has no mask")
    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.load(case.label)
    values = np.rint(np.asarray(image.dataobj)).astype(np.uint8)
    kept = [of.labels.index(name) + 1 for name in drawn]
    _save(np.where(np.isin(values, kept), values, 0).astype(np.uint8), image, of, path)


def kept_labels(of: PartialSet, arm: str) -> Mapping[str, int]:
    """What a model of an arm finds, with the values in its masks."""
    wanted = {"first": of.first, "second": of.second}.get(arm, of.labels)
    return {name: of.labels.index(name) + 1 for name in wanted}
