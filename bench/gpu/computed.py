"""Times of trainings on cards that nobody has measured yet, computed from their makers' figures: ``--computed``.

A step is its convolutions, at a quarter to a half of the card's peak in bf16, an estimate for layers of few channels,
and the passes over the images between them, counted as ten times the tensors of a step, at the card's bandwidth. What
it leaves out: launches, data, augmentation.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.published_plan import published_plan
from segfw.planning.memory import needed_gb, step_cost
from segfw.planning.published import EPOCHS, STEPS_PER_EPOCH

PRESETS = ("plain", "resenc-m", "resenc-l")
LEAST_SHARE = 0.25  # of the peak that convolutions reach
LARGEST_SHARE = 0.5
PASSES = 10  # over all tensors of a step


@dataclass(frozen=True, kw_only=True)
class Card:
    """By the maker's data sheet: bf16 products with float32 sums, without sparsity, and the memory's bandwidth."""

    name: str
    memory_gb: int
    tflop_per_s: float
    tb_per_s: float


CARDS = (
    Card(name="RTX 3060", memory_gb=12, tflop_per_s=25, tb_per_s=0.36),
    Card(name="RTX 3090", memory_gb=24, tflop_per_s=71, tb_per_s=0.94),
    Card(name="RTX 4090", memory_gb=24, tflop_per_s=165, tb_per_s=1.01),
    Card(name="RTX 5090", memory_gb=32, tflop_per_s=210, tb_per_s=1.79),
    Card(name="A100", memory_gb=80, tflop_per_s=312, tb_per_s=2.04),
    Card(name="H100 SXM", memory_gb=80, tflop_per_s=989, tb_per_s=3.35),
    Card(name="H200", memory_gb=141, tflop_per_s=989, tb_per_s=4.8),
)


@dataclass(frozen=True, kw_only=True)
class Work:
    """A step of a preset's published plan for CT of about 300^3 voxels and 15 classes."""

    preset: str
    patch: str
    batch: int
    tflop: float
    tensors_gb: float

    @property
    def needed_gb(self) -> float:
        """Memory of the smallest card that it fits on."""
        return needed_gb(self.tensors_gb)

    def step_ms(self, card: Card) -> tuple[float, float]:
        """At the best and at the worst."""
        passes_ms = PASSES * self.tensors_gb / card.tb_per_s
        shares = (LARGEST_SHARE, LEAST_SHARE)
        best_ms, worst_ms = (self.tflop / (share * card.tflop_per_s) * 1e3 + passes_ms for share in shares)
        return best_ms, worst_ms


def work_of(preset: str) -> Work:
    choice = published_plan(preset)
    cost = step_cost(choice.network)
    return Work(
        preset=preset,
        patch=" x ".join(map(str, choice.patch_size)),
        batch=choice.batch_size,
        tflop=cost.flops(choice.patch_size, choice.batch_size) / 1e12,
        tensors_gb=cost.peak_bytes(choice.patch_size, choice.batch_size) / 2**30,
    )


def table() -> str:
    """Markdown: a row for each card, with the hours of the published 250,000 steps for each preset."""
    works = [work_of(preset) for preset in PRESETS]
    steps = EPOCHS * STEPS_PER_EPOCH
    heads = [f"{work.preset}: {work.patch}, {work.batch} a step, needs {work.needed_gb:.0f} GB" for work in works]
    lines = [
        "| card | figures | " + " | ".join(heads) + " |",
        "|---|---|" + "---|" * len(works),
    ]
    for card in CARDS:
        cells = [f"{card.name}, {card.memory_gb} GB", "computed"]
        for work in works:
            if work.needed_gb > card.memory_gb:
                cells.append("does not fit")
                continue
            best_ms, worst_ms = work.step_ms(card)
            hours = [ms * steps / 3.6e6 for ms in (best_ms, worst_ms)]
            cells.append(f"{_range(best_ms, worst_ms)} ms a step, {_range(*hours)} h")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _range(low: float, high: float) -> str:
    """'22 to 34', or 'about 2' where both are rounded to the same."""
    texts = [f"{low:.0f}", f"{high:.0f}"]
    return f"about {texts[0]}" if texts[0] == texts[1] else " to ".join(texts)
