"""From how many steps on a network may be worth its masks: the one place where that is decided, and why."""

from __future__ import annotations

from segfw.base.words import count

# Fewer updates than this leave a network that has hardly left its random beginning. SGD's momentum alone averages the
# last 10 to 100 steps, and the rate takes twice as many to rise; a made-up data set of bright spheres needs a few
# hundred steps until its masks look like spheres (segfw demo: Dice 0.02 after 6 steps), real images need thousands.
FEWEST_USABLE_STEPS = 300
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
