"""Whether an image is like those that a model was trained on, by fingerprints alone, and in words why not.

Two distances from the training images (Mahalanobis' with a shrunk covariance, and that to the three nearest ones) are
each measured in units of what 97.5 % of the training patients reach when they are left out of it themselves. The larger
of the two is an image's score. Its limit is the conformal one: what is above it has a false alarm for one in twenty
images like the training images. An odd image withdraws promises that hold for images like the training images; of the
mask it says nothing, since odd images are often segmented well.
"""

# N images, F entries, T values of all thumbnails

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from segfw.base.records import Record
from segfw.quality.image_fingerprint import CENTRE, CORRELATION, PERCENTILE, Fingerprint
from segfw.quality.odd_entries import odd_entries
from segfw.quality.patient_quantile import patient_quantile, patient_weights

FALSE_ALARMS = 0.05  # share of images like the training images that are called odd
SCALE_LEVEL = 0.975  # of each distance by itself
FAR = 3.0  # times the limit: nothing like the training images
FEWEST_PATIENTS = 8  # below, nobody can say what is usual
SHRINKAGE = 0.1  # of the covariance towards its diagonal
NEIGHBOURS = 3
LIKENESS = "likeness"  # entry of each channel: correlation of its thumbnail with the mean one of training
# Standard deviations are at least this, so that entries which hardly vary in training do not decide by themselves:
LEAST_SD_OF_LOGARITHMS = 0.05  # lengths and changes that differ by a twentieth are alike
LEAST_SD_OF_CORRELATIONS = 0.01
LEAST_SHARE_OF_RANGE = 0.01  # of the range of an image's values
DIGITS = 6  # that are kept of a training image's entries

GateName = Literal["usual", "odd", "far"]


class GateVerdict(Record):
    """What the gate says of an image: 1 is the limit of ``score``; ``percentile`` of the training patients' scores
    are below it, each patient left out of the fit; ``reasons`` are words, and none for a usual image."""

    score: float
    percentile: float
    verdict: GateName
    reasons: tuple[str, ...]


class Gate(Record):
    """The training images as the gate sees them.

    ``rows`` (N, F) are their fingerprints with the likeness of each channel, ``template`` the mean thumbnail of each
    channel, ``scale_*`` what the two distances are divided by, ``limit`` that of the larger of the two, ``scores`` and
    ``weights`` (N,) those of the training images, left out, from the lowest score on. No patient is named.
    """

    names: tuple[str, ...]
    rows: tuple[tuple[float, ...], ...]
    template: tuple[tuple[float, ...], ...]
    scale_mahalanobis: float
    scale_neighbours: float
    limit: float
    scores: tuple[float, ...]
    weights: tuple[float, ...]
    patients: int

    @property
    def false_alarms(self) -> float:
        """Share of images like the training images that are called odd, at most."""
        return max(FALSE_ALARMS, 1 / (self.patients + 1))

    def look(self, fingerprint: Fingerprint) -> GateVerdict:
        """The verdict on an image; ValueError if its fingerprint has other entries than those of training."""
        return self.look_at([fingerprint])[0]

    def look_at(self, fingerprints: Sequence[Fingerprint]) -> list[GateVerdict]:
        """Verdicts on images, each by itself; ValueError as of ``look``."""
        return self.opened().look_at(fingerprints)

    def opened(self) -> OpenGate:
        """The gate with all that is the same for every image, for those who look at one after the other."""
        rows_nf = np.asarray(self.rows)
        return OpenGate(
            gate=self,
            rows_nf=rows_nf,
            template_ct=np.asarray(self.template),
            distances=_Distances(rows_nf, self.names),
            scores_n=np.asarray(self.scores),
            weights_n=np.asarray(self.weights),
        )


