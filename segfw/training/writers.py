"""A run's figures for TensorBoard, MLflow or W&B too, where these are installed; metrics.jsonl is always written."""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

from segfw.base.files import write_text
from segfw.base.records import UserError
from segfw.base.words import first_line
from segfw.base.written_by_people import read_text
from segfw.model.training_record import EpochRow, RunRecord

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

MLFLOW_FILE = "mlflow.db"
MLFLOW_RUN_FILE = "mlflow_run.txt"
MLFLOW_EXPERIMENT = "segfw"
WANDB_RUN_FILE = "wandb_run.txt"
WANDB_PROJECT = "segfw"
LONGEST_PARAMETER = 500  # characters that every version of MLflow takes
PER_LABEL = "_per_label"


class Writer(Protocol):
    """Takes the rows of metrics.jsonl, an epoch each."""

    def write(self, row: EpochRow) -> None:
        """Adds one epoch."""

    def close(self, finished: bool = True) -> None:
        """Ends the writing; ``finished`` is False where the run was cut short."""


def require_writers(names: Sequence[str]) -> None:
    """Raises UserError for a writer that is unknown, or whose package is missing."""
    for name in names:
        if name not in WRITERS:
            raise UserError(f"--log {name!r} is unknown; choose from {', '.join(WRITERS)}")
        for module in MODULES[name]:
            _imported(module, name)


def open_writers(names: Sequence[str], folder: Path, record: RunRecord) -> list[Writer]:
    """Writers by name (see WRITERS) for the run in ``folder``; one that goes on continues what was written before.

    A writer that fails later on says so once and is silent from then on: training is worth more than its curves.
    Raises UserError for an unknown name, a package that is missing, or a tracking server that cannot be reached.
    """
    require_writers(names)
    return [_Careful(name, WRITERS[name](folder, record)) for name in dict.fromkeys(names)]


def figures(row: Mapping[str, object], label_names: Sequence[str]) -> dict[str, float]:
    """All finite numbers of a row by name; those by label as 'val_dice/kidney'. The epoch itself is left out."""
    found: dict[str, float | None] = {}
    for key, value in row.items():
        if key.endswith(PER_LABEL) and isinstance(value, Sequence):
            for name, of_label in zip(label_names, value):
                found[f"{key.removesuffix(PER_LABEL)}/{name}"] = of_label
        elif isinstance(value, int | float) and key != "epoch":
            found[key] = value
    return {key: float(value) for key, value in found.items() if value is not None and math.isfinite(value)}


class _Careful:
    """A writer whose failures do not reach the training."""

    def __init__(self, name: str, writer: Writer) -> None:
        self._name = name
        self._writer = writer
        self._has_failed = False

    def write(self, row: EpochRow) -> None:
        self._try(lambda: self._writer.write(row))

    def close(self, finished: bool = True) -> None:
        self._try(lambda: self._writer.close(finished))

    def _try(self, action: Callable[[], None]) -> None:
        if self._has_failed:
            return
        try:
            action()
        except Exception as error:  # servers and disks fail in too many ways to list
            self._has_failed = True
            print(f"note: nothing more is written to {self._name}: {str(error)[:200] or type(error).__name__}")


class _TensorBoard:
    def __init__(self, folder: Path, record: RunRecord) -> None:
        self._module = _imported("torch.utils.tensorboard", "tensorboard")
        self._folder = folder / "tensorboard"
        self._record = record
        self._events: SummaryWriter | None = None

    def write(self, row: EpochRow) -> None:
        epoch = row["epoch"] + 1
        if self._events is None:
            self._events = self._opened(epoch)
        for key, value in figures(row, self._record.label_names).items():
            self._events.add_scalar(key, value, epoch)
        self._events.flush()

    def _opened(self, epoch: int) -> SummaryWriter:
        """Opened by the first row: of an interrupted run, epochs that are done again replace the old ones."""
        events: SummaryWriter = self._module.SummaryWriter(log_dir=str(self._folder), purge_step=epoch)
        events.add_text("run", f"```\n{self._record.model_dump_json(indent=1)}\n```", epoch)
        return events

    def close(self, finished: bool = True) -> None:
        if self._events is not None:
            self._events.close()


