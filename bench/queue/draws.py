"""Twenty pools, half clean and half spoilt, worked by every arm; and more of patients drawn anew, for intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np

from bench.figures import markdown
from bench.queue.pools import MASKS, version_name
from bench.queue.simulated_expert import ARMS, DrawnPool, Worked
from bench.queue.true_items import RULES, TruePool
from segfw.base.progress import progress
from segfw.base.records import Record
from segfw.quality.case_quality import CaseQuality, quality_file
from segfw.quality.quality_model import CLEAN
from segfw.worklist.judged_items import judged_items
from segfw.worklist.work_items import WorkItems

SHARES = (0.1, 0.2, 0.4)
BOOTSTRAPS = 100
RANDOM = "random item"
ORACLE = "oracle"
BASE = "ours, all items equally long"
CASES = "MONAI Label (mean entropy, cases)"


class Difference(Record):
    """A mean, and its interval by patients drawn anew."""

    mean: float
    low: float
    high: float

    @property
    def text(self) -> str:
        """'+0.0041 (+0.0025 to +0.0057)'."""
        return f"{self.mean:+.4f} ({self.low:+.4f} to {self.high:+.4f})"


class ArmResult(Record):
    """Means over the draws; ``low`` and ``high`` are of patients drawn anew. ``less_base`` is the area less that of
    the same queue without a model of minutes, ``less_cases`` less that of whole cases by mean entropy (MONAI Label)."""

    arm: str
    dice_at: tuple[float, ...]
    area: float
    area_low: float
    area_high: float
    of_the_way: float  # from random item (0) to oracle (1)
    beats: int  # draws with a larger area than random item, MONAI Label and AbdomenAtlas
    less_base: Difference
    less_cases: Difference


class QueueResult(Record):
    """A pool under one rule of minutes. ``horizon`` are the minutes of all cases one after the other."""

    name: str
    rule: str
    draws: int
    cases: int
    structures: int
    patients: int
    start_dice: float
    horizon: float
    volume_ratio: float  # of the largest mean volume of a structure to the smallest
    minutes_ratio: float  # of the 95th percentile of an item's minutes to the 5th
    arms: tuple[ArmResult, ...]

    @property
    def key(self) -> tuple[str, str]:
        """What tells results apart."""
        return self.name, self.rule

    @property
    def markdown(self) -> str:
        """The table."""
        title = (
            f"**{self.name}, minutes {self.rule}** ({self.draws} draws of {self.cases} cases of {self.patients} "
            f"patients x {self.structures} structures, half of them spoilt; mean Dice {self.start_dice:.3f} at first; "
            f"all cases one after the other take {self.horizon:.0f} min; the largest structure is "
            f"{self.volume_ratio:.0f} times the smallest, minutes of items differ {self.minutes_ratio:.0f}-fold)"
        )
        head = ["order", "Dice at 10 %", "20 %", "40 % of the minutes", "area", "of the way", "beats the first three"]
        rows = [[*head, "area less MONAI Label's", "area less that without minutes"]]
        for arm in self.arms:
            row = [arm.arm, *(f"{value:.3f}" for value in arm.dice_at)]
            row += [f"{arm.area:.4f} ({arm.area_low:.4f} to {arm.area_high:.4f})", f"{arm.of_the_way:.2f}"]
            rows.append([*row, f"{arm.beats} of {self.draws}", arm.less_cases.text, arm.less_base.text])
        return f"{title}\n\n{markdown(rows)}"


def drawn_results(folder: Path, draws: int) -> list[QueueResult]:
    """Of a pool, a result for each rule of minutes."""
    pool = TruePool.read(folder)
    return [_result(pool, rule, draws) for rule in RULES]


def _result(pool: TruePool, rule: str, draws: int) -> QueueResult:
    judged = _Judged(pool)
    cases = sorted(pool.facts.versions)
    curves: dict[str, list[Worked]] = {arm: [] for arm in ARMS}
    horizons = []
    for seed in progress(f"draws, minutes {rule}", range(draws)):
        rng = np.random.default_rng(seed)
        drawn = judged.drawn(half_spoilt(pool, cases, rng))
        horizons.append(_work_all(drawn, rule, rng, curves))
    again: dict[str, list[float]] = {arm: [] for arm in ARMS}
    patients = sorted(set(pool.facts.patient_of.values()))
    of_patient = {one: [case for case in cases if pool.facts.patient_of[case] == one] for one in patients}
    for seed in progress(f"patients drawn anew, minutes {rule}", range(BOOTSTRAPS)):
        rng = np.random.default_rng([seed, 1])
        chosen = [case for one in rng.choice(patients, len(patients)).tolist() for case in of_patient[one]]
        drawn = judged.drawn(half_spoilt(pool, chosen, rng))
        found: dict[str, list[Worked]] = {arm: [] for arm in ARMS}
        horizon = _work_all(drawn, rule, rng, found)
        for arm, works in found.items():
            again[arm].append(area_under(works[0], horizon))
    areas = {
        arm: np.array([area_under(work, horizon) for work, horizon in zip(works, horizons)])
        for arm, works in curves.items()
    }
    arms = tuple(_arm(arm, curves[arm], horizons, areas, again) for arm in ARMS)
    return QueueResult(
        name=pool.facts.name,
        rule=rule,
        draws=draws,
        cases=len(cases),
        structures=len(pool.facts.labels.structures),
        patients=len(patients),
        start_dice=float(np.mean([work.dice[0] for work in curves[RANDOM]])),
        horizon=float(np.mean(horizons)),
        volume_ratio=_volume_ratio(pool),
        minutes_ratio=_minutes_ratio(curves["random case"]),
        arms=arms,
    )


def half_spoilt(pool: TruePool, cases: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Names of versions: a drawn half of the cases spoilt in one of its ways, the others clean."""
    is_spoilt = rng.permutation(len(cases)) < len(cases) // 2
    names = []
    for case, spoil in zip(cases, is_spoilt.tolist()):
        shifts = [shift for shift in pool.facts.versions[case] if shift != CLEAN]
        names.append(version_name(case, str(rng.choice(shifts)) if spoil else CLEAN))
    return names


