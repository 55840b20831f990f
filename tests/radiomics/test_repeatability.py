"""How far features are the same again: the intraclass correlation, and the changed versions it is made of."""

import numpy as np
import pytest

from segfw.radiomics.changed_versions import changes_of, grown, own_noise, rotation_about, turned
from segfw.radiomics.features_records import CaseFeatures, StructureFeatures
from segfw.radiomics.repeatability import icc_1_1, rank_correlation, verdict_of
from segfw.radiomics.stability_table import VOLUME, stability_of
from segfw.radiomics.to_levels import grid_around, image_on


def measured(cases, times, between_sd, within_sd, seed):
    rng = np.random.default_rng(seed)
    return rng.normal(0, between_sd, (cases, 1)) + rng.normal(0, within_sd, (cases, times))


def test_the_correlation_of_shrout_and_fleiss():
    # Their table 2: six targets, four judges; ICC(1,1) is 0.17
    judged = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float)
    found = icc_1_1(judged)
    assert found.icc == pytest.approx(0.17, abs=0.005)
    assert found.low == pytest.approx(-0.13, abs=0.005)


@pytest.mark.parametrize(("between", "within"), [(3.0, 1.0), (1.0, 1.0), (1.0, 2.0)])
def test_known_variances_give_their_correlation_and_the_bound_holds(between, within):
    truth = between**2 / (between**2 + within**2)
    found = [icc_1_1(measured(40, 8, between, within, seed)) for seed in range(300)]
    assert np.mean([each.icc for each in found]) == pytest.approx(truth, abs=0.02)
    # The lower end of a 95 % interval lies above the truth in 2.5 % of runs: 7.5 of 300, and 16 is three deviations off
    assert sum(each.low > truth for each in found) <= 16
    assert sum(each.low > truth for each in found) >= 1


def test_without_any_difference_there_is_no_correlation_and_without_error_it_is_1():
    assert icc_1_1(np.full((12, 4), 3.3)) is None
    assert icc_1_1(np.full((1, 4), 3.3)) is None
    same = icc_1_1(np.repeat(np.arange(12.0)[:, None], 4, axis=1))
    assert (same.icc, same.low) == (1, 1)


def test_verdicts_go_by_the_lower_bound():
    lows = (0.95, 0.9, 0.89, 0.75, 0.74, -0.2, None)
    assert [verdict_of(low) for low in lows] == ["stable"] * 2 + ["moderate"] * 2 + ["unstable"] * 2 + [""]


def test_ranks_and_not_values_are_correlated():
    volume = np.array([1.0, 2, 3, 4, 5])
    assert rank_correlation(volume**3, volume) == pytest.approx(1)
    assert rank_correlation(-np.exp(volume), volume) == pytest.approx(-1)
    assert rank_correlation(np.ones(5), volume) is None


def cohort(number, *, within_sd=0.01, folds=0):
    """Cases with one structure and two features: its volume, and one that repeats it with an error."""
    cases = {}
    for index in range(number):
        rng = np.random.default_rng(index)
        volume = 100.0 + 10 * index
        versions = tuple((volume + rng.normal(0, within_sd), None if index == 0 else 1.0 * index) for _ in range(4))
        structure = StructureFeatures(
            structure="liver",
            status="cut" if index == number - 1 else "whole",
            values=(volume, -volume),
            versions=versions,
            folds=tuple((volume + rng.normal(0, 30), 1.0) for _ in range(folds)),
        )
        cases[f"case{index}"] = CaseFeatures(id=f"case{index}", sources=(), structures=(structure,), versions=4)
    return cases


def test_what_is_cut_is_counted_and_what_lacks_a_value_is_left_out():
    volume, other = stability_of(cohort(11), (VOLUME, "image_other"))
    assert (volume.n, volume.n_cut, volume.verdict, volume.rho_volume) == (11, 1, "stable", None)
    assert (other.n, other.icc_image) == (10, 1)
    assert other.rho_volume == pytest.approx(-1)
    assert other.follows_volume


def test_of_fewer_than_ten_cases_nothing_is_told():
    volume, other = stability_of(cohort(9), (VOLUME, "image_other"))
    assert (volume.n, volume.icc_image, volume.verdict, other.rho_volume) == (9, None, "", None)


def scans_of_patients(seed, patients=15, scans=8):
    """Patients differ with an SD of 2, scans of one by 0.5, versions of one scan by 1: an ICC of 4.25 / 5.25."""
    rng = np.random.default_rng(seed)
    levels = rng.normal(0, 2, (patients, 1)) + rng.normal(0, 0.5, (patients, scans))
    versions = levels[:, :, None] + rng.normal(0, 1, (patients, scans, 4))
    cases = {}
    for patient in range(patients):
        for scan in range(scans):
            told = tuple((1.0, value) for value in versions[patient, scan].tolist())
            structure = StructureFeatures(structure="liver", status="whole", values=(1.0, 0.0), versions=told)
            name = f"p{patient:02}_{scan}"
            cases[name] = CaseFeatures(id=name, sources=(), structures=(structure,), versions=4)
    return cases


