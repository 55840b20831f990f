"""The page of one case, ``report/CASE.html``: how its mask came about, and what speaks for it and against it."""

# Z Y X space

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from segfw.base.figures import write_page
from segfw.base.file_names import CASE_PAGES_FOLDER
from segfw.base.tables import Column, Table
from segfw.base.words import listed
from segfw.dataset.cases import Case
from segfw.dataset.labels import LabelSet
from segfw.evaluation.overlays import draw_overlay
from segfw.grid.boxes import whole_grid
from segfw.grid.preprocess import place_back
from segfw.grid.slabs import Slab
from segfw.grid.winners import first_largest, last_above_zero
from segfw.images.formats import read_volume
from segfw.images.volume import Volume, to_canonical
from segfw.inference.output_folder import Extra
from segfw.inference.predict_protocol import FileSink, Predict, PreparedImage, PreparedT
from segfw.inference.prediction_job import PredictionJob
from segfw.model.load import Model
from segfw.planning.explain import explain_configuration, explain_plan
from segfw.quality.case_quality import CaseQuality, CaseRegions, SuspectedRegion, quality_file, regions_file
from segfw.quality.image_fingerprint import Fingerprint, image_fingerprint
from segfw.quality.input_gate import Gate, GateVerdict
from segfw.quality.member_maps import MemberMaps, codes_of, is_any_of, nothing_code
from segfw.quality.nearest_cases import nearest_cases, training_fingerprints
from segfw.quality.quality_features import pairwise_dice
from segfw.quality.small_changes import CHANGES, SmallChange
from segfw.quality.volume_intervals import ALPHA, interval_text

TEMPLATE = Path(__file__).with_name("case_page.html.jinja")
PAGE_SHARE = 0.3  # bytes per byte of the image's file


@dataclass(frozen=True, kw_only=True)
class CasePageMaker:
    """Makes the pages of one call of ``predict``; it is sent along with the job to workers."""

    model: Path
    gate: Gate | None = None

    def extra(self, job: PredictionJob, model: Model) -> Extra:
        """What is made of every case."""
        changes = changes_for(model)
        configuration = model.configuration
        about = CaseAbout(
            plan=tuple(explain_plan(model.plan)),
            configuration=tuple(line.strip() for line in explain_configuration(configuration, model.plan.length_unit)),
            folds=tuple(model.weights),
            labels=model.plan.labels,
            training=training_fingerprints(self.model, configuration.name),
            gate=self.gate,
            changes=changes,
        )

        def open_sink(path: Path, prepared: PreparedImage, case: Case) -> CasePageSink:
            return CasePageSink(path, prepared, case, about)

        def look_again(
            sink: FileSink, predictor: Predict[PreparedT], prepared: PreparedT, go_on: Callable[[], None]
        ) -> None:
            assert isinstance(sink, CasePageSink)  # of open_sink
            for change in changes:
                codes = codes_under(change, sink.case.id, about.labels, predictor, prepared, go_on)
                sink.changed[change.name] = change.back(codes)

        return Extra(
            folder=CASE_PAGES_FOLDER,
            ending=".html",
            open=open_sink,
            bytes_per_image_byte=PAGE_SHARE,
            by_member=True,
            look_again=look_again,
        )


def changes_for(model: Model) -> tuple[SmallChange, ...]:
    """The small changes that a model's images get; none that the first stage of a cascade would have to follow."""
    is_cascade = model.configuration.previous_stage is not None
    return tuple(change for change in CHANGES if not (change.moves and is_cascade))


@dataclass(frozen=True, kw_only=True)
class CaseAbout:
    """What all pages of a call have in common."""

    plan: tuple[str, ...]
    configuration: tuple[str, ...]
    folds: tuple[str, ...]
    labels: LabelSet
    training: dict[str, Fingerprint] = field(default_factory=dict)
    gate: Gate | None = None
    changes: tuple[SmallChange, ...] = CHANGES


def codes_under(
    change: SmallChange,
    case: str,
    labels: LabelSet,
    predictor: Predict[PreparedT],
    prepared: PreparedT,
    go_on: Callable[[], None],
) -> np.ndarray:
    """The mask of codes (Z, Y, X) on the network's grid that the changed image gets."""
    changed = prepared.with_image(change.change(prepared.image, case))
    codes = np.zeros(prepared.record.shape, np.uint8 if labels.outputs < 256 else np.uint16)
    winners = last_above_zero if labels.regions else first_largest
    for slab in predictor.slabs(changed):
        go_on()
        for z in range(slab.start, slab.stop):
            block = (slice(z, z + 1), *whole_grid(prepared.record.shape)[1:])
            codes[z] = winners(slab.logits(block))[0].cpu().numpy()
    return codes


