"""What is compared for speed gives the same results, in small."""

import numpy as np
import pytest
import torch

from bench import memory, speed
from bench.evaluation import evaluation, organ_masks
from bench.timing import alternate, report


def test_resampling_agrees_with_scipy(capsys):
    assert speed.resampling((12, 40, 36), (12, 27, 31), 1) < 1e-5
    assert "cubic resampling, 12x40x36 -> 12x27x31: scipy" in capsys.readouterr().out


def test_restoring_agrees_with_full_size_logits(capsys):
    torch.manual_seed(0)
    # Noise is hardest: a voxel differs where two classes are equal but for rounding.
    assert speed.restoring(4, (8, 10, 12), (12, 20, 24), 1) < 1e-3
    assert "restore of 4 classes of noise to 12x20x24" in capsys.readouterr().out


def test_augmentation_of_both_kinds_runs(capsys):
    threads = torch.get_num_threads()
    speed.augmentation(2, 1)
    assert torch.get_num_threads() == threads
    assert capsys.readouterr().out.startswith("augmentation of 2 patches: batchgenerators ")


def test_precisions_are_compared_for_training_and_for_prediction(capsys, monkeypatch):
    timed = []

    def made(kind):
        return lambda precision, *_, **__: lambda: timed.append((kind, precision))

    monkeypatch.setattr(speed, "step_of", made("training"))
    monkeypatch.setattr(speed, "_prediction_of", made("prediction"))
    gains = speed.precision(1)
    both = [torch.float32, torch.bfloat16]
    assert timed == [("training", each) for each in both * 2] + [("prediction", each) for each in both * 2]
    assert list(gains) == ["training step", "prediction of 4 tiles"]
    assert capsys.readouterr().out.count("'auto' took ") == 2


def test_an_unknown_part_is_refused(capsys):
    with pytest.raises(SystemExit):
        speed.main(["steps"])
    assert "unknown part 'steps'; choose from resampling, restoring," in capsys.readouterr().err


def test_both_are_called_in_turn_and_the_first_round_warms_up():
    calls = []
    alternate(lambda: calls.append("baseline"), lambda: calls.append("ours"), 2)
    assert calls == ["baseline", "ours"] * 3


def test_the_ratio_says_how_many_times_faster_segfw_is(capsys):
    report("this", "that", 3.0, 2.0)
    assert capsys.readouterr().out == "this: that 3.000 s, segfw 2.000 s, 1.5 times faster\n"


def test_evaluation_counts_as_the_plain_method_does(capsys):
    evaluation(pairs=1, labels=6, shape=(16, 40, 48))  # it asserts that both count the same
    assert "evaluation of 1 pairs of 16x40x48 with 6 labels, one core:" in capsys.readouterr().out


def test_made_masks_hold_every_label_and_are_moved_a_little():
    reference, prediction = organ_masks((30, 60, 60), 6, seed=0)
    assert set(np.unique(reference)) <= set(range(6))
    assert len(np.unique(reference)) > 3
    assert 0 < (reference != prediction).mean() < 0.05


def test_memory_is_counted_and_the_sweep_ends_with_the_time(capsys):
    memory.memory(["plain"], [2.0], torch.device("cpu"), limit_s=-1)
    assert capsys.readouterr().out == "-1 s are over: 3 of 3 were not measured\n"
    found = {"patch": [8, 16], "batch": 2, "counted_gib": 3.3, "tensors_gib": 3.0, "held_gib": 3.5}
    assert memory.described(found) == "8x16 x 2: 3.30 against 3.00, held 3.50 (+10%)"
    without = {"patch": [8, 16], "batch": 2, "counted_gib": 3.3, "out_of_memory": True}
    assert memory.described(without) == "8x16 x 2: 3.30 against OUT OF MEMORY"
