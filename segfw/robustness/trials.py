"""Which changes are tried on an image, and how each is brought to it: through a file, in memory, or by arithmetic."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from segfw.images.geometry import axis_order
from segfw.images.volume import Volume
from segfw.perturbations.perturbation import Perturbation
from segfw.perturbations.perturbing import SERIES, is_possible, perturbations_of
from segfw.perturbations.stored_forms import ALL_AXIS_ORDERS, FORMS, can_hold
from segfw.planning.plan import Configuration

AGAIN = "same again"
AXES = "axis order"
ORIGIN = "origin"
PRECISION = "other precision"
AXIS_ORDERS = 4  # of the 47 others
AFFINE = ("zscore", "rescale")  # normalisations that take scale and offset out


def trials_of(
    volume: Volume, configurations: Sequence[Configuration], *, is_quick: bool, has_other_precision: bool
) -> list[Perturbation]:
    """The changes for one image, exact ones first."""
    kinds = {rule.kind for one in configurations for rule in one.preprocessing.normalization}
    trials = [Perturbation(name=AGAIN, kind="exact")]
    if volume.is_placed and not volume.is_picture:
        orders = 1 if is_quick else AXIS_ORDERS
        trials += [Perturbation(name=f"{AXES} {number}", kind="exact") for number in range(1, orders + 1)]
        trials.append(Perturbation(name=ORIGIN, kind="exact"))
    trials += [Perturbation(name=form, kind="exact") for form in FORMS if can_hold(volume, form)]
    if has_other_precision and not is_quick:
        trials.append(Perturbation(name=PRECISION, kind="near"))
    for name in SERIES:
        is_asked = name != "other scale" or kinds <= set(AFFINE)
        is_asked &= name != "streaks" or kinds == {"ct"}
        if is_asked and is_possible(volume, name):
            trials += perturbations_of(name, is_quick=is_quick)
    return trials


def drawn_order(volume: Volume, case_id: str, perturbation: Perturbation) -> str:
    """An order of axes other than the file's own; those of one case differ."""
    own = axis_order(volume.geometry)
    others = [order for order in ALL_AXIS_ORDERS if order != own]
    drawn = generator(case_id, AXES).permutation(len(others))
    number = int(perturbation.name.rsplit(" ", 1)[1])
    return others[int(drawn[number - 1])]


def generator(case_id: str, name: str) -> np.random.Generator:
    """Of one case and one kind of change; all levels draw alike, so that a curve is of one noise that grows."""
    digest = hashlib.sha256(f"{case_id}\0{name}".encode("utf-8", "surrogateescape")).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))
