"""Parts of the cross-validation: whose probabilities are counted, and what is held meanwhile."""

import pytest

from builders.probabilities import record_of, smooth_logits, store
from segfw.base.records import UserError
from segfw.dataset.cases import Case
from segfw.inference.held_out import HeldOut
from segfw.inference.held_out_counts import count_case


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
