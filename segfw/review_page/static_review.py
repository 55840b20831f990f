"""A review page that needs no server: one file with the most urgent cases, whose decisions are downloaded from it.

It shows pictures of the slices that are suspected to be wrong, and reasons; nothing can be drawn there, and time is not
measured. ``segfw accept --from`` takes the decisions, and refuses those of a draft that is another one by then.
"""

# z y x space

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segfw.base.errors import UserError
from segfw.base.figures import write_page
from segfw.base.output_paths import PAGE_ENDINGS, is_page, require_replaceable
from segfw.base.own_version import own_version
from segfw.base.progress import progress
from segfw.evaluation.overlays import MasksOverImage, draw_slices, shown_slices
from segfw.grid.boxes import Box, cut
from segfw.images.formats import read_volume
from segfw.images.units import Units, units_of
from segfw.images.volume import Volume, stored_like
from segfw.quality.kept_quality import KeptQuality, KeptRegion, kept_quality, kept_regions
from segfw.quality.run_lengths import mask_of_runs
from segfw.review_page.review_index import index_of
from segfw.review_page.review_options import Language
from segfw.review_page.served_grid import ServedGrid
from segfw.review_page.static_texts import TEXTS
from segfw.reviewing.review_log import utc_text
from segfw.reviewing.review_store import ReviewStore
from segfw.reviewing.states import REJECT_REASONS

TEMPLATE = Path(__file__).with_name("static_review.html.jinja")
PICTURES = 2  # of a case


@dataclass(frozen=True, kw_only=True)
class StaticStructure:
    """A row of a case: ``number`` is that of its colour; None and '' of what is not known."""

    name: str
    number: int
    size: str
    predicted_dice: float | None = None
    lower_bound: float | None = None
    verdict: str = ""
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class StaticPicture:
    """A picture, the structure that it is about ('' of all), and which kind of region it shows."""

    png: bytes
    structure: str = ""
    kind: str = ""
    other: str = ""  # what the dashed outline is


@dataclass(frozen=True, kw_only=True)
class StaticCase:
    """A case of the page. ``sha256`` is of the draft: decisions are on this one."""

    case: str
    sha256: str
    structures: tuple[StaticStructure, ...]
    pictures: tuple[StaticPicture, ...]
    gate: str = ""
    gate_reasons: tuple[str, ...] = ()
    has_image: bool = True
    note: str = ""  # why the image cannot be shown


@dataclass(frozen=True, kw_only=True)
class StaticPage:
    """What was written: how many cases, how many more are open, and how many are under review already."""

    path: Path
    cases: int
    left_out: int
    begun: int


def write_static_review(store: ReviewStore, path: Path, *, most_cases: int, language: Language = "auto") -> StaticPage:
    """Writes the page of the most urgent cases that nobody has begun to review.

    UserError if ``path`` is no name of a page, or is a file of another kind, or if no case is open.
    """
    path = Path(path)
    require_replaceable(path, PAGE_ENDINGS, is_page)
    index = index_of(store.folder, store.case_ids, store.structures)
    standings = store.standings()
    untouched = {case for case, each in standings.items() if each.state == "DRAFT" and each.version == 0}
    order = list(dict.fromkeys(item.case for item in index.items if item.case in untouched))
    if not order:
        raise UserError(
            f"{store.folder}: holds no draft that nobody has begun to review; segfw review shows the others"
        )
    order = order[:most_cases]
    hidden = frozenset(order) if index.is_blind else index.audit_cases
    shown = [static_case(store, case, is_hidden=case in hidden) for case in progress("pictures of cases", order)]
    open_cases = [case for case, each in standings.items() if each.state in ("DRAFT", "IN_REVIEW")]
    page = StaticPage(
        path=path,
        cases=len(order),
        left_out=len(untouched) - len(order),
        begun=len(open_cases) - len(untouched),
    )
    write_page(
        path,
        TEMPLATE,
        title=f"Review of {store.folder.name}",
        folder=store.folder.name,
        cases=shown,
        page=page,
        made=utc_text(store.clock())[:16].replace("T", " "),
        version=own_version(),
        stop=index.stop,
        reasons=REJECT_REASONS,
        data=_in_script({"cases": [_facts(each) for each in shown], "texts": TEXTS, "language": language}),
    )
    return page


def _facts(case: StaticCase) -> dict[str, object]:
    return {"case": case.case, "sha256": case.sha256, "structures": [each.name for each in case.structures]}


def _in_script(content: object) -> str:
    """JSON that cannot end the element that it stands in."""
    return json.dumps(content).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def static_case(store: ReviewStore, case: str, *, is_hidden: bool = False) -> StaticCase:
    """What the page says of a case; without quality and regions where they must not be seen yet."""
    mask = store.read(case, 0)
    quality = None if is_hidden else kept_quality(store.folder, case)
    regions = None if is_hidden else kept_regions(store.folder, case)
    found = () if regions is None or regions.shape != mask.geometry.shape else regions.regions
    grid = ServedGrid.whole(mask.geometry)
    classes = grid.cut_out(store.labels.to_classes(mask.array[0]))
    note = ""
    image: Volume | None = None
    try:
        image = _image(store, case, mask)
    except UserError as error:
        note = str(error)
    gate = None if quality is None else quality.gate
    return StaticCase(
        case=case,
        sha256=store.sha256(case, 0),
        structures=_rows(store, classes, mask, quality),
        pictures=_pictures(store, classes, grid, image, mask, found),
        gate="" if gate is None else gate.verdict,
        gate_reasons=() if gate is None else gate.reasons,
        has_image=image is not None,
        note=note,
    )


