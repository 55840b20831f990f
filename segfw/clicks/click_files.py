"""Clicks in files: segfw's clicks.json, point lists of 3D Slicer, and points of napari."""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from segfw.base.files import write_text
from segfw.base.records import UserError
from segfw.base.words import listed
from segfw.base.written_by_people import read_json
from segfw.clicks.click import EXAMPLE, Click, Point, point_of
from segfw.dataset.case_tables import Line, cell_of, shown, table_rows
from segfw.dataset.labels import LabelSet
from segfw.dataset.look_up import LookUp
from segfw.images.geometry import Geometry

SLICER = ".mrk.json"
NAPARI = ".csv"
CLICKS = ".json"
NOT = "-"  # before a point's label, or a list's name: outside of the structure
# Of 3D Slicer's two systems of coordinates, what each axis is multiplied by to be RAS.
TO_RAS = {"RAS": (1.0, 1.0, 1.0), "LPS": (-1.0, -1.0, 1.0)}
UNITS_MM = {"mm": 1.0, "um": 0.001}
FARTHEST = 1e9  # voxels from the first one, beyond any image
IN_WORDS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def read_clicks(path: Path, labels: LabelSet, geometry: Geometry | None = None) -> tuple[Click, ...]:
    """The clicks of a file in their order, each with the label's own name among ``labels``.

    ``geometry`` is the image's grid as its file stores it, in which napari counts.

    Raises UserError if the file cannot be read as what its ending says, if it holds no click, or if a name means no
    structure, or several.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; give clicks as {listed((CLICKS, SLICER, NAPARI))}")
    name = path.name.lower()
    if name.endswith(SLICER):
        clicks = _of_slicer(path)
    elif name.endswith(CLICKS):
        clicks = _of_json(path)
    elif name.endswith(NAPARI):
        clicks = _of_napari(path, geometry)
    else:
        raise UserError(f"{path}: is no file of clicks; give one of {listed((CLICKS, SLICER, NAPARI))}")
    if not clicks:
        raise UserError(f"{path}: holds no click; set at least one point, or leave the file out")
    return tuple(_with_own_names(clicks, labels, path))


def write_clicks(path: Path, clicks: Iterable[Click]) -> None:
    """Writes clicks.json, whole."""
    lines = [json.dumps(click.model_dump(mode="json"), ensure_ascii=False) for click in clicks]
    write_text(path, "[\n" + ",\n".join(f" {line}" for line in lines) + "\n]\n")


def label_called(name: str, labels: LabelSet, source: Path | str) -> str:
    """The one label or region that a name means; UserError naming ``source`` if it means none, or several."""
    found = LookUp(labels, source).find(name)
    if len(found.names) > 1:
        raise UserError(f"{source}: {name!r} is {listed(found.names, 'and')}; a click is of one of them, name it")
    return found.names[0]


def _with_own_names(clicks: Sequence[Click], labels: LabelSet, path: Path) -> list[Click]:
    own = {name: label_called(name, labels, path) for name in dict.fromkeys(click.label for click in clicks)}
    return [click.model_copy(update={"label": own[click.label]}) for click in clicks]


# ---- clicks.json ----


def _of_json(path: Path) -> list[Click]:
    content = read_json(path)
    if not isinstance(content, list):
        raise UserError(f"{path}: is no list of clicks; write it as [{EXAMPLE}]")
    return [Click.parse(json.dumps(entry), f"{path}: click {number}") for number, entry in enumerate(content, start=1)]


# ---- 3D Slicer ----


def _of_slicer(path: Path) -> list[Click]:
    """Clicks of all point lists: of the list's name, or the file's where it has none, outside by a label with '-'."""
    content = read_json(path)
    markups = content.get("markups") if isinstance(content, dict) else None
    if not isinstance(markups, list) or not all(isinstance(each, dict) for each in markups):
        raise UserError(f"{path}: has no field 'markups', as 3D Slicer writes it; save the point list there again")
    clicks: list[Click] = []
    for markup in markups:
        if markup.get("type") != "Fiducial":  # lines, curves and boxes, which mark no single voxels
            continue
        scale = _slicer_scale(path, markup)
        name = str(markup.get("name") or path.name[: -len(SLICER)]).strip()
        points = markup.get("controlPoints") or []
        if not isinstance(points, list):
            raise UserError(f"{path}: field 'controlPoints' of {name} is no list; save it in 3D Slicer again")
        for number, point in enumerate(points, start=1):
            if not isinstance(point, dict) or point.get("positionStatus", "defined") != "defined":
                continue
            place = _three(point.get("position"), f"{path}: point {number} of {name}: field 'position'")
            ras_mm = (place[0] * scale[0], place[1] * scale[1], place[2] * scale[2])
            is_outside = str(point.get("label", "")).strip().startswith(NOT)
            clicks.append(_click_of(name, ras_mm, path, is_inside=not is_outside))
    return clicks


def _slicer_scale(path: Path, markup: dict[str, Any]) -> Point:
    """What a list's coordinates are multiplied by to be RAS millimetres."""
    system = markup.get("coordinateSystem", "LPS")
    if not isinstance(system, str) or system not in TO_RAS:
        raise UserError(f"{path}: field 'coordinateSystem' is {system!r}; it is {listed(map(repr, TO_RAS))}")
    units = markup.get("coordinateUnits", "mm")
    unit = units[0] if isinstance(units, list) and units else units
    if not isinstance(unit, str) or unit not in UNITS_MM:
        raise UserError(f"{path}: field 'coordinateUnits' is {units!r}; it is {listed(map(repr, UNITS_MM))}")
    x, y, z = (sign * UNITS_MM[unit] for sign in TO_RAS[system])
    return x, y, z


