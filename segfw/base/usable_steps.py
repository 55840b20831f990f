"""From how many steps of training on a network may be worth its masks: one number for all who warn of fewer."""

# Fewer updates than this leave a network that has hardly left its random beginning. SGD's momentum alone averages the
# last 10 to 100 steps, and the rate takes twice as many to rise; a made-up data set of bright spheres needs a few
# hundred steps until its masks look like spheres (segfw demo: Dice 0.02 after 6 steps).
FEWEST_USABLE_STEPS = 300
