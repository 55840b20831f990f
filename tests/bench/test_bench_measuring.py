"""What is told of measures: of the heart counted by hand, of a large case, and of many classes."""

import re

import numpy as np
import pytest

from bench import many_classes, measuring
from bench.heart import agreement_table, hearts_of, spread_table
from bench.many_classes import from_raw_to_measures, write_bodies
from bench.measuring import measured_case
from builders.masks import box, geometry
from segfw.images.formats import write_labels

SHAPE = (6, 10, 30)


def chamber(folder, case, right, muscle, left):
    """A mask of bars that are so many voxels long, all inside of the image."""
    mask = sum(
        box((2, 4), (row, row + 2), (1, 1 + size), value=value, shape=SHAPE)
        for value, row, size in ((1, 1, right), (2, 4, muscle), (3, 7, left))
    )
    folder.mkdir(exist_ok=True)
    write_labels(folder / f"{case}.nii.gz", mask, geometry(SHAPE, (10.0, 1.5, 1.5)))


def test_ejection_fractions_and_ratios_are_those_that_can_be_counted(tmp_path):
    expert = tmp_path / "expert"
    chamber(expert, "patient001_frame01", right=20, muscle=12, left=24)
    chamber(expert, "patient001_frame12", right=12, muscle=12, left=12)
    chamber(expert, "patient002_frame01", right=10, muscle=12, left=6)  # the second frame is the end of diastole
    chamber(expert, "patient002_frame09", right=18, muscle=10, left=20)
    found = hearts_of([expert])
    first, second = found["patient001"], found["patient002"]
    assert first.left_ejection == pytest.approx(0.5)
    assert first.right_ejection == pytest.approx(0.4)
    assert first.muscle_to_left == pytest.approx(0.5)
    assert first.right_to_left == pytest.approx(20 / 24)
    assert second.left_ejection == pytest.approx(0.7)
    assert second.muscle_to_left == pytest.approx(0.5)

    predicted = tmp_path / "predicted"
    chamber(predicted, "patient001_frame01", right=20, muscle=12, left=20)
    chamber(predicted, "patient001_frame12", right=12, muscle=12, left=12)
    chamber(predicted, "patient002_frame01", right=10, muscle=12, left=6)
    chamber(predicted, "patient002_frame09", right=18, muscle=10, left=20)
    table = agreement_table(found, hearts_of([predicted]))
    line = next(line for line in table.splitlines() if "left" in line)
    # 0.4 in place of 0.5, and no difference: bias -0.05, standard deviation 0.0707
    assert re.search(r"-0\.050 +-0\.189 +\+0\.089 +-0\.100", line)
    assert "0.600  0.500  0.700" in spread_table(found)


def test_a_patient_without_a_structure_is_left_out(tmp_path):
    chamber(tmp_path / "masks", "patient001_frame01", right=0, muscle=12, left=24)
    chamber(tmp_path / "masks", "patient001_frame12", right=12, muscle=12, left=12)
    assert hearts_of([tmp_path / "masks"]) == {}


def test_a_case_is_measured_with_its_seconds_and_memory(tmp_path):
    told = measured_case((20, 40, 40), 6, tmp_path / "work")
    assert re.search(
        r"20x40x40 voxels with 6 structures \(\d+% of it\) and its image: [\d.]+ s, [\d.]+ s .* [\d.]+ GB at most", told
    )
    assert not (tmp_path / "work").exists()


def test_many_classes_go_from_raw_data_to_measures(tmp_path):
    write_bodies(tmp_path / "raw", (32, 32, 32), 9, 3)
    told = from_raw_to_measures(tmp_path / "raw", tmp_path, 1)
    assert "9 classes" in told
    assert "27 rows of measures" in told
    assert [line.split("  ")[0] for line in told.splitlines()[2:]] == [
        *("plan and preprocess", "train, 1 steps", "predict", "measure", "measure the labels", "evaluate")
    ]
    assert np.all([float(line.split()[-1]) > 0 for line in told.splitlines()[2:]])


@pytest.mark.parametrize("main", [measuring.main, many_classes.main])
def test_a_work_folder_that_is_there_is_refused_and_stays(main, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(SystemExit, match="is there already, and is removed at the end"):
        main(["--work", str(tmp_path)])
    assert (tmp_path / "mine.txt").read_text() == "mine"
