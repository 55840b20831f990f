"""In which order items are worked: most gain per minute first, and what belongs to one case together.

A suspected region stands before its structure where it pays more per minute than the structure as a whole, which then
keeps the rest of the gain. Opening a case costs minutes, which its open items share. When a case is open, its next item
is taken as long as it pays within KEPT_TOGETHER of the best one.
"""

# N items

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np

from segfw.worklist.minutes_model import MinutesModel
from segfw.worklist.work_items import WorkItems

KEPT_TOGETHER = 0.8  # of the best gain per minute


@dataclass(frozen=True, kw_only=True)
class WorkOrder:
    """Items in their order: ``chosen`` are their numbers, ``gain`` and ``minutes`` what each adds and takes there.

    Items that are part of another one and pay no more than it are not in it.
    """

    chosen: np.ndarray
    gain: np.ndarray
    minutes: np.ndarray

    @property
    def per_minute(self) -> np.ndarray:
        """Gain per minute, (N,)."""
        return self.gain / self.minutes

    def of(self, chosen: np.ndarray) -> WorkOrder:
        """Some of them, in that order."""
        return WorkOrder(chosen=self.chosen[chosen], gain=self.gain[chosen], minutes=self.minutes[chosen])


def greedy_order(items: WorkItems, gain: np.ndarray, model: MinutesModel) -> WorkOrder:
    """Items by gain per minute, with those of a case kept together.

    Parameters
    ----------
    items
        Open ones.
    gain
        Of each, weighted as is wished, (N,).
    model
        Of minutes.
    """
    minutes = model.minutes(items.effort())
    opening = model.minutes(items.effort(is_new=True)) - minutes
    chosen, gain = _split_off(items, gain, minutes)
    by_case = _by_case(items.case[chosen], gain[chosen] / minutes[chosen])
    heap = [
        (-_pays(gain, minutes, opening, chosen[places[0]], len(places)), number)
        for number, places in enumerate(by_case)
    ]
    heapq.heapify(heap)
    next_of = [0] * len(by_case)
    order: list[int] = []
    taken_minutes: list[float] = []
    while heap:
        _, number = heapq.heappop(heap)
        places = by_case[number]
        is_first = True
        while next_of[number] < len(places):
            item = chosen[places[next_of[number]]]
            pays = gain[item] / minutes[item]
            best_other = -heap[0][0] if heap else 0.0
            if not is_first and pays < KEPT_TOGETHER * best_other:
                break
            order.append(int(item))
            taken_minutes.append(float(minutes[item] + (opening[item] if is_first else 0.0)))
            is_first = False
            next_of[number] += 1
        left = len(places) - next_of[number]
        if left:
            item = chosen[places[next_of[number]]]
            heapq.heappush(heap, (-_pays(gain, minutes, opening, item, left), number))
    numbers = np.array(order, np.int64)
    return WorkOrder(chosen=numbers, gain=gain[numbers], minutes=np.array(taken_minutes))


def _pays(gain: np.ndarray, minutes: np.ndarray, opening: np.ndarray, item: int, open_items: int) -> float:
    """Gain per minute of the first item of a case, which bears its share of opening it."""
    return float(gain[item] / (minutes[item] + opening[item] / open_items))


def _by_case(case: np.ndarray, per_minute: np.ndarray) -> list[np.ndarray]:
    """Places of the items of each case, the best first; equal ones as they stand."""
    order = np.lexsort((np.arange(len(case)), -per_minute, case))
    starts = np.flatnonzero(np.diff(case[order])) + 1
    return [part for part in np.split(order, starts) if len(part)]


def _split_off(items: WorkItems, gain: np.ndarray, minutes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which items stand for themselves, and the gain of each: what regions take is missing of their structure."""
    left = gain.copy()
    is_whole = items.is_whole
    pair = items.case.astype(np.int64) * max(1, len(items.structures)) + items.structure
    whole_of = dict(zip(pair[is_whole].tolist(), np.flatnonzero(is_whole).tolist()))
    is_kept = is_whole.copy()
    regions = np.flatnonzero(~is_whole)
    regions = regions[np.argsort(-gain[regions] / minutes[regions], kind="stable")]
    for region in regions.tolist():
        whole = whole_of.get(int(pair[region]))
        if whole is None:  # its structure is done, and what is left of it with it
            continue
        if gain[region] / minutes[region] > left[whole] / minutes[whole]:
            is_kept[region] = True
            left[whole] = max(0.0, left[whole] - gain[region])
    return np.flatnonzero(is_kept), left
