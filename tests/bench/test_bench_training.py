"""The comparisons of trainings measure, fit, keep and report what they say; nnU-Net itself is not needed."""

import json
from pathlib import Path

import pytest

from bench.against_nnunet.training import build_parser, nnunet_splits, speed
from bench.against_nnunet.training_tables import markdown, score_rows, step_rows, tables
from bench.augmentation import build_parser as augmentation_parser
from bench.augmentation import options, paired_difference, steps_per_epoch, table
from bench.figures import spread_text
from bench.in_nnunet.train import Watch, fit_schedule, watched
from bench.runs import keep_or_refuse, linked_work, nnunet_environment, once
from segfw.planning.splits import import_splits, make_splits


@pytest.mark.parametrize("budget_s", [100.0, 720.0, 7200.0])
@pytest.mark.parametrize(("step_s", "between_s"), [(4.8, 2.2), (0.5, 1.4), (0.05, 3.0)])
def test_nnunets_schedule_ends_with_the_time(budget_s, step_s, between_s):
    epochs, steps = fit_schedule(budget_s, step_s, between_s)
    whole_s = epochs * (steps * step_s + between_s)
    assert 0.9 * budget_s < whole_s <= budget_s
    if budget_s > 15 * (step_s + between_s):
        assert 15 <= epochs <= 30


def test_nnunets_schedule_takes_the_most_steps_that_fit():
    # In 110 s, an epoch's end taking 1 s: 27 epochs of 3 steps are 81 steps, 22 of 4 are 88, 18 of 5 are 90, and
    # 15 of 6 are 90 as well.
    assert fit_schedule(110.0, 1.0, 1.0) == (18, 5)
    assert fit_schedule(3.0, 2.0, 10.0) == (1, 1)  # too short for anything: one step


def test_times_of_a_training_leave_out_what_lies_between_epochs():
    watch = Watch(epoch_starts=[10.0, 30.0, 45.0], step_ends=[[17.0, 20.0], [32.0, 36.0], []])
    assert watch.epochs() == [{"steps": 2, "epoch_s": 10.0}, {"steps": 2, "epoch_s": 6.0}]
    assert watch.step_s() == 3.0  # of 2 and 4 s; the first epoch warms up
    assert watch.warm_up_s() == 4.0  # 10 s for 2 steps that take 3 s later
    assert watch.between_s() == 9.5  # of 10 and 9 s
    assert speed(watch.epochs()) == {"step_s": 3.0, "steps_per_minute": 20.0}


class FakeTrainer:
    """The hooks of nnU-Net's trainer that the clock is read in, in the order it calls them."""

    def __init__(self) -> None:
        self.called = []

    def on_train_epoch_start(self) -> None:
        self.called.append("epoch")

    def train_step(self, batch: dict) -> dict:
        self.called.append("step")
        return batch

    def on_train_end(self) -> None:
        self.called.append("end")

    def run_training(self) -> None:
        for _ in range(3):
            self.on_train_epoch_start()
            for _ in range(2):
                assert self.train_step({"loss": 1}) == {"loss": 1}
        self.on_train_end()


def test_nnunets_training_is_watched_and_ended_by_the_clock():
    whole, ended = FakeTrainer(), FakeTrainer()
    assert [row["steps"] for row in watched(whole, budget_s=3600).epochs()] == [2, 2, 2]
    assert whole.called == ["epoch", "step", "step"] * 3 + ["end"]
    assert [row["steps"] for row in watched(ended, budget_s=1e-9).epochs()] == [1]  # at least one step
    assert ended.called == ["epoch", "step", "end"]


def test_nnunet_reads_the_same_folds_and_segfw_reads_them_back(tmp_path):
    ids = [f"case_{number}" for number in range(11)]
    splits = make_splits(ids)
    path = tmp_path / "splits_final.json"
    path.write_text(json.dumps(nnunet_splits(splits)))
    assert json.loads(path.read_text())[0].keys() == {"train", "val"}
    assert import_splits(path, ids).folds == splits.folds


