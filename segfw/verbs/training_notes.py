"""What ``segfw train`` says beside its figures: how long a run will be, what is not followed, whether clicks help."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from segfw.training.settings import LENGTH_FIELDS, TrainOptions, TrainSettings

if TYPE_CHECKING:
    import torch

    from segfw.planning.plan import Plan
    from segfw.training.train_request import TrainRequest


def tell_length(
    work: Path, plan: Plan, fold: str, request: TrainRequest, options: TrainOptions, device: torch.device
) -> None:
    """Says how long a new run will be, and warns where that is days that nobody asked for, or too short."""
    from segfw.base.durations import duration_text, typed_duration
    from segfw.base.settings_file import typed_words
    from segfw.base.shell_line import shell_line
    from segfw.dataset.cases import MANIFEST_FILE, DatasetManifest
    from segfw.planning.for_time import WANTED_STEPS
    from segfw.planning.work_folder import trained_by_plan
    from segfw.training.expected_length import expected_training, told_length

    expected = expected_training(
        request.configuration,
        request.settings,
        1,
        device,
        keeps_patch=request.keeps_patch,
        shares=request.structure_shares,
    )
    own = [*typed_words(request.settings, LENGTH_FIELDS), *typed_words(options)]
    for line in told_length([expected], "train", str(work), expected.name, fold, *own):
        print(line)
    time_s = request.settings.time_budget_s
    if plan.planned_time_s is not None and time_s is None:
        planned = duration_text(plan.planned_time_s)
        print(f"note: the network was chosen for trainings of {planned} (--time-budget); longer ones can teach larger")
    is_for_any_length = plan.planned_time_s is None and not plan.as_published and not plan.is_imported
    if time_s is not None and is_for_any_length and expected.steps < WANTED_STEPS and not trained_by_plan(work):
        raw = DatasetManifest.load(work / MANIFEST_FILE).root
        again = shell_line("segfw", "plan-and-preprocess", raw, work, "--time-budget", typed_duration(time_s))
        print(f"note: the plan is for the published length; networks for so little time are planned by: {again}")


def say_what_is_not_followed(folder: Path, asked: TrainSettings) -> None:
    """A run goes on as it was begun: says which of the settings that are asked for now are not followed."""
    from segfw.base.options import option_name_of
    from segfw.base.records import UserError
    from segfw.base.settings_file import written_value
    from segfw.training.prepare import SETTINGS_FILE

    if not (folder / SETTINGS_FILE).is_file():  # an imported fold
        return
    try:
        begun = TrainSettings.load(folder / SETTINGS_FILE)
    except UserError:  # said where it is needed
        return
    for each in fields(TrainSettings):
        now = getattr(asked, each.name)
        before = getattr(begun, each.name)
        if now in (each.default, before):
            continue
        name = option_name_of(TrainSettings, each.name)
        asked_text = written_value(TrainSettings, each, now)
        begun_text = written_value(TrainSettings, each, before)
        without = f"without {name}" if begun_text is None else f"with {begun_text}"
        print(
            f"note: {name} {asked_text} is not followed, because {folder} was begun {without}; segfw train --extend "
            "trains it for longer, --overwrite anew"
        )


def refined_text(work: Path, fold: str, folder: Path) -> str:
    """What the newest epoch says of the refiner, in a sentence; a warning where its clicks do harm."""
    from segfw.base.shell_line import shell_line
    from segfw.model.short_runs import EXAMPLE_BUDGET
    from segfw.model.training_record import read_metrics
    from segfw.planning.plan import REFINE

    rows = read_metrics(folder)
    if not rows:
        return f"{folder}: is trained"
    refined, given = rows[-1]["val_dice_per_label"]
    figures = (
        f"validation patches: Dice {refined:.4f} after 1 to 6 simulated clicks, where the given masks have {given:.4f}"
    )
    if refined > given:
        return figures
    longer = shell_line("segfw", "train", work, REFINE, fold, "--extend", EXAMPLE_BUDGET)
    return f"{figures}\nwarning: clicks do not make masks better yet; train it for longer, such as by: {longer}"
