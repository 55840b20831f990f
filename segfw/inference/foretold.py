"""What a prediction would do, told from headers and file sizes: cases, what is done, what would fail, tiles, disk."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Literal, Self

from segfw.base.answers import Answer
from segfw.base.durations import duration_text
from segfw.base.output_paths import nearest_folder
from segfw.base.records import Record, UserError
from segfw.base.words import count
from segfw.dataset.cases import Case
from segfw.dataset.verify import check_headers
from segfw.grid.preprocess import voxel_edges
from segfw.images.geometry import Shape, as_shape
from segfw.images.header_only import volume_of_header
from segfw.images.volume import Volume, to_orientation
from segfw.inference.disk_space import expected_bytes, gigabytes
from segfw.inference.output_folder import OutputFolder
from segfw.inference.tiles import mirror_combinations, tile_count
from segfw.model.load import Model


class ForetoldCase(Record):
    """One case: its files, whether its mask is there, why it would fail ('' if nothing is known), and its cost."""

    id: str
    files: tuple[str, ...]
    is_done: bool
    refusal: str
    voxels: int | None  # of the image; None where the header does not tell
    tiles: int | None  # through all networks, mirrored ones and folds counted each

    def line(self) -> str:
        """'a: a_0000.nii.gz, a_0001.nii.gz; 3,600 voxels, 16 tiles'."""
        if self.is_done:
            state = "done already"
        elif self.refusal:
            state = f"would fail: {self.refusal}"
        elif self.tiles is None:
            state = "its size is known when it is read"
        else:
            state = f"{self.voxels:,} voxels, {count(self.tiles, 'tile')}"
        return f"{self.id}: {', '.join(self.files)}; {state}"


class ForetoldPrediction(Answer):
    """What ``predict`` would do; ``seconds`` by what the masks that are there took, None where there are none.

    ``tiles`` are those of the cases to do whose headers tell them, ``cases_of_unknown_size`` the others.
    """

    kind: Literal["foretold prediction"] = "foretold prediction"
    cases: tuple[ForetoldCase, ...]
    done: int
    to_do: int
    would_fail: int
    tiles: int
    cases_of_unknown_size: int
    seconds_per_case: float | None
    seconds: float | None
    disk_needed_bytes: float
    disk_free_bytes: int
    output: Path

    @classmethod
    def of(
        cls, loaded: Sequence[Model], cases: Sequence[Case], folder: OutputFolder, *, step: float, mirroring: bool
    ) -> Self:
        """Of the models that would predict the cases into the folder."""
        foretold = [_foretold(case, loaded, folder, step=step, mirroring=mirroring) for case in cases]
        to_do = [case for case, each in zip(cases, foretold) if not each.is_done]
        not_done = [each for each in foretold if not each.is_done]
        case_s = folder.seconds_per_case()
        return cls(
            cases=tuple(foretold),
            done=len(cases) - len(to_do),
            to_do=len(to_do),
            would_fail=sum(bool(each.refusal) for each in not_done),
            tiles=sum(each.tiles or 0 for each in not_done),
            cases_of_unknown_size=sum(each.tiles is None and not each.refusal for each in not_done),
            seconds_per_case=case_s,
            seconds=None if case_s is None else case_s * len(to_do),
            disk_needed_bytes=sum(expected_bytes(to_do, folder)),
            disk_free_bytes=shutil.disk_usage(nearest_folder(folder.path)).free,
            output=folder.path,
        )

    def text(self) -> str:
        """A line for each case, then what all of them take."""
        failing = f", of which {self.would_fail} would fail" if self.would_fail else ""
        cost = f"cost: {count(self.tiles, 'tile')} through the networks"
        if self.cases_of_unknown_size:
            cost += f", and those of {count(self.cases_of_unknown_size, 'case')} whose headers do not tell"
        if self.seconds is not None:
            cost += f"; about {duration_text(self.seconds)}, by the {self.seconds_per_case:.1f} s that each mask took"
        needed = gigabytes(self.disk_needed_bytes)
        free = gigabytes(self.disk_free_bytes)
        lines = [
            *(each.line() for each in self.cases),
            f"{count(len(self.cases), 'case')}: {self.done} done already, {self.to_do} to do{failing}",
            cost,
            f"disk: about {needed} needed, {free} free in {self.output}",
        ]
        return "\n".join(lines)


def _foretold(
    case: Case, loaded: Sequence[Model], folder: OutputFolder, *, step: float, mirroring: bool
) -> ForetoldCase:
    refusal = ""
    volumes: list[Volume] = []
    try:
        found = [volume_of_header(path) for path in case.images]
        volumes = [volume for volume in found if volume is not None]
        for each in folder.formats:
            each.require(case.id, case.images[0])
        if len(volumes) == len(found):
            plan = loaded[0].plan
            problems = check_headers(case, volumes, len(plan.channels))
            refusal = "; ".join(str(problem) for problem in problems)
    except UserError as error:
        refusal = str(error)
    is_known = bool(volumes) and not refusal and len(volumes) == len(case.images)
    return ForetoldCase(
        id=case.id,
        files=tuple(path.name for path in case.images),
        is_done=folder.is_done(case),
        refusal=refusal,
        voxels=prod(volumes[0].geometry.shape) if is_known else None,
        tiles=sum(_tiles(model, volumes[0], step, mirroring) for model in loaded) if is_known else None,
    )


def _tiles(model: Model, volume: Volume, step: float, mirroring: bool) -> int:
    """Tiles of an image of which nothing is cut away, times mirrored copies and folds, first stages included."""
    recipe = model.configuration.preprocessing
    oriented = to_orientation(volume, recipe.orientation)
    edges_mm = voxel_edges(oriented, recipe.voxel_size)
    shape: Shape = as_shape(
        max(1, round(oriented.geometry.shape[axis] * edges_mm[axis] / (target or edges_mm[axis])))
        for axis, target in zip(recipe.axis_order, recipe.spacing_mm)
    )
    copies = len(mirror_combinations(model.mirror_axes)) if mirroring else 1
    own = tile_count(shape, model.configuration.patch_size, step) * copies * len(model.weights)
    return own + (_tiles(model.previous, volume, step, mirroring) if model.previous is not None else 0)
