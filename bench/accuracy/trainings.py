"""Trainings one after the other, or several at once on cores of their own; what is finished is not done again.

WORK/prepared/SET-DIGEST/               a data set, planned and preprocessed once for all that plan alike
WORK/SET/ARM/24min_1core/seed_0/        a work folder of segfw with all folds, which shares what is preprocessed
WORK/logs/                              what each training printed
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path

import psutil
from pydantic import JsonValue

from bench import CLONE
from bench.accuracy.results import (
    Arm,
    CaseScores,
    Result,
    Training,
    kept_scores,
    require_same_arm,
)
from bench.accuracy.sets import raw_folder
from bench.measure import end_tree, failure
from bench.result_lines import append_line, read_lines
from bench.runs import keep_or_refuse, linked_work, processor_name, usable_cores
from segfw.base.durations import typed_duration
from segfw.base.records import NAME, UserError
from segfw.base.words import count, listed
from segfw.cli import build_parser
from segfw.cli import main as segfw
from segfw.dataset.cases import MANIFEST_FILE, DatasetManifest
from segfw.dataset.layouts import find_dataset
from segfw.dataset.patients import read_groups
from segfw.evaluation.metrics import Scores
from segfw.model.short_runs import features_that_tell
from segfw.model.source import WEIGHTS_FILE, load_plan
from segfw.model.training_record import read_run_record
from segfw.planning.plan import Configuration
from segfw.planning.request import PlanRequest, PrepareOptions
from segfw.planning.structure_sizes import kept_structure_shares
from segfw.verbs.plan_and_preprocess import plan_and_preprocess

PACKAGE = CLONE / "segfw"
SCORES = Path("validation") / "scores.json"  # in the folder of a fold
OWN_OPTIONS = ("--configurations", "--folds", "--seed", "--time-budget", "--dry-run", "--device")
NOT_PLANNED_BY = ("configurations", "workers", "cluster")  # of PlanRequest: what changes nothing in the plan
POLL_S = 0.2


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where data, work folders and results lie, and what is computed on. ``is_for_models`` says what finished means.

    With it the trained model must be in ``work``; without it a result is enough, wherever it was made.
    """

    data: Path
    work: Path
    results: Path
    device: str = "cpu"
    at_once: int = 1
    is_for_models: bool = False

    def folder(self, training: Training) -> Path:
        """The work folder of a training, which it shares with the other folds of its seed."""
        length = f"{training.minutes:g}min_{count(training.cores, 'core').replace(' ', '')}"
        return self.work / training.data_set / training.arm.name / length / f"seed_{training.seed}"

    def log(self, training: Training) -> Path:
        """What the processes of a training print."""
        parts = (*self.folder(training).relative_to(self.work).parts, f"fold_{training.fold}")
        return self.work / "logs" / f"{'_'.join(parts)}.log"


@dataclass(frozen=True, kw_only=True)
class Job:
    """A training with what segfw is told to do it; what that prints goes into ``log``."""

    training: Training
    segfw_arguments: Sequence[str]
    log: Path

    @property
    def command(self) -> list[str]:
        """What is started."""
        return [sys.executable, "-m", "segfw", *self.segfw_arguments]


Start = Callable[[Job, Sequence[int]], subprocess.Popen[bytes]]


def require_arm(arm: Arm) -> PlanRequest:
    """What an arm asks of planning; raises UserError for a name that is no folder's and for options that are wrong."""
    if not re.fullmatch(NAME, arm.name):
        raise UserError(f"--arm {arm.name!r} becomes a folder; give letters, digits, _, - and .")
    for word in arm.options:
        name = word.partition("=")[0]
        if name in OWN_OPTIONS:
            raise UserError(f"--options {name}: is set by this command itself; leave it out")
    typed = build_parser().parse_args(["run", "RAW", "WORK", *arm.options])
    request = PlanRequest.from_arguments(typed)
    return replace(request, configurations=(arm.configuration,) if arm.configuration else None)


