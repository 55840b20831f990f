"""Parts of the cross-validation: whose probabilities are counted, and what is held meanwhile."""

import weakref

import pytest
from stored_cases import LABELS, record_of, smooth_logits, store
from test_selection import FAR, ROW, pair_of

from segfw.base.records import UserError
from segfw.dataset.cases import Case
from segfw.inference import postprocessing_trials
from segfw.inference.held_out import HeldOut
from segfw.inference.held_out_counts import count_case
from segfw.inference.postprocessing_trials import find_postprocessing
from segfw.model.postprocess import outside_largest


def test_probabilities_of_another_network_are_not_counted(tmp_path):
    case = Case(id="x", images=(), label=tmp_path / "x.nii.gz")
    item = HeldOut.of(case, "2d", "0", "a network")
    record = record_of()
    store(item.path(tmp_path), smooth_logits(record, 3), record, model="another")
    with pytest.raises(UserError, match="x.b2nd: is of other weights or of another image"):
        count_case(tmp_path, case, [item], [("2d",)])
    assert not (tmp_path / "selection" / "scores").exists()


def test_a_held_out_case_changes_with_its_image_and_its_network(tmp_path):
    image = tmp_path / "x.nii.gz"
    image.write_bytes(b"1234")
    case = Case(id="x", images=(image,))
    first, other = (HeldOut.of(case, "2d", "0", network).model for network in ("a network", "another"))
    assert first == HeldOut.of(case, "2d", "0", "a network").model
    image.write_bytes(b"12345")
    assert len({first, other, HeldOut.of(case, "2d", "0", "a network").model}) == 3


def test_what_a_step_removes_is_held_of_one_case_at_a_time(monkeypatch):
    removed, held = [], []

    def watched(classes_zyx, classes):
        held.append(sum(mask() is not None for mask in removed))
        found = outside_largest(classes_zyx, classes)
        if found is not None:
            removed.append(weakref.ref(found))
        return found

    monkeypatch.setattr(postprocessing_trials, "outside_largest", watched)
    found, _, _ = find_postprocessing(iter([pair_of([(ROW, 1)], [(ROW, 1), (FAR, 1)])] * 4), LABELS)
    assert found.steps
    assert len(removed) == 8  # of each case when the step is tried, and when it is kept
    assert max(held) == 0
