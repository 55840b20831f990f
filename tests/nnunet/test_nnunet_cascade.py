"""An imported cascade hands labels on by nnU-Net's way: over the image's grid, where the outside is a class."""

import numpy as np
import pytest
import torch

from builders.nnunet import REGIONS, dataset, plans, state, trained_folder
from segfw.grid.preprocess import outside_of, preprocess_classes
from segfw.grid.restore import restore
from segfw.grid.slabs import dense
from segfw.images.geometry import Geometry
from segfw.images.volume import Volume
from segfw.inference.predictor import Predictor
from segfw.model.load import load_model
from segfw.verbs.import_nnunet import import_nnunet


def cascade(folder, labels: dict | None = None) -> Predictor:
    """Stages at 5 x 1.6 x 0.8 and 5 x 1 x 0.5 mm with random weights, imported."""
    written = plans()
    described = dataset(labels)
    low = written["configurations"]["3d_fullres"] | {"spacing": [5.0, 1.6, 0.8]}
    written["configurations"] |= {
        "3d_lowres": low,
        "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
    }
    outputs = 2 if labels else 3
    common = {"written": written, "described": described}
    trained_folder(folder, **common, name="3d_lowres", weights=state(classes=outputs))
    second = trained_folder(folder, **common, name="3d_cascade_fullres", weights=state(inputs=4, classes=outputs))
    import_nnunet(second, folder / "out")
    model = load_model(folder / "out", "3d_cascade_fullres")
    return Predictor.of(model, device="cpu", precision="fp32", mirroring=False)


@pytest.mark.parametrize("labels", [None, REGIONS])
def test_the_second_stage_sees_the_mask_of_the_first_with_the_outside_as_a_class(tmp_path, labels):
    predictor = cascade(tmp_path, labels)
    random = np.random.default_rng(0)
    image = random.normal(100, 50, (2, 20, 7, 25)).astype(np.float32)
    image[:, random.random((20, 7, 25)) < 0.4] = 0  # every border of the outside that there can be
    volume = Volume(array=image, geometry=Geometry.of((20, 7, 25), np.diag([1.2, 5.5, 0.6, 1])))
    prepared = predictor.prepare(volume)
    first = predictor.previous
    mask = first.classes(first.prepare(volume))
    found = Volume(array=mask[None], geometry=volume.geometry)
    outside = outside_of(volume, prepared.record)
    seen = preprocess_classes(found, prepared.record, outside)
    assert (seen != preprocess_classes(found, prepared.record)).any()
    wanted = dense(predictor.network_slabs(prepared.image, seen))
    torch.testing.assert_close(dense(predictor.slabs(prepared)), wanted)
    painted = predictor.plan.labels.painted_classes
    np.testing.assert_array_equal(predictor.classes(prepared), restore(wanted, prepared.record, painted))
    assert prepared.held_bytes >= predictor.previous.prepare(volume).held_bytes + prepared.image.nbytes + outside.nbytes


def test_the_outside_is_looked_for_only_where_it_is_needed(tmp_path):
    predictor = cascade(tmp_path)
    image = np.full((2, 8, 6, 10), 70, np.float32)
    image[:, 0, 0, 0] = 0
    volume = Volume(array=image, geometry=Geometry.of((8, 6, 10), np.diag([1.0, 5.0, 0.5, 1])))
    prepared = predictor.prepare(volume)
    assert int(prepared.outside.sum()) == 1
    assert prepared.previous.outside is None


def test_the_outside_is_counted_apart_from_the_background_where_both_meet_a_label(tmp_path):
    """Half as many voxels along two axes: each new one counts four, of which 2 of a label win over 1 and 1."""
    predictor = cascade(tmp_path)
    random = np.random.default_rng(1)
    image = random.uniform(50, 100, (2, 8, 3, 12)).astype(np.float32)
    volume = Volume(array=image, geometry=Geometry.of((8, 3, 12), np.diag([0.5, 5.0, 0.25, 1])))
    record = predictor.prepare(volume).record
    assert (record.axis_order, tuple(record.shape)) == ((1, 0, 2), (3, 4, 6))
    kinds = random.integers(-1, 3, (8, 3, 12))  # -1 is outside, 0 the background
    found = Volume(array=kinds.clip(min=0).astype(np.uint8)[None], geometry=volume.geometry)
    turned = kinds.transpose(1, 0, 2)
    seen = preprocess_classes(found, record, turned == -1).numpy()
    joined = preprocess_classes(found, record).numpy()
    compared = different = 0
    for z, y, x in np.ndindex(3, 4, 6):
        block = turned[z, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
        counts = [(block == kind).sum() for kind in (-1, 0, 1, 2)]
        if counts.count(max(counts)) > 1:  # a tie, for which there is another rule
            continue
        assert seen[z, y, x] == max(0, int(np.argmax(counts)) - 1)
        compared += 1
        different += seen[z, y, x] != joined[z, y, x]
    assert compared > 30
    assert different > 0
