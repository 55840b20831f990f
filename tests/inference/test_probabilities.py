"""Files of probabilities: what they hold, that they come back as the masks prediction writes, and damage."""

import numpy as np
import pytest
import torch

from builders.probabilities import LABELS, NESTED, in_slabs, record_of, smooth_logits, store, stored
from segfw.base.files import partial_path
from segfw.base.records import UserError
from segfw.grid.restore import restore
from segfw.inference.averaging import merged
from segfw.inference.probabilities import (
    LIMIT,
    ProbabilityInfo,
    ProbabilityWriter,
    probability_files,
    read_probabilities,
)


def everything(opened) -> tuple[slice, ...]:
    return tuple(slice(0, size) for size in opened.shape)


@pytest.mark.parametrize("encoding, tolerance", [("uint8", 0.009), ("float16", 0.0006)])
def test_stored_probabilities_are_those_of_the_logits(encoding, tolerance, tmp_path):
    record = record_of()
    logits = smooth_logits(record, 3)
    opened = stored(tmp_path / "case.b2nd", logits, record, encoding=encoding)
    found = opened.logits(everything(opened)).exp()
    # Half a step of 8/127 in log-odds is at most a quarter of that in probability.
    torch.testing.assert_close(found, torch.softmax(logits, 0), atol=tolerance, rtol=0)
    assert found.min() == pytest.approx(1 / (1 + np.exp(LIMIT[encoding])), rel=1e-3)


@pytest.mark.parametrize("encoding", ["uint8", "float16"])
def test_regions_are_stored_each_by_itself(encoding, tmp_path):
    record = record_of()
    logits = smooth_logits(record, 2)
    opened = stored(tmp_path / "case.b2nd", logits, record, NESTED, encoding=encoding)
    limit = LIMIT[encoding]
    torch.testing.assert_close(
        opened.logits(everything(opened)),
        logits.clamp(-limit, limit),
        atol=0.032 if encoding == "uint8" else 0.004,
        rtol=0,
    )


@pytest.mark.parametrize("labels", [LABELS, NESTED], ids=["labels", "regions"])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_masks_made_from_the_file_are_those_of_the_logits(labels, order, tmp_path):
    record = record_of(spacing_mm=(6.0, 2.5, 1.9), order=order)
    logits = smooth_logits(record, labels.outputs)
    expected = restore(logits, record, labels.painted_classes)
    for encoding, differing in (("uint8", 0.01), ("float16", 0.001)):
        opened = stored(tmp_path / f"{encoding}.b2nd", logits, record, labels, encoding=encoding)
        found = merged([opened])
        assert found.shape == expected.shape == record.original.shape
        assert (found != expected).mean() <= differing
    assert len(np.unique(expected)) == 3
    # What interpolating the probabilities themselves would have given is further away.
    if labels is LABELS:
        other = restore(torch.softmax(logits, 0), record)
        assert (other != expected).mean() > 2 * (found != expected).mean()


def test_all_that_is_needed_to_come_back_is_inside(tmp_path):
    record = record_of()
    path = store(tmp_path / "case.b2nd", smooth_logits(record, 3), record, folds=("0", "3"))
    info = read_probabilities(path).info
    assert (info.record, info.labels, info.folds) == (record, LABELS, ("0", "3"))
    assert (info.configuration, info.model, info.encoding) == ("3d_fullres", "a digest", "uint8")
    moved = path.rename(tmp_path / "moved.b2nd")
    assert read_probabilities(moved).info == info


def test_chunks_hold_part_of_a_slice_where_classes_are_many(tmp_path):
    record = record_of()
    logits = smooth_logits(record, 3)
    whole = stored(tmp_path / "whole.b2nd", logits, record)
    two_rows = 3 * 2 * record.shape[2]
    with ProbabilityWriter(tmp_path / "parts.b2nd", whole.info, chunk_values=two_rows) as writer:
        for slab in in_slabs(logits):
            writer.add(slab)
        writer.finish()
    parts = read_probabilities(tmp_path / "parts.b2nd")
    assert parts.values_kzyx.chunks == (3, 1, 2, record.shape[2])
    np.testing.assert_array_equal(parts.values_kzyx[:], whole.values_kzyx[:])


def test_a_file_is_there_whole_or_not_at_all(tmp_path):
    record = record_of()
    slabs = in_slabs(smooth_logits(record, 3))
    info = ProbabilityInfo(configuration="2d", folds=("0",), model="", labels=LABELS, record=record)

    def interrupted() -> None:
        with ProbabilityWriter(tmp_path / "case.b2nd", info) as writer:
            writer.add(slabs[0])
            assert list(tmp_path.iterdir()), "nothing is written slab by slab"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.iterdir())
    with ProbabilityWriter(tmp_path / "case.b2nd", info) as writer:
        writer.add(slabs[0])
        with pytest.raises(ValueError, match=r"2 of \d+ slices were added"):
            writer.finish()
        with pytest.raises(ValueError, match="begins at slice 4, expected 2"):
            writer.add(slabs[2])
    assert not list(tmp_path.iterdir())


def test_damage_is_found(tmp_path):
    record = record_of()
    path = store(tmp_path / "case.b2nd", smooth_logits(record, 3), record)
    good = path.read_bytes()
    for size in (0, 40, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:size])
        with pytest.raises(UserError, match=r"case.b2nd: is no whole file of probabilities .*predict the case again"):
            read_probabilities(path)
    rng = np.random.default_rng(0)
    silent = 0
    for place in rng.integers(0, len(good), 150):  # voxels, the record of the grid, all
        bad = bytearray(good)
        bad[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(bad)
        try:
            np.testing.assert_array_equal(read_probabilities(path).values_kzyx[:], 256)
        except UserError as error:
            assert str(path) in str(error)  # noqa: PT017
        except AssertionError:
            silent += 1
    assert silent == 0
    path.write_bytes(good)
    read_probabilities(path)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "text.b2nd").write_text("no array")
    with pytest.raises(UserError, match="text.b2nd: is no whole file of probabilities"):
        read_probabilities(tmp_path / "text.b2nd")
    from segfw.base.array_files import save_array

    save_array(tmp_path / "array.b2nd", np.zeros((2, 3, 4)))
    with pytest.raises(UserError, match="array.b2nd: is no whole file of probabilities"):
        read_probabilities(tmp_path / "array.b2nd")
    with pytest.raises(UserError, match="none.b2nd: no such file"):
        read_probabilities(tmp_path / "none.b2nd")


def test_files_are_found_in_a_folder_or_beside_its_masks(tmp_path):
    record = record_of()
    with pytest.raises(UserError, match="holds no probabilities; predict into it with --save-probabilities"):
        probability_files(tmp_path)
    for case in ("a", "b"):
        store(tmp_path / "probabilities" / f"{case}.b2nd", smooth_logits(record, 3), record)
    partial_path(tmp_path / "probabilities" / "c.b2nd").write_bytes(b"")
    assert list(probability_files(tmp_path)) == list(probability_files(tmp_path / "probabilities")) == ["a", "b"]
