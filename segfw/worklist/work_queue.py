"""Makes the queue of a folder of masks: what is open, what it gains and takes, in which order, and whether to stop."""

# N items

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from segfw.base.errors import UserError
from segfw.reviewing.review_ledger import LedgerRow, read_ledger
from segfw.reviewing.review_log import utc_text
from segfw.reviewing.review_store import ReviewStore
from segfw.worklist.audit_reading import audit_state_of, results_so_far
from segfw.worklist.audit_sample import Pair, read_audits
from segfw.worklist.doubtful_items import doubtful_items, has_doubt
from segfw.worklist.judged_items import JudgedItems, is_judged, judged_items
from segfw.worklist.minutes_model import Effort, MinutesModel, fitted_minutes
from segfw.worklist.planted_cases import Plant, PlantedCases, placed_among
from segfw.worklist.queue_file import ROLES, QueueColumns, ReviewQueue
from segfw.worklist.queue_options import QueueOptions
from segfw.worklist.second_reading import second_cases
from segfw.worklist.stopping_rule import stopping
from segfw.worklist.structure_weights import read_weights
from segfw.worklist.varied_cases import standardised, varied_order
from segfw.worklist.work_items import WHOLE, WorkItems, weighted
from segfw.worklist.work_order import WorkOrder, greedy_order

CLOSED = ("REVIEWED", "SIGNED", "REJECTED")
DO_NOT_USE = "do-not-use"


@dataclass(frozen=True, kw_only=True)
class FoundItems:
    """All items of a folder, and which of them are open, bool (N,)."""

    judged: JudgedItems
    is_open: np.ndarray
    ranked_by: str

    @property
    def items(self) -> WorkItems:
        """All of them."""
        return self.judged.items

    @property
    def open_pairs(self) -> list[Pair]:
        """Case and structure of the open structures as a whole."""
        items = self.items
        chosen = np.flatnonzero(self.is_open & items.is_whole)
        return [(items.cases[items.case[n]], items.structures[items.structure[n]]) for n in chosen.tolist()]


def found_items(store: ReviewStore, options: QueueOptions) -> FoundItems:
    """The items of a folder; UserError where nothing tells how far its masks may be trusted."""
    folder = store.folder
    if is_judged(folder):
        judged = judged_items(folder, store.case_ids, has_regions=options.regions, has_features=options.goal == "model")
        ranked_by = "quality"
    elif has_doubt(folder):
        judged = doubtful_items(folder, store.case_ids, store.structures)
        ranked_by = "doubt"
    else:
        raise UserError(
            f"{folder}: nothing tells how far its masks may be trusted; run segfw calibrate on the model and predict "
            "again (or with --uncertainty, for an order by doubt alone)"
        )
    if not len(judged.items):
        raise UserError(f"{folder}: no file of quality can be read; predict again with this version")
    return FoundItems(judged=judged, is_open=_is_open(judged.items, store), ranked_by=ranked_by)


def _is_open(items: WorkItems, store: ReviewStore) -> np.ndarray:
    """Neither is the case finished, nor the structure decided by whoever has the case open."""
    standings = store.standings()
    number_of = {name: number for number, name in enumerate(items.structures)}
    is_decided = np.zeros((len(items.cases), len(items.structures)), bool)
    for number, case in enumerate(items.cases):
        standing = standings[case]
        if standing.state in CLOSED:
            is_decided[number] = True
        for structure in standing.decisions:
            if structure in number_of:
                is_decided[number, number_of[structure]] = True
    return ~is_decided[items.case, items.structure]