# ---- napari ----


def _of_napari(path: Path, geometry: Geometry | None) -> list[Click]:
    """Clicks in voxels of the image's array; of a column 'label', or else of the file's name."""
    if geometry is None:
        raise ValueError("napari counts in voxels: the image's grid is needed")
    header, *rows = table_rows(path, "index, axis-0, axis-1 and axis-2")
    names = [cell.strip().lower() for cell in header[1]]
    axes = [index for index, name in enumerate(names) if name.startswith("axis-")]
    if len(axes) not in (2, 3) or (len(axes) == 2 and geometry.shape[0] > 1):
        wanted = "axis-0, axis-1 and axis-2, the slices first"
        raise UserError(
            f"{path}: has {len(axes)} columns of axes ({shown(header)}); save points of the image as {wanted}"
        )
    clicks = []
    for row in rows:
        index = _numbers(path, row, axes)
        point = geometry.matrix @ [*(0.0 for _ in range(3 - len(index))), *index, 1.0]
        name = _cell(row, names, "label") or path.name[: -len(NAPARI)]
        said = _cell(row, names, "inside").lower()
        if said and said not in IN_WORDS:
            raise UserError(f"{path}: line {row[0]}: column 'inside' is {said!r}; write true or false")
        ras_mm = (float(point[0]), float(point[1]), float(point[2]))
        clicks.append(_click_of(name, ras_mm, path, is_inside=IN_WORDS.get(said, True)))
    return clicks


def _numbers(path: Path, row: Line, columns: Sequence[int]) -> list[float]:
    texts = [cell_of(row[1], column) for column in columns]
    try:
        found = [float(text) for text in texts]
    except ValueError:
        found = [math.nan]
    if not all(abs(each) <= FARTHEST for each in found):
        raise UserError(f"{path}: line {row[0]}: {', '.join(texts)!r} is no point; correct it or save the points again")
    return found


def _cell(row: Line, names: Sequence[str], wanted: str) -> str:
    return cell_of(row[1], names.index(wanted)) if wanted in names else ""


# ---- both ----


def _click_of(name: str, ras_mm: Point, path: Path, *, is_inside: bool) -> Click:
    """A click by the name of its list, which may begin with '-' to say outside."""
    own = name.removeprefix(NOT).strip()
    if not own:
        raise UserError(f"{path}: a list of points has no name; name it like the structure that it is of")
    return Click(label=own, ras_mm=ras_mm, inside=is_inside and not name.startswith(NOT))


def _three(value: object, where: str) -> Point:
    try:
        return point_of(value)
    except UserError:
        shown_value = reprlib.repr(value)
        raise UserError(
            f"{where} is {shown_value}; it is three numbers, save the point list in 3D Slicer again"
        ) from None
