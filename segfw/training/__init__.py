"""Training of one fold: batches, steps, validation, checkpoints, and what is written down of them.

``loop.train`` takes a TrainRequest. ``prepare`` makes two things of it: the TrainState, which changes (network,
optimiser, counters; kept in checkpoints), and the TrainRun, which does not (settings, data, where it is written).
``epochs`` and ``step`` then work on both.

It knows plans and stored cases. It knows nothing of images on disk, of inference (who wants whole cases to be predicted
while the network trains brings a function that does) and of the folds beside its own.
"""
