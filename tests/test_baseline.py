"""Losses, masks, plans, scores and help texts are those that are stored: a change of them is seen and decided upon.

Commit af6f1b4 stored the figures; help texts are stored anew with each change that is meant (baselines.py says how).
Plans and help are equal everywhere. Losses, masks and scores are equal to the bit on the kind of processor and the
version of PyTorch that stored them (cpu_kind.py), and elsewhere nearly: to 1e-3 of a loss, 1e-2 with 16-bit arithmetic,
1 % of the voxels, 0.05 of a Dice.
"""

from __future__ import annotations

import json
import sys

import pytest
import torch
from baselines import FIGURES_FILE, HELP_FOLDER, demo_scores, help_texts, masks, plans, training
from cpu_kind import NEARLY, NEARLY_ALL_VOXELS, cpu_kind

STORED = json.loads(FIGURES_FILE.read_text())
IS_SAME_CPU = STORED["cpu_kind"] == cpu_kind()
RELATIVE = {"fp32": NEARLY, "bf16": 10 * NEARLY}
HELP_WRITTEN_BY = (3, 11)  # argparse of other versions of Python may break lines elsewhere
ACCEPT_HELP = "if the change is meant: python tests/baselines.py help, and review git diff tests/data/help"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """As when the figures were stored: sums of several threads may round differently."""
    torch.set_num_threads(1)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_twenty_steps_have_the_stored_losses(precision, tmp_path):
    found = training(tmp_path, precision)
    stored = STORED["training"][precision]
    assert len(stored["train_loss"]) == 20
    assert found["learning_rate"] == pytest.approx(stored["learning_rate"], rel=1e-12)
    if IS_SAME_CPU:
        assert found == stored
    else:
        for name in ("train_loss", "val_loss"):
            assert found[name] == pytest.approx(stored[name], rel=RELATIVE[precision], abs=RELATIVE[precision])


def test_small_models_make_the_stored_masks(tmp_path):
    found = masks(tmp_path)
    stored = STORED["masks"]
    assert found.keys() == stored.keys()
    for name, mask in stored.items():
        if IS_SAME_CPU:
            assert found[name] == mask, name
        else:
            size = sum(mask["voxels"].values())
            for value in mask["voxels"].keys() | found[name]["voxels"].keys():
                change = found[name]["voxels"].get(value, 0) - mask["voxels"].get(value, 0)
                assert abs(change) <= NEARLY_ALL_VOXELS * size, (name, value)


def test_plans_of_the_golden_data_sets_are_the_stored_ones():
    found = plans()
    stored = STORED["plans"]
    assert found.keys() == stored.keys()
    changed = [
        f"{name}: {part}"
        for name, parts in stored.items()
        for part in parts.keys() | found[name].keys()
        if found[name].get(part) != parts.get(part)
    ]
    assert changed == []


def test_a_small_demo_has_the_stored_scores(tmp_path):
    found = demo_scores(tmp_path)
    stored = STORED["demo"]
    assert found.keys() == stored.keys()
    if IS_SAME_CPU:
        for label, scores in stored.items():
            # Python 3.12 began to add floats with compensation.
            assert found[label] == pytest.approx(scores, rel=1e-12), label
    else:
        for label, scores in stored.items():
            assert found[label]["dice"] == pytest.approx(scores["dice"], abs=0.05), label


def test_every_help_text_is_the_stored_one():
    found = help_texts()
    stored = {path.name: path.read_text() for path in HELP_FOLDER.glob("*.txt")}
    assert found.keys() == stored.keys(), ACCEPT_HELP
    for name, text in stored.items():
        if sys.version_info[:2] == HELP_WRITTEN_BY:
            assert found[name] == text, f"segfw {name.removesuffix('.txt')} --help has changed; {ACCEPT_HELP}"
        else:
            assert set(found[name].split()) == set(text.split()), f"{name} has changed; {ACCEPT_HELP}"