def test_nnunet_does_not_see_this_environments_packages(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "somewhere")
    environment = nnunet_environment(tmp_path, tmp_path / "seed_1")
    assert "PYTHONPATH" not in environment
    assert environment["nnUNet_raw"] == str(tmp_path / "nnUNet_raw")
    assert environment["nnUNet_results"] == str(tmp_path / "seed_1")


def test_what_is_done_is_not_done_again(tmp_path):
    calls = []

    def work(value):
        calls.append(value)
        if value == "fails":
            raise RuntimeError
        return {"value": value}

    with pytest.raises(RuntimeError):
        once(tmp_path / "results" / "one.json", work, "fails")
    assert once(tmp_path / "results" / "one.json", work, "first") == {"value": "first"}
    assert once(tmp_path / "results" / "one.json", work, "second") == {"value": "first"}
    assert calls == ["fails", "first"]


def test_a_kept_folder_refuses_other_settings(tmp_path):
    keep_or_refuse(tmp_path / "keep", {"data": Path("a"), "steps": 12})
    keep_or_refuse(tmp_path / "keep", {"data": Path("a"), "steps": 12})
    with pytest.raises(SystemExit, match="steps 12, not 3"):
        keep_or_refuse(tmp_path / "keep", {"data": Path("a"), "steps": 3})


def test_runs_share_preprocessed_data_and_nothing_else(tmp_path):
    work = tmp_path / "work"
    (work / "preprocessed").mkdir(parents=True)
    (work / "runs" / "3d_fullres").mkdir(parents=True)
    (work / "plan.json").write_text("{}")
    for _ in range(2):  # again, as when a comparison goes on
        folder = linked_work(work, tmp_path / "seed_0")
    assert sorted(path.name for path in folder.iterdir()) == ["plan.json", "preprocessed"]
    assert (folder / "plan.json").resolve() == work / "plan.json"


def test_spread_is_the_sample_deviation():
    assert spread_text([1.0, 2.0, 3.0], digits=2) == "2.00 (1.00 to 3.00, sd 1.00)"
    assert spread_text([0.5], digits=2) == "0.50"


def made_result() -> dict:
    """What a comparison keeps: nnU-Net takes 4 s a step and segfw 1, 2 and 3 s in three rounds."""

    def scored(anterior: float, posterior: float) -> dict:
        labels = {"anterior": {"dice": anterior}, "posterior": {"dice": posterior}}
        scores = {"labels": labels, "foreground_mean": {"dice": (anterior + posterior) / 2}}
        return {"wall_s": 9.0, "peak_pss_gb": 0.5, "scores": scores}

    plan = {"patch": [40, 56, 32], "batch": 7}
    nnunet = {"steps": 7, "planned_epochs": 2, "planned_steps_per_epoch": 4, "calibrated_step_s": 4.0}
    nnunet |= {
        "calibrated_between_s": 1.5,
        "calibrated_warm_up_s": 2.0,
        "elapsed_s": 41.0,
        "last_learning_rate": 0.00536,
        "peak_pss_gb": 2.0,
    }
    return {
        "data": "toy", "cases": 12, "configuration": "3d_fullres", "device": "cpu", "threads": 2, "budget_s": 40.0,
        "auto_precision": "bfloat16", "machine": {"cpus": 2, "memory_gb": 8.0, "system": "Linux"},
        "prepare": {"plans": {"3d_fullres": {"nnunet": plan, "segfw": plan, "equal": True}}}
        | {"train": 9, "validation": 3},
        "steps": {
            "nnunet": [{"steps_per_minute": 15.0, "peak_pss_gb": 2.0}] * 3,
            "segfw_auto": [{"steps_per_minute": 60.0 / seconds, "peak_pss_gb": 1.0} for seconds in (1, 2, 3)],
        },
        "training": {
            "nnunet_seed_0": nnunet,
            "segfw_seed_0": {"steps": 20, "epochs": [{"elapsed_s": 40.5}], "peak_pss_gb": 1.0},
            "segfw_seed_1": {"steps": 21, "epochs": [{"elapsed_s": 40.5}], "peak_pss_gb": 1.0},
        },
        "prediction": {
            "nnunet_seed_0": scored(0.5, 0.7), "segfw_seed_0": scored(0.8, 0.8), "segfw_seed_1": scored(0.9, 0.8)
        },
    }  # fmt: skip


