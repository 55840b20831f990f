"""What the length of a run decides: rate, momentum, batch, mirroring; and its early and late ends."""

import json
from dataclasses import replace

import pytest

from builders.networks import three_stages
from builders.training import ZSCORE, configuration
from segfw.base.records import UserError
from segfw.training.checkpoint import Counters
from segfw.training.pace import Pace
from segfw.training.patch_stages import constant_stage
from segfw.training.schedule import (
    Clock,
    FittedSettings,
    cool_down,
    extended,
    fit_to_length,
    learning_rate,
    learning_rate_for,
    momentum_for,
    poly_learning_rate,
    stages_of,
    steps_within,
    warm_up,
)
from segfw.training.settings import TrainSettings

PLANNED = configuration(ZSCORE, three_stages()).model_copy(
    update={"patch_size": (8, 32, 32), "median_shape": (16.0, 32.0, 32.0), "batch_size": 7}
)
ONE_SECOND = Pace(fixed_s=0.0, voxel_s=1 / (8 * 32 * 32))  # of a planned patch


def test_learning_rate_decays_polynomially():
    assert poly_learning_rate(0.0, 0.01) == 0.01
    assert poly_learning_rate(0.5, 0.01) == pytest.approx(0.01 * 0.5**0.9)
    assert poly_learning_rate(1.0, 0.01) == 0
    assert poly_learning_rate(1.1, 0.01) == 0  # a step that ends after its time


@pytest.mark.parametrize("steps, momentum", [(100, 0.9), (1000, 0.9), (5000, 0.98), (10_000, 0.99), (250_000, 0.99)])
def test_momentum_grows_with_the_run_to_the_published_one(steps, momentum):
    assert momentum_for(steps) == pytest.approx(momentum)


def test_published_values_for_a_published_length():
    fitted = fit_to_length(TrainSettings(), PLANNED, None, cases=200)
    assert (fitted.batch_size, fitted.momentum, fitted.mirroring) == (7, 0.99, True)
    assert (fitted.patches, fitted.patch_size) == ("constant", (8, 32, 32))
    assert fitted.learning_rate == pytest.approx(0.01)


@pytest.mark.parametrize(
    "budget_s, batch", [(1000, 2), (5200, 4), (10_000, 7)]  # at 1.3 seconds per patch, of which 0.3 are overhead
)  # fmt: skip
def test_a_short_budget_takes_small_batches_and_no_mirroring(budget_s, batch):
    fitted = fit_to_length(TrainSettings(time_budget_s=budget_s), PLANNED, ONE_SECOND, cases=200)
    assert (fitted.batch_size, fitted.patches, fitted.patch_size) == (batch, "grow", (8, 32, 32))
    assert not fitted.mirroring
    assert fitted.momentum < 0.98


def test_a_very_short_budget_takes_smaller_patches():
    asked = TrainSettings(time_budget_s=250)
    # Of two planned patches 96 steps fit; growing to 3/4 of their edges leaves over 300, constant patches do not.
    fitted = fit_to_length(asked, PLANNED, ONE_SECOND, cases=200)
    assert (fitted.batch_size, fitted.patch_size) == (2, (6, 24, 24))
    stages = stages_of(PLANNED, fitted.patches, fitted.patch_size, fitted.batch_size)
    assert steps_within(stages, 250, ONE_SECOND) >= 300
    kept = fit_to_length(asked, PLANNED, ONE_SECOND, cases=200, keeps_patch=True)
    assert kept.patch_size == (8, 32, 32)  # as published
    constant = fit_to_length(replace(asked, patches="constant"), PLANNED, ONE_SECOND, cases=200)
    assert constant.patch_size == (4, 20, 20)
    hopeless = fit_to_length(replace(asked, time_budget_s=1), PLANNED, ONE_SECOND, cases=200)
    assert hopeless.patch_size == (4, 16, 16)  # the smallest that the network can take
    given = fit_to_length(replace(asked, patch_size=(8, 24, 24)), PLANNED, ONE_SECOND, cases=200)
    assert given.patch_size == (8, 24, 24)


def test_steps_of_every_stage_are_those_of_its_share_of_the_time():
    stages = stages_of(PLANNED, "grow", (8, 24, 24), 2)
    assert [(stage.voxels, stage.until) for stage in stages] == [(3456, 0.5), (4608, 0.75), (9216, 1)]
    # A step takes 1.3 x voxels / 8192 seconds: of 260 seconds 130, 65 and 65 are theirs.
    assert steps_within(stages, 260, ONE_SECOND) == pytest.approx(237.04 + 88.89 + 44.44, abs=0.01)


def test_images_are_mirrored_where_as_many_voxels_are_seen_as_a_hundred_times_the_cases():
    # 8192 voxels take 1.3 s, whatever the stage: a case of 16,384 voxels is seen 100 times, by 3 cases, in 780 s.
    for budget_s, is_mirrored in ((779, False), (781, True)):
        asked = TrainSettings(time_budget_s=budget_s, batch_size=2)
        assert fit_to_length(asked, PLANNED, ONE_SECOND, cases=3).mirroring is is_mirrored


def test_what_is_given_is_kept():
    given = TrainSettings(
        time_budget_s=2000, batch_size=5, momentum=0.5, mirroring=True, learning_rate=0.2, patches="constant"
    )
    fitted = fit_to_length(given, PLANNED, ONE_SECOND, cases=200)
    assert vars(fitted) == vars(given) | {"patch_size": (8, 32, 32)}


