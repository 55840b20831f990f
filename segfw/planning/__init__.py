"""Everything that is decided before training: fingerprint, spacing, patch, network, batch, mirroring and folds.

Rules are pure functions; what they decide is kept as a ``Plan``. Knows data sets, grids and network specifications;
nothing of training, prediction or files beyond those that it reads as input.
"""