def train_all(trainings: Sequence[Training], place: Place, start: Start | None = None) -> None:
    """Does the trainings that are not finished, and adds a line to the results for each.

    ``start`` begins a process, by default a real one. Raises UserError for what is wrong before the first one begins,
    and at the end if any failed.
    """
    cores = usable_cores()
    each = max(training.cores for training in trainings)
    if each * place.at_once > len(cores):
        asked = count(each * place.at_once, "core")
        raise UserError(f"{asked} would be used, and {len(cores)} may be here; lower --cores or --at-once")
    requests = {training.arm.name: require_arm(training.arm) for training in trainings}
    results = read_lines(Result, place.results)
    for training in trainings:
        require_same_arm(training, results)

    waiting = [training for training in trainings if not _is_done(training, place, results)]
    hours = sum(training.minutes for training in waiting) / 60
    finished = len(trainings) - len(waiting)
    print(f"{count(len(trainings), 'training')}, {finished} finished; {hours:.2g} core-hours to go", flush=True)
    prepared = {
        (arm, name): _prepared(raw_folder(place.data, name), name, requests[arm], place)
        for arm, name in dict.fromkeys((training.arm.name, training.data_set) for training in waiting)
    }
    jobs = [_job(training, prepared[training.arm.name, training.data_set], place) for training in waiting]
    for job in {(job.training.arm.name, job.training.data_set): job for job in jobs}.values():
        if job.training.arm.configuration is None:
            require_one_configuration(job)
    groups = [cores[number * each : (number + 1) * each] for number in range(place.at_once)]
    failures = _run_all(jobs, groups, place, start or _start)
    if failures:
        raise UserError("\n".join([*failures, f"{count(len(failures), 'training')} failed; the same command goes on"]))


def _is_done(training: Training, place: Place, results: Sequence[Result]) -> bool:
    """Whether there is nothing left to do; a model without its line is not done, which then takes no time."""
    lines = [result for result in results if result.key == training.key]
    if not place.is_for_models:
        return bool(lines)
    made = [read_run_record(folder) for folder in finished_folds(place.folder(training), training)]
    starts = {record.sessions[0].started for record in made if record is not None}
    return any(line.started in starts for line in lines)


def _prepared(raw: Path, name: str, request: PlanRequest, place: Place) -> Path:
    """A work folder in which a data set is planned and preprocessed, for these sources and this request."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(path.read_bytes())
    for each in fields(request):
        if each.name not in NOT_PLANNED_BY:
            digest.update(f"{each.name}={getattr(request, each.name)!r};".encode())
    work = place.work / "prepared" / f"{name}-{digest.hexdigest()[:12]}"
    plan_and_preprocess(raw, work, request, PrepareOptions(device=place.device))
    return work


def _job(training: Training, prepared: Path, place: Place) -> Job:
    """A training with its work folder, which shares what is prepared, and the command that begins or goes on."""
    folder = place.folder(training)
    keep_or_refuse(folder.parent, training.arm.model_dump(mode="json"), remedy="give this arm another name")
    linked_work(prepared, folder)
    words = ["run", str(raw_folder(place.data, training.data_set)), str(folder), "--folds", training.fold]
    words += ["--time-budget", typed_duration(60 * training.minutes / training.cores), "--seed", str(training.seed)]
    words += ["--device", place.device]
    if training.arm.configuration is not None:
        words += ["--configurations", training.arm.configuration]
    return Job(training=training, segfw_arguments=[*words, *training.arm.options], log=place.log(training))


def require_one_configuration(job: Job) -> None:
    """Asks segfw what it would train, which writes nothing; UserError unless that is one configuration.

    A result is of one, and several would take the time several times.
    """
    said = io.StringIO()
    with redirect_stdout(said):
        status = segfw([*job.segfw_arguments, "--dry-run", "--json"])
    if status:
        raise UserError(f"{job.training.text}: segfw run would not start, for the reason above")
    names = [each["name"] for each in json.loads(said.getvalue())["configurations"]]
    if len(names) != 1:
        raise UserError(
            f"{job.training.data_set}: segfw run would train {listed(names, 'and')}, each for the whole time; name one "
            "by --configuration"
        )


@dataclass(kw_only=True)
class _Running:
    """A training that has a process, and what this took so far: wall time since ``began_s``, and of processors."""

    job: Job
    cores: Sequence[int]
    process: subprocess.Popen[bytes]
    began_s: float
    wall_s: float = 0.0
    cpu_s: float = 0.0

    def look(self) -> int | None:
        """The exit status, once there is one; until then notes the time, which cannot be asked of what has ended."""
        with suppress(psutil.Error):
            times = psutil.Process(self.process.pid).cpu_times()
            self.cpu_s = max(self.cpu_s, times.user + times.system)  # a process that ended may say 0
            self.wall_s = time.perf_counter() - self.began_s
        return self.process.poll()

    @property
    def core_share(self) -> float | None:
        """How much of its cores' time the process got."""
        return self.cpu_s / (self.wall_s * len(self.cores)) if self.cpu_s else None


def _run_all(jobs: Sequence[Job], groups: Sequence[Sequence[int]], place: Place, start: Start) -> list[str]:
    """One process on each of the groups of cores at a time, until all are done; returns what failed and why."""
    waiting = list(jobs)
    free = list(groups)
    running: list[_Running] = []
    failures: list[str] = []
    try:
        while waiting or running:
            while waiting and free:
                job = waiting.pop(0)
                cores = free.pop(0)
                print(f"{job.training.text}: on core {listed(cores, 'and')} ...", flush=True)
                began_s = time.perf_counter()
                running.append(_Running(job=job, cores=cores, process=start(job, cores), began_s=began_s))
            for each in list(running):
                status = each.look()
                if status is not None:
                    running.remove(each)
                    free.append(each.cores)
                    failures += _ended(each, status, place)
            time.sleep(POLL_S)
    finally:
        for each in running:
            end_tree(each.process)
    return failures


