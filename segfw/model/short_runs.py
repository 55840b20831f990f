"""What a network of so many steps may be worth: the one place where that is decided, and why."""

from __future__ import annotations

from collections.abc import Mapping

from segfw.base.usable_steps import FEWEST_USABLE_STEPS
from segfw.base.words import count
from segfw.planning.structure_sizes import SMALL_SHARE

# For structures under SMALL_SHARE: organs of the neck, each under 0.2 % of it, had a mean Dice of 0.59 to 0.64 in five
# trainings of 1476 to 1875 steps, for which 1317 and more were foretold, and of 0.69 after 2294. A network of half the
# features had 0.10 after 1849 (docs/benchmarks.md).
FEWEST_STEPS_FOR_SMALL = 1300
SHOWN = 3  # names
LONG_TRAINING_S = 2 * 24 * 3600.0  # from which nobody starts one without having been told
EXAMPLE_BUDGET = "2h"


def too_few_steps(steps: int) -> str:
    """What to say of a network that was trained for so few steps; '' where there are enough."""
    if steps >= FEWEST_USABLE_STEPS:
        return ""
    return (
        f"{count(steps, 'step')} of training: too few for a usable model ({FEWEST_USABLE_STEPS} is the least, "
        "thousands are usual): its scores and masks only show that everything works"
    )


def usefulness(steps: int, shares: Mapping[str, float]) -> str:
    """What so many steps are expected to be enough for.

    ``shares`` are of the structures: what part of a case each takes, as far as that is known.
    """
    if steps < FEWEST_USABLE_STEPS:
        return "too few for a usable model"
    if steps >= FEWEST_STEPS_FOR_SMALL:
        return "enough for large and small structures"
    small = [name for name, share in shares.items() if share < SMALL_SHARE]
    if not shares:
        return "enough for large structures, not for small ones"
    if not small:
        return f"enough for large structures, such as {'all' if len(shares) > 1 else 'the one'} here"
    if len(small) == len(shares):
        return f"too few for structures under {SMALL_SHARE:.1%} of a case, which all here are"
    listed = ", ".join(small[:SHOWN]) + (f" and {len(small) - SHOWN} more" if len(small) > SHOWN else "")
    return f"enough for large structures, not for small ones ({listed})"
