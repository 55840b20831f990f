"""A Dask cluster as the place where cases are worked on, through the same interface as threads.

Dask gives a lost worker's cases to the others. It needs the extra ``cluster``, and folders that all workers see.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from segfw.base.parallel import Pool
from segfw.base.records import UserError

if TYPE_CHECKING:
    from distributed import Client

CONNECT_S = 30


@contextmanager
def cluster_pool(
    address: str, *, reads: Sequence[Path], writes: Path, per_thread: int = 1, connect_s: float = CONNECT_S
) -> Iterator[Pool]:
    """The workers of the Dask scheduler at ``address``, of which each thread gets ``per_thread`` cases at once.

    The scheduler must answer within ``connect_s``.

    Raises UserError if ``distributed`` is missing, nobody answers, no worker is there, or a worker does not see the
    files ``reads`` and the folder ``writes`` under the same absolute paths.
    """
    with _connected(address, connect_s) as client:
        workers = client.scheduler_info(n_workers=-1)["workers"]
        _require_shared(client, reads, writes)
        limits = [worker["memory_limit"] or float("inf") for worker in workers.values()]
        threads = sum(worker["nthreads"] for worker in workers.values())
        print(f"working on {len(workers)} Dask workers with {threads} threads at {address}")
        # Impure: a case is done as often as it is submitted, though it has the same arguments.
        executor = client.get_executor(pure=False)
        yield Pool(executor=executor, workers=threads * per_thread, budget_bytes=sum(limits) / 2)


def require_cluster(address: str, *, reads: Sequence[Path], connect_s: float = CONNECT_S) -> None:
    """Raises the UserError of ``cluster_pool`` for all but the folder that is written to, and writes nothing.

    For the beginning of work that needs the cluster at its end.
    """
    with _connected(address, connect_s) as client:
        _require_seen(_missing_at_workers(client, reads))


@contextmanager
def _connected(address: str, connect_s: float) -> Iterator[Client]:
    """A client of the scheduler at ``address``, which has workers."""
    try:
        from distributed import Client
    except ImportError:
        raise UserError("--cluster needs Dask; install it with: pip install 'segfw[cluster]'") from None
    try:
        client = Client(address, timeout=connect_s, set_as_default=False)
    except (OSError, ValueError) as error:
        raise UserError(f"--cluster {address}: no Dask scheduler answers there ({error}); give host:port") from None
    with client:
        if not client.scheduler_info(n_workers=-1)["workers"]:
            raise UserError(f"--cluster {address}: has no worker; start some with: dask worker {address}")
        yield client


def _require_shared(client: Client, reads: Sequence[Path], writes: Path) -> None:
    # A folder of the same name on a worker's own disk would pass without a file that was made just now.
    writes.mkdir(parents=True, exist_ok=True)
    token = writes / f".seen-{secrets.token_hex(4)}"
    token.touch()
    try:
        missing = _missing_at_workers(client, (*reads, token))
    finally:
        token.unlink(missing_ok=True)
    _require_seen({worker: writes if path == token else path for worker, path in missing.items()})


def _missing_at_workers(client: Client, paths: Sequence[Path]) -> dict[str, Path]:
    """The first of the paths that a worker does not see, by worker; of those that see all, nothing."""
    try:
        found = client.run(_missing, [str(path) for path in paths])
    except Exception as error:
        raise UserError(f"--cluster: its workers cannot run segfw ({error}); install the same version there") from None
    return {worker: Path(missing[0]) for worker, missing in found.items() if missing}


def _require_seen(missing: Mapping[str, Path]) -> None:
    for worker, path in missing.items():
        raise UserError(f"--cluster: the worker {worker} does not see {path}; use a disk that all workers share")


def _missing(paths: Sequence[str]) -> list[str]:
    return [path for path in paths if not Path(path).exists()]
