"""A Dask cluster as the place where cases are worked on, through the same interface as threads.

Dask gives a lost worker's cases to the others. It needs the extra ``cluster``, and folders that all workers see.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
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
    try:
        from distributed import Client
    except ImportError:
        raise UserError("--cluster needs Dask; install it with: pip install 'segfw[cluster]'") from None
    try:
        client = Client(address, timeout=connect_s, set_as_default=False)
    except (OSError, ValueError) as error:
        raise UserError(f"--cluster {address}: no Dask scheduler answers there ({error}); give host:port") from None
    with client:
        workers = client.scheduler_info(n_workers=-1)["workers"]
        if not workers:
            raise UserError(f"--cluster {address}: has no worker; start some with: dask worker {address}")
        _require_shared(client, reads, writes)
        limits = [worker["memory_limit"] or float("inf") for worker in workers.values()]
        threads = sum(worker["nthreads"] for worker in workers.values())
        print(f"working on {len(workers)} Dask workers with {threads} threads at {address}")
        # Impure: a case is done as often as it is submitted, though it has the same arguments.
        executor = client.get_executor(pure=False)
        yield Pool(executor=executor, workers=threads * per_thread, budget_bytes=sum(limits) / 2)


def _require_shared(client: Client, reads: Sequence[Path], writes: Path) -> None:
    # A folder of the same name on a worker's own disk would pass without a file that was made just now.
    writes.mkdir(parents=True, exist_ok=True)
    token = writes / f".seen-{secrets.token_hex(4)}"
    token.touch()
    try:
        seen = client.run(_missing, [str(path) for path in (*reads, token)])
    except Exception as error:
        raise UserError(f"--cluster: its workers cannot run segfw ({error}); install the same version there") from None
    finally:
        token.unlink(missing_ok=True)
    for worker, missing in seen.items():
        if missing:
            unseen = writes if missing[0] == str(token) else missing[0]
            raise UserError(f"--cluster: the worker {worker} does not see {unseen}; use a disk that all workers share")


def _missing(paths: Sequence[str]) -> list[str]:
    return [path for path in paths if not Path(path).exists()]
