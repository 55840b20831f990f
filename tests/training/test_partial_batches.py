"""Batches of cases that are annotated in part: what goes with each patch, and how sources are mixed."""

import numpy as np
import pytest
import torch

from segfw.dataset.labels import LabelSet
from segfw.grid.store import CaseArrays
from segfw.planning.mirroring import output_orders
from segfw.training.batches import Batches
from segfw.training.sampling import TRAINING_STREAM

LEFT_DRAWN = (True, True, False)  # background, left, right
ALL_DRAWN = (True, True, True)
LABELS = LabelSet(names=("background", "left kidney", "right kidney"), values=(0, 1, 2))
SHAPE = (12, 14, 16)


def case_of(value: int) -> CaseArrays:
    """One structure, to the one end of the last axis."""
    classes = np.zeros(SHAPE, np.uint8)
    classes[3:9, 4:10, 2:6] = value
    image = np.random.default_rng(value).normal(size=(1, *SHAPE)).astype(np.float16)
    return CaseArrays(
        image=image, classes=classes, foreground={value: np.flatnonzero(classes.ravel() == value).astype(np.uint32)}
    )


def batches_of(cases, annotated, **changes) -> Batches:
    swapped = {2: ((1, 2),)}
    settings = {
        "patch_size": (8, 8, 8),
        "batch_size": 2,
        "seed": 3,
        "stream": TRAINING_STREAM,
        "augmentation": "device",
        "mirror_axes": (0, 1, 2),
        "foreground_share": 1.0,
        "swapped": swapped,
        "output_orders": output_orders(swapped, LABELS),
    }
    return Batches(cases=cases, annotated_outputs=annotated, **settings | changes)


def test_where_left_and_right_change_places_so_does_what_is_annotated():
    batches = batches_of([case_of(1)], [LEFT_DRAWN])
    seen = set()
    for step in range(20):
        cut = batches.cut(step)
        rows = batches.annotated_in(cut)
        assert rows.dtype == torch.bool
        _, classes = batches.finish(cut, torch.device("cpu"))
        for patch, row, mask in zip(cut.patches, rows.tolist(), classes):
            is_mirrored = 2 in patch.spatial.mirrored
            assert row == ([True, False, True] if is_mirrored else [True, True, False])
            present = set(mask.unique().tolist()) - {0}
            assert all(row[value] for value in present)
            seen.add((is_mirrored, *present))
    assert {(True, 2), (False, 1)} <= seen


def test_where_all_is_annotated_in_every_case_nothing_is_said_and_draws_are_as_ever():
    usual = batches_of([case_of(1), case_of(2)], ())
    alike = batches_of([case_of(1), case_of(2)], [LEFT_DRAWN, LEFT_DRAWN])
    for step in range(5):
        assert usual.annotated_in(usual.cut(step)) is None
        assert [patch.case for patch in usual.cut(step).patches] == [patch.case for patch in alike.cut(step).patches]


def test_a_source_is_drawn_by_the_root_of_its_cases():
    """Nine cases of one kind and one of another: 3 to 1 and not 9 to 1."""
    cases = [case_of(1) for _ in range(10)]
    batches = batches_of(cases, [ALL_DRAWN] * 9 + [LEFT_DRAWN])
    drawn = [patch.case for step in range(400) for patch in batches.cut(step).patches]
    assert drawn.count(9) / len(drawn) == pytest.approx(1 / 4, abs=0.06)
    counts = [drawn.count(case) for case in range(9)]
    assert min(counts) > 0.5 * sum(counts) / 9


def test_weights_that_are_given_count_within_a_source():
    cases = [case_of(1) for _ in range(4)]
    batches = batches_of(cases, [ALL_DRAWN] * 2 + [LEFT_DRAWN] * 2, weights=(3.0, 1.0, 1.0, 3.0))
    drawn = [patch.case for step in range(400) for patch in batches.cut(step).patches]
    shares = [drawn.count(case) / len(drawn) for case in range(4)]
    assert shares == pytest.approx([3 / 8, 1 / 8, 1 / 8, 3 / 8], abs=0.06)