@dataclass(frozen=True, kw_only=True)
class OpenGate:
    """A gate whose numbers of the training images are arrays, with the distances from them: made once for all cases."""

    gate: Gate
    rows_nf: np.ndarray
    template_ct: np.ndarray
    distances: _Distances
    scores_n: np.ndarray
    weights_n: np.ndarray

    def look(self, fingerprint: Fingerprint) -> GateVerdict:
        """As ``Gate.look``."""
        return self.look_at([fingerprint])[0]

    def look_at(self, fingerprints: Sequence[Fingerprint]) -> list[GateVerdict]:
        """As ``Gate.look_at``."""
        gate = self.gate
        for fingerprint in fingerprints:
            if _names(fingerprint) != gate.names:
                raise ValueError(f"the image's entries are {_names(fingerprint)}, those of training {gate.names}")
        rows_mf = _rows(fingerprints, self.template_ct)
        mahalanobis_m, neighbours_m = self.distances.of(rows_mf)
        larger_m = np.maximum(mahalanobis_m / gate.scale_mahalanobis, neighbours_m / gate.scale_neighbours)
        return [self._verdict(row_f, float(larger / gate.limit)) for row_f, larger in zip(rows_mf, larger_m)]

    def _verdict(self, row_f: np.ndarray, score: float) -> GateVerdict:
        gate = self.gate
        percentile = 100 * float(self.weights_n[self.scores_n < score].sum()) / gate.patients
        verdict: GateName = "usual" if score <= 1 else "odd" if score <= FAR else "far"
        reasons: tuple[str, ...] = ()
        if verdict != "usual":
            reasons = odd_entries(gate.names, row_f, self.rows_nf, self.distances.scale_f)
        return GateVerdict(score=score, percentile=min(100.0, percentile), verdict=verdict, reasons=reasons)


def fit_gate(fingerprints: Sequence[Fingerprint], patients: Sequence[str]) -> Gate | None:
    """The gate of training images, each of a patient; None if there are fewer than FEWEST_PATIENTS.

    With fewer than 19 patients the limit is the largest score of any of them. ValueError if the lists differ in length,
    or the images in their entries.
    """
    if len(fingerprints) != len(patients):
        raise ValueError(f"{len(fingerprints)} fingerprints of {len(patients)} patients")
    number = len(set(patients))
    if number < FEWEST_PATIENTS:
        return None
    names = _names(fingerprints[0])
    if any(_names(fingerprint) != names for fingerprint in fingerprints):
        raise ValueError("the images' fingerprints have different entries; they must be of one model's grid")

    # The distances of every patient from all others
    left_out = _left_out_distances(fingerprints, patients, names)
    scales = [_quantile_or_largest(distances, patients, SCALE_LEVEL) for distances in left_out]
    larger_n = np.max([distances / scale for distances, scale in zip(left_out, scales)], axis=0)
    limit = _quantile_or_largest(larger_n, patients, 1 - FALSE_ALARMS)

    # The distances from all of them
    thumbnails_nct = np.array([fingerprint.thumbnails for fingerprint in fingerprints])
    template_ct = np.round(thumbnails_nct.mean(0), DIGITS)
    rows_nf = _rows(fingerprints, template_ct)
    order = np.argsort(larger_n, kind="stable")
    return Gate(
        names=names,
        rows=tuple(tuple(float(f"{value:.{DIGITS}g}") for value in row) for row in rows_nf[order]),
        template=tuple(tuple(channel.tolist()) for channel in template_ct),
        scale_mahalanobis=scales[0],
        scale_neighbours=scales[1],
        limit=limit,
        scores=tuple((larger_n[order] / limit).tolist()),
        weights=tuple(patient_weights(patients)[order].tolist()),
        patients=number,
    )


