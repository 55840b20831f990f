"""How often each case is in a batch: by the weights of its fold, in training alone."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from builders.training import FOLD, prepare, request
from segfw.training.prepare import fresh_or_resumed, prepare_run

CPU = torch.device("cpu")
WEIGHTS = (1.0, 1.0, 0.5)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("weighted"))


def run_of(prepared, folder, fold):
    folder.mkdir()
    asked = request(prepared, folder, fold=fold, batch_size=4)
    run = prepare_run(asked, None, CPU, fresh_or_resumed(asked, asked.settings, CPU))
    run.checkpoints.close()
    return run


def drawn(batches, steps):
    return [[patch.case for patch in batches.cut(step).patches] for step in range(steps)]


def test_batches_hold_cases_by_their_weights_and_validation_all_alike(prepared, tmp_path):
    """Of 1600 samples two fifths are of each of the first cases and one fifth of the last, within 3 standard errors."""
    run = run_of(prepared, tmp_path / "run", FOLD.model_copy(update={"weights": WEIGHTS}))
    (batches,) = run.stage_batches
    times = Counter(case for step in drawn(batches, 400) for case in step)
    shares = np.array([times[case] / 1600 for case in range(3)])
    wanted = np.array([0.4, 0.4, 0.2])
    assert np.all(np.abs(shares - wanted) < 3 * np.sqrt(wanted * (1 - wanted) / 1600))
    assert not run.val_batches.weights


def test_weights_that_are_all_alike_draw_evenly(prepared, tmp_path):
    plain = run_of(prepared, tmp_path / "plain", FOLD).stage_batches[0]
    assert not plain.weights
    even = replace(plain, weights=(1.0, 1.0, 1.0))
    times = Counter(case for step in drawn(even, 300) for case in step)
    assert np.all(np.abs(np.array([times[case] / 1200 for case in range(3)]) - 1 / 3) < 3 * np.sqrt(2 / 9 / 1200))
