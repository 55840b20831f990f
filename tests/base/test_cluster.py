"""Cases handed to a Dask cluster: the same files as without it, also when a worker dies."""

import os
import signal
import threading
from pathlib import Path

import pytest

from builders.data import make_images, mask_bytes
from builders.models import make_model
from builders.slow_prediction import slowly
from builders.waiting import wait_until
from segfw.base.cluster import cluster_pool, require_cluster
from segfw.base.parallel import CasesFailed
from segfw.base.records import UserError
from segfw.verbs.plan_and_preprocess import plan_and_preprocess
from segfw.verbs.predict import predict

distributed = pytest.importorskip("distributed", reason="Dask is not installed: pip install 'segfw[cluster]'")
CASES = 12


@pytest.fixture(scope="module")
def cluster():
    """Three worker processes, each with one thread, as on a cluster; dead ones are not replaced."""
    with distributed.LocalCluster(
        n_workers=3, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    ) as started:
        yield started


def test_preprocessing_on_a_cluster_gives_the_same_files(cluster, make_raw, tmp_path, monkeypatch):
    raw = make_raw()
    plan_and_preprocess(raw, tmp_path / "here", configurations=("2d",), device="cpu")
    monkeypatch.chdir(tmp_path)  # a worker is in another folder
    plan_and_preprocess(
        Path("raw"), Path("there"), configurations=("2d",), device="cpu", cluster=cluster.scheduler_address
    )
    files = [
        {path.name: path.read_bytes() for path in (tmp_path / work / "preprocessed" / "2d").glob("*.b2nd")}
        for work in ("here", "there")
    ]
    assert len(files[0]) == 18
    assert files[0] == files[1]
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "there").rglob("*.b2nd")}
    plan_and_preprocess(raw, tmp_path / "there", configurations=("2d",), device="cpu")
    assert times == {path: path.stat().st_mtime_ns for path in times}  # what the workers made is kept


def test_a_failing_case_is_named(cluster, tmp_path):
    images = make_images(tmp_path / "images", 2)
    (images / "b.nii.gz").write_bytes(b"broken")
    with pytest.raises(CasesFailed, match=r"(?s)1 case failed in prediction.*\n  b: .*b.nii.gz: cannot be read"):
        predict(make_model(tmp_path / "model"), images, tmp_path / "masks", cluster=cluster.scheduler_address)
    assert list(mask_bytes(tmp_path / "masks")) == ["a.nii.gz"]


def test_a_worker_that_is_killed_loses_no_case(cluster, tmp_path, capsys):
    model = make_model(tmp_path / "model")
    images = make_images(tmp_path / "images", CASES)
    predict(model, images, tmp_path / "here", device="cpu")
    with distributed.Client(cluster.scheduler_address, set_as_default=False) as client:
        pids = list(client.run(os.getpid).values())
    assert len(pids) == 3
    capsys.readouterr()
    there = tmp_path / "there"
    options = {"cluster": cluster.scheduler_address, "build": slowly(0.1)}
    running = threading.Thread(target=predict, args=(model, images, there), kwargs=options)
    running.start()
    wait_until(lambda: len(mask_bytes(there)) >= 3 or not running.is_alive())
    os.kill(pids[0], signal.SIGKILL)
    before = len(mask_bytes(there))
    running.join(timeout=600)
    assert 3 <= before < CASES - 2, "killed too late to prove anything"
    assert mask_bytes(there) == mask_bytes(tmp_path / "here")
    assert not list(there.rglob(".partial-*")) + list(there.glob("failures*"))


def test_wrong_addresses_and_folders_are_one_sentence(cluster, tmp_path):
    with (
        pytest.raises(UserError, match="--cluster tcp://127.0.0.1:9: no Dask scheduler answers there"),
        cluster_pool("tcp://127.0.0.1:9", reads=[], writes=tmp_path, connect_s=1),
    ):
        pass
    with (
        pytest.raises(UserError, match="does not see .*nowhere; use a disk that all workers share"),
        cluster_pool(cluster.scheduler_address, reads=[tmp_path / "nowhere"], writes=tmp_path),
    ):
        pass
    with pytest.raises(UserError, match="does not see .*nowhere; use a disk that all workers share"):
        require_cluster(cluster.scheduler_address, reads=[tmp_path, tmp_path / "nowhere"])
    require_cluster(cluster.scheduler_address, reads=[tmp_path])
    assert not list(tmp_path.iterdir())


def test_a_prediction_whose_cluster_has_no_worker_writes_nothing(tmp_path):
    images = make_images(tmp_path / "images", 1)
    model = make_model(tmp_path / "model")
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address=None, silence_logs=50) as empty,
        pytest.raises(UserError, match="has no worker; start some with: dask worker tcp://"),
    ):
        predict(model, images, tmp_path / "masks", cluster=empty.scheduler_address)
    assert not (tmp_path / "masks").exists()