def _image(store: ReviewStore, case: str, mask: Volume) -> Volume | None:
    """The first channel's file of the case's image in the order of the mask; None if it is not found any more."""
    files = store.image_files(case)
    if not files:
        return None
    image = stored_like(read_volume(files[0]), mask)
    if image.geometry.shape != mask.geometry.shape:
        raise UserError(f"{files[0]}: has another size than the mask of {case}; predict the case again")
    return image


def _rows(
    store: ReviewStore, classes: np.ndarray, mask: Volume, quality: KeptQuality | None
) -> tuple[StaticStructure, ...]:
    """A row for each structure, the least trusted first."""
    units = units_of(mask.geometry.shape, is_placed=mask.is_placed)
    voxels = np.bincount(classes.ravel(), minlength=store.labels.classes)
    told = {} if quality is None else {each.label: each for each in quality.structures}
    rows = []
    for name in store.structures:
        parts = store.labels.structures[name]
        size = float(sum(voxels[part] for part in parts)) * units.voxel_size(mask.geometry)
        each = told.get(name)
        rows.append(
            StaticStructure(
                name=name,
                number=parts[0],
                size=_size_text(size, units),
                predicted_dice=None if each is None else each.predicted_dice,
                lower_bound=None if each is None else each.lower_bound,
                verdict="" if each is None else each.verdict,
                reasons=() if each is None else each.reasons,
            )
        )
    order = {each.name: place for place, each in enumerate(rows)}
    ranking = {name: told[name].ranking if name in told else 2.0 for name in order}
    return tuple(sorted(rows, key=lambda row: (ranking[row.name], order[row.name])))


def _size_text(size: float, units: Units) -> str:
    return f"{size:.4g} {units.size}"


def _pictures(
    store: ReviewStore,
    classes: np.ndarray,
    grid: ServedGrid,
    image: Volume | None,
    mask: Volume,
    regions: Sequence[KeptRegion],
) -> tuple[StaticPicture, ...]:
    """Through the regions where most is expected to be wrong; without any, through the largest slices."""
    intensities = None
    if image is not None:
        intensities = grid.cut_out(image.array if image.is_coloured else image.array[0])
        intensities = np.moveaxis(intensities, 0, -1) if image.is_coloured else intensities
    places = [(region, box) for region in regions if (box := _box_of(region, grid)) is not None][:PICTURES]
    is_picture = mask.is_picture or (image is not None and image.is_picture)
    drawn = []
    for region, box in places:
        other, called = _other_mask(store, classes.shape, grid, region)
        masks = MasksOverImage(
            image_zyx=intensities,
            reference_zyx=classes,
            prediction_zyx=other,
            spacing_mm=grid.spacing_mm,
            names=store.labels.names,
            has_directions=not is_picture,
            units=units_of(mask.geometry.shape, is_placed=mask.is_placed),
            called=("mask", called),
        )
        parts = store.labels.structures.get(region.label, ())
        png = draw_slices(masks, _most_differing(np.isin(classes, parts), other, box))
        drawn.append(StaticPicture(png=png, structure=region.label, kind=region.kind, other=called))
    if drawn:
        return tuple(drawn)
    masks = MasksOverImage(
        image_zyx=intensities,
        reference_zyx=classes,
        spacing_mm=grid.spacing_mm,
        names=store.labels.names,
        has_directions=not is_picture,
        units=units_of(mask.geometry.shape, is_placed=mask.is_placed),
    )
    return (StaticPicture(png=draw_slices(masks, shown_slices(classes, np.zeros_like(classes)))),)


def _box_of(region: KeptRegion, grid: ServedGrid) -> Box | None:
    return None if region.box_zyx is None else grid.of_file_box(region.box_zyx)


def _most_differing(mask: np.ndarray, other: np.ndarray | None, box: Box) -> tuple[int, int, int]:
    """The slice along each axis in which a structure and another mask of it differ most, within a box; its middle where
    there is no other mask."""
    if other is None:
        z, y, x = ((start + stop - 1) // 2 for start, stop in box)
        return z, y, x
    differs = cut(mask != (other > 0), box)
    z, y, x = (start + int(differs.sum(tuple({0, 1, 2} - {axis})).argmax()) for axis, (start, _) in enumerate(box))
    return z, y, x


def _other_mask(
    store: ReviewStore, shape: Sequence[int], grid: ServedGrid, region: KeptRegion
) -> tuple[np.ndarray | None, str]:
    """The first other mask of a region as class indices, and who says so; None where there is none."""
    structures: Mapping[str, tuple[int, ...]] = store.labels.structures
    if not region.candidates or region.label not in structures or region.box_zyx is None:
        return None, ""
    box = grid.of_file_box(region.box_zyx)
    assert box is not None  # the grid is whole
    candidate = region.candidates[0]
    z, y, x = (stop - start for start, stop in region.box_zyx)
    inside = grid.part_of_file_box(mask_of_runs(candidate.runs, (z, y, x)), region.box_zyx)
    other = np.zeros(shape, np.uint16)
    other[tuple(slice(*bounds) for bounds in box)] = inside * structures[region.label][0]
    return other, ", ".join(candidate.names)
