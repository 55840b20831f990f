"""What one person can ask of a folder under review and do to it, apart from how it is asked over the network.

All state is the store's; here are only an index in memory and the clock of the person's work.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from segfw.base.errors import UserError
from segfw.base.figures import label_color
from segfw.base.own_version import own_version
from segfw.base.parallel import CasesFailed
from segfw.base.words import count
from segfw.clicks.proposed_clicks import contradiction, doubt_near, proposed_clicks
from segfw.delivery.deliver_cases import deliver_cases
from segfw.delivery.deliver_options import DeliverOptions
from segfw.images.formats import size_and_change
from segfw.images.units import units_of
from segfw.interop.mask_formats import FORMATS
from segfw.quality.kept_quality import kept_quality
from segfw.review_page.active_clock import ActiveClock
from segfw.review_page.case_events import CaseEvents
from segfw.review_page.case_payload import (
    PaletteStructure,
    counts_by_slice,
    gate_of,
    grid_facts,
    palette_structures,
    place_rows,
    region_rows,
    structure_rows,
)
from segfw.review_page.case_source import CaseSource
from segfw.review_page.case_views import CaseViews, NotFound
from segfw.review_page.click_desk import CaseToClick, ClickDesk, ClickRefiner, PageClick
from segfw.review_page.label_palette import LabelPalette, PaletteLabel
from segfw.review_page.review_index import IndexedItem, ReviewIndex, Wanted, changes_of, index_of, item_row
from segfw.review_page.review_options import Language
from segfw.review_page.served_grid import LARGEST_WHOLE, ServedGrid, is_seen_as_served
from segfw.reviewing.case_history import CaseStanding
from segfw.reviewing.mask_version import Origin
from segfw.reviewing.people import Person
from segfw.reviewing.refusals import Locked
from segfw.reviewing.review_store import ReviewStore
from segfw.reviewing.states import MEANINGS, REJECT_REASONS
from segfw.reviewing.viewing import Shown, Viewing

HEARTBEAT_S = 15
IDLE_AFTER_S = 60
AUTOSAVE_S = 30
EVERYTHING = Wanted()
TOOL = "segfw review"
# Along the axes (z, y, x) of the whole served grid, which lie nearest to these planes
PLANES = ("axial", "coronal", "sagittal")
PAGE_ORIGINS: tuple[Origin, ...] = ("edited", "candidate", "blank")
# Name, centre and width in Hounsfield units
CT_WINDOWS = (
    ("soft tissue", 40, 400),
    ("liver", 60, 150),
    ("lung", -600, 1500),
    ("mediastinum", 50, 350),
    ("bone", 500, 2000),
    ("brain", 40, 80),
)


class Refused(UserError):
    """What the person may not do on this page."""


class Held(Locked):
    """Another person, ``holder``, has the case open."""

    def __init__(self, error: Locked, holder: str | None) -> None:
        super().__init__(str(error))
        self.holder = holder


@dataclass(frozen=True, kw_only=True)
class Seat:
    """Who sits at the page, and what he may see and do."""

    person: Person
    language: Language = "auto"
    deliver_to: Path | None = None  # beside the folder
    is_read_only: bool = False
    is_blind: bool = False


@dataclass(frozen=True, kw_only=True)
class Bitmap:
    """What the page saves: indexes (Z, Y, X) on ``grid``, drawn on the version ``base``."""

    indexes_zyx: np.ndarray
    grid: ServedGrid
    group: int
    base: int
    origin: str = "edited"
    is_autosave: bool = False
    clicks: int = 0  # that were sent to the refiner since the version before, and not undone


class ReviewDesk:
    """Answers of one server. Any number of threads may ask."""

    def __init__(
        self,
        store: ReviewStore,
        seat: Seat,
        *,
        largest_whole: int = LARGEST_WHOLE,
        clock: ActiveClock | None = None,
        refiner: ClickRefiner | None = None,
    ) -> None:
        self.store = store
        self.seat = seat
        self.palette = LabelPalette.of(store.labels)
        self.source = CaseSource(store)
        self.views = CaseViews(self.source, self.palette, largest_whole=largest_whole)
        self.clock = clock or ActiveClock()
        self._clicks = None if refiner is None else ClickDesk(refiner, store.labels, self.palette)
        self._events = CaseEvents(store.log.path)
        self._cases = {case: case for case in self.source.case_ids}
        wanted = set(store.structures)
        found = palette_structures(store.labels, self.palette)
        self._structures = tuple(each for each in found if each.name in wanted)
        self._index: ReviewIndex | None = None
        self._index_of: tuple[int, ...] = ()
        self._lock = threading.Lock()

    @cached_property
    def _judged_by_me(self) -> set[str]:
        """Cases on which the person has decided something."""
        return self._events.judged_by(self.seat.person.user) | self.source.planted_decided_by(self.seat.person)

    # ---- what is asked ----

    def case_of(self, name: str) -> str:
        """The id that was asked for, as the folder has it; NotFound if it has none such."""
        if name not in self._cases:
            raise NotFound(f"{self.store.folder}: has no case {name[:100]!r}; load the queue again")
        return self._cases[name]

    def session(self) -> dict[str, Any]:
        """Who sits here, and what holds for all cases."""
        return {
            "folder": self.store.folder.name,
            "user": self.seat.person.user,
            "identity": self.seat.person.identity,
            "names_are_declared": self.seat.person.identity == "declared",
            "language": self.seat.language,
            "read_only": self.seat.is_read_only,
            "blind": self.seat.is_blind or self.index().is_blind,
            "version": own_version(),
            "structures": [
                {
                    "index": each.painted.index,
                    "group": each.painted.group,
                    "label": each.name,
                    "value": each.painted.value,
                    "colour": self._colour(each.painted),
                    "key": None,
                    "parts": [[part.group, part.index] for part in each.parts],
                }
                for each in self._structures
            ],
            "labels": [
                {
                    "index": label.index,
                    "group": label.group,
                    "name": label.name,
                    "value": label.value,
                    "colour": self._colour(label),
                }
                for label in self.palette.labels
            ],
            "groups": self.palette.groups,
            "windows": [{"name": name, "centre": centre, "width": width} for name, centre, width in CT_WINDOWS],
            "plants": False,
            "refiner": None if self._clicks is None else self._clicks.refiner.digest,
            "reject_reasons": list(REJECT_REASONS),
            "meanings": list(MEANINGS),
            "four_eyes": self.store.policy.four_eyes,
            "may_review": self.store.policy.allows(self.seat.person, "reviewer"),
            "may_sign": self.store.policy.allows(self.seat.person, "signer"),
            "deliver_to": self.deliver_to.name,
            "formats": list(FORMATS),
            "heartbeat_s": HEARTBEAT_S,
            "idle_after_s": IDLE_AFTER_S,
            "autosave_s": AUTOSAVE_S,
        }

    def _colour(self, label: PaletteLabel) -> list[int]:
        number = self.palette.labels.index(label) + 1
        return [round(255 * part) for part in label_color(number)]

    def queue(self, offset: int, limit: int, wanted: Wanted) -> dict[str, Any]:
        """Some of the items in their order, how many there are of that kind, and how far the folder is."""
        standings = self.source.standings()
        index = self.index()
        hidden = self._hidden(index)
        found = index.items
        if wanted != EVERYTHING:
            found = [
                item for item in index.items if wanted.takes(item, standings[item.case], is_hidden=item.case in hidden)
            ]
        shown = found[offset : offset + limit]
        return {
            "items": [item_row(item, standings[item.case], is_hidden=item.case in hidden) for item in shown],
            "total": len(found),
            "progress": _progress(standings, index),
        }

    def index(self) -> ReviewIndex:
        """All items in the order in which they are to be worked on; read again when ``segfw queue`` was called."""
        with self._lock:
            changes = changes_of(self.store.folder)
            if self._index is None or self._index_of != changes:
                self._index_of = changes
                self._index = index_of(self.store.folder, self.source.case_ids, self._names())
                if self.seat.is_blind or self._index.is_blind:  # the order would tell what the models think
                    self._index.items.sort(key=lambda item: item.case)
            return self._index

    def _names(self) -> tuple[str, ...]:
        return tuple(each.name for each in self._structures)

    def _is_hidden(self, case: str) -> bool:
        """Whether what models think of a case is not to be seen yet."""
        return case in self._hidden(self.index())

    def _hidden(self, index: ReviewIndex) -> frozenset[str]:
        """Cases whose quality is not to be seen yet: of blind mode, and those that are read for the audit."""
        is_blind = self.seat.is_blind or index.is_blind
        concerned = frozenset(self._cases) if is_blind else index.audit_cases
        return concerned - self._judged_by_me if concerned else concerned

    def case(self, case: str, grid: ServedGrid) -> dict[str, Any]:
        """Everything of a case but its volumes."""
        standing = self.source.standing(case)
        is_hidden = self._is_hidden(case)
        quality = None if is_hidden else kept_quality(self.store.folder, self.source.told_of(case))
        mask = self.views.mask(case, standing.version)
        units = units_of(mask.geometry.shape, is_placed=mask.is_placed)
        bitmaps = [self.views.bitmap(mask.array[0], grid, group) for group in range(self.palette.groups)]
        regions = () if is_hidden else self.views.regions(case)
        others = self.views.others(case)
        return {
            **_standing_row(standing),
            "changed": list(self.source.steps(case).changed(case)),
            **grid_facts(grid),
            "is_straightened": not is_seen_as_served(grid.geometry.matrix[:, [2, 1, 0, 3]]),
            "structures": structure_rows(
                self._structures,
                counts_by_slice(bitmaps),
                units.voxel_size(mask.geometry),
                units,
                standing.decisions,
                quality,
            ),
            "regions": region_rows(regions, grid),
            "gate": gate_of(quality),
            "has_doubt": not is_hidden and self.views.doubt_file(case) is not None,
            "compare": [name for name in others if not (is_hidden and name.startswith("fold_"))],
            "hidden": is_hidden,
            "history": self._history(case),
            "versions": self._versions(case),
            "planted": False,
            **self._image_facts(case, grid, is_picture=mask.is_picture),
        }

    def _image_facts(self, case: str, grid: ServedGrid, *, is_picture: bool) -> dict[str, Any]:
        """What is known of the image; a case whose image is gone can still be looked at."""
        facts: dict[str, Any] = {
            "has_image": False,
            "image_error": "",
            "channels": self.views.channels(case),
            "is_picture": is_picture,
            "has_letters": not is_picture,
            "is_ct": False,
            "window": None,
        }
        try:
            image = self.views.image(case, grid)
        except UserError as error:
            return {**facts, "image_error": str(error)}
        return {
            **facts,
            "has_image": True,
            "is_picture": image.is_picture,
            "has_letters": not image.is_picture,
            "is_ct": image.is_ct,
            "window": {"low": image.low, "high": image.high},
        }

    def _history(self, case: str) -> list[dict[str, Any]]:
        """What was done with a case; nothing of a planted one."""
        return [
            {
                "utc": event["utc"],
                "event": event["event"],
                "user": event["user"],
                "to": event["to"],
                "structure": event["structure"],
                "decision": event["decision"],
                "version": event["version"],
                "reason": event["reason"],
            }
            for event in self._events.of(case)
        ]

    def _versions(self, case: str) -> list[dict[str, Any]]:
        return [
            {
                "number": version.number,
                "author": version.author,
                "origin": version.origin,
                "made_utc": version.made_utc,
                "sha256": version.sha256,
                "parent": version.parent,
                "edited_voxels": {name: each.model_dump() for name, each in version.edited_voxels.items()},
            }
            for version in self.source.versions(case)
        ]

    def _structure(self, case: str, name: str) -> PaletteStructure:
        """The structure that is called so; UserError if none is."""
        found = next((each for each in self._structures if each.name == name), None)
        if found is None:
            raise UserError(f"{case}: has no structure {name[:50]!r}; give one of {', '.join(self._names())}")
        return found

    def click_places(self, case: str, structure: str, base: int, grid: ServedGrid) -> dict[str, Any]:
        """Where a click on a structure of a version probably pays, by the folds' masks or else by the map of doubt."""
        self.require_shown(case)
        values = [part.value for part in self._structure(case, structure).parts]
        mask = self.views.mask(case, base)
        present = np.isin(mask.array[0], values)
        folds = [np.isin(each, values) for each in self.views.fold_masks(case)]
        doubt = None if folds else self.views.doubt_values(case)
        if not folds and doubt is None:
            return {"places": []}
        spacing_mm = mask.geometry.spacing_mm
        share = contradiction(folds, present) if doubt is None else doubt_near(doubt, present, spacing_mm)
        return {"places": place_rows(proposed_clicks(share, present, spacing_mm), grid)}

    def require_shown(self, case: str) -> None:
        """Refused while quality and doubt of the case are not to be seen."""
        if self._is_hidden(case):
            raise Refused(f"{case}: doubt and other masks are hidden until you have decided on a structure of it")

    # ---- what is done ----

    def open(self, case: str) -> dict[str, Any]:
        """Lets the person work on a case."""
        self._require_writing()
        try:
            standing = self.source.steps(case).open_case(case, self.seat.person)
        except Locked as error:
            raise Held(error, self.source.standing(case).holder) from None
        self.clock.open(case)
        return _standing_row(standing)

    def heartbeat(
        self,
        case: str,
        *,
        active_s: float,
        idle_s: float,
        slices_viewed: Mapping[str, Sequence[int]],
        grid: ServedGrid,
        shown: Shown | None = None,
    ) -> dict[str, Any]:
        """Books time, at most what has passed, and the slices that were displayed; keeps the case."""
        self._require_writing()
        viewed = _in_whole_grid(slices_viewed, grid)
        booked_s, idle_booked_s = self.clock.book(case, active_s, idle_s)
        self.source.steps(case).renew(
            case, self.seat.person, active_s=booked_s, idle_s=idle_booked_s, slices_viewed=viewed, shown=shown
        )
        until = self.source.standing(case).lease_until_utc
        return {"active_s": booked_s, "idle_s": idle_booked_s, "lease_until_utc": until}

    def release(self, case: str) -> dict[str, Any]:
        """Gives a case back."""
        self._require_writing()
        self.source.steps(case).release(case, self.seat.person)
        self.clock.close(case)
        return _standing_row(self.source.standing(case))

    def save(self, case: str, bitmap: Bitmap) -> dict[str, Any]:
        """Makes a version of what was drawn: of a box, with all else as in the version that it was drawn on."""
        self._require_writing()
        if bitmap.origin not in PAGE_ORIGINS:
            raise UserError(f"origin is {bitmap.origin[:50]!r}; give one of {', '.join(PAGE_ORIGINS)}")
        values = self._drawn(case, bitmap)
        made = self.source.steps(case).save(
            case,
            self.seat.person,
            values,
            base=bitmap.base,
            origin=next(each for each in PAGE_ORIGINS if each == bitmap.origin),
            tool=self._tool(bitmap.clicks),
            is_autosave=bitmap.is_autosave,
        )
        return {"version": made.number, "sha256": made.sha256}

    def _drawn(self, case: str, bitmap: Bitmap) -> np.ndarray:
        """Label values of the whole mask, in the order of its file: outside of the bitmap those of the version that it
        was drawn on."""
        before = self.views.mask(case, bitmap.base).array[0]
        part = bitmap.grid.cut_out(before)
        drawn = self.palette.to_values(bitmap.indexes_zyx, part, bitmap.group)
        return bitmap.grid.put_back(before.astype(np.result_type(before.dtype, drawn.dtype)), drawn)

    def _tool(self, clicks: int) -> str:
        """What made a version; of clicks also which refiner answered them."""
        tool = f"{TOOL} {own_version()}"
        if self._clicks is None or clicks == 0:
            return tool
        return f"{tool}, {count(clicks, 'click')} of refiner {self._clicks.refiner.digest}"

    def refine(self, case: str, click: PageClick, bitmap: Bitmap) -> dict[str, Any]:
        """What the refiner would change for a click on what is drawn now; nothing is stored."""
        self._require_writing()
        self.store.policy.require(self.seat.person, "reviewer")
        if self._clicks is None:
            raise Refused("no refiner answers clicks here; start segfw review with --refiner MODEL")
        self._structure(case, click.structure)
        files = self.views.image_files(case)
        asked = CaseToClick(
            key=(case, *(size_and_change(file) for file in files)),
            image_files=files,
            version=bitmap.base,
            base=self.views.mask(case, bitmap.base),
            indexes_zyx=bitmap.indexes_zyx,
            grid=bitmap.grid,
            group=bitmap.group,
        )
        return self._clicks.click(asked, click)

    def decide(
        self, case: str, structure: str, decision: str, *, region: int | None, asked_again: bool
    ) -> dict[str, Any]:
        """Notes a decision, or gives back a question."""
        self._require_writing()
        asked = self.source.steps(case).decide(
            case,
            self.seat.person,
            structure,
            _one_of(decision, ("accept", "edit", "absent"), "decision"),
            region=region,
            viewing=self._viewing(case, structure),
            asked_again=asked_again,
        )
        if asked is None:
            self._judged_by_me.add(case)
        return {"asked": None if asked is None else asked.text, **_standing_row(self.source.standing(case))}

    def _viewing(self, case: str, structure: str) -> Viewing | None:
        """How much of a structure was displayed, along the axis along which most of it was; None of an unknown one."""
        found = next((each for each in self._structures if each.name == structure), None)
        if found is None:
            return None
        version = self.source.standing(case).version
        mask = self.views.mask(case, version)
        whole = ServedGrid.whole(mask.geometry)
        values = [part.value for part in found.parts]
        is_there = whole.cut_out(np.isin(mask.array[0], values))
        seen = []
        for axis, plane in enumerate(PLANES):
            others = tuple({0, 1, 2} - {axis})
            slices = np.flatnonzero(is_there.any(others)).tolist()
            seen.append(self.source.steps(case).viewing(case, self.seat.person, plane, slices))
        return max(seen, key=lambda each: each.displayed / max(1, each.slices))

    def finish(self, case: str) -> dict[str, Any]:
        """Makes a case REVIEWED."""
        self._require_writing()
        made = self.source.steps(case).finish(case, self.seat.person)
        self.clock.close(case)
        return {**_standing_row(self.source.standing(case)), "version": made.number, "sha256": made.sha256}

    def sign(self, case: str, *, name: str, meaning: str, sha256: str) -> dict[str, Any]:
        """Signs the version that was shown."""
        self._require_writing()
        self.source.steps(case).sign(
            case, self.seat.person, name=name, meaning=_one_of(meaning, MEANINGS, "meaning"), version_sha256=sha256
        )
        return _standing_row(self.source.standing(case))

    def reject(self, case: str, reason: str, text: str) -> dict[str, Any]:
        """Says that no mask can be had of this draft."""
        self._require_writing()
        self.source.steps(case).reject(case, self.seat.person, _one_of(reason, REJECT_REASONS, "reason"), text)
        self.clock.close(case)
        self._judged_by_me.add(case)
        return _standing_row(self.source.standing(case))

    def amend(self, case: str, reason: str) -> dict[str, Any]:
        """Takes a signature back."""
        self._require_writing()
        self.source.steps(case).amend(case, self.seat.person, reason)
        return _standing_row(self.source.standing(case))

    def deliver(self, case: str, formats: Sequence[str]) -> dict[str, Any]:
        """Writes a signed mask where masks are delivered to; names of the files there."""
        self._require_writing()
        if case not in self.store.case_ids:
            raise Refused(f"{case}: may not be delivered yet; end the session first, and deliver with segfw deliver")
        options = DeliverOptions(formats=tuple(formats), cases=(case,))
        try:
            made = deliver_cases(self.store, self.deliver_to, options, self.seat.person)
        except CasesFailed as error:
            raise UserError(str(error)) from None
        return {"folder": str(made.output), "files": [each.file for each in made.files]}

    @property
    def deliver_to(self) -> Path:
        """Where signed masks are delivered to; the page does not choose it."""
        folder = self.store.folder
        return self.seat.deliver_to or folder.with_name(f"{folder.name}_delivered")

    def _require_writing(self) -> None:
        if self.seat.is_read_only:
            raise Refused("this page only shows; start segfw review without --read-only to change something")


