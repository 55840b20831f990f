"""What predict writes in each format, read and scored by segfw's own readers: the mask that it was made of."""

from __future__ import annotations

import numpy as np
import pytest

from builders.data import blocks_case
from builders.series import OBLIQUE, write_series
from segfw.images.formats import read_mask, read_volume
from segfw.verbs.evaluate import evaluate
from segfw.verbs.predict import predict


@pytest.mark.parametrize("axes", [None, OBLIQUE])
def test_every_format_is_read_and_scored_as_the_mask_that_it_was_made_of(model, axes, tmp_path):
    scans = tmp_path / "scans"
    for number, case in enumerate("ab", 1):
        image, _ = blocks_case(number)
        place = {} if axes is None else {"axes": axes}
        write_series(scans / case, image.T * 100, shuffled=number, spacing_mm=(2.0, 1.0, 1.0), number=number, **place)
    out = tmp_path / "masks"
    predict(model, scans, out, device="cpu", formats=("nifti", "seg.nrrd", "dicom-seg", "rtstruct"))
    for folder, ending in (("seg-nrrd", ".seg.nrrd"), ("dicom-seg", ".dcm"), ("rtstruct", ".dcm")):
        for case in "ab":
            mask = read_mask(out / f"{case}.nii.gz")
            assert set(np.unique(mask.array).tolist()) == {0, 3, 7}
            again = read_mask(out / folder / f"{case}{ending}", read_volume(scans / case))
            # Numbers of structures in a file are its own: 1 and 2 for the values 3 and 7
            meaning = {"seg-nrrd": {3: 3, 7: 7}}.get(folder, {3: 1, 7: 2})
            for value, number in meaning.items():
                np.testing.assert_array_equal(again.array == number, mask.array == value)
        scores = evaluate(out / folder, out, surface=False)
        assert len(scores.cases) == 2
        assert {score.dice for case in scores.cases.values() for score in case.values()} == {1.0}