class CasePageSink:
    """Takes slab after slab of a case, told apart by member, and writes its page.

    ``changed`` are masks of codes on the network's grid under small changes of the image, by name.
    """

    def __init__(self, path: Path, prepared: PreparedImage, case: Case, about: CaseAbout) -> None:
        self.path = Path(path)
        self.case = case
        self.about = about
        self.maps = MemberMaps(prepared.record, about.labels)
        self.changed: dict[str, np.ndarray] = {}
        self._fingerprint: Fingerprint | None = None
        self._gate: GateVerdict | None = None
        if about.training or about.gate is not None:
            self._fingerprint = image_fingerprint(prepared.image, prepared.record)
        if about.gate is not None and self._fingerprint is not None:
            self._gate = about.gate.look(self._fingerprint)

    def add(self, slab: Slab) -> None:
        """Looks at the finished slices of a slab."""
        self.maps.add(slab)

    def __enter__(self) -> CasePageSink:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is on the disk before ``finish``."""

    def finish(self, classes_zyx: np.ndarray) -> None:
        """Draws and writes the page; ValueError before any slab has come."""
        if not self.maps.members:
            raise ValueError(f"{self.path}: no slab was added")
        masks = self.path.parent.parent
        nearest = [] if self._fingerprint is None else nearest_cases(self._fingerprint, self.about.training)
        quality = _told(masks, self.case.id)
        regions = _regions_told(masks, self.case.id)
        image = read_volume(self.case.images[0])  # again: the prepared one is on another grid
        labels = self.about.labels
        doubt_png = None
        if self.maps.members > 1:
            differing = self._on_file(where_members_differ(self.maps))
            doubt_png = draw_mask(differing, classes_zyx, image, labels, called="where folds differ")
        moved_png = None
        if self.changed:
            moved = self._on_file(self._where_moved())
            moved_png = draw_mask(moved, classes_zyx, image, labels, called="where it moves")
        write_page(
            self.path,
            TEMPLATE,
            title=f"How the mask of {self.case.id} came about",
            case=self.case.id,
            files=[path.name for path in self.case.images],
            about=self.about,
            quality=quality,
            verdicts=None if quality is None else verdict_table(quality),
            regions=None if regions is None or not regions.regions else region_table(regions),
            gate=self._gate,
            nearest=nearest,
            training_cases=len(self.about.training),
            agreement=agreement_table(self.maps, self.changed),
            folds=listed(self.about.folds, "and"),
            passes=1 + len(self.changed),
            mask_png=draw_mask(classes_zyx, None, image, labels),
            doubt_png=doubt_png,
            moved_png=moved_png,
            has_directions=not image.is_picture,
        )

    def _where_moved(self) -> np.ndarray:
        """Codes of what the changed images get, where it is not what the image got."""
        moved = np.full(self.maps.mean_classes.shape, nothing_code(self.about.labels), self.maps.mean_classes.dtype)
        for codes in self.changed.values():
            _paint_differing(moved, codes, self.maps.mean_classes, nothing_code(self.about.labels))
        return moved

    def _on_file(self, codes_zyx: np.ndarray) -> np.ndarray:
        """Class indices on the file's own grid of codes on the network's, by the nearest voxel."""
        labels = self.about.labels
        record = self.maps.record
        class_of = np.array([*(labels.painted_classes or range(labels.outputs)), 0], np.uint16)
        z, y, x = (_nearest(old, new) for old, new in zip(record.shape, record.cropped_shape))
        return place_back(class_of[codes_zyx[np.ix_(z, y, x)]], record)


def _nearest(old: int, new: int) -> np.ndarray:
    """For each voxel of the new axis the nearest one of the old."""
    centres = (np.arange(new) + 0.5) * old / new - 0.5
    return np.clip(np.rint(centres).astype(int), 0, old - 1)


def where_members_differ(maps: MemberMaps) -> np.ndarray:
    """Codes (Z, Y, X) of what the mean finds, or else a member, wherever not all members say the same."""
    nothing = nothing_code(maps.labels)
    differing = np.full(maps.mean_classes.shape, nothing, maps.mean_classes.dtype)
    for codes in maps.classes:
        _paint_differing(differing, codes, maps.mean_classes, nothing)
    return differing


def _paint_differing(painted: np.ndarray, codes: np.ndarray, others: np.ndarray, nothing: int) -> None:
    """Paints where two masks differ: what the second finds there, or where that is nothing, the first."""
    differs = codes != others
    painted[differs] = np.where(others[differs] == nothing, codes[differs], others[differs])


def agreement_table(maps: MemberMaps, changed: Mapping[str, np.ndarray]) -> Table:
    """Dice of each structure's mask with what else there is: other folds' among each other, and under small changes."""
    names = list(maps.labels.structures)
    codes = codes_of(maps.labels)
    columns = [Column(title="Structure", values=names)]
    if maps.members > 1:
        pair = pairwise_dice(maps, maps.labels)
        columns.append(Column(title="Folds, by pairs", values=[pair[name] for name in names], digits=3))
    for title, other in changed.items():
        values = [dice(is_any_of(maps.mean_classes, codes[name]), is_any_of(other, codes[name])) for name in names]
        columns.append(Column(title=title[0].upper() + title[1:], values=values, digits=3))
    return Table(name="Agreement", columns=columns, search="Find a structure")


def dice(first: np.ndarray, second: np.ndarray) -> float | None:
    """Dice of two masks, bool; None if both are empty."""
    total = int(first.sum()) + int(second.sum())
    return 2 * int((first & second).sum()) / total if total else None


def verdict_table(quality: CaseQuality) -> Table:
    """A row for each structure: what is to be thought of it."""
    structures = quality.structures
    sure = f"in {100 * (1 - structures[0].alpha):.0f} % of such cases" if structures else ""
    return Table(
        name="Verdicts",
        search="Find a structure",
        columns=[
            Column(title="Structure", values=[each.label for each in structures]),
            Column(title="Verdict", values=[each.verdict for each in structures]),
            Column(title="Predicted Dice", values=[each.predicted_dice for each in structures], digits=2),
            Column(title="At least", values=[each.lower_bound for each in structures], digits=2, hint=sure),
            Column(title="Chance of failure", values=[each.p_fail for each in structures], digits=2),
            Column(title="Volume", unit="ml", values=[each.volume_ml for each in structures], significant=3),
            Column(
                title="True volume",
                unit="ml",
                values=[interval_text(each.volume_interval_ml) for each in structures],
                hint=f"in {100 * (1 - ALPHA):.0f} % of such cases",
            ),
            Column(title="Why", values=["; ".join(each.reasons) for each in structures]),
        ],
    )


def region_table(regions: CaseRegions) -> Table:
    """A row for each suspected region."""
    rows = regions.regions
    slices = [_slices_text(each.slices) for each in rows]
    return Table(
        name="Suspected regions",
        search="Find a structure",
        columns=[
            Column(title="Region", values=[float(each.id) for each in rows], digits=0),
            Column(title="Structure", values=[each.label for each in rows]),
            Column(title="Kind", values=[each.kind for each in rows]),
            Column(
                title="Probably wrong", unit="mm³", values=[each.expected_wrong_mm3 for each in rows], significant=3
            ),
            Column(title="Volume", unit="mm³", values=[each.volume_mm3 for each in rows], significant=3),
            Column(title="Slices", values=slices, hint="of the file, from 0"),
            Column(title="Other masks", values=[", ".join(_names_of(each)) for each in rows]),
        ],
    )


def _names_of(region: SuspectedRegion) -> list[str]:
    names: list[str] = []
    for candidate in region.candidates:
        names += candidate.names
    return names


def _slices_text(slices: Sequence[int]) -> str:
    """'3 to 7', '4', or '' of none."""
    if not slices:
        return ""
    return str(slices[0]) if len(slices) == 1 else f"{slices[0]} to {slices[-1]}"


def draw_mask(
    filled_zyx: np.ndarray,
    dashed_zyx: np.ndarray | None,
    image: Volume,
    labels: LabelSet,
    *,
    called: str = "",
) -> bytes:
    """PNG of class indices on the file's grid over the image's first channel, or of a place and a mask's outline."""
    canonical = to_canonical(image)

    def turned(classes_zyx: np.ndarray) -> np.ndarray:
        return to_canonical(replace(image, array=classes_zyx[None])).array[0]

    intensities = np.moveaxis(canonical.array, 0, -1) if canonical.is_coloured else canonical.array[0]
    return draw_overlay(
        intensities,
        turned(filled_zyx),
        None if dashed_zyx is None else turned(dashed_zyx),
        canonical.geometry.spacing_mm,
        labels.names,
        has_directions=not image.is_picture,
        units=image.units,
        called=(called, "the mask"),
    )


def _told(masks: Path, case: str) -> CaseQuality | None:
    """What was written of the case before its page; None where nothing was."""
    path = quality_file(masks, case)
    return CaseQuality.load(path) if path.is_file() else None


def _regions_told(masks: Path, case: str) -> CaseRegions | None:
    path = regions_file(quality_file(masks, case))
    return CaseRegions.load(path) if path.is_file() else None
