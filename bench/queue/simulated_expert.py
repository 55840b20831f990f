"""A simulated expert works a pool in one order or another: Dice of the pool over the minutes that he takes."""

# N items of a pool: structures as a whole and suspected regions

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bench.queue.true_items import OPEN, TrueStructure
from segfw.worklist.minutes_model import MinutesModel, fitted_minutes
from segfw.worklist.work_items import WHOLE, WorkItems
from segfw.worklist.work_order import greedy_order

REFITS = 10  # times that the queue is made anew while it is worked, at equal shares of the minutes


@dataclass(frozen=True, kw_only=True)
class DrawnPool:
    """Versions of cases that were drawn, each a case of its own, and what arms go by.

    ``true`` is that of each item's structure; the rest is of structures as a whole, NaN of regions.
    """

    items: WorkItems
    true: list[TrueStructure]
    pair: np.ndarray
    doubtful: np.ndarray
    entropy: np.ndarray

    @property
    def whole(self) -> np.ndarray:
        """Numbers of the structures as a whole."""
        return np.flatnonzero(self.items.is_whole)


@dataclass(kw_only=True)
class Worked:
    """What was done so far: the minutes after each item, and the mean Dice of all structures from then on."""

    pool: DrawnPool
    rule: str
    minutes: list[float]
    dice: list[float]
    done: dict[int, frozenset[int]]
    of_whole: dict[tuple[int, int], int]
    now: dict[int, float]
    open_case: int = -1

    @classmethod
    def begin(cls, pool: DrawnPool, rule: str) -> Worked:
        """Before anything is done."""
        items = pool.items
        wholes = pool.whole.tolist()
        now = {item: pool.true[item].after(frozenset())[0] for item in wholes}
        return cls(
            pool=pool,
            rule=rule,
            minutes=[0.0],
            dice=[sum(now.values()) / len(now)],
            done={item: frozenset() for item in wholes},
            of_whole={(int(items.case[item]), int(items.structure[item])): item for item in wholes},
            now=now,
        )

    def whole_of(self, item: int) -> int:
        """The structure that an item is of."""
        items = self.pool.items
        return self.of_whole[int(items.case[item]), int(items.structure[item])]

    def is_done(self, item: int) -> bool:
        """Whether it was corrected, by itself or with its structure."""
        done = self.done[self.whole_of(item)]
        return WHOLE in done or int(self.pool.items.region[item]) in done

    def do(self, item: int) -> tuple[float, bool]:
        """Corrects an item; returns the minutes it took and whether the case had to be opened."""
        case = int(self.pool.items.case[item])
        is_new = case != self.open_case
        whole = self.whole_of(item)
        region = int(self.pool.items.region[item])
        taken = self.pool.true[item].minutes(region, self.done[whole], self.rule) + OPEN * is_new
        self.open_case = case
        self.done[whole] |= {region}
        dice = self.pool.true[item].after(self.done[whole])[0]
        total = self.dice[-1] + (dice - self.now[whole]) / len(self.now)
        self.now[whole] = dice
        self.minutes.append(self.minutes[-1] + taken)
        self.dice.append(total)
        return taken, is_new


Arm = Callable[[DrawnPool, str, np.random.Generator], Worked]


def in_order(pool: DrawnPool, rule: str, order: Sequence[int]) -> Worked:
    """Works the items one after the other."""
    worked = Worked.begin(pool, rule)
    for item in order:
        worked.do(int(item))
    return worked


def by_score(pool: DrawnPool, rule: str, score_n: np.ndarray, rng: np.random.Generator) -> Worked:
    """Structures as a whole, the smallest score first; of equal ones, and of NaN, which come first, as is drawn."""
    wholes = pool.whole
    score = np.nan_to_num(score_n[wholes], nan=-np.inf)
    return in_order(pool, rule, wholes[np.lexsort((rng.random(len(wholes)), score))].tolist())


def by_case(pool: DrawnPool, rule: str, score_c: np.ndarray) -> Worked:
    """All structures of the case with the smallest score, and so on."""
    wholes = pool.whole
    return in_order(pool, rule, wholes[np.argsort(score_c[pool.items.case[wholes]], kind="stable")].tolist())


# ---- arms ----


def random_item(pool: DrawnPool, rule: str, rng: np.random.Generator) -> Worked:
    """In any order."""
    return in_order(pool, rule, rng.permutation(pool.whole).tolist())


def random_case(pool: DrawnPool, rule: str, rng: np.random.Generator) -> Worked:
    """Whole cases in any order."""
    return by_case(pool, rule, rng.random(len(pool.items.cases)))


def monai_label(pool: DrawnPool, rule: str, _: np.random.Generator) -> Worked:
    """Whole cases by the mean entropy of all voxels of the image, the highest first."""
    scores = np.zeros(len(pool.items.cases))
    scores[pool.items.case[pool.whole]] = -pool.entropy[pool.whole]
    return by_case(pool, rule, scores)


def abdomen_atlas(pool: DrawnPool, rule: str, rng: np.random.Generator) -> Worked:
    """Structures by their number of doubtful voxels, the most first."""
    return by_score(pool, rule, -pool.doubtful, rng)


