"""How patches grow: sizes, batches and shares of a run, counted by hand."""

import pytest

from segfw.training.patch_stages import (
    constant_stage,
    growing_stages,
    smaller_patches,
    stage_at,
    stage_shares,
    stages_text,
)


def test_edges_grow_evenly_in_steps_that_the_network_can_halve():
    stages = growing_stages((1, 256, 224), (1, 16, 16), batch_size=2)
    assert [stage.patch_size for stage in stages] == [(1, 64, 64), (1, 128, 112), (1, 192, 160), (1, 256, 224)]
    assert [stage.until for stage in stages] == [0.25, 0.5, 0.75, 1]
    # 57,344 voxels are 14 times 4,096: the batch is the root of that larger, and the step still 3.7 times smaller.
    assert [stage.batch_size for stage in stages] == [7, 4, 3, 2]
    assert [stage.voxels for stage in stages] == [28_672, 57_344, 92_160, 114_688]


def test_four_voxels_are_left_at_the_bottom():
    stages = growing_stages((10, 256, 224), (2, 32, 32), batch_size=2)
    assert [(stage.patch_size, stage.until) for stage in stages] == [
        ((4, 128, 128), 0.5),  # the first two stages, in one
        ((8, 192, 160), 0.75),
        ((10, 256, 224), 1),
    ]


def test_in_a_network_that_is_too_deep_for_that_half_of_the_patch_is_the_least():
    stages = growing_stages((1, 512, 512), (1, 128, 128), batch_size=2)
    assert [(stage.patch_size, stage.until) for stage in stages] == [
        ((1, 256, 256), 0.5),
        ((1, 384, 384), 0.75),
        ((1, 512, 512), 1),
    ]


def test_a_patch_that_is_as_small_as_can_be_does_not_grow():
    assert growing_stages((4, 16, 16), (2, 8, 8), batch_size=5) == constant_stage((4, 16, 16), 5)


def test_a_stage_that_two_were_joined_in_has_the_share_of_both():
    assert stage_shares(growing_stages((10, 256, 224), (2, 32, 32), batch_size=2)) == [0.5, 0.25, 0.25]
    assert stage_shares(constant_stage((1, 8, 8), 2)) == [1.0]


def test_ranks_share_every_batch():
    stages = growing_stages((16, 64, 64), (2, 4, 4), batch_size=4, joined_batch=lambda batch: -(-batch // 4) * 4)
    assert all(stage.batch_size % 4 == 0 for stage in stages)


@pytest.mark.parametrize("progress, stage", [(0, 0), (0.249, 0), (0.25, 1), (0.5, 2), (0.99, 3), (1, 3), (1.2, 3)])
def test_each_stage_has_its_part_of_the_run(progress, stage):
    assert stage_at(growing_stages((1, 256, 224), (1, 16, 16), batch_size=2), progress) == stage


def test_smaller_patches_shrink_every_axis_alike():
    assert smaller_patches((112, 128, 64), (16, 16, 16)) == (
        (112, 128, 64),
        (96, 112, 64),
        (80, 96, 48),
        (64, 80, 32),
        (64, 64, 32),
    )


def test_stages_are_told_in_one_line():
    stages = growing_stages((4, 64, 64), (1, 8, 8), batch_size=2)
    assert stages_text(stages) == "2 x 32 x 32 (6 a step), 3 x 48 x 48 (3 a step), then 4 x 64 x 64 (2 a step)"
    assert stages_text(constant_stage((4, 32, 32), 2)) == "4 x 32 x 32 (2 a step)"
