"""What a prediction would do, told from headers and file sizes: cases, what is done, what would fail, tiles, disk."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from segfw.base.output_paths import nearest_folder
from segfw.base.records import UserError
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


@dataclass(frozen=True, kw_only=True)
class ForetoldCase:
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


def foretold_lines(
    loaded: Sequence[Model], cases: Sequence[Case], folder: OutputFolder, *, step: float, mirroring: bool
) -> list[str]:
    """A line for each case, then what all of them take."""
    foretold = [_foretold(case, loaded, folder, step=step, mirroring=mirroring) for case in cases]
    to_do = [case for case, each in zip(cases, foretold) if not each.is_done]
    failing = sum(bool(each.refusal) and not each.is_done for each in foretold)
    tiles = sum(each.tiles or 0 for each in foretold if not each.is_done)
    unknown = sum(each.tiles is None and not each.refusal and not each.is_done for each in foretold)
    needed = gigabytes(sum(expected_bytes(to_do, folder)))
    free = gigabytes(shutil.disk_usage(nearest_folder(folder.path)).free)
    cost = f"cost: {count(tiles, 'tile')} through the networks"
    if unknown:
        cost += f", and those of {count(unknown, 'case')} whose headers do not tell"
    case_s = folder.seconds_per_case()
    if case_s is not None:
        cost += f"; about {case_s * len(to_do):.0f} s, by the {case_s:.1f} s that each mask here took"
    return [
        *(each.line() for each in foretold),
        f"{count(len(cases), 'case')}: {len(cases) - len(to_do)} done already, {len(to_do)} to do"
        + (f", of which {failing} would fail" if failing else ""),
        cost,
        f"disk: about {needed} needed, {free} free in {folder.path}",
    ]


def _foretold(
    case: Case, loaded: Sequence[Model], folder: OutputFolder, *, step: float, mirroring: bool
) -> ForetoldCase:
    refusal = ""
    volumes: list[Volume] = []
    try:
        found = [volume_of_header(path) for path in case.images]
        volumes = [volume for volume in found if volume is not None]
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
