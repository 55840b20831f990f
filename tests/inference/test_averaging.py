"""Averages of stored probabilities: different grids against a slow oracle, weights, missing cases, resuming."""

import numpy as np
import pytest
import torch

from builders.probabilities import GRIDS, LABELS, NESTED, smooth_logits, stored
from segfw.base.records import UserError
from segfw.grid.preprocess import place_back
from segfw.grid.resample import axis_matrix, thick_axis
from segfw.grid.restore import restore
from segfw.inference import averaging as module
from segfw.inference.averaging import BlockSizes, merged, merged_each, probability_of


def on_file_grid(opened) -> np.ndarray:
    """Probabilities (K, Z, Y, X) on the file's own grid, made the slow way: one class after the other, as a whole."""
    record = opened.info.record
    labels = opened.info.labels
    logits = opened.logits(tuple(slice(0, size) for size in opened.shape)).numpy().astype(np.float64)
    thick = thick_axis(record.spacing_mm, record.cropped_spacing_mm)
    for axis, (old, new) in enumerate(zip(record.shape, record.cropped_shape)):
        matrix = axis_matrix(old, new, 0 if axis == thick else 1).numpy()
        logits = np.moveaxis(np.tensordot(matrix, logits, (1, axis + 1)), 0, axis + 1)
    values = 1 / (1 + np.exp(-logits)) if labels.regions else np.exp(logits) / np.exp(logits).sum(0)
    return np.stack([place_back(part, record) for part in values])


def oracle(several, weights) -> np.ndarray:
    labels = several[0].info.labels
    mean = sum(on_file_grid(one) * weight for one, weight in zip(several, weights)) / sum(weights)
    if not labels.regions:
        return mean.argmax(0)
    result = np.zeros(mean.shape[1:], int)
    for found, painted in zip(mean > 0.5, labels.painted_classes):
        result[found] = painted
    return result


@pytest.mark.parametrize("labels", [LABELS, NESTED], ids=["labels", "regions"])
@pytest.mark.parametrize("weights", [None, (3.0, 1.0, 0.5)])
def test_the_mean_of_models_on_different_grids(labels, weights, tmp_path):
    sizes = BlockSizes(part=(3, 4, 5), block_values=3 * 3 * 50)
    several = [
        stored(tmp_path / f"{name}.b2nd", smooth_logits(record, labels.outputs, seed), record, labels)
        for seed, (name, record) in enumerate(GRIDS.items())
    ]
    found = merged(several, weights, sizes=sizes)
    expected = oracle(several, weights or (1, 1, 1))
    assert found.shape == (13, 8, 15)
    assert (found != expected).sum() <= 2  # ties, which float32 may break in another way
    assert len(np.unique(expected)) == 3
    assert (expected != merged(several[:1], sizes=sizes)).mean() > 0.02  # else this shows nothing


def test_classes_that_are_nowhere_near_are_left_out_without_a_change(tmp_path, monkeypatch):
    labels = LABELS.model_copy(
        update={"names": tuple(f"label {index}" for index in range(40)), "values": tuple(range(40))}
    )
    several = []
    for seed, record in enumerate((GRIDS["3d_fullres"], GRIDS["3d_lowres"])):
        logits = torch.full((40, *record.shape), -30.0)
        logits[[0, 7, 33]] = smooth_logits(record, 3, seed)
        several.append(stored(tmp_path / f"{seed}.b2nd", logits, record, labels))
    restored = []
    resize = module.BlockResampler.resize
    monkeypatch.setattr(
        module.BlockResampler,
        "resize",
        lambda self, values, block: restored.append(len(values)) or resize(self, values, block),
    )
    found = merged(several)
    assert max(restored) <= 3
    assert (found != oracle(several, (1, 1))).sum() <= 2
    assert set(np.unique(found)) == {0, 7, 33}


def test_several_mixtures_are_made_from_one_reading(tmp_path):
    several = [
        stored(tmp_path / f"{name}.b2nd", smooth_logits(record, 3, seed), record)
        for seed, (name, record) in enumerate(GRIDS.items())
    ]
    mixtures = [{0: 1.0}, {1: 1.0}, {0: 1.0, 2: 1.0}]
    alone, second, pair = merged_each(several, mixtures)
    assert (alone != merged(several[:1])).sum() <= 2
    np.testing.assert_array_equal(second, merged_each(several[1:2], [{0: 1.0}])[0])
    np.testing.assert_array_equal(pair, merged([several[0], several[2]]))


