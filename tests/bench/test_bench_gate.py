"""Figures of the gate on made-up fingerprints: false alarms, what is seen and what is not."""

import json

import numpy as np
import pytest

from bench.gate import Figure, Seen, auroc, gate_figures, gate_table
from segfw.base.records import UserError
from segfw.quality.image_fingerprint import Fingerprint

NAMES = (*(f"percentile {percent}/0" for percent in ("0.5", "99.5")), "noise/0", "extent head-foot")


def fingerprint(rng, noise=0.0):
    values = (-2.0, 2.0, noise + 0.2 * rng.normal(), 4 + 0.1 * rng.normal())
    return Fingerprint(names=NAMES, values=values, thumbnails=(tuple(np.arange(64) + rng.normal(size=64)),))


def seen(patients, rng):
    return [
        Seen(
            patient=str(patient),
            by_shift={
                "clean": fingerprint(rng),
                "noise": fingerprint(rng, 3.0),
                "nothing": fingerprint(rng),
            },
        )
        for patient in range(patients)
    ]


def test_what_differs_is_flagged_and_what_does_not_is_said_to_be_missed():
    figures = gate_figures(seen(60, np.random.default_rng(0)), splits=5)
    assert (figures.images, figures.patients, figures.fitted_patients, figures.splits) == (60, 60, 40, 5)
    assert figures.shifts["noise"].flagged.mean == pytest.approx(1)
    assert figures.shifts["noise"].auroc.mean == 1
    assert figures.shifts["noise"].reason == "noisier"
    assert figures.shifts["clean"].flagged.mean < 0.2
    assert figures.shifts["clean"].auroc is None
    assert 0.3 < figures.shifts["nothing"].auroc.mean < 0.7
    text = gate_table(figures)
    assert "60 images of 60 patients, 40 of them fitted on, 5 splits" in text
    assert text.splitlines()[-1] == "hardly seen (AUROC below 0.7): nothing"
    assert json.loads(figures.model_dump_json())["shifts"]["noise"]["far"]["low"] <= 1


def test_auroc_counts_pairs_and_halves_ties():
    # Pairs (2, 1) and (2, 1): above; (2, 2): a tie; (1, 1) twice: ties; (1, 2): below.
    assert auroc([1, 1, 2], [2, 1]) == pytest.approx((2 + 0.5 + 1) / 6)


def test_a_figure_is_a_mean_and_the_range_of_nine_tenths():
    figure = Figure.of(list(range(21)))
    assert (figure.mean, figure.low, figure.high) == (10, 1, 19)
    assert figure.text == "10.000 [1.000, 19.000]"


def test_too_few_patients_are_refused():
    with pytest.raises(UserError, match="11 patients are too few"):
        gate_figures(seen(11, np.random.default_rng(0)), splits=2)