def _work_all(drawn: DrawnPool, rule: str, rng: np.random.Generator, found: dict[str, list[Worked]]) -> float:
    """Every arm once; returns the minutes of all cases one after the other."""
    for arm, work in ARMS.items():
        found[arm].append(work(drawn, rule, rng))
    return found["random case"][-1].minutes[-1]


class _Judged:
    """What is told of every version, read once."""

    def __init__(self, pool: TruePool) -> None:
        names = sorted({name for name, _ in pool.structures})
        folder = pool.folder / MASKS
        self._pool = pool
        self._items = judged_items(folder, names).items
        self._number_of = {name: number for number, name in enumerate(self._items.cases)}
        self._features: dict[tuple[str, str], dict[str, float | None]] = {}
        for name in names:
            for each in CaseQuality.load(quality_file(folder, name)).structures:
                self._features[name, each.label] = each.features

    def drawn(self, names: Sequence[str]) -> DrawnPool:
        """A pool of some versions, each a case of its own, also where one was drawn twice."""
        parts = []
        for number, name in enumerate(names):
            rows = np.flatnonzero(self._items.case == self._number_of[name])
            parts.append((number, rows))
        rows = np.concatenate([rows for _, rows in parts])
        chosen = self._items.of(rows)
        case = np.concatenate([np.full(len(rows), number, np.int32) for number, rows in parts])
        values = {each.name: getattr(chosen, each.name) for each in fields(chosen)}
        values["case"] = case
        values["cases"] = tuple(f"{number}: {name}" for number, name in enumerate(names))
        items = WorkItems(**values)
        keys = [(names[c], items.structures[s]) for c, s in zip(items.case.tolist(), items.structure.tolist())]
        told = [self._features[key] for key in keys]
        return DrawnPool(
            items=items,
            true=[self._pool.structures[key] for key in keys],
            pair=_column(told, "pair"),
            doubtful=_column(told, "doubtful_voxels"),
            entropy=_column(told, "image_entropy"),
        )


def _column(told: Sequence[dict[str, float | None]], name: str) -> np.ndarray:
    values = [features.get(name) for features in told]
    return np.array([np.nan if value is None else value for value in values], float)


# ---- figures ----


def area_under(work: Worked, horizon: float) -> float:
    """Mean Dice over the minutes until the horizon; an item counts from when it is done."""
    minutes = np.minimum(np.array([*work.minutes, horizon]), horizon)
    return float((np.diff(minutes) * np.array(work.dice)).sum() / horizon)


def dice_at(work: Worked, minutes: float) -> float:
    """Mean Dice after so many minutes."""
    return work.dice[int(np.searchsorted(work.minutes, minutes + 1e-9)) - 1]


def _arm(
    arm: str,
    works: Sequence[Worked],
    horizons: Sequence[float],
    areas: dict[str, np.ndarray],
    again: dict[str, list[float]],
) -> ArmResult:
    own = areas[arm]
    first = [name for name in ARMS if name.startswith((RANDOM, "MONAI", "AbdomenAtlas"))]
    beats = np.all([own > areas[name] for name in first if name != arm], axis=0)
    span = float((areas[ORACLE] - areas[RANDOM]).mean())
    low, high = np.percentile(again[arm], (2.5, 97.5)).tolist()
    return ArmResult(
        arm=arm,
        dice_at=tuple(
            float(np.mean([dice_at(work, share * horizon) for work, horizon in zip(works, horizons)]))
            for share in SHARES
        ),
        area=float(own.mean()),
        area_low=low,
        area_high=high,
        of_the_way=float((own - areas[RANDOM]).mean()) / span,
        beats=int(beats.sum()),
        less_base=_less(arm, BASE, areas, again),
        less_cases=_less(arm, CASES, areas, again),
    )


def _less(arm: str, other: str, areas: dict[str, np.ndarray], again: dict[str, list[float]]) -> Difference:
    """The area of an arm less that of another one, by the same draws."""
    low, high = np.percentile(np.array(again[arm]) - np.array(again[other]), (2.5, 97.5)).tolist()
    return Difference(mean=float((areas[arm] - areas[other]).mean()), low=low, high=high)


def _volume_ratio(pool: TruePool) -> float:
    voxels: dict[str, list[float]] = {}
    for (name, structure), true in pool.structures.items():
        if name.endswith(f"__{CLEAN}") and true.expert.any():
            voxels.setdefault(structure, []).append(float(true.expert.sum()))
    means = [float(np.mean(values)) for values in voxels.values()]
    return max(means) / min(means)


def _minutes_ratio(works: Sequence[Worked]) -> float:
    taken = np.concatenate([np.diff(work.minutes) for work in works])
    low, high = np.percentile(taken, (5, 95)).tolist()
    return high / max(low, 1e-3)
