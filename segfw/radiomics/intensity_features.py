"""Intensities of a structure, as they are (IBSI: 18 statistics) and as a histogram of grey levels (23 features)."""

from __future__ import annotations

import numpy as np

from segfw.measurements.first_order import first_order
from segfw.radiomics.cooccurrence import entropy

STATISTICS = (
    *("mean", "variance", "skewness", "kurtosis", "median", "minimum", "p10", "p90", "maximum"),
    *("interquartile_range", "range", "mean_absolute_deviation", "robust_mean_absolute_deviation"),
    *("median_absolute_deviation", "coefficient_of_variation", "quartile_coefficient_of_dispersion"),
    *("energy", "root_mean_square"),
)
OF_BOTH = STATISTICS[:-2]
HISTOGRAM_FEATURES = (
    *OF_BOTH,
    *("mode", "entropy", "uniformity"),
    *("maximum_gradient", "maximum_gradient_level", "minimum_gradient", "minimum_gradient_level"),
)


def intensity_statistics(values: np.ndarray) -> dict[str, float | None]:
    """The 18 statistics of at least one value; None is what cannot be told, such as the skewness of equal values."""
    found = first_order(values)
    low, high = (float(each) for each in np.percentile(values, (25, 75)))
    return {
        "mean": found.mean,
        "variance": found.sd**2,
        "skewness": found.skewness,
        "kurtosis": found.kurtosis,
        "median": found.median,
        "minimum": found.minimum,
        "p10": found.p10,
        "p90": found.p90,
        "maximum": found.maximum,
        "interquartile_range": high - low,
        "range": found.maximum - found.minimum,
        "mean_absolute_deviation": found.mean_absolute_deviation,
        "robust_mean_absolute_deviation": found.robust_mean_absolute_deviation,
        "median_absolute_deviation": float(np.abs(values - found.median).mean(dtype=np.float64)),
        "coefficient_of_variation": found.sd / found.mean if found.mean else None,
        "quartile_coefficient_of_dispersion": (high - low) / (high + low) if high + low else None,
        "energy": found.energy,
        "root_mean_square": found.rms,
    }


def histogram_features(levels: np.ndarray) -> dict[str, float | None]:
    """The 23 features of the levels of a structure, which begin at 1."""
    statistics = intensity_statistics(levels)
    counts = np.bincount(levels)[1:]
    shares = counts / len(levels)
    nearest = np.abs(np.arange(1, len(counts) + 1) - levels.mean())
    most = np.flatnonzero(counts == counts.max())
    found: dict[str, float | None] = {name: statistics[name] for name in OF_BOTH}
    found["mode"] = float(most[np.argmin(nearest[most])] + 1)  # of several the one nearest to the mean
    found["entropy"] = entropy(shares)
    found["uniformity"] = float((shares**2).sum())
    return found | _gradients(counts)


def _gradients(counts: np.ndarray) -> dict[str, float | None]:
    """The steepest rise and fall of the histogram, and the levels of them."""
    if len(counts) < 2:
        return dict.fromkeys(HISTOGRAM_FEATURES[-4:])
    gradient = np.gradient(counts.astype(np.float64))
    return {
        "maximum_gradient": float(gradient.max()),
        "maximum_gradient_level": float(gradient.argmax() + 1),
        "minimum_gradient": float(gradient.min()),
        "minimum_gradient_level": float(gradient.argmin() + 1),
    }
