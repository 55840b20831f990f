"""Made-up pools of masks, some of which fail, and how often the bound of an audit of them holds."""

from __future__ import annotations

import numpy as np

from segfw.base.records import Record
from segfw.worklist.failure_bound import ALPHA, failure_bound

READ = 59


class AuditsResult(Record):
    """How often the bound was not below the true share of failures, over pools of one size."""

    pool: int
    read: int
    alpha: float
    pools: int
    held: float
    mean_bound: float
    mean_share: float

    @property
    def text(self) -> str:
        """In a sentence."""
        return (
            f"pools of {self.pool}, {self.read} read: the {100 * (1 - self.alpha):g} % bound held in {self.held:.4f} "
            f"of {self.pools} (mean bound {self.mean_bound:.3f}, mean share of failures {self.mean_share:.3f})"
        )


def simulated_audits(pools: int, *, sizes: tuple[int, ...] = (100, 200, 999, 1000, 20_000)) -> list[AuditsResult]:
    """Pools with 0 to 30 % of failures, drawn evenly."""
    results = []
    for size in sizes:
        rng = np.random.default_rng(size)
        bad = rng.integers(0, int(0.3 * size) + 1, pools)
        seen = rng.hypergeometric(bad, size - bad, READ)
        bound_of = {int(k): failure_bound(int(k), READ, pool=size) for k in np.unique(seen)}
        bounds = np.array([bound_of[int(k)] for k in seen])
        results.append(
            AuditsResult(
                pool=size,
                read=READ,
                alpha=ALPHA,
                pools=pools,
                held=float((bounds >= bad / size - 1e-12).mean()),
                mean_bound=float(bounds.mean()),
                mean_share=float((bad / size).mean()),
            )
        )
    return results