class _MLflow:
    def __init__(self, folder: Path, record: RunRecord) -> None:
        mlflow = _imported("mlflow", "mlflow")
        if mlflow.is_tracking_uri_set():
            uri = mlflow.get_tracking_uri()
        else:
            uri = f"sqlite:///{(folder / MLFLOW_FILE).resolve().as_posix()}"
        self._mlflow = mlflow
        self._record = record
        try:
            self._client = mlflow.MlflowClient(tracking_uri=uri)
            self._run = self._continued(folder / MLFLOW_RUN_FILE) or self._created(folder)
        except Exception as error:  # of the server, the network or the store
            reason = first_line(error)
            raise UserError(
                f"MLflow cannot log to {uri} ({reason[:200]}); correct MLFLOW_TRACKING_URI, or train without MLflow"
            ) from None

    def _continued(self, kept: Path) -> str | None:
        """The run that an earlier session of the same training wrote to, if it is still there."""
        if len(self._record.sessions) < 2 or not kept.is_file():
            return None
        try:
            run = read_text(kept).strip()
            self._client.update_run(run, status="RUNNING")
        except Exception:  # deleted there, or on another server: a new one then
            return None
        return run

    def _created(self, folder: Path) -> str:
        experiment = self._client.get_experiment_by_name(MLFLOW_EXPERIMENT)
        number = experiment.experiment_id if experiment else self._client.create_experiment(MLFLOW_EXPERIMENT)
        configuration_and_fold = "/".join(folder.resolve().parts[-2:])
        run = self._client.create_run(number, run_name=configuration_and_fold).info.run_id
        write_text(folder / MLFLOW_RUN_FILE, f"{run}\n")
        session = self._record.sessions[-1]
        parameters = session.model_dump(mode="json", exclude={"settings"}) | session.settings
        for key, value in parameters.items():
            text = value if isinstance(value, str) else json.dumps(value)
            self._client.log_param(run, key, text[:LONGEST_PARAMETER])
        return run

    def write(self, row: EpochRow) -> None:
        now_ms = int(time.time() * 1000)
        metric = self._mlflow.entities.Metric
        metrics = [
            metric(_mlflow_name(key), value, now_ms, row["epoch"] + 1)
            for key, value in figures(row, self._record.label_names).items()
        ]
        self._client.log_batch(self._run, metrics=metrics)

    def close(self, finished: bool = True) -> None:
        self._client.set_terminated(self._run, status="FINISHED" if finished else "KILLED")


def _mlflow_name(name: str) -> str:
    """MLflow takes letters, digits and a few signs."""
    return re.sub(r"[^\w\-. /]", "_", name, flags=re.ASCII)


class _Wandb:
    """Weights & Biases: figures and settings alone, kept in the run's folder unless its user says where to send them.

    Which is by W&B's own WANDB_MODE=online; later ``wandb sync`` sends what is kept. Nothing else that W&B can collect
    (console, source, commit, host, folders, use of the machine) is, and no report of its errors goes out.
    """

    def __init__(self, folder: Path, record: RunRecord) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read when it is imported
        wandb = _imported("wandb", "wandb")
        kept = folder / WANDB_RUN_FILE
        mode = os.environ.get("WANDB_MODE") or "offline"
        session = record.sessions[-1]
        described = session.model_dump(mode="json", exclude={"settings", "command"}) | session.settings
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT") or WANDB_PROJECT,
                id=_kept_id(kept, record) or secrets.token_hex(4),
                resume="allow",
                name="/".join(folder.resolve().parts[-2:]),  # configuration and fold
                dir=str(folder),
                mode=mode,
                config=described,
                settings=wandb.Settings(
                    silent=True,
                    console="off",
                    save_code=False,
                    disable_git=True,
                    disable_code=True,
                    disable_job_creation=True,
                    host="",
                    x_disable_meta=True,
                    x_disable_stats=True,
                    x_disable_machine_info=True,
                    x_save_requirements=False,
                ),
            )
        except Exception as error:  # of the server, the network or the disk
            raise UserError(
                f"Weights & Biases cannot log in mode {mode!r} ({first_line(error)[:200]}); set WANDB_MODE=offline, "
                "or train without it"
            ) from None
        self._record = record
        write_text(kept, f"{self._run.id}\n")

    def write(self, row: EpochRow) -> None:
        self._run.log(figures(row, self._record.label_names), step=row["epoch"] + 1)

    def close(self, finished: bool = True) -> None:
        self._run.finish(exit_code=0 if finished else 1)


def _kept_id(kept: Path, record: RunRecord) -> str | None:
    """W&B's name of a run that goes on; None for a new one."""
    return read_text(kept).strip() if len(record.sessions) > 1 and kept.is_file() else None


def _imported(module: str, package: str) -> ModuleType:
    try:
        return import_module(module)
    except ImportError:
        raise UserError(f"--log {package} needs a package that is missing; pip install 'segfw[{package}]'") from None


# What each of them needs; MLflow would miss its database's later, and less clearly.
MODULES = {
    "tensorboard": ("torch.utils.tensorboard",),
    "mlflow": ("mlflow", "sqlalchemy"),
    "wandb": ("wandb",),
}
WRITERS: dict[str, Callable[[Path, RunRecord], Writer]] = {
    "tensorboard": _TensorBoard,
    "mlflow": _MLflow,
    "wandb": _Wandb,
}