@pytest.mark.parametrize("labels", [LABELS, NESTED], ids=["labels", "regions"])
@pytest.mark.parametrize("temperatures", [{0: 1.3}, {0: 1.0, 1: 0.8}], ids=["one", "two"])
def test_what_is_decoded_has_the_best_of_all_thresholds(labels, temperatures, tmp_path):
    """Against the mean of three models, restored and sorted as a whole: of labels the background is output 0."""
    if not labels.regions:
        temperatures = {output + 1: value for output, value in temperatures.items()}
    several = [
        stored(tmp_path / f"{name}.b2nd", smooth_logits(record, labels.outputs, seed, 8), record, labels)
        for seed, (name, record) in enumerate(GRIDS.items())
    ]
    mean = sum(on_file_grid(one) for one in several) / 3
    expected = oracle(several, (1, 1, 1))
    plain = expected.copy()
    claims = {}
    is_close = np.zeros(plain.shape, bool)  # to a threshold, by a level of 8 bits
    for output, temperature in temperatures.items():
        p = mean[output]
        odds = p / np.maximum(1 - p, 1e-9)
        scaled = np.where(p > 0.0494, odds ** (1 / temperature) / (1 + odds ** (1 / temperature)), 0)
        ordered = np.sort(scaled.ravel())[::-1]
        best = (2 * ordered.cumsum() / (np.arange(1, p.size + 1) + scaled.sum())).max()
        claims[output] = scaled >= best / 2
        is_close |= np.abs(scaled - best / 2) < 0.012
    if labels.regions:
        painted = labels.painted_classes
        expected[:] = 0
        for output in range(labels.outputs):
            expected[claims.get(output, mean[output] > 0.5)] = painted[output]
    else:
        for output, claimed in claims.items():
            expected[(plain == output) & ~claimed] = 0
        likeliest = np.stack([np.where(claimed, mean[output], 0) for output, claimed in claims.items()])
        winner = np.array(list(claims))[likeliest.argmax(0)]
        taken = (expected == 0) & (likeliest.max(0) > 0)
        expected[taken] = winner[taken]
    found = merged(several, temperatures=temperatures, sizes=BlockSizes(part=(3, 4, 5), block_values=3 * 3 * 50))
    np.testing.assert_array_equal(found, merged(several, temperatures=temperatures))
    assert (found != expected)[~is_close].sum() <= 2  # ties, which float32 may break in another way
    assert is_close.mean() < 0.1
    assert (expected != plain).mean() > 0.03  # else this shows nothing


@pytest.mark.parametrize("labels", [LABELS, NESTED], ids=["labels", "regions"])
def test_one_model_is_decoded_as_prediction_does_it(labels, tmp_path):
    record = GRIDS["2d"]
    logits = smooth_logits(record, labels.outputs, 3, 6)
    temperatures = {1: 1.2}
    one = stored(tmp_path / "x.b2nd", logits, record, labels, encoding="float16")
    found = merged([one], temperatures=temperatures)
    predicted = restore(logits, record, labels.painted_classes, temperatures=temperatures)
    assert (found != predicted).mean() < 0.003
    assert (found != merged([one])).mean() > 0.01  # else this shows nothing


@pytest.mark.parametrize("labels, name", [(LABELS, "b"), (NESTED, "core")], ids=["labels", "regions"])
def test_the_probability_of_one_label(labels, name, tmp_path):
    several = [
        stored(tmp_path / f"{name}.b2nd", smooth_logits(record, labels.outputs, seed), record, labels)
        for seed, (name, record) in enumerate(GRIDS.items())
    ]
    index = labels.outputs - 1
    expected = sum(on_file_grid(one)[index] * weight for one, weight in zip(several, (3, 1, 0))) / 4
    found = probability_of(name, several, (3, 1, 0))
    least = 1 / (1 + np.exp(8))  # what is left out where it is nowhere near
    np.testing.assert_allclose(found, expected, atol=2 * least)
    assert found.max() > 0.7
    with pytest.raises(UserError, match="--map-of 'liver' is no label"):
        probability_of("liver", several)


def test_models_that_do_not_fit_are_named(tmp_path):
    record = GRIDS["3d_fullres"]
    one = stored(tmp_path / "one.b2nd", smooth_logits(record, 3), record)
    swapped = LABELS.model_copy(update={"names": ("background", "b", "a")})
    other = stored(tmp_path / "other.b2nd", smooth_logits(record, 3), record, swapped)
    with pytest.raises(UserError, match=r"other.b2nd: has other labels, or in another order, than .*one.b2nd"):
        merged([one, other])
    matrix = record.original.matrix
    matrix[0, 3] += 1.0
    rows = tuple(tuple(row) for row in matrix.tolist())
    moved = record.model_copy(update={"original": record.original.model_copy(update={"affine": rows})})
    with pytest.raises(UserError, match="moved.b2nd: is of another image, or of another grid"):
        merged([one, stored(tmp_path / "moved.b2nd", smooth_logits(record, 3), moved)])