def _left_out_distances(
    fingerprints: Sequence[Fingerprint], patients: Sequence[str], names: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Both distances (N,) of every image from those of the other patients."""
    of = np.asarray(patients, dtype=object)
    thumbnails_nct = np.array([fingerprint.thumbnails for fingerprint in fingerprints])
    plain_nf = np.array([fingerprint.values for fingerprint in fingerprints])
    mahalanobis_n = np.empty(len(of))
    neighbours_n = np.empty(len(of))
    for patient in dict.fromkeys(patients):
        is_out = of == patient
        template_ct = thumbnails_nct[~is_out].mean(0)
        rows_nf = np.hstack([plain_nf, _likeness(thumbnails_nct, template_ct)])
        found = _Distances(rows_nf[~is_out], names).of(rows_nf[is_out])
        mahalanobis_n[is_out], neighbours_n[is_out] = found
    return mahalanobis_n, neighbours_n


def _quantile_or_largest(values_n: np.ndarray, patients: Sequence[str], level: float) -> float:
    """Patients' quantile, or the largest value where they are too few for it; never 0."""
    quantile = patient_quantile(values_n, patients, level)
    return max(quantile if np.isfinite(quantile) else float(values_n.max()), 1e-9)


class _Distances:
    """Distances from the rows (N, F) of some images, in standard deviations per entry."""

    def __init__(self, rows_nf: np.ndarray, names: Sequence[str]) -> None:
        self._mean_f = rows_nf.mean(0)
        self.scale_f = _scales(rows_nf, names)
        self._rows_nf = (rows_nf - self._mean_f) / self.scale_f
        covariance_ff = np.cov(self._rows_nf.T)
        # An entry that hardly varies is as wide as its least standard deviation.
        widths_f = np.maximum(np.diag(covariance_ff), SHRINKAGE)
        self._precision_ff = np.linalg.inv((1 - SHRINKAGE) * covariance_ff + SHRINKAGE * np.diag(widths_f))

    def of(self, rows_mf: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mahalanobis distance and mean distance to the nearest rows, (M,) each, of images that are not among them."""
        z_mf = (rows_mf - self._mean_f) / self.scale_f
        squares_m = np.einsum("mf,fg,mg->m", z_mf, self._precision_ff, z_mf)
        apart_mn = np.linalg.norm(z_mf[:, None] - self._rows_nf[None], axis=2)
        return np.sqrt(squares_m), np.sort(apart_mn, axis=1)[:, :NEIGHBOURS].mean(1)


def _scales(rows_nf: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Standard deviation of each entry (F,), at least what counts as a difference at all."""
    return np.maximum(rows_nf.std(0, ddof=1), [_least_sd(rows_nf, names, name) for name in names])


def _least_sd(rows_nf: np.ndarray, names: Sequence[str], name: str) -> float:
    kind, _, channel = name.partition("/")
    if kind in (CORRELATION, LIKENESS):
        return LEAST_SD_OF_CORRELATIONS
    if kind != CENTRE and not kind.startswith(PERCENTILE):
        return LEAST_SD_OF_LOGARITHMS
    lowest = rows_nf[:, names.index(f"{PERCENTILE} 0.5/{channel}")]
    highest = rows_nf[:, names.index(f"{PERCENTILE} 99.5/{channel}")]
    return max(LEAST_SHARE_OF_RANGE * float(np.median(highest - lowest)), 1e-9)


def _names(fingerprint: Fingerprint) -> tuple[str, ...]:
    """Entries of a row."""
    channels = range(len(fingerprint.thumbnails))
    return (*fingerprint.names, *(f"{LIKENESS}/{channel}" for channel in channels))


def _rows(fingerprints: Sequence[Fingerprint], template_ct: np.ndarray) -> np.ndarray:
    """Fingerprints (N, F) with the likeness of each channel."""
    thumbnails_nct = np.array([fingerprint.thumbnails for fingerprint in fingerprints])
    plain_nf = np.array([fingerprint.values for fingerprint in fingerprints])
    return np.hstack([plain_nf, _likeness(thumbnails_nct, template_ct)])


def _likeness(thumbnails_nct: np.ndarray, template_ct: np.ndarray) -> np.ndarray:
    """Correlation (N, C) of thumbnails with the mean one: it falls in turned, mirrored and inverted images."""
    centred_nct = thumbnails_nct - thumbnails_nct.mean(-1, keepdims=True)
    centred_ct = template_ct - template_ct.mean(-1, keepdims=True)
    sizes_nc = np.linalg.norm(centred_nct, axis=-1) * np.linalg.norm(centred_ct, axis=-1)
    return (centred_nct * centred_ct).sum(-1) / np.maximum(sizes_nc, 1e-9)