def pairwise(pool: DrawnPool, rule: str, rng: np.random.Generator) -> Worked:
    """Structures by how little the folds agree."""
    return by_score(pool, rule, pool.pair, rng)


def by_quality(pool: DrawnPool, rule: str, rng: np.random.Generator) -> Worked:
    """Structures by their predicted Dice: the queue without minutes, and without keeping cases together."""
    return by_score(pool, rule, pool.items.quality.astype(float), rng)


def oracle(pool: DrawnPool, rule: str, _: np.random.Generator) -> Worked:
    """Structures by what they truly gain per minute, cases kept together as in the queue."""
    wholes = pool.whole
    gain = np.array([1 - pool.true[item].after(frozenset())[0] for item in wholes])
    minutes = np.array([max(1e-3, pool.true[item].minutes(WHOLE, frozenset(), rule)) for item in wholes])
    order = _greedy_by(pool.items.case[wholes], gain, minutes)
    return in_order(pool, rule, wholes[order].tolist())


def _greedy_by(case: np.ndarray, gain: np.ndarray, minutes: np.ndarray) -> list[int]:
    """The best of what is left, with the opening of another case counted."""
    left = set(range(len(case)))
    order: list[int] = []
    open_case = -1
    per_minute = gain / minutes
    paid = gain / (minutes + OPEN)
    while left:
        numbers = np.array(sorted(left))
        value = np.where(case[numbers] == open_case, per_minute[numbers], paid[numbers])
        best = int(numbers[np.argmax(value)])
        order.append(best)
        left.remove(best)
        open_case = int(case[best])
    return order


def oracle_with_regions(pool: DrawnPool, rule: str, _: np.random.Generator) -> Worked:
    """Of all items, suspected regions among them, always the one that truly gains most per minute now."""
    items = pool.items
    worked = Worked.begin(pool, rule)
    whole_of = np.array([worked.whole_of(item) for item in range(len(items))])
    per_minute = np.zeros((2, len(items)))  # of cases that are open, and that have to be opened
    stale = set(worked.done)
    is_left = np.ones(len(items), bool)
    while is_left.any():
        for item in np.flatnonzero(np.isin(whole_of, list(stale)) & is_left).tolist():
            done = worked.done[whole_of[item]]
            region = int(items.region[item])
            gain = pool.true[item].after(done | {region})[0] - worked.now[whole_of[item]]
            minutes = max(1e-3, pool.true[item].minutes(region, done, rule))
            per_minute[:, item] = gain / minutes, gain / (minutes + OPEN)
        value = np.where(items.case == worked.open_case, per_minute[0], per_minute[1])
        best = int(np.argmax(np.where(is_left, value, -np.inf)))
        worked.do(best)
        stale = {int(whole_of[best])}
        is_left[whole_of == whole_of[best]] &= int(items.region[best]) != WHOLE
        is_left[best] = False
    return worked


def ours(*, regions: bool, minutes: bool, refits: bool) -> Arm:
    """The queue of segfw: with regions as items or without, by minutes or by gain alone, learning minutes or not."""

    def work(pool: DrawnPool, rule: str, _: np.random.Generator) -> Worked:
        items = pool.items
        usable = np.arange(len(items)) if regions else pool.whole
        worked = Worked.begin(pool, rule)
        model = MinutesModel()
        measured: list[int] = []
        taken: list[float] = []
        is_new: list[bool] = []
        turns = REFITS if refits else 1
        left = usable
        share = max(1, len(pool.whole) // turns)
        while len(left):
            own = items.of(left)
            order = _order(own, model, by_minutes=minutes)
            for item in left[order][: share if refits else None].tolist():
                spent, opened = worked.do(item)
                measured.append(item)
                taken.append(spent)
                is_new.append(opened)
            effort = items.of(np.array(measured)).effort(np.array(is_new))
            model = fitted_minutes(effort, taken, items.of(pool.whole).effort())
            left = np.array([item for item in usable.tolist() if not worked.is_done(item)], np.int64)
        return worked

    return work


def _order(items: WorkItems, model: MinutesModel, *, by_minutes: bool) -> np.ndarray:
    """Without minutes all items take the same, but opening a case costs all the same, so that cases stay together."""
    if by_minutes:
        return greedy_order(items, items.gain, model).chosen
    alike = replace(
        items,
        slices=np.full(len(items), items.slices.mean()),
        wrong_slices=np.full(len(items), items.wrong_slices.mean()),
        wrong_mm2=np.full(len(items), items.wrong_mm2.mean()),
    )
    return greedy_order(alike, items.gain, MinutesModel()).chosen


ARMS: dict[str, Arm] = {
    "random item": random_item,
    "random case": random_case,
    "MONAI Label (mean entropy, cases)": monai_label,
    "AbdomenAtlas (voxels of doubt)": abdomen_atlas,
    "pairwise fold Dice": pairwise,
    "predicted Dice, no minutes": by_quality,
    "ours, all items equally long": ours(regions=False, minutes=False, refits=False),
    "ours without regions, minutes assumed": ours(regions=False, minutes=True, refits=False),
    "ours without regions": ours(regions=False, minutes=True, refits=True),
    "ours with regions": ours(regions=True, minutes=True, refits=True),
    "oracle": oracle,
    "oracle with regions": oracle_with_regions,
}
