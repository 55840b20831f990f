"""Co-occurrence: which grey levels lie beside each other (IBSI: GLCM, 25 features)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from segfw.radiomics.level_grid import LevelGrid

COOCCURRENCE_FEATURES = (
    *("joint_maximum", "joint_average", "joint_variance", "joint_entropy"),
    *("difference_average", "difference_variance", "difference_entropy"),
    *("sum_average", "sum_variance", "sum_entropy", "angular_second_moment", "contrast", "dissimilarity"),
    *("inverse_difference", "normalised_inverse_difference"),
    *("inverse_difference_moment", "normalised_inverse_difference_moment", "inverse_variance", "correlation"),
    *("autocorrelation", "cluster_tendency", "cluster_shade", "cluster_prominence"),
    *("information_correlation_1", "information_correlation_2"),
)


def cooccurrence_matrices(grid: LevelGrid) -> Iterator[np.ndarray]:
    """How often levels lie beside each other, symmetrical (levels, levels), one matrix for each direction."""
    size = grid.highest
    for step in grid.steps:
        neighbour = grid.flat[grid.places + step]
        is_pair = neighbour > 0
        keys = (grid.levels[is_pair].astype(np.int64) - 1) * size + neighbour[is_pair] - 1
        counts = np.bincount(keys, minlength=size * size).reshape(size, size)
        yield counts + counts.T


def merged_matrix(grid: LevelGrid) -> np.ndarray:
    """The sum over directions; one at a time, because that of thousands of levels takes 100 MB."""
    total = np.zeros((grid.highest, grid.highest), np.int64)
    for matrix in cooccurrence_matrices(grid):
        total += matrix
    return total


def cooccurrence_features(matrix: np.ndarray, levels: int) -> dict[str, float | None]:
    """The 25 features of a matrix; ``levels`` is their number, by which two are normalised. None without any pair."""
    total = matrix.sum()
    if not total:
        return dict.fromkeys(COOCCURRENCE_FEATURES)
    joint = matrix / total
    first, second = np.indices(joint.shape) + 1.0
    distance = np.abs(first - second)
    margin = joint.sum(0)
    level = np.arange(1, len(joint) + 1.0)
    average = float(margin @ level)
    variance = float(margin @ (level - average) ** 2)
    shifted = first + second - 2 * average
    sides = np.indices(joint.shape)
    differences = np.bincount(np.abs(sides[0] - sides[1]).ravel(), joint.ravel())
    sums = np.bincount((sides[0] + sides[1]).ravel(), joint.ravel())
    steps = np.arange(len(differences))
    totals = np.arange(len(sums)) + 2.0
    difference_average = float(differences @ steps)
    sum_average = float(sums @ totals)
    apart = distance > 0
    autocorrelation = float((joint * first * second).sum())
    return {
        "joint_maximum": float(joint.max()),
        "joint_average": average,
        "joint_variance": variance,
        "joint_entropy": entropy(joint),
        "difference_average": difference_average,
        "difference_variance": float(differences @ (steps - difference_average) ** 2),
        "difference_entropy": entropy(differences),
        "sum_average": sum_average,
        "sum_variance": float(sums @ (totals - sum_average) ** 2),
        "sum_entropy": entropy(sums),
        "angular_second_moment": float((joint**2).sum()),
        "contrast": float((joint * distance**2).sum()),
        "dissimilarity": float((joint * distance).sum()),
        "inverse_difference": float((joint / (1 + distance)).sum()),
        "normalised_inverse_difference": float((joint / (1 + distance / levels)).sum()),
        "inverse_difference_moment": float((joint / (1 + distance**2)).sum()),
        "normalised_inverse_difference_moment": float((joint / (1 + (distance / levels) ** 2)).sum()),
        "inverse_variance": float((joint[apart] / distance[apart] ** 2).sum()),
        "correlation": (autocorrelation - average**2) / variance if variance > 0 else None,
        "autocorrelation": autocorrelation,
        "cluster_tendency": float((joint * shifted**2).sum()),
        "cluster_shade": float((joint * shifted**3).sum()),
        "cluster_prominence": float((joint * shifted**4).sum()),
        **_information(joint, margin),
    }


def _information(joint: np.ndarray, margin: np.ndarray) -> dict[str, float | None]:
    """How much one level tells of the one beside it."""
    if np.count_nonzero(margin) < 2:
        return dict.fromkeys(COOCCURRENCE_FEATURES[-2:])
    apart = np.outer(margin, margin)
    is_there = apart > 0
    logs = np.zeros_like(apart)
    logs[is_there] = np.log2(apart[is_there])
    of_both = entropy(joint)
    crossed = -float((joint * logs).sum())
    of_apart = -float((apart * logs).sum())
    return {
        "information_correlation_1": (of_both - crossed) / entropy(margin),
        "information_correlation_2": float(np.sqrt(max(0.0, 1 - np.exp(-2 * (of_apart - of_both))))),
    }


def entropy(shares: np.ndarray) -> float:
    """In bits."""
    some = shares[shares > 0]
    return 0.0 - float((some * np.log2(some)).sum())  # of one share alone 0, and not -0
