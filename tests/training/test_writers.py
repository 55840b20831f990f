"""Writers for TensorBoard, MLflow, W&B: with the packages where they are installed, with stand-ins for their faults."""

import os
import socket
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from segfw.base.records import UserError
from segfw.model.training_record import RunRecord, Session
from segfw.training.writers import MLFLOW_FILE, MLFLOW_RUN_FILE, figures, open_writers

NAMES = ("left kidney", "tumour [mm²]")
ROWS = [
    {"epoch": epoch, "train_loss": 1.0 - epoch, "val_dice": 0.5, "val_dice_per_label": [0.25 * epoch, 0.75], "x": None}
    for epoch in range(3)
]


def record(sessions: int = 1) -> RunRecord:
    session = Session(
        how="started",
        started="2026-01-01T00:00:00+00:00",
        first_epoch=1,
        command="segfw train",
        settings={"seed": 5, "epochs": 3},
        device="CPU",
        precision="float32",
        processes=1,
        threads=1,
        versions={"torch": "2"},
        system="Linux",
        git=None,
        data_digest="abc",
    )
    return RunRecord(label_names=NAMES, sessions=(session,) * sessions)


def test_figures_of_a_row_by_name():
    row = {
        "epoch": 3,
        "loss": 1,
        "bad": float("nan"),
        "none": None,
        "rescued": "text",
        "val_dice_per_label": [0.5, None],
    }
    assert figures(row, NAMES) == {"loss": 1.0, "val_dice/left kidney": 0.5}


def test_unknown_writers_are_refused(tmp_path):
    with pytest.raises(UserError, match="--log 'aim' is unknown; choose from tensorboard, mlflow, wandb"):
        open_writers(("aim",), tmp_path, record())
    assert open_writers((), tmp_path, record()) == []


@pytest.mark.parametrize(
    "name, module", [("tensorboard", "torch.utils.tensorboard"), ("mlflow", "mlflow"), ("wandb", "wandb")]
)
def test_a_missing_package_is_named_with_the_extra_that_has_it(name, module, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)  # as Python marks what cannot be imported
    with pytest.raises(
        UserError, match=rf"--log {name} needs a package that is missing; pip install 'segfw\[{name}\]'"
    ):
        open_writers((name,), tmp_path, record())


def test_a_writer_that_fails_says_so_once_and_is_silent(tmp_path, monkeypatch, capsys):
    class Failing:
        def __init__(self, **settings):
            pass

        def add_text(self, *values):
            raise OSError("disk full")

        def close(self):
            raise OSError("disk full")

    fake = ModuleType("torch.utils.tensorboard")
    fake.SummaryWriter = Failing
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    (writer,) = open_writers(("tensorboard",), tmp_path, record())
    for row in ROWS:
        writer.write(row)
    writer.close()
    assert capsys.readouterr().out == "note: nothing more is written to tensorboard: disk full\n"


def test_tensorboard_reads_what_was_written_and_a_resumed_run_replaces_its_epochs(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (writer,) = open_writers(("tensorboard", "tensorboard"), tmp_path, record())
    for row in ROWS:
        writer.write(row)
    writer.close(finished=False)
    (resumed,) = open_writers(("tensorboard",), tmp_path, record(2))
    resumed.write(ROWS[2] | {"train_loss": 7.0})
    resumed.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(each.step, each.value) for each in events.Scalars("train_loss")] == [(1, 1), (2, 0), (3, 7)]
    assert [each.value for each in events.Scalars("val_dice/left kidney")] == [0, 0.25, 0.5]
    assert "x" not in events.Tags()["scalars"]


@pytest.fixture
def client(tmp_path, monkeypatch):
    """MLflow's own view of a store in a folder, with no tracking URI set."""
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)

    def of(path):
        return mlflow.MlflowClient(tracking_uri=f"sqlite:///{path}")

    return of


def test_mlflow_gets_figures_and_settings_and_a_resumed_run_goes_on(tmp_path, client):
    folder = tmp_path / "3d_fullres" / "fold_0"
    folder.mkdir(parents=True)
    (writer,) = open_writers(("mlflow",), folder, record())
    writer.write(ROWS[0])
    writer.close(finished=False)
    run_id = (folder / MLFLOW_RUN_FILE).read_text().strip()
    store = client(folder / MLFLOW_FILE)
    run = store.get_run(run_id)
    assert run.info.status == "KILLED"
    assert run.info.run_name == "3d_fullres/fold_0"
    assert (run.data.params["seed"], run.data.params["device"]) == ("5", "CPU")
    (resumed,) = open_writers(("mlflow",), folder, record(2))
    resumed.write(ROWS[1])
    resumed.close()
    history = store.get_metric_history(run_id, "train_loss")
    assert [(each.step, each.value) for each in history] == [(1, 1), (2, 0)]
    assert store.get_run(run_id).info.status == "FINISHED"
    assert store.get_run(run_id).data.metrics["val_dice/left kidney"] == 0.25
    assert "val_dice/tumour _mm__" in store.get_run(run_id).data.metrics
    # A run that is started anew is another one.
    open_writers(("mlflow",), folder, record())
    assert (folder / MLFLOW_RUN_FILE).read_text().strip() != run_id