def test_settings_of_a_run_under_way_leave_nothing_to_be_decided(tmp_path):
    path = tmp_path / "settings.json"
    fit_to_length(TrainSettings(), PLANNED, None, cases=200).save(path)
    loaded = FittedSettings.load(path)
    assert (loaded.batch_size, loaded.patch_size) == (7, (8, 32, 32))
    content = json.loads(path.read_text())
    del content["patch_size"], content["patches"]  # as earlier versions wrote it
    path.write_text(json.dumps(content))
    before = FittedSettings.load(path)
    assert stages_of(PLANNED, before.patches, before.patch_size, before.batch_size) == constant_stage((8, 32, 32), 7)
    TrainSettings(momentum=0.9).save(path)
    with pytest.raises(UserError, match=r"settings.json: field 'batch_size' is .*, which is no whole number"):
        FittedSettings.load(path)


def test_learning_rate_grows_as_the_momentum_shrinks():
    assert learning_rate_for(0.99) == pytest.approx(0.01)
    assert learning_rate_for(0.9) == pytest.approx(0.01 * 10**0.5)


def test_warm_up_lasts_twice_the_memory():
    assert [warm_up(step, 0.9) for step in (0, 9, 19, 500)] == pytest.approx([0.05, 0.5, 1, 1])
    assert warm_up(99, 0.99) == pytest.approx(0.5)


FITTED = TrainSettings(epochs=10, steps_per_epoch=10, momentum=0.5, learning_rate=0.1)


def test_cooling_down_takes_a_share_of_the_steps_so_far_and_ends_at_zero():
    counters = Counters(step=40)
    clock = Clock(FITTED, counters)
    before = learning_rate(FITTED, counters, clock.progress())
    assert cool_down(FITTED, counters, clock.progress())
    assert counters.cool_steps == 6
    rates = []
    while not clock.is_over():
        rates.append(learning_rate(FITTED, counters, clock.progress()))
        counters.step += 1
    assert rates == pytest.approx([before * left / 6 for left in (6, 5, 4, 3, 2, 1)])
    assert clock.left_s() == 0


def test_a_run_whose_end_is_near_does_not_cool_down_first():
    counters = Counters(step=90)
    assert not cool_down(FITTED, counters, 0.9)  # 14 steps to cool down, but 10 are left
    assert counters.cool_from is None


def test_cooling_down_begins_once():
    counters = Counters(step=40)
    assert cool_down(FITTED, counters, 0.4)
    counters.step = 43
    assert not cool_down(FITTED, counters, 0.43)
    assert counters.cool_from == 40


def test_an_extended_run_warms_up_again_to_the_rate_of_its_new_length():
    counters = Counters(step=100, epoch=10, cool_from=80)
    longer = extended(FITTED, counters, epochs=30)
    assert (longer.epochs, counters.cool_from) == (40, None)
    assert counters.best_epoch == 10  # patience begins anew
    clock = Clock(longer, counters)
    quarter = poly_learning_rate(0.25, 0.1)
    assert learning_rate(longer, counters, clock.progress()) == pytest.approx(0.25 * quarter)
    counters.step = 103
    assert learning_rate(longer, counters, clock.progress()) == pytest.approx(poly_learning_rate(103 / 400, 0.1))


def test_a_run_is_extended_in_the_way_it_was_made():
    timed = TrainSettings(time_budget_s=60)
    assert extended(timed, Counters(elapsed_s=61.5), seconds=30).time_budget_s == 91.5
    with pytest.raises(UserError, match="--extend must give a time"):
        extended(timed, Counters(), epochs=3)
    with pytest.raises(UserError, match="--extend must give epochs"):
        extended(FITTED, Counters(), seconds=3)


def test_the_learning_rate_falls_with_every_rescue():
    usual, rescued = (learning_rate(FITTED, Counters(step=50, rate_factor=factor), 0.5) for factor in (1.0, 0.25))
    assert rescued == pytest.approx(0.25 * usual)


def test_a_batch_is_one_that_all_ranks_can_share():
    fitted = fit_to_length(TrainSettings(), PLANNED, None, cases=200, joined_batch=lambda batch: 4)
    assert fitted.batch_size == 4


@pytest.mark.parametrize(
    "prepared_s, progress_after_15_s", [(0, 0.25), (20, 15 / 40), (50, 0.5)]  # the last: half of the time is for steps
)  # fmt: skip
def test_a_schedule_begins_with_its_first_step(prepared_s, progress_after_15_s):
    """Compiling and opening cases used to let a run of a minute take its only step at the rate of its end."""
    now = [1000.0]
    settings = fit_to_length(TrainSettings(time_budget_s=60), PLANNED, ONE_SECOND, cases=200)
    counters = Counters(elapsed_s=prepared_s)
    clock = Clock(settings, counters, lambda: now[0])
    clock.begin_steps()
    assert counters.prepared_s == prepared_s
    assert clock.progress() == 0
    assert clock.left_s() == max(60 - prepared_s, 30)
    counters.step = 1
    now[0] += 15
    clock.begin_steps()  # of later steps it says nothing
    assert clock.progress() == pytest.approx(progress_after_15_s)
    assert clock.left_s() == max(60 - prepared_s, 30) - 15
    now[0] += max(60 - prepared_s, 30) - 15
    assert clock.is_over()
    again = Clock(settings, Counters(**vars(counters) | {"elapsed_s": prepared_s + 15}), lambda: now[0])
    assert again.progress() == pytest.approx(progress_after_15_s)  # resumed