def test_of_several_scans_of_a_patient_one_counts_and_the_bound_holds():
    truth = 4.25 / 5.25
    above = {"patients": 0, "scans": 0}
    iccs = []
    for seed in range(300):
        cases = scans_of_patients(seed)
        patient_of = {name: name[:3] for name in cases}
        found = {
            "patients": stability_of(cases, (VOLUME, "image_other"), patient_of)[1],
            "scans": stability_of(cases, (VOLUME, "image_other"))[1],
        }
        assert (found["patients"].n, found["scans"].n) == (15, 120)
        iccs.append(found["patients"].icc_image)
        for unit, each in found.items():
            above[unit] += each.icc_image_low > truth
    assert np.mean(iccs) == pytest.approx(truth, abs=0.02)
    # Expected are 2.5 %, 7.5 of 300, and 16 is three deviations off; scans as cases of their own promise too much
    assert 1 <= above["patients"] <= 16
    assert above["scans"] > 25


def test_the_scan_that_counts_is_the_first_that_has_the_structure():
    cases = scans_of_patients(0, patients=10, scans=2)
    first = cases["p03_0"].structures[0].model_copy(update={"values": (), "versions": (), "status": "absent"})
    cases["p03_0"] = cases["p03_0"].model_copy(update={"structures": (first,)})
    patient_of = {name: name[:3] for name in cases}
    found = stability_of(cases, (VOLUME, "image_other"), patient_of)[1]
    chosen = {name: cases[name] for name in cases if name == "p03_1" or (name.endswith("_0") and name != "p03_0")}
    assert found.n == 10
    assert found == stability_of(chosen, (VOLUME, "image_other"))[1]


def test_folds_that_disagree_lower_the_verdict():
    volume, _ = stability_of(cohort(11, folds=3), (VOLUME, "image_other"))
    assert volume.n_folds == 11
    assert volume.icc_folds < 0.9 < volume.icc_image
    assert volume.verdict == "unstable"


def test_a_mask_grows_and_shrinks_by_the_share_that_was_drawn_at_its_border():
    inside = np.zeros((14, 16, 18), bool)
    inside[4:9, 4:11, 4:13] = True  # 315 voxels
    core = inside.copy()
    core[4:9, 4:11, 4:13][[0, -1]] = False
    for change in changes_of("case", "liver", 12, None):
        assert -0.1 <= change.growth <= 0.1
        changed = grown(inside, np.array([3.0, 1.0, 2.0]), change)
        assert changed.sum() == round(315 * (1 + change.growth))
        assert (changed & inside).sum() == min(changed.sum(), 315)  # nothing is moved
        assert changed[6, 7, 8]


def test_versions_are_the_same_for_the_same_names_and_others_for_others():
    first = changes_of("case", "liver", 3, None)
    again = changes_of("case", "liver", 5, None)
    other = changes_of("case", "spleen", 3, None)
    for index in range(3):
        assert np.array_equal(first[index].rotation, again[index].rotation)
        assert first[index].growth == again[index].growth
        assert first[index].growth != other[index].growth
        assert (np.abs(first[index].shift) >= 0.25).all()
        assert (np.abs(first[index].shift) <= 0.75).all()


def test_where_slices_stay_slices_nothing_turns_out_of_them():
    normal = np.array([0.0, 0.6, 0.8])
    for change in changes_of("case", "liver", 5, normal):
        assert change.rotation @ normal == pytest.approx(normal)
        assert change.shift[0] == 0


def test_a_turned_grid_without_turn_and_shift_sees_the_same_voxels():
    image = np.random.default_rng(0).normal(size=(12, 13, 14))
    axes_mm = np.array([[0, 0, 1.5], [0, 1.2, 0], [3.0, 0, 0]])
    box = (slice(3, 8), slice(3, 9), slice(4, 10))
    grid = grid_around(box, image.shape, axes_mm, np.full(3, 1.3))
    (change,) = changes_of("case", "liver", 1, None)
    still = type(change)(rotation=np.eye(3), shift=np.zeros(3), growth=0.0, seed=(0,))
    first = image_on(image, grid)
    around = image_on(image, turned(grid, axes_mm, still))
    values = set(np.round(around, 9).ravel().tolist())
    assert set(np.round(first, 9).ravel().tolist()) <= values


def test_a_turned_grid_lies_where_the_rotation_says():
    axes_mm = np.diag([3.0, 1.2, 1.5])[::-1]
    box = (slice(3, 8), slice(3, 9), slice(4, 10))
    grid = grid_around(box, (20, 20, 20), axes_mm, np.full(3, 1.5))
    (change,) = changes_of("case", "liver", 1, None)
    found = turned(grid, axes_mm, change)
    steps_mm = axes_mm @ found.steps  # of one new voxel, in millimetres
    assert steps_mm.T @ steps_mm == pytest.approx(1.5**2 * np.eye(3), abs=1e-9)
    assert steps_mm == pytest.approx(change.rotation @ grid.axes_mm)


def test_rotations_turn_by_their_angle():
    matrix = rotation_about(np.array([2.0, 0, 0]), np.pi / 2)
    assert matrix @ np.array([0, 1.0, 0]) == pytest.approx([0, 0, 1])


@pytest.mark.parametrize("sd", [2.0, 30.0])
def test_the_noise_of_an_image_is_found_beside_edges_and_a_slope(sd):
    rng = np.random.default_rng(1)
    image = rng.normal(0, sd, (12, 40, 44)) + 5 * np.arange(44) + 400 * (np.arange(40)[:, None] > 20)
    box = (slice(4, 8), slice(15, 25), slice(15, 25))
    assert own_noise(image, box) == pytest.approx(sd, rel=0.1)
    assert own_noise(np.zeros((12, 40, 44)), box) == 0