def made_queue(store: ReviewStore, found: FoundItems, options: QueueOptions) -> ReviewQueue:
    """The queue of what is open; nothing is written."""
    items = found.items
    ledger = read_ledger(store.folder)
    model = minutes_of_ledger(items, ledger)
    audits = read_audits(store.folder)
    audit = results_so_far(store, audits)
    weights = {} if options.weights is None else read_weights(options.weights, items.structures)
    opened = items.of(found.is_open)
    order = _ordered(found, opened, weights, model, options)
    is_audit = np.zeros(len(order.chosen), bool)
    if audits.open is not None and audits.open.begun_utc is not None:
        order, is_audit = _audit_first(opened, order, audits.open.to_read, model)
    plants = PlantedCases(store.folder).read().plants
    spent = sum(row.active_s for row in ledger) / 60
    total = np.cumsum(order.minutes) if len(order.minutes) else np.zeros(0)
    within = int(np.searchsorted(total, (options.minutes or np.inf) - spent + 1e-9)) if len(total) else 0
    wholes = opened.is_whole & (opened.verdict == opened.verdicts.index(DO_NOT_USE))
    stop = stopping(
        items_left=int(opened.is_whole.sum()),
        spent_minutes=spent,
        minutes=options.minutes,
        best_per_minute=float(order.per_minute.max()) if len(total) else 0.0,
        worth=options.worth,
        audit=audit,
        audit_target=store.policy.audit_target,
        do_not_use_left=int(wholes.sum()),
    )
    rows = _rows(opened, order, is_audit)
    rows = _with_plants(rows, opened, plants, within or len(total), options.seed)
    return ReviewQueue(
        made_utc=utc_text(store.clock()),
        goal=options.goal,
        ranked_by="quality" if found.ranked_by == "quality" else "doubt",
        seed=options.seed,
        minutes=options.minutes,
        worth=options.worth,
        weights=weights,
        is_blind=options.blind,
        minutes_model=model,
        spent_minutes=spent,
        total_minutes=float(total[-1]) if len(total) else 0.0,
        within_minutes=within,
        closed_items=int((~found.is_open & items.is_whole).sum()),
        stop=stop,
        audit_state=audit_state_of(audits),
        audit=tuple(audit),
        second_reading=second_cases(store.folder),
        left_out=found.judged.left_out,
        cases=(*opened.cases, *(plant.id for plant in plants)),
        structures=opened.structures,
        verdicts=opened.verdicts,
        reasons=opened.reasons,
        columns=rows,
    )


def _ordered(
    found: FoundItems, opened: WorkItems, weights: dict[str, float], model: MinutesModel, options: QueueOptions
) -> WorkOrder:
    """By gain per minute; for the model whole cases, worthy and unlike each other first."""
    order = greedy_order(opened, weighted(opened, weights), model)
    if options.goal == "pool" or not len(order.chosen):
        return order
    case = opened.case[order.chosen]
    number = len(opened.cases)
    gains = np.bincount(case, order.gain, minlength=number)
    minutes = np.bincount(case, order.minutes, minlength=number)
    is_there = np.flatnonzero(minutes > 0)
    features = standardised(found.judged.features[is_there])
    by_case = is_there[varied_order(gains[is_there] / minutes[is_there], features)]
    place_of = np.zeros(number, np.int64)
    place_of[by_case] = np.arange(len(by_case))
    chosen = order.chosen[np.argsort(place_of[case], kind="stable")]
    return _opened_once(opened, order, chosen, model)


def _opened_once(opened: WorkItems, order: WorkOrder, chosen: np.ndarray, model: MinutesModel) -> WorkOrder:
    """The same items in another order: whoever goes on in the same case need not open it."""
    gain_of = dict(zip(order.chosen.tolist(), order.gain.tolist()))
    case = opened.case[chosen]
    is_new = np.diff(case, prepend=-1) != 0
    return WorkOrder(
        chosen=chosen,
        gain=np.array([gain_of.get(item, 0.0) for item in chosen.tolist()]),
        minutes=model.minutes(opened.of(chosen).effort(is_new)),
    )


def _audit_first(
    opened: WorkItems, order: WorkOrder, to_read: Sequence[Pair], model: MinutesModel
) -> tuple[WorkOrder, np.ndarray]:
    """Items that the audit is still to read, in the order of their cases, before all others, and which these are."""
    case_of = {name: number for number, name in enumerate(opened.cases)}
    structure_of = {name: number for number, name in enumerate(opened.structures)}
    key = opened.case.astype(np.int64) * len(opened.structures) + opened.structure
    whole_of = dict(zip(key[opened.is_whole].tolist(), np.flatnonzero(opened.is_whole).tolist()))
    wanted = []
    for case, structure in sorted(to_read):
        if case in case_of and structure in structure_of:
            place = whole_of.get(case_of[case] * len(opened.structures) + structure_of[structure])
            if place is not None:
                wanted.append(place)
    others = order.chosen[~np.isin(order.chosen, wanted)]
    chosen = np.concatenate([np.array(wanted, np.int64), others])
    is_audit = np.arange(len(chosen)) < len(wanted)
    made = _opened_once(opened, order, chosen, model)
    # Minutes of correcting would tell how bad a mask is believed to be.
    is_new = np.diff(opened.case[chosen], prepend=-1) != 0
    right = replace(opened.of(chosen), wrong_slices=np.zeros(len(chosen)), wrong_mm2=np.zeros(len(chosen)))
    minutes = np.where(is_audit, model.minutes(right.effort(is_new)), made.minutes)
    return replace(made, minutes=minutes), is_audit