def test_steps_are_compared_by_medians_with_nnunet_as_one():
    head, nnunet, segfw = step_rows(made_result()["steps"])
    assert dict(zip(head[1:], nnunet[1:]))["times nnU-Net"] == "1.00"
    assert segfw == ["segfw auto", "30.00", "2.000", "500.0", "1.00", "2.00"]


def test_scores_are_means_and_spreads_over_seeds():
    result = made_result()
    _, nnunet, segfw = score_rows(result["prediction"])
    assert nnunet == ["nnU-Net", "1", "0.5000", "0.7000", "0.6000"]
    assert segfw[2] == "0.8500 (0.8000 to 0.9000, sd 0.0707)"
    assert segfw[4] == "0.8250 (0.8000 to 0.8500, sd 0.0354)"


def test_the_report_says_how_nnunets_schedule_was_fitted_and_works_half_way():
    result = made_result()
    for text in (tables(result), markdown(result)):
        assert "2 epochs of 4 steps" in text
        assert "7 of 8 steps in 41 s" in text
        assert "patch 40x56x32, batch 7" in text
        assert "0.8250 (0.8000 to 0.8500, sd 0.0354)" in text
    lines = [line for line in markdown(result).splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 2 + 2 + 3 + 2 + 2
    half = result | {"training": {}, "prediction": {}}
    assert "2.00" in tables(half)
    assert "held-out" not in tables(half)


def test_paired_differences_have_a_t_interval():
    found = paired_difference([0.9, 0.8, 0.7], [0.8, 0.8, 0.6])  # differences 0.1, 0, 0.1
    assert found["mean"] == pytest.approx(0.2 / 3)
    assert found["half_width"] == pytest.approx(4.302653 * 0.0577350 / 3**0.5, rel=1e-5)  # t of 2 degrees of freedom
    assert paired_difference([0.9], [0.8])["half_width"] is None
    with pytest.raises(ValueError, match="longer|shorter"):
        paired_difference([0.9, 0.8], [0.8])


def test_the_table_of_augmentations_has_every_run_and_the_difference():
    dice = {
        "device": {0: {"mean": 0.88, "organ": 0.88}, 1: {"mean": 0.86, "organ": 0.86}},
        "reference": {0: {"mean": 0.87, "organ": 0.87}, 1: {"mean": 0.86, "organ": 0.86}},
    }
    text = table(dice)
    assert "device: mean Dice 0.8700 (0.8600 to 0.8800, sd 0.0141)" in text
    assert "device - reference, organ: +0.0050 +- 0.0635 (95 % t interval), 2 pairs of runs" in text
    assert [line.split()[:2] for line in text.splitlines()[1:5]] == [
        ["device", "0"],
        ["device", "1"],
        ["reference", "0"],
        ["reference", "1"],
    ]


def test_augmentation_runs_have_the_same_steps_and_go_on_where_they_stopped(tmp_path):
    args = augmentation_parser().parse_args(["--data", "raw", "--keep", "kept"])
    chosen = options(args, "reference", 2, tmp_path)
    assert chosen[:4] == ["--augmentation", "reference", "--seed", 2]
    assert chosen[-4:] == ["--epochs", 10, "--steps-per-epoch", 40]
    (tmp_path / "last.safetensors").touch()
    assert options(args, "reference", 2, tmp_path)[-1] == "--resume"
    (tmp_path / "weights.safetensors").touch()
    assert options(args, "reference", 2, tmp_path) == chosen
    with pytest.raises(SystemExit, match="no multiple"):
        steps_per_epoch(400, 7)


def test_training_is_compared_for_12_minutes_unless_told_otherwise():
    args = build_parser().parse_args(["--data", "raw", "--keep", "kept"])
    assert (args.equal_time, args.seeds, args.nnunet_seeds) == (720.0, [0, 1, 2], [0])
    assert build_parser().parse_args(["--data", "a", "--keep", "b", "--equal-time", "40s"]).equal_time == 40
