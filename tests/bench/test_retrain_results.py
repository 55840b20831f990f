"""The table of the simulated expert's rounds, of made-up seeds whose gains are known."""

import numpy as np
import pytest

from bench.result_lines import append_line, read_lines
from bench.retrain.retrain_results import (
    COMPARED,
    STRUCTURES,
    ModelResult,
    RetrainResult,
    as_markdown,
    is_promoted,
)

CASES = [f"case_{number}" for number in range(12)]


def seed_of(number, gain):
    """Every model has the Dice of the base, but queue_1 that and ``gain``, in all cases and both structures."""
    rng = np.random.default_rng(3)
    base = {case: {name: float(rng.uniform(0.6, 0.8)) for name in STRUCTURES} for case in CASES}
    better = {case: {name: dice + gain for name, dice in by_name.items()} for case, by_name in base.items()}
    names = dict.fromkeys([name for pair in COMPARED for name in pair[:2]])
    models = {
        name: ModelResult(steps=100 + number, minutes=1.5, cases=better if name == "queue_1" else base)
        for name in names
    }
    return RetrainResult(
        seed=number,
        old_cases=32,
        validation_cases=8,
        batch=24,
        first_minutes=2.5,
        length_share=0.3,
        processor="a processor",
        version="0.1.0",
        configuration="3d_fullres",
        shared_by_queue_and_random=5,
        models=models,
    )


def test_gains_are_means_over_seeds_and_stand_beside_each_seed(tmp_path):
    append_line(tmp_path / "retrain.jsonl", seed_of(1, 0.03))
    append_line(tmp_path / "retrain.jsonl", seed_of(0, 0.01))
    append_line(tmp_path / "retrain.jsonl", seed_of(0, 0.02))  # done again
    results = read_lines(RetrainResult, tmp_path / "retrain.jsonl")
    assert [result.seed for result in results] == [1, 0]
    rows = as_markdown(results).splitlines()
    row = next(row for row in rows if "queue_1 over control_1" in row)
    assert "| +0.0250 | +0.0250 to +0.0250 | +0.0200, +0.0300 | yes, yes |" in row
    row = next(row for row in rows if "control_1 over base" in row)
    assert "| +0.0000 | +0.0000 to +0.0000 |" in row
    row = next(row for row in rows if "queue_2 over control_2" in row)
    assert row.endswith("| no, no |")
    assert next(row for row in rows if row.startswith("| base |")).startswith("| base | 100 | 1.50 | 0.")


@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_structure_that_lost_is_not_promoted(structure):
    result = seed_of(0, 0.05)
    for by_name in result.models["queue_1"].cases.values():
        by_name[structure] -= 0.065
    assert is_promoted(seed_of(0, 0.05), "queue_1", "control_1")
    assert not is_promoted(result, "queue_1", "control_1")