# ---- minutes ----


def minutes_of_ledger(items: WorkItems, ledger: Sequence[LedgerRow]) -> MinutesModel:
    """The minutes model of what people have measured in this folder so far."""
    if not ledger or not len(items):
        return MinutesModel()
    structures = np.array(items.structures, object)[items.structure]
    cases = np.array(items.cases, object)[items.case]
    place_of = {key: place for place, key in enumerate(zip(cases, structures, items.region.tolist()))}
    places = []
    minutes = []
    is_new = []
    seen: set[tuple[str, str, str]] = set()
    for row in ledger:
        session = (row.case, row.user, row.opened)
        place = place_of.get((row.case, row.structure, WHOLE if row.region is None else row.region))
        if place is not None:
            places.append(place)
            minutes.append(row.active_s / 60)
            is_new.append(session not in seen)
        seen.add(session)
    measured = items.of(np.array(places, np.int64)).effort(np.array(is_new, bool))
    return fitted_minutes(measured, minutes, _usual(items))


def _usual(items: WorkItems) -> Effort:
    """Structures as a whole, as they come when a case has several."""
    return items.of(items.is_whole).effort()


# ---- rows ----


def _rows(opened: WorkItems, order: WorkOrder, is_audit: np.ndarray) -> QueueColumns:
    chosen = opened.of(order.chosen)
    return QueueColumns(
        case=tuple(chosen.case.tolist()),
        structure=tuple(chosen.structure.tolist()),
        region=tuple(chosen.region.tolist()),
        role=tuple(is_audit.astype(int).tolist()),
        predicted_dice=_rounded(chosen.predicted),
        lower_bound=_rounded(chosen.lower),
        verdict=tuple(chosen.verdict.tolist()),
        reason=tuple(chosen.reason.tolist()),
        minutes=tuple(np.round(order.minutes, 3).tolist()),
        gain=tuple(np.round(order.gain, 5).tolist()),
    )


def _rounded(values: np.ndarray) -> tuple[float | None, ...]:
    rounded = np.round(values.astype(float), 4).tolist()
    return tuple(None if value != value else value for value in rounded)


def _with_plants(
    rows: QueueColumns, opened: WorkItems, plants: Sequence[Plant], places: int, seed: int
) -> QueueColumns:
    """Planted cases between the items that are likely to be worked, with what is told of those they are copies of."""
    left = [(number, plant) for number, plant in enumerate(plants) if not plant.is_answered]
    if not left:
        return rows
    known = {
        (case, structure): place
        for place, (case, structure, region) in enumerate(zip(rows.case, rows.structure, rows.region))
        if region == WHOLE
    }
    case_of = {name: number for number, name in enumerate(opened.cases)}
    structure_of = {name: number for number, name in enumerate(opened.structures)}
    rng = np.random.default_rng([seed, len(plants)])
    columns = {name: list(getattr(rows, name)) for name in QueueColumns.model_fields}
    told = {name: list(values) for name, values in columns.items()}
    for place, (number, plant) in reversed(list(zip(placed_among(len(left), places, rng), left))):
        # Where the true one is done already, what is told of the first item.
        source = known.get((case_of.get(plant.source, -1), structure_of.get(plant.structure, -1)), 0)
        for name, values in columns.items():
            values.insert(place, told[name][source] if told[name] else 0)
        columns["case"][place] = len(opened.cases) + number
        columns["structure"][place] = structure_of.get(plant.structure, 0)
        columns["region"][place] = WHOLE
        columns["role"][place] = ROLES.index("work")
    return QueueColumns(**{name: tuple(values) for name, values in columns.items()})


# ---- what others ask ----


def plantable(found: FoundItems, store: ReviewStore) -> list[Pair]:
    """Open structures of cases nobody has opened, whose masks are believed to be right: an error shows in no other."""
    items = found.items
    standings = store.standings()
    is_untouched = np.array([standings[case].state == "DRAFT" for case in items.cases], bool)
    is_untouched &= np.array([standings[case].version == 0 for case in items.cases], bool)
    is_fair = items.verdict != items.verdicts.index(DO_NOT_USE)
    chosen = found.is_open & items.is_whole & is_fair & (items.slices > 0)
    places = np.flatnonzero(chosen & is_untouched[items.case])
    return [(items.cases[items.case[n]], items.structures[items.structure[n]]) for n in places.tolist()]