def test_mlflow_logs_to_the_place_that_its_environment_names(tmp_path, client, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'shared.db'}")
    (writer,) = open_writers(("mlflow",), tmp_path, record())
    writer.write(ROWS[0])
    writer.close()
    run_id = (tmp_path / MLFLOW_RUN_FILE).read_text().strip()
    assert client(tmp_path / "shared.db").get_run(run_id).data.metrics["val_dice"] == 0.5
    assert not (tmp_path / MLFLOW_FILE).exists()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://nowhere")
    with pytest.raises(UserError, match="MLflow cannot log to nonsense://nowhere .*; correct MLFLOW_TRACKING_URI"):
        open_writers(("mlflow",), tmp_path, record())


class StandIn:
    """Weights & Biases as far as the writer uses it: what it was told, in order."""

    def __init__(self):
        self.begun = []
        self.logged = []
        self.ends = []
        self.module = ModuleType("wandb")
        self.module.Settings = dict
        self.module.init = self.init

    def init(self, **asked):
        self.begun.append(asked)
        return SimpleNamespace(
            id=asked["id"],
            log=lambda values, step: self.logged.append((step, values)),
            finish=lambda exit_code: self.ends.append(exit_code),
        )


@pytest.fixture
def stand_in(monkeypatch):
    found = StandIn()
    monkeypatch.setitem(sys.modules, "wandb", found.module)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "")  # so that what the writer sets is undone
    monkeypatch.delenv("WANDB_ERROR_REPORTING")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return found


def test_wandb_keeps_figures_and_settings_here_and_a_resumed_run_goes_on(tmp_path, stand_in):
    folder = tmp_path / "3d_fullres" / "fold_0"
    folder.mkdir(parents=True)
    (writer,) = open_writers(("wandb",), folder, record())
    writer.write(ROWS[1])
    writer.close(finished=False)
    (resumed,) = open_writers(("wandb",), folder, record(2))
    resumed.close()
    open_writers(("wandb",), folder, record())  # begun anew
    first, second, third = stand_in.begun
    assert (first["mode"], first["project"], first["name"]) == ("offline", "segfw", "3d_fullres/fold_0")
    assert (first["config"]["seed"], first["config"]["device"]) == (5, "CPU")
    assert "command" not in first["config"]  # which names folders
    switched_off = ("disable_git", "disable_code", "x_disable_meta", "x_disable_stats", "x_disable_machine_info")
    assert [first["settings"][name] for name in switched_off] == [True] * 5
    assert os.environ["WANDB_ERROR_REPORTING"] == "false"
    assert first["id"] == second["id"] != third["id"]
    by_label = {"val_dice/left kidney": 0.25, "val_dice/tumour [mm²]": 0.75}
    assert stand_in.logged == [(2, {"train_loss": 0.0, "val_dice": 0.5, **by_label})]
    assert stand_in.ends == [1, 0]


def test_wandb_sends_where_its_user_says_so_and_tells_why_it_cannot(tmp_path, stand_in, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    open_writers(("wandb",), tmp_path, record())
    assert stand_in.begun[0]["mode"] == "online"

    def refused(**asked):
        raise OSError("no API key configured")

    stand_in.module.init = refused
    with pytest.raises(UserError, match=r"cannot log in mode 'online' \(no API key configured\); set WANDB_MODE=offl"):
        open_writers(("wandb",), tmp_path, record())


def test_wandb_offline_needs_no_account_and_keeps_no_name_of_host_or_person(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    (writer,) = open_writers(("wandb",), tmp_path, record())
    for row in ROWS:
        writer.write(row)
    writer.close()
    wandb.teardown()  # until which the process that writes may not have done so
    (stored,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    content = stored.read_bytes()
    assert b"val_dice/left kidney" in content
    assert socket.gethostname().encode() not in content
    assert str(Path.home()).encode() not in content
    assert not list((tmp_path / "wandb").rglob("wandb-metadata.json"))
