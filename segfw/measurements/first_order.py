"""Intensities of a structure: statistics of first order, as the Image Biomarker Standardisation Initiative has them.

Zwanenburg et al., Radiology 295 (2020), and the initiative's reference manual, arXiv 1612.07003 (CC-BY 4.0).
"""

from __future__ import annotations

import numpy as np

from segfw.base.records import Record

CHUNK = 1 << 20  # values that are widened to 8 bytes at a time


class FirstOrder(Record):
    """Of the intensities inside, in the file's values (its scale and offset applied); sd over all, kurtosis in excess.

    ``skewness`` and ``kurtosis`` are None where all are equal, the robust deviation where none lies between p10 and
    p90, as of two values.
    """

    mean: float
    sd: float
    minimum: float
    p10: float
    median: float
    p90: float
    maximum: float
    skewness: float | None
    kurtosis: float | None
    energy: float
    rms: float
    mean_absolute_deviation: float
    robust_mean_absolute_deviation: float | None


def first_order(values: np.ndarray) -> FirstOrder:
    """Of at least one finite value; in chunks, so that little memory is needed beside them."""
    minimum, p10, median, p90, maximum = (float(each) for each in np.percentile(values, (0, 10, 50, 90, 100)))
    number = len(values)
    total, energy, _, _ = _sums_of_powers(values, 0.0)
    mean = total / number
    _, second, third, fourth = _sums_of_powers(values, mean)
    variance = second / number
    is_flat = minimum == maximum
    between = values[(values >= p10) & (values <= p90)]
    robust = _mean_deviation(between, float(between.mean(dtype=np.float64))) if len(between) else None
    return FirstOrder(
        mean=mean,
        sd=variance**0.5,
        minimum=minimum,
        p10=p10,
        median=median,
        p90=p90,
        maximum=maximum,
        skewness=None if is_flat else third / number / variance**1.5,
        kurtosis=None if is_flat else fourth / number / variance**2 - 3,
        energy=energy,
        rms=(energy / number) ** 0.5,
        mean_absolute_deviation=_mean_deviation(values, mean),
        robust_mean_absolute_deviation=robust,
    )


def _sums_of_powers(values: np.ndarray, centre: float) -> tuple[float, float, float, float]:
    """Sums of the first to the fourth power of the distance to ``centre``."""
    sums = np.zeros(4)
    for start in range(0, len(values), CHUNK):
        distance = values[start : start + CHUNK].astype(np.float64) - centre
        square = distance * distance
        sums += (distance.sum(), square.sum(), distance @ square, square @ square)
    first, second, third, fourth = sums.tolist()
    return first, second, third, fourth


def _mean_deviation(values: np.ndarray, centre: float) -> float:
    chunks = (values[start : start + CHUNK].astype(np.float64) for start in range(0, len(values), CHUNK))
    return sum(float(np.abs(chunk - centre).sum()) for chunk in chunks) / len(values)
