"""Shares of the cases that structures take, counted by hand."""

import pytest

from builders.planning import fingerprint
from segfw.dataset.labels import LabelSet, Region
from segfw.planning.fingerprint import FINGERPRINT_FILE
from segfw.planning.structure_sizes import kept_structure_shares, structure_shares

LABELS = LabelSet(names=("background", "liver", "cyst"), values=(0, 5, 9))


@pytest.fixture
def data():
    """Three cases of 1000 voxels after the crop: the liver takes 100, 200 and 300, one has a cyst of 4."""
    found = fingerprint([((1.0, 2.0, 3.0), (10, 10, 10))] * 3)
    voxels = ({"0": 900, "5": 100}, {"0": 796, "5": 200, "9": 4}, {"0": 700, "5": 300})
    cases = tuple(case.model_copy(update={"label_voxels": held}) for case, held in zip(found.cases, voxels))
    return found.model_copy(update={"cases": cases})


def test_the_median_is_over_the_cases_that_have_a_structure(data):
    assert structure_shares(data, LABELS) == {"liver": 0.2, "cyst": 0.004}


def test_a_region_has_the_voxels_of_its_labels(data):
    whole = Region(name="whole", values=(5, 9), painted=5)
    labels = LABELS.model_copy(update={"regions": (whole,)})
    assert structure_shares(data, labels) == {"whole": 0.204}


def test_a_structure_that_no_case_has_is_left_out(data):
    labels = LabelSet(names=("background", "liver", "spleen"), values=(0, 5, 6))
    assert structure_shares(data, labels) == {"liver": 0.2}


def test_a_work_folder_that_does_not_say_tells_nothing(data, tmp_path):
    assert kept_structure_shares(tmp_path, LABELS) == {}
    (tmp_path / FINGERPRINT_FILE).write_text("{}")
    assert kept_structure_shares(tmp_path, LABELS) == {}
    data.save(tmp_path / FINGERPRINT_FILE)
    assert kept_structure_shares(tmp_path, LABELS) == {"liver": 0.2, "cyst": 0.004}