def _start(job: Job, cores: Sequence[int]) -> subprocess.Popen[bytes]:
    """A process of this clone's code, whatever is installed, with as many threads as cores."""
    environment = os.environ | {"PYTHONPATH": str(CLONE), "OMP_NUM_THREADS": str(len(cores))}
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with open(job.log, "ab") as output, pinned_to(cores):
        return subprocess.Popen(job.command, env=environment, stdout=output, stderr=subprocess.STDOUT)


def _ended(ended: _Running, status: int, place: Place) -> list[str]:
    """Adds a finished training to the results, or returns why it is not finished."""
    job = ended.job
    if status:
        return [f"{job.training.text}: {failure(job.command, status, job.log)}"]
    try:
        result = result_of(job.training, place, ended.core_share)
    except UserError as error:
        return [f"{job.training.text}: {error}"]
    append_line(place.results, result)
    reached = f"{result.configuration}, {count(result.steps, 'step')} in {result.seconds:.0f} s"
    print(f"{job.training.text}: {reached}", flush=True)
    return []


@contextmanager
def pinned_to(cores: Sequence[int]) -> Iterator[None]:
    """Processes that start in the block run on these cores alone, where the system can say so."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def finished_folds(work: Path, training: Training) -> list[Path]:
    """Folders of the fold, one for each configuration, that are trained and scored."""
    wanted = training.arm.configuration or "*"
    found = work.glob(f"runs/{wanted}/fold_{training.fold}")
    return sorted(folder for folder in found if (folder / SCORES).is_file() and (folder / WEIGHTS_FILE).is_file())


def result_of(training: Training, place: Place, core_share: float | None) -> Result:
    """What a finished training left in its work folder; UserError if that is not one configuration's fold.

    ``core_share`` is how much of its cores' time its process got.
    """
    work = place.folder(training)
    folders = finished_folds(work, training)
    if len(folders) != 1:
        names = ", ".join(folder.parent.name for folder in folders) or "nothing"
        raise UserError(f"{work}: {names} trained to its end instead of one configuration; name it by --configuration")
    folder = folders[0]
    plan = load_plan(work)
    configuration = plan.configuration(folder.parent.name)
    run = read_run_record(folder)
    if run is None or run.end is None:
        raise UserError(f"{folder}: its run.json does not say how it ended; delete the folder to train it again")
    last = run.sessions[-1]
    commits = {session.git.commit if session.git else "" for session in run.sessions}
    scores = Scores.load(folder / SCORES)
    patients = patients_of(work, raw_folder(place.data, training.data_set), require_arm(training.arm))
    return Result.of(
        training,
        commit=last.git.commit if last.git else "",
        is_changed=len(commits) > 1 or any(session.git and session.git.is_changed for session in run.sessions),
        started=run.sessions[0].started,
        processor=processor_name(),
        device=last.device,
        configuration=configuration.name,
        patch=_trained_patch(last.settings, configuration),
        precision=last.precision,
        steps=run.end.steps,
        seconds=run.end.seconds,
        core_share=None if core_share is None else round(core_share, 3),
        settings=last.settings,
        said={"expected": run.sessions[0].expected, **run.model_dump(mode="json", exclude={"sessions", "label_names"})},
        cases={
            case: CaseScores(
                patient=patients[case], structures={name: kept_scores(score) for name, score in by_label.items()}
            )
            for case, by_label in scores.cases.items()
        },
        features=features_that_tell(configuration),
        shares={name: rounded(share) for name, share in kept_structure_shares(work, plan.labels).items()},
    )


def rounded(share: float) -> float:
    """To three digits."""
    return float(f"{share:.3g}")


def _trained_patch(settings: Mapping[str, JsonValue], configuration: Configuration) -> tuple[int, ...]:
    """The last patch that was trained on, of which prediction takes tiles."""
    stated = settings.get("patch_size")
    return tuple(int(str(edge)) for edge in stated) if isinstance(stated, list) else configuration.patch_size


def patients_of(work: Path, raw: Path, request: PlanRequest) -> dict[str, str]:
    """Patient of every case, by which the folds were drawn."""
    ids = [case.id for case in DatasetManifest.load(work / MANIFEST_FILE).cases]
    return read_groups(request.groups, ids, find_dataset(raw, request.label_names).patient_of)