def _one_of(text: str, words: tuple[Any, ...], called: str) -> Any:
    if text not in words:
        raise UserError(f"{called} is {text[:50]!r}; give one of {', '.join(words)}")
    return text


def _standing_row(standing: CaseStanding) -> dict[str, Any]:
    return {
        "case": standing.case,
        "state": standing.state,
        "version": standing.version,
        "sha256": standing.sha256,
        "holder": standing.holder,
        "lease_until_utc": standing.lease_until_utc,
        "decisions": dict(standing.decisions),
        "reviewed_by": standing.reviewed_by,
        "signed_by": standing.signed_by,
        "signed_name": standing.signed_name,
        "meaning": standing.meaning,
        "signed_utc": standing.signed_utc,
        "reject_reason": standing.reject_reason,
        "reject_text": standing.reject_text,
        "autosaved": standing.autosaved,
    }


def _progress(standings: Mapping[str, CaseStanding], index: ReviewIndex) -> dict[str, Any]:
    """How far the folder is; minutes that are left are of what is open and fits into those that may be spent."""
    states = [standing.state for standing in standings.values()]
    left = [item.minutes for item in index.items if item.is_within and _is_open(item, standings[item.case])]
    known = [minutes for minutes in left if minutes is not None]
    return {
        "cases": len(states),
        "signed": states.count("SIGNED"),
        "reviewed": states.count("REVIEWED"),
        "rejected": states.count("REJECTED"),
        "minutes_used": sum(standing.active_s for standing in standings.values()) / 60,
        "minutes_left": sum(known) if known else None,
        "stop": index.stop,
        "stop_facts": [fact.model_dump() for fact in index.stop_facts],
        "is_over": index.is_over,
    }


def _is_open(item: IndexedItem, standing: CaseStanding) -> bool:
    return standing.state in ("DRAFT", "IN_REVIEW") and item.structure not in standing.decisions


def _in_whole_grid(slices_viewed: Mapping[str, Sequence[int]], grid: ServedGrid) -> dict[str, list[int]]:
    """Slices that were displayed, as they are counted in the whole grid; what lies outside of it is left out."""
    unknown = sorted(set(slices_viewed) - set(PLANES))
    if unknown:
        raise UserError(f"slices_viewed has {unknown[0][:50]!r}; give {', '.join(PLANES)}")
    found = {}
    for axis, plane in enumerate(PLANES):
        start, stop = grid.box[axis]
        shown = {index + start for index in slices_viewed.get(plane, ()) if 0 <= index < stop - start}
        if shown:
            found[plane] = sorted(shown)
    return found
