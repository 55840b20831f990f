"""What a network of so many steps may be worth: the one place where that is decided, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from segfw.base.usable_steps import FEWEST_USABLE_STEPS
from segfw.base.words import count
from segfw.planning.for_time import SCALABLE
from segfw.planning.plan import Configuration
from segfw.planning.structure_sizes import SMALL_SHARE

# For structures under SMALL_SHARE: organs of the neck, each under 0.2 % of it, had a mean Dice of 0.59 to 0.64 in five
# trainings of 1476 to 1875 steps, for which 1317 and more were foretold, and of 0.69 after 2294 (docs/benchmarks.md).
FEWEST_STEPS_FOR_SMALL = 1300
# Networks of fewer features in the first stage lost nearly all of these organs however long they were trained: slices
# with 16 had 0.10 after 1849 steps and 0.12 after 2315, volumes with 8 had 0.11 after 1991.
FEWEST_FEATURES_FOR_SMALL = 32
# Structures share the patches between them: 59 in slices of the brain, with 420 steps foretold, 7 each, had a Dice
# of 0.04, and 0.08 where they are large; 7 of the neck with 1317 steps, 188 each, had 0.64 (docs/benchmarks.md).
FEWEST_STEPS_A_STRUCTURE = 30
SHOWN = 3  # names
LONG_TRAINING_S = 2 * 24 * 3600.0  # from which nobody starts one without having been told
EXAMPLE_BUDGET = "2h"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The numbers that ``usefulness`` goes by; ``bench accuracy usefulness`` asks what others would have said."""

    usable_steps: int = FEWEST_USABLE_STEPS
    steps_a_structure: int = FEWEST_STEPS_A_STRUCTURE
    small_share: float = SMALL_SHARE
    steps_for_small: int = FEWEST_STEPS_FOR_SMALL
    features_for_small: int = FEWEST_FEATURES_FOR_SMALL


LIMITS = Limits()


def too_few_steps(steps: int) -> str:
    """What to say of a network that was trained for so few steps; '' where there are enough."""
    if steps >= FEWEST_USABLE_STEPS:
        return ""
    return (
        f"{count(steps, 'step')} of training: too few for a usable model ({FEWEST_USABLE_STEPS} is the least, "
        "thousands are usual): its scores and masks only show that everything works"
    )


def features_that_tell(configuration: Configuration) -> int | None:
    """Features of the first stage of a network, of which ``usefulness`` knows what they are worth; None of others.

    Of other architectures they are part of what these are, and a network that sees one structure at a time, around a
    place where somebody clicked, does not have to find it.
    """
    network = configuration.network
    is_known = network.architecture in SCALABLE and not configuration.is_refiner
    return network.features[0] if is_known else None


def usefulness(
    steps: int,
    shares: Mapping[str, float],
    features: int | None = None,
    limits: Limits = LIMITS,
    *,
    shown: int = SHOWN,
) -> str:
    """What so many steps are expected to be enough for.

    Parameters
    ----------
    steps
        Of one fold.
    shares
        Of the structures: what part of a case each takes, as far as that is known.
    features
        Those of the network's first stage, where they tell (``features_that_tell``).
    limits
        What it is decided by.
    shown
        How many structures are named.
    """
    if steps < limits.usable_steps:
        return "too few for a usable model"
    if steps < limits.steps_a_structure * len(shares):
        return f"too few for {count(len(shares), 'structure')}"
    is_narrow = features is not None and features < limits.features_for_small
    if steps >= limits.steps_for_small and not is_narrow:
        return "enough for large and small structures"
    small = [name for name, share in shares.items() if share < limits.small_share]
    if not shares:
        return "enough for large structures, not for small ones"
    if not small:
        return f"enough for large structures, such as {'all' if len(shares) > 1 else 'the one'} here"
    if len(small) == len(shares):
        what = "too few" if steps < limits.steps_for_small else "too few features"
        return f"{what} for structures under {limits.small_share:.1%} of a case, which all here are"
    listed = ", ".join(small[:shown]) + (f" and {len(small) - shown} more" if len(small) > shown else "")
    return f"enough for large structures, not for small ones ({listed})"
