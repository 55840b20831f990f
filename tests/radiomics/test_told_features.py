"""What is told of one structure, and the reasons where something is not."""

import pkgutil
import subprocess
import sys

import numpy as np
import pytest

import segfw.radiomics
from segfw.radiomics.all_features import feature_names, features_on
from segfw.radiomics.radiomics_settings import ChannelProcessing, RadiomicsSettings
from segfw.radiomics.to_levels import NewGrid

SHAPE = (7, 8, 9)


def settings(log_mm=(), texture="3d", **processing):
    channel = ChannelProcessing(**({"modality": "CT", "bin_width": 25.0, "whole_numbers": True} | processing))
    return RadiomicsSettings(voxel_mm=1.0, texture=texture, channels={"soft CT": channel}, log_mm=log_mm, cases=1)


def told(image, how, inside=None):
    if inside is None:
        inside = np.zeros(SHAPE, bool)
        inside[1:6, 1:7, 1:8] = True
    grid = NewGrid(steps=np.eye(3), start=np.zeros(3), shape=SHAPE, axes_mm=np.eye(3)[::-1])
    return features_on(inside, grid, {"soft CT": image}, how)


def drawn():
    return np.random.default_rng(0).integers(-80, 220, SHAPE).astype(np.float32)


def test_all_is_told_by_names_that_say_how():
    found = told(drawn(), settings(log_mm=(1.0,)))
    assert found.reason == ""
    assert tuple(found.values) == feature_names(settings(log_mm=(1.0,)))
    assert all(value is not None for value in found.values.values())
    assert len(found.values) == 15 + 2 * 136
    assert {"morphology_volume", "soft_CT_glcm_contrast_3d_merged_fbs25", "soft_CT_log1mm_ngtdm_busyness_3d_fbn32"} <= {
        *found.values
    }


def test_by_slice_columns_say_so():
    found = told(drawn(), settings(texture="2.5d"))
    assert "soft_CT_glrlm_run_entropy_2.5d_merged_fbs25" in found.values
    assert "soft_CT_glszm_zone_percentage_2.5d_fbs25" in found.values
    assert found.reason == ""


def test_the_range_leaves_out_values_but_not_shape():
    image = drawn()
    found = told(image, settings(range=(-50.0, 150.0)))
    inside = image[1:6, 1:7, 1:8]
    within = inside[(inside >= -50) & (inside <= 150)]
    assert found.values["soft_CT_intensity_mean"] == pytest.approx(within.mean())
    assert found.values["soft_CT_histogram_maximum_fbs25"] <= 9  # 200 HU from the range's lower end
    assert found.values["morphology_approximate_volume"] == 5 * 6 * 7


@pytest.mark.parametrize(
    ("image", "how", "reason"),
    [
        (drawn(), settings(range=(900.0, 1000.0)), "soft CT has no value in the range"),
        (drawn() * 1e4, settings(), "soft CT has more than 4096 grey levels; give a range in the settings"),
        (np.full(SHAPE, np.nan), settings(), "soft CT has no number in some of its voxels"),
    ],
)
def test_what_cannot_be_told_has_a_reason_and_shape_is_told_all_the_same(image, how, reason):
    found = told(image, how)
    assert found.reason == reason
    assert found.values["morphology_volume"] > 0
    assert found.values["soft_CT_glcm_contrast_3d_merged_fbs25"] is None


def test_of_fewer_than_8_voxels_nothing_is_told_and_of_fewer_than_64_no_texture():
    inside = np.zeros(SHAPE, bool)
    inside[2, 2, 1:8] = True
    found = told(drawn(), settings(), inside)
    assert found.reason == "it has 7 voxels of 1 mm, fewer than 8"
    assert set(found.values.values()) == {None}
    inside[2:5, 2:5, 1:8] = True
    found = told(drawn(), settings(), inside)
    assert found.reason == "soft CT has 63 voxels of 1 mm, fewer than 64, too few for texture"
    assert found.values["soft_CT_histogram_entropy_fbs25"] > 0
    assert found.values["soft_CT_ngldm_dependence_count_entropy_3d_fbs25"] is None
    inside[5, 2, 1] = True
    assert told(drawn(), settings(), inside).reason == ""


def test_equal_values_have_no_number_where_there_is_none():
    found = told(np.full(SHAPE, 40.0), settings())
    assert found.reason == ""
    assert found.values["soft_CT_intensity_skewness"] is None
    assert found.values["soft_CT_glcm_correlation_3d_merged_fbs25"] is None
    entropies = [found.values[name] for name in found.values if "entropy" in name]
    assert f"{found.values['soft_CT_glcm_joint_entropy_3d_merged_fbs25']}" == "0.0"
    assert "-0.0" not in map(str, entropies)


def test_no_file_of_the_room_loads_torch():
    names = [module.name for module in pkgutil.iter_modules(segfw.radiomics.__path__, "segfw.radiomics.")]
    assert len(names) > 15
    program = "\n".join([*(f"import {name}" for name in names), "import sys", "sys.exit('torch' in sys.modules)"])
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=300).returncode == 0
